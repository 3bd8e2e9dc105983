"""What light, cameras and scarves do to a face: eleven corruptions at five severities, applied to tensors.

The idea of fixed corruptions and severities is Hendrycks and Dietterich's (2019). Where a corruption has a side, an
angle or a place, or adds noise, it is drawn from a generator of each image's own seed: a face is changed in the same
way whatever batch it comes in.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from agr_utils.data.augment import ANGLE, SCALE, check_images, warp
from agr_utils.dials import Augmentation
from agr_utils.errors import InputError, name_hint

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class FaceLayout:
    """Where a data set's aligned faces have their eyes and mouth, as shares of the image's height."""

    eyes: float
    mouth: float


# Read off the mean face of UTKFace; known for the drawn faces; a guess for FairFace, whose crops are wider.
LAYOUTS = {"utkface": FaceLayout(0.28, 0.69), "synthetic": FaceLayout(0.435, 0.54), "fairface": FaceLayout(0.42, 0.70)}

# images (B, 3, H, W) in [0, 1], the strength, a generator for each image, the layout
Change = Callable[[Tensor, float, Sequence[torch.Generator], FaceLayout], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One kind of change: title, function, strengths of the five severities, and what such a number means."""

    title: str
    change: Change
    strengths: tuple[float, float, float, float, float]
    meaning: str


def corrupt(
    images: Tensor, name: str, severity: int, seeds: Sequence[int] | None = None, data: str = "utkface"
) -> Tensor:
    """Change a batch.

    Args:
        images: (B, 3, H, W) float32 in [0, 1]; left as they are.
        name: a key of CORRUPTIONS.
        severity: 1 (mild) to 5 (severe).
        seeds: one per image, of what is random about it; the image's place in the batch where it is None.
        data: name of the data set, for where its faces have eyes and mouth.

    Returns:
        (B, 3, H, W) float32 in [0, 1].

    Raises:
        InputError: for an unknown name, severity or data set, for no such images, or another number of seeds.
    """
    images = check_images(images).clamp(0, 1)  # it lets rounding errors pass, which have no power
    if name not in CORRUPTIONS:
        raise InputError(f"unknown corruption '{name}'. {name_hint(name, CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise InputError(f"severity is {severity}; choose 1 (mild) to 5 (severe)")
    if data not in LAYOUTS:
        raise InputError(f"unknown data set '{data}'. Choose one of: {', '.join(LAYOUTS)}")
    seeds = range(len(images)) if seeds is None else seeds
    if len(seeds) != len(images):
        raise InputError(f"{len(seeds)} seeds for {len(images)} images; give one each")
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    chosen = CORRUPTIONS[name]
    return chosen.change(images, chosen.strengths[int(severity) - 1], generators, LAYOUTS[data]).clamp(0, 1)


def _draw(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), (B, *shape)."""
    return torch.stack([torch.rand(shape, generator=generator) for generator in generators])


def _side(generators: Sequence[torch.Generator]) -> Tensor:
    """0 or 1 for each image, (B,) float32."""
    return (_draw(generators, 1)[:, 0] < 0.5).float()


def _flatten(images: Tensor, share: float, *_: object) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    return mean + share * (images - mean)


def _shade(images: Tensor, loss: float, generators: Sequence[torch.Generator], *_: object) -> Tensor:
    """Light from one side: the other loses ``loss`` of it, in a straight ramp."""
    ramp = (torch.arange(images.shape[3]) + 0.5) / images.shape[3]  # (W,)
    from_left = _side(generators)[:, None]
    distance = from_left * ramp + (1 - from_left) * (1 - ramp)  # (B, W)
    return images * (1 - loss * distance)[:, None, None, :].to(images.device)


def _low_light(images: Tensor, exposure: float, generators: Sequence[torch.Generator], *_: object) -> Tensor:
    """Fewer photons: darker, with shot noise (variance as the light) and read noise; then turned up again halfway."""
    noise = torch.stack([torch.randn(image.shape, generator=g) for image, g in zip(images, generators, strict=True)])
    noise, light = noise.to(images.device), images * exposure
    noisy = light + noise * (0.001 * light + 0.00005).sqrt()
    return noisy.clamp(min=0) * exposure**-0.5


def _blur(images: Tensor, sigma: float, *_: object) -> Tensor:
    from torchvision.transforms.v2 import functional as vision  # takes seconds, and readers of sweeps need none

    pixels = sigma * images.shape[3]
    width = 2 * int(3 * pixels + 0.5) + 1
    return vision.gaussian_blur(images, [width, width], [pixels, pixels])


def _jpeg(images: Tensor, quality: float, *_: object) -> Tensor:
    pixels = (images * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        image[:] = Image.open(file)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(images.device).float() / 255


def _rotate(images: Tensor, degrees: float, generators: Sequence[torch.Generator], *_: object) -> Tensor:
    return _warp(images, Augmentation(flip=0, affine=1, rotation=degrees), ANGLE, _side(generators))


def _resize(images: Tensor, change: float, generators: Sequence[torch.Generator], *_: object) -> Tensor:
    return _warp(images, Augmentation(flip=0, affine=1, scale=change), SCALE, _side(generators))


def _warp(images: Tensor, settings: Augmentation, draw: int, side: Tensor) -> Tensor:
    """The warp of the augmentation with one of its changes at one end of its range, and the others at the middle."""
    draws = torch.full((6, len(images)), 0.5)
    draws[draw] = side
    return warp(images, settings, draws.to(images.device))


def _eye_bar(images: Tensor, height: float, _: object, layout: FaceLayout) -> Tensor:
    """Sunglasses: a black bar over the eyes, wider the higher it is."""
    half_width = min(0.5, 0.3 + height)
    return _fill(images, layout.eyes - height / 2, layout.eyes + height / 2, 0.5 - half_width, 0.5 + half_width, 0.05)


def _mouth_block(images: Tensor, height: float, _: object, layout: FaceLayout) -> Tensor:
    """A mask: a pale block over the mouth that grows upwards and downwards."""
    return _fill(images, layout.mouth - height / 2, layout.mouth + height / 2, 0.5 - 0.42, 0.5 + 0.42, 0.8)


def _random_block(images: Tensor, side: float, generators: Sequence[torch.Generator], *_: object) -> Tensor:
    """Something grey in front of the face, anywhere."""
    top, left = (_draw(generators, 2) * (1 - side)).T[:, :, None]  # each (B, 1)
    return _fill(images, top, top + side, left, left + side, 0.5)


def _fill(images: Tensor, top, bottom, left, right, value: float) -> Tensor:
    """Fill a rectangle given in shares of the sides, each a number or (B, 1)."""
    rows = (torch.arange(images.shape[2]) + 0.5) / images.shape[2]
    columns = (torch.arange(images.shape[3]) + 0.5) / images.shape[3]
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    mask = in_rows.expand(len(images), -1)[:, None, :, None] & in_columns.expand(len(images), -1)[:, None, None, :]
    return images.masked_fill(mask.to(images.device), value)


CORRUPTIONS = {
    "gamma": Corruption("Gamma", lambda images, exponent, *_: images**exponent, (1.4, 1.8, 2.4, 3.2, 4.2), "exponent"),
    "contrast": Corruption("Low contrast", _flatten, (0.7, 0.5, 0.35, 0.22, 0.12), "share of the contrast left"),
    "shade": Corruption("Light from one side", _shade, (0.4, 0.6, 0.75, 0.88, 0.97), "light lost at the far side"),
    "low_light": Corruption("Low light, noise", _low_light, (0.5, 0.3, 0.18, 0.1, 0.05), "share of the light"),
    "blur": Corruption("Blur", _blur, (0.008, 0.014, 0.022, 0.032, 0.045), "sigma, share of the side"),
    "jpeg": Corruption("JPEG", _jpeg, (70, 45, 25, 12, 6), "quality"),
    "rotation": Corruption("Rotation", _rotate, (8, 16, 24, 35, 50), "degrees, either way"),
    "scale": Corruption("Scale", _resize, (0.1, 0.2, 0.3, 0.4, 0.5), "change of the visible part, either way"),
    "eye_bar": Corruption("Bar over the eyes", _eye_bar, (0.06, 0.1, 0.14, 0.2, 0.28), "height, share of the side"),
    "mouth_block": Corruption("Mouth covered", _mouth_block, (0.1, 0.2, 0.3, 0.4, 0.5), "height, share of the side"),
    "random_block": Corruption("Block anywhere", _random_block, (0.2, 0.3, 0.4, 0.5, 0.6), "side, share of the side"),
}

"""Augmentation of a batch as tensors, on whatever device the batch is: flip, affine, colour, erasing.

Every function takes its random numbers from the generator it is given, so that a step's augmentation depends on
nothing but its seed, and a resumed run repeats it.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """How strongly a batch is changed; zeros change nothing.

    Attributes:
        flip: probability of mirroring.
        affine: probability of being rotated, scaled and shifted. Resampling blurs, so some faces are left sharp.
        rotation: largest angle, degrees.
        scale: largest relative change of size.
        translation: largest shift, share of the side.
        colour: largest relative change of brightness, contrast and saturation.
        erase: probability that a random rectangle is blanked (Zhong et al. 2020).
    """

    flip: float = 0.5
    affine: float = 0.5
    rotation: float = 8.0
    scale: float = 0.1
    translation: float = 0.05
    colour: float = 0.15
    erase: float = 0.1

    def scaled(self, factor: float) -> "Augmentation":
        """The same with everything but mirroring weakened (or strengthened) by a factor."""
        names = ("rotation", "scale", "translation", "colour", "erase")
        return replace(self, **{name: factor * getattr(self, name) for name in names})


def augment(images: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    """Augment a batch.

    Args:
        images: (B, 3, H, W) float32 in [0, 1].
        settings: how strongly.
        generator: on the CPU; the only source of randomness.

    Returns:
        A new (B, 3, H, W) float32 tensor in the memory layout of ``images``; colours may leave [0, 1] a little.
    """
    images = warp(images, settings, generator)
    images = jitter_colour(images, settings.colour, generator)
    return erase(images, settings.erase, generator)


def _uniform(batch: int, low: float, high: float, generator: Generator, like: Tensor) -> Tensor:
    return (torch.rand(batch, generator=generator) * (high - low) + low).to(like.device)


def warp(images: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    """Mirror, rotate, scale and shift each image by its own amount, all in one resampling."""
    batch = len(images)
    # Where an image is not chosen the grid falls on the pixels themselves, and sampling returns them exactly.
    chosen = (_uniform(batch, 0, 1, generator, images) < settings.affine).float()
    angle = chosen * _uniform(batch, -settings.rotation, settings.rotation, generator, images) * (math.pi / 180)
    scale = 1 + chosen * _uniform(batch, -settings.scale, settings.scale, generator, images)
    mirror = 1 - 2 * (_uniform(batch, 0, 1, generator, images) < settings.flip).float()
    shift_x = 2 * chosen * _uniform(batch, -settings.translation, settings.translation, generator, images)
    shift_y = 2 * chosen * _uniform(batch, -settings.translation, settings.translation, generator, images)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, shift_x], dim=1), torch.stack([sin * mirror, cos, shift_y], dim=1)], dim=1
    )  # (B, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)  # (B, H, W, 2)
    warped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return warped.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def jitter_colour(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Change saturation, contrast and brightness of each image by its own factors in ``1 ± strength``."""
    if strength == 0:
        return images
    factors = [_uniform(len(images), 1 - strength, 1 + strength, generator, images).view(-1, 1, 1, 1) for _ in range(3)]
    saturation, contrast, brightness = factors
    grey = images.mean(dim=1, keepdim=True)  # (B, 1, H, W)
    mean = grey.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    # saturation: grey + s (x - grey); contrast: mean + c (x - mean); brightness: b x. Multiplied out into one pass:
    return images * (brightness * contrast * saturation) + (
        grey * (brightness * contrast * (1 - saturation)) + mean * (brightness * (1 - contrast))
    )


def erase(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Fill one random rectangle (5 to 25 % of the area) with grey in each chosen image."""
    if probability == 0:
        return images
    batch, _, height, width = images.shape
    chosen = torch.rand(batch, generator=generator) < probability
    area = torch.rand(batch, generator=generator) * 0.2 + 0.05
    aspect = torch.exp((torch.rand(batch, generator=generator) - 0.5) * 1.4)
    rect_height = (area * aspect).sqrt().clamp(max=0.7) * height
    rect_width = (area / aspect).sqrt().clamp(max=0.7) * width
    top = torch.rand(batch, generator=generator) * (height - rect_height)
    left = torch.rand(batch, generator=generator) * (width - rect_width)
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top[:, None]) & (rows < (top + rect_height)[:, None])  # (B, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + rect_width)[:, None])  # (B, W)
    mask = (in_rows[:, None, :, None] & in_columns[:, None, None, :] & chosen[:, None, None, None]).to(images.device)
    return images.clone().masked_fill_(mask, 0.5)  # masked_fill itself would lose the memory layout

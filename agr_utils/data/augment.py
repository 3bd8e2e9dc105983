"""Augmentation of a batch as tensors, on whatever device the batch is: flip, affine, colour, erasing.

All random numbers come from the generator that is handed in, so that a step's augmentation depends on nothing but its
seed, and a resumed run repeats it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from agr_utils.dials import Augmentation
from agr_utils.errors import InputError


def check_images(images: Tensor) -> Tensor:
    """One batch (B, 3, H, W) float32 in [0, 1].

    Raises:
        InputError: if they are anything else.
    """
    expected = "expected (B, 3, H, W) float32 in [0, 1]"
    if not isinstance(images, Tensor):
        raise InputError(f"images are {type(images).__name__}; {expected}")
    if images.ndim != 4 or images.shape[1] != 3 or not images.numel() or images.dtype != torch.float32:
        raise InputError(f"images are {images.dtype} of shape {tuple(images.shape)}; {expected}")
    low, high = images.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
        raise InputError(f"images have values from {low:.4g} to {high:.4g}; {expected}")
    return images


NUM_DRAWS = 14  # random numbers that one image takes
ANGLE, SCALE = 1, 2  # of those of ``warp``


def augment(
    images: Tensor,
    settings: Augmentation,
    generator: Generator,
    share: slice = slice(None),
    batch_size: int | None = None,
) -> Tensor:
    """Augment a batch.

    Args:
        images: (B, 3, H, W) float32 in [0, 1].
        settings: how strongly.
        generator: the only source of randomness. On the CPU it gives the same numbers on every machine.
        share: where several processes divide a batch, the part of it that ``images`` are. Each process draws for the
            whole batch, so that an image is changed in the same way by however many processes there are.
        batch_size: images in the whole batch; B where it is None.

    Returns:
        A new (B, 3, H, W) float32 tensor in the memory layout of ``images``; colours may leave [0, 1] a little.
    """
    shape = NUM_DRAWS, batch_size or len(images)
    draws = torch.rand(shape, generator=generator, device=generator.device)[:, share].to(images.device)
    images = warp(images, settings, draws[:6])
    jitter_colour_(images, settings.colour, draws[6:9])
    return erase_(images, settings.erase, draws[9:])


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return draws * (high - low) + low


def warp(images: Tensor, settings: Augmentation, draws: Tensor) -> Tensor:
    """Mirror, rotate, scale and shift each image by its own amount, all in one resampling.

    Args:
        images: (B, 3, H, W) float32.
        settings: how strongly.
        draws: (6, B) float32 in [0, 1).
    """
    # Where an image is not chosen the grid falls on the pixels themselves, and sampling returns them exactly.
    chosen = (draws[0] < settings.affine).float()  # (B,)
    angle = chosen * _between(draws[ANGLE], -settings.rotation, settings.rotation) * (math.pi / 180)
    scale = 1 + chosen * _between(draws[SCALE], -settings.scale, settings.scale)
    mirror = 1 - 2 * (draws[3] < settings.flip).float()
    shift_x, shift_y = 2 * chosen * _between(draws[4:6], -settings.translation, settings.translation)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # Source of each pixel, x = cos m x' - sin y' + shift (m is -1 for a mirror image), in [-1, 1] over the image.
    # Written out, because affine_grid's batched product with three columns takes as long as the sampling itself.
    height, width = images.shape[2:]
    x = (torch.arange(width, device=images.device) + 0.5) * (2 / width) - 1
    y = ((torch.arange(height, device=images.device) + 0.5) * (2 / height) - 1)[:, None]  # (H, 1)
    cos_mirrored, sin_mirrored = (cos * mirror)[:, None, None], (sin * mirror)[:, None, None]
    cos, sin, shift_x, shift_y = (value[:, None, None] for value in (cos, sin, shift_x, shift_y))
    grid = torch.stack(
        [cos_mirrored * x + (shift_x - sin * y), sin_mirrored * x + (shift_y + cos * y)], dim=3
    )  # (B, H, W, 2)
    warped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return warped.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def jitter_colour_(images: Tensor, strength: float, draws: Tensor) -> Tensor:
    """Change saturation, contrast and brightness of each image by its own factors in ``1 ± strength``, in place.

    Args:
        images: (B, 3, H, W) float32; changed, for fresh memory costs more than the arithmetic.
        strength: largest relative change.
        draws: (3, B) float32 in [0, 1).
    """
    if strength == 0:
        return images
    saturation, contrast, brightness = _between(draws, 1 - strength, 1 + strength)[:, :, None, None, None]
    grey = (images[:, :1] + images[:, 1:2] + images[:, 2:]) / 3  # (B, 1, H, W)
    mean = grey.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    # saturation: grey + s (x - grey); contrast: mean + c (x - mean); brightness: b x. Multiplied out into one pass:
    grey.mul_(brightness * contrast * (1 - saturation)).add_(mean * (brightness * (1 - contrast)))
    return images.mul_(brightness * contrast * saturation).add_(grey)


def erase_(images: Tensor, probability: float, draws: Tensor) -> Tensor:
    """Fill one random rectangle (5 to 25 % of the area) with grey in each chosen image, in place.

    Args:
        images: (B, 3, H, W) float32; changed.
        probability: of an image being chosen.
        draws: (5, B) float32 in [0, 1).
    """
    if probability == 0:
        return images
    height, width = images.shape[2:]
    area = draws[1] * 0.2 + 0.05
    aspect = torch.exp((draws[2] - 0.5) * 1.4)
    rect_height = (area * aspect).sqrt().clamp(max=0.7) * height
    rect_width = (area / aspect).sqrt().clamp(max=0.7) * width
    top = draws[3] * (height - rect_height)
    left = draws[4] * (width - rect_width)
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + rect_height)[:, None])  # (B, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + rect_width)[:, None])  # (B, W)
    chosen = draws[0] < probability
    mask = in_rows[:, None, :, None] & in_columns[:, None, None, :] & chosen[:, None, None, None]
    return images.masked_fill_(mask, 0.5)

"""Parts of an aligned UTKFace face, read off the mean of its faces: where a map has its energy, in words.

The crops are tight. Hair shows in the upper corners only, and what is outside the face in the lower ones; where one
ends and the other begins is a guess, as is every border on a single face.
"""

import torch
from torch import Tensor

REGIONS = ("forehead", "eyes", "nose", "cheeks", "mouth and jaw", "hair", "background")


def face_regions(height: int, width: int) -> Tensor:
    """Number of the region in REGIONS of each pixel of an aligned face, (H, W) int64."""
    y, x = ((torch.arange(side) + 0.5) / side for side in (height, width))
    y, x = y[:, None], x[None, :]
    inside = ((x - 0.5) / 0.41) ** 2 + ((y - 0.42) / 0.58) ** 2 < 1
    middle = (x - 0.5).abs() < 0.15
    below_brows, below_eyes, below_nose = y >= 0.15, y >= 0.36, y >= 0.61
    regions = torch.where(inside, 0, torch.where(y < 0.42, 5, 6))
    regions = torch.where(inside & below_brows, 1, regions)
    regions = torch.where(inside & below_eyes, torch.where(middle, 2, 3), regions)
    return torch.where(inside & below_nose, 4, regions)


def region_shares(maps: Tensor) -> Tensor:
    """Share of each map's energy in each region: (B, H, W) to (B, 7) float32; NaN for a map of zeros."""
    regions = face_regions(*maps.shape[1:]).flatten()
    by_region = torch.stack([maps.flatten(1)[:, regions == number].sum(dim=1) for number in range(len(REGIONS))], dim=1)
    total = by_region.sum(dim=1, keepdim=True)
    return torch.where(total > 0, by_region / total.clamp(min=1e-12), torch.nan)


def region_areas(height: int, width: int) -> Tensor:
    """Share of the picture that each region takes, (7,): what a map without any knowledge would have there."""
    return torch.bincount(face_regions(height, width).flatten(), minlength=len(REGIONS)) / (height * width)

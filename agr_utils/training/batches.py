"""Batches are slices of the pixel array: which rows make up which step follows from the seed alone."""

import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from agr_utils.data.load import FaceData
from agr_utils.errors import InputError


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Batches that an epoch is cut into: as few as keep each within ``batch_size``, but none of a single image."""
    if num_images < 2:
        raise InputError(f"{num_images} training image is too few: batch normalisation needs at least 2. Add images")
    return min(math.ceil(num_images / batch_size), num_images // 2)


def epoch_batches(rows: np.ndarray, seed: int, epoch: int, batch_size: int) -> list[np.ndarray]:
    """The rows of a split in the batches of one epoch, shuffled in a way that depends on seed and epoch only.

    Every row comes once. Sizes differ by one at most: a short last batch would upset batch normalisation, and one of a
    single image has no spread to normalise by, so with batches of two an odd image makes a batch of three.
    """
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return np.array_split(order, steps_per_epoch(len(rows), batch_size))


def split_batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Consecutive slices of ``batch_size`` rows; the last may be shorter."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def load_pixels(data: FaceData, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Copy rows of the pixel array to the device as (B, 3, H, W) float32 in [0, 1], channels last in memory."""
    batch = torch.from_numpy(data.pixels[rows])  # (B, H, W, 3) uint8; bytes travel, floats are made on arrival
    return batch.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


def digest_data(data: FaceData, labels: "Labels", tasks: Sequence[str], *parts: np.ndarray) -> str:
    """Hexadecimal digits that tell some rows from rows with other names, pixels or labels of these tasks."""
    digest = hashlib.sha256()
    columns = [name for name in labels.columns if {"age_min": "age", "age_max": "age"}.get(name, name) in tasks]
    for rows in parts:
        digest.update("\n".join(data.faces["image_id"].iloc[rows]).encode(errors="surrogatepass"))
        for name in columns:
            digest.update(labels.columns[name][rows].tobytes())
        for batch in split_batches(rows, 256):
            digest.update(zlib.crc32(data.pixels[batch]).to_bytes(4))
    return digest.hexdigest()[:16]


class Labels:
    """Label columns of a faces table as arrays, in the form that the losses take."""

    def __init__(self, data: FaceData):
        self.columns = {}
        for task in data.scheme.tasks:
            for name in ("age_min", "age_max") if task.kind == "age" else (task.name,):
                column = data.faces[name]
                if task.kind == "classes":
                    self.columns[name] = column.fillna(-1).to_numpy(dtype=np.int64)
                    continue
                self.columns[name] = column.to_numpy(dtype=np.float32, na_value=np.nan)
                if task.kind == "number":
                    low, high = task.limits
                    self.columns[name] = (self.columns[name] - low) / (high - low)

    def batch(self, rows: np.ndarray, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """``age_min, age_max`` (B,) float32, NaN if missing; classes (B,) int64, -1 if missing; numbers (B,) float32.

        Numbers are their place between the task's limits, NaN if missing.
        """
        return {name: torch.from_numpy(column[rows]).to(device) for name, column in self.columns.items()}

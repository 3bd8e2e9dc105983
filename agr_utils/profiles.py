"""What the environment asks for: how much work, which data, and where they lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from agr_utils.errors import InputError


@dataclass(frozen=True)
class Profile:
    """How much work a notebook does.

    Attributes:
        name: ``smoke``, ``quick`` or ``full``.
        num_images: synthetic images drawn; ``None`` means every image of a real data set.
        num_epochs: epochs of one training.
        image_size: side of the square input, in pixels.
        batch_size: images a step.
        augmentation: strength relative to the published settings; a short training has no time to learn past it.
        age_weight: of the age's loss, which starts so large that it would have a short training to itself.
    """

    name: str
    num_images: int | None
    num_epochs: int
    image_size: int
    batch_size: int
    augmentation: float
    age_weight: float


PROFILES = {
    "smoke": Profile(
        "smoke", num_images=320, num_epochs=1, image_size=32, batch_size=32, augmentation=0.2, age_weight=0.3
    ),
    "quick": Profile(
        "quick", num_images=4_000, num_epochs=6, image_size=40, batch_size=64, augmentation=0.2, age_weight=0.3
    ),
    "full": Profile(
        "full", num_images=None, num_epochs=24, image_size=64, batch_size=64, augmentation=1.0, age_weight=1.0
    ),
}


def get_profile() -> Profile:
    """The profile named by ``AGR_PROFILE``; ``quick`` where it is not set."""
    name = os.environ.get("AGR_PROFILE", "quick")
    if name not in PROFILES:
        raise InputError(f"AGR_PROFILE is '{name}'. Set it to one of: {', '.join(PROFILES)}")
    return PROFILES[name]


def get_data_name() -> str:
    """The data set named by ``AGR_DATA``; ``synthetic`` where it is not set."""
    return os.environ.get("AGR_DATA", "synthetic")


def get_data_dir() -> Path | None:
    """The folder or archive named by ``AGR_DATA_DIR``, or None where it is not set."""
    value = os.environ.get("AGR_DATA_DIR")
    return Path(value) if value else None


def get_cache_dir() -> Path:
    """Where pixel caches are kept: ``AGR_CACHE_DIR``, else ``~/.cache/agr_utils``."""
    return Path(os.environ.get("AGR_CACHE_DIR") or Path.home() / ".cache" / "agr_utils")

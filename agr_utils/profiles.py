"""What the environment asks for: how much work, which data, and where they lie."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from agr_utils.errors import InputError, by_name


@dataclass(frozen=True)
class Profile:
    """How much work a notebook does."""

    name: str  #: ``smoke``, ``quick`` or ``full``
    num_images: int | None  #: synthetic images drawn; None means every image of a real data set
    num_epochs: int  #: of one training
    image_size: int  #: side of the square input, in pixels
    batch_size: int  #: images per step
    augmentation: float  #: strength relative to the published settings
    training: dict = field(default_factory=dict)  #: other settings of ``TrainConfig`` that differ from those


# What a network needs to learn three tasks within about 170 steps (results/drawings.csv has the trials): blocks that
# start as the identity, no regularisers, and averages that do not reach back to where it knew nothing.
_SHORT = {
    "learning_rate": 2e-3,
    "warmup_epochs": 0.5,
    "ema_decay": 0.9,
    "dropout": 0.0,
    "zero_init_residual": True,
    "task_weights": {"age": 0.3, "gender": 1.0, "race": 1.0},  # the age's loss is five times the others' at first
}
PROFILES = by_name(
    Profile("smoke", 320, num_epochs=1, image_size=32, batch_size=32, augmentation=0.0, training=_SHORT),
    Profile("quick", 2_000, num_epochs=4, image_size=40, batch_size=32, augmentation=0.0, training=_SHORT),
    Profile("full", None, num_epochs=24, image_size=128, batch_size=128, augmentation=1.0),
)


def get_profile() -> Profile:
    """The profile named by ``AGR_PROFILE``; ``quick`` where it is not set."""
    name = os.environ.get("AGR_PROFILE") or "quick"
    if name not in PROFILES:
        raise InputError(f"AGR_PROFILE is '{name}'. Set it to one of: {', '.join(PROFILES)}")
    return PROFILES[name]


def get_data_name() -> str:
    """The data set named by ``AGR_DATA``; ``synthetic`` where it is not set."""
    return os.environ.get("AGR_DATA") or "synthetic"


def get_data_dir() -> Path | None:
    """The folder or archive named by ``AGR_DATA_DIR``, or None where it is not set."""
    value = os.environ.get("AGR_DATA_DIR")
    return Path(value) if value else None


def get_cache_dir() -> Path:
    """Where pixel caches are kept: ``AGR_CACHE_DIR``, else ``~/.cache/agr_utils``."""
    return Path(os.environ.get("AGR_CACHE_DIR") or Path.home() / ".cache" / "agr_utils")

"""Everything that decides how a run comes out, in one record that is written beside its results."""

import math
from dataclasses import asdict, dataclass, field, fields

from agr_utils.data.augment import Augmentation
from agr_utils.data.synthetic import SyntheticSettings
from agr_utils.errors import InputError
from agr_utils.models.age_heads import get_age_head
from agr_utils.models.backbones import Pretrained, get_backbone
from agr_utils.runtime import Profile
from agr_utils.tasks import TASKS, check_task, get_scheme
from agr_utils.training.balancing import BALANCINGS

# Equal. Of two tried on the validation split, 0.5 for the age was worse for ages and hardly better for race.
TASK_WEIGHTS = {"age": 1.0, "gender": 1.0, "race": 1.0}


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    Attributes:
        data: name of the data set.
        backbone: name of the architecture.
        tasks: heads to train.
        seed: of the weights, the order of the images, the augmentation and dropout.
        image_size: side in pixels.
        early_size: side in pixels while training starts (progressive resizing); None for ``image_size`` throughout.
        early_share: share of the training that ``early_size`` lasts.
        num_epochs: passes over the training split; a fraction ends in the middle of one.
        batch_size: images a step, over all processes.
        learning_rate: peak of AdamW's learning rate.
        weight_decay: of AdamW; biases and normalisation are left out.
        warmup_epochs: linear warm-up before the cosine decay to 0.
        ema_decay: of the averaged weights, which are the ones evaluated and kept.
        dropout: before the heads.
        drop_rate: stochastic depth of timm backbones.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto`` (measured per architecture on a CPU, bf16 or fp16 on a GPU).
        age_head: how the age is asked for, see ``agr_utils.models.age_heads``.
        task_weights: of the losses.
        balancing: ``fixed`` keeps ``task_weights``; ``uncertainty`` learns weights instead.
        conflict_steps: measure how far the tasks' gradients pull apart every so many steps; None never. It changes
            nothing about the weights.
        augmentation: strength of each change.
        pretrained: ImageNet weights, see ``create_backbone``.
        protocol: how real data is split.
        num_images: synthetic images drawn; None for the default.
        data_seed: of the synthetic drawing.
        synthetic: dials of the synthetic drawing.
    """

    data: str = "synthetic"
    backbone: str = "mobilenet_v3"
    tasks: tuple[str, ...] = TASKS
    seed: int = 0
    image_size: int = 64
    early_size: int | None = None
    early_share: float = 0.7
    num_epochs: float = 24
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 2.0
    ema_decay: float = 0.998
    dropout: float = 0.2
    drop_rate: float = 0.0
    precision: str = "auto"
    age_head: str = "distribution"
    task_weights: dict[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))
    balancing: str = "fixed"
    conflict_steps: int | None = None
    augmentation: Augmentation = Augmentation()
    pretrained: Pretrained = False
    protocol: str = "grouped"
    num_images: int | None = None
    data_seed: int = 0
    synthetic: SyntheticSettings = SyntheticSettings()

    def __post_init__(self):
        get_scheme(self.data)
        get_backbone(self.backbone)
        get_age_head(self.age_head)
        for task in self.tasks:
            check_task(task)
        for name, lowest in {"batch_size": 2, "image_size": 32, "seed": 0}.items():
            if getattr(self, name) < lowest:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {lowest}")
        for name in ("learning_rate", "num_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a number above 0")
        for name in ("dropout", "drop_rate", "ema_decay", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if self.num_images is not None and self.num_images < 10:
            raise InputError(f"num_images is {self.num_images}; it must be at least 10")
        if self.early_size is not None and not 32 <= self.early_size < self.image_size:
            raise InputError(f"early_size is {self.early_size}; it must be from 32 to below {self.image_size} pixels")
        if not 0 < self.early_share < 1:
            raise InputError(f"early_share is {self.early_share}; it must lie between 0 and 1")
        if self.balancing not in BALANCINGS:
            raise InputError(f"unknown balancing '{self.balancing}'. Choose one of: {', '.join(BALANCINGS)}")
        if self.conflict_steps is not None and (self.conflict_steps < 1 or len(self.tasks) < 2):
            raise InputError("conflict_steps is measured every so many steps, at least 1, between at least two tasks")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise InputError(f"unknown precision '{self.precision}'. Choose one of: auto, fp32, bf16, fp16")

    @classmethod
    def from_profile(cls, profile: Profile, **settings) -> "TrainConfig":
        """Sizes, epochs, augmentation and weight of the age loss of a profile, and settings of one's own.

        Args:
            profile: see ``agr_utils.runtime.get_profile``.
            **settings: attributes of this class; they win over the profile's.
        """
        names = ("image_size", "num_epochs", "batch_size", "num_images")
        chosen = {name: getattr(profile, name) for name in names}
        chosen["augmentation"] = Augmentation().scaled(profile.augmentation)
        chosen["task_weights"] = TASK_WEIGHTS | {"age": profile.age_weight}
        return cls(**(chosen | settings))

    def refuse_unused(self) -> None:
        """Refuse settings of drawn faces where real ones are trained on: somebody believes that they do something.

        Raises:
            InputError: naming them.
        """
        given = {
            "num_images": self.num_images is not None,
            "noise, relatedness or confounding": self.synthetic != SyntheticSettings(),
        }
        unused = [name for name, is_given in given.items() if is_given]
        if self.data != "synthetic" and unused:
            raise InputError(
                f"{' and '.join(unused)} only change drawn faces, and the data is {self.data}. Leave them out"
            )

    def data_settings(self) -> dict:
        """Which images: arguments of ``agr_utils.data.load.load_data``."""
        return {
            "name": self.data,
            "image_size": self.image_size,
            "num_images": self.num_images,
            "seed": self.data_seed,
            "protocol": self.protocol,
            "settings": self.synthetic,
        }

    def to_dict(self) -> dict:
        """As JSON-able values."""
        return asdict(self) | {"tasks": list(self.tasks)}

    @classmethod
    def from_dict(cls, content: dict) -> "TrainConfig":
        """From what ``to_dict`` gave; unknown keys are an InputError, absent ones take their defaults."""
        unknown = set(content) - {item.name for item in fields(cls)}
        if unknown:
            raise InputError(f"unknown setting: {', '.join(sorted(unknown))}. See TrainConfig for the known ones")
        content = dict(content)
        if "augmentation" in content:
            content["augmentation"] = Augmentation(**content["augmentation"])
        if "synthetic" in content:
            content["synthetic"] = SyntheticSettings(**content["synthetic"])
        if "tasks" in content:
            content["tasks"] = tuple(content["tasks"])
        return cls(**content)

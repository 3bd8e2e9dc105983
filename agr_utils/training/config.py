"""Everything that decides how a run comes out, in one record that is written beside its results."""

import json
import reprlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import get_type_hints

from agr_utils.dials import BALANCINGS, Augmentation, SyntheticSettings
from agr_utils.errors import DamagedError, InputError, name_hint
from agr_utils.models.age_heads import get_age_head
from agr_utils.models.backbones import Pretrained, get_backbone
from agr_utils.profiles import Profile
from agr_utils.tasks import OWN_TABLE, TASKS, LabelScheme, Task, get_scheme

# Equal. Of two tried on the validation split, 0.5 for the age was worse for ages and hardly better for race.
TASK_WEIGHTS = {"age": 1.0, "gender": 1.0, "race": 1.0}


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    data: str = "synthetic"  #: name of the data set
    backbone: str = "mobilenet_v3"  #: name of the architecture
    tasks: tuple[str, ...] = TASKS  #: heads to train
    labels: tuple[Task, ...] = ()  #: what each column of a table of one's own means; empty for other data
    seed: int = 0  #: of the weights, the order of the images, the augmentation and dropout
    image_size: int = 64  #: side in pixels
    early_size: int | None = None  #: side while training starts (progressive resizing); None for ``image_size``
    early_share: float = 0.7  #: share of the training that ``early_size`` lasts
    num_epochs: float = 24  #: passes over the training split; a fraction ends in the middle of one
    batch_size: int = 64  #: images per step, over all processes
    learning_rate: float = 3e-3  #: peak of AdamW's learning rate
    weight_decay: float = 0.05  #: of AdamW; biases and normalisation are left out
    warmup_epochs: float = 2.0  #: linear warm-up before the cosine decay to 0
    ema_decay: float = 0.998  #: of the averaged weights, which are the ones evaluated and kept
    dropout: float = 0.2  #: before the heads
    drop_rate: float = 0.0  #: stochastic depth of timm backbones
    zero_init_residual: bool = False  #: start every residual block as the identity, see ``zero_init_residual_``
    precision: str = "auto"  #: fp32, bf16, fp16 or auto (measured on a CPU; bf16 or fp16 on a GPU)
    age_head: str = "distribution"  #: how the age is asked for, see ``agr_utils.models.age_heads``
    task_weights: dict[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))  #: of the losses
    balancing: str = "fixed"  #: ``fixed`` keeps ``task_weights``; ``uncertainty`` learns weights instead
    conflict_steps: int | None = None  #: steps between measurements of how far the tasks' gradients pull apart
    augmentation: Augmentation = Augmentation()  #: strength of each change
    pretrained: Pretrained = False  #: ImageNet weights, see ``create_backbone``
    protocol: str = "grouped"  #: how real data is split
    num_images: int | None = None  #: synthetic images drawn; None for the default
    data_seed: int = 0  #: of the synthetic drawing
    synthetic: SyntheticSettings = SyntheticSettings()  #: dials of the synthetic drawing

    def __post_init__(self):
        for name, kind in get_type_hints(TrainConfig).items():
            check_kind(name, getattr(self, name), kind)
        for task in self.tasks:
            check_kind("a task", task, str)
        object.__setattr__(self, "labels", tuple(self.labels))
        if (self.data == OWN_TABLE) != bool(self.labels):
            raise InputError(
                f"data is {self.data} with {len(self.labels)} labels. A table needs them, and only a table"
            )
        scheme = self.scheme
        is_default = set(self.tasks) == set(TASKS) and not set(TASKS) <= set(scheme.names)
        object.__setattr__(self, "tasks", scheme.names if is_default else tuple(self.tasks))  # all that there are
        object.__setattr__(self, "task_weights", {task: 1.0 for task in self.tasks} | self.task_weights)
        get_backbone(self.backbone)
        get_age_head(self.age_head)
        scheme.choose(self.tasks)
        check_known(self.task_weights, (*TASKS, *scheme.names), "task_weights.")
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"tasks is {list(self.tasks)}. Name each once")
        for name, value in flatten(self.to_dict()).items():
            _check_range(name, value)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                listed = ", ".join(str(choice).lower() for choice in choices)
                raise InputError(f"unknown {name} '{getattr(self, name)}'. Choose one of: {listed}")
        if self.early_size is not None and self.early_size >= self.image_size:
            raise InputError(f"early_size is {self.early_size}; it must be below {self.image_size} pixels")
        if self.conflict_steps is not None and len(self.tasks) < 2:
            raise InputError("conflict_steps measures between the gradients of at least two tasks. Train several")

    @classmethod
    def from_profile(cls, profile: Profile, **settings) -> "TrainConfig":
        """Settings of a profile (``agr_utils.profiles.get_profile``), and settings of one's own, which win."""
        sizes = {name: getattr(profile, name) for name in ("image_size", "num_epochs", "batch_size", "num_images")}
        augmentation = Augmentation().scaled(profile.augmentation)
        return cls(**(sizes | {"augmentation": augmentation} | profile.training | settings))

    @property
    def scheme(self) -> LabelScheme:
        """What the labels of the data set mean."""
        return get_scheme(self.data, self.labels)

    def data_settings(self) -> dict:
        """Which images: arguments of ``agr_utils.data.load.load_data``."""
        return {
            "name": self.data,
            "labels": self.labels,
            "image_size": self.image_size,
            "num_images": self.num_images,
            "seed": self.data_seed,
            "protocol": self.protocol,
            "settings": self.synthetic,
        }

    def to_dict(self) -> dict:
        """As JSON-able values."""
        return json.loads(json.dumps(asdict(self), default=str))  # tuples are lists there

    @classmethod
    def from_dict(cls, content: dict) -> "TrainConfig":
        """From what ``to_dict`` gave, or part of it: what is absent, in nested settings too, takes its default.

        Raises:
            InputError: naming a setting that is unknown, of another kind or out of its range.
        """
        defaults, settings = cls().to_dict(), {}
        check_kind("config", content, dict)
        check_known(content, defaults)
        for name, value in content.items():
            if name == "labels":
                check_kind(name, value, list)
                value = [_task_from(entry) for entry in value]
            elif isinstance(defaults[name], dict):
                check_kind(name, value, dict)
                if name in _NESTED:
                    check_known(value, defaults[name], f"{name}.")
                for key, number in value.items():
                    check_kind(f"{name}.{key}", number, float)
                value = _NESTED.get(name, dict)(**(defaults[name] | value))
            settings[name] = value
        return cls(**settings)


def _task_from(entry: object) -> Task:
    """A task from its record in JSON."""
    check_kind("labels", entry, dict)
    check_known(entry, [setting.name for setting in fields(Task)], "labels.")
    if "name" not in entry:
        raise InputError("a task among the labels has no name. Give each a name, and its classes or limits")
    return Task(**entry)


def recorded_config(about: dict, path: Path) -> TrainConfig:
    """The config in what was written down about a run; a DamagedError naming the file, if it cannot be."""
    if "config" not in about:
        raise DamagedError(f"{path}: not a checkpoint of this project (no config). Make one with: agr train")
    try:
        return TrainConfig.from_dict(about["config"])
    except InputError as error:
        raise DamagedError(f"{path}: not of a run of this version ({error})") from error


def different_settings(about: dict, path: Path, config: TrainConfig) -> list[str]:
    """Names of the settings in which what was written down about a run is another config; see ``recorded_config``."""
    # Read back into a TrainConfig, so that a setting added since then has its default on both sides.
    recorded = recorded_config(about, path).to_dict()
    return [key for key, value in config.to_dict().items() if recorded[key] != value]


_NESTED = {"augmentation": Augmentation, "synthetic": SyntheticSettings}
CHOICES = {
    "balancing": BALANCINGS,
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "pretrained": (False, True, "if-available"),
}


# Smallest and largest value of each setting that is a number. Upper limits are far above what makes sense, and below
# what takes down the machine.
_SHARE, _BELOW_ONE, _SEED = (0, 1), (0, 0.99999), (0, 2**32 - 1)
RANGES = {
    "seed": _SEED,
    "data_seed": _SEED,
    "image_size": (32, 1024),
    "early_size": (32, 1024),
    "early_share": (0.001, 0.999),
    "num_epochs": (0.001, 1_000_000),
    "batch_size": (2, 1_000_000),
    "num_images": (10, 10_000_000),
    "conflict_steps": (1, 1_000_000_000),
    "learning_rate": (1e-12, 1e30),
    "weight_decay": _BELOW_ONE,
    "warmup_epochs": (0, 1_000_000),
    "ema_decay": _BELOW_ONE,
    "dropout": _BELOW_ONE,
    "drop_rate": _BELOW_ONE,
    "task_weights": (0, 1_000_000),
    "synthetic": _SHARE,
    "augmentation": _SHARE,
    "augmentation.rotation": (0, 180),
    "augmentation.scale": _BELOW_ONE,
}
# Python's types for an annotation that is none itself; the choices of Pretrained are checked apart.
_TYPES = {
    float: (int, float), int | None: (int, NoneType), tuple[str, ...]: (tuple, list), tuple[Task, ...]: (tuple, list),
    dict[str, float]: (dict,), Pretrained: (object,),
}  # fmt: skip
_KIND_NAMES = {
    str: "text", int: "a whole number", int | None: "a whole number or nothing", float: "a number",
    bool: "true or false", list: "a list", tuple[str, ...]: "a list", tuple[Task, ...]: "a list",
}  # fmt: skip


def flatten(settings: dict) -> dict:
    """Settings with the nested ones among them, as ``synthetic.noise``."""
    nested = {key: value for key, value in settings.items() if isinstance(value, dict)}
    flat = {key: value for key, value in settings.items() if key not in nested}
    return flat | {f"{key}.{name}": entry for key, value in nested.items() for name, entry in value.items()}


def _check_range(name: str, value: object) -> None:
    """Refuse a number outside its range, NaN among them."""
    limits = RANGES.get(name, RANGES.get(name.split(".")[0]))
    if limits is not None and value is not None:
        check_kind(name, value, float)
        if not limits[0] <= value <= limits[1]:
            raise InputError(f"{name} is {value}; it must lie between {limits[0]} and {limits[1]}")


def check_known(given: Collection[str], known: Collection[str], where: str = "") -> None:
    """Refuse a key that is not among the known ones."""
    for key in given:
        if key not in known:
            raise InputError(f"unknown key {reprlib.repr(f'{where}{key}')}. {name_hint(str(key)[:100], known)}")


def check_kind(name: str, value: object, kind: object) -> None:
    """Refuse a value that is not of the kind of its annotation; true and false are no numbers."""
    types = _TYPES.get(kind, kind)
    if not isinstance(value, types) or (isinstance(value, bool) and kind in (int, int | None, float)):
        raise InputError(f"{name} is {reprlib.repr(value)}; it must be {_KIND_NAMES.get(kind, 'keys with values')}")

"""What is to be trained on a lent accelerator, and the names of the files that come back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from agr_utils.tasks import TASKS

PIXELS_FILE, HARSH_FILE, FACES_FILE = "pixels.npy", "harsh.npy", "faces.parquet"
SUMMARY_FILE, HISTORY_FILE, WEIGHTS_FILE, PREDICTIONS_FILE = "job.json", "history.csv", "weights.safetensors", "p.npz"


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str  # of its folder
    backbone: str
    tasks: tuple[str, ...] = TASKS
    task_weights: Mapping[str, float] = field(default_factory=dict)  # of the losses; 1 where a task is not named
    initial: str | None = None  # file of the backbone's weights
    start: str | None = None  # finished job whose averaged weights, heads included, the training begins with
    image_size: int = 112  # pixels
    epochs: float = 12
    batch_size: int = 128
    learning_rate: float = 1e-3  # peak; the new heads learn at ``head_factor`` times that
    weight_decay: float = 0.05
    head_factor: float = 1.0
    dropout: float = 0.2  # before the heads
    changes: float = 1.0  # strength of ``Changes``; 0 for the course's published augmentation
    teachers: tuple[str, ...] = ()  # finished jobs whose mean answer to the same picture is mixed into the labels
    teacher_share: float = 0.7  # of that answer in the target
    ema: float = 0.998  # decay of the averaged weights, per step
    seed: int = 0
    bf16: tuple[str, ...] = ("cuda",)  # kinds of device on which forward passes are in bfloat16
    evaluations: int = 4  # of the validation split, evenly spaced
    predict: tuple[str, ...] = ("validation",)  # splits whose answers come back
    keep: bool = False  # whether the weights come back, in half precision
    seconds: float = 60  # estimate; a job is not begun when less is left


def job_from(content: dict) -> Job:
    """A job from JSON; an unknown setting is an error."""
    unknown = set(content) - {setting.name for setting in fields(Job)}
    if unknown:
        raise SystemExit(f"unknown setting of a job: {', '.join(sorted(unknown))}")
    lists = ("tasks", "teachers", "bf16", "predict")
    return Job(**content | {name: tuple(content[name]) for name in lists if name in content})

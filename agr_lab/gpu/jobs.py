"""What is to be trained on a lent accelerator, and the names of the files that come back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from agr_utils.tasks import TASKS

PIXELS_FILE, HARSH_FILE, FACES_FILE = "pixels.npy", "harsh.npy", "faces.parquet"
SUMMARY_FILE, HISTORY_FILE, WEIGHTS_FILE, PREDICTIONS_FILE = "job.json", "history.csv", "weights.safetensors", "p.npz"


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: of its folder.
        backbone: name of the architecture.
        tasks: the heads.
        task_weights: of the losses; 1 where a task is not named.
        initial: file of the backbone's weights; None for none.
        start: finished job whose averaged weights, heads included, the training begins with.
        image_size: side in pixels.
        epochs: passes over the training split.
        batch_size: images a step.
        learning_rate: peak; the new heads learn at ``head_factor`` times that.
        weight_decay: of AdamW.
        head_factor: see ``learning_rate``.
        dropout: before the heads.
        changes: strength of ``Changes``; 0 for the course's published augmentation.
        teachers: finished jobs whose mean answer to the same picture is the target, mixed with the labels.
        teacher_share: of that answer in the target.
        ema: decay of the averaged weights, per step.
        seed: sets everything random.
        evaluations: how often, evenly spaced, the validation split is scored.
        predict: splits whose answers come back.
        keep: whether the weights come back, in half precision.
        seconds: estimate; a job is not begun when less is left.
    """

    name: str
    backbone: str
    tasks: tuple[str, ...] = TASKS
    task_weights: Mapping[str, float] = field(default_factory=dict)
    initial: str | None = None
    start: str | None = None
    image_size: int = 112
    epochs: float = 12
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    head_factor: float = 1.0
    dropout: float = 0.2
    changes: float = 1.0
    teachers: tuple[str, ...] = ()
    teacher_share: float = 0.7
    ema: float = 0.998
    seed: int = 0
    evaluations: int = 4
    predict: tuple[str, ...] = ("validation",)
    keep: bool = False
    seconds: float = 60

    def weight_of(self, task: str) -> float:
        """Factor of a task's loss."""
        return self.task_weights.get(task, 1.0)


def job_from(content: dict) -> Job:
    """A job from JSON; an unknown setting is an error."""
    unknown = set(content) - {setting.name for setting in fields(Job)}
    if unknown:
        raise SystemExit(f"unknown setting of a job: {', '.join(sorted(unknown))}")
    lists = ("tasks", "teachers", "predict")
    return Job(**content | {name: tuple(content[name]) for name in lists if name in content})

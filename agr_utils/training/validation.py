"""Labels and metrics while a model trains."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError

from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.models.network import MultiTaskNet, expected_age, normalize
from agr_utils.tasks import LabelScheme
from agr_utils.training.batches import Labels, load_pixels, split_batches
from agr_utils.training.config import TrainConfig

logger = logging.getLogger(__name__)


@torch.inference_mode()
def validate(model: MultiTaskNet, data: FaceData, rows: np.ndarray, batch_size: int) -> dict[str, float]:
    """MAE in years and accuracies of the labelled images among ``rows``, in float32, without augmentation.

    A metric of a task of which no image has the label is left out. Where several processes train, each hands in its own
    rows; torchmetrics adds up their sums and counts.
    """
    model.eval()
    labels, device = Labels(data), next(model.parameters()).device
    metrics: dict[str, Metric] = {}
    for task in model.tasks:
        classes = data.scheme.classes(task)
        metric = MulticlassAccuracy(len(classes), average="micro") if classes else MeanAbsoluteError()
        metrics[task] = metric.to(device)
    counts = {task: SumMetric().to(device) for task in model.tasks}
    for batch_rows in split_batches(rows, batch_size):
        probabilities = model.probabilities(model(normalize(load_pixels(data, batch_rows, device))))
        targets = labels.batch(batch_rows, device)
        for task in model.tasks:
            if task == "age":
                known = targets["age_min"] == targets["age_max"]  # False for a band and for a missing label (NaN)
                answers, target = expected_age(probabilities["age"]), targets["age_min"]
            elif not data.scheme.classes(task):
                low, high = data.scheme.task(task).limits
                answers, target = probabilities[task][:, 0], low + (high - low) * targets[task]
                known = ~target.isnan()
            else:
                known, answers, target = targets[task] >= 0, probabilities[task], targets[task]
            counts[task].update(known.sum())
            if known.any():
                metrics[task].update(answers[known], target[known])
    labelled = [task for task in model.tasks if counts[task].compute() > 0]  # in any process: all leave out the same
    names = {task: f"validation_{task}_{'accuracy' if data.scheme.classes(task) else 'mae'}" for task in labelled}
    return {names[task]: metrics[task].compute().item() for task in labelled}


def check_training_labels(labels: Labels, rows: np.ndarray, tasks: Sequence[str], scheme: LabelScheme) -> None:
    """Refuse to train a task of which none of the rows has the label; warn of classes that no image is labelled as."""
    known = {task: labels.columns["age_min" if task == "age" else task][rows] for task in tasks}
    empty = [  # missing: NaN or -1; a number below its limits is below 0, too
        task for task, values in known.items() if not (values >= 0 if scheme.classes(task) else ~np.isnan(values)).any()
    ]
    if empty:
        others = [task for task in tasks if task not in empty]
        hint = f"Train without it: {' '.join(f'--task {task}' for task in others)}" if others else "Label some of them"
        raise InputError(f"none of the {len(rows)} training images has a label of {' or '.join(empty)}. {hint}")
    for task in known:
        absent = [name for code, name in enumerate(scheme.classes(task)) if not (known[task] == code).any()]
        if absent:
            logger.warning("%s: no training image is labelled %s; the model cannot learn it", task, ", ".join(absent))


def check_data(config: TrainConfig, data: FaceData, labels: Labels, train_rows: np.ndarray) -> None:
    """Refuse data that is not the config's, or that is too little to train on."""
    side, name = data.pixels.shape[1], data.scheme.name
    if (side, data.scheme) != (config.image_size, config.scheme):
        other = " with other labels" if name == config.data else ""
        raise InputError(
            f"the config asks for {config.data} at {config.image_size} px, the data is {name} at {side} px{other}. "
            "Load it with load_data(**config.data_settings())"
        )
    check_training_labels(labels, train_rows, config.tasks, data.scheme)
    if len(train_rows) < config.batch_size:
        raise InputError(
            f"{len(train_rows)} training images are fewer than a batch of {config.batch_size}. "
            "Make the batch smaller or the data larger"
        )

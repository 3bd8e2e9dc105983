"""Metrics of the validation split while a model trains."""

import numpy as np
import torch
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError

from agr_utils.data.load import FaceData
from agr_utils.models.multitask import MultiTaskNet, expected_age, normalize
from agr_utils.training.batches import Labels, load_pixels, split_batches


@torch.inference_mode()
def validate(model: MultiTaskNet, data: FaceData, rows: np.ndarray, batch_size: int) -> dict[str, float]:
    """MAE in years and accuracies of the labelled images among ``rows``, in float32, without augmentation.

    Where several processes train, each hands in its own rows; torchmetrics adds up their sums and counts.
    """
    model.eval()
    labels, device = Labels(data), next(model.parameters()).device
    metrics: dict[str, MeanAbsoluteError | MulticlassAccuracy] = {}
    for task in model.tasks:
        if task == "age":
            metrics["validation_age_mae"] = MeanAbsoluteError().to(device)
        else:
            metric = MulticlassAccuracy(data.scheme.num_outputs(task), average="micro", ignore_index=-1)
            metrics[f"validation_{task}_accuracy"] = metric.to(device)
    for batch_rows in split_batches(rows, batch_size):
        probabilities = model.probabilities(model(normalize(load_pixels(data, batch_rows, device))))
        targets = labels.batch(batch_rows, device)
        for task in model.tasks:
            if task == "age":
                exact = targets["age_min"] == targets["age_max"]  # False for a band and for a missing label (NaN)
                if exact.any():
                    predicted = expected_age(probabilities["age"])
                    metrics["validation_age_mae"].update(predicted[exact], targets["age_min"][exact])
            else:
                metrics[f"validation_{task}_accuracy"].update(probabilities[task], targets[task])
    return {name: metric.compute().item() for name, metric in metrics.items()}

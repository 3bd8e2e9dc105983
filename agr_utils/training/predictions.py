"""A model's answers as a predictions table (``agr_utils.predictions_table``), and the width of its intervals."""

import logging
import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from agr_utils.data.load import FaceData
from agr_utils.data.splits import LISTED
from agr_utils.errors import InputError
from agr_utils.models.network import MultiTaskNet, age_interval, expected_age, normalize
from agr_utils.predictions_table import LABELS
from agr_utils.tasks import AGE_COVERAGE, NUM_AGES
from agr_utils.training.batches import load_pixels, split_batches

logger = logging.getLogger(__name__)


@torch.inference_mode()
def predict_probabilities(model: MultiTaskNet, images: Tensor) -> dict[str, Tensor]:
    """Probabilities of each task, averaged over each image and its mirror image: mirroring changes no label.

    ``images``: (B, 3, H, W) float32 in [0, 1]; the model is in evaluation mode. See ``MultiTaskNet.probabilities``.
    """
    images = normalize(images)
    plain, mirrored = model.probabilities(model(images)), model.probabilities(model(images.flip(3)))
    return {task: (plain[task] + mirrored[task]) / 2 for task in plain}


def predict_rows(model: MultiTaskNet, data: FaceData, rows: np.ndarray, batch_size: int = 256) -> dict[str, np.ndarray]:
    """Probabilities of some rows: ``age`` (n, 117), classes (n, C), numbers (n, 1) float32. InputError for no row."""
    if len(rows) == 0:
        raise InputError("there is no face to predict. Name rows of the faces table, data.rows('test') for instance")
    model.eval()
    device = next(model.parameters()).device
    parts: dict[str, list[np.ndarray]] = {task: [] for task in model.tasks}
    batches = list(split_batches(rows, batch_size))
    for batch_rows in tqdm(batches, desc="predict", unit="batch", leave=False, disable=None):
        for task, probabilities in predict_probabilities(model, load_pixels(data, batch_rows, device)).items():
            parts[task].append(probabilities.cpu().numpy())
    return {task: np.concatenate(arrays) for task, arrays in parts.items()}


def predictions_table(
    probabilities: dict[str, np.ndarray], faces: pd.DataFrame, run_id: str, widening: float = 0.0
) -> pd.DataFrame:
    """Put probabilities (``predict_rows``) beside the labels of their rows of the faces table.

    Returns:
        ``run_id, image_id, split, age, age_min, age_max, age_pred, age_lo, age_hi, gender, gender_p`` (of code 1),
        ``race, race_p0…``; of other tasks the label and ``…_p0…`` or, of a number, ``…_pred``. Columns of a task that
        the model lacks are absent, but for the labels. ``group`` of each image of a data set whose groups no file
        knows. ``widening``: years, see ``conformal_widening``.
    """
    labels = dict.fromkeys((*LABELS, *probabilities))
    group = ["group"] if set(faces.get("source", ())) - set(LISTED) else []
    table = faces[["image_id", "split", *group, *labels]].reset_index(drop=True)
    table.insert(0, "run_id", pd.Series(run_id, index=table.index, dtype="string"))
    if "age" in probabilities:
        age = torch.from_numpy(probabilities["age"])
        table["age_pred"] = expected_age(age).numpy()
        lower, upper = age_interval(age, AGE_COVERAGE, widening)
        # The interval always holds the point that is reported.
        table["age_lo"] = np.minimum(lower.numpy(), table["age_pred"])
        table["age_hi"] = np.maximum(upper.numpy(), table["age_pred"])
    for task, values in probabilities.items():
        if values.shape[1] == 1:
            table[f"{task}_pred"] = values[:, 0]
        elif task == "gender" and values.shape[1] == 2:
            table["gender_p"] = values[:, 1]
        elif task != "age":
            table = table.join(pd.DataFrame(values, table.index).add_prefix(f"{task}_p"))
    return table


def conformal_widening(table: pd.DataFrame, coverage: float = AGE_COVERAGE) -> float:
    """Years by which age intervals must grow (or shrink) to cover as promised (Romano et al. 2019, eq. 6).

    With few faces nothing but the whole range of ages keeps the promise (below 9 for a coverage of 90 %): then the
    widening is that range, and a warning is logged. It is 0 where no age is known, and a warning: the interval is then
    the model's own, and promises nothing.

    Args:
        table: predictions of a validation split with unwidened intervals; only rows with a known age and an interval
            count.
        coverage: share of faces whose age should lie inside, in (0, 1); an InputError for another one.
    """
    if not 0 < coverage < 1:
        raise InputError(f"the coverage is {coverage}. It must be more than 0 and less than 1, 0.9 for instance")
    known = table.dropna(subset=["age", "age_lo", "age_hi"]).astype({"age": float, "age_lo": float, "age_hi": float})
    outside = np.maximum(known["age_lo"] - known["age"], known["age"] - known["age_hi"]).to_numpy()
    rank = math.ceil(round((len(outside) + 1) * coverage, 9))  # 10 * 0.9 may be a hair above 9
    if len(outside) == 0:
        logger.warning("no validation face has a known age: the age interval is the model's own, and not calibrated")
        return 0.0
    if rank > len(outside):
        logger.warning(
            "%d validation faces with a known age are too few for an interval that holds %.0f %% of ages: it is the "
            "whole range, 0 to %d years", len(outside), 100 * coverage, NUM_AGES - 1,
        )  # fmt: skip
        return float(NUM_AGES - 1)
    return float(np.sort(outside)[rank - 1])

"""Errors of a model on changed faces: one sweep of a model, and what sweeps say side by side."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from tqdm import tqdm

from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from agr_utils.data.load import FaceData
from agr_utils.data.splits import clusters_of, stable_numbers
from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.comparisons import cache_copies
from agr_utils.measure.fairness import ERRORS, error_rows
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.batches import load_pixels, split_batches
from agr_utils.training.predictions import predict_probabilities, predictions_table

CLEAN = "clean"
SWEPT_ERRORS = ("age_mae", "gender_error", "race_error")
SWEEP_BATCH = 64  # larger ones are slower: their maps no longer fit the cache


def sweep(
    model: MultiTaskNet, data: FaceData, rows: np.ndarray, corruptions: Sequence[str] = tuple(CORRUPTIONS)
) -> pd.DataFrame:
    """Errors of a model on the faces as they are and under every corruption and severity.

    Returns:
        A row per face and condition, faces in the same order in each: ``image_id, corruption, severity`` (``clean`` and
        0 for the faces as they are), ``age_signed`` (predicted minus labelled age, years), ``gender_error, race_error``
        (wrong or not), NaN without a label; those of the tasks that the model has. Answers are averaged over each face
        and its mirror image, as everywhere. ``group`` of each face of a data set whose groups no file knows.
    """
    model.eval()
    device = next(model.parameters()).device
    seeds = stable_numbers(data.faces["image_id"])  # a face is changed in the same way whatever else lies beside it
    conditions = [(CLEAN, 0), *((name, severity) for name in corruptions for severity in SEVERITIES)]
    parts = []
    with tqdm(total=len(conditions) * len(rows), desc="sweep", unit="face", leave=False, disable=None) as progress:
        for name, severity in conditions:
            for batch in split_batches(rows, SWEEP_BATCH):
                images = load_pixels(data, batch, device)
                if severity:
                    images = corrupt(images, name, severity, seeds[batch], data.scheme.name)
                probabilities = {task: p.cpu().numpy() for task, p in predict_probabilities(model, images).items()}
                table = predictions_table(probabilities, data.faces.iloc[batch], "")
                errors = error_rows(table).drop(columns="age_mae", errors="ignore")
                errors = errors.join(table[table.columns.intersection(["image_id", "group"])])
                parts.append(errors.assign(corruption=name, severity=severity))
                progress.update(len(batch))
    columns = ["image_id", "corruption", "severity"]
    table = pd.concat(parts, ignore_index=True)
    return table[[*columns, *table.columns.difference(columns)]]


class Sweep:
    """A sweep as arrays.

    Attributes:
        image_ids: of the n faces.
        conditions: (corruption, severity) of each of c conditions, the first is (``clean``, 0).
        errors: names of the e errors, of SWEPT_ERRORS.
        values: (n, c, e) float64, NaN without a label.
        signed_age: (n, c) float64 predicted minus labelled age in years; None where the model has no age.
    """

    def __init__(self, table: pd.DataFrame):
        table = table.assign(corruption=table["corruption"].astype(str))
        if "age_signed" in table:
            table["age_mae"] = table["age_signed"].abs()
        self.errors = [name for name in SWEPT_ERRORS if name in table]
        self.conditions = list(table[["corruption", "severity"]].drop_duplicates().itertuples(index=False, name=None))
        num_faces, left_over = divmod(len(table), len(self.conditions))
        ids = pd.factorize(table["image_id"])[0]
        if left_over or (ids.reshape(-1, num_faces) != ids[:num_faces]).any():
            raise InputError("a sweep must have the same faces in every condition. Make it again with: agr robustness")
        if self.conditions[0] != (CLEAN, 0):
            raise InputError(
                f"a sweep begins with the {CLEAN} faces, and this one with {self.conditions[0]}. Sort it so"
            )
        self.image_ids = table["image_id"].iloc[:num_faces].reset_index(drop=True)
        self.clusters = clusters_of(table.iloc[:num_faces])
        values = table[self.errors].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        shape = (len(self.conditions), num_faces)
        self.values = values.reshape(*shape, -1).transpose(1, 0, 2)
        signed = table["age_signed"].to_numpy(dtype=float, na_value=np.nan) if "age_signed" in table else None
        self.signed_age = None if signed is None else signed.reshape(shape).T

    @property
    def corruptions(self) -> list[str]:
        """Names of the corruptions, without ``clean``."""
        return list(dict.fromkeys(name for name, severity in self.conditions if severity))

    def increases(self) -> np.ndarray:
        """What each corruption adds to a face's errors, on average over the severities: (n, corruptions, errors)."""
        names = np.array([name for name, _ in self.conditions])
        by_corruption = [self.values[:, names == name].mean(axis=1) for name in self.corruptions]
        return np.stack(by_corruption, axis=1) - self.values[:, :1]

    def bootstrap(self) -> GroupBootstrap:
        """Resamples of the faces."""
        return GroupBootstrap(self.clusters)


@cache_copies(maxsize=16)
def curve_table(swept: Sweep) -> pd.DataFrame:
    """Errors against severity: rows ``corruption, severity, error, value, low, high``; severity 0 is clean."""
    count = len(swept.values)
    table = interval(swept.bootstrap().means(swept.values.reshape(count, -1))).drop(columns="p")
    labels = [(*condition, error) for condition in swept.conditions for error in swept.errors]
    return pd.concat([pd.DataFrame(labels, columns=["corruption", "severity", "error"]), table], axis=1)


def plot_severity(curves: dict[str, pd.DataFrame], error: str, corruption: str, ax: Axes) -> Axes:
    """One error (of ERRORS) against the severity of one corruption, a line per model, 95 % intervals as bands.

    ``curves``: title of the model to what ``curve_table`` gave.
    """
    scale = ERRORS[error].scale
    for title, table in curves.items():
        rows = table[(table["error"] == error) & table["corruption"].isin([corruption, "clean"])].sort_values(
            "severity"
        )
        colour = COLOURS.get(title, NEUTRAL)
        ax.plot(rows["severity"], scale * rows["value"], marker=MARKERS.get(title, "o"), ms=4, lw=1.3, color=colour,
                label=title)  # fmt: skip
        ax.fill_between(rows["severity"], scale * rows["low"], scale * rows["high"], color=colour, alpha=0.15, lw=0)
    ax.set_title(CORRUPTIONS[corruption].title, fontsize=11)
    ax.set_xticks([0, *SEVERITIES])
    return ax

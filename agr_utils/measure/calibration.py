"""Whether a model knows what it does not know: its probabilities and its age intervals against the labels."""

import numpy as np
import pandas as pd

from agr_utils.errors import check_has
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.metrics import predicted_class
from agr_utils.predictions_table import class_probabilities

NUM_BINS = 15  # of equal width, as most papers have it (Guo et al. 2017)


def confidence(table: pd.DataFrame, task: str) -> pd.Series:
    """Probability of the predicted class, (n,) float in [0, 1]: NaN without an answer, InputError without the task."""
    return pd.Series(class_probabilities(table, task).max(axis=1), index=table.index)


def confidence_bins(values: pd.Series | np.ndarray) -> np.ndarray:
    """Number of the bin of each confidence, (n,) int; a bin holds its upper edge."""
    return np.clip(np.ceil(np.asarray(values) * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def _overconfidence(table: pd.DataFrame, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a label and an answer, (k,) int; their confidence, (k,) float, and what it exceeds correctness by."""
    predicted = predicted_class(table, task)
    rows = np.flatnonzero(predicted.notna() & table[task].notna())
    certainty = confidence(table, task).to_numpy()[rows]
    correct = predicted.iloc[rows].to_numpy() == table[task].iloc[rows].to_numpy(dtype=int)
    return rows, certainty, certainty - correct


def reliability(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Reliability diagram of ``gender`` or ``race``: rows ``confidence, accuracy, count``, a row a bin that is used."""
    _, certainty, over = _overconfidence(table, task)
    rows = pd.DataFrame({"confidence": certainty, "accuracy": certainty - over, "bin": confidence_bins(certainty)})
    by_bin = rows.groupby("bin")
    return by_bin.mean().assign(count=by_bin.size()).reset_index(drop=True)


def sample_ece(table: pd.DataFrame, task: str, bootstrap: GroupBootstrap) -> np.ndarray:
    """Expected calibration error of ``gender`` or ``race`` and its resamples, (R + 1,), in 0 to 1.

    The mean over images of their bin's absolute difference between confidence and accuracy. Noise in a bin only ever
    adds to it, so resamples lie higher than the value: their interval is the "basic" one, and ``null_ece`` says
    what a perfectly calibrated model would have.
    """
    rows, certainty, over = _overconfidence(table, task)
    columns = np.zeros((len(table), NUM_BINS + 1))  # the last counts the images with a label and an answer
    columns[rows, confidence_bins(certainty)] = over
    columns[rows, -1] = 1
    sums = bootstrap.sums(columns)
    with np.errstate(invalid="ignore"):
        return np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]


def null_ece(table: pd.DataFrame, task: str, num_draws: int = 2_000) -> np.ndarray:
    """The same of a perfectly calibrated model: its mean, then draws, (num_draws + 1,), in 0 to 1.

    Confidences stay as they are, and an answer is right as often as it says: what is left is the noise of the bins.
    """
    certainty = np.sort(_overconfidence(table, task)[1])
    in_bin = (confidence_bins(certainty)[:, None] == np.arange(NUM_BINS)).astype(float)  # (k, bins)
    rng = np.random.default_rng(0)
    over = np.stack([(certainty - (rng.random(len(certainty)) < certainty)) @ in_bin for _ in range(num_draws)])
    draws = np.abs(over).sum(axis=1) / max(1, len(certainty))
    return np.concatenate([[draws.mean()], draws])


def covered(table: pd.DataFrame) -> pd.Series:
    """Whether the age interval holds the labelled age, (n,) float 0 or 1; NaN without a label or an interval."""
    check_has(table, "age", "age_lo", "age_hi")
    age, low, high = (table[name].astype("Float64").astype(float) for name in ("age", "age_lo", "age_hi"))
    return ((low <= age) & (age <= high)).astype(float).where(age.notna() & low.notna() & high.notna())


def coverage_table(table: pd.DataFrame, members: pd.DataFrame, bootstrap: GroupBootstrap) -> pd.DataFrame:
    """Share of ages inside the interval, and the interval's width, by group (``group_members``, or any (n, g) bool).

    Returns:
        One row per group: ``value, low, high, resamples`` of the coverage, ``width`` (mean, years), ``count``.
    """
    inside = covered(table).to_numpy()
    samples = bootstrap.group_means(inside[:, None], members.to_numpy(dtype=bool))[:, 0]
    width = (table["age_hi"] - table["age_lo"]).astype("Float64").astype(float)
    result = interval(samples).drop(columns="p").set_index(members.columns)
    count = np.isfinite(inside).astype(int) @ members.to_numpy()
    return result.assign(width=[width[members[name]].mean() for name in members], count=count)

"""Whether a model knows what it does not know: its probabilities and its age intervals against the labels."""

import numpy as np
import pandas as pd

from agr_utils.analysis.bootstrap import GroupBootstrap, interval
from agr_utils.analysis.fairness import group_members
from agr_utils.analysis.metrics import predicted_class, probability_columns
from agr_utils.tasks import LabelScheme

NUM_BINS = 15  # of equal width, as most papers have it (Guo et al. 2017)


def confidence(table: pd.DataFrame, task: str) -> pd.Series:
    """Probability of the predicted class of ``gender`` or ``race``, (n,) float in [0, 1]."""
    if task == "gender":
        return np.maximum(table["gender_p"], 1 - table["gender_p"]).astype(float)
    return table[probability_columns(table)].max(axis=1).astype(float)


def confidence_bins(values: pd.Series) -> np.ndarray:
    """Number of the bin of each confidence, (n,) int; a bin holds its upper edge."""
    return np.clip(np.ceil(values.to_numpy() * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def _overconfidence(table: pd.DataFrame, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidence minus correctness of each labelled image, and its bin."""
    known = table[table[task].notna()]
    certainty = confidence(known, task)
    correct = predicted_class(known, task) == known[task].astype(int)
    return (certainty - correct).to_numpy(dtype=float), confidence_bins(certainty)


def reliability(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Reliability diagram of ``gender`` or ``race``: rows ``confidence, accuracy, count``, a row a bin that is used."""
    over, bins = _overconfidence(table, task)
    known = table[table[task].notna()]
    certainty = confidence(known, task).to_numpy()
    rows = pd.DataFrame({"confidence": certainty, "accuracy": certainty - over, "bin": bins})
    by_bin = rows.groupby("bin")
    return by_bin.mean().assign(count=by_bin.size()).reset_index(drop=True)


def sample_ece(table: pd.DataFrame, task: str, bootstrap: GroupBootstrap) -> np.ndarray:
    """Expected calibration error of ``gender`` or ``race`` and its resamples, (R + 1,), in 0 to 1.

    The mean over images of their bin's absolute difference between confidence and accuracy. Noise in a bin only ever
    adds to it, so resamples lie higher than the value.
    """
    known = table[task].notna().to_numpy()
    over, bins = _overconfidence(table, task)
    columns = np.zeros((len(table), NUM_BINS + 1))  # the last counts the labelled images
    columns[np.flatnonzero(known), bins] = over
    columns[:, -1] = known
    sums = bootstrap.sums(columns)
    return np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]


def covered(table: pd.DataFrame) -> pd.Series:
    """Whether the age interval holds the labelled age, (n,) float 0 or 1; NaN without a label."""
    age = table["age"].astype(float)
    inside = (table["age_lo"].astype(float) <= age) & (age <= table["age_hi"].astype(float))
    return inside.astype(float).where(age.notna())


def coverage_table(table: pd.DataFrame, scheme: LabelScheme, grouping: str, bootstrap: GroupBootstrap) -> pd.DataFrame:
    """Share of ages inside the interval, and the interval's width, by group.

    Args:
        table: predictions of one run and one split.
        scheme: of the labels.
        grouping: see ``agr_utils.analysis.fairness.group_table``.
        bootstrap: of the images.

    Returns:
        One row a group of enough images: ``value, low, high`` of the coverage, ``width`` (mean, years), ``count``.
    """
    members = group_members(table, scheme, grouping)
    inside = covered(table).to_numpy()
    samples = bootstrap.group_means(inside[:, None], members.to_numpy(dtype=bool))[:, 0]
    width = (table["age_hi"] - table["age_lo"]).astype(float)
    result = interval(samples).drop(columns="p").set_index(members.columns)
    return result.assign(width=[width[members[name]].mean() for name in members], count=members.sum())

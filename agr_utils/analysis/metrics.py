"""Metrics of a predictions table, with intervals. Nothing here needs an image or a model."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from agr_utils.analysis.bootstrap import COVERAGE, GroupBootstrap, interval
from agr_utils.tasks import TASKS

CS_YEARS = 5  # cumulative score: share of ages within so many years

# name -> (title, unit, whether more is better)
METRICS = {
    "age_mae": ("MAE", "years", False),
    "age_cs5": ("CS@5", "%", True),
    "gender_accuracy": ("Gender", "%", True),
    "race_accuracy": ("Race", "%", True),
}


def improvement_signs(metrics: Iterable[str]) -> np.ndarray:
    """1 for each metric of which more is better, else -1: times a difference, above 0 is better."""
    return np.array([1 if METRICS[name][2] else -1 for name in metrics])


def score_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What each image adds to each metric; NaN where its label is missing or the model lacks the task.

    Args:
        table: a predictions table.

    Returns:
        Columns ``age_mae`` (absolute error, years), ``age_cs5``, ``gender_accuracy``, ``race_accuracy`` (0 or 1),
        those that the table allows; a metric is the mean of its column.
    """
    scores = pd.DataFrame(index=table.index)
    if "age_pred" in table and table["age"].notna().any():
        error = signed_age_error(table).abs()
        scores["age_mae"] = error
        scores["age_cs5"] = (error <= CS_YEARS).astype(float).where(error.notna())
    for task in ("gender", "race"):
        predicted = predicted_class(table, task)
        if predicted is not None:
            label = table[task].astype("Float64").astype(float)
            scores[f"{task}_accuracy"] = (predicted == label).astype(float).where(label.notna())
    return scores


def signed_age_error(table: pd.DataFrame) -> pd.Series:
    """Predicted minus labelled age in years, (n,) float; above 0 for those predicted too old, NaN without a label."""
    return table["age_pred"].astype(float) - table["age"].astype(float)


def predicted_class(table: pd.DataFrame, task: str) -> pd.Series | None:
    """Most probable code of ``gender`` or ``race``, (n,) int; None where the table lacks the task."""
    if task == "gender":
        return (table["gender_p"] >= 0.5).astype(int) if "gender_p" in table else None
    columns = probability_columns(table)
    return pd.Series(table[columns].to_numpy().argmax(axis=1), index=table.index) if columns else None


def probability_columns(table: pd.DataFrame) -> list[str]:
    """Names of the columns with the race probabilities, in the order of the codes."""
    return sorted(column for column in table if column.startswith("race_p"))


def tasks_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The tasks that a predictions table answers."""
    column = {"age": "age_pred", "gender": "gender_p", "race": "race_p0"}
    return tuple(task for task in TASKS if column[task] in table)


def bootstrap(
    scores: pd.DataFrame,
    groups: pd.Series,
    num_resamples: int = 10_000,
    coverage: float = COVERAGE,
    seed: int = 0,
) -> pd.DataFrame:
    """Percentile intervals of the means of ``scores`` when whole groups are drawn again with replacement.

    Args:
        scores: one column a metric, one row an image, NaN where it does not count.
        groups: near-duplicate cluster of each row.
        num_resamples: bootstrap samples.
        coverage: of the interval, in (0, 1).
        seed: of the drawing.

    Returns:
        One row a metric: ``value, low, high, count`` (images that count).
    """
    samples = GroupBootstrap(groups, num_resamples, seed).means(scores.to_numpy(dtype=float))
    result = interval(samples, coverage).set_index(scores.columns)
    return result.drop(columns="p").assign(count=scores.notna().sum())


def summarize(table: pd.DataFrame, groups: pd.Series | None = None, num_resamples: int = 10_000) -> pd.DataFrame:
    """Metrics of one run and split with 95 % intervals: one row a metric, ``value, low, high, count``.

    Args:
        table: predictions of one run and one split.
        groups: near-duplicate cluster of each row; every image its own where it is None.
        num_resamples: bootstrap samples.
    """
    groups = pd.Series(np.arange(len(table))) if groups is None else groups
    return bootstrap(score_rows(table), groups.reset_index(drop=True), num_resamples)

"""Metrics of a predictions table, with intervals. Nothing here needs an image or a model."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agr_utils.data.splits import clusters_of
from agr_utils.errors import by_name, check_has
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.predictions_table import check_predictions, class_probabilities, is_number, tasks_of

CS_YEARS = 5  # cumulative score: share of ages within so many years


@dataclass(frozen=True)
class Metric:
    """A metric or an error, and how it is shown."""

    name: str  #: of its column
    label: str  #: for readers
    unit: str  #: ``years`` or ``units`` (of a number), or ``%`` of what is kept as a share in 0 to 1
    higher_is_better: bool | None = None  #: None where neither is

    @property
    def in_years(self) -> bool:
        """Whether it is shown as it is kept."""
        return self.unit != "%"

    @property
    def scale(self) -> float:
        """Factor from what is kept to what is shown."""
        return 1.0 if self.in_years else 100.0

    @property
    def title(self) -> str:
        """Label with the unit."""
        return f"{self.label} ({self.unit})"

    @property
    def change_unit(self) -> str:
        """Unit of a difference."""
        return self.unit if self.in_years else "points"

    @property
    def change_title(self) -> str:
        """Label with the unit of a difference."""
        return f"{self.label} ({self.change_unit})"

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "more is better" if self.higher_is_better else "less is better"


METRICS = by_name(
    Metric("age_mae", "MAE", "years", higher_is_better=False),
    Metric("age_cs5", "CS@5", "%", higher_is_better=True),
    Metric("gender_accuracy", "Gender", "%", higher_is_better=True),
    Metric("race_accuracy", "Race", "%", higher_is_better=True),
)


def get_metric(name: str) -> Metric:
    """A metric by its name, ``…_mae`` or ``…_accuracy`` of a task of one's own among them."""
    if name in METRICS:
        return METRICS[name]
    task, _, kind = name.rpartition("_")
    label = task.replace("_", " ").capitalize()
    if kind == "accuracy":
        return Metric(name, label, "%", higher_is_better=True)
    return Metric(name, f"{label}, MAE", "units", higher_is_better=False)


def improvement_signs(metrics: Iterable[str]) -> np.ndarray:
    """1 for each metric of which more is better, else -1: times a difference, above 0 is better."""
    return np.array([1 if get_metric(name).higher_is_better else -1 for name in metrics])


def score_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What each image adds to each metric; NaN where its label is missing or the model gave no answer.

    Args:
        table: a predictions table.

    Returns:
        Columns ``age_mae`` (absolute error, years), ``age_cs5``, ``gender_accuracy``, ``race_accuracy`` (0 or 1), and
        ``…_accuracy`` or ``…_mae`` of other tasks; those to which an image adds something. A metric is the mean of its
        column.

    Raises:
        InputError: see ``check_predictions``.
    """
    check_predictions(table)
    scores = pd.DataFrame(index=table.index)
    for task in tasks_of(table):
        if is_number(table, task):
            scores[f"{task}_mae"] = error = signed_error(table, task).abs()
            if task == "age":
                scores["age_cs5"] = (error <= CS_YEARS).astype(float).where(error.notna())
        else:
            label, predicted = table[task].astype("Float64").astype(float), predicted_class(table, task)
            known = predicted.notna() & label.notna()
            scores[f"{task}_accuracy"] = (predicted == label).astype(float).where(known)
    return scores.dropna(axis=1, how="all")


def signed_error(table: pd.DataFrame, task: str = "age") -> pd.Series:
    """Predicted minus labelled age in years, or another number, (n,) float; above 0 for those predicted too old.

    NaN without a label, and where the prediction is not finite; an InputError where the table lacks the task.
    """
    check_has(table, task, f"{task}_pred")
    label, predicted = (table[name].astype("Float64").astype(float) for name in (task, f"{task}_pred"))
    return predicted.where(np.isfinite(predicted)) - label


def predicted_class(table: pd.DataFrame, task: str) -> pd.Series:
    """Most probable code of a task with classes, (n,) int; an InputError where the table lacks the task.

    A probability that is not a number is no answer: those rows are NaN, and the whole is float.
    """
    probabilities = class_probabilities(table, task)  # (n, C)
    two = probabilities.shape[1] == 2  # of two that are equal, the second
    codes = (probabilities[:, 1] >= 0.5).astype(int) if two else probabilities.argmax(axis=1)
    return pd.Series(codes, index=table.index).where(np.isfinite(probabilities).all(axis=1))


def bootstrap(scores: pd.DataFrame, groups: pd.Series, num_resamples: int = 10_000) -> pd.DataFrame:
    """95 % intervals of the means of ``scores`` (see ``score_rows``) when whole groups are drawn with replacement.

    Returns:
        One row per metric: ``value, low, high, count`` (images that count).
    """
    samples = GroupBootstrap(groups, num_resamples).means(scores.to_numpy(dtype=float))
    result = interval(samples)[["value", "low", "high"]].set_index(scores.columns)
    return result.assign(count=scores.notna().sum())


def summarize(table: pd.DataFrame, groups: pd.Series | None = None, num_resamples: int = 10_000) -> pd.DataFrame:
    """Metrics of one run and split with 95 % intervals: one row per metric, ``value, low, high, count``.

    ``groups``: near-duplicate cluster of each row; what ``clusters_of`` finds where it is None.
    """
    groups = clusters_of(table) if groups is None else groups
    return bootstrap(score_rows(table), groups.reset_index(drop=True), num_resamples)

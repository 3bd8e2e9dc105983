"""How unequally a model errs: errors by labelled group, gaps between groups, and their intervals.

Groups come from labels, which are somebody's guesses. A gap says that people labelled so are served worse by the model,
or labelled worse; it does not say why.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from agr_utils.data.faces import age_band
from agr_utils.errors import by_name, check_has
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.metrics import Metric, score_rows, signed_error
from agr_utils.tasks import LabelScheme

MIN_IMAGES = 30  # a smaller group is named and not given a number
GROUPINGS = ("gender", "race", "age band", "gender x race")

ERRORS = by_name(
    Metric("age_mae", "MAE", "years", higher_is_better=False),
    Metric("age_signed", "signed age error", "years"),
    Metric("gender_error", "gender error", "%", higher_is_better=False),
    Metric("race_error", "race error", "%", higher_is_better=False),
)


def error_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What each image adds to each error (ERRORS, and those of other tasks); NaN where its label is missing."""
    scores, errors = score_rows(table), pd.DataFrame(index=table.index)
    if "age_mae" in scores:
        errors["age_mae"], errors["age_signed"] = scores["age_mae"], signed_error(table)
    for name in scores.columns.difference(["age_mae", "age_cs5"], sort=False):
        task, _, kind = name.rpartition("_")
        errors[f"{task}_error" if kind == "accuracy" else name] = (
            1 - scores[name] if kind == "accuracy" else scores[name]
        )
    return errors


def label_groups(table: pd.DataFrame, scheme: LabelScheme, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Name of the labelled group of each image: classes and ``age band`` as text, missing where the label is.

    ``columns``: only these; an InputError if there is no such label.
    """
    groups = pd.DataFrame(index=table.index)
    for task in scheme.tasks:
        if task.kind == "classes" and task.name in table:
            labels = table[task.name].map(dict(enumerate(task.classes)))
            groups[task.name] = pd.Categorical(labels, categories=task.classes)
    if "age_min" in table:
        groups["age band"] = age_band(table["age_min"])
    check_has(groups, *columns or (), what="what images can be grouped by")
    return groups if columns is None else groups[list(columns)]


def group_columns(grouping: str) -> list[str]:
    """Columns of ``label_groups`` that a grouping crosses: ``gender x race`` to ``[gender, race]``."""
    return grouping.split(" x ")


def group_table(table: pd.DataFrame, scheme: LabelScheme, grouping: str) -> pd.DataFrame:
    """Errors of one run by group.

    Args:
        table: predictions of one run and one split.
        scheme: of the labels.
        grouping: one of GROUPINGS, or any columns of ``label_groups`` joined by an x between spaces.

    Returns:
        One row per group: ``count`` and the errors of ``error_rows``; NaN where fewer than MIN_IMAGES images have the
        error's label. Images without a label of the grouping are in no group.
    """
    columns = group_columns(grouping)
    errors, groups = error_rows(table), label_groups(table, scheme, columns)
    by_group = errors.groupby([groups[name] for name in columns], observed=True)
    result = by_group.mean().where(by_group.count() >= MIN_IMAGES)
    result.insert(0, "count", by_group.size())
    return result


def group_members(table: pd.DataFrame, scheme: LabelScheme, grouping: str) -> pd.DataFrame:
    """Which images belong to which group: (n, g) bool, a column for each group of at least MIN_IMAGES images.

    Groups are in the order of the labels; an image that lacks one of the labels belongs to none.
    """
    columns = group_columns(grouping)
    groups = label_groups(table, scheme, columns)
    number = groups.groupby(columns, observed=True).ngroup().fillna(-1).to_numpy(dtype=int)  # -1 or NaN: one is missing
    members = {}
    for code in range(number.max(initial=-1) + 1):
        inside = number == code
        if inside.sum() >= MIN_IMAGES:
            members[", ".join(groups.iloc[inside.argmax()].astype(str))] = inside
    return pd.DataFrame(members, index=table.index)


def gaps(by_group: np.ndarray) -> np.ndarray:
    """Largest minus smallest group value of (R + 1, …, g); NaN where a resample lost a whole group.

    A group without a value in row 0, of which nobody has the label, takes no part; of fewer than two there is no gap.
    """
    measured = ~np.isnan(by_group[:1])  # (1, …, g)
    largest = np.where(measured, by_group, -np.inf).max(axis=-1, initial=-np.inf)
    smallest = np.where(measured, by_group, np.inf).min(axis=-1, initial=np.inf)
    with np.errstate(invalid="ignore"):
        return np.where(measured.sum(axis=-1) >= 2, largest - smallest, np.nan)


def worst(by_group: np.ndarray) -> np.ndarray:
    """Group value furthest from 0, in absolute terms, along the last axis; groups as of ``gaps``, at least one."""
    measured = ~np.isnan(by_group[:1])
    furthest = np.where(measured, np.abs(by_group), 0.0).max(axis=-1, initial=0.0)
    return np.where(measured.any(axis=-1), furthest, np.nan)


def sample_groups(
    bootstrap: GroupBootstrap, errors: Sequence[pd.DataFrame], table: pd.DataFrame, scheme: LabelScheme, grouping: str
) -> tuple[np.ndarray, list[str]]:
    """Group means of several models' errors, rows and columns alike, on the same resamples.

    Returns:
        (R + 1, models, errors, groups), and the names of the groups; any predictions table gives the labels.
    """
    members = group_members(table, scheme, grouping)
    values = np.concatenate([frame.to_numpy(dtype=float) for frame in errors], axis=1)
    samples = bootstrap.group_means(values, members.to_numpy(dtype=bool))
    return samples.reshape(len(samples), len(errors), errors[0].shape[1], members.shape[1]), list(members)


def group_intervals(table: pd.DataFrame, scheme: LabelScheme, grouping: str, bootstrap: GroupBootstrap) -> pd.DataFrame:
    """Errors of one run and split by group (see ``group_table``) with 95 % intervals.

    Returns:
        Rows ``error, group, value, low, high, resamples, count``: of how many images the error is known. Those of fewer
        than MIN_IMAGES are left out.
    """
    errors, members = error_rows(table), group_members(table, scheme, grouping)
    samples, names = sample_groups(bootstrap, [errors], table, scheme, grouping)
    result = interval(samples.reshape(len(samples), -1)).drop(columns="p")  # columns: each error, in it each group
    labels = {"error": np.repeat(list(errors), len(names)), "group": names * len(errors.columns)}
    result = result.assign(**labels, count=(errors.notna().to_numpy().T.astype(int) @ members.to_numpy()).ravel())
    return result[result["count"] >= MIN_IMAGES].reset_index(drop=True)

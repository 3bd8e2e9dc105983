"""Two models on the same faces: differences with intervals, what they are called, and tables that are kept."""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd

from agr_utils.data.splits import clusters_of
from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import MIN_GROUPS, GroupBootstrap, holm, interval
from agr_utils.measure.fairness import MIN_IMAGES, group_members
from agr_utils.measure.metrics import improvement_signs, score_rows
from agr_utils.predictions_table import tasks_of
from agr_utils.tasks import LabelScheme

# The smallest difference that matters, of the metrics that the claim is decided on.
MATTERS = {"age_mae": 0.1, "gender_accuracy": 0.005, "race_accuracy": 0.005}

SIGNIFICANT = 0.05  # Holm-corrected
P, T = ParamSpec("P"), TypeVar("T")


def cache_copies(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """``lru_cache`` for what gives tables: every caller has one of its own, and may change it."""

    def decorate(compute: Callable[P, T]) -> Callable[P, T]:
        compute_once = lru_cache(maxsize)(compute)

        @wraps(compute)
        def get_copy(*args: P.args, **kwargs: P.kwargs) -> T:
            return copy.deepcopy(compute_once(*args, **kwargs))

        return get_copy

    return decorate


def add_calls(differences: pd.DataFrame) -> pd.DataFrame:
    """Say of each difference what it is called, as docs/protocol.md has it.

    Args:
        differences: one family: ``value, low, high, p``; ``matters``: the smallest difference that matters;
            ``seeds``: the difference of each single seed. Above 0 is better.

    Returns:
        The same with ``p_holm`` and ``call``: ``better``, ``worse``, ``no difference`` (that matters), ``cannot tell``.
    """
    result = differences.assign(p_holm=holm(differences["p"]) if len(differences) else [])
    return result.assign(call=[_call(row) for row in result.itertuples()])


def _call(row) -> str:
    same_side = all(value * row.value > 0 for value in row.seeds)
    if row.p_holm < SIGNIFICANT and same_side:
        return "better" if row.value > 0 else "worse"
    if -row.matters < row.low and row.high < row.matters:
        return "no difference"
    return "cannot tell"


def count_calls(calls: pd.Series) -> dict[str, int]:
    """How often each call was made."""
    return {name: int((calls == name).sum()) for name in ("better", "worse", "no difference", "cannot tell")}


def mean_frame(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean of frames with the same rows and columns."""
    return sum(frames) / len(frames)


def mean_of_columns(bootstrap: GroupBootstrap, frames: Sequence[pd.DataFrame]) -> np.ndarray:
    """Means of the columns of several frames on the same resamples: (R + 1, frames, columns)."""
    values = np.concatenate([frame.to_numpy(dtype=float) for frame in frames], axis=1)
    return bootstrap.means(values).reshape(-1, len(frames), frames[0].shape[1])


def improvements(
    bootstrap: GroupBootstrap,
    ours: Sequence[pd.DataFrame],
    theirs: Sequence[pd.DataFrame],
    pairs: Sequence[tuple[int, int]] | None = None,
) -> pd.DataFrame:
    """By how much our trainings are better than theirs on average, paired by face.

    Args:
        bootstrap: of the faces.
        ours: scores of each training, rows and columns alike (``score_rows``).
        theirs: the same of the others.
        pairs: which of ours stands against which of theirs, for ``seeds``; first against first where it is None.

    Returns:
        Rows ``metric, value, low, high, p, resamples, seeds, matters``: above 0 ours are better; ``seeds`` is the
        difference of each pair of trainings, ``matters`` is NaN for what no claim is decided on.
    """
    metrics = list(ours[0])
    sign = improvement_signs(metrics)
    means = mean_of_columns(bootstrap, [mean_frame(ours), mean_frame(theirs)])
    single = [[frame.mean().to_numpy() for frame in frames] for frames in (ours, theirs)]
    pairs = pairs or list(zip(range(len(ours)), range(len(theirs)), strict=True))
    seeds = [sign * (single[0][one] - single[1][other]) for one, other in pairs]
    table = interval(sign * (means[:, 0] - means[:, 1])).assign(metric=metrics)
    return table.assign(seeds=list(map(tuple, np.transpose(seeds))), matters=table["metric"].map(MATTERS))


def call_improvements(table: pd.DataFrame) -> pd.DataFrame:
    """``add_calls`` for what ``improvements`` gave: one family; what no claim is decided on has an empty call."""
    counts = table["matters"].notna()
    return pd.concat([add_calls(table[counts]), table[~counts].assign(call="")]).sort_index()


def compare_runs(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    scheme: LabelScheme | None = None,
    grouping: str = "",
    num_resamples: int = 10_000,
) -> pd.DataFrame:
    """By how much a model is better than another on the same faces, as the claims of this project are decided.

    Faces that both answer are compared one by one, whole groups (``clusters_of``) are drawn again for the intervals,
    and the p-values are corrected for their number (Holm). One training a side says nothing about another seed.

    Args:
        ours: predictions of one split, as ``predict_split`` or ``read_run(folder).split("test")[0]`` gives them.
        theirs: the other model's, of the same faces in any order.
        scheme: of the labels; needed with ``grouping``.
        grouping: compares within each labelled group: see ``fairness.group_table``. Empty for all faces together.
        num_resamples: of the faces.

    Returns:
        Rows ``group, metric, value, low, high, p, matters, p_holm, call`` for every metric that both have; above 0 ours
        is better. See ``add_calls`` for what a call is; CS@5 has none. Of fewer than MIN_GROUPS near-duplicate groups,
        and in a labelled group of fewer than MIN_IMAGES labels, there is no interval, and nothing can be told.

    Raises:
        InputError: if the faces or their labels are not the same, or no task is common to both.
    """
    if set(ours["image_id"]) != set(theirs["image_id"]) or len(ours) != len(theirs):
        raise InputError(
            "the two tables hold different faces. Give the predictions of both models for one split. In a table of "
            "one's own a column split keeps it as it is when pictures are added"
        )
    if grouping and scheme is None:
        raise InputError(f"groups by {grouping} need the names of the labels. Give scheme=get_scheme(...) as well")
    ours, theirs = ours.reset_index(drop=True), theirs.set_index("image_id").loc[ours["image_id"]].reset_index()
    scores = [score_rows(table) for table in (ours, theirs)]
    for task in set(tasks_of(ours)) & set(tasks_of(theirs)):
        labels = [table[task].to_numpy(dtype=float, na_value=np.nan) for table in (ours, theirs)]
        if (differ := ~np.isclose(*labels, equal_nan=True)).any():
            raise InputError(f"the labels of {task} differ for {differ.sum()} faces. Predict both with the same labels")
    shared = [name for name in scores[0] if name in scores[1]]
    if not shared:
        raise InputError("the two models have no task in common, so there is nothing to compare")
    everybody = pd.DataFrame({"all": np.ones(len(ours), dtype=bool)})
    members = group_members(ours, scheme, grouping) if grouping else everybody
    if members.empty:
        raise InputError(f"no group by {grouping} has {MIN_IMAGES} faces or more: too few for a number")
    clusters, parts = clusters_of(ours if "group" in ours else theirs), []
    answered = scores[0][shared].notna() & scores[1][shared].notna()
    for name, inside in members.items():
        bootstrap = GroupBootstrap(clusters[inside], num_resamples)
        mine, other = (frame[shared].where(answered)[inside] for frame in scores)
        part = improvements(bootstrap, [mine], [other]).assign(group=name)
        few = mine.notna().sum().to_numpy() < (MIN_IMAGES if grouping else 1)
        part.loc[few | (bootstrap.num_groups < MIN_GROUPS), ["low", "high", "p"]] = np.nan, np.nan, 1.0
        parts.append(part)
    table = call_improvements(pd.concat(parts, ignore_index=True))
    return table[["group", "metric", "value", "low", "high", "p", "matters", "p_holm", "call"]]

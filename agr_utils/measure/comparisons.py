"""What a difference between runs is called, and tables that are kept."""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd

from agr_utils.measure.bootstrap import GroupBootstrap, holm

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

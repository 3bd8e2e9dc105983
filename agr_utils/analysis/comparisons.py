"""Published runs against each other, on the same faces: differences with intervals, and what they are called."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd

from agr_utils.analysis.bootstrap import GroupBootstrap, holm
from agr_utils.analysis.results import Run, read_bench, read_folder, read_runs
from agr_utils.data.splits import groups_of
from agr_utils.errors import InputError
from agr_utils.tasks import TASKS

SIGNIFICANT = 0.05  # Holm-corrected
Measure = Callable[[pd.DataFrame], pd.DataFrame]  # predictions table to scores or errors, a row an image
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


@dataclass(frozen=True, eq=False)  # told apart by identity, so that what is computed from it can be kept
class Evidence:
    """The runs of docs/protocol.md, scored on the faces of the test split.

    Attributes:
        runs: all of them; those of ``results/`` itself count as long.
        bench: tables of ``agr bench`` by name, for what an architecture costs.
    """

    runs: tuple[Run, ...]
    bench: dict[str, pd.DataFrame]

    @property
    def faces(self) -> pd.DataFrame:
        """A predictions table, for its images and labels."""
        return self._faces.copy()

    @cached_property
    def _faces(self) -> pd.DataFrame:
        return self.runs[0].split("test")[0]

    @cached_property
    def bootstrap(self) -> GroupBootstrap:
        """Resamples of the faces, the same for everything that is computed from this evidence."""
        return GroupBootstrap(groups_of(self.faces["image_id"]))

    def select(self, length: str, backbone: str, tasks: Sequence[str] = TASKS) -> list[Run]:
        """Runs of one kind, one a seed.

        Args:
            length: ``short``, ``long`` or ``equal``.
            backbone: name of the architecture.
            tasks: of the runs.

        Raises:
            InputError: if two of them have one seed.
        """
        kind = (length, backbone, tuple(tasks))
        chosen: dict[int, Run] = {}
        for run in self.runs:
            if (run.length, run.backbone, run.tasks) != kind:
                continue
            if run.seed in chosen:
                raise InputError(f"two {length} runs of one seed: {chosen[run.seed].run_id}, {run.run_id}. Keep one")
            chosen[run.seed] = run
        return list(chosen.values())

    def scores(self, runs: Sequence[Run], measure: Measure) -> list[pd.DataFrame]:
        """Scores of each run, rows in the order of ``faces``."""
        return [_scores(self, run, measure) for run in runs]

    def mean_scores(self, runs: Sequence[Run], measure: Measure) -> pd.DataFrame:
        """Scores of an image on average over the seeds, rows in the order of ``faces``."""
        return mean_frame(self.scores(runs, measure))


@cache_copies(maxsize=256)  # of every run two measures, which several tables and figures ask for
def _scores(evidence: Evidence, run: Run, measure: Measure) -> pd.DataFrame:
    table = run.split("test")[0].set_index("image_id").loc[evidence.faces["image_id"]]
    return measure(table.reset_index())


def read_evidence(results_dir: Path) -> Evidence:
    """Every run that the claims are tested on; those that are not there yet are missing."""
    folders = ("claims", "equal_epochs")
    further = [run for name in folders for run in read_folder(results_dir / name)]
    return Evidence((*read_runs(results_dir), *further), read_bench(results_dir))


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

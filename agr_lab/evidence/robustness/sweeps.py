"""The published sweeps, as they are compared: architectures, multi-task and single-task, augmentation, drawn faces."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from agr_lab.evidence.reading import read_beside
from agr_lab.reports.sweep_report import read_sweep
from agr_utils.errors import InputError
from agr_utils.inside.sweep import SWEPT_ERRORS, Sweep
from agr_utils.measure.bootstrap import interval
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.results import Run, read_folder, read_runs, read_short_runs
from agr_utils.models.backbones import BACKBONES
from agr_utils.run_files import SWEEP_FILE
from agr_utils.tasks import TASKS

NO_SWEEPS = "No finished sweeps yet."


@dataclass(frozen=True, eq=False)
class RobustnessEvidence:
    """Published sweeps."""

    short: dict[tuple[str, tuple[str, ...]], Sweep]  # of short runs of seed 0, by (architecture, tasks)
    long: dict[str, Sweep]  # of published multi-task runs whose weights were still there, by architecture
    augmentation: dict[str, Sweep]  # of the ablation, by what was left out; ``usual`` for the run with all of it
    drawn: list[Run]  # on drawn faces, for what varies in them
    # That, of each of their test faces. They were drawn by the generator of their day, so it is kept.
    nuisances: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def architectures(self) -> dict[str, Sweep]:
        """The short multi-task runs by architecture: all of equal computing time."""
        return {name: self.short[name, TASKS] for name in BACKBONES if (name, TASKS) in self.short}


def read_robustness(results_dir: Path) -> RobustnessEvidence:
    """Every sweep in ``results/``; those that are not there yet are missing."""
    ablation = results_dir / "ablations" / "augmentation"
    short = {
        (run.backbone, run.tasks): swept
        for run, swept in _with_sweeps(results_dir / "claims", read_short_runs(results_dir))
        if run.seed == 0
    }
    augmentation = {left_out(run): swept for run, swept in _with_sweeps(ablation, read_folder(ablation))}
    return RobustnessEvidence(
        short=short,
        long={run.backbone: swept for run, swept in _with_sweeps(results_dir, read_runs(results_dir))},
        augmentation=augmentation,
        drawn=[
            run for run in read_folder(results_dir / "cues") if run.about["config"]["synthetic"]["confounding"] == 0
        ],
        nuisances=pd.read_csv(kept) if (kept := results_dir / "cues" / "nuisances.csv").exists() else pd.DataFrame(),
    )


def _with_sweeps(folder: Path, runs: list[Run]) -> list[tuple[Run, Sweep]]:
    return read_beside(folder, runs, SWEEP_FILE, lambda path: Sweep(read_sweep(path)))


def increase_differences(ours: Sequence[Sweep], theirs: Sequence[Sweep]) -> pd.DataFrame:
    """How much less ours are hurt than theirs: both sides give each error once, on the same faces.

    One side may be the sweep of a multi-task model, the other those of three single-task models.

    Returns:
        Rows ``corruption, error, value, low, high, p, matters, seeds`` as ``add_calls`` takes them; above 0, ours are
        hurt less.
    """
    mine, other = _by_error(ours), _by_error(theirs)
    errors = [name for name in SWEPT_ERRORS if name in mine and name in other]
    if not errors:
        raise InputError("these sweeps have no error in common: their models have no task in common")
    first = ours[0]
    for swept in (*ours, *theirs):
        if not swept.image_ids.equals(first.image_ids) or swept.conditions != first.conditions:
            raise InputError("sweeps of different faces or corruptions cannot be compared. Make them with one setting")
    difference = np.stack([other[name] - mine[name] for name in errors], axis=2)  # (n, corruptions, errors)
    samples = first.bootstrap().means(difference.reshape(len(difference), -1))
    labels = [(corruption, error) for corruption in first.corruptions for error in errors]
    return with_matters(pd.DataFrame(labels, columns=["corruption", "error"]), interval(samples))


def _by_error(sweeps: Sequence[Sweep]) -> dict[str, np.ndarray]:
    """Increases of each error, (n, corruptions), of whichever sweep has it."""
    return {name: swept.increases()[:, :, number] for swept in sweeps for number, name in enumerate(swept.errors)}


def with_matters(labels: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Both side by side, with the smallest difference of each error that matters, and one seed."""
    metric = {"age_mae": "age_mae", "gender_error": "gender_accuracy", "race_error": "race_accuracy"}
    matters = labels["error"].map(lambda error: MATTERS[metric[error]])
    return pd.concat([labels, found], axis=1).assign(matters=matters, seeds=[(value,) for value in found["value"]])


def left_out(run: Run) -> str:
    """What a run of the augmentation ablation was trained without."""
    zero = [name for name in ("flip", "affine", "colour", "erase") if run.about["config"]["augmentation"][name] == 0]
    if not zero:
        return "usual"
    names = {"colour": "no colour changes", "erase": "no erasing"}
    return names.get(zero[0], f"no {zero[0]}") if len(zero) == 1 else "no augmentation"

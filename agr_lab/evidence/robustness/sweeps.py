"""The published sweeps, as they are compared: architectures, multi-task and single-task, augmentation, drawn faces."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from agr_lab.evidence.reading import read_beside
from agr_lab.reports.sweep_report import read_sweep
from agr_utils.inside.sweep import Sweep
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


def left_out(run: Run) -> str:
    """What a run of the augmentation ablation was trained without."""
    zero = [name for name in ("flip", "affine", "colour", "erase") if run.about["config"]["augmentation"][name] == 0]
    if not zero:
        return "usual"
    names = {"colour": "no colour changes", "erase": "no erasing"}
    return names.get(zero[0], f"no {zero[0]}") if len(zero) == 1 else "no augmentation"

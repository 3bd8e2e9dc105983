"""What is read in ``results/``: the runs that the claims are tested on, scored once, and what stands beside them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd

from agr_lab.gpu.protocol import CLAIM_EPOCHS, IMAGE_SIZE
from agr_utils.data.splits import groups_of
from agr_utils.errors import InputError
from agr_utils.files import list_visible, read_table
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.comparisons import cache_copies, mean_frame
from agr_utils.measure.results import Run, read_folder, read_runs
from agr_utils.tasks import TASKS

T = TypeVar("T")
Measure = Callable[[pd.DataFrame], pd.DataFrame]  # predictions table to scores or errors, a row per image


@dataclass(frozen=True, eq=False)  # told apart by identity, so that what is computed from it can be kept
class Evidence:
    """The runs of docs/protocol.md, scored on the faces of the test split."""

    runs: tuple[Run, ...]  # those of ``results/`` itself count as long
    bench: dict[str, pd.DataFrame]  # tables of ``agr bench`` by name, for what an architecture costs
    trained: tuple[Run, ...] = ()  # of docs/protocol_2.md
    gap_calls: dict[str, pd.DataFrame] = field(default_factory=dict)  # what C2 calls their gaps, by comparison

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
        """Runs of one kind (``short``, ``long`` or ``equal``), one per seed; an InputError if two have one seed."""
        kind = (length, backbone, tuple(tasks))
        chosen: dict[int, Run] = {}
        for run in self.runs:
            if (run.length, run.backbone, run.tasks) != kind:
                continue
            if run.seed in chosen:
                raise InputError(f"two {length} runs of one seed: {chosen[run.seed].run_id}, {run.run_id}. Keep one")
            chosen[run.seed] = run
        return list(chosen.values())

    def select_trained(
        self,
        backbone: str,
        tasks: Sequence[str] = TASKS,
        epochs: float = CLAIM_EPOCHS,
        pretrained: bool = False,
        precision: str = "bf16",
    ) -> dict[int, Run]:
        """Runs of the second protocol of one kind, by seed: of the accelerator (``bf16``) or of a CPU (``fp32``)."""
        return {
            run.seed: run
            for run in self.trained
            if (run.backbone, run.tasks) == (backbone, tuple(tasks))
            and run.about["config"]["image_size"] == IMAGE_SIZE
            and math.isclose(run.about["job"]["epochs"], epochs)
            and (run.about["weights_source"] != "from scratch", run.about["precision"]) == (pretrained, precision)
        }

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
    trained = tuple(read_folder(results_dir / "protocol_2"))
    calls = {path.stem[-1]: pd.read_csv(path) for path in list_visible(results_dir / "protocol_2", "gaps_?.csv")}
    runs = (*read_runs(results_dir), *read_folder(results_dir / "claims"))
    return Evidence(runs, read_bench(results_dir), trained, calls)


def read_ablations(results_dir: Path) -> dict[str, list[Run]]:
    """Runs of each ablation, by its name."""
    folders = list_visible(results_dir / "ablations", "*/")
    return {folder.name: read_folder(folder) for folder in folders}


def read_published(results_dir: Path) -> pd.DataFrame:
    """``results/published.csv``, as text: an empty cell was not found in the source; no rows without the file."""
    path = results_dir / "published.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()


def read_bench(results_dir: Path) -> dict[str, pd.DataFrame]:
    """The tables that ``agr bench`` wrote to ``results/bench/``, by name; empty where it has not run."""
    paths = list_visible(results_dir / "bench", "*.csv")
    return {path.stem: read_table(path, (), "a benchmark", f"agr bench --only {path.stem}") for path in paths}


def measured(table: pd.DataFrame | None, column: str, **where: int) -> pd.Series:
    """A column of a table of ``agr bench`` by architecture, of the rows asked for; empty without the table."""
    if table is None:
        return pd.Series(dtype=float)
    for key, value in where.items():
        table = table[table[key] == value]
    return table.set_index("backbone")[column]


def devices_of(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """What ``agr bench deploy`` measured, by the CPU: every ``results/bench/deploy*.csv``."""
    tables = [table for name, table in evidence.bench.items() if name.startswith("deploy")]
    return {table["cpu"].iloc[0]: table for table in tables}


def one_face(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``agr bench deploy`` of one face on one thread: networks of 96 px, the shipped one, other packages."""
    size = table["image_size"]  # other packages have none
    own = (size == IMAGE_SIZE) | size.isna() | (table["network"] == "shipped")
    return table[own & (table["batch_size"] == 1) & (table["threads"] == 1)].reset_index(drop=True)


def machine_title(table: pd.DataFrame) -> str:
    """The hardware that a table of ``agr bench`` was measured on, in one line."""
    row, threads = table.iloc[0], table["threads"].unique()
    machine = f"{row['cpu']}, {row['cores']} cores"
    return machine if len(threads) > 1 else f"{machine}, {threads[0]} thread{'s' if threads[0] > 1 else ''}"


def read_beside(folder: Path, runs: Sequence[Run], name: str, read: Callable[[Path], T]) -> list[tuple[Run, T]]:
    """What lies under a name beside the predictions of some runs, for those that have it, in their order."""
    found = [(run, folder / run.run_id / name) for run in runs]
    return [(run, read(path)) for run, path in found if path.exists()]

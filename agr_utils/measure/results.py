"""Published runs: small files in ``results/`` that carry every number shown to a reader."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from agr_utils.data.splits import clusters_of, read_split_file
from agr_utils.data.utkface import read_names
from agr_utils.errors import InputError
from agr_utils.files import list_visible, read_json, read_table
from agr_utils.machine import repository_root
from agr_utils.measure.comparisons import cache_copies
from agr_utils.models.backbones import BACKBONES, get_backbone
from agr_utils.predictions_table import read_predictions
from agr_utils.run_files import CONFIG_FILE, HISTORY_FILE, PREDICTIONS_FILE
from agr_utils.tasks import TASKS
from agr_utils.training.config import TrainConfig, recorded_config

PUBLISHED_FILES = (CONFIG_FILE, HISTORY_FILE, PREDICTIONS_FILE)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run as it was published."""

    run_id: str  #: name of its folder
    about: dict  #: ``config.json``: config, command, commit, hardware, parameters, MACs
    history: pd.DataFrame  #: one row per epoch
    predictions: pd.DataFrame  #: one row per image

    @property
    def config(self) -> TrainConfig:
        """What was trained; a setting that is younger than the run has its default."""
        return TrainConfig.from_dict(self.about["config"])

    @property
    def title(self) -> str:
        """Name of the architecture for tables and figures."""
        return get_backbone(self.backbone).title

    @property
    def backbone(self) -> str:
        """Name of the architecture in the registry."""
        return self.about["config"]["backbone"]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Heads that were trained."""
        return tuple(self.about["config"]["tasks"])

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.about["config"]["seed"]

    @property
    def length(self) -> str:
        """``short`` where the label of the run's study says so (docs/protocol.md), else ``long``."""
        return "short" if self.run_id.endswith("-short") else "long"

    def split(self, name: str) -> tuple[pd.DataFrame, pd.Series]:
        """Predictions of a split, and the near-duplicate cluster of each row."""
        table = self.predictions[self.predictions["split"] == name].reset_index(drop=True)
        return table, clusters_of(table)


def read_run(folder: Path) -> Run:
    """Read one published run, or a run folder that is finished."""
    files = [Path(folder) / name for name in PUBLISHED_FILES]
    return _read_once(*files, tuple(file.stat().st_mtime_ns for file in files if file.exists()))


@cache_copies(maxsize=128)  # a page of tables asks for the same runs again and again; the times tell when one is new
def _read_once(config: Path, history: Path, predictions: Path, times: tuple[int, ...]) -> Run:
    about = read_json(config)
    recorded_config(about, config)
    epochs = read_table(history, ("epoch",), "a history", "agr train")
    return Run(config.resolve().parent.name, about, epochs, read_predictions(predictions))


def read_folder(folder: Path) -> list[Run]:
    """Every run that a folder holds, by name."""
    return [read_run(path.parent) for path in list_visible(folder, f"*/{CONFIG_FILE}")]


def read_short_runs(results_dir: Path) -> list[Run]:
    """The short runs that the claims are tested on (docs/protocol.md), by name."""
    return [run for run in read_folder(results_dir / "claims") if run.length == "short"]


def read_runs(results_dir: Path | None = None) -> list[Run]:
    """The published multi-task runs on UTKFace, one per architecture, in the order of the course's architectures."""
    chosen: dict[str, Run] = {}
    for run in read_folder(results_dir or repository_root() / "results"):
        if (run.config.data, run.config.protocol, run.tasks) != ("utkface", "grouped", TASKS):
            continue
        if run.backbone in chosen:
            raise InputError(
                f"two published runs of one architecture: {chosen[run.backbone].run_id}, {run.run_id}. Move one to a "
                "folder of its own, as agr publish --results-dir does"
            )
        chosen[run.backbone] = run
    return [chosen[name] for name in BACKBONES if name in chosen]


def read_figure(name: str) -> pd.DataFrame:
    """The numbers behind a published figure: ``figures/<name>.csv``, which ``agr figures`` writes."""
    return read_table(repository_root() / "figures" / f"{name}.csv", (), "a figure's table", "agr figures")


@cache_copies(maxsize=1)
def read_labels_from_split() -> pd.DataFrame:
    """Faces table of the 21,288 UTKFace files that the committed split lists: their names hold their labels."""
    listed = read_split_file()
    faces = read_names(listed["image_id"].tolist())
    faces["group"], faces["split"] = listed["group"], listed["split"]
    return faces

"""Sweeps of finished runs as files: made by ``agr robustness``, read by what compares them."""

from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data.corruptions import CORRUPTIONS
from agr_utils.errors import InputError
from agr_utils.files import read_table, write_table
from agr_utils.inside.sweep import CLEAN, Sweep, sweep
from agr_utils.machine import current_commit
from agr_utils.measure.fairness import ERRORS
from agr_utils.run_files import CHECKPOINT_FILE, SWEEP_FILE
from agr_utils.tasks import OWN_TABLE
from agr_utils.training.config import TrainConfig


def sweep_run_folder(
    run_dir: Path, source: Path | None = None, split: str = "test", num_images: int = 2000, command: str = ""
) -> pd.DataFrame:
    """Sweep the model of a finished run on about ``num_images`` faces of a split, and write the table into its folder.

    See ``sweep``; run, split, command and commit are in its ``attrs``, and in the file.
    """
    from agr_utils.training.run import load_model, load_run_data  # what trains takes seconds to import

    model, about = load_model(Path(run_dir) / CHECKPOINT_FILE)
    if model.scheme.name == OWN_TABLE:
        raise InputError(f"{run_dir}: of a table of one's own, for which it is not known where to cover eyes and mouth")
    config = TrainConfig.from_dict(about["config"])
    data = load_run_data(run_dir, config, source)
    if data.faces[list(model.tasks)].isna().all(axis=None):  # FairFace's ages are bands
        raise InputError(f"{run_dir}: no picture has an exact {' or '.join(model.tasks)}, so there is nothing to score")
    table = sweep(model, data, data.sample(split, num_images))
    table.attrs = {"run_id": Path(run_dir).name, "split": split, "command": command, "commit": current_commit()}
    write_sweep(table, Path(run_dir) / SWEEP_FILE)
    return table


def summarize_sweep(table: pd.DataFrame) -> pd.DataFrame:
    """Mean errors: a row per corruption, averaged over the severities, a column per error in its unit; first clean."""
    swept = Sweep(table)
    clean = np.nanmean(swept.values[:, 0], axis=0)
    means = clean + np.nanmean(swept.increases(), axis=0)  # (corruptions, errors)
    scale = [ERRORS[error].scale for error in swept.errors]
    columns = [ERRORS[error].title for error in swept.errors]
    index = [CLEAN, *(CORRUPTIONS[name].title for name in swept.corruptions)]
    return pd.DataFrame(np.vstack([clean, means]) * scale, index, columns).round(2)


def write_sweep(table: pd.DataFrame, path: Path) -> None:
    """Write a sweep as Parquet, atomically: ages to a tenth of a year, for 100,000 rows are many."""
    small = table.astype({"corruption": "category", "severity": "int8"})
    for column in small.columns.intersection(["gender_error", "race_error"]):
        small[column] = small[column].astype("boolean")
    if "age_signed" in small:
        small["age_signed"] = small["age_signed"].round(1).astype("float32")
    write_table(small, path)


def read_sweep(path: Path) -> pd.DataFrame:
    """Read what ``write_sweep`` wrote.

    Raises:
        InputError: if the file is missing or no such table.
    """
    return read_table(path, ("image_id", "corruption", "severity"), "a sweep", f"agr robustness {Path(path).parent}")

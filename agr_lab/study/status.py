"""What the runs of a study have come to, read from their folders alone."""

import math
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from agr_lab.study.grid import Study
from agr_utils.errors import InputError
from agr_utils.files import read_table
from agr_utils.predictions_table import predicted_splits
from agr_utils.run_files import ERROR_FILE, HISTORY_FILE, PREDICTIONS_FILE, STATE_FILE
from agr_utils.training.guards import is_locked


def status_table(study: Study) -> pd.DataFrame:
    """A row per run, from its folder: ``run, status, epochs, of, seconds`` spent, ``seconds_left``, validation metrics.

    ``seconds_left`` is NaN until a run like it has finished an epoch.
    """
    rows = []
    for run_id, config in study.runs.items():
        folder = study.output_dir / run_id
        history = _read_history(folder)
        row = {"run": run_id, "status": run_status(folder, study.options.splits), "of": config.num_epochs}
        row |= {"epochs": history["epoch"].iloc[-1] if len(history) else 0.0}
        row |= {"seconds": history["seconds"].sum() if len(history) else 0.0}
        row |= {"kind": (config.backbone, config.image_size, config.early_size, len(config.tasks))}
        metrics = [name for name in history if name.startswith("validation_")]
        rows.append(row | {name: history[name].iloc[-1] for name in metrics})
    table = pd.DataFrame(rows)
    spent = table.groupby("kind")[["seconds", "epochs"]].sum()
    rate = (spent["seconds"] / spent["epochs"].where(spent["epochs"] > 0)).reindex(table["kind"]).to_numpy()
    table["seconds_left"] = rate * (table["of"] - table["epochs"])
    table.loc[table["status"].isin(["finished", "failed"]), "seconds_left"] = 0.0  # one that failed waits for you
    return table.drop(columns="kind")


def _read_history(folder: Path) -> pd.DataFrame:
    """History of a run; empty where there is none yet, or none that can be read (the run then says so itself)."""
    try:
        return read_table(folder / HISTORY_FILE, ("epoch", "seconds"), "a history", "agr study")
    except InputError:
        return pd.DataFrame()


def run_status(folder: Path, splits: tuple[str, ...]) -> str:
    """``waiting, running, stopped, failed`` or ``finished``: with a history and the predictions of all these splits."""
    if is_locked(folder):
        return "running"
    predicted = predicted_splits(folder / PREDICTIONS_FILE)
    whole = (folder / HISTORY_FILE).exists() and bool(predicted)  # of a damaged table no split: it is made again
    if (folder / ERROR_FILE).exists():
        return "failed"
    if whole and set(splits) <= set(predicted):
        return "finished"
    return "stopped" if (folder / STATE_FILE).exists() else "waiting"


def render_status(table: pd.DataFrame) -> str:
    """A status table as text, below a line with the counts and the time left."""
    running = int((table["status"] == "running").sum())
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts().items())
    left = table["seconds_left"].sum(skipna=False) / max(running, 1)
    time_left = "; time left not known yet" if math.isnan(left) else f"; about {format_duration(left)} left"
    metrics = [name for name in table if name.startswith("validation_")]
    titles = [name.removeprefix("validation_").removesuffix("_accuracy").replace("_", " ") for name in metrics]
    shown = table[["run", "status"]].assign(
        epochs=[f"{row.epochs:g}/{row.of:g}" for row in table.itertuples()],
        spent=table["seconds"].map(format_duration),
        left=table["seconds_left"].map(format_duration),
    )
    reached = table[metrics].map("{:.3f}".format, na_action="ignore").set_axis(titles, axis=1)
    shown = pd.concat([shown, reached], axis=1).to_string(index=False, na_rep="")
    return f"{counts}{time_left if left else ''}\n{shown}"


def format_duration(seconds: float) -> str:
    """``1:02:03`` or ``04:05``; a question mark for NaN."""
    return "?" if math.isnan(seconds) else tqdm.format_interval(round(seconds))

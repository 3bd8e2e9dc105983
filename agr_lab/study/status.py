"""What the runs of a study have come to, read from their folders alone."""

import math
from pathlib import Path

import pandas as pd
from rich.table import Table

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
    if whole and set(splits) <= set(predicted):
        return "finished"
    if (folder / ERROR_FILE).exists():
        return "failed"
    return "stopped" if (folder / STATE_FILE).exists() else "waiting"


def render_status(table: pd.DataFrame) -> Table:
    """A status table for a terminal, with the time left in its title."""
    running = int((table["status"] == "running").sum())
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts().items())
    left = table["seconds_left"].sum(skipna=False) / max(running, 1)
    time_left = "; time left not known yet" if math.isnan(left) else f"; about {format_duration(left)} left"
    rendered = Table(title=counts + (time_left if left else ""), title_justify="left", box=None)
    metrics = [name for name in table if name.startswith("validation_")]
    titles = [name.removeprefix("validation_").removesuffix("_accuracy").replace("_", " ") for name in metrics]
    for title in ("run", "status", "epochs", "spent", "left", *titles):
        rendered.add_column(
            title, justify="left" if title in ("run", "status") else "right", no_wrap=title in ("run", "status")
        )
    for _, row in table.iterrows():
        cells = [row["run"], row["status"], f"{row['epochs']:g}/{row['of']:g}"]
        cells += [format_duration(row["seconds"]), format_duration(row["seconds_left"])]
        cells += ["" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in metrics]
        rendered.add_row(*cells)
    return rendered


def format_duration(seconds: float) -> str:
    """``1:02:03`` or ``4:05``; a question mark for NaN."""
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

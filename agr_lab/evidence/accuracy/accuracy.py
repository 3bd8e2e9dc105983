"""Figure ``accuracy`` and the README's table of results."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.metrics import METRICS, summarize
from agr_utils.measure.plots import plot_intervals
from agr_utils.measure.results import Run

METRIC_TITLES = [metric.title for metric in METRICS.values()]


@FIGURES.add("accuracy", "Real faces: test results of the five architectures, 95 % intervals")
def draw_accuracy(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Four metrics with intervals."""
    summaries = {run.title: summarize(*run.split("test")) for run in runs}
    figure, axes = plt.subplots(2, 2, figsize=(9, 1.1 * len(runs) + 2.4), sharey=True)
    for ax, metric in zip(axes.flat, METRICS, strict=True):
        plot_intervals(summaries, metric, ax)
    figure.tight_layout()
    table = pd.concat(summaries, names=["architecture", "metric"]).reset_index() if runs else pd.DataFrame()
    return figure, table


def metric_cells(run: Run, split: str) -> list[str]:
    """Each metric of a run with its interval, those that it has."""
    summary = summarize(*run.split(split))
    return [error_cell(summary.loc[name], METRICS[name].in_years) for name in METRICS if name in summary.index]


def real_faces_table(runs: list[Run], speeds: pd.Series) -> str:
    """Test-split results of each architecture, 95 % intervals in brackets; ``speeds``: images of 64 px per second."""
    titles = ["Architecture", "Epochs", *METRIC_TITLES, "Parameters (M)", "MACs (M)", "Seconds per epoch"]
    rows = []
    for run in runs:
        speed = speeds.get(run.backbone)
        costs = [f"{run.about['parameters'] / 1e6:.1f}", f"{run.about['macs'] / 1e6:.0f}"]
        costs.append(f"{run.about['num_train'] / speed:.0f}" if speed else "–")
        rows.append([run.title, f"{run.about['config']['num_epochs']:g}", *metric_cells(run, "test"), *costs])
    return markdown_table(titles, rows)


def early_size_table(runs: list[Run]) -> str:
    """What starting with smaller images buys at an equal time: validation split, 95 % intervals in brackets."""
    rows = []
    for run in runs:
        config = run.about["config"]
        early = f"{config['early_size']} for {config['early_share']:.0%}, then " if config["early_size"] else ""
        cells = [run.title, f"{run.about['minutes']:g}", f"{early}{config['image_size']}", f"{config['num_epochs']:g}"]
        rows.append([*cells, *metric_cells(run, "validation")])
    return markdown_table(["Architecture", "Minutes", "Pixels", "Epochs", *METRIC_TITLES], rows, "Not measured yet.")


def home_table(runs: list[Run]) -> str:
    """Scores of the shipped model's run on faces of its own data set, 95 % intervals in brackets."""
    rows = [
        [split, f"{len(run.split(split)[0]):,}", *metric_cells(run, split)]
        for run in runs[:1]
        for split in ("validation", "test")
    ]
    return markdown_table(["Split", "Faces", *METRIC_TITLES], rows)

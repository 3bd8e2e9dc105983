"""Figure ``seeds`` and its table: how far trainings differ by chance."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.accuracy.accuracy import METRIC_TITLES, metric_cells
from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.panels import draw_panels
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.metrics import METRICS, summarize
from agr_utils.measure.plots import COLOURS, MARKERS
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES


def multitask_runs(evidence: Evidence) -> list[Run]:
    """Runs with three heads that the claims are tested on: by architecture, length and seed."""
    order, runs = list(BACKBONES), [run for run in evidence.runs if len(run.tasks) > 1]
    return sorted(runs, key=lambda run: (order.index(run.backbone), run.length, run.seed))


@FIGURES.add("seeds", "How far seeds differ: test results of single trainings, with three tasks", read_evidence)
def draw_seeds(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Each seed of the architectures that have several."""
    rows = []
    for run in multitask_runs(evidence):
        value = summarize(*run.split("test"), num_resamples=200)["value"]
        rows.append({"architecture": run.title, "length": run.length, "seed": run.seed} | value.to_dict())
    table = pd.DataFrame(rows)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    draw_panels(axes, MATTERS, lambda metric, ax: _plot_seeds(table, metric, ax), rows)
    figure.tight_layout()
    return figure, table


def _plot_seeds(table: pd.DataFrame, metric: str, ax: plt.Axes) -> None:
    """A metric of every training on a line for each architecture and length."""
    record = METRICS[metric]
    kinds = table.groupby(["architecture", "length"], sort=False)
    for number, ((name, length), rows) in enumerate(kinds):
        values = record.scale * rows[metric]
        ax.plot([values.min(), values.max()], [number] * 2, color=COLOURS[name], lw=1.5)
        face = COLOURS[name] if length == "long" else "white"
        ax.plot(values, [number] * len(values), MARKERS[name], color=COLOURS[name], mfc=face, mew=1.8, ms=7)
    ax.set_yticks(range(len(kinds)), [f"{name}, {length}" for name, length in kinds.groups])
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set_xlabel(f"{record.title}, {record.direction}")


def seeds_table(evidence: Evidence) -> str:
    """Every multi-task run of an architecture of which there are several seeds."""
    runs = multitask_runs(evidence)
    kinds = [(run.backbone, run.length) for run in runs]
    several = [run for run in runs if kinds.count((run.backbone, run.length)) > 1]
    rows = ([f"{run.title}, {run.length}, seed {run.seed}", *metric_cells(run, "test")] for run in several)
    return markdown_table(["Run", *METRIC_TITLES], rows)

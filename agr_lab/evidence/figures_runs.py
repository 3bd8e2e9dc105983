"""Figures of the data, of the published run of each architecture, and of speed."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.bench import speed as plots_speed
from agr_lab.evidence.register import Register
from agr_utils.data.synthetic import draw_faces
from agr_utils.measure import plots
from agr_utils.measure.metrics import METRICS, summarize
from agr_utils.measure.results import Run, describe_machine, read_bench, read_labels_from_split
from agr_utils.tasks import get_scheme

FIGURES = Register()


@FIGURES.add(
    "synthetic_faces",
    "The embedded faces: what codes a label is an arbitrary shape in a known place (and is sometimes drawn wrong)",
)
def draw_synthetic(runs: list[Run]) -> plt.Figure:
    """Two rows of the embedded faces with their labels."""
    drawn, scheme = draw_faces(100, 64, seed=0), get_scheme("synthetic")
    rows = drawn.faces.head(16)
    titles = [
        f"{age:.0f}, {scheme.gender[g]}, {scheme.race[r]}"
        for age, g, r in zip(rows.age, rows.gender, rows.race, strict=True)
    ]
    return plots.plot_faces(drawn.pixels[:16], titles)[0, 0].figure


@FIGURES.add("labels", "UTKFace is young and unbalanced: labels of the 21,288 faces used here")
def draw_labels(runs: list[Run]) -> plt.Figure:
    """Label counts of the real faces."""
    drawn, axes = plt.subplots(1, 3, figsize=(12, 3.4), width_ratios=(2, 1, 1.6))
    plots.plot_label_counts(read_labels_from_split(), get_scheme("utkface"), axes)
    drawn.tight_layout()
    return drawn


@FIGURES.add("twins", "The label-noise floor: the same photograph, filed under two ages")
def draw_twins(runs: list[Run]) -> plt.Figure:
    """How far the age labels of near-duplicate photographs differ."""
    faces = read_labels_from_split()
    ages = faces.groupby("group")["age"].agg(["min", "max", "size"])
    twins = ages[ages["size"] > 1].astype(float)
    difference = twins["max"] - twins["min"]
    drawn, ax = plt.subplots(figsize=(7, 3.6))
    ax.hist(difference.clip(upper=30), bins=range(0, 32), color="#0072B2")
    ax.axvline(difference.mean(), color="#D55E00", lw=2)
    ax.annotate(f"mean {difference.mean():.1f} years", (difference.mean(), ax.get_ylim()[1]), xytext=(6, -14),
                textcoords="offset points", color="#D55E00")  # fmt: skip
    ax.set_xlabel("largest age difference in a cluster (years; 30 = 30 or more)")
    ax.set_ylabel(f"clusters (of {len(difference)})")
    return drawn


@FIGURES.add("learning_curves", "Real faces: validation results against computing time, equal budgets")
def draw_learning_curves(runs: list[Run]) -> plt.Figure:
    """Validation metrics of the five architectures while they train."""
    drawn, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    for ax, column, label in zip(
        axes,
        ("validation_age_mae", "validation_gender_accuracy", "validation_race_accuracy"),
        ("age MAE (years)", "gender accuracy (%)", "race accuracy (%)"),
        strict=True,
    ):
        plots.plot_learning_curves(runs, column, label, ax)
    axes[0].set_ylim(top=min(axes[0].get_ylim()[1], 14))
    if runs:
        axes[0].legend(frameon=False, fontsize=9)
    drawn.tight_layout()
    return drawn


@FIGURES.add("accuracy", "Real faces: test results of the five architectures, 95 % intervals")
def draw_accuracy(runs: list[Run]) -> plt.Figure:
    """Four metrics with intervals."""
    summaries = {run.title: summarize(*run.split("test")) for run in runs}
    drawn, axes = plt.subplots(2, 2, figsize=(9, 1.1 * len(runs) + 2.4), sharey=True)
    for ax, metric in zip(axes.flat, METRICS, strict=True):
        plots.plot_intervals(summaries, metric, ax)
    drawn.tight_layout()
    return drawn


@FIGURES.add("age_error", "Real faces: old faces are hardest; mean absolute error by age, test split")
def draw_age_error(runs: list[Run]) -> plt.Figure:
    """Age error of each architecture by age band."""
    drawn, ax = plt.subplots(figsize=(8, 4))
    for run in runs:
        plots.plot_age_error(run.split("test")[0], ax, run.title, color=plots.COLOURS[run.title])
    if runs:
        ax.legend(frameon=False, fontsize=9)
    return drawn


@FIGURES.add(
    "speed", "Speed: training against its compute limit, the pixel cache against the usual pipeline", read_bench
)
def draw_speed(bench: dict[str, pd.DataFrame]) -> plt.Figure:
    """Share of the compute limit, and the pixel cache against the usual pipeline."""
    drawn, axes = plt.subplots(2, 1, figsize=(7.5, 8), height_ratios=(1.3, 1))
    for ax, name, plot in zip(
        axes, ("training", "pipelines"), (plots_speed.plot_compute_share, plots_speed.plot_pipelines), strict=True
    ):
        if name in bench:
            plot(bench[name], ax)
        else:
            ax.text(0.5, 0.5, f"{name}: not measured yet. Run: agr bench", ha="center", transform=ax.transAxes)
            ax.set_axis_off()
    if bench:
        drawn.supxlabel(describe_machine(next(iter(bench.values()))), fontsize=10, color=plots.NEUTRAL)
    drawn.tight_layout()
    return drawn

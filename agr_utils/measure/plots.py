"""Figures: every function draws one message on the axes it is given and returns them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from agr_utils.data.faces import age_band
from agr_utils.errors import check_has
from agr_utils.measure.metrics import get_metric, predicted_class, signed_error
from agr_utils.tasks import LabelScheme

# Okabe and Ito's palette: distinguishable with any kind of colour vision. A marker each, for print in grey.
COLOURS = {
    "Custom CNN": "#000000",
    "MobileNetV2": "#E69F00",
    "MobileNetV3": "#D55E00",
    "EfficientNet-B1": "#56B4E9",
    "EfficientNet-B3": "#0072B2",
}
MARKERS = {"Custom CNN": "o", "MobileNetV2": "s", "MobileNetV3": "D", "EfficientNet-B1": "^", "EfficientNet-B3": "v"}
NEUTRAL = "#6b6b6b"


def use_style() -> None:
    """Set fonts and lines that stay legible at half a page's width."""
    sns.set_theme(context="notebook", style="ticks", font_scale=1.0)
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 80, "savefig.dpi": 160})


def plot_faces(pixels: np.ndarray, titles: Sequence[str] | None = None, num_columns: int = 8) -> np.ndarray:
    """Show synthetic faces (N, S, S, 3) uint8, never photographs of people, in a grid; the array of its axes."""
    num_rows = -(-len(pixels) // num_columns)
    title_lines = max(title.count("\n") + 1 for title in titles) if titles else 0
    height = num_rows * (1.1 + 0.2 * title_lines)
    figure, axes = plt.subplots(num_rows, num_columns, figsize=(num_columns * 1.1, height), squeeze=False)
    for number, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if number < len(pixels):
            ax.imshow(pixels[number], interpolation="nearest")  # true pixels, and pictures a third of the size
            if titles:
                ax.set_title(titles[number], fontsize=8)
    figure.tight_layout(pad=0.3)
    return axes


def plot_learning_curves(runs: Sequence, column: str, ylabel: str, ax: Axes) -> Axes:
    """A validation metric of several runs against the minutes of computing that they had had; accuracies in %."""
    scale = 100 if column.endswith("accuracy") else 1
    for run in runs:
        check_has(run.history, column, what=f"the history of {run.title}")
        minutes, values = run.history["cpu_seconds"].cumsum() / 60, scale * run.history[column]
        colour, marker = COLOURS.get(run.title, NEUTRAL), MARKERS.get(run.title, "o")
        ax.plot(minutes, values, color=colour, marker=marker, ms=4, label=run.title)
    ax.set_xlabel("minutes of one CPU core")
    ax.set_ylabel(ylabel)
    return ax


def plot_intervals(summaries: dict[str, pd.DataFrame], metric: str, ax: Axes) -> Axes:
    """A metric of several runs with its intervals, one row per run: title to what ``summarize`` gave."""
    record = get_metric(metric)
    scale = record.scale
    for position, (name, summary) in enumerate(summaries.items()):
        check_has(summary.index, metric, what=f"the summary of {name}")
        row = summary.loc[metric] * scale
        colour = COLOURS.get(name, NEUTRAL)
        ax.plot([row["low"], row["high"]], [position, position], color=colour, lw=2)
        ax.plot(row["value"], position, marker=MARKERS.get(name, "o"), color=colour, ms=8)
        ax.annotate(f"{row['value']:.2f}" if scale == 1 else f"{row['value']:.1f}", (row["value"], position),
                    xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(summaries)), list(summaries))
    ax.set_ylim(len(summaries) - 0.5, -0.7)
    ax.set_xlabel(f"{record.title}, {record.direction}")
    return ax


def plot_label_counts(faces: pd.DataFrame, scheme: LabelScheme, axes: Sequence[Axes]) -> Sequence[Axes]:
    """How often each label occurs: age, gender, race on three axes."""
    sns.histplot(faces["age"].dropna().astype(float), binwidth=5, binrange=(0, 120), color="#0072B2", ax=axes[0])
    axes[0].set_xlabel("age (years)")
    for task, ax in zip(("gender", "race"), axes[1:], strict=True):
        names = pd.Series(scheme.classes(task))
        counts = faces[task].value_counts().reindex(range(len(names)), fill_value=0)
        sns.barplot(x=names, y=counts.to_numpy(), color="#0072B2", ax=ax)
        ax.set_xlabel(task)
    for ax in axes:
        ax.set_ylabel("images")
    return axes


def age_error_by_band(table: pd.DataFrame) -> pd.DataFrame:
    """MAE of the age in each age band, in years: ``value``, and ``low, high``, which are 1.96 standard errors off."""
    by_band = signed_error(table).abs().groupby(age_band(table["age"]), observed=False)
    mean, half_width = by_band.mean(), 1.96 * by_band.sem()
    return pd.DataFrame({"value": mean, "low": mean - half_width, "high": mean + half_width})


def plot_age_error(table: pd.DataFrame, ax: Axes, label: str | None = None, **style) -> Axes:
    """Mean absolute error of the age in each age band, with a 95 % interval of the mean."""
    bands = age_error_by_band(table)
    mean, half_width = bands["value"], bands["high"] - bands["value"]
    ax.errorbar(mean.index.astype(str), mean, yerr=half_width, capsize=3, label=label, **{"marker": "o"} | style)
    ax.set_xlabel("labelled age (years)")
    ax.set_ylabel("MAE (years)")
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.05 * bands["high"].max()))
    return ax


def plot_confusion(table: pd.DataFrame, task: str, scheme: LabelScheme, ax: Axes) -> Axes:
    """Share of each labelled class that is predicted as each class; rows sum to 100 %."""
    check_has(table, task)
    known = table[task].notna()
    labels, predicted = table.loc[known, task].astype(int), predicted_class(table, task)[known]
    names = scheme.classes(task)
    counts = pd.crosstab(labels, predicted).reindex(index=range(len(names)), columns=range(len(names)), fill_value=0)
    shares = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    sns.heatmap(shares, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, cbar=False, square=True,
                xticklabels=names, yticklabels=names, ax=ax)  # fmt: skip
    ax.tick_params(axis="y", rotation=0)
    ax.set_xlabel(f"predicted {task}")
    ax.set_ylabel(f"labelled {task} (rows: 100 %)")
    return ax


def plot_reliability(tables: dict[str, pd.DataFrame], ax: Axes) -> Axes:
    """How often answers of a given confidence are right; on the line a model is as right as it says.

    ``tables``: title of the run to what ``reliability`` gave.
    """
    ax.plot([0, 100], [0, 100], color=NEUTRAL, lw=1, ls="--")
    for name, table in tables.items():
        shown = table[table["count"] >= 10]  # of fewer the share is noise
        style = {"color": COLOURS.get(name, NEUTRAL), "marker": MARKERS.get(name, "o"), "ms": 5, "lw": 1.3}
        ax.plot(100 * shown["confidence"], 100 * shown["accuracy"], label=name, **style)
    ax.set_xlabel("confidence (%)")
    ax.set_ylabel("right (%)")
    return ax

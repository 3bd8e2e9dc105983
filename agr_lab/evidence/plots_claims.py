"""Figures of the claims: differences with intervals, gaps, costs, calibration. Each draws on the axes it is given."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from agr_lab.evidence.architectures.architectures import COSTS, on_front
from agr_lab.evidence.multitask.ablations import gradient_agreement
from agr_lab.evidence.multitask.multitask import COMPARISONS
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.fairness import ERRORS
from agr_utils.measure.metrics import METRICS
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import get_backbone

COMPARISON_STYLE = {"a": ("#0072B2", "o", -0.16), "b": ("#D55E00", "s", 0.16), "long": ("#6b6b6b", "D", 0.0)}
PAIR_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"))  # of two tasks
FILL = "#e8e8e8"  # of what does not matter


def draw_nothing(ax: Axes, what: str) -> Axes:
    """Say that there is nothing to draw yet."""
    ax.text(0.5, 0.5, what, ha="center", va="center", transform=ax.transAxes, color=NEUTRAL)
    ax.set_axis_off()
    return ax


def draw_interval(
    ax: Axes, row: pd.Series, position: float, colour: str, marker: str, filled: bool, scale: float
) -> None:
    """A value with its interval on a line; filled where the difference is a finding."""
    ax.plot([scale * row["low"], scale * row["high"]], [position] * 2, color=colour, lw=2)
    face = colour if filled else "white"
    ax.plot(scale * row["value"], position, marker, color=colour, mfc=face, mew=1.8, ms=8)


def _frame_rows(ax: Axes, names: Sequence[str], matters: float) -> None:
    """Name the rows of differences, and mark 0 and, where it is above 0, the range that does not matter."""
    if matters:
        ax.axvspan(-matters, matters, color=FILL, zorder=0)
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def plot_multitask(tables: dict[str, pd.DataFrame], means: dict[str, pd.DataFrame], metric: str, ax: Axes) -> Axes:
    """What multi-task learning changes in one metric, a row an architecture and one for their mean.

    Args:
        tables: comparison to what ``multitask_differences`` gave.
        means: comparison to what ``mean_multitask_differences`` gave.
        metric: a key of METRICS.
        ax: to draw on.
    """
    scale, unit = METRICS[metric].scale, METRICS[metric].change_unit
    names = list(dict.fromkeys(name for table in tables.values() for name in table["backbone"]))
    for comparison, table in tables.items():
        colour, marker, shift = COMPARISON_STYLE[comparison]
        for row in table[table["metric"] == metric].to_dict("records"):
            position = names.index(row["backbone"]) + shift
            draw_interval(ax, row, position, colour, marker, row["call"] in ("better", "worse"), scale)
            if len(row["seeds"]) > 1:
                ax.plot(scale * np.array(row["seeds"]), [position + 0.13] * len(row["seeds"]), "|", color=colour, ms=6)
        mean = means[comparison].set_index("metric").loc[metric]
        draw_interval(ax, mean, len(names) + shift, colour, marker, False, scale)  # of no family, so not corrected
        ax.plot([], [], marker, color=colour, ms=8, label=f"({comparison}) {COMPARISONS[comparison][0]}")
    matters = next(iter(tables.values())).query("metric == @metric")["matters"].iloc[0]
    ax.axvspan(-scale * matters, scale * matters, color=FILL, zorder=0)
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.axhline(len(names) - 0.5, color=NEUTRAL, lw=0.5)
    ax.set_yticks(range(len(names) + 1), [*(get_backbone(name).title for name in names), "mean of all"])
    ax.set_ylim(len(names) + 0.6, -0.6)
    ax.set_title(METRICS[metric].label)
    ax.set_xlabel(f"change ({unit})\n← worse      better →")
    return ax


def plot_gaps(tables: dict[str, pd.DataFrame], error: str, ax: Axes) -> Axes:
    """What multi-task learning does to the gap between groups in one error, a row a grouping.

    Args:
        tables: comparison to what ``gap_differences`` gave.
        error: a key of ERRORS.
        ax: to draw on.
    """
    scale = ERRORS[error].scale
    for comparison, table in tables.items():
        colour, marker, shift = COMPARISON_STYLE[comparison]
        rows = table[table["error"] == error].reset_index(drop=True)
        for number, row in rows.iterrows():
            draw_interval(ax, row, number + shift, colour, marker, row["call"] in ("better", "worse"), scale)
            ax.plot(scale * np.array([-1, 1]) * row["matters"], [number + shift] * 2, color=FILL, lw=10, zorder=0,
                    solid_capstyle="butt")  # fmt: skip
        ax.plot([], [], marker, color=colour, ms=8, label=f"({comparison}) {COMPARISONS[comparison][0]}")
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(rows)), rows["grouping"].str.replace(" x ", " × "))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_title(f"gap in {ERRORS[error].label}")
    ax.set_xlabel(f"narrower by ({ERRORS[error].change_unit})\n← larger gap      smaller gap →")
    return ax


def plot_group_errors(tables: dict[str, pd.DataFrame], error: str, ax: Axes) -> Axes:
    """One error of several runs by group with intervals, a row a group.

    Args:
        tables: title of the run to what ``group_intervals`` gave, all of one grouping.
        error: a key of ERRORS.
        ax: to draw on.
    """
    title, scale = ERRORS[error].title, ERRORS[error].scale
    shifts = np.linspace(-0.3, 0.3, len(tables)) if len(tables) > 1 else [0.0]
    for shift, (name, table) in zip(shifts, tables.items(), strict=True):
        rows = table[table["error"] == error]
        colour, positions = COLOURS.get(name, NEUTRAL), np.arange(len(rows)) + shift
        ax.hlines(positions, scale * rows["low"], scale * rows["high"], color=colour, lw=1.2)
        ax.plot(scale * rows["value"], positions, MARKERS.get(name, "o"), color=colour, ms=4.5, label=name)
    labels = rows["group"] + rows["count"].map(" ({:,})".format)
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    if error == "age_signed":
        ax.axvline(0, color=NEUTRAL, lw=1)
        ax.set_xlabel(f"{title}\n← too young      too old →")
    else:
        ax.set_xlim(left=0)
        ax.set_xlabel(f"{title}, less is better")
    return ax


def plot_pareto(costs: pd.DataFrame, cost: str, metric: str, ax: Axes) -> Axes:
    """A metric against a cost, and the line of those that no other beats at no more cost.

    Args:
        costs: see ``cost_table``.
        cost: a key of COSTS.
        metric: a key of METRICS.
        ax: to draw on.
    """
    title, unit, divisor = COSTS[cost]
    record = METRICS[metric]
    x, y = costs[cost] / divisor, record.scale * costs[metric]
    best = on_front(x, y, record.higher_is_better)
    order = x[best].sort_values().index
    ax.step(x[order], y[order], where="post", color=NEUTRAL, lw=1.5, zorder=1)
    for name in costs.index:
        label = get_backbone(name).title
        face = COLOURS[label] if best[name] else "white"
        ax.plot(x[name], y[name], MARKERS[label], color=COLOURS[label], mfc=face, mew=1.8, ms=9, label=label, ls="")
    ax.set_xscale("log")
    wide = x.max() > 6 * x.min()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"{title} ({unit})")
    ax.set_ylabel(record.title)
    return ax


def plot_pairs(pairs: pd.DataFrame, metric: str, ax: Axes) -> Axes:
    """Every two architectures in one metric, a row a pair; filled where the difference holds after correction.

    Args:
        pairs: see ``pair_differences``.
        metric: a key of METRICS.
        ax: to draw on.
    """
    scale, unit = METRICS[metric].scale, METRICS[metric].change_unit
    rows = pairs[pairs["metric"] == metric].reset_index(drop=True)
    for number, row in rows.iterrows():
        title = get_backbone(row["first" if row["value"] > 0 else "second"]).title
        draw_interval(ax, row, number, COLOURS[title], "o", row["call"] in ("better", "worse"), scale)
    names = [f"{get_backbone(row.first).title} – {get_backbone(row.second).title}" for row in rows.itertuples()]
    _frame_rows(ax, names, scale * rows["matters"].iloc[0])
    ax.set_title(METRICS[metric].label)
    ax.set_xlabel(f"difference ({unit})\n← second better      first better →")
    return ax


def plot_reliability(tables: dict[str, pd.DataFrame], ax: Axes, min_images: int = 10) -> Axes:
    """How often answers of a given confidence are right; on the line a model is as right as it says.

    Args:
        tables: title of the run to what ``reliability`` gave.
        ax: to draw on.
        min_images: of a bin that is shown.
    """
    ax.plot([0, 100], [0, 100], color=NEUTRAL, lw=1, ls="--")
    for name, table in tables.items():
        shown = table[table["count"] >= min_images]
        style = {"color": COLOURS.get(name, NEUTRAL), "marker": MARKERS.get(name, "o"), "ms": 5, "lw": 1.3}
        ax.plot(100 * shown["confidence"], 100 * shown["accuracy"], label=name, **style)
    ax.set_xlabel("confidence (%)")
    ax.set_ylabel("right (%)")
    return ax


def plot_coverage(table: pd.DataFrame, ax: Axes, colour: str = "#0072B2", asked: float = 0.9) -> Axes:
    """Share of ages inside the interval by group, a row a group, against what was asked for.

    Args:
        table: see ``coverage_table``.
        ax: to draw on.
        colour: of the marks.
        asked: coverage that the interval was made for.
    """
    for number, (_, row) in enumerate(table.iterrows()):
        draw_interval(ax, row, number, colour, "o", True, 100)
        ax.annotate(f"±{row['width'] / 2:.0f} years", (1.02, number), xycoords=("axes fraction", "data"), va="center",
                    fontsize=10, color=NEUTRAL)  # fmt: skip
    ax.axvline(100 * asked, color=NEUTRAL, ls="--", lw=1)
    ax.set_yticks(range(len(table)), [f"{name} ({count:,})" for name, count in table["count"].items()])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("ages inside the interval (%)")
    return ax


def plot_settings(table: pd.DataFrame, metric: str, ax: Axes) -> Axes:
    """What each setting of an ablation changes in one metric, a row a setting; filled where the interval leaves out 0.

    Args:
        table: see ``setting_table``.
        metric: a key of METRICS.
        ax: to draw on.
    """
    scale, unit = METRICS[metric].scale, METRICS[metric].change_unit
    rows = table[table["metric"] == metric].reset_index(drop=True)
    usual, others = rows.iloc[0], rows.iloc[1:]
    for number, row in others.iterrows():
        draw_interval(ax, row, number - 1, NEUTRAL, "o", not row["low"] < 0 < row["high"], scale)
    _frame_rows(ax, others["setting"], scale * MATTERS.get(metric, 0.0))
    digits = 2 if METRICS[metric].in_years else 1
    ax.set_title(f"{METRICS[metric].label} ({usual['setting']}: {scale * usual['absolute']:.{digits}f})")
    ax.set_xlabel(f"change ({unit})\n← worse      better →")
    return ax


def plot_cosines(history: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """How far the tasks' gradients agree while a network trains: their mean cosine, and how often they pull apart.

    Args:
        history: of a run with ``conflict_steps``.
        axes: two.
    """
    means = gradient_agreement(history).set_index(["measure", "pair"])
    titles = {
        "cosine": "cosine of the gradients\n(mean of an epoch)",
        "conflict": "steps at which they\npull apart (%)",
    }
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        scale, digits = (1, 2) if measure == "cosine" else (100, 0)
        for (pair, mean), (colour, marker) in zip(means.loc[measure].iterrows(), PAIR_STYLES, strict=False):
            value, low, high = (scale * mean[["value", "low", "high"]]).map(f"{{:.{digits}f}}".format)
            label = f"{pair.replace('_', ' and ')}: {value} [{low}, {high}]"
            values = scale * history[f"{measure}_{pair}"]
            ax.plot(history["epoch"], values, marker, ls="-", color=colour, ms=5, label=label)
        ax.set_ylabel(title)
        ax.set_xlabel("epoch")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=10)
    axes[0].axhline(0, color=NEUTRAL, lw=1)
    axes[1].set_ylim(0, 100)
    return axes


def plot_seeds(table: pd.DataFrame, metric: str, ax: Axes) -> Axes:
    """A metric of every training on a line for each architecture and length: how far seeds differ.

    Args:
        table: ``title, length, seed`` and the metrics, a row a training.
        metric: a key of METRICS.
        ax: to draw on.
    """
    record = METRICS[metric]
    kinds = table.groupby(["title", "length"], sort=False)
    for number, ((name, length), rows) in enumerate(kinds):
        values = record.scale * rows[metric]
        ax.plot([values.min(), values.max()], [number] * 2, color=COLOURS[name], lw=1.5)
        face = COLOURS[name] if length == "long" else "white"
        ax.plot(values, [number] * len(values), MARKERS[name], color=COLOURS[name], mfc=face, mew=1.8, ms=7)
    ax.set_yticks(range(len(kinds)), [f"{name}, {length}" for name, length in kinds.groups])
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set_xlabel(f"{record.title}, {record.direction}")
    return ax


def published_rows(published: pd.DataFrame) -> dict[str, pd.Series]:
    """Age errors of ``results/published.csv`` by name; none has an interval."""
    rows = {}
    for row in published.itertuples():
        pretrained = {"no": ", from scratch", "": ""}.get(row.pretrained, ", pretrained")
        rows[f"{row.model}{pretrained}"] = pd.Series({"value": float(row.age_mae)})
    return rows


def plot_against_floor(rows: dict[str, pd.Series], floor: float, title: str, ax: Axes) -> Axes:
    """Age errors of one protocol, and the line that the noise of the labels draws.

    Args:
        rows: name to ``value`` and, where it is known, ``low`` and ``high``, in years.
        floor: see ``noise_floor``.
        title: the protocol.
        ax: to draw on.
    """
    for number, (name, row) in enumerate(rows.items()):
        colour = COLOURS.get(name, NEUTRAL)
        if "low" in row:
            ax.plot([row["low"], row["high"]], [number] * 2, color=colour, lw=2)
        ax.plot(row["value"], number, MARKERS.get(name, "P"), color=colour, ms=8)
    ax.axvspan(0, floor, color=FILL, zorder=0)
    ax.axvline(floor, color=NEUTRAL, lw=1, ls="--")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_title(title, fontsize=11, loc="left")
    return ax

"""Differences with their intervals, a line each: the figure of every comparison, a learner's own too."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from agr_utils.errors import check_has
from agr_utils.measure.comparisons import SIGNIFICANT
from agr_utils.measure.fairness import ERRORS
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.tasks import AGE_COVERAGE

Style = tuple[str, str, float]  # colour, marker, and how far below the middle of its row
PALETTE = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"))
GREY = "#e8e8e8"  # of what is too small to matter


def draw_interval(
    ax: Axes, row: Mapping[str, float], position: float, colour: str, marker: str, filled: bool, scale: float
) -> None:
    """A value with its interval on a line; filled where the difference is a finding."""
    ax.plot([scale * row["low"], scale * row["high"]], [position] * 2, color=colour, lw=2)
    face = colour if filled else "white"
    ax.plot(scale * row["value"], position, marker, color=colour, mfc=face, mew=1.8, ms=8)


def is_finding(row: Mapping[str, object]) -> bool:
    """Whether a difference counts: by its call, else by its corrected p-value, else by its interval."""
    if isinstance(row.get("call"), str):
        return row["call"] in ("better", "worse")
    if "p_holm" in row:
        return row["p_holm"] < SIGNIFICANT
    return row["low"] > 0 or row["high"] < 0


def spread_styles(
    names: Iterable[str], width: float = 0.22, palette: Sequence[tuple[str, str]] = PALETTE
) -> dict[str, Style]:
    """A colour, a marker and a place within the row for each of several series, at most as many as the palette has."""
    names = list(names)
    shifts = np.linspace(-width, width, len(names)) if len(names) > 1 else [0.0]
    return {name: (*mark, shift) for name, mark, shift in zip(names, palette, shifts, strict=False)}


def plot_forest(
    table: pd.DataFrame,
    ax: Axes,
    rows: str,
    series: str = "",
    *,
    styles: Mapping[str, Style] | None = None,
    scale: float = 1.0,
    matters: float | str = 0.0,
    margin: float = 0.5,
    seeds: bool = False,
) -> Axes:
    """Differences with intervals, filled where one is a finding (``is_finding``); what is too small to matter in grey.

    Args:
        table: ``value, low, high``, the columns named below, and what ``is_finding`` looks at.
        ax: to draw on.
        rows: column whose values name the rows, in the order in which they come.
        series: column that tells several marks of a row apart; empty where there is one.
        styles: of the series; see ``spread_styles``, which is asked where there are none.
        scale: from what the table holds to what is shown.
        matters: the smallest difference that matters, as the table holds it, or the column that says it of each row; 0
            shades nothing.
        margin: above the first row and below the last one, in rows.
        seeds: whether the column ``seeds``, the values of single trainings, is drawn as ticks under each mark.
    """
    names = list(dict.fromkeys(table[rows]))
    column = table[series] if series else pd.Series("", index=table.index)
    for name, (colour, marker, shift) in (styles or spread_styles(dict.fromkeys(column))).items():
        for row in table[column == name].to_dict("records"):
            position = names.index(row[rows]) + shift
            draw_interval(ax, row, position, colour, marker, is_finding(row), scale)
            if seeds and len(ticks := numbers_of(row["seeds"])) > 1:
                ax.plot(scale * ticks, [position + 0.2] * len(ticks), "|", color="black", ms=7)
            if isinstance(matters, str):
                ax.plot(scale * np.array([-1, 1]) * row[matters], [position] * 2, color=GREY, lw=10, zorder=0,
                        solid_capstyle="butt")  # fmt: skip
        if series and (column == name).any():
            ax.plot([], [], marker, color=colour, ms=8, label=name)
    if matters and not isinstance(matters, str):
        ax.axvspan(-scale * matters, scale * matters, color=GREY, zorder=0)
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 1 + margin, -margin)
    return ax


def numbers_of(cell: object) -> np.ndarray:
    """Numbers of one cell: several, or the text that a CSV file has for them; none where it is empty."""
    if isinstance(cell, str):
        return np.array(cell.split(), dtype=float)
    return np.array(cell, dtype=float) if isinstance(cell, Sequence) else np.array([])


def plot_group_errors(tables: dict[str, pd.DataFrame], error: str, ax: Axes) -> Axes:
    """One error (of ERRORS) of several runs by group with intervals, a row per group.

    ``tables``: title of the run to what ``group_intervals`` gave, all of one grouping.
    """
    check_has(ERRORS, error, what="ERRORS")
    title, scale = ERRORS[error].title, ERRORS[error].scale
    shifts = np.linspace(-0.3, 0.3, len(tables)) if len(tables) > 1 else [0.0]
    for shift, (name, table) in zip(shifts, tables.items(), strict=True):
        check_has(dict.fromkeys(table["error"]), error, what=f"the table of {name}")
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


def plot_coverage(table: pd.DataFrame, ax: Axes) -> Axes:
    """Share of ages inside the interval by group (``coverage_table``), a row per group, against what was asked for."""
    for number, (_, row) in enumerate(table.iterrows()):
        draw_interval(ax, row, number, PALETTE[0][0], "o", True, 100)
        ax.annotate(f"±{row['width'] / 2:.0f} years", (1.02, number), xycoords=("axes fraction", "data"), va="center",
                    fontsize=10, color=NEUTRAL)  # fmt: skip
    ax.axvline(100 * AGE_COVERAGE, color=NEUTRAL, ls="--", lw=1)
    ax.set_yticks(range(len(table)), [f"{name} ({count:,})" for name, count in table["count"].items()])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("ages inside the interval (%)")
    return ax

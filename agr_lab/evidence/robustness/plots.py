"""Figures of robustness: errors against severity, and what makes a difference to them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from agr_lab.evidence.plots_claims import FILL, draw_interval
from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES
from agr_utils.measure.fairness import ERRORS
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import BACKBONES, get_backbone

SETTING_STYLE = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"))


def plot_severity(curves: dict[str, pd.DataFrame], error: str, corruption: str, ax: Axes) -> Axes:
    """One error against the severity of one corruption, a line a model, 95 % intervals as bands.

    Args:
        curves: name of the architecture (or any title) to what ``curve_table`` gave.
        error: key of ERRORS.
        corruption: key of CORRUPTIONS.
        ax: to draw on.
    """
    scale = ERRORS[error].scale
    for name, table in curves.items():
        title = get_backbone(name).title if name in BACKBONES else name
        rows = table[(table["error"] == error) & table["corruption"].isin([corruption, "clean"])].sort_values(
            "severity"
        )
        colour = COLOURS.get(title, NEUTRAL)
        ax.plot(rows["severity"], scale * rows["value"], marker=MARKERS.get(title, "o"), ms=4, lw=1.3, color=colour,
                label=title)  # fmt: skip
        ax.fill_between(rows["severity"], scale * rows["low"], scale * rows["high"], color=colour, alpha=0.15, lw=0)
    ax.set_title(CORRUPTIONS[corruption].title, fontsize=11)
    ax.set_xticks([0, *SEVERITIES])
    return ax


def plot_increase_differences(tables: dict[str, pd.DataFrame], sides: tuple[str, str], error: str, ax: Axes) -> Axes:
    """How much less one model is hurt than another, a row a corruption, filled where it is a finding.

    Args:
        tables: title to what ``increase_differences`` gave.
        sides: who is hurt less to the left and to the right of 0.
        error: key of ERRORS.
        ax: to draw on.
    """
    scale, unit = ERRORS[error].scale, ERRORS[error].change_unit
    names = list(dict.fromkeys(name for table in tables.values() for name in table["corruption"]))
    shifts = np.linspace(-0.22, 0.22, len(tables)) if len(tables) > 1 else [0.0]
    for (title, table), shift, (colour, marker) in zip(tables.items(), shifts, SETTING_STYLE, strict=False):
        for row in table[table["error"] == error].to_dict("records"):
            finding = row["call"] in ("better", "worse") if "call" in row else row["low"] > 0 or row["high"] < 0
            draw_interval(ax, pd.Series(row), names.index(row["corruption"]) + shift, colour, marker, finding, scale)
        ax.plot([], [], marker, color=colour, ms=8, label=title)
    matters = scale * next(iter(tables.values())).query("error == @error")["matters"].iloc[0]
    ax.axvspan(-matters, matters, color=FILL, zorder=0)
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(names)), [CORRUPTIONS[name].title for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_title(ERRORS[error].label)
    ax.set_xlabel(f"difference of the increase ({unit})\nhurt less: ← {sides[0]}   {sides[1]} →")
    return ax


def plot_group_increases(table: pd.DataFrame, error: str, ax: Axes) -> Axes:
    """How much more or less a group is hurt than everybody else, a row a group.

    Args:
        table: see ``group_differences``.
        error: key of ERRORS.
        ax: to draw on.
    """
    scale, unit = ERRORS[error].scale, ERRORS[error].change_unit
    rows = table[table["error"] == error].reset_index(drop=True)
    for number, row in rows.iterrows():
        draw_interval(ax, row, number, "#0072B2", "o", row["call"] in ("better", "worse"), scale)
    matters = scale * rows["matters"].iloc[0]
    ax.axvspan(-matters, matters, color=FILL, zorder=0)
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(rows)), rows["group"] + rows["count"].map(" ({:,})".format))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_title(ERRORS[error].label)
    ax.set_xlabel(f"against all others ({unit})\n← hurt more      hurt less →")
    return ax


def plot_nuisance(tables: dict[str, pd.DataFrame], nuisance: str, error: str, ax: Axes, title: str) -> Axes:
    """One error on drawn faces against something that varies in them, a line an architecture.

    Args:
        tables: name of the architecture to what ``nuisance_errors`` gave.
        nuisance: which.
        error: key of ERRORS.
        ax: to draw on.
        title: of the horizontal axis.
    """
    scale = ERRORS[error].scale
    shifts = np.linspace(-0.05, 0.05, len(tables)) if len(tables) > 1 else [0.0]
    for (name, table), shift in zip(tables.items(), shifts, strict=True):
        rows = table[(table["error"] == error) & (table["nuisance"] == nuisance)]
        label = get_backbone(name).title
        x = rows["level"] + shift * (rows["level"].max() - rows["level"].min())
        bars = np.abs(scale * rows[["low", "high"]].to_numpy().T - scale * rows["value"].to_numpy())
        ax.errorbar(x, scale * rows["value"], yerr=bars, color=COLOURS[label], marker=MARKERS[label], ms=4, lw=1.2,
                    label=label)  # fmt: skip
        if len(rows) == 2:
            ax.set_xticks([0, 1], ["no", "yes"])
            ax.set_xlim(-0.4, 1.4)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(title)
    ax.set_ylabel(ERRORS[error].title)
    return ax

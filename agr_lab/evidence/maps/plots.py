"""Figures of maps: where networks look, and whether the maps that say so can be trusted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from agr_lab.evidence.maps.evidence import RANDOM_LIMIT
from agr_lab.evidence.maps.report import MapReport
from agr_lab.evidence.plots_claims import draw_interval
from agr_utils.inside.explain import METHODS
from agr_utils.inside.face_regions import REGIONS
from agr_utils.inside.map_tables import MEAN_SIDE
from agr_utils.measure.comparisons import SIGNIFICANT
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import get_backbone

KIND_STYLE = {"gradcam": ("#0072B2", "o"), "hirescam": ("#D55E00", "s"), "eigencam": ("#6b6b6b", "D")}
MAP_COLOURS = "viridis"  # of equal steps to the eye, with any kind of colour vision and in grey


def plot_map(image: np.ndarray, values: np.ndarray, ax: Axes, largest: float | None = None):
    """A map over a drawn face or a mean face, in grey.

    Args:
        image: (S, S, 3) uint8; never a photograph of one person.
        values: map of any resolution.
        ax: to draw on.
        largest: value of the brightest colour; the map's own largest where it is None.

    Returns:
        The map's image, for a colour bar.
    """
    size = image.shape[0]
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=(0, size, size, 0))
    largest = largest or max(float(values.max()), 1e-9)
    alpha = 0.25 + 0.5 * np.clip(values / largest, 0, 1)  # where nothing is marked, the face shows
    drawn = ax.imshow(
        values, cmap=MAP_COLOURS, vmin=0, vmax=largest, extent=(0, size, size, 0), interpolation="bilinear", alpha=alpha
    )
    ax.set_axis_off()
    return drawn


def mean_map(report: MapReport, task: str, kind: str, group: str = "all") -> np.ndarray | None:
    """A mean map of a report, (MEAN_SIDE, MEAN_SIDE), 1 where it is as strong as on average; None if there is none."""
    table = report.tables["mean_maps"]
    rows = table[(table["task"] == task) & (table["kind"] == kind) & (table["group"] == group)]
    return None if rows.empty else np.asarray(rows["map"].iloc[0]).reshape(MEAN_SIDE, MEAN_SIDE) * MEAN_SIDE**2


def plot_layers(tables: dict[str, pd.DataFrame], kind: str, ax: Axes) -> Axes:
    """Share of the maps' energy inside the cues against the resolution of the layer, mean of the tasks.

    Args:
        tables: ``layers`` of the reports, by architecture.
        kind: of map.
        ax: to draw on.
    """
    for backbone, table in tables.items():
        title = get_backbone(backbone).title
        means = table[table["kind"] == kind].groupby("side")["energy"].mean()
        ax.plot(means.index, 100 * means, marker=MARKERS[title], color=COLOURS[title], label=title)
    rival = pd.concat(tables.values()).query("kind == 'centred'")["energy"].mean()
    ax.axhline(100 * rival, color=NEUTRAL, ls="--", lw=1, label="blob in the middle")
    ax.set_xscale("log", base=2)
    ax.set_xticks([2, 4, 8, 16], ["2x2", "4x4", "8x8", "16x16"])
    ax.set_title(METHODS[kind][0])
    ax.set_xlabel("cells of the layer's map")
    ax.set_ylabel("energy inside the cues (%)")
    return ax


def plot_against_rivals(
    families: dict[str, pd.DataFrame], units: dict[str, tuple[str, float]], task: str, ax: Axes
) -> Axes:
    """A score of each kind of map minus that of a blob in the middle (large) and of noise (small), by architecture.

    Args:
        families: kind of map to what ``against_rivals`` gave.
        units: of the score of each task, and what the score is multiplied with.
        task: which.
        ax: to draw on.
    """
    unit, scale = units[task]
    names = list(dict.fromkeys(name for table in families.values() for name in table["backbone"]))
    for number, (kind, table) in enumerate(families.items()):
        colour, marker = KIND_STYLE[kind]
        shift = 0.24 * (number - (len(families) - 1) / 2)
        for row in table[table["task"] == task].to_dict("records"):
            position, filled = names.index(row["backbone"]) + shift, row["p_holm"] < SIGNIFICANT
            if row["rival"] == "centred":
                draw_interval(ax, pd.Series(row), position, colour, marker, filled, scale)
            else:
                ax.plot(scale * row["value"], position, "x", color=colour, ms=6, mew=1.6)
        ax.plot([], [], marker, color=colour, ms=8, label=f"{METHODS[kind][0]} against the blob")
        ax.plot([], [], "x", color=colour, ms=6, label="against noise")
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(names)), [get_backbone(name).title for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_title(task)
    ax.set_xlabel(f"difference ({unit})\n← rival better      map better →")
    return ax


def plot_shortcut(table: pd.DataFrame, kind: str, ax: Axes) -> Axes:
    """Energy of the gender map inside the earrings and the collar against the confounding dial.

    Args:
        table: rows ``confounding, kind, where, value, low, high``.
        kind: of map.
        ax: to draw on.
    """
    for where, colour, marker in (("earrings", "#0072B2", "o"), ("collar", "#D55E00", "s")):
        rows = table[(table["kind"] == kind) & (table["where"] == where)]
        ax.plot(rows["confounding"], 100 * rows["value"], marker=marker, color=colour, label=f"in the {where}")
        ax.fill_between(rows["confounding"], 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.2, lw=0)
    ax.set_title(METHODS[kind][0])
    ax.set_xlabel("confounding: collar tied to\ngender in training")
    ax.set_ylabel("energy of the gender map (%)")
    ax.set_ylim(bottom=0)
    return ax


def plot_cascade(tables: dict[str, pd.DataFrame], kind: str, task: str, ax: Axes) -> Axes:
    """Rank correlation of maps with those after more and more of the weights were made random.

    Args:
        tables: ``cascade`` of the reports, by architecture.
        kind: of map.
        task: which.
        ax: to draw on.
    """
    for backbone, table in tables.items():
        title = get_backbone(backbone).title
        rows = table[(table["task"] == task) & (table["kind"] == kind)]
        share = np.concatenate([[0], 100 * rows["step"] / rows["step"].max()])
        values = np.concatenate([[1], rows["value"]])
        ax.plot(share, values, marker=MARKERS[title], ms=4, lw=1.3, color=COLOURS[title], label=title)
    ax.axhline(0, color=NEUTRAL, lw=1)
    ax.axhline(RANDOM_LIMIT, color=NEUTRAL, lw=1, ls="--")
    ax.set_title(f"{METHODS[kind][0]}, {task}")
    ax.set_xlabel("parts made random (%)")
    ax.set_ylabel("rank correlation")
    return ax


def plot_region_differences(table: pd.DataFrame, task: str, ax: Axes) -> Axes:
    """Energy of the multi-task model's maps minus that of the single-task model's, a row a region of the face.

    Args:
        table: rows ``task, kind, region, value, low, high, p_holm``.
        task: which.
        ax: to draw on.
    """
    rows = table[table["task"] == task]
    for number, kind in enumerate(dict.fromkeys(rows["kind"])):
        colour, marker = KIND_STYLE[kind]
        for row in rows[rows["kind"] == kind].to_dict("records"):
            position = REGIONS.index(row["region"]) + 0.24 * (number - 0.5)
            draw_interval(ax, pd.Series(row), position, colour, marker, row["p_holm"] < SIGNIFICANT, 100)
        ax.plot([], [], marker, color=colour, ms=8, label=METHODS[kind][0])
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(REGIONS)), REGIONS)
    ax.set_ylim(len(REGIONS) - 0.5, -0.5)
    ax.set_title(task)
    ax.set_xlabel("share of the energy (points)\n← single-task more   multi-task more →")
    return ax


def plot_region_shares(shares: dict[str, Sequence[float]], areas: Sequence[float], ax: Axes) -> Axes:
    """Share of the energy in each region, a line a task, against the region's share of the area.

    Args:
        shares: title to (7,) shares.
        areas: (7,) shares of the picture.
        ax: to draw on.
    """
    for (name, values), colour, marker in zip(shares.items(), ("#0072B2", "#D55E00", "#009E73"), "osD", strict=False):
        ax.plot(100 * np.asarray(values), range(len(REGIONS)), marker, color=colour, ms=8, label=name)
    ax.plot(100 * np.asarray(areas), range(len(REGIONS)), "|", color=NEUTRAL, ms=16, mew=2, label="share of the area")
    ax.set_yticks(range(len(REGIONS)), REGIONS)
    ax.set_ylim(len(REGIONS) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("share of the energy (%)")
    return ax

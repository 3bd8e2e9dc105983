"""Figures ``map_cues`` and ``map_road``: maps against rivals that know nothing, the tests T1 and T2."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.maps.map_evidence import KIND_STYLE, MapEvidence, against_rivals, read_map_evidence
from agr_lab.evidence.panels import draw_panels, lay_out
from agr_lab.evidence.register import FIGURES
from agr_lab.reports.map_report import MapReport
from agr_utils.inside.explain import METHODS
from agr_utils.measure.comparisons import SIGNIFICANT
from agr_utils.measure.forest import draw_interval
from agr_utils.measure.plots import NEUTRAL
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS


@FIGURES.add(
    "map_cues", "Drawn faces: energy of maps inside the true cue, against maps that know nothing", read_map_evidence
)
def draw_map_cues(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """T1: energy inside the cue minus that of the rivals."""
    return _draw_rivals(evidence.cues, "energy", dict.fromkeys(TASKS, ("points", 100)))


@FIGURES.add(
    "map_road", "Real faces: does what a map marks matter? ROAD, against maps that know nothing", read_map_evidence
)
def draw_map_road(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """T2: ROAD minus that of the rivals."""
    units = dict.fromkeys(TASKS, ("points of probability", 100.0)) | {"age": ("years", 1.0)}
    return _draw_rivals(evidence.faces, "road", units)


def _draw_rivals(
    reports: dict[str, MapReport], score: str, units: dict[str, tuple[str, float]]
) -> tuple[plt.Figure, pd.DataFrame]:
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.8), sharey=True)
    families = {kind: against_rivals(reports, score, kind) for kind in METHODS}
    draw_panels(axes, TASKS, lambda task, ax: _plot_against_rivals(families, units, task, ax), reports)
    lay_out(figure, 3)
    return figure, pd.concat(families, names=["kind"]).reset_index("kind")


def _plot_against_rivals(
    families: dict[str, pd.DataFrame], units: dict[str, tuple[str, float]], task: str, ax: plt.Axes
) -> None:
    """A score of each kind of map minus that of a blob in the middle (large) and of noise (small), by architecture."""
    unit, scale = units[task]
    names = list(dict.fromkeys(name for table in families.values() for name in table["backbone"]))
    for number, (kind, table) in enumerate(families.items()):
        colour, marker = KIND_STYLE[kind]
        shift = 0.24 * (number - (len(families) - 1) / 2)
        for row in table[table["task"] == task].to_dict("records"):
            position, filled = names.index(row["backbone"]) + shift, row["p_holm"] < SIGNIFICANT
            if row["rival"] == "centred":
                draw_interval(ax, row, position, colour, marker, filled, scale)
            else:
                ax.plot(scale * row["value"], position, "x", color=colour, ms=6, mew=1.6)
        ax.plot([], [], marker, color=colour, ms=8, label=f"{METHODS[kind][0]} against the blob")
        ax.plot([], [], "x", color=colour, ms=6, label="against noise")
    ax.axvline(0, color=NEUTRAL, lw=1)
    ax.set_yticks(range(len(names)), [get_backbone(name).title for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_title(task)
    ax.set_xlabel(f"difference ({unit})\n← rival better      map better →")

"""Figure ``map_sanity``: do maps depend on what was learned? Cascading randomisation, the test T3."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.maps.map_evidence import MapEvidence, read_map_evidence
from agr_lab.evidence.maps.trust import RANDOM_LIMIT
from agr_lab.evidence.panels import draw_panels, lay_out
from agr_lab.evidence.register import FIGURES
from agr_utils.inside.explain import METHODS
from agr_utils.inside.map_tables import SHOWN
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS


@FIGURES.add(
    "map_sanity",
    "100 real faces, mostly young: maps fall apart when weights are made random from the heads down",
    read_map_evidence,
)
def draw_map_sanity(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """T3: cascading randomisation."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.6), sharex=True, sharey=True)
    tables = {get_backbone(name).title: report.tables["cascade"] for name, report in evidence.faces.items()}
    for row, kind in zip(axes, SHOWN, strict=True):
        draw_panels(row, TASKS, lambda task, ax, kind=kind: _plot_cascade(tables, kind, task, ax), tables)
    lay_out(figure)
    return figure, pd.concat(tables, names=["architecture"]).reset_index(0) if tables else pd.DataFrame()


def _plot_cascade(tables: dict[str, pd.DataFrame], kind: str, task: str, ax: plt.Axes) -> None:
    """Rank correlation of maps with those after more and more of the weights were made random."""
    for title, table in tables.items():
        rows = table[(table["task"] == task) & (table["kind"] == kind)]
        share = np.concatenate([[0], 100 * rows["step"] / rows["step"].max()])
        values = np.concatenate([[1], rows["value"]])
        ax.plot(share, values, marker=MARKERS[title], ms=4, lw=1.3, color=COLOURS[title], label=title)
    ax.axhline(0, color=NEUTRAL, lw=1)
    ax.axhline(RANDOM_LIMIT, color=NEUTRAL, lw=1, ls="--")
    ax.set_title(f"{METHODS[kind][0]}, {task}")
    ax.set_xlabel("parts made random (%)")
    ax.set_ylabel("rank correlation")

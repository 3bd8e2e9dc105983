"""Figure ``map_layers`` and its table: which layer's maps find the cues."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.maps.map_evidence import NO_REPORTS, MapEvidence, read_map_evidence
from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.panels import draw_panels, lay_out
from agr_lab.evidence.register import FIGURES
from agr_utils.inside.explain import METHODS
from agr_utils.inside.map_tables import KIND_TITLES, SHOWN
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import get_backbone

KINDS = (*SHOWN, "centred")


def layer_rows(evidence: MapEvidence) -> pd.DataFrame:
    """Mean over tasks of the share of energy inside the cues: ``architecture, kind, side, layer, energy``."""
    tables = []
    for name, report in evidence.cues.items():
        table = report.tables["layers"].astype({"kind": str})
        means = table[table["kind"].isin(KINDS)].groupby(["kind", "side", "layer"])["energy"].mean()
        tables.append(means.reset_index().assign(architecture=get_backbone(name).title))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


@FIGURES.add(
    "map_layers",
    "Which layer to explain: at 64 px the finest maps find the cues of drawn faces best",
    read_map_evidence,
)
def draw_map_layers(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Energy inside the cues by resolution of the layer, drawn validation faces."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True)
    table = layer_rows(evidence)
    draw_panels(axes, SHOWN, lambda kind, ax: _plot_layers(table, kind, ax), len(table))
    lay_out(figure, 3)
    return figure, table


def _plot_layers(table: pd.DataFrame, kind: str, ax: plt.Axes) -> None:
    """Share of the maps' energy inside the cues against the resolution of the layer, a line per architecture."""
    for title, rows in table[table["kind"] == kind].groupby("architecture", sort=False):
        ax.plot(rows["side"], 100 * rows["energy"], marker=MARKERS[title], color=COLOURS[title], label=title)
    rival = table.loc[table["kind"] == "centred", "energy"].mean()
    ax.axhline(100 * rival, color=NEUTRAL, ls="--", lw=1, label="blob in the middle")
    ax.set_xscale("log", base=2)
    ax.set_xticks([2, 4, 8, 16], ["2x2", "4x4", "8x8", "16x16"])
    ax.set_title(METHODS[kind][0])
    ax.set_xlabel("cells of the layer's map")
    ax.set_ylabel("energy inside the cues (%)")


def layers_table(evidence: MapEvidence) -> str:
    """Energy inside the cues by resolution of the layer: a row per architecture and layer, the used one in bold."""
    used = {get_backbone(name).title: report.about["layer"] for name, report in evidence.cues.items()}
    rows, table = [], layer_rows(evidence)
    for title, own in table.groupby("architecture", sort=False) if used else ():
        means = own.set_index(["side", "layer", "kind"])["energy"].unstack().sort_index(ascending=False)
        for (side, layer), row in means.iterrows():
            bold = "**" if layer == used[title] else ""
            cells = [f"{100 * row[kind]:.1f}" for kind in KINDS]
            rows.append([title, f"{bold}`{layer}`{bold}", f"{side}x{side}", *cells])
    titles = ["Architecture", "Layer", "Cells", *(KIND_TITLES[kind] for kind in KINDS)]
    return markdown_table(titles, rows, NO_REPORTS)

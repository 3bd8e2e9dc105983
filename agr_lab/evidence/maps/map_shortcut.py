"""Figure ``map_shortcut`` and its table: do maps show a shortcut that a network has learned?"""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.maps.map_evidence import NO_REPORTS, MapEvidence, face_intervals, read_map_evidence, spread
from agr_lab.evidence.maps.map_where import mean_map
from agr_lab.evidence.markdown import interval_cell, markdown_table
from agr_lab.evidence.panels import draw_nothing, draw_panels
from agr_lab.evidence.register import FIGURES
from agr_lab.reports.map_report import MapReport
from agr_utils.inside.explain import METHODS, plot_map
from agr_utils.inside.map_tables import KIND_TITLES


def shortcut_table(shortcuts: dict[float, MapReport]) -> pd.DataFrame:
    """Where the gender map has its energy: rows ``confounding, kind, where, value, low, high``."""
    parts = []
    for confounding, report in shortcuts.items():
        for where, score in (("badge", "energy"), ("collar", "collar")):
            wide = spread(report, score)
            kinds = [kind for kind in METHODS if ("gender", kind) in wide]
            found = face_intervals(wide[[("gender", kind) for kind in kinds]])
            parts.append(found.drop(columns="p").assign(confounding=confounding, kind=kinds, where=where))
    columns = ["confounding", "kind", "where", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


@FIGURES.add(
    "map_shortcut",
    "Drawn faces: the stronger the shortcut in training, the more of HiResCAM's gender map lies on it",
    read_map_evidence,
)
def draw_map_shortcut(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Energy in badge and collar against the dial, and the mean maps at both ends."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 7.2))
    table = shortcut_table(evidence.shortcuts)
    draw_panels(axes[0], METHODS, lambda kind, ax: _plot_shortcut(table, kind, ax), len(table))
    if len(table):
        axes[0, 0].legend(frameon=False, fontsize=9)
    dials = list(evidence.shortcuts)
    chosen = [dials[0], dials[len(dials) // 2], dials[-1]] if dials else [None] * 3
    for ax, confounding in zip(axes[1], chosen, strict=True):
        if confounding is None:
            draw_nothing(ax)
            continue
        report = evidence.shortcuts[confounding]
        plot_map(report.mean_face, mean_map(report, "gender", "hirescam"), ax)
        ax.set_title(f"confounding {confounding:g}: mean HiResCAM", fontsize=11)
    figure.tight_layout()
    return figure, table


def _plot_shortcut(table: pd.DataFrame, kind: str, ax: plt.Axes) -> None:
    """Energy of the gender map inside the badge and the collar against the confounding dial."""
    for where, colour, marker in (("badge", "#0072B2", "o"), ("collar", "#D55E00", "s")):
        rows = table[(table["kind"] == kind) & (table["where"] == where)]
        ax.plot(rows["confounding"], 100 * rows["value"], marker=marker, color=colour, label=f"in the {where}")
        ax.fill_between(rows["confounding"], 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.2, lw=0)
    ax.set_title(METHODS[kind][0])
    ax.set_xlabel("confounding: collar tied to\ngender in training")
    ax.set_ylabel("energy of the gender map (%)")
    ax.set_ylim(bottom=0)


def shortcut_lines(evidence: MapEvidence) -> str:
    """Energy of MobileNetV3's gender map inside badge and collar, by the confounding dial."""
    columns = [(kind, where) for kind in METHODS for where in ("badge", "collar")]
    cells = [
        [f"{confounding:g}", *(interval_cell(rows.loc[column], 100, 1) for column in columns)]
        for confounding, rows in shortcut_table(evidence.shortcuts).set_index(["kind", "where"]).groupby("confounding")
    ]
    titles = [f"{KIND_TITLES[kind]}: {where} (%)" for kind, where in columns]
    return markdown_table(["Confounding", *titles], cells, NO_REPORTS)

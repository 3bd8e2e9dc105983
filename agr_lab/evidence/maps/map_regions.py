"""Figures ``map_regions`` and ``map_multitask``: which parts of the face hold the energy of the maps."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.maps.map_evidence import KIND_STYLE, NO_REPORTS, MapEvidence, face_intervals, read_map_evidence
from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.panels import draw_nothing, draw_panels, lay_out
from agr_lab.evidence.register import FIGURES
from agr_lab.reports.face_regions import REGIONS, region_areas
from agr_lab.reports.map_report import MapReport
from agr_utils.inside.explain import METHODS
from agr_utils.measure.bootstrap import holm
from agr_utils.measure.forest import PALETTE, plot_forest, spread_styles
from agr_utils.measure.plots import NEUTRAL
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS

AREA = "share of the area"


def region_shares_of(report: MapReport, kind: str) -> pd.DataFrame:
    """Mean share of the energy in each region: a row per task, a column per region."""
    regions = report.tables["regions"].astype({"task": str, "kind": str})
    means = regions[regions["kind"] == kind].groupby("task")[list(REGIONS)].mean()
    return means.loc[[task for task in TASKS if task in means.index]]


@FIGURES.add(
    "map_regions", "Which parts of the face hold the energy of HiResCAM: published runs, 2,000 faces", read_map_evidence
)
def draw_map_regions(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Share of the energy by region, task and architecture."""
    number = max(1, len(evidence.faces))
    figure, axes = plt.subplots(1, number, figsize=(2.7 * number + 1.5, 4), sharey=True, squeeze=False)
    areas, tables = region_areas(64, 64).tolist(), []
    for ax, (name, report) in zip(axes[0], evidence.faces.items(), strict=False):
        shares = region_shares_of(report, "hirescam")
        _plot_region_shares(shares, areas, ax)
        ax.set_title(get_backbone(name).title)
        tables.append(shares.reset_index().assign(architecture=get_backbone(name).title))
    if not tables:
        draw_nothing(axes[0, 0])
    tables.append(pd.DataFrame([areas], columns=list(REGIONS)).assign(architecture=AREA))
    lay_out(figure)
    return figure, pd.concat(tables, ignore_index=True)


def _plot_region_shares(shares: pd.DataFrame, areas: list[float], ax: plt.Axes) -> None:
    """Share of the energy in each region, a mark a task, against the region's share of the area."""
    for (name, values), (colour, marker) in zip(shares.iterrows(), PALETTE, strict=False):
        ax.plot(100 * values, range(len(REGIONS)), marker, color=colour, ms=8, label=name)
    ax.plot(100 * np.asarray(areas), range(len(REGIONS)), "|", color=NEUTRAL, ms=16, mew=2, label=AREA)
    ax.set_yticks(range(len(REGIONS)), REGIONS)
    ax.set_ylim(len(REGIONS) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("share of the energy (%)")


def regions_table(evidence: MapEvidence) -> str:
    """Share of HiResCAM's energy in each region of the face: a row per architecture and task."""
    if not evidence.faces:
        return NO_REPORTS
    rows = [[f"*{AREA}*", "", *(f"{100 * area:.0f}" for area in region_areas(64, 64).tolist())]]
    for backbone, report in evidence.faces.items():
        for task, row in region_shares_of(report, "hirescam").iterrows():
            rows.append([get_backbone(backbone).title, task, *(f"{100 * row[region]:.0f}" for region in REGIONS)])
    return markdown_table(["Architecture", "Task", *(f"{region} (%)" for region in REGIONS)], rows)


def region_differences(evidence: MapEvidence, backbone: str) -> pd.DataFrame:
    """Do multi-task and single-task models look at different places? Paired by face, Holm-corrected within a task.

    Args:
        evidence: see ``read_map_evidence``.
        backbone: architecture of the short runs.

    Returns:
        Rows ``task, kind, region, value, low, high, p, p_holm``: share of the energy of the multi-task model's maps
        minus that of the single-task model's; empty where a report is missing.
    """
    multi = evidence.short.get((backbone, TASKS))
    parts = []
    for task in TASKS:
        single = evidence.short.get((backbone, (task,)))
        if multi is None or single is None:
            continue
        ours, theirs = (_region_rows(report, task) for report in (multi, single))
        found = face_intervals(ours - theirs.loc[ours.index])
        labels = pd.DataFrame(list(ours.columns), columns=["kind", "region"]).assign(task=task)
        parts.append(pd.concat([labels, found.assign(p_holm=holm(found["p"]))], axis=1))
    columns = ["task", "kind", "region", "value", "low", "high", "p", "p_holm"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _region_rows(report: MapReport, task: str) -> pd.DataFrame:
    """Shares of one task: a row per face, columns (kind, region)."""
    regions = report.tables["regions"].astype({"task": str, "kind": str})
    wide = regions[regions["task"] == task].pivot(index="image_id", columns="kind", values=list(REGIONS))
    wide = wide.swaplevel(axis=1)
    return wide[[(kind, region) for kind in METHODS for region in REGIONS if (kind, region) in wide]]


@FIGURES.add(
    "map_multitask", "Do multi-task and single-task models look elsewhere? MobileNetV3, short runs", read_map_evidence
)
def draw_map_multitask(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Energy of the multi-task model's maps minus that of the single-task model's, a row per region of the face."""
    table = region_differences(evidence, "mobilenet_v3")
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), sharey=True)

    def draw(task: str, ax: plt.Axes) -> None:
        rows = table[table["task"] == task]
        shown = rows.assign(kind=rows["kind"].map(lambda kind: METHODS[kind][0]))
        styles = spread_styles(dict.fromkeys(shown["kind"]), 0.12, list(KIND_STYLE.values()))
        plot_forest(shown, ax, "region", "kind", styles=styles, scale=100)
        ax.set_title(task)
        ax.set_xlabel("share of the energy (points)\n← single-task more   multi-task more →")

    draw_panels(axes, TASKS, draw, len(table))
    lay_out(figure)
    return figure, table

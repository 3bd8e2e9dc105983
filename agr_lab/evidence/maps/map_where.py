"""Figures ``map_where_gradcam``, ``map_where_hirescam`` and ``map_groups``: where networks look, on average."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.maps.map_evidence import MapEvidence, read_map_evidence
from agr_lab.evidence.panels import draw_nothing
from agr_lab.evidence.register import FIGURES
from agr_lab.reports.face_maps import MEAN_SIDE
from agr_lab.reports.map_report import MapReport
from agr_utils.inside.explain import METHODS, plot_map
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS, get_scheme

BRIGHTEST = 3.0  # times the average


def mean_map(report: MapReport, task: str, kind: str, group: str = "all") -> np.ndarray | None:
    """A mean map of a report, (MEAN_SIDE, MEAN_SIDE), 1 where it is as strong as on average; None if there is none."""
    table = report.tables["mean_maps"]
    rows = table[(table["task"] == task) & (table["kind"] == kind) & (table["group"] == group)]
    return None if rows.empty else np.asarray(rows["map"].iloc[0]).reshape(MEAN_SIDE, MEAN_SIDE) * MEAN_SIDE**2


def _draw_mean_maps(columns: dict[str, tuple[MapReport, str]], kind: str) -> tuple[plt.Figure, pd.DataFrame]:
    """Mean maps over mean faces, a row per task.

    Args:
        columns: title to report and group.
        kind: of map.

    Returns:
        The figure, and a row of MEAN_SIDE cells for each line of each map.
    """
    width = max(1, len(columns))
    figure, axes = plt.subplots(len(TASKS), width, figsize=(1.9 * width + 0.8, 2.0 * len(TASKS) + 0.3), squeeze=False)
    shown, tables = None, []
    for number, (line, task) in enumerate(zip(axes, TASKS, strict=True)):
        if not columns:
            draw_nothing(line[0])
        for ax, (title, (report, group)) in zip(line, columns.items(), strict=False):
            values = mean_map(report, task, kind, group)
            if values is None:
                draw_nothing(ax, "no such head")
                continue
            shown = plot_map(report.mean_face, values, ax, BRIGHTEST)
            if number == 0:
                ax.set_title(title, fontsize=11)
            cells = pd.DataFrame(values).add_prefix("x").rename_axis("y").reset_index()
            tables.append(pd.concat([pd.DataFrame({"of": title, "task": task}, cells.index), cells.round(3)], axis=1))
        line[0].text(-0.08, 0.5, task, rotation=90, ha="right", va="center", transform=line[0].transAxes, fontsize=12)
    figure.tight_layout(pad=0.4)
    if shown is not None:
        bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.02)
        bar.set_label("times the average")
    return figure, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _draw_architectures(evidence: MapEvidence, kind: str) -> tuple[plt.Figure, pd.DataFrame]:
    """Mean maps of the published runs."""
    return _draw_mean_maps({get_backbone(name).title: (report, "all") for name, report in evidence.faces.items()}, kind)


for _kind in ("gradcam", "hirescam"):
    FIGURES.add(
        f"map_where_{_kind}",
        f"Where {METHODS[_kind][0]} says that each architecture looks: mean maps of 2,000 faces",
        read_map_evidence,
    )(lambda evidence, kind=_kind: _draw_architectures(evidence, kind))


@FIGURES.add(
    "map_groups",
    "Mean HiResCAM of the custom CNN by labelled group; of gender and race each face's own answer is explained",
    read_map_evidence,
)
def draw_map_groups(evidence: MapEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Mean maps of the custom CNN by labelled gender and race, over the mean of all faces."""
    report, scheme = evidence.faces.get("custom_cnn"), get_scheme("utkface")
    groups = ("all", *scheme.gender, *scheme.race) if report else ()
    return _draw_mean_maps({group: (report, group) for group in groups}, "hirescam")

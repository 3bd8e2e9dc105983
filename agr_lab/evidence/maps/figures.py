"""Figures of maps: can they be trusted, and where do networks look?"""

from collections.abc import Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from agr_lab.evidence.figures_claims import NOTHING, draw_panels, legend_below
from agr_lab.evidence.maps import plots as plots_maps
from agr_lab.evidence.maps.evidence import (
    MapEvidence,
    against_rivals,
    read_map_evidence,
    region_differences,
    region_shares_of,
    shortcut_table,
)
from agr_lab.evidence.maps.report import MapReport
from agr_lab.evidence.plots_claims import draw_nothing
from agr_lab.evidence.register import Register
from agr_utils.data.synthetic import SyntheticSettings, draw_faces
from agr_utils.inside.explain import METHODS
from agr_utils.inside.face_regions import region_areas
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS, get_scheme

FIGURES = Register()

SHOWN_KINDS = ("gradcam", "hirescam")
BRIGHTEST = 3.0  # times the average, in figures of mean maps


@FIGURES.add(
    "map_layers",
    "Which layer to explain: at 64 px the finest maps find the cues of drawn faces best",
    read_map_evidence,
)
def draw_layers(evidence: MapEvidence) -> plt.Figure:
    """Energy inside the cues by resolution of the layer, drawn validation faces."""
    drawn, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True)
    tables = {name: report.tables["layers"] for name, report in evidence.cues.items()}
    draw_panels(axes, SHOWN_KINDS, partial(plots_maps.plot_layers, tables) if tables else None)
    drawn.tight_layout()
    if tables:
        legend_below(drawn, axes[0], 3)
    return drawn


def _draw_rivals(reports: dict[str, MapReport], score: str, units: dict[str, tuple[str, float]]) -> plt.Figure:
    drawn, axes = plt.subplots(1, 3, figsize=(12, 4.8), sharey=True)
    families = {kind: against_rivals(reports, score, kind) for kind in METHODS}
    draw_panels(axes, TASKS, partial(plots_maps.plot_against_rivals, families, units) if reports else None)
    drawn.tight_layout()
    if reports:
        legend_below(drawn, axes[0], 3)
    return drawn


@FIGURES.add(
    "map_cues", "Drawn faces: energy of maps inside the true cue, against maps that know nothing", read_map_evidence
)
def draw_cues(evidence: MapEvidence) -> plt.Figure:
    """T1: energy inside the cue minus that of the rivals."""
    return _draw_rivals(evidence.cues, "energy", dict.fromkeys(TASKS, ("points", 100)))


@FIGURES.add(
    "map_road", "Real faces: does what a map marks matter? ROAD, against maps that know nothing", read_map_evidence
)
def draw_road(evidence: MapEvidence) -> plt.Figure:
    """T2: ROAD minus that of the rivals."""
    units = {
        "age": ("years", 1.0),
        "gender": ("points of probability", 100.0),
        "race": ("points of probability", 100.0),
    }
    return _draw_rivals(evidence.faces, "road", units)


@FIGURES.add(
    "map_shortcut",
    "Drawn faces: the stronger the shortcut in training, the more of HiResCAM's gender map lies on it",
    read_map_evidence,
)
def draw_shortcut(evidence: MapEvidence) -> plt.Figure:
    """Energy in earrings and collar against the dial, and the mean maps at both ends."""
    drawn, axes = plt.subplots(2, 3, figsize=(10, 7.2))
    table = shortcut_table(evidence.shortcuts)
    draw_panels(axes[0], METHODS, partial(plots_maps.plot_shortcut, table) if len(table) else None)
    if len(table):
        axes[0, 0].legend(frameon=False, fontsize=9)
    dials = list(evidence.shortcuts)
    chosen = [dials[0], dials[len(dials) // 2], dials[-1]] if dials else [None] * 3
    for ax, confounding in zip(axes[1], chosen, strict=True):
        if confounding is None:
            draw_nothing(ax, NOTHING)
            continue
        faces = draw_faces(500, 64, seed=0, settings=SyntheticSettings(confounding=confounding)).pixels
        mean = faces.mean(axis=0).astype(np.uint8)
        values = plots_maps.mean_map(evidence.shortcuts[confounding], "gender", "hirescam")
        plots_maps.plot_map(mean, values, ax)
        ax.set_title(f"confounding {confounding:g}: mean HiResCAM", fontsize=11)
    drawn.tight_layout()
    return drawn


@FIGURES.add(
    "map_sanity",
    "100 real faces, mostly young: maps fall apart when weights are made random from the heads down",
    read_map_evidence,
)
def draw_sanity(evidence: MapEvidence) -> plt.Figure:
    """T3: cascading randomisation."""
    drawn, axes = plt.subplots(2, 3, figsize=(12, 6.6), sharex=True, sharey=True)
    tables = {name: report.tables["cascade"] for name, report in evidence.faces.items()}
    for row, kind in zip(axes, SHOWN_KINDS, strict=True):
        draw_panels(row, TASKS, partial(plots_maps.plot_cascade, tables, kind) if tables else None)
    drawn.tight_layout()
    if tables:
        legend_below(drawn, axes[0, 0])
    return drawn


def _draw_mean_maps(columns: dict[str, tuple[MapReport, str]], rows: Sequence[str], kind: str) -> plt.Figure:
    """Mean maps over mean faces.

    Args:
        columns: title to report and group.
        rows: tasks.
        kind: of map.
    """
    number = max(1, len(columns))
    drawn, axes = plt.subplots(len(rows), number, figsize=(1.9 * number + 0.8, 2.0 * len(rows) + 0.3), squeeze=False)
    shown = None
    for number, (line, task) in enumerate(zip(axes, rows, strict=True)):
        if not columns:
            draw_nothing(line[0], NOTHING)
        for ax, (title, (report, group)) in zip(line, columns.items(), strict=False):
            values = plots_maps.mean_map(report, task, kind, group)
            if values is None:
                draw_nothing(ax, "no such head")
                continue
            shown = plots_maps.plot_map(report.mean_face, values, ax, BRIGHTEST)
            if number == 0:
                ax.set_title(title, fontsize=11)
        line[0].text(-0.08, 0.5, task, rotation=90, ha="right", va="center", transform=line[0].transAxes, fontsize=12)
    drawn.tight_layout(pad=0.4)
    if shown is not None:
        bar = drawn.colorbar(shown, ax=axes, fraction=0.03, pad=0.02)
        bar.set_label("times the average")
    return drawn


def _draw_architectures(evidence: MapEvidence, kind: str) -> plt.Figure:
    columns = {get_backbone(name).title: (report, "all") for name, report in evidence.faces.items()}
    return _draw_mean_maps(columns, TASKS, kind)


for _kind in SHOWN_KINDS:
    FIGURES.add(
        f"map_where_{_kind}",
        f"Where {METHODS[_kind][0]} says that each architecture looks: mean maps of 2,000 faces",
        read_map_evidence,
    )(partial(_draw_architectures, kind=_kind))


@FIGURES.add(
    "map_groups",
    "Mean HiResCAM of the custom CNN by labelled group; of gender and race each face's own answer is explained",
    read_map_evidence,
)
def draw_groups(evidence: MapEvidence) -> plt.Figure:
    """Mean maps of the custom CNN by labelled gender and race, over the mean of all faces."""
    report, scheme = evidence.faces.get("custom_cnn"), get_scheme("utkface")
    groups = ("all", *scheme.gender, *scheme.race) if report else ()
    return _draw_mean_maps({group: (report, group) for group in groups}, TASKS, "hirescam")


@FIGURES.add(
    "map_regions", "Which parts of the face hold the energy of HiResCAM: published runs, 2,000 faces", read_map_evidence
)
def draw_regions(evidence: MapEvidence) -> plt.Figure:
    """Share of the energy by region, task and architecture."""
    number = max(1, len(evidence.faces))
    drawn, axes = plt.subplots(1, number, figsize=(2.7 * number + 1.5, 4), sharey=True, squeeze=False)
    areas = region_areas(64, 64).tolist()
    for ax, (name, report) in zip(axes[0], evidence.faces.items(), strict=False):
        shares = region_shares_of(report, "hirescam")
        plots_maps.plot_region_shares({task: shares.loc[task] for task in shares.index}, areas, ax)
        ax.set_title(get_backbone(name).title)
    if not evidence.faces:
        draw_nothing(axes[0, 0], NOTHING)
    drawn.tight_layout()
    if evidence.faces:
        legend_below(drawn, axes[0, 0])
    return drawn


@FIGURES.add(
    "map_multitask", "Do multi-task and single-task models look elsewhere? MobileNetV3, short runs", read_map_evidence
)
def draw_multitask_regions(evidence: MapEvidence) -> plt.Figure:
    """Difference of the energy by region."""
    table = region_differences(evidence, "mobilenet_v3")
    drawn, axes = plt.subplots(1, 3, figsize=(12, 4.4), sharey=True)
    draw_panels(axes, TASKS, partial(plots_maps.plot_region_differences, table) if len(table) else None)
    drawn.tight_layout()
    if len(table):
        legend_below(drawn, axes[0])
    return drawn

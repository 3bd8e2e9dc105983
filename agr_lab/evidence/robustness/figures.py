"""Figures of robustness: light, cameras, scarves, and expression."""

from functools import partial

import matplotlib.pyplot as plt
import torch

from agr_lab.evidence.figures_claims import NOTHING, draw_panels, legend_below
from agr_lab.evidence.plots_claims import draw_nothing
from agr_lab.evidence.register import Register
from agr_lab.evidence.robustness import plots as plots_robustness
from agr_lab.evidence.robustness.evidence import (
    COMPARED,
    NUISANCES,
    RobustnessEvidence,
    augmentation_increases,
    group_increases,
    multitask_increases,
    nuisance_errors,
    read_robustness,
)
from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from agr_utils.data.synthetic import draw_faces
from agr_utils.inside.sweep import SWEPT_ERRORS, curve_table
from agr_utils.measure.fairness import ERRORS
from agr_utils.models.backbones import BACKBONES, get_backbone

FIGURES = Register()


@FIGURES.add("corruptions", "Eleven corruptions at five severities, on a drawn face", read_robustness)
def draw_corruptions(evidence: RobustnessEvidence) -> plt.Figure:
    """What the corruptions look like."""
    pixels = draw_faces(10, 64, seed=3).pixels[:1]
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    drawn, axes = plt.subplots(len(CORRUPTIONS), 6, figsize=(7, 12.2))
    for row, (line, name) in enumerate(zip(axes, CORRUPTIONS, strict=True)):
        shown = [image, *(corrupt(image, name, severity, data="synthetic") for severity in SEVERITIES)]
        for severity, (ax, changed) in enumerate(zip(line, shown, strict=True)):
            ax.imshow(changed[0].permute(1, 2, 0).numpy(), interpolation="nearest")
            ax.set_axis_off()
            if row == 0:
                ax.set_title(f"severity {severity}" if severity else "clean", fontsize=10)
        line[0].text(
            -0.1, 0.5, CORRUPTIONS[name].title, ha="right", va="center", transform=line[0].transAxes, fontsize=10
        )
    drawn.tight_layout(pad=0.2)
    return drawn


def _draw_severities(evidence: RobustnessEvidence, error: str) -> plt.Figure:
    drawn, axes = plt.subplots(3, 4, figsize=(12, 8.4), sharex=True, sharey=True)
    curves = {name: curve_table(swept) for name, swept in evidence.architectures.items()}
    draw_panels(axes.flat[:-1], CORRUPTIONS, partial(plots_robustness.plot_severity, curves, error) if curves else None)
    axes[-1, -1].set_axis_off()
    axes[0, 0].set_ylim(bottom=0)
    drawn.supxlabel("severity (0: clean)", fontsize=12)
    drawn.supylabel(f"{ERRORS[error].title}, less is better", fontsize=12)
    drawn.tight_layout()
    if curves:
        axes[-1, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False)
    return drawn


for _name, _error in (("age", "age_mae"), ("gender", "gender_error"), ("race", "race_error")):
    FIGURES.add(
        f"robustness_{_name}",
        f"{_name.capitalize()} error against severity: short runs, 2,000 test faces, 95 % intervals",
        read_robustness,
    )(partial(_draw_severities, error=_error))


def _draw_differences(tables: dict, sides: tuple[str, str]) -> plt.Figure:
    drawn, axes = plt.subplots(1, 3, figsize=(12, 5.4), sharey=True)
    draw = partial(plots_robustness.plot_increase_differences, tables, sides) if tables else None
    draw_panels(axes, SWEPT_ERRORS, draw)
    drawn.tight_layout()
    if tables:
        legend_below(drawn, axes[0])
    return drawn


@FIGURES.add(
    "robustness_multitask",
    "Is a multi-task model hurt less? Short runs, average over severities. Filled: holds after correction",
    read_robustness,
)
def draw_multitask(evidence: RobustnessEvidence) -> plt.Figure:
    """Increase of the errors, single-task minus multi-task."""
    tables = {get_backbone(name).title: multitask_increases(evidence, name) for name in COMPARED}
    return _draw_differences(
        {title: table for title, table in tables.items() if len(table)},
        ("single-task", "multi-task"),
    )


@FIGURES.add(
    "robustness_augmentation",
    "What augmentation buys: MobileNetV3 trained without it, short runs, validation faces. Filled: interval off 0",
    read_robustness,
)
def draw_augmentation(evidence: RobustnessEvidence) -> plt.Figure:
    """Increase of the errors without some augmentation, minus that of the usual run."""
    return _draw_differences(augmentation_increases(evidence), ("without", "with"))


@FIGURES.add(
    "robustness_groups",
    "Does low light (severity 3) hurt some groups more? Published MobileNetV3. Filled: holds after correction",
    read_robustness,
)
def draw_groups(evidence: RobustnessEvidence) -> plt.Figure:
    """Increase of the errors by labelled group."""
    table = group_increases(evidence)
    drawn, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True)
    draw_panels(axes, SWEPT_ERRORS, partial(plots_robustness.plot_group_increases, table) if len(table) else None)
    drawn.tight_layout()
    return drawn


@FIGURES.add(
    "expression",
    "Drawn faces: expression, light, tilt, glasses and a covered mouth, five architectures",
    read_robustness,
)
def draw_expression(evidence: RobustnessEvidence) -> plt.Figure:
    """Errors by what varies in the drawn faces."""
    drawn, axes = plt.subplots(3, len(NUISANCES), figsize=(14, 8), sharey="row", width_ratios=(2, 2, 2, 1, 1))
    runs = {run.backbone: run for run in evidence.drawn if run.seed == 0}
    tables = {name: nuisance_errors(runs[name]) for name in BACKBONES if name in runs}
    for line, error in zip(axes, SWEPT_ERRORS, strict=True):
        for ax, (nuisance, (title, _)) in zip(line, NUISANCES.items(), strict=True):
            title = title if error == SWEPT_ERRORS[-1] else ""
            if tables:
                plots_robustness.plot_nuisance(tables, nuisance, error, ax, title)
            else:
                draw_nothing(ax, NOTHING)
            if ax is not line[0]:
                ax.set_ylabel("")
    drawn.tight_layout()
    if tables:
        legend_below(drawn, axes[0, 0])
    return drawn

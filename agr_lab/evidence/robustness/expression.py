"""Figure ``expression``: what varies in drawn faces and says nothing about a label."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.panels import draw_nothing, lay_out
from agr_lab.evidence.register import FIGURES
from agr_lab.evidence.robustness.sweeps import RobustnessEvidence, read_robustness
from agr_utils.inside.sweep import SWEPT_ERRORS
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.fairness import ERRORS, error_rows
from agr_utils.measure.plots import COLOURS, MARKERS
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES

NUISANCES = {  # of drawn faces -> (title, edges of bins; None for yes or no)
    "expression": ("expression: sad to smiling", (-1, -0.6, -0.2, 0.2, 0.6, 1)),
    "light": ("light from the side", (-0.25, -0.15, -0.05, 0.05, 0.15, 0.25)),
    "angle": ("tilt of the head (radians)", (-0.12, -0.07, -0.02, 0.02, 0.07, 0.12)),
    "glasses": ("glasses", None),
    "covered_mouth": ("covered mouth", None),
}


def nuisance_errors(run: Run, nuisances: pd.DataFrame) -> pd.DataFrame:
    """Errors of a run on drawn test faces by what varies in them (``NUISANCES``) without saying anything about a label.

    Rows ``nuisance, level, count, error, value, low, high``: level is the middle of a bin, or 0 and 1.
    """
    table, _ = run.split("test")
    varied = nuisances.set_index("image_id").loc[table["image_id"]]
    errors = error_rows(table)[list(SWEPT_ERRORS)].to_numpy(dtype=float)
    bootstrap, parts = GroupBootstrap(np.arange(len(table)), 2_000), []
    for name, (_, edges) in NUISANCES.items():
        values = varied[name].to_numpy(dtype=float)
        levels = values if edges is None else _middles(values, edges)
        shown = np.unique(levels)
        members = levels[:, None] == shown  # (n, levels)
        samples = bootstrap.group_means(errors, members)  # (R + 1, errors, levels)
        for number, level in enumerate(shown):
            part = interval(samples[:, :, number]).drop(columns="p")
            counted = int(members[:, number].sum())
            parts.append(part.assign(nuisance=name, level=level, count=counted, error=list(SWEPT_ERRORS)))
    return pd.concat(parts, ignore_index=True)


def _middles(values: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Middle of the bin that each value falls into."""
    edges = np.asarray(edges)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return ((edges[:-1] + edges[1:]) / 2)[place]


@FIGURES.add(
    "expression",
    "Drawn faces: expression, light, tilt, glasses and a covered mouth, five architectures",
    read_robustness,
)
def draw_expression(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Errors by what varies in the drawn faces."""
    figure, axes = plt.subplots(3, len(NUISANCES), figsize=(14, 8), sharey="row", width_ratios=(2, 2, 2, 1, 1))
    runs = {run.backbone: run for run in evidence.drawn if run.seed == 0}
    tables = {runs[name].title: nuisance_errors(runs[name], evidence.nuisances) for name in BACKBONES if name in runs}
    for line, error in zip(axes, SWEPT_ERRORS, strict=True):
        for ax, (nuisance, (title, _)) in zip(line, NUISANCES.items(), strict=True):
            if tables:
                _plot_nuisance(tables, nuisance, error, ax)
                ax.set_xlabel(title if error == SWEPT_ERRORS[-1] else "")
            else:
                draw_nothing(ax)
            if ax is not line[0]:
                ax.set_ylabel("")
    lay_out(figure)
    return figure, pd.concat(tables, names=["architecture"]).reset_index(0) if tables else pd.DataFrame()


def _plot_nuisance(tables: dict[str, pd.DataFrame], nuisance: str, error: str, ax: plt.Axes) -> None:
    """One error on drawn faces against something that varies in them, a line per architecture."""
    scale = ERRORS[error].scale
    shifts = np.linspace(-0.05, 0.05, len(tables)) if len(tables) > 1 else [0.0]
    for (title, table), shift in zip(tables.items(), shifts, strict=True):
        rows = table[(table["error"] == error) & (table["nuisance"] == nuisance)]
        x = rows["level"] + shift * (rows["level"].max() - rows["level"].min())
        bars = np.abs(scale * rows[["low", "high"]].to_numpy().T - scale * rows["value"].to_numpy())
        ax.errorbar(x, scale * rows["value"], yerr=bars, color=COLOURS[title], marker=MARKERS[title], ms=4, lw=1.2,
                    label=title)  # fmt: skip
        if len(rows) == 2:
            ax.set_xticks([0, 1], ["no", "yes"])
            ax.set_xlim(-0.4, 1.4)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(ERRORS[error].title)

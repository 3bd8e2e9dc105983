"""Figures ``robustness_age``, ``robustness_gender`` and ``robustness_race``, and the tables of mean errors."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.panels import draw_panels
from agr_lab.evidence.register import Register
from agr_lab.evidence.robustness.sweeps import NO_SWEEPS, RobustnessEvidence, read_robustness
from agr_utils.data.corruptions import CORRUPTIONS
from agr_utils.inside.sweep import CLEAN, Sweep, curve_table, plot_severity
from agr_utils.measure.bootstrap import interval
from agr_utils.measure.comparisons import cache_copies
from agr_utils.measure.fairness import ERRORS
from agr_utils.models.backbones import get_backbone

FIGURES = Register()
CAPTION = "{} error against severity: short runs, 2,000 test faces, 95 % intervals"


@FIGURES.add("robustness_age", CAPTION.format("Age"), read_robustness)
def draw_age(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """MAE of the age by corruption."""
    return _draw_severities(evidence, "age_mae")


@FIGURES.add("robustness_gender", CAPTION.format("Gender"), read_robustness)
def draw_gender(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Gender error by corruption."""
    return _draw_severities(evidence, "gender_error")


@FIGURES.add("robustness_race", CAPTION.format("Race"), read_robustness)
def draw_race(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Race error by corruption."""
    return _draw_severities(evidence, "race_error")


def _draw_severities(evidence: RobustnessEvidence, error: str) -> tuple[plt.Figure, pd.DataFrame]:
    figure, axes = plt.subplots(3, 4, figsize=(12, 8.4), sharex=True, sharey=True)
    curves = {get_backbone(name).title: curve_table(swept) for name, swept in evidence.architectures.items()}
    draw_panels(axes.flat[:-1], CORRUPTIONS, lambda name, ax: plot_severity(curves, error, name, ax), curves)
    axes[-1, -1].set_axis_off()
    axes[0, 0].set_ylim(bottom=0)
    figure.supxlabel("severity (0: clean)", fontsize=12)
    figure.supylabel(f"{ERRORS[error].title}, less is better", fontsize=12)
    figure.tight_layout()
    if not curves:
        return figure, pd.DataFrame()
    axes[-1, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False)
    table = pd.concat(curves, names=["architecture"]).reset_index("architecture")
    return figure, table[table["error"] == error]


@cache_copies(maxsize=16)
def mean_errors(swept: Sweep) -> pd.DataFrame:
    """Errors averaged over the severities: rows ``corruption, error, value, low, high``, the first ones clean."""
    clean = swept.values[:, :1]
    values = np.concatenate([clean, swept.increases() + clean], axis=1)  # (n, 1 + corruptions, errors)
    found = interval(swept.bootstrap().means(values.reshape(len(values), -1))).drop(columns="p")
    labels = [(name, error) for name in ("clean", *swept.corruptions) for error in swept.errors]
    return pd.concat([pd.DataFrame(labels, columns=["corruption", "error"]), found], axis=1)


def mean_errors_table(evidence: RobustnessEvidence, error: str) -> str:
    """One error of each architecture, averaged over the severities: a row per corruption."""
    columns = {get_backbone(name).title: swept for name, swept in evidence.architectures.items()}
    columns |= {f"{get_backbone(name).title}, long": swept for name, swept in evidence.long.items()}
    tables = {
        title: found[found["error"] == error].set_index("corruption")
        for title, swept in columns.items()
        if len(found := mean_errors(swept))
    }
    titles = {CLEAN: "*as they are*"} | {name: corruption.title for name, corruption in CORRUPTIONS.items()}
    rows = [
        [title, *(error_cell(table.loc[name], ERRORS[error].in_years) for table in tables.values())]
        for name, title in titles.items()
        if tables
    ]
    return markdown_table(["Corruption", *tables], rows, NO_SWEEPS)

"""Figures ``robustness_age``, ``robustness_gender`` and ``robustness_race``, and the tables of mean errors."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.panels import draw_panels
from agr_lab.evidence.register import FIGURES
from agr_lab.evidence.robustness.sweeps import NO_SWEEPS, RobustnessEvidence, read_robustness
from agr_utils.data.corruptions import CORRUPTIONS
from agr_utils.inside.sweep import CLEAN, Sweep, curve_table, plot_severity
from agr_utils.measure.bootstrap import interval
from agr_utils.measure.comparisons import cache_copies
from agr_utils.measure.fairness import ERRORS
from agr_utils.models.backbones import get_backbone

CAPTION = "{} error against severity: short runs, 2,000 test faces, 95 % intervals"


def _draw_severities(evidence: RobustnessEvidence, error: str) -> tuple[plt.Figure, pd.DataFrame]:
    """One error by corruption."""
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


for _title, _error in {"Age": "age_mae", "Gender": "gender_error", "Race": "race_error"}.items():
    FIGURES.add(f"robustness_{_title.lower()}", CAPTION.format(_title), read_robustness)(
        lambda evidence, error=_error: _draw_severities(evidence, error)
    )


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

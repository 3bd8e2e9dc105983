"""Figure ``learning_curves``: how fast the published runs got better."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.register import FIGURES
from agr_utils.measure.plots import plot_learning_curves
from agr_utils.measure.results import Run

LABELS = {
    "validation_age_mae": "age MAE (years)",
    "validation_gender_accuracy": "gender accuracy (%)",
    "validation_race_accuracy": "race accuracy (%)",
}


@FIGURES.add("learning_curves", "Real faces: validation results against computing time, equal budgets")
def draw_learning_curves(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Validation metrics of the five architectures while they train."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    for ax, (column, label) in zip(axes, LABELS.items(), strict=True):
        plot_learning_curves(runs, column, label, ax)
    axes[0].set_ylim(top=min(axes[0].get_ylim()[1], 14))
    if runs:
        axes[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    columns = ["epoch", "cpu_seconds", *LABELS]
    tables = {run.title: run.history[columns].assign(cpu_seconds=run.history["cpu_seconds"].cumsum()) for run in runs}
    table = pd.concat(tables, names=["architecture"]).reset_index(0) if runs else pd.DataFrame(columns=columns)
    return figure, table

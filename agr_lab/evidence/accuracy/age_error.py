"""Figure ``age_error``: at which ages networks err most."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.register import FIGURES
from agr_utils.measure.plots import COLOURS, age_error_by_band, plot_age_error
from agr_utils.measure.results import Run


@FIGURES.add("age_error", "Real faces: old faces are hardest; mean absolute error by age, test split")
def draw_age_error(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Age error of each architecture by age band."""
    figure, ax = plt.subplots(figsize=(8, 4))
    tables = {run.title: run.split("test")[0] for run in runs}
    for title, table in tables.items():
        plot_age_error(table, ax, title, color=COLOURS[title])
    if runs:
        ax.legend(frameon=False, fontsize=9)
    rows = {title: age_error_by_band(table) for title, table in tables.items()}
    return figure, pd.concat(rows, names=["architecture", "age band"]).reset_index() if rows else pd.DataFrame()

"""Figure ``reliability``: whether networks are right as often as they say."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.panels import lay_out
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.calibration import reliability
from agr_utils.measure.plots import plot_reliability
from agr_utils.measure.results import Run


@FIGURES.add("reliability", "Are they as right as they say? Below the line: too sure of themselves")
def draw_reliability(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Reliability diagrams of gender and race."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4))
    rows = {}
    for ax, task in zip(axes, ("gender", "race"), strict=True):
        tables = {run.title: reliability(run.split("test")[0], task) for run in runs}
        plot_reliability(tables, ax)
        ax.set_title(task)
        rows |= {(task, title): table for title, table in tables.items()}
    lay_out(figure, 3)
    names = ["task", "architecture"]
    return figure, pd.concat(rows, names=names).reset_index(names) if rows else pd.DataFrame()

"""Figure ``coverage``: whether the age interval holds what it promises, in every group."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.panels import draw_panels
from agr_lab.evidence.register import Register
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.calibration import coverage_table
from agr_utils.measure.forest import plot_coverage
from agr_utils.measure.results import Run
from agr_utils.tasks import get_scheme

FIGURES = Register()


@FIGURES.add(
    "coverage",
    "Does MobileNetV3's 90 % age interval hold 90 % of the ages of each group?",
    note="Test split; in brackets the number of faces, on the right half the mean width of the interval.",
)
def draw_coverage(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Coverage of the conformal age interval by group."""
    figure, axes = plt.subplots(3, 1, figsize=(7.5, 8.5), height_ratios=(2, 5, 9), sharex=True)
    groupings, tables = ("gender", "race", "age band"), {}
    for run in runs:
        if run.backbone == "mobilenet_v3":
            table, groups = run.split("test")
            bootstrap, scheme = GroupBootstrap(groups), get_scheme("utkface")
            tables = {name: coverage_table(table, scheme, name, bootstrap) for name in groupings}
    draw_panels(axes, groupings, lambda grouping, ax: plot_coverage(tables[grouping], ax), tables)
    for ax in axes[:-1]:
        ax.set_xlabel("")
    figure.tight_layout()
    return figure, pd.concat(tables, names=["grouping", "group"]).reset_index() if tables else pd.DataFrame()

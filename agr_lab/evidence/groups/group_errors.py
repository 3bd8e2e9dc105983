"""Figure ``group_errors``, and the shipped model's errors by group."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.panels import draw_panels, lay_out
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.calibration import coverage_table
from agr_utils.measure.fairness import ERRORS, group_intervals, group_members
from agr_utils.measure.forest import plot_group_errors
from agr_utils.measure.results import Run
from agr_utils.tasks import get_scheme


@FIGURES.add(
    "group_errors", "Who is served worse: errors by labelled group, test split; in brackets the number of faces"
)
def draw_group_errors(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Errors of the published runs by race, gender and age band."""
    figure, axes = plt.subplots(3, 3, figsize=(12, 13), sharey="row", height_ratios=(5, 2, 9))
    scheme, splits = get_scheme("utkface"), {run.title: run.split("test") for run in runs}
    bootstraps = {title: GroupBootstrap(groups) for title, (_, groups) in splits.items()}
    rows = {}
    for line, grouping in zip(axes, ("race", "gender", "age band"), strict=True):
        tables = {
            title: group_intervals(table, scheme, grouping, bootstraps[title]) for title, (table, _) in splits.items()
        }
        errors = ("age_signed", "gender_error", "race_error")
        draw_panels(line, errors, lambda error, ax, tables=tables: plot_group_errors(tables, error, ax), tables)
        rows |= {(grouping, title): table for title, table in tables.items()}
    lay_out(figure)
    names = ["grouping", "architecture"]
    return figure, pd.concat(rows, names=names).reset_index(names) if rows else pd.DataFrame()


def shipped_groups_table(runs: list[Run]) -> str:
    """Errors of the shipped run by labelled group, and how many ages its interval holds: test split, 95 % intervals."""
    rows, scheme = [], get_scheme("utkface")
    for run in runs[:1]:
        table, clusters = run.split("test")
        bootstrap = GroupBootstrap(clusters)
        for grouping in ("gender", "race", "age band"):
            errors = group_intervals(table, scheme, grouping, bootstrap).set_index(["group", "error"])
            members = group_members(table, scheme, grouping)
            for group, row in coverage_table(table, members, bootstrap).iterrows():
                cells = [error_cell(errors.loc[(group, name)], error.in_years) for name, error in ERRORS.items()]
                rows.append([group, f"{row['count']:,.0f}", *cells, error_cell(row, years=False)])
    titles = [error.title for error in ERRORS.values()]
    return markdown_table(["Labelled", "Faces", *titles, "Ages inside the 90 % interval (%)"], rows)

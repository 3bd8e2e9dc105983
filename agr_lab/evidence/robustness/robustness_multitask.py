"""Figure ``robustness_multitask`` and its table: is a multi-task model hurt less?"""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import error_number, markdown_table
from agr_lab.evidence.panels import draw_forests
from agr_lab.evidence.register import FIGURES
from agr_lab.evidence.robustness.sweeps import NO_SWEEPS, RobustnessEvidence, increase_differences, read_robustness
from agr_utils.data.corruptions import CORRUPTIONS
from agr_utils.inside.sweep import SWEPT_ERRORS
from agr_utils.measure.comparisons import add_calls, count_calls
from agr_utils.measure.fairness import ERRORS
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS

COMPARED = ("mobilenet_v3", "custom_cnn")


def multitask_increases(evidence: RobustnessEvidence, backbone: str) -> pd.DataFrame:
    """Is a multi-task model hurt less than single-task ones? See ``increase_differences``; empty if one is missing."""
    multi = evidence.short.get((backbone, TASKS))
    singles = [evidence.short.get((backbone, (task,))) for task in TASKS]
    if multi is None or None in singles:
        return pd.DataFrame(columns=["corruption", "error", "value", "low", "high", "p", "call"])
    return add_calls(increase_differences([multi], singles))


@FIGURES.add(
    "robustness_multitask",
    "Is a multi-task model hurt less? Short runs, average over severities. Filled: holds after correction",
    read_robustness,
)
def draw_robustness_multitask(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Increase of the errors, single-task minus multi-task."""
    tables = {get_backbone(name).title: multitask_increases(evidence, name) for name in COMPARED}
    return draw_differences({title: table for title, table in tables.items() if len(table)},
                            "hurt less: ← single-task   multi-task →")  # fmt: skip


def draw_differences(tables: dict[str, pd.DataFrame], sides: str) -> tuple[plt.Figure, pd.DataFrame]:
    """How much less one model is hurt than another, a row per corruption and a panel per error.

    ``tables``: title to what ``increase_differences`` gave; ``sides``: who is hurt less to the left and right of 0.
    """
    table = pd.concat(tables, names=["compared"]).reset_index("compared") if tables else pd.DataFrame()
    shown = table.replace({"corruption": {name: corruption.title for name, corruption in CORRUPTIONS.items()}})
    columns = ("error", "corruption", "compared")
    return draw_forests(shown, SWEPT_ERRORS, columns, f"difference of the increase ({{unit}})\n{sides}", 5.4), table


def robustness_multitask_table(evidence: RobustnessEvidence) -> str:
    """How often a multi-task model is hurt less or more than single-task ones, by task."""
    rows = []
    for name in COMPARED:
        for error, own in multitask_increases(evidence, name).groupby("error", sort=False):
            counts, record = count_calls(own["call"]).values(), ERRORS[error]
            mean = f"{error_number(own['value'].mean(), record.in_years, '+')} {record.change_unit}"
            rows.append([get_backbone(name).title, record.label, *counts, mean])
    titles = ["Architecture", "Error", "Hurt less", "Hurt more", "No difference that matters", "Cannot tell", "Mean"]
    return markdown_table(titles, rows, NO_SWEEPS)

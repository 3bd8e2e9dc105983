"""Figure ``robustness_augmentation`` and its table: what augmentation buys."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.register import FIGURES
from agr_lab.evidence.robustness.robustness_multitask import draw_differences
from agr_lab.evidence.robustness.sweeps import NO_SWEEPS, RobustnessEvidence, increase_differences, read_robustness
from agr_utils.data.corruptions import CORRUPTIONS
from agr_utils.inside.sweep import SWEPT_ERRORS
from agr_utils.measure.fairness import ERRORS


def augmentation_increases(evidence: RobustnessEvidence) -> dict[str, pd.DataFrame]:
    """How much more a model is hurt that was trained without some augmentation, by what it lacked.

    Rows as of ``increase_differences``; above 0, the usual run is hurt less.
    """
    usual = evidence.augmentation.get("usual")
    others = {name: swept for name, swept in evidence.augmentation.items() if name != "usual"}
    return {name: increase_differences([usual], [swept]) for name, swept in others.items()} if usual else {}


@FIGURES.add(
    "robustness_augmentation",
    "What augmentation buys: MobileNetV3 trained without it, short runs, validation faces. Filled: interval off 0",
    read_robustness,
)
def draw_robustness_augmentation(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Increase of the errors without some augmentation, minus that of the usual run."""
    return draw_differences(augmentation_increases(evidence), "hurt less: ← without   with →")


def augmentation_table(evidence: RobustnessEvidence) -> str:
    """How much more a model is hurt that was trained without some augmentation: a row per corruption and error."""
    tables = {
        name: table.set_index(["corruption", "error"]) for name, table in augmentation_increases(evidence).items()
    }
    rows = []
    for corruption in CORRUPTIONS if tables else ():
        for error in SWEPT_ERRORS:
            years = ERRORS[error].in_years
            cells = [error_cell(table.loc[(corruption, error)], years, "+") for table in tables.values()]
            rows.append([CORRUPTIONS[corruption].title, ERRORS[error].change_title, *cells])
    return markdown_table(["Corruption", "Error", *(f"trained with {name}" for name in tables)], rows, NO_SWEEPS)

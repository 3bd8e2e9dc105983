"""When the shipped model had better say "can't tell": errors among the faces that it is surest about."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.register import FIGURES
from agr_utils.deploy.calibrate import FAR_OFF, confidences, fit_abstention, risk_coverage
from agr_utils.measure.results import Run, read_folder
from agr_utils.tasks import TASKS

SHIPPED_FOLDER = "shipped"  # in results/, holds the run behind the shipped model
TITLES = {"age": f"age: more than {FAR_OFF:.0f} years off", "gender": "gender: wrong", "race": "race: wrong"}


def read_shipped(results_dir: Path) -> list[Run]:
    """The run behind the shipped model; none where it is not published."""
    return read_folder(results_dir / SHIPPED_FOLDER)


@FIGURES.add(
    "risk_coverage",
    "Saying \"can't tell\": the shipped model's run errs less often if only the surest faces are answered (test split)",
    read_shipped,
    note="Line: the test faces that it is surest about, first. Point: the threshold that halves the share of wrong "
    "answers on the validation split, used on the test split. Dashed: half the share of all.",
)
def draw_risk_coverage(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Share of wrong answers against the share of faces that are answered, a task a panel."""
    figure, axes = plt.subplots(1, len(TASKS), figsize=(12, 3.4))
    rows = []
    for run in runs[:1]:
        thresholds = fit_abstention(run.split("validation")[0])
        for ax, (task, (confidence, wrong)) in zip(axes, confidences(run.split("test")[0]).items(), strict=True):
            known = np.isfinite(wrong)
            confidence, wrong = confidence[known], wrong[known] > 0
            coverage, risk, _ = risk_coverage(confidence, wrong)
            shown = coverage >= 0.02  # of fewer faces the share is noise
            ax.plot(100 * coverage[shown], 100 * risk[shown], color="#0072B2", label="test faces, surest first")
            answered = confidence >= thresholds[task]["threshold"]
            ax.plot(100 * answered.mean(), 100 * wrong[answered].mean(), "o", color="#D55E00", label="--abstain")
            ax.axhline(50 * wrong.mean(), color="0.5", ls="--", label="half of all")
            ax.set_title(TITLES[task])
            steps = np.searchsorted(coverage, np.arange(2, 101) / 100 - 1e-9)  # a row for every hundredth of the faces
            rows += [(task, "surest first", coverage[step], risk[step]) for step in steps]
            rows.append((task, "--abstain", answered.mean(), wrong[answered].mean()))
    for ax in axes:
        ax.set(xlabel="faces answered (%)", ylabel="wrong among them (%)", xlim=(0, 100), ylim=(0, None))
    if runs:
        axes[0].legend(loc="upper left")
    figure.tight_layout()
    return figure, pd.DataFrame(rows, columns=["task", "which", "answered", "wrong"]).drop_duplicates()

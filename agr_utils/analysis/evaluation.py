"""Every metric of one run with its interval: those of the tables, and those that a mean over images hides."""

import numpy as np
import pandas as pd

from agr_utils.analysis.bootstrap import GroupBootstrap, interval
from agr_utils.analysis.calibration import covered, sample_ece
from agr_utils.analysis.metrics import METRICS, score_rows, tasks_of
from agr_utils.data.faces import age_band

# name -> (title, unit, whether more is better; None: neither)
MORE_METRICS = {
    "age_macro_mae": ("Macro-MAE", "years", False),
    "age_coverage": ("Coverage of the 90 % age interval", "%", None),
    "gender_balanced_accuracy": ("Balanced gender accuracy", "%", True),
    "race_balanced_accuracy": ("Balanced race accuracy", "%", True),
    "gender_ece": ("Gender ECE", "%", False),
    "race_ece": ("Race ECE", "%", False),
}
ALL_METRICS = METRICS | MORE_METRICS


def evaluate_table(table: pd.DataFrame, bootstrap: GroupBootstrap) -> pd.DataFrame:
    """Every metric of ALL_METRICS that a predictions table allows: rows ``value, low, high``.

    Args:
        table: predictions of one run and one split.
        bootstrap: of its images.
    """
    scores, tasks = score_rows(table), tasks_of(table)
    samples = dict(zip(scores, bootstrap.means(scores.to_numpy(dtype=float)).T, strict=True))
    if "age_mae" in scores:
        samples["age_macro_mae"] = _mean_over(bootstrap, scores["age_mae"], age_band(table["age_min"]))
        samples["age_coverage"] = bootstrap.means(covered(table).to_numpy()[:, None])[:, 0]
    for task in ("gender", "race"):
        if task in tasks:
            balanced = _mean_over(bootstrap, scores[f"{task}_accuracy"], table[task])
            samples[f"{task}_balanced_accuracy"] = balanced
            samples[f"{task}_ece"] = sample_ece(table, task, bootstrap)
    names = [name for name in ALL_METRICS if name in samples]
    return interval(np.stack([samples[name] for name in names], axis=1)).drop(columns="p").set_index(pd.Index(names))


def _mean_over(bootstrap: GroupBootstrap, scores: pd.Series, classes: pd.Series) -> np.ndarray:
    """Mean over classes of the mean within each, (R + 1,): every class counts alike; NaN where a resample lost one."""
    names = classes.dropna().unique()
    members = np.stack([(classes == name).fillna(False).to_numpy(dtype=bool) for name in names], axis=1)
    return np.mean(bootstrap.group_means(scores.to_numpy(dtype=float)[:, None], members)[:, 0], axis=1)

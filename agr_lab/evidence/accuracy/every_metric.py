"""Every metric of one run with its interval: those of the tables, and those that a mean over images hides."""

import numpy as np
import pandas as pd

from agr_lab.evidence.basic_interval import basic_interval
from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_utils.data.faces import age_band
from agr_utils.errors import by_name
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.calibration import covered, null_ece, sample_ece
from agr_utils.measure.metrics import METRICS, Metric, score_rows
from agr_utils.measure.results import Run

MORE_METRICS = by_name(
    Metric("age_macro_mae", "Macro-MAE", "years", higher_is_better=False),
    Metric("age_coverage", "Coverage of the 90 % age interval", "%"),
    Metric("gender_balanced_accuracy", "Balanced gender accuracy", "%", higher_is_better=True),
    Metric("race_balanced_accuracy", "Balanced race accuracy", "%", higher_is_better=True),
    Metric("gender_ece", "Gender ECE", "%", higher_is_better=False),
    Metric("race_ece", "Race ECE", "%", higher_is_better=False),
)
ALL_METRICS = METRICS | MORE_METRICS


def evaluate_table(table: pd.DataFrame, bootstrap: GroupBootstrap) -> pd.DataFrame:
    """Every metric of ALL_METRICS that a table of one run and split allows: rows ``value, low, high, resamples``.

    Resampling only ever adds to an ECE, so it has the basic interval, from 0 up; ``null_ece`` says what a perfectly
    calibrated model would have. A metric of which no image has the label is left out.
    """
    scores = score_rows(table)
    samples = dict(zip(scores, bootstrap.means(scores.to_numpy(dtype=float)).T, strict=True))
    if "age_mae" in scores:
        samples["age_macro_mae"] = _mean_over(bootstrap, scores["age_mae"], age_band(table["age_min"]))
        samples["age_coverage"] = bootstrap.means(covered(table).to_numpy()[:, None])[:, 0]
    for task in ("gender", "race"):
        if f"{task}_accuracy" in scores:
            samples[f"{task}_balanced_accuracy"] = _mean_over(bootstrap, scores[f"{task}_accuracy"], table[task])
            samples[f"{task}_ece"] = sample_ece(table, task, bootstrap)
    names = [name for name in ALL_METRICS if name in samples]
    drawn = np.stack([samples[name] for name in names], axis=1) if names else np.empty((len(bootstrap), 0))
    result = interval(drawn).drop(columns="p").set_index(pd.Index(names))
    for name in result.index.intersection(["gender_ece", "race_ece"]):
        ends = basic_interval(samples[name][:, None]).iloc[0]
        result.loc[name, ["low", "high"]] = max(0.0, ends["low"]), max(0.0, ends["high"])
    return result


def _mean_over(bootstrap: GroupBootstrap, scores: pd.Series, classes: pd.Series) -> np.ndarray:
    """Mean over classes of the mean within each, (R + 1,): every class counts alike; NaN where a resample lost one."""
    names = classes[scores.notna()].dropna().unique()
    members = np.stack([(classes == name).fillna(False).to_numpy(dtype=bool) for name in names], axis=1)
    return np.mean(bootstrap.group_means(scores.to_numpy(dtype=float)[:, None], members)[:, 0], axis=1)


def every_metric_table(runs: list[Run]) -> str:
    """A row per metric, a column per run."""
    splits = [run.split("test") for run in runs]
    results = [evaluate_table(table, GroupBootstrap(groups)) for table, groups in splits]
    rows = [
        [metric.title, *(error_cell(result.loc[name], metric.in_years) for result in results)]
        for name, metric in MORE_METRICS.items()
        if results
    ]
    for task in ("gender", "race") if results else ():
        ranges = [interval(null_ece(table, task)[:, None]).iloc[0] for table, _ in splits]
        title = f"{task.title()} ECE of a perfectly calibrated model (%)"
        rows.append([title, *(error_cell(row, years=False) for row in ranges)])
    return markdown_table(["Metric", *(run.title for run in runs)], rows)

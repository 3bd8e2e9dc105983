"""Figure ``coverage``: whether the age interval holds what it promises, in every group."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.panels import draw_panels
from agr_lab.evidence.register import FIGURES
from agr_utils.data.faces import age_band
from agr_utils.deploy.calibrate import fit_levels
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.calibration import coverage_table
from agr_utils.measure.fairness import group_members
from agr_utils.measure.forest import plot_coverage
from agr_utils.measure.results import Run, read_folder
from agr_utils.tasks import get_scheme

SHOWN = "mobilenet_v3"
GROUPINGS = ("gender", "race", "age band", "predicted age band")


def read_quantile_runs(results_dir: Path) -> list[Run]:
    """Runs of the second protocol, of an accelerator, whose predictions carry quantiles of the age."""
    runs = [run for run in read_folder(results_dir / "protocol_2") if run.about["precision"] == "bf16"]
    return [run for run in runs if "age_q0.025" in run.predictions and run.config.num_epochs == 20]


def calibrated_by_quantiles(predictions: pd.DataFrame) -> pd.DataFrame:
    """Test predictions with an interval for the age, from the quantiles and the validation faces' ages.

    The validation faces say, by predicted age band, which share of the distribution an interval must hold
    (``fit_levels``); its ends are interpolated between the quantiles ``age_q0.025`` and so on. None lies beyond the
    outermost, so a model so sure of itself that more than 95 % of its distribution is needed still covers too few.
    """
    names = [name for name in predictions if name.startswith("age_q")]
    levels = np.array([float(name.removeprefix("age_q")) for name in names])
    validation, test = (predictions[predictions["split"] == split] for split in ("validation", "test"))
    validation = validation[validation["age"].notna()]
    ages, quantiles = validation["age"].to_numpy(dtype=float), validation[names].to_numpy(dtype=float)
    below = [np.interp(age, row, levels, left=0, right=1) for age, row in zip(ages, quantiles, strict=True)]
    found = fit_levels(np.array(below), validation["age_pred"].to_numpy(dtype=float))
    half = np.array(found["levels"])[np.digitize(test["age_pred"], found["edges"])] / 2
    rows = test[names].to_numpy(dtype=float)
    ends = [np.interp([0.5 - h, 0.5 + h], levels, row) for h, row in zip(half, rows, strict=True)]
    return test.assign(**dict(zip(("age_lo", "age_hi"), np.array(ends).T, strict=True))).reset_index(drop=True)


@FIGURES.add(
    "coverage",
    "Does MobileNetV3's 90 % age interval hold 90 % of the ages of each group?",
    read_quantile_runs,
    note="Test split, network of 96 px and 20 epochs, interval from 20 quantiles, calibrated by predicted age band on "
    "the validation split; in brackets the number of faces, on the right half the mean width of the interval.",
)
def draw_coverage(runs: list[Run]) -> tuple[plt.Figure, pd.DataFrame]:
    """Coverage of the conformal age interval by group; the table has every network."""
    figure, axes = plt.subplots(4, 1, figsize=(7.5, 11), height_ratios=(2, 5, 9, 9), sharex=True)
    tables, scheme = {}, get_scheme("utkface")
    for run in runs:
        _, clusters = run.split("test")
        table, bootstrap = calibrated_by_quantiles(run.predictions), GroupBootstrap(clusters)
        everybody = pd.DataFrame({"all": np.ones(len(table), dtype=bool)})
        bands = pd.get_dummies(age_band(table["age_pred"]), dtype=bool)  # what a user knows of a face
        bands.columns = bands.columns.astype(str)
        tables[run.backbone, "all"] = coverage_table(table, everybody, bootstrap)
        for name in GROUPINGS[:-1]:
            tables[run.backbone, name] = coverage_table(table, group_members(table, scheme, name), bootstrap)
        tables[run.backbone, GROUPINGS[-1]] = coverage_table(table, bands, bootstrap)
    draw_panels(axes, GROUPINGS, lambda name, ax: plot_coverage(tables[SHOWN, name], ax), tables)
    for ax, name in zip(axes, GROUPINGS, strict=True):
        ax.set_title(f"by {name}", loc="left", fontsize=11)
    for ax in axes[:-1]:
        ax.set_xlabel("")
    figure.tight_layout()
    names = ["backbone", "grouping", "group"]
    return figure, pd.concat(tables, names=names).reset_index() if tables else pd.DataFrame()


def file_intervals_table(results_dir: Path) -> str:
    """How many ages the shipped file's own interval holds, by predicted age: what tools/file_intervals.py counted."""
    path = results_dir / "shipped_intervals.csv"
    found = pd.read_csv(path) if path.exists() else pd.DataFrame()
    rows = [[row["predicted_age"], f"{row['count']:,}", error_cell(row, years=False), f"{row['width']:.0f}"]
            for _, row in found.iterrows()]  # fmt: skip
    return markdown_table(["Predicted age", "Faces", "Ages inside (%)", "Mean width (years)"], rows)

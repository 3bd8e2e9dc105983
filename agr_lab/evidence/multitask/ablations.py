"""Figures ``balancing`` and ``age_heads``: runs that differ in one setting, on the same faces (docs/protocol.md)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import error_cell, error_number, markdown_table
from agr_lab.evidence.panels import draw_panels
from agr_lab.evidence.reading import read_ablations
from agr_lab.evidence.register import FIGURES
from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.forest import plot_forest
from agr_utils.measure.metrics import METRICS, improvement_signs, score_rows
from agr_utils.measure.plots import NEUTRAL
from agr_utils.measure.results import Run

NOTE = (
    "One training each. Filled: the 95 % interval leaves out 0, uncorrected for the number of comparisons. "
    "Grey: too small to matter."
)
# Ablation -> setting of all other runs, and what its runs may differ in.
USUAL = {"balancing": "equal weights", "age_heads": "distribution", "initialisation": "from scratch"}
VARIED = {
    "balancing": ("balancing", "task_weights", "conflict_steps"),
    "age_heads": ("age_head",),
    "initialisation": ("pretrained",),
}
SPLIT = "validation"


def setting_title(run: Run, ablation: str) -> str:
    """What sets a run of an ablation apart, in a few words."""
    config = run.config
    if ablation == "age_heads":
        return config.age_head
    if ablation == "initialisation":
        return "ImageNet weights" if config.pretrained else USUAL[ablation]
    if config.balancing != "fixed":
        return config.balancing
    weights = [f"{task} × {weight:g}" for task, weight in config.task_weights.items() if weight != 1]
    return ", ".join(weights) or USUAL[ablation]


def runs_by_setting(runs: list[Run], ablation: str) -> dict[str, Run]:
    """Runs by title of their setting; an InputError if one differs in more, or two have one setting."""
    titles: dict[str, Run] = {}
    for run in runs:
        ours, theirs = (one.config.to_dict() | {"precision": one.about.get("precision")} for one in (run, runs[0]))
        different = [key for key in ours if key not in VARIED[ablation] and ours[key] != theirs[key]]
        if different:
            raise InputError(f"{run.run_id}: has another {', '.join(different)} than {runs[0].run_id}. Keep one kind")
        title = setting_title(run, ablation)
        if title in titles:
            raise InputError(f"two runs of one setting, {title}: {titles[title].run_id}, {run.run_id}. Keep one")
        titles[title] = run
    return titles


def setting_table(runs: list[Run], ablation: str) -> pd.DataFrame:
    """Metrics of each setting of an ablation, and by how much they are better than those of the usual one.

    Returns:
        Rows ``setting, metric, absolute, value, low, high``: ``absolute`` is the metric and ``value`` what the setting
        improves (above 0 is better), paired by face; NaN for the usual setting, which comes first, and without it.
    """
    titles = runs_by_setting(runs, ablation)
    usual = USUAL[ablation]
    parts = []
    for title in sorted(titles, key=lambda title: (title != usual, title)):
        table, groups = titles[title].split(SPLIT)
        scores = score_rows(table)
        part = pd.DataFrame({"setting": title, "metric": list(scores), "absolute": scores.mean().to_numpy()})
        if title != usual and usual in titles:
            reference = titles[usual].split(SPLIT)[0].set_index("image_id").loc[table["image_id"]].reset_index()
            gains = improvement_signs(scores) * (scores - score_rows(reference))
            part = part.join(interval(GroupBootstrap(groups).means(gains.to_numpy())).drop(columns="p"))
        parts.append(part)
    columns = ["setting", "metric", "absolute", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True).reindex(columns=columns) if parts else pd.DataFrame(columns=columns)


@FIGURES.add("balancing", "Weights of the tasks: MobileNetV3, short runs, validation split", read_ablations, NOTE)
def draw_balancing(ablations: dict[str, list[Run]]) -> tuple[plt.Figure, pd.DataFrame]:
    """A sweep of weights and learned ones against equal ones."""
    return _draw(ablations.get("balancing", []), "balancing", tuple(MATTERS))


@FIGURES.add(
    "age_heads", "Ways to ask for an age: custom CNN, age alone, short runs, validation split", read_ablations, NOTE
)
def draw_age_heads(ablations: dict[str, list[Run]]) -> tuple[plt.Figure, pd.DataFrame]:
    """Three formulations of the age against the distribution."""
    return _draw(ablations.get("age_heads", []), "age_heads", ("age_mae", "age_cs5"))


def _draw(runs: list[Run], ablation: str, metrics: Sequence[str]) -> tuple[plt.Figure, pd.DataFrame]:
    table = setting_table(runs, ablation)
    figure, axes = plt.subplots(1, len(metrics), figsize=(12, 1.6 + 0.4 * max(3, len(runs))), sharey=True)
    draw_panels(axes, metrics, lambda metric, ax: _plot_settings(table, metric, ax), table["value"].notna().any())
    figure.tight_layout()
    return figure, table


def _plot_settings(table: pd.DataFrame, metric: str, ax: plt.Axes) -> None:
    """What each setting changes in one metric, a row a setting; filled where the interval leaves out 0."""
    record, rows = METRICS[metric], table[table["metric"] == metric]
    usual, others = rows.iloc[0], rows.iloc[1:]
    plot_forest(others, ax, "setting", styles={"": (NEUTRAL, "o", 0.0)}, scale=record.scale,
                matters=MATTERS.get(metric, 0.0))  # fmt: skip
    ax.set_title(f"{record.label} ({usual['setting']}: {error_number(usual['absolute'], record.in_years)})")
    ax.set_xlabel(f"change ({record.change_unit})\n← worse      better →")


def ablation_table(ablations: dict[str, list[Run]], name: str, title: str) -> str:
    """A row a setting: each metric, and by how much it is better than with the usual setting, which comes first."""
    table = setting_table(ablations.get(name, []), name)
    cells = []
    for setting, rows in table.groupby("setting", sort=False):
        found = [setting]
        for _, row in rows.iterrows():
            years = METRICS[row["metric"]].in_years
            value = error_number(row["absolute"], years)
            found.append(value if np.isnan(row["value"]) else f"{value} ({error_cell(row, years, '+')})")
        cells.append(found)
    return markdown_table([title, *(METRICS[metric].title for metric in table["metric"].unique())], cells)

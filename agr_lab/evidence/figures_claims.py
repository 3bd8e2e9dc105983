"""Figures of the claims: multi-task or not, bias, architectures, calibration, ablations, noise of the labels."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence import plots_claims
from agr_lab.evidence.architectures.architectures import COSTS, cost_table, pair_differences
from agr_lab.evidence.multitask.ablations import setting_table, watched_history
from agr_lab.evidence.multitask.multitask import (
    COMPARISONS,
    gap_differences,
    mean_multitask_differences,
    multitask_differences,
)
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.evidence.register import Register
from agr_utils.measure import plots
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.calibration import coverage_table, reliability
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.fairness import ERRORS, group_intervals
from agr_utils.measure.metrics import summarize
from agr_utils.measure.noise import noise_floor, twin_differences
from agr_utils.measure.results import Run, describe_machine, read_ablations, read_published, read_runs
from agr_utils.models.backbones import BACKBONES, get_backbone
from agr_utils.tasks import get_scheme

FIGURES = Register()
ABLATION_NOTE = (
    "One training each. Filled: the 95 % interval leaves out 0, uncorrected for the number of comparisons. "
    "Grey: too small to matter."
)

NOTHING = "no finished runs yet"


def draw_panels(axes: Iterable[plt.Axes], names: Iterable[str], draw: Callable[[str, plt.Axes], object] | None) -> None:
    """One panel a name; without anything to draw they say so."""
    for ax, name in zip(axes, names, strict=True):
        if draw:
            draw(name, ax)
        else:
            plots_claims.draw_nothing(ax, NOTHING)


def legend_below(drawn: plt.Figure, ax: plt.Axes, num_columns: int = 5) -> None:
    """One legend for all axes of a figure, below them."""
    handles, labels = ax.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=num_columns, frameon=False)


@FIGURES.add(
    "multitask",
    "C1: does multi-task learning improve each task? Filled: holds after correction",
    read_evidence,
    "Test split, one network with three heads against three with one. Filled: Holm-corrected p below 0.05 and all "
    "seeds on the same side; ticks under a mark are its single seeds. Grey: too small to matter. The mean of all is "
    "not tested.",
)
def draw_multitask(evidence: Evidence) -> plt.Figure:
    """Differences between multi-task and single-task models, by architecture."""
    tables = {name: multitask_differences(evidence, name) for name in COMPARISONS}
    tables = {name: table for name, table in tables.items() if len(table)}
    drawn, axes = plt.subplots(1, 3, figsize=(12, 4.6), sharey=True)
    means = {name: mean_multitask_differences(evidence, name) for name in tables}
    draw_panels(axes, MATTERS, partial(plots_claims.plot_multitask, tables, means) if tables else None)
    drawn.tight_layout()
    legend_below(drawn, axes[0])
    return drawn


@FIGURES.add(
    "gaps",
    "C2: does multi-task learning narrow the gaps between groups? Grey: too small to matter",
    read_evidence,
    "Test split, mean over the architectures. A gap is the largest minus the smallest error of the labelled groups. "
    "Filled: Holm-corrected p below 0.05. Grey: a tenth of the single-task models' gap.",
)
def draw_gaps(evidence: Evidence) -> plt.Figure:
    """Change of the gaps between groups, on average over the architectures."""
    tables = {name: gap_differences(evidence, name) for name in ("a", "b")}
    tables = {name: table for name, table in tables.items() if len(table)}
    drawn, axes = plt.subplots(2, 2, figsize=(10, 7), sharey=True)
    draw_panels(axes.flat, ERRORS, partial(plots_claims.plot_gaps, tables) if tables else None)
    drawn.tight_layout()
    legend_below(drawn, axes[0, 0])
    return drawn


@FIGURES.add(
    "group_errors", "Who is served worse: errors by labelled group, test split; in brackets the number of faces"
)
def draw_group_errors(runs: list[Run]) -> plt.Figure:
    """Errors of the published runs by race, gender and age band."""
    drawn, axes = plt.subplots(3, 3, figsize=(12, 13), sharey="row", height_ratios=(5, 2, 9))
    scheme, splits = get_scheme("utkface"), {run.title: run.split("test") for run in runs}
    bootstraps = {title: GroupBootstrap(groups) for title, (_, groups) in splits.items()}
    for row, grouping in zip(axes, ("race", "gender", "age band"), strict=True):
        tables = {
            title: group_intervals(table, scheme, grouping, bootstraps[title]) for title, (table, _) in splits.items()
        }
        errors = ("age_signed", "gender_error", "race_error")
        draw_panels(row, errors, partial(plots_claims.plot_group_errors, tables) if tables else None)
    drawn.tight_layout()
    legend_below(drawn, axes[0, 0])
    return drawn


@FIGURES.add(
    "pairs",
    "C3: every two architectures at equal computing time. Filled: holds after correction",
    read_evidence,
    "Test split. The colour is that of the better one. Filled: Holm-corrected p below 0.05 and all seeds on the same "
    "side. Grey: too small to matter.",
)
def draw_pairs(evidence: Evidence) -> plt.Figure:
    """Differences between architectures."""
    pairs = pair_differences(evidence)
    drawn, axes = plt.subplots(1, 3, figsize=(12, 4.8), sharey=True)
    draw_panels(axes, MATTERS, partial(plots_claims.plot_pairs, pairs) if len(pairs) else None)
    drawn.tight_layout()
    return drawn


@FIGURES.add("pareto", "C3: age error against what it costs; filled: no other is better at no more cost", read_evidence)
def draw_pareto(evidence: Evidence) -> plt.Figure:
    """MAE against four costs, with the Pareto fronts."""
    costs = cost_table(evidence)
    drawn, axes = plt.subplots(2, 2, figsize=(9, 7), sharey=True)
    for ax, cost in zip(axes.flat, COSTS, strict=True):
        if len(costs) and costs[cost].notna().all():
            plots_claims.plot_pareto(costs, cost, "age_mae", ax)
        else:
            plots_claims.draw_nothing(ax, f"{COSTS[cost][0]}: not measured yet")
    drawn.tight_layout()
    if len(costs):
        legend_below(drawn, axes[0, 0], 3)
    if "latency" in evidence.bench:
        drawn.supxlabel(describe_machine(evidence.bench["latency"]), fontsize=10, color=plots.NEUTRAL, y=-0.12)
    return drawn


@FIGURES.add("reliability", "Are they as right as they say? Below the line: too sure of themselves")
def draw_reliability(runs: list[Run]) -> plt.Figure:
    """Reliability diagrams of gender and race."""
    drawn, axes = plt.subplots(1, 2, figsize=(9.5, 4.4))
    for ax, task in zip(axes, ("gender", "race"), strict=True):
        plots_claims.plot_reliability({run.title: reliability(run.split("test")[0], task) for run in runs}, ax)
        ax.set_title(task)
    drawn.tight_layout()
    legend_below(drawn, axes[0], 3)
    return drawn


@FIGURES.add(
    "coverage",
    "Does MobileNetV3's 90 % age interval hold 90 % of the ages of each group?",
    note="Test split; in brackets the number of faces, on the right half the mean width of the interval.",
)
def draw_coverage(runs: list[Run]) -> plt.Figure:
    """Coverage of the conformal age interval by group."""
    drawn, axes = plt.subplots(3, 1, figsize=(7.5, 8.5), height_ratios=(2, 5, 9), sharex=True)
    chosen = [run for run in runs if run.backbone == "mobilenet_v3"]
    for ax, grouping in zip(axes, ("gender", "race", "age band"), strict=True):
        if chosen:
            table, groups = chosen[0].split("test")
            by_group = coverage_table(table, get_scheme("utkface"), grouping, GroupBootstrap(groups))
            plots_claims.plot_coverage(by_group, ax)
        else:
            plots_claims.draw_nothing(ax, NOTHING)
    for ax in axes[:-1]:
        ax.set_xlabel("")
    drawn.tight_layout()
    return drawn


def _draw_ablation(runs: list[Run], ablation: str, metrics: Sequence[str]) -> plt.Figure:
    table = setting_table(runs, ablation)
    drawn, axes = plt.subplots(1, len(metrics), figsize=(12, 1.6 + 0.4 * max(3, len(runs))), sharey=True)
    draw_panels(axes, metrics, partial(plots_claims.plot_settings, table) if table["value"].notna().any() else None)
    drawn.tight_layout()
    return drawn


@FIGURES.add(
    "balancing", "Weights of the tasks: MobileNetV3, short runs, validation split", read_ablations, ABLATION_NOTE
)
def draw_balancing(ablations: dict[str, list[Run]]) -> plt.Figure:
    """A sweep of weights and learned ones against equal ones."""
    return _draw_ablation(ablations.get("balancing", []), "balancing", tuple(MATTERS))


@FIGURES.add(
    "age_heads",
    "Ways to ask for an age: custom CNN, age alone, short runs, validation split",
    read_ablations,
    ABLATION_NOTE,
)
def draw_age_heads(ablations: dict[str, list[Run]]) -> plt.Figure:
    """Three formulations of the age against the distribution."""
    return _draw_ablation(ablations.get("age_heads", []), "age_heads", ("age_mae", "age_cs5"))


@FIGURES.add(
    "conflict", "Do the tasks pull the backbone apart? MobileNetV3, equal weights, while it trains", read_ablations
)
def draw_conflict(ablations: dict[str, list[Run]]) -> plt.Figure:
    """Cosines between the tasks' gradients."""
    drawn, axes = plt.subplots(1, 2, figsize=(9.5, 4.4))
    history = watched_history(ablations.get("balancing", []))
    if history is None:
        for ax in axes:
            plots_claims.draw_nothing(ax, NOTHING)
    else:
        plots_claims.plot_cosines(history, axes)
    drawn.tight_layout()
    return drawn


def read_published_and_runs(results_dir: Path) -> tuple[list[Run], pd.DataFrame]:
    """The published runs, and what others published."""
    path = results_dir / "published.csv"
    return read_runs(results_dir), read_published(path) if path.exists() else pd.DataFrame()


@FIGURES.add(
    "noise_floor",
    "What the labels allow: age errors of each protocol by itself, and the floor that near-duplicates set",
    read_published_and_runs,
)
def draw_noise_floor(given: tuple[list[Run], pd.DataFrame]) -> plt.Figure:
    """Our runs and published numbers, a panel a protocol, against the noise of the labels."""
    runs, published = given
    ours = {run.title: summarize(*run.split("test"), num_resamples=2_000).loc["age_mae"] for run in runs}
    protocols = list(published.groupby("protocol", sort=False)) if len(published) else []
    heights = [len(ours) or 1, *(len(rows) for _, rows in protocols)]
    drawn, axes = plt.subplots(
        len(heights), 1, figsize=(8, 1.5 + 0.55 * sum(heights)), sharex=True, height_ratios=heights, squeeze=False
    )
    floor = noise_floor(twin_differences())["age_mae"]
    panels = [("this project: grouped 70/10/20 split, from scratch, 64 px", ours)]
    panels += [(protocol, plots_claims.published_rows(rows)) for protocol, rows in protocols]
    for ax, (title, rows) in zip(axes[:, 0], panels, strict=True):
        plots_claims.plot_against_floor(rows, floor, title, ax)
    axes[-1, 0].set_xlabel("MAE of the age (years), less is better")
    drawn.tight_layout()
    return drawn


@FIGURES.add("seeds", "How far seeds differ: test results of single trainings, with three tasks", read_evidence)
def draw_seeds(evidence: Evidence) -> plt.Figure:
    """Each seed of the architectures that have several."""
    rows = []
    for run in evidence.runs:
        if len(run.tasks) > 1 and run.length != "equal":
            value = summarize(*run.split("test"), num_resamples=200)["value"]
            rows.append({"title": run.title, "length": run.length, "seed": run.seed} | value.to_dict())
    table = pd.DataFrame(rows)
    if len(table):
        order = {get_backbone(name).title: number for number, name in enumerate(BACKBONES)}
        table = table.assign(rank=table["title"].map(order)).sort_values(["rank", "length", "seed"])
    drawn, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    draw_panels(axes, MATTERS, partial(plots_claims.plot_seeds, table) if len(table) else None)
    drawn.tight_layout()
    return drawn

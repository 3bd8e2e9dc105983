"""C1, figure ``multitask``: one model with three heads against three with one, of one backbone (docs/protocol.md)."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import called_cells, markdown_table
from agr_lab.evidence.panels import draw_forests
from agr_lab.evidence.reading import Evidence, Measure, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.comparisons import MATTERS, cache_copies, call_improvements, improvements, mean_frame
from agr_utils.measure.forest import Style
from agr_utils.measure.metrics import METRICS, score_rows
from agr_utils.measure.plots import NEUTRAL
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES, get_backbone
from agr_utils.tasks import TASKS

# name -> (title, length of the multi-task runs, of the single-task runs)
COMPARISONS = {
    "a": ("equal epochs", "short", "short"),
    "b": ("equal total compute", "long", "short"),
    "long": ("equal epochs, long runs", "long", "long"),  # reported, not counted
}
MEAN = "mean of all"


def paired_seeds(evidence: Evidence, backbone: str, comparison: str) -> dict[int, tuple[Run, list[Run]]]:
    """For each seed the multi-task run and its three single-task runs; only seeds of which all four are there."""
    _, multi_length, single_length = COMPARISONS[comparison]
    multi = {run.seed: run for run in evidence.select(multi_length, backbone)}
    single = [{run.seed: run for run in evidence.select(single_length, backbone, (task,))} for task in TASKS]
    seeds = sorted(set(multi).intersection(*single))
    return {seed: (multi[seed], [runs[seed] for runs in single]) for seed in seeds}


def paired_scores(
    evidence: Evidence, backbone: str, comparison: str, measure: Measure
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Scores of the multi-task and of the single-task models, a frame a seed, all columns in the same order."""
    pairs = paired_seeds(evidence, backbone, comparison).values()
    multi = evidence.scores([run for run, _ in pairs], measure)
    single = [pd.concat(evidence.scores(runs, measure), axis=1) for _, runs in pairs]
    return multi, [frame[multi[0].columns] for frame in single]


@cache_copies(maxsize=8)
def multitask_differences(evidence: Evidence, comparison: str) -> pd.DataFrame:
    """C1: what multi-task learning changes, by architecture and metric.

    Returns:
        Rows ``backbone, metric, value, low, high, p, matters, seeds, p_holm, call``: above 0 multi-task is better. CS@5
        is there, too, outside the family: without a call.
    """
    parts = []
    for backbone in finished(evidence, comparison):
        multi, single = paired_scores(evidence, backbone, comparison, score_rows)
        parts.append(improvements(evidence.bootstrap, multi, single).assign(backbone=backbone))
    columns = ["backbone", "metric", "value", "low", "high", "p", "matters", "seeds", "p_holm", "call"]
    return call_improvements(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame(columns=columns)


@cache_copies(maxsize=8)
def mean_multitask_differences(evidence: Evidence, comparison: str) -> pd.DataFrame:
    """The same on average over the architectures: rows ``metric, value, low, high``."""
    columns = ["metric", "value", "low", "high"]
    pairs = [paired_scores(evidence, name, comparison, score_rows) for name in finished(evidence, comparison)]
    if not pairs:
        return pd.DataFrame(columns=columns)
    multi, single = ([mean_frame(frames) for frames in side] for side in zip(*pairs, strict=True))
    return improvements(evidence.bootstrap, multi, single)[columns]


def finished(evidence: Evidence, comparison: str) -> Iterator[str]:
    """Architectures of which a whole pair is there."""
    return (name for name in BACKBONES if paired_seeds(evidence, name, comparison))


def comparison_title(comparison: str) -> str:
    """Name of a comparison for readers: ``a`` to ``(a) equal epochs``."""
    return f"({comparison}) {COMPARISONS[comparison][0]}"


# How each comparison is drawn, by its title.
STYLES: dict[str, Style] = {
    comparison_title("a"): ("#0072B2", "o", -0.16),
    comparison_title("b"): ("#D55E00", "s", 0.16),
    comparison_title("long"): (NEUTRAL, "D", 0.0),
}


def multitask_rows(evidence: Evidence) -> pd.DataFrame:
    """Both tables of every comparison, with columns ``comparison`` and ``architecture`` (titles); the means last."""
    tables, means = [], []
    for name in COMPARISONS:
        table = multitask_differences(evidence, name)
        if len(table):
            titles = table["backbone"].map(lambda backbone: get_backbone(backbone).title)
            tables.append(table.assign(comparison=comparison_title(name), architecture=titles))
            mean = mean_multitask_differences(evidence, name)  # of no family, so not corrected
            means.append(mean.assign(comparison=comparison_title(name), architecture=MEAN, call=""))
    if not tables:
        return pd.DataFrame()
    columns = ["comparison", "architecture", "metric", "value", "low", "high", "p", "p_holm", "matters", "call",
               "seeds"]  # fmt: skip
    return pd.concat([*tables, *means], ignore_index=True)[columns]


@FIGURES.add(
    "multitask",
    "C1: does multi-task learning improve each task? Filled: holds after correction",
    read_evidence,
    "Test split, one network with three heads against three with one. Filled: Holm-corrected p below 0.05 and all "
    "seeds on the same side; ticks under a mark are its single seeds. Grey: too small to matter. The mean of all is "
    "not tested.",
)
def draw_multitask(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Differences between multi-task and single-task models, by architecture."""
    table = multitask_rows(evidence)
    columns = ("metric", "architecture", "comparison")
    label = "change ({unit})\n← worse      better →"
    figure = draw_forests(table, list(MATTERS), columns, label, 4.6, styles=STYLES, margin=0.6, seeds=True)
    for ax in figure.axes if len(table) else ():
        ax.axhline(table["architecture"].nunique() - 1.5, color=NEUTRAL, lw=0.5)
    return figure, table


def multitask_table(evidence: Evidence) -> str:
    """C1: a row per architecture and comparison, by how much each metric is better with three heads, and the call."""
    cells = []
    for comparison, (title, *_) in COMPARISONS.items():
        for backbone, rows in multitask_differences(evidence, comparison).groupby("backbone", sort=False):
            rows = rows.set_index("metric")
            where = comparison_title(comparison) if comparison in ("a", "b") else title
            name, seeds = get_backbone(backbone).title, len(rows["seeds"].iloc[0])
            cells.append([where, name, seeds, *called_cells(rows, METRICS)])
    titles = [metric.title for metric in METRICS.values()]
    return markdown_table(["Compared at", "Architecture", "Seeds", *titles], cells)

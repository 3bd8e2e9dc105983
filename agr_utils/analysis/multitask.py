"""C1 and C2: one model with three heads against three models with one, of the same backbone (docs/protocol.md)."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd

from agr_utils.analysis.bootstrap import interval
from agr_utils.analysis.comparisons import Evidence, Measure, add_calls, mean_frame, mean_of_columns
from agr_utils.analysis.fairness import ERRORS, GROUPINGS, error_rows, gaps, sample_groups, worst
from agr_utils.analysis.metrics import improvement_signs, score_rows
from agr_utils.analysis.results import Run
from agr_utils.models.backbones import BACKBONES
from agr_utils.tasks import TASKS, get_scheme

# name -> (title, length of the multi-task runs, of the single-task runs)
COMPARISONS = {
    "a": ("equal epochs", "short", "short"),
    "b": ("equal total compute", "long", "short"),
    "long": ("equal epochs, long runs", "long", "long"),  # reported, not counted
}
# The smallest difference that matters, of the metrics that the claim is decided on.
MATTERS = {"age_mae": 0.1, "gender_accuracy": 0.005, "race_accuracy": 0.005}
GAP_MATTERS = 0.1  # share of the single-task models' gap


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


@lru_cache(maxsize=8)
def multitask_differences(evidence: Evidence, comparison: str) -> pd.DataFrame:
    """C1: what multi-task learning changes, by architecture and metric.

    Returns:
        Rows ``backbone, metric, value, low, high, p, matters, seeds, p_holm, call``: above 0 multi-task is better. CS@5
        is there, too, outside the family: without a call.
    """
    parts = []
    for backbone in _finished(evidence, comparison):
        multi, single = paired_scores(evidence, backbone, comparison, score_rows)
        sign = improvement_signs(multi[0])
        means = mean_of_columns(evidence.bootstrap, [mean_frame(multi), mean_frame(single)])
        table = interval(sign * (means[:, 0] - means[:, 1]))
        seeds = [sign * (first.mean() - second.mean()).to_numpy() for first, second in zip(multi, single, strict=True)]
        table = table.assign(backbone=backbone, metric=list(multi[0]), seeds=list(map(tuple, np.transpose(seeds))))
        parts.append(table)
    return _call_counted(parts)


@lru_cache(maxsize=8)
def mean_multitask_differences(evidence: Evidence, comparison: str) -> pd.DataFrame:
    """The same on average over the architectures: rows ``metric, value, low, high``."""
    differences, names = [], []
    for backbone in _finished(evidence, comparison):
        multi, single = paired_scores(evidence, backbone, comparison, score_rows)
        names = list(multi[0])
        differences.append(improvement_signs(names) * (mean_frame(multi) - mean_frame(single)))
    if not differences:
        return pd.DataFrame(columns=["metric", "value", "low", "high"])
    samples = mean_of_columns(evidence.bootstrap, [mean_frame(differences)])[:, 0]
    return interval(samples).drop(columns="p").assign(metric=names)


def _call_counted(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the parts together and call those that count."""
    if not parts:
        columns = ["backbone", "metric", "value", "low", "high", "p", "matters", "seeds", "p_holm", "call"]
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    table["matters"] = table["metric"].map(MATTERS)
    counts = table["matters"].notna()
    return pd.concat([add_calls(table[counts]), table[~counts].assign(call="")]).sort_index()


def _finished(evidence: Evidence, comparison: str) -> Iterator[str]:
    """Architectures of which a whole pair is there."""
    return (name for name in BACKBONES if paired_seeds(evidence, name, comparison))


@lru_cache(maxsize=8)
def gap_differences(evidence: Evidence, comparison: str) -> pd.DataFrame:
    """C2: what multi-task learning does to gaps between groups, on average over the architectures.

    Returns:
        16 rows ``error, grouping, value, low, high, p, matters, seeds, p_holm, call``: above 0 multi-task has the
        smaller gap. ``multi`` and ``single``: the mean gaps; ``worst, worst_low, worst_high``: by how much the worst
        group's error falls; ``backbones``: the difference of each architecture. No rows where no pair is finished.
    """
    rows = []
    backbones = list(_finished(evidence, comparison))
    if not backbones:
        return pd.DataFrame()
    frames = [
        [mean_frame(side) for side in paired_scores(evidence, name, comparison, error_rows)] for name in backbones
    ]
    flat = [frame for pair in frames for frame in pair]
    scheme = get_scheme("utkface")
    for grouping in GROUPINGS:
        samples, _ = sample_groups(evidence.bootstrap, flat, evidence.faces, scheme, grouping)
        by_model = samples.reshape(len(samples), len(backbones), 2, *samples.shape[2:])  # (R + 1, b, 2, errors, groups)
        gap, worst_group = gaps(by_model), worst(by_model)
        for number, error in enumerate(flat[0]):
            gap_change = gap[:, :, 1, number] - gap[:, :, 0, number]  # (R + 1, b): single minus multi
            worst_change = worst_group[:, :, 1, number] - worst_group[:, :, 0, number]
            both = interval(np.stack([gap_change.mean(axis=1), worst_change.mean(axis=1)], axis=1))
            row, fall = both.iloc[0].to_dict(), both.iloc[1]
            row |= {"error": error, "grouping": grouping, "seeds": (row["value"],)}
            row["multi"], row["single"] = gap[0, :, :, number].mean(axis=0)
            row["matters"] = GAP_MATTERS * row["single"]
            row |= {"worst": fall["value"], "worst_low": fall["low"], "worst_high": fall["high"]}
            rows.append(row | {"backbones": dict(zip(backbones, gap_change[0], strict=True))})
    order = {name: number for number, name in enumerate(ERRORS)}
    table = pd.DataFrame(rows).sort_values("error", key=lambda names: names.map(order), kind="stable")
    return add_calls(table.reset_index(drop=True))

"""C1 and C2: one model with three heads against three models with one, of the same backbone (docs/protocol.md)."""

from collections.abc import Iterator, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from agr_lab.evidence.reading import Evidence, Measure
from agr_utils.measure.bootstrap import basic_interval, interval
from agr_utils.measure.comparisons import MATTERS, add_calls, cache_copies, mean_frame, mean_of_columns
from agr_utils.measure.fairness import ERRORS, GROUPINGS, error_rows, gaps, sample_groups, worst
from agr_utils.measure.metrics import improvement_signs, score_rows
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES
from agr_utils.tasks import TASKS, get_scheme

# name -> (title, length of the multi-task runs, of the single-task runs)
COMPARISONS = {
    "a": ("equal epochs", "short", "short"),
    "b": ("equal total compute", "long", "short"),
    "long": ("equal epochs, long runs", "long", "long"),  # reported, not counted
}
SIDES = {"multi": 0, "single": 1}  # positions along the axis of the two sides
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


@cache_copies(maxsize=8)
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


@cache_copies(maxsize=8)
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


@cache_copies(maxsize=8)
def gap_differences(evidence: Evidence, comparison: str) -> pd.DataFrame:
    """C2: what multi-task learning does to gaps between groups, on average over the architectures.

    Returns:
        16 rows as of ``gap_changes``, with ``p_holm, call``. No rows where no pair is finished.
    """
    table = gap_changes(evidence, comparison, GROUPINGS)
    return add_calls(table.assign(seeds=[(value,) for value in table["value"]])) if len(table) else table


def gap_changes(evidence: Evidence, comparison: str, groupings: Sequence[str]) -> pd.DataFrame:
    """Gaps of one model with three heads against those of three models with one.

    Each training has its own gap, and these are averaged over seeds, then over architectures: a gap of averaged errors
    would be narrower the more seeds there are.

    Args:
        evidence: the runs.
        comparison: a key of COMPARISONS.
        groupings: see ``fairness.group_table``.

    Returns:
        A row an error and grouping: ``error, grouping, value, low, high, p, matters``: above 0 multi-task has the
        smaller gap. ``multi`` and ``single``: the mean gaps. ``basic, basic_low, basic_high``: see ``basic_interval``.
        ``worst…`` and ``overall…``: by how much the error of the worst group, and of all faces, lies nearer to 0.
        ``backbones``: the difference of each architecture.
    """
    backbones = list(_finished(evidence, comparison))
    if not backbones:
        return pd.DataFrame()
    paired = [paired_scores(evidence, name, comparison, error_rows) for name in backbones]
    frames = [frame for side in SIDES.values() for both in paired for frame in both[side]]
    owners = np.repeat(np.arange(len(backbones)), [len(multi) for multi, _ in paired])  # of each pair
    shares = (owners == np.arange(len(backbones))[:, None]).astype(float)
    shares /= shares.sum(axis=1, keepdims=True)  # (b, pairs): a mean over the pairs of an architecture

    def by_side(values: np.ndarray) -> np.ndarray:
        """(R + 1, frames, errors) to (R + 1, sides, pairs, errors)."""
        return values.reshape(len(values), 2, len(owners), -1)

    def by_backbone(values: np.ndarray) -> np.ndarray:
        """(R + 1, sides, pairs, errors) to single minus multi: (R + 1, b, errors)."""
        return np.einsum("bp,rpe->rbe", shares, values[:, SIDES["single"]] - values[:, SIDES["multi"]])

    overall = by_backbone(by_side(np.abs(mean_of_columns(evidence.bootstrap, frames))))
    scheme, rows = get_scheme("utkface"), []
    for grouping in groupings:
        samples, _ = sample_groups(evidence.bootstrap, frames, evidence.faces, scheme, grouping)
        gap = by_side(gaps(samples))
        changes = {"": by_backbone(gap), "worst": by_backbone(by_side(worst(samples))), "overall": overall}
        means = {name: change.mean(axis=1) for name, change in changes.items()}  # (R + 1, errors)
        tables = {name: interval(mean) for name, mean in means.items()} | {"basic": basic_interval(means[""])}
        for number, error in enumerate(frames[0]):
            row = {"error": error, "grouping": grouping} | tables[""].iloc[number].to_dict()
            for name in ("basic", "worst", "overall"):
                value, low, high = tables[name].loc[number, ["value", "low", "high"]]
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            row |= {name: (shares @ gap[0, side, :, number]).mean() for name, side in SIDES.items()}
            row["matters"] = GAP_MATTERS * row["single"]
            row["backbones"] = MappingProxyType(dict(zip(backbones, changes[""][0, :, number], strict=True)))
            rows.append(row)
    order = {name: number for number, name in enumerate(ERRORS)}
    table = pd.DataFrame(rows).sort_values("error", key=lambda names: names.map(order), kind="stable")
    return table.reset_index(drop=True)

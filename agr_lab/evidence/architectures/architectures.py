"""C3: five architectures against each other, in accuracy and in what they cost (docs/protocol.md)."""

from itertools import combinations

import numpy as np
import pandas as pd

from agr_lab.evidence.reading import Evidence
from agr_utils.measure.bootstrap import interval
from agr_utils.measure.comparisons import MATTERS, add_calls, cache_copies, mean_frame, mean_of_columns
from agr_utils.measure.metrics import METRICS, improvement_signs, score_rows
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES

NEWER, OLDER = ("mobilenet_v3", "efficientnet_b3"), ("custom_cnn", "mobilenet_v2")

# column -> (title, unit, how many of the measured unit it is); less is better
COSTS = {
    "parameters": ("Parameters", "millions", 1e6),
    "macs": ("MACs", "millions", 1e6),
    "latency": ("Latency of one image, one thread", "ms", 1e-3),
    "epoch_seconds": ("Training time", "seconds an epoch", 1.0),
}


def runs_of(evidence: Evidence, length: str) -> dict[str, list[Run]]:
    """Multi-task runs of each architecture that has any, one a seed."""
    runs = {name: evidence.select(length, name) for name in BACKBONES}
    return {name: chosen for name, chosen in runs.items() if chosen}


@cache_copies(maxsize=4)
def pair_differences(evidence: Evidence, length: str = "long") -> pd.DataFrame:
    """Every two architectures: rows ``first, second, metric, value, low, high, p, matters, seeds, p_holm, call``.

    Above 0 the first is better.
    """
    runs = runs_of(evidence, length)
    if len(runs) < 2:
        return pd.DataFrame()
    metrics = list(MATTERS)
    scores = {name: [frame[metrics] for frame in evidence.scores(chosen, score_rows)] for name, chosen in runs.items()}
    by_run = mean_of_columns(evidence.bootstrap, [mean_frame(frames) for frames in scores.values()])
    means = dict(zip(runs, np.moveaxis(by_run, 1, 0), strict=True))
    sign = improvement_signs(metrics)
    single = {name: [frame.mean().to_numpy() for frame in frames] for name, frames in scores.items()}
    parts = []
    for first, second in combinations(runs, 2):
        table = interval(sign * (means[first] - means[second]))
        seeds = [sign * (one - other) for one in single[first] for other in single[second]]
        seeds = list(map(tuple, np.transpose(seeds)))
        parts.append(table.assign(first=first, second=second, metric=metrics, seeds=seeds))
    table = pd.concat(parts, ignore_index=True)
    return add_calls(table.assign(matters=table["metric"].map(MATTERS)))


def against(pairs: pd.DataFrame, name: str, other: str) -> pd.Series:
    """What one architecture is called against another: metric to call."""
    turned = {"better": "worse", "worse": "better"}
    straight = pairs[(pairs["first"] == name) & (pairs["second"] == other)].set_index("metric")["call"]
    back = pairs[(pairs["first"] == other) & (pairs["second"] == name)].set_index("metric")["call"]
    return straight if len(straight) else back.replace(turned)


def cost_table(evidence: Evidence, length: str = "long") -> pd.DataFrame:
    """What each architecture costs, and its test results.

    Returns:
        One row an architecture (index: its name): the columns of COSTS in seconds and counts, NaN for what
        ``agr bench`` has not measured, and the metrics.
    """
    rows, bench = {}, evidence.bench
    for name, runs in runs_of(evidence, length).items():
        about = runs[0].about
        rows[name] = {"parameters": about["parameters"], "macs": about["macs"]}
        rows[name]["latency"] = _look_up(bench.get("latency"), name, "seconds", batch_size=1)
        speed = _look_up(bench.get("training"), name, "images_per_second", image_size=64)
        rows[name]["epoch_seconds"] = about["num_train"] / speed
        rows[name] |= evidence.mean_scores(runs, score_rows).mean().to_dict()
    return pd.DataFrame.from_dict(rows, orient="index")


def _look_up(table: pd.DataFrame | None, backbone: str, column: str, **where: int) -> float:
    """A measured value; NaN where it was not measured."""
    if table is None:
        return float("nan")
    chosen = table[table["backbone"] == backbone]
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    return float(chosen[column].iloc[0]) if len(chosen) else float("nan")


def on_front(costs: pd.Series, values: pd.Series, more_is_better: bool) -> pd.Series:
    """Whether each is on the Pareto front: no other costs less or as much and scores better. (n,) bool."""
    scores = values if more_is_better else -values
    return pd.Series(
        {name: not ((costs <= costs[name]) & (scores > scores[name])).drop(name).any() for name in costs.index}
    )


def front_table(costs: pd.DataFrame) -> pd.DataFrame:
    """Which architectures are on which front: rows (cost, metric), a bool column an architecture."""
    rows = {}
    for cost in COSTS:
        for metric in MATTERS:
            if costs[cost].notna().all():
                rows[(cost, metric)] = on_front(costs[cost], costs[metric], METRICS[metric].higher_is_better)
    return pd.DataFrame(rows).T

"""C3 in efficiency and figure ``pareto``: accuracy against what it costs (docs/protocol.md)."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from agr_lab.evidence.architectures.pairs import runs_of
from agr_lab.evidence.panels import draw_nothing, lay_out
from agr_lab.evidence.reading import Evidence, machine_title, measured, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.metrics import METRICS, score_rows
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import get_backbone

# column -> (title, unit, how many of the measured unit it is); less is better
COSTS = {
    "parameters": ("Parameters", "millions", 1e6),
    "macs": ("MACs", "millions", 1e6),
    "latency": ("Latency of one image, one thread", "ms", 1e-3),
    "epoch_seconds": ("Training time", "seconds per epoch", 1.0),
}


def cost_table(evidence: Evidence, length: str = "long") -> pd.DataFrame:
    """What each architecture costs, and its test results.

    Returns:
        One row per architecture (index: its name): the columns of COSTS in seconds and counts, NaN for what
        ``agr bench`` has not measured, and the metrics.
    """
    latency = measured(evidence.bench.get("latency"), "seconds", batch_size=1)
    speed = measured(evidence.bench.get("training"), "images_per_second", image_size=64)
    rows, unknown = {}, float("nan")
    for name, runs in runs_of(evidence, length).items():
        about = runs[0].about
        rows[name] = {"parameters": about["parameters"], "macs": about["macs"]}
        rows[name]["latency"] = latency.get(name, unknown)
        rows[name]["epoch_seconds"] = about["num_train"] / speed.get(name, unknown)
        rows[name] |= evidence.mean_scores(runs, score_rows).mean().to_dict()
    return pd.DataFrame.from_dict(rows, orient="index")


def on_front(costs: pd.Series, values: pd.Series, more_is_better: bool) -> pd.Series:
    """Whether each is on the Pareto front: no other costs less or as much and scores better. (n,) bool."""
    scores = values if more_is_better else -values
    return pd.Series(
        {name: not ((costs <= costs[name]) & (scores > scores[name])).drop(name).any() for name in costs.index}
    )


def front_table(costs: pd.DataFrame) -> pd.DataFrame:
    """Which architectures are on which front: rows (cost, metric), a bool column per architecture."""
    rows = {}
    for cost in COSTS:
        for metric in MATTERS:
            if costs[cost].notna().all():
                rows[(cost, metric)] = on_front(costs[cost], costs[metric], METRICS[metric].higher_is_better)
    return pd.DataFrame(rows).T


@FIGURES.add("pareto", "C3: age error against what it costs; filled: no other is better at no more cost", read_evidence)
def draw_pareto(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """MAE against four costs, with the Pareto fronts."""
    costs = cost_table(evidence)
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharey=True)
    table = costs.rename(lambda name: get_backbone(name).title).rename_axis("architecture")
    for ax, cost in zip(axes.flat, COSTS, strict=True):
        if len(costs) and costs[cost].notna().all():
            _plot_pareto(table, cost, "age_mae", ax)
            table[f"{cost}_front"] = on_front(table[cost], table["age_mae"], more_is_better=False)
        else:
            draw_nothing(ax, f"{COSTS[cost][0]}: not measured yet")
    lay_out(figure, 3)
    if "latency" in evidence.bench:
        figure.supxlabel(machine_title(evidence.bench["latency"]), fontsize=10, color=NEUTRAL, y=-0.12)
    return figure, table.reset_index().astype({name: int for name in ("parameters", "macs") if len(costs)})


def _plot_pareto(costs: pd.DataFrame, cost: str, metric: str, ax: plt.Axes) -> None:
    """A metric against a cost, and the line of those that no other beats at no more cost."""
    title, unit, divisor = COSTS[cost]
    record = METRICS[metric]
    x, y = costs[cost] / divisor, record.scale * costs[metric]
    best = on_front(x, y, record.higher_is_better)
    order = x[best].sort_values().index
    ax.step(x[order], y[order], where="post", color=NEUTRAL, lw=1.5, zorder=1)
    for name in costs.index:
        face = COLOURS[name] if best[name] else "white"
        ax.plot(x[name], y[name], MARKERS[name], color=COLOURS[name], mfc=face, mew=1.8, ms=9, label=name, ls="")
    ax.set_xscale("log")
    wide = x.max() > 6 * x.min()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"{title} ({unit})")
    ax.set_ylabel(record.title)

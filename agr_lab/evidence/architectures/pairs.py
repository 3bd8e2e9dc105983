"""C3 in accuracy and figure ``pairs``: every two architectures against each other (docs/protocol.md)."""

from itertools import combinations, product

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.panels import draw_forests
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.comparisons import MATTERS, cache_copies, call_improvements, improvements
from agr_utils.measure.metrics import score_rows
from agr_utils.measure.plots import COLOURS
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES, get_backbone

NEWER, OLDER = ("mobilenet_v3", "efficientnet_b3"), ("custom_cnn", "mobilenet_v2")


def runs_of(evidence: Evidence, length: str) -> dict[str, list[Run]]:
    """Multi-task runs of each architecture that has any, one per seed."""
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
    metrics, parts = list(MATTERS), []
    scores = {name: [frame[metrics] for frame in evidence.scores(chosen, score_rows)] for name, chosen in runs.items()}
    for first, second in combinations(runs, 2):
        trainings = list(product(range(len(runs[first])), range(len(runs[second]))))
        table = improvements(evidence.bootstrap, scores[first], scores[second], trainings)
        parts.append(table.assign(first=first, second=second))
    return call_improvements(pd.concat(parts, ignore_index=True))


def against(pairs: pd.DataFrame, name: str, other: str) -> pd.Series:
    """What one architecture is called against another: metric to call."""
    turned = {"better": "worse", "worse": "better"}
    straight = pairs[(pairs["first"] == name) & (pairs["second"] == other)].set_index("metric")["call"]
    back = pairs[(pairs["first"] == other) & (pairs["second"] == name)].set_index("metric")["call"]
    return straight if len(straight) else back.replace(turned)


@FIGURES.add(
    "pairs",
    "C3: every two architectures at equal computing time. Filled: holds after correction",
    read_evidence,
    "Test split. The colour is that of the better one. Filled: Holm-corrected p below 0.05 and all seeds on the same "
    "side. Grey: too small to matter.",
)
def draw_pairs(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Differences between architectures."""
    table = pair_differences(evidence)
    if len(table):
        table[["first", "second"]] = table[["first", "second"]].map(lambda name: get_backbone(name).title)
        table["pair"] = table["first"] + " – " + table["second"]
        table["better"] = table["first"].where(table["value"] > 0, table["second"])
        table = table[["first", "second", "pair", "metric", "value", "low", "high", "p", "p_holm", "matters", "call",
                       "better", "seeds"]]  # fmt: skip
    styles = {title: (colour, "o", 0.0) for title, colour in COLOURS.items()}
    label = "difference ({unit})\n← second better      first better →"
    return draw_forests(table, list(MATTERS), ("metric", "pair", "better"), label, 4.8, styles=styles), table

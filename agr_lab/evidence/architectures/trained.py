"""Figure ``trained``: networks that are trained, not begun, each newer one against each other (docs/protocol_2.md)."""

from collections.abc import Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.architectures.pairs import NEWER
from agr_lab.evidence.markdown import called_cells, error_number, markdown_table
from agr_lab.evidence.panels import draw_forests
from agr_lab.evidence.reading import Evidence, devices_of, one_face, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_lab.gpu.protocol import CLAIM_EPOCHS, LENGTHS
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.comparisons import MATTERS, add_calls, cache_copies, mean_of_columns
from agr_utils.measure.forest import spread_styles
from agr_utils.measure.metrics import METRICS, improvement_signs, score_rows
from agr_utils.measure.results import Run
from agr_utils.measure.trainings import difference_of_trainings
from agr_utils.models.backbones import get_backbone

OLDER = ("mobilenet_v2", "resnet18")  # MobileNetV2 of 2018, ResNet-18 of 2015
OWN = "custom_cnn"  # of 2026: a comparison of its own, which decides nothing
TITLES = {"resnet18": "ResNet-18"}

Trainings = dict[str, list[Run]]


def multitask_trainings(evidence: Evidence, epochs: float = CLAIM_EPOCHS, precision: str = "bf16") -> Trainings:
    """Multi-task runs of each architecture of one length and one kind of device, by seed."""
    names = (OWN, "efficientnet_b1", "efficientnet_b3", "mobilenet_v2", "mobilenet_v3", "resnet18")
    found = {name: sorted(evidence.select_trained(name, epochs=epochs, precision=precision).items()) for name in names}
    return {name: [run for _, run in runs] for name, runs in found.items() if runs}


def title_of(name: str) -> str:
    """Name of an architecture for readers."""
    return TITLES.get(name) or get_backbone(name).title


def trained_scores(trainings: Trainings) -> tuple[dict[str, list[pd.DataFrame]], pd.Series]:
    """Scores of each training on the test split, the same faces in the same order, and their clusters."""
    scores, clusters = {}, pd.Series(dtype="Int64")
    for name, runs in trainings.items():
        splits = [run.split("test") for run in runs]
        scores[name] = [score_rows(table)[list(MATTERS)] for table, _ in splits]
        clusters = splits[0][1]
    return scores, clusters


def independence(pairs: Sequence[tuple[str, str]]) -> float:
    """Share of the degrees of freedom that pairs have, of which some have a network and so its trainings in common.

    Satterthwaite's: the squared trace of their differences' covariance over the trace of its square, for each pair.
    """
    signs = np.array([[(name == a) - (name == b) for name in {n for pair in pairs for n in pair}] for a, b in pairs])
    covariance = signs @ signs.T
    return float(np.trace(covariance) ** 2 / (len(pairs) * (covariance**2).sum()))


@cache_copies(maxsize=4)
def trained_differences(evidence: Evidence) -> pd.DataFrame:
    """Each newer architecture against each older one, and beside it against our own.

    Returns:
        Rows ``first, second, metric, value, low, high, p, p_holm, matters, call, trainings``; above 0 the first is
        better. Those against the older ones are one family, those against our own another.
    """
    scores, clusters = trained_scores(multitask_trainings(evidence))
    signs = pd.Series(improvement_signs(MATTERS), index=list(MATTERS))
    parts = []
    for others in (OLDER, (OWN,)):
        pairs = [(a, b) for a, b in product(NEWER, others) if a in scores and b in scores]
        found = {
            f"{a} {b}": [(x - y) * signs for x, y in zip(scores[a], scores[b], strict=False)] for a, b in pairs
        }  # as many as both have
        if not any(len(tables) > 1 for tables in found.values()):
            continue
        table = difference_of_trainings(found, clusters, independence(pairs))
        table[["first", "second"]] = table["name"].str.split(expand=True)
        table["trainings"] = table["name"].map({name: len(tables) for name, tables in found.items()})
        table = table.assign(matters=table["metric"].map(MATTERS), seeds=[()] * len(table))  # counted, not asked
        parts.append(add_calls(table))
    columns = ["first", "second", "metric", "value", "low", "high", "p", "p_holm", "matters", "call", "trainings",
               "faces_error", "trainings_error", "degrees"]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


@FIGURES.add(
    "trained",
    "C3 by the second protocol, so far: the newer architectures against others, 20 epochs at 96 px",
    read_evidence,
    "Test split. Intervals over faces and trainings. Filled: Holm-corrected p below 0.05. Grey: too small to matter.",
)
def draw_trained(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Differences in each task, a row a rival."""
    table = trained_differences(evidence)
    shown = table.assign(
        newer=table["first"].map(title_of), against=("against " + table["second"].map(title_of)).astype("object")
    )
    styles = spread_styles(map(title_of, NEWER), 0.15)
    label = "difference ({unit})\n← newer worse      newer better →"
    return draw_forests(shown, list(MATTERS), ("metric", "against", "newer"), label, 3.4, styles=styles), table


def trained_table(evidence: Evidence) -> str:
    """A row per architecture: mean of its trainings in each task, and how the newer ones differ."""
    table, rows = trained_differences(evidence), []
    for epochs, precision in ((CLAIM_EPOCHS, "bf16"), (LENGTHS[-1], "bf16"), (CLAIM_EPOCHS, "fp32")):
        trainings = multitask_trainings(evidence, epochs, precision)
        scores, _ = trained_scores(trainings)
        for name in sorted(scores, key=lambda name: (name in NEWER, title_of(name))):
            means = sum(frame.mean() for frame in scores[name]) / len(scores[name])
            cells = [error_number(means[metric], METRICS[metric].in_years) for metric in MATTERS]
            macs = f"{trainings[name][0].about['macs'] / 1e6:.0f} M"
            title = title_of(name) + (", on a CPU" if precision == "fp32" else "")
            rows.append([title, epochs, len(scores[name]), macs, *cells])
    means = markdown_table(["Network", "Epochs", "Trainings", "MACs", *(METRICS[m].title for m in MATTERS)], rows)
    rows = []
    for (first, second), found in table.groupby(["first", "second"], sort=False):
        cells = called_cells(found.set_index("metric"), MATTERS)
        rows.append([title_of(first), title_of(second), found["trainings"].iloc[0], *cells])
    titles = ["Newer", "Against", "Pairs", *(METRICS[m].change_title for m in MATTERS)]
    return f"{means}\n\n{markdown_table(titles, rows)}"


def front_probabilities(evidence: Evidence, num_resamples: int = 2_000) -> pd.DataFrame:
    """How likely each network is on the Pareto front of cost and error, over other faces and other trainings.

    Args:
        evidence: with runs of the second protocol and the tables of ``agr bench deploy``, for latency in onnxruntime.
        num_resamples: of the faces and of the trainings.

    Returns:
        A row per cost and metric, a column per network: the share of resamples in which no other costs as little or
        less and errs less. Latency is a cost on each device. Times differ where the middle halves of their rounds do
        not meet; one that did not time every network is left out. No rows where no device is left.
    """
    trainings, sizes = multitask_trainings(evidence), {"parameters": "parameters", "MACs": "macs"}
    costs = {cost: [[runs[0].about[key]] * 2 for runs in trainings.values()] for cost, key in sizes.items()}
    for cpu, table in devices_of(evidence).items():
        rounds = one_face(table).query("way == 'onnx'").set_index("backbone")[["fast", "slow"]]
        if set(trainings) <= set(rounds.index):
            costs[f"latency, {cpu}"] = rounds.loc[list(trainings)].to_numpy()
    if not trainings or len(costs) == len(sizes):
        return pd.DataFrame()
    scores, clusters = trained_scores(trainings)
    bootstrap, rng, means = GroupBootstrap(clusters, num_resamples), np.random.default_rng(0), []
    for frames in scores.values():
        values = mean_of_columns(bootstrap, frames)  # (R + 1, seeds, metrics)
        drawn = rng.multinomial(len(frames), np.full(len(frames), 1 / len(frames)), size=len(values)) / len(frames)
        means.append(np.einsum("rs,rsm->rm", drawn, values)[1:] * -np.array(improvement_signs(MATTERS)))
    errors, rows = np.stack(means, axis=1), {}  # (R, networks, metrics), less is better
    for cost, ranges in costs.items():
        least, most = np.transpose(ranges)
        for number, metric in enumerate(MATTERS):
            error = errors[:, :, number]
            beaten = (most[None, :, None] >= least[None, None]) & (error[:, :, None] > error[:, None])
            rows[cost, metric] = 1 - beaten.any(axis=2).mean(axis=0)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(trainings))


def fronts_table(evidence: Evidence) -> str:
    """A row per cost and task: how likely each network is on the front, in per cent."""
    table = front_probabilities(evidence)
    rows = [
        [cost, METRICS[metric].label, *(f"{100 * value:.0f}" for value in row)]
        for (cost, metric), row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return markdown_table(
        ["Cost", "Task", *map(title_of, table.columns)], rows, "Not measured yet: `agr bench deploy`."
    )

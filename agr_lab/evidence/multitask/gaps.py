"""C2 and figure ``gaps``: does multi-task learning narrow the gaps between groups (docs/protocol.md)?"""

from collections.abc import Sequence
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.basic_interval import basic_interval
from agr_lab.evidence.markdown import error_cell, error_number, markdown_table
from agr_lab.evidence.multitask.multitask import STYLES, comparison_title, finished, paired_scores
from agr_lab.evidence.panels import draw_forests
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_utils.measure import fairness
from agr_utils.measure.bootstrap import interval
from agr_utils.measure.comparisons import add_calls, cache_copies, mean_of_columns
from agr_utils.measure.fairness import ERRORS, GROUPINGS, error_rows
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import LabelScheme, get_scheme

FURTHER_GROUPINGS = ("gender x age band", "race x age band")  # reported beside C2, not counted
SIDES = {"multi": 0, "single": 1}  # positions along the axis of the two sides
GAP_MATTERS = 0.1  # share of the single-task models' gap


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
        A row per error and grouping: ``error, grouping, value, low, high, p, matters``: above 0 multi-task has the
        smaller gap. ``multi`` and ``single``: the mean gaps. ``basic, basic_low, basic_high``: see ``basic_interval``.
        ``worst…`` and ``overall…``: by how much the error of the worst group, and of all faces, lies nearer to 0.
        ``backbones``: the difference of each architecture.
    """
    backbones = list(finished(evidence, comparison))
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
        samples, _ = fairness.sample_groups(evidence.bootstrap, frames, evidence.faces, scheme, grouping)
        gap = by_side(fairness.gaps(samples))
        changes = {"": by_backbone(gap), "worst": by_backbone(by_side(fairness.worst(samples))), "overall": overall}
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


@FIGURES.add(
    "gaps",
    "C2: does multi-task learning narrow the gaps between groups? Grey: too small to matter",
    read_evidence,
    "Test split, mean over the architectures. A gap is the largest minus the smallest error of the labelled groups. "
    "Filled: Holm-corrected p below 0.05. Grey: a tenth of the single-task models' gap.",
)
def draw_gaps(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Change of the gaps between groups, on average over the architectures."""
    tables = {comparison_title(name): gap_differences(evidence, name) for name in ("a", "b")}
    table = pd.concat(tables, names=["comparison"]).reset_index(0).reset_index(drop=True)
    shown = table.replace({"grouping": {name: name.replace(" x ", " × ") for name in GROUPINGS}})
    label, columns = "narrower by ({unit})\n← larger gap      smaller gap →", ("error", "grouping", "comparison")
    figure = draw_forests(shown, list(ERRORS), columns, label, 7, "gap in {}", styles=STYLES, margin=0.6,
                          matters="matters")  # fmt: skip
    if len(table):
        changes = pd.DataFrame([dict(row) for row in table.pop("backbones")], index=table.index)
        table = table.join(changes.rename(columns=lambda name: get_backbone(name).title))
    return figure, table


def gap_table(evidence: Evidence, comparison: str) -> str:
    """C2: a row per error and grouping: how the gap between its groups changes, and what else the protocol asks for.

    Args:
        evidence: the runs.
        comparison: a key of COMPARISONS.
    """
    counted = gap_differences(evidence, comparison)
    if counted.empty:
        return markdown_table([], [])
    table = pd.concat([counted, gap_changes(evidence, comparison, FURTHER_GROUPINGS).assign(call="not counted")])
    titles = ["Error", "Groups", "Gap", "Narrower by", "Call", "Bias taken out", "Worst group", "All faces"]
    cells = []
    for error, metric in ERRORS.items():
        years = metric.in_years
        for _, row in table[table["error"] == error].iterrows():
            found = [metric.title, row["grouping"].replace(" x ", " × "), error_number(row["single"], years)]
            found += [error_cell(row, years, "+"), row["call"]]
            found += [_change(row, name, years) for name in ("basic", "worst", "overall")]
            cells.append([*found, *(error_number(value, years, "+") for value in row["backbones"].values())])
    names = [get_backbone(name).title for name in counted["backbones"].iloc[0]]
    scheme = get_scheme("utkface")
    small = {name: small_groups(evidence.faces, scheme, name) for name in (*GROUPINGS, *FURTHER_GROUPINGS)}
    left_out = [f"{name.replace(' x ', ' × ')}: {'; '.join(groups)}" for name, groups in small.items() if groups]
    below = f"\n\nLeft out, fewer than {fairness.MIN_IMAGES} faces: {'. '.join(left_out)}." if left_out else ""
    return markdown_table([*titles, *names], cells) + below


def small_groups(table: pd.DataFrame, scheme: LabelScheme, grouping: str) -> list[str]:
    """Names of the groups that ``group_members`` leaves out because they have fewer than MIN_IMAGES images."""
    columns = fairness.group_columns(grouping)
    counts = fairness.label_groups(table, scheme, columns).value_counts(sort=False)
    return [", ".join(map(str, name)) for name in sorted(counts.index[(counts > 0) & (counts < fairness.MIN_IMAGES)])]


def _change(row: pd.Series, name: str, years: bool) -> str:
    """Another difference of a row of ``gap_changes``, with its interval."""
    values = row[[name, f"{name}_low", f"{name}_high"]].set_axis(["value", "low", "high"])
    return error_cell(values, years, "+")

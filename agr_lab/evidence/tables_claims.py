"""What stands behind C1 and C2, architecture by architecture and group by group."""

import pandas as pd

from agr_lab.evidence.markdown import error_cell, error_number, header_lines, table_line
from agr_lab.evidence.multitask.multitask import COMPARISONS, gap_changes, gap_differences, multitask_differences
from agr_lab.evidence.reading import Evidence
from agr_utils.measure.fairness import ERRORS, GROUPINGS, MIN_IMAGES, small_groups
from agr_utils.measure.metrics import METRICS
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import get_scheme

NOT_YET = "No finished runs yet."
FURTHER_GROUPINGS = ("gender x age band", "race x age band")  # reported beside C2, not counted


def multitask_table(evidence: Evidence) -> str:
    """C1: a row an architecture and comparison, by how much each metric is better with three heads, and the call."""
    titles = [metric.title for metric in METRICS.values()]
    lines = header_lines(["Compared at", "Architecture", "Seeds", *titles])
    empty = len(lines)
    for comparison, (title, *_) in COMPARISONS.items():
        for backbone, rows in multitask_differences(evidence, comparison).groupby("backbone", sort=False):
            rows = rows.set_index("metric")
            cells = [
                " ".join([error_cell(rows.loc[name], METRICS[name].in_years, "+"), rows.loc[name, "call"]]).strip()
                for name in METRICS
            ]
            where = f"({comparison}) {title}" if comparison in ("a", "b") else title
            lines.append(table_line([where, get_backbone(backbone).title, str(len(rows["seeds"].iloc[0])), *cells]))
    return "\n".join(lines) if len(lines) > empty else NOT_YET


def gap_table(evidence: Evidence, comparison: str) -> str:
    """C2: a row an error and grouping: how the gap between its groups changes, and what else the protocol asks for.

    Args:
        evidence: the runs.
        comparison: a key of COMPARISONS.
    """
    counted = gap_differences(evidence, comparison)
    if counted.empty:
        return NOT_YET
    table = pd.concat([counted, gap_changes(evidence, comparison, FURTHER_GROUPINGS).assign(call="not counted")])
    titles = ["Error", "Groups", "Gap", "Narrower by", "Call", "Bias taken out", "Worst group", "All faces"]
    lines = header_lines([*titles, *(get_backbone(name).title for name in counted["backbones"].iloc[0])])
    for error, metric in ERRORS.items():
        years = metric.in_years
        for _, row in table[table["error"] == error].iterrows():
            cells = [metric.title, row["grouping"].replace(" x ", " × "), error_number(row["single"], years)]
            cells += [error_cell(row, years, "+"), row["call"]]
            cells += [_change(row, name, years) for name in ("basic", "worst", "overall")]
            lines.append(
                table_line([*cells, *(error_number(value, years, "+") for value in row["backbones"].values())])
            )
    scheme = get_scheme("utkface")
    small = {name: small_groups(evidence.faces, scheme, name) for name in (*GROUPINGS, *FURTHER_GROUPINGS)}
    left_out = [f"{name.replace(' x ', ' × ')}: {'; '.join(groups)}" for name, groups in small.items() if groups]
    lines += ["", f"Left out, fewer than {MIN_IMAGES} faces: {'. '.join(left_out)}."] if left_out else []
    return "\n".join(lines)


def _change(row: pd.Series, name: str, years: bool) -> str:
    """Another difference of a row of ``gap_changes``, with its interval."""
    values = row[[name, f"{name}_low", f"{name}_high"]].set_axis(["value", "low", "high"])
    return error_cell(values, years, "+")

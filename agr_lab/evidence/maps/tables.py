"""Tables of maps: the one of the README, and those of docs/looking_inside.md."""

import numpy as np
import pandas as pd

from agr_lab.evidence.maps.evidence import (
    MapEvidence,
    all_verdicts,
    mean_by_task,
    measured_tests,
    region_shares_of,
    shortcut_table,
    verdicts,
)
from agr_lab.evidence.markdown import error_cell, header_lines, interval_cell, table_line
from agr_utils.inside.explain import METHODS
from agr_utils.inside.face_regions import REGIONS, region_areas
from agr_utils.inside.map_tables import RIVALS
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS

NOT_YET = "No finished reports yet."
KIND_TITLES = {kind: title for kind, (title, _, _) in METHODS.items()} | {"centred": "blob", "random": "noise"}


def scores_with_intervals(scores: pd.DataFrame, score: str, scale: float = 100) -> pd.DataFrame:
    """One score of every kind of map and rival with 95 % intervals over faces, as text.

    Args:
        scores: of a MapReport.
        score: its column.
        scale: that it is multiplied with.

    Returns:
        A row a kind, a column a task.
    """
    cells = {}
    for (task, kind), rows in scores.groupby(["task", "kind"], sort=False, observed=True):
        samples = GroupBootstrap(np.arange(len(rows)), 2_000).means(rows[[score]].to_numpy())
        cells[task, KIND_TITLES[kind]] = interval_cell(interval(samples).iloc[0], scale, 1)
    return (
        pd.Series(cells)
        .unstack(0)
        .loc[list(dict.fromkeys(kind for _, kind in cells)), list(dict.fromkeys(task for task, _ in cells))]
    )


def trust_table(evidence: MapEvidence) -> str:
    """Which maps can be trusted for which task, and by how much: a row a task, a column a kind of map."""
    found = all_verdicts(evidence)
    if found.empty:
        return NOT_YET
    lines = header_lines(["Task", *(title for title, _, _ in METHODS.values())])
    for task in TASKS:
        cells = [
            f"{_trust_cell(found[(found['task'] == task) & (found['kind'] == kind)])}; {_weakest(evidence, task, kind)}"
            for kind in METHODS
        ]
        lines.append(table_line([task, *cells]))
    return "\n".join(lines)


def _weakest(evidence: MapEvidence, task: str, kind: str) -> str:
    """The architecture whose map did worst in T2 against the blob, with the interval."""
    margins = measured_tests(evidence, kind)[0]["T2"].query("task == @task and rival == 'centred'")
    row = margins.loc[margins["value"].idxmin()]
    cell, unit = error_cell(row, task == "age", "+"), "years" if task == "age" else "points"
    return f"weakest: {get_backbone(row['backbone']).title} {cell} {unit}"


def _trust_cell(rows: pd.DataFrame) -> str:
    """Architectures by verdict."""
    parts = []
    for verdict in ("trusted", "not trusted", "cannot tell"):
        names = [get_backbone(name).title for name in rows.loc[rows["verdict"] == verdict, "backbone"]]
        if names:
            listed = "" if len(names) == len(rows) else f": {', '.join(names)}"
            parts.append(f"**{verdict}** {len(names)} of {len(rows)}{listed}")
    return "; ".join(parts)


def test_table(evidence: MapEvidence, kind: str) -> str:
    """The four tests of one kind of map: a row an architecture and task."""
    found = verdicts(evidence, kind)
    if found.empty:
        return NOT_YET
    families, others = measured_tests(evidence, kind)
    titles = ["T1 against the blob (points)", "against noise", "T2 against the blob (years or points)", "against noise"]
    lines = header_lines(["Architecture", "Task", *titles, "T3 correlation", "T4 correlation above chance", "Verdict"])
    for row in found.itertuples():
        own = {
            name: table[(table["backbone"] == row.backbone) & (table["task"] == row.task)]
            for name, table in families.items()
        }
        cells = [get_backbone(row.backbone).title, row.task]
        for test, table in own.items():
            years = test == "T2" and row.task == "age"
            by_rival = table.set_index("rival")
            for rival in reversed(RIVALS):
                cells.append(error_cell(by_rival.loc[rival], years, "+"))
        rest = others[(others["backbone"] == row.backbone) & (others["task"] == row.task)].set_index("test")
        cells += [interval_cell(rest.loc[test], 1, 2) for test in ("T3", "T4")]
        lines.append(table_line([*cells, f"**{row.verdict}**"]))
    return "\n".join(lines)


def layers_table(evidence: MapEvidence) -> str:
    """Energy inside the cues by resolution of the layer: a row an architecture and layer."""
    if not evidence.cues:
        return NOT_YET
    lines = header_lines(
        ["Architecture", "Layer", "Cells", *(KIND_TITLES[kind] for kind in ("gradcam", "hirescam", "centred"))]
    )
    for backbone, report in evidence.cues.items():
        table = report.tables["layers"].astype({"kind": str})
        means = table.groupby(["side", "layer", "kind"])["energy"].mean().unstack().sort_index(ascending=False)
        for (side, layer), row in means.iterrows():
            chosen = "**" if layer == report.about["layer"] else ""
            cells = [f"{100 * row[kind]:.1f}" for kind in ("gradcam", "hirescam", "centred")]
            lines.append(
                table_line([get_backbone(backbone).title, f"{chosen}`{layer}`{chosen}", f"{side}x{side}", *cells])
            )
    return "\n".join(lines)


def shortcut_lines(evidence: MapEvidence) -> str:
    """Energy of MobileNetV3's gender map inside earrings and collar, by the confounding dial."""
    table = shortcut_table(evidence.shortcuts)
    if table.empty:
        return NOT_YET
    columns = [(kind, where) for kind in METHODS for where in ("earrings", "collar")]
    lines = header_lines(["Confounding", *(f"{KIND_TITLES[kind]}: {where} (%)" for kind, where in columns)])
    for confounding, rows in table.groupby("confounding"):
        own = rows.set_index(["kind", "where"])
        lines.append(table_line([f"{confounding:g}", *(interval_cell(own.loc[column], 100, 1) for column in columns)]))
    return "\n".join(lines)


def regions_table(evidence: MapEvidence, kind: str = "hirescam") -> str:
    """Share of the energy in each region of the face: a row an architecture and task."""
    if not evidence.faces:
        return NOT_YET
    lines = header_lines(["Architecture", "Task", *(f"{region} (%)" for region in REGIONS)])
    lines.append(
        table_line(["*share of the area*", "", *(f"{100 * area:.0f}" for area in region_areas(64, 64).tolist())])
    )
    for backbone, report in evidence.faces.items():
        for task, row in region_shares_of(report, kind).iterrows():
            lines.append(
                table_line([get_backbone(backbone).title, task, *(f"{100 * row[region]:.0f}" for region in REGIONS)])
            )
    return "\n".join(lines)


def consistency_table(evidence: MapEvidence) -> str:
    """Rank correlations between maps that ought to agree, and of two faces, which need not."""
    lines = header_lines(["Architecture", "Task", "Compared with", *(title for title, _, _ in METHODS.values())])
    count = len(lines)
    two_seeds = {name: report for name, report in evidence.cues.items() if "seeds" in report.tables["scores"]}
    for reports, score, compared in (
        (evidence.faces, "mirrored", "mirrored face, real faces"),
        (two_seeds, "seeds", "another seed, drawn faces"),
        (evidence.seeds, "seeds", "another seed, real faces"),
        (evidence.seeds, "another", "*another face*, same seed, real faces"),
    ):
        by_kind = [mean_by_task(reports, kind, score).set_index(["backbone", "task"]) for kind in METHODS]
        for backbone, task in by_kind[0].index:
            cells = [interval_cell(table.loc[(backbone, task)], 1, 2) for table in by_kind]
            lines.append(table_line([get_backbone(backbone).title, task, compared, *cells]))
    return "\n".join(lines) if len(lines) > count else NOT_YET


def map_tables(evidence: MapEvidence) -> dict[str, str]:
    """Each table of docs/looking_inside.md about maps, by the name of its markers."""
    tests = {f"tests-{kind}": test_table(evidence, kind) for kind in METHODS}
    return tests | {
        "map-layers": layers_table(evidence),
        "map-shortcut": shortcut_lines(evidence),
        "map-regions": regions_table(evidence),
        "map-consistency": consistency_table(evidence),
    }

"""Which maps can be trusted for which task: the four tests of docs/protocol.md on the published reports."""

import pandas as pd

from agr_lab.evidence.maps.map_evidence import NO_REPORTS, MapEvidence, against_rivals, mean_by_task, spread
from agr_lab.evidence.markdown import error_cell, interval_cell, markdown_table
from agr_lab.reports.map_report import MapReport
from agr_utils.inside.explain import METHODS
from agr_utils.inside.map_tables import RIVALS
from agr_utils.measure.comparisons import SIGNIFICANT, cache_copies
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import TASKS

TESTS = ("T1", "T2", "T3", "T4")
RANDOM_LIMIT = 0.5  # T3: rank correlation with the map of a network of random weights


def sanity(reports: dict[str, MapReport], kind: str) -> pd.DataFrame:
    """T3 and T4: rows ``backbone, task, test, value, low, high``.

    ``T3`` is the rank correlation with the map of a network of random weights; ``T4`` that with the mirrored face's map
    minus that with another face's.
    """
    t3 = mean_by_task(reports, kind, "randomised")
    t4 = mean_by_task(reports, kind, lambda report: spread(report, "mirrored") - spread(report, "another"))
    return pd.concat([t3.assign(test="T3"), t4.assign(test="T4")], ignore_index=True)


@cache_copies(maxsize=16)
def measured_tests(evidence: MapEvidence, kind: str) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The four tests of one kind of map on the architectures with both reports.

    Returns:
        ``T1`` and ``T2`` as ``against_rivals`` gives them, and T3 and T4 as ``sanity`` does.
    """
    both = [name for name in evidence.cues if name in evidence.faces]
    faces = {name: evidence.faces[name] for name in both}
    families = {
        "T1": against_rivals({name: evidence.cues[name] for name in both}, "energy", kind),
        "T2": against_rivals(faces, "road", kind),
    }
    return families, sanity(faces, kind)


def verdicts(evidence: MapEvidence, kind: str) -> pd.DataFrame:
    """What each map of one kind can be called.

    Returns:
        Rows ``backbone, task, T1, T2, T3, T4`` (``passed``, ``failed`` or ``open``) and ``verdict`` (``trusted``, ``not
        trusted``, ``cannot tell``); only architectures with both reports.
    """
    families, others = measured_tests(evidence, kind)
    rows = []
    for backbone in others["backbone"].unique():
        for task in TASKS:
            row = {"backbone": backbone, "task": task}
            for test, family in families.items():
                own = family[(family["backbone"] == backbone) & (family["task"] == task)]
                row[test] = against_both(own)
            own = others[(others["backbone"] == backbone) & (others["task"] == task)].set_index("test")
            row["T3"] = _side(RANDOM_LIMIT - own.loc["T3", "high"], RANDOM_LIMIT - own.loc["T3", "low"])
            row["T4"] = _side(own.loc["T4", "low"], own.loc["T4", "high"])
            rows.append(row | {"verdict": call_map([row[test] for test in TESTS])})
    return pd.DataFrame(rows, columns=["backbone", "task", *TESTS, "verdict"])


def against_both(rows: pd.DataFrame) -> str:
    """Whether a map beats both rivals, is beaten by one, or neither."""
    significant = rows["p_holm"] < SIGNIFICANT
    if (significant & (rows["value"] < 0)).any():
        return "failed"
    return "passed" if (significant & (rows["value"] > 0)).all() else "open"


def _side(low: float, high: float) -> str:
    """Where an interval lies: above 0, below it, or on both sides."""
    return "passed" if low > 0 else "failed" if high < 0 else "open"


def call_map(outcomes: list[str]) -> str:
    """What a map is called by the outcomes of its tests."""
    if "failed" in outcomes:
        return "not trusted"
    return "trusted" if set(outcomes) == {"passed"} else "cannot tell"


def all_verdicts(evidence: MapEvidence) -> pd.DataFrame:
    """The verdicts of every kind of map, with a column ``kind``."""
    return pd.concat([verdicts(evidence, kind).assign(kind=kind) for kind in METHODS], ignore_index=True)


def trust_table(evidence: MapEvidence) -> str:
    """Which maps can be trusted for which task, and by how much: a row per task, a column per kind of map."""
    found, rows = all_verdicts(evidence), []
    for task in TASKS if len(found) else ():
        cells = [
            f"{_trust_cell(found[(found['task'] == task) & (found['kind'] == kind)])}; {_weakest(evidence, task, kind)}"
            for kind in METHODS
        ]
        rows.append([task, *cells])
    return markdown_table(["Task", *(title for title, _, _ in METHODS.values())], rows, NO_REPORTS)


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


def trust_tests_table(evidence: MapEvidence, kind: str) -> str:
    """The four tests of one kind of map: a row per architecture and task."""
    families, others = measured_tests(evidence, kind)
    rows = []
    for row in verdicts(evidence, kind).itertuples():
        cells = [get_backbone(row.backbone).title, row.task]
        for test, table in families.items():
            by_rival = table[(table["backbone"] == row.backbone) & (table["task"] == row.task)].set_index("rival")
            years = test == "T2" and row.task == "age"
            cells += [error_cell(by_rival.loc[rival], years, "+") for rival in reversed(RIVALS)]
        rest = others[(others["backbone"] == row.backbone) & (others["task"] == row.task)].set_index("test")
        cells += [interval_cell(rest.loc[test], 1, 2) for test in ("T3", "T4")]
        rows.append([*cells, f"**{row.verdict}**"])
    titles = ["T1 against the blob (points)", "against noise", "T2 against the blob (years or points)", "against noise"]
    titles = ["Architecture", "Task", *titles, "T3 correlation", "T4 correlation above chance", "Verdict"]
    return markdown_table(titles, rows, NO_REPORTS)


def consistency_table(evidence: MapEvidence) -> str:
    """Rank correlations between maps that ought to agree, and of two faces, which need not."""
    two_seeds = {name: report for name, report in evidence.cues.items() if "seeds" in report.tables["scores"]}
    rows = []
    for reports, score, compared in (
        (evidence.faces, "mirrored", "mirrored face, real faces"),
        (two_seeds, "seeds", "another seed, drawn faces"),
        (evidence.seeds, "seeds", "another seed, real faces"),
        (evidence.seeds, "another", "*another face*, same seed, real faces"),
    ):
        by_kind = [mean_by_task(reports, kind, score).set_index(["backbone", "task"]) for kind in METHODS]
        for backbone, task in by_kind[0].index:
            cells = [interval_cell(table.loc[(backbone, task)], 1, 2) for table in by_kind]
            rows.append([get_backbone(backbone).title, task, compared, *cells])
    titles = ["Architecture", "Task", "Compared with", *(title for title, _, _ in METHODS.values())]
    return markdown_table(titles, rows, NO_REPORTS)

"""Which maps can be trusted for which task: the four tests of docs/protocol.md on the published reports."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from agr_lab.evidence.maps.report import MapReport, read_report
from agr_utils.data.splits import groups_of
from agr_utils.inside.explain import METHODS
from agr_utils.inside.face_regions import REGIONS
from agr_utils.inside.map_tables import RIVALS
from agr_utils.measure.bootstrap import GroupBootstrap, holm, interval
from agr_utils.measure.comparisons import SIGNIFICANT, cache_copies
from agr_utils.measure.results import read_beside, read_folder, read_runs, read_short_runs
from agr_utils.models.backbones import BACKBONES
from agr_utils.run_files import MAPS_FOLDER
from agr_utils.tasks import TASKS

TESTS = ("T1", "T2", "T3", "T4")
RANDOM_LIMIT = 0.5  # T3: rank correlation with the map of a network of random weights


@dataclass(frozen=True, eq=False)
class MapEvidence:
    """Published reports on maps.

    Attributes:
        cues: of the drawn faces, by architecture.
        shortcuts: of MobileNetV3 on drawn faces, by how far the collar was tied to gender in training.
        faces: of the published multi-task runs on real faces, by architecture.
        short: of short runs of seed 0 on real faces, by (architecture, tasks).
        seeds: of short multi-task runs that were compared with another seed, by architecture.
    """

    cues: dict[str, MapReport]
    shortcuts: dict[float, MapReport]
    faces: dict[str, MapReport]
    short: dict[tuple[str, tuple[str, ...]], MapReport]
    seeds: dict[str, MapReport]


def read_map_evidence(results_dir: Path) -> MapEvidence:
    """Every report in ``results/``; those that are not there yet are missing."""
    drawn = read_beside(results_dir / "cues", read_folder(results_dir / "cues"), MAPS_FOLDER, read_report)
    dial = {run.run_id: run.about["config"]["synthetic"]["confounding"] for run, _ in drawn}
    cues = {run.backbone: report for run, report in drawn if run.seed == 0 and dial[run.run_id] == 0}
    shortcuts = {dial[run.run_id]: report for run, report in drawn if run.seed == 0 and run.backbone == "mobilenet_v3"}
    faces = {
        run.backbone: report
        for run, report in read_beside(results_dir, read_runs(results_dir), MAPS_FOLDER, read_report)
    }
    short = read_beside(results_dir / "claims", read_short_runs(results_dir), MAPS_FOLDER, read_report)
    return MapEvidence(
        cues={name: cues[name] for name in BACKBONES if name in cues},
        shortcuts=dict(sorted(shortcuts.items())),
        faces=faces,
        short={(run.backbone, run.tasks): report for run, report in short if run.seed == 0},
        seeds={run.backbone: report for run, report in short if "seeds" in report.tables["scores"]},
    )


def spread(report: MapReport, score: str) -> tuple[pd.DataFrame, GroupBootstrap]:
    """One score of each face: columns (task, kind); and resamples of the faces."""
    wide = _spread(report, score)
    return wide, _bootstrap_of(wide)


@cache_copies(maxsize=64)
def _spread(report: MapReport, score: str) -> pd.DataFrame:
    scores = report.tables["scores"]
    kept = scores.astype({"task": str, "kind": str}).dropna(subset=[score])
    return kept.pivot(index="image_id", columns=["task", "kind"], values=score)


def _bootstrap_of(wide: pd.DataFrame) -> GroupBootstrap:
    """Resamples of the faces that are the rows of a table."""
    return GroupBootstrap(groups_of(pd.Series(wide.index.to_numpy(), dtype="string")))


def against_rivals(reports: dict[str, MapReport], score: str, kind: str) -> pd.DataFrame:
    """A score of one kind of map minus that of each rival, paired by face: T1 with ``energy``, T2 with ``road``.

    Args:
        reports: by architecture.
        score: column of the scores.
        kind: of map.

    Returns:
        One family: rows ``backbone, task, rival, value, low, high, p, p_holm``.
    """
    parts = []
    for backbone, report in reports.items():
        wide, bootstrap = spread(report, score)
        labels = [(task, rival) for task in TASKS if (task, kind) in wide for rival in RIVALS]
        differences = np.stack([wide[task, kind] - wide[task, rival] for task, rival in labels], axis=1)
        table = pd.DataFrame(labels, columns=["task", "rival"])
        table.insert(0, "backbone", backbone)
        parts.append(pd.concat([table, interval(bootstrap.means(differences))], axis=1))
    if not parts:
        return pd.DataFrame(columns=["backbone", "task", "rival", "value", "low", "high", "p", "p_holm"])
    family = pd.concat(parts, ignore_index=True)
    return family.assign(p_holm=holm(family["p"]))


def mean_by_task(
    reports: dict[str, MapReport], kind: str, measure: str | Callable[[MapReport], pd.DataFrame]
) -> pd.DataFrame:
    """The mean over faces of a score of one kind of map: rows ``backbone, task, value, low, high``.

    Args:
        reports: by architecture.
        kind: of map.
        measure: column of the scores, or what makes a table as ``spread`` gives it out of a report.
    """
    parts = []
    for backbone, report in reports.items():
        wide = spread(report, measure)[0] if isinstance(measure, str) else measure(report)
        tasks = [task for task in TASKS if (task, kind) in wide]
        means = _bootstrap_of(wide).means(np.stack([wide[task, kind] for task in tasks], axis=1))
        labels = pd.DataFrame({"backbone": backbone, "task": tasks})
        parts.append(pd.concat([labels, interval(means).drop(columns="p")], axis=1))
    columns = ["backbone", "task", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def sanity(reports: dict[str, MapReport], kind: str) -> pd.DataFrame:
    """T3 and T4: rows ``backbone, task, test, value, low, high``.

    ``T3`` is the rank correlation with the map of a network of random weights; ``T4`` that with the mirrored face's map
    minus that with another face's.
    """
    t3 = mean_by_task(reports, kind, "randomised")
    t4 = mean_by_task(reports, kind, lambda report: spread(report, "mirrored")[0] - spread(report, "another")[0])
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
                row[test] = _against_both(own)
            own = others[(others["backbone"] == backbone) & (others["task"] == task)].set_index("test")
            row["T3"] = _side(RANDOM_LIMIT - own.loc["T3", "high"], RANDOM_LIMIT - own.loc["T3", "low"])
            row["T4"] = _side(own.loc["T4", "low"], own.loc["T4", "high"])
            rows.append(row | {"verdict": _verdict([row[test] for test in TESTS])})
    return pd.DataFrame(rows, columns=["backbone", "task", *TESTS, "verdict"])


def _against_both(rows: pd.DataFrame) -> str:
    """Whether a map beats both rivals, is beaten by one, or neither."""
    significant = rows["p_holm"] < SIGNIFICANT
    if (significant & (rows["value"] < 0)).any():
        return "failed"
    return "passed" if (significant & (rows["value"] > 0)).all() else "open"


def _side(low: float, high: float) -> str:
    """Where an interval lies: above 0, below it, or on both sides."""
    return "passed" if low > 0 else "failed" if high < 0 else "open"


def _verdict(outcomes: list[str]) -> str:
    if "failed" in outcomes:
        return "not trusted"
    return "trusted" if set(outcomes) == {"passed"} else "cannot tell"


def all_verdicts(evidence: MapEvidence) -> pd.DataFrame:
    """The verdicts of every kind of map, with a column ``kind``."""
    return pd.concat([verdicts(evidence, kind).assign(kind=kind) for kind in METHODS], ignore_index=True)


def shortcut_table(shortcuts: dict[float, MapReport]) -> pd.DataFrame:
    """Where the gender map has its energy: rows ``confounding, kind, where, value, low, high``."""
    parts = []
    for confounding, report in shortcuts.items():
        for where, score in (("earrings", "energy"), ("collar", "collar")):
            wide, bootstrap = spread(report, score)
            kinds = [kind for kind in METHODS if ("gender", kind) in wide]
            found = interval(bootstrap.means(np.stack([wide["gender", kind] for kind in kinds], axis=1)))
            parts.append(found.drop(columns="p").assign(confounding=confounding, kind=kinds, where=where))
    columns = ["confounding", "kind", "where", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def region_differences(evidence: MapEvidence, backbone: str) -> pd.DataFrame:
    """Do multi-task and single-task models look at different places? Paired by face, Holm-corrected within a task.

    Args:
        evidence: see ``read_map_evidence``.
        backbone: architecture of the short runs.

    Returns:
        Rows ``task, kind, region, value, low, high, p, p_holm``: share of the energy of the multi-task model's maps
        minus that of the single-task model's; empty where a report is missing.
    """
    multi = evidence.short.get((backbone, TASKS))
    parts = []
    for task in TASKS:
        single = evidence.short.get((backbone, (task,)))
        if multi is None or single is None:
            continue
        ours, theirs = (_region_rows(report, task) for report in (multi, single))
        found = interval(_bootstrap_of(ours).means((ours - theirs.loc[ours.index]).to_numpy()))
        labels = pd.DataFrame(list(ours.columns), columns=["kind", "region"]).assign(task=task)
        parts.append(pd.concat([labels, found.assign(p_holm=holm(found["p"]))], axis=1))
    columns = ["task", "kind", "region", "value", "low", "high", "p", "p_holm"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _region_rows(report: MapReport, task: str) -> pd.DataFrame:
    """Shares of one task: a row a face, columns (kind, region)."""
    regions = report.tables["regions"].astype({"task": str, "kind": str})
    own = regions[regions["task"] == task]
    return (
        own.pivot(index="image_id", columns="kind", values=list(REGIONS))
        .swaplevel(axis=1)
        .sort_index(
            axis=1, key=lambda level: level.map({name: number for number, name in enumerate((*METHODS, *REGIONS))})
        )
    )


def region_shares_of(report: MapReport, kind: str) -> pd.DataFrame:
    """Mean share of the energy in each region: a row a task, a column a region."""
    regions = report.tables["regions"].astype({"task": str, "kind": str})
    means = regions[regions["kind"] == kind].groupby("task")[list(REGIONS)].mean()
    return means.loc[[task for task in TASKS if task in means.index]]

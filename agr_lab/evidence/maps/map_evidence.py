"""The published reports on maps, and scores of the faces in them, with intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from agr_lab.evidence.reading import read_beside
from agr_lab.reports.map_report import MapReport, read_report
from agr_utils.data.splits import groups_of
from agr_utils.inside.map_tables import RIVALS
from agr_utils.measure.bootstrap import GroupBootstrap, holm, interval
from agr_utils.measure.comparisons import cache_copies
from agr_utils.measure.results import read_folder, read_runs, read_short_runs
from agr_utils.models.backbones import BACKBONES
from agr_utils.run_files import MAPS_FOLDER
from agr_utils.tasks import TASKS

NO_REPORTS = "No finished reports yet."
KIND_STYLE = {"gradcam": ("#0072B2", "o"), "hirescam": ("#D55E00", "s"), "eigencam": ("#6b6b6b", "D")}


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


@cache_copies(maxsize=64)
def spread(report: MapReport, score: str) -> pd.DataFrame:
    """One score of each face: a row per face, columns (task, kind)."""
    scores = report.tables["scores"]
    kept = scores.astype({"task": str, "kind": str}).dropna(subset=[score])
    return kept.pivot(index="image_id", columns=["task", "kind"], values=score)


def face_intervals(wide: pd.DataFrame) -> pd.DataFrame:
    """``interval`` of the mean over faces of each column of a table with a row per face (index: ``image_id``)."""
    groups = groups_of(pd.Series(wide.index.to_numpy(), dtype="string"))
    return interval(GroupBootstrap(groups).means(wide.to_numpy()))


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
        wide = spread(report, score)
        pairs = [(task, rival) for task in TASKS if (task, kind) in wide for rival in RIVALS]
        differences = pd.DataFrame({(task, rival): wide[task, kind] - wide[task, rival] for task, rival in pairs})
        labels = pd.DataFrame([(backbone, *pair) for pair in pairs], columns=["backbone", "task", "rival"])
        parts.append(pd.concat([labels, face_intervals(differences)], axis=1))
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
        wide = spread(report, measure) if isinstance(measure, str) else measure(report)
        tasks = [task for task in TASKS if (task, kind) in wide]
        labels = pd.DataFrame({"backbone": backbone, "task": tasks})
        found = face_intervals(wide[[(task, kind) for task in tasks]]).drop(columns="p")
        parts.append(pd.concat([labels, found], axis=1))
    columns = ["backbone", "task", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

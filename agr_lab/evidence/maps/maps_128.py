"""Does the verdict on maps stand at 128 px, on layers of 8x8 and of 16x16 cells (docs/protocol_2.md)?

Scores take an hour on two cores and are kept beside the runs, one network after the other:
``python -m agr_lab.evidence.maps.maps_128 drawn RUN results/cues_128/RUN``, for real faces
``python -m agr_lab.evidence.maps.maps_128 faces WORK/JOB results/maps_128/JOB``.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch

from agr_lab.evidence.maps.map_evidence import against_rivals
from agr_lab.evidence.maps.trust import against_both, call_map
from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.gpu.protocol import MAP_BACKBONES, MAP_SIZE
from agr_lab.gpu.training import Faces, load_finished
from agr_lab.reports.face_maps import road_score
from agr_lab.reports.map_report import MapReport, write_small
from agr_utils.data.load import FaceData
from agr_utils.data.splits import groups_of
from agr_utils.data.synthetic import draw_faces
from agr_utils.files import read_table
from agr_utils.inside.explain import METHODS, map_layers
from agr_utils.inside.map_tables import RIVALS, score_cues, score_maps
from agr_utils.models.backbones import get_backbone
from agr_utils.tasks import get_scheme

SIDES, NUM_FACES = (16, 8), 500  # cells of the layer; of the test split
TESTS = {"T1": "energy", "T2": "road"}
SCORES_FILE = "maps_{0}x{0}.parquet"  # of one layer, in the folder of a run

Scores = dict[tuple[str, int], dict[str, MapReport]]  # by test and side, of each network


def score_drawn(run_dir: Path) -> Iterator[tuple[int, pd.DataFrame]]:
    """T1 of a run on drawn faces, at each side: ``score_cues`` of the test split."""
    from agr_utils.training.run import load_run  # what trains takes seconds to import

    model, data, config = load_run(run_dir)
    drawn = draw_faces(len(data.faces), config.image_size, config.data_seed, config.synthetic, with_masks=True)
    layers = map_layers(model, config.image_size)
    for side in SIDES:
        yield side, score_cues(model, drawn, data.sample("test", NUM_FACES), layers[side])


def score_faces(folder: Path, sides: Sequence[int] = SIDES) -> Iterator[tuple[int, pd.DataFrame]]:
    """T2 of a finished job of the second protocol, with its weights and its pixels, at each side: ``road``."""
    faces, model = Faces(folder.parent, torch.device("cpu")), load_finished(folder.parent, folder.name, "cpu")
    table = faces.table.assign(group=groups_of(faces.table["image_id"]))
    data = FaceData(table, faces.at(MAP_SIZE).numpy(), get_scheme("utkface"))
    layers, rows = map_layers(model, MAP_SIZE), data.sample("test", NUM_FACES)
    for side in sides:
        yield side, score_maps(model, data, rows, layers[side], tuple(METHODS), road_score(model))


def read_scores(results_dir: Path) -> Scores:
    """The scores that are kept; those that are not there yet are missing."""
    places = {"T1": results_dir / "cues_128", "T2": results_dir / "maps_128"}
    found: Scores = {}
    for test, folder in places.items():
        for side in SIDES:
            for path in sorted(folder.glob(f"*/{SCORES_FILE.format(side)}")):
                name = next(name for name in MAP_BACKBONES if name in path.parent.name)
                table = read_table(path, (), "a table of maps", "agr_lab.evidence.maps.maps_128")
                found.setdefault((test, side), {})[name] = MapReport({}, {"scores": table})
    return found


def differences(scores: Scores) -> pd.DataFrame:
    """Each kind of map against its rivals: rows of ``against_rivals`` with ``kind, side, test``; a family for each."""
    parts = [
        against_rivals(reports, TESTS[test], kind).assign(kind=kind, side=side, test=test)
        for (test, side), reports in scores.items()
        for kind in METHODS
    ]
    return pd.concat(parts, ignore_index=True)


def calls(table: pd.DataFrame) -> pd.DataFrame:
    """What each map is called, from ``differences``: rows ``kind, side, backbone, task, T1, T2, verdict``."""
    keys = ["kind", "side", "backbone", "task"]
    outcomes = table.groupby([*keys, "test"], sort=False).apply(against_both, include_groups=False)
    outcomes = outcomes.unstack("test").reset_index()
    return outcomes.assign(verdict=[call_map(list(row)) for row in outcomes[list(TESTS)].to_numpy()])


def verdict(called: pd.DataFrame) -> str:
    """What became of the first version's verdict, from the rows of ``calls`` of both networks at both sizes."""
    counts = called.groupby(["side", "backbone", "verdict"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=["trusted", "not trusted"], fill_value=0)
    if (counts["not trusted"] >= 2).all():
        return "stands"
    return "falls" if (counts["trusted"] >= 2).groupby("side").all().any() else "mixed"


def maps_128_table(results_dir: Path) -> str:
    """The verdict on Grad-CAM, how many of each kind's maps are trusted, and a row of tests for each of Grad-CAM."""
    scores = read_scores(results_dir)
    if sum(map(len, scores.values())) < len(TESTS) * len(SIDES) * len(MAP_BACKBONES):
        return "Not scored yet."
    table = differences(scores)
    called, rows = calls(table), []
    trusted = called[called["verdict"] == "trusted"]["kind"].value_counts()
    counts = ", ".join(f"{title} {trusted.get(kind, 0)}" for kind, (title, *_) in METHODS.items())
    grad_cam = table[table["kind"] == "gradcam"].set_index(["side", "backbone", "task", "test", "rival"]).sort_index()
    for row in called[called["kind"] == "gradcam"].itertuples():
        cells = [f"{row.side}x{row.side}", get_backbone(row.backbone).title, row.task]
        for test in TESTS:
            by_rival = grad_cam.loc[row.side, row.backbone, row.task, test]
            cells += [
                error_cell(by_rival.loc[rival], test == "T2" and row.task == "age", "+") for rival in reversed(RIVALS)
            ]
        rows.append([*cells, f"**{row.verdict}**"])
    titles = ["T1 against the blob (points)", "against noise", "T2 against the blob (years or points)", "against noise"]
    found = f"**{verdict(called[called['kind'] == 'gradcam'])}**. Passed T1 and T2, of {len(rows)} maps each: {counts}"
    return f"Grad-CAM: {found}.\n\n{markdown_table(['Cells', 'Network', 'Task', *titles, 'Verdict'], rows)}"


def main(kind: str, source: Path, folder: Path) -> None:
    """Score one network's maps at both sizes of cells."""
    for side, table in {"drawn": score_drawn, "faces": score_faces}[kind](source):
        write_small(table, folder / SCORES_FILE.format(side))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

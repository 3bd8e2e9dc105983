"""Verdicts on maps follow the protocol; tables and figures can be drawn with and without reports."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agr_lab.evidence.gallery import FIGURES
from agr_lab.evidence.maps.map_evidence import NO_REPORTS, MapEvidence, against_rivals, read_map_evidence
from agr_lab.evidence.maps.map_regions import region_differences
from agr_lab.evidence.maps.map_shortcut import shortcut_table
from agr_lab.evidence.maps.trust import all_verdicts, trust_table, verdicts
from agr_lab.evidence.pages import map_tables, robustness_tables
from agr_lab.evidence.reading import Evidence, read_ablations, read_bench, read_evidence
from agr_lab.evidence.robustness.sweeps import read_robustness
from agr_lab.reports.face_maps import MEAN_SIDE
from agr_lab.reports.face_regions import REGIONS
from agr_lab.reports.map_report import MapReport
from agr_utils.inside.explain import METHODS
from agr_utils.inside.map_tables import RIVALS, scores_with_intervals
from agr_utils.measure.results import read_runs
from agr_utils.tasks import TASKS

NUM_FACES = 60


def made_up_scores(means: dict[str, dict[str, float]], seed: int = 0, tasks: tuple[str, ...] = TASKS) -> pd.DataFrame:
    """Scores of made-up faces: for each score the mean of each kind of map; faces differ by a little noise."""
    rng = np.random.default_rng(seed)
    parts = []
    for task in tasks:
        for kind in (*METHODS, *RIVALS):
            columns = {"image_id": [f"face-{n}" for n in range(NUM_FACES)], "task": task, "kind": kind}
            for score, by_kind in means.items():
                noise = 0.02 * rng.standard_normal(NUM_FACES)
                noise -= noise.mean()
                columns[score] = by_kind[kind] + noise if kind in by_kind else np.nan
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def cues(gradcam: float, hirescam: float) -> MapReport:
    energy = {"gradcam": gradcam, "hirescam": hirescam, "eigencam": 0.2, "random": 0.1, "centred": 0.2}
    scores = made_up_scores({"energy": energy, "hit": energy, "collar": energy})
    layers = pd.DataFrame({"layer": "stages.0", "side": 16, "task": "age", "kind": ["gradcam", "hirescam", "centred"]})
    tables = {"scores": scores, "layers": layers.assign(energy=0.3), "mean_maps": means()}
    return MapReport({"layer": "stages.0"}, tables, np.zeros((8, 8, 3), np.uint8))


def with_seeds(report: MapReport, agreement: float) -> MapReport:
    tables = report.tables | {"scores": report.tables["scores"].assign(seeds=agreement)}
    return MapReport(report.about, tables, report.mean_face)


def means() -> pd.DataFrame:
    uniform = [np.full(MEAN_SIDE**2, MEAN_SIDE**-2, dtype=np.float32)]
    rows = [(task, kind, group) for task in TASKS for kind in ("gradcam", "hirescam") for group in ("all", "male")]
    table = pd.DataFrame(rows, columns=["task", "kind", "group"])
    return table.assign(grouping="all", count=100, map=uniform * len(table))


def faces(
    randomised: float = 0.1, mirrored: float = 0.6, eyes: float = 0.4, tasks: tuple[str, ...] = TASKS
) -> MapReport:
    road = {"gradcam": 0.3, "hirescam": 0.3, "eigencam": 0.2, "random": 0.1, "centred": 0.2}
    own = dict.fromkeys(METHODS, 1.0)
    correlations = {"randomised": randomised, "mirrored": mirrored, "another": 0.2}
    known = {name: {kind: value * weight for kind, weight in own.items()} for name, value in correlations.items()}
    scores = made_up_scores({"road": road} | known, tasks=tasks)
    ids = [f"face-{n}" for n in range(NUM_FACES)]
    others = (1 - eyes) / (len(REGIONS) - 1)
    regions = pd.concat(
        pd.DataFrame({"image_id": ids, "task": task, "kind": kind} | dict.fromkeys(REGIONS, others) | {"eyes": eyes})
        for task in tasks
        for kind in ("gradcam", "hirescam")
    )
    steps = [(step, task, kind) for step in (1, 2) for task in tasks for kind in METHODS]
    cascade = pd.DataFrame(steps, columns=["step", "task", "kind"]).assign(part="heads", value=0.2)
    tables = {"scores": scores, "regions": regions, "mean_maps": means(), "cascade": cascade}
    return MapReport({"layer": "stages.0"}, tables, np.full((16, 16, 3), 128, dtype=np.uint8))


@pytest.fixture(scope="module")
def evidence() -> MapEvidence:
    return MapEvidence(
        cues={"custom_cnn": cues(0.4, 0.5), "mobilenet_v3": cues(0.1, 0.5)},
        shortcuts={0.0: cues(0.4, 0.5), 1.0: cues(0.1, 0.1)},
        faces={"custom_cnn": faces(), "mobilenet_v3": faces()},
        short={("mobilenet_v3", TASKS): faces(eyes=0.5)}
        | {("mobilenet_v3", (task,)): faces(eyes=0.3, tasks=(task,)) for task in TASKS},
        seeds={"custom_cnn": with_seeds(faces(), 0.37)},
    )


def test_a_map_is_trusted_only_if_it_passes_all_four_tests(evidence: MapEvidence):
    found = verdicts(evidence, "gradcam").set_index(["backbone", "task"])["verdict"]
    assert (found["custom_cnn"] == "trusted").all()
    assert (found["mobilenet_v3"] == "not trusted").all()  # finds the cue less often than a blob
    assert (verdicts(evidence, "hirescam")["verdict"] == "trusted").all()
    eigencam = verdicts(evidence, "eigencam")  # as good as the blob: neither passed nor failed
    assert (eigencam["T1"] == "open").all() and (eigencam["verdict"] == "cannot tell").all()
    assert len(all_verdicts(evidence)) == 2 * 3 * 3


@pytest.mark.parametrize(
    ("report", "test", "verdict"),
    [
        (faces(randomised=0.9), "T3", "not trusted"),
        (faces(mirrored=0.1), "T4", "not trusted"),
        (faces(randomised=0.5), "T3", "cannot tell"),
    ],
)
def test_sanity_can_cost_the_trust(evidence: MapEvidence, report: MapReport, test: str, verdict: str):
    spoilt = MapEvidence(evidence.cues, {}, {"custom_cnn": report}, {}, {})
    found = verdicts(spoilt, "gradcam")
    assert (found["verdict"] == verdict).all() and (found[test] != "passed").all()


def test_differences_from_rivals_are_paired_and_corrected(evidence: MapEvidence):
    family = against_rivals(evidence.cues, "energy", "hirescam")
    assert len(family) == 2 * 3 * 2 and (family["p_holm"] >= family["p"]).all()
    row = family[(family["rival"] == "random") & (family["task"] == "age")].iloc[0]
    assert row["value"] == pytest.approx(0.4, abs=0.01) and row["low"] < row["value"] < row["high"]


def test_shortcuts_and_regions_of_known_reports(evidence: MapEvidence):
    table = shortcut_table(evidence.shortcuts).set_index(["confounding", "kind", "where"])["value"]
    assert table[1.0, "hirescam", "badge"] == pytest.approx(0.1, abs=0.01)
    differences = region_differences(evidence, "mobilenet_v3").set_index(["task", "kind", "region"])
    assert len(differences) == 3 * 2 * len(REGIONS)
    assert differences.loc[("race", "hirescam", "eyes"), "value"] == pytest.approx(0.2)
    assert differences.loc[("age", "gradcam", "nose"), "value"] == pytest.approx(-0.2 / 6)
    assert region_differences(evidence, "custom_cnn").empty


def test_tables_say_which_maps_can_be_trusted(evidence: MapEvidence):
    lines = trust_table(evidence).splitlines()
    assert lines[0] == "| Task | Grad-CAM | HiResCAM | EigenCAM |" and len(lines) == 5
    assert "**trusted** 1 of 2: Custom CNN; **not trusted** 1 of 2: MobileNetV3" in lines[2]
    assert "**trusted** 2 of 2; weakest: " in lines[2] and " years |" in lines[2] and " points |" in lines[3]
    tables = map_tables(evidence)
    assert tables["tests-gradcam"].count("**trusted**") == 3
    assert tables["tests-gradcam"].count("\n") == 1 + 2 * 3
    cell = "0.37 [0.37, 0.37]"
    assert f"| Custom CNN | age | another seed, real faces | {cell} | {cell} | {cell} |" in tables["map-consistency"]
    shown = scores_with_intervals(evidence.cues["custom_cnn"].tables["scores"], "energy")
    assert list(shown.index) == ["Grad-CAM", "HiResCAM", "EigenCAM", "noise", "blob"] and list(shown) == list(TASKS)
    assert shown.loc["blob", "age"].startswith(("20.", "19.")) and "[" in shown.loc["blob", "age"]


def test_figures_can_be_drawn_with_reports_and_without(evidence: MapEvidence, tmp_path):
    nothing = read_map_evidence(tmp_path)
    assert not any((nothing.cues, nothing.shortcuts, nothing.faces, nothing.short, nothing.seeds))
    robustness = read_robustness(tmp_path)
    for name, figure in FIGURES.items():
        given = {read_map_evidence: (evidence, nothing), read_robustness: (robustness,)}
        given |= {read_evidence: (Evidence((), {}),), read_runs: ([],), read_ablations: ({},), read_bench: ({},)}
        for results in given.get(figure.read, ()):
            drawn, table = figure.draw(results)
            assert drawn.axes and (len(table) or results is not evidence), name
        plt.close("all")
    assert trust_table(nothing) == NO_REPORTS
    tables = map_tables(nothing) | robustness_tables(robustness)
    assert {name for name, text in tables.items() if "No finished" not in text} == {"corruptions"}

"""What is made of scores of maps at 128 px: the calls and the verdict of the protocol."""

import numpy as np
import pandas as pd
import pytest

from agr_lab.evidence.maps.maps_128 import SCORES_FILE, SIDES, calls, differences, maps_128_table, read_scores, verdict
from agr_lab.gpu.protocol import MAP_BACKBONES
from agr_utils.files import write_table
from agr_utils.inside.explain import METHODS
from agr_utils.inside.map_tables import RIVALS
from agr_utils.tasks import TASKS


def write_scores(folder, column, lead, num_faces=40):
    """Scores at both sizes of cells in which every map beats its rivals by ``lead`` of its task, or is beaten by it."""
    rng = np.random.default_rng(0)
    for side in SIDES:
        rows = [
            {"image_id": f"{number}.jpg", "task": task, "kind": kind,
             column: 0.5 + 0.01 * rng.standard_normal() + (0 if kind in RIVALS else lead[task])}
            for number in range(num_faces) for task in TASKS for kind in (*METHODS, *RIVALS)
        ]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        write_table(pd.DataFrame(rows), folder / SCORES_FILE.format(side))


def write_all(results_dir, lead):
    for name in MAP_BACKBONES:
        write_scores(results_dir / "cues_128" / f"synthetic-{name}-128px-s0", "energy", dict.fromkeys(TASKS, 0.2))
        write_scores(results_dir / "maps_128" / f"{name}-multi-128px", "road", lead)


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        ({"age": 0.2, "gender": 0.2, "race": -0.2}, "falls"),
        ({"age": 0.2, "gender": -0.2, "race": -0.2}, "stands"),
        ({"age": 0.2, "gender": -0.2, "race": 0.0}, "mixed"),
    ],
)
def test_the_verdict_follows_the_protocol(tmp_path, lead, expected):
    write_all(tmp_path, lead)
    called = calls(differences(read_scores(tmp_path)))
    assert {verdict(called[called["kind"] == kind]) for kind in METHODS} == {expected}
    outcomes = called.set_index(["kind", "side", "backbone", "task"])["verdict"]
    assert outcomes["gradcam", 8, "custom_cnn", "age"] == "trusted"
    table = maps_128_table(tmp_path)
    assert f"Grad-CAM: **{expected}**" in table and "| 16x16 | MobileNetV2 | age |" in table


def test_nothing_is_called_while_scores_are_missing(tmp_path):
    assert maps_128_table(tmp_path) == "Not scored yet."
    write_scores(tmp_path / "cues_128" / "synthetic-custom_cnn-128px-s0", "energy", dict.fromkeys(TASKS, 0.2))
    assert maps_128_table(tmp_path) == "Not scored yet."

"""A model is scored on another data set: bands, genders and the races that both have names for."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data as pictures
from typer.testing import CliRunner

from agr_lab.cli.main import app
from agr_lab.reports import outside
from agr_lab.reports.outside import evaluate_outside, score_outside
from agr_utils.deploy.model import SHIPPED_MODEL
from agr_utils.tasks import get_scheme

UTKFACE, FAIRFACE = get_scheme("utkface").race, get_scheme("fairface").race


@pytest.fixture(scope="module")
def fairface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in FairFace's shape: one photograph with a face, and one of a rocket, which has none."""
    folder = tmp_path_factory.mktemp("FairFace")
    (folder / "val").mkdir()
    (folder / "train").mkdir()
    Image.fromarray(pictures.astronaut()).save(folder / "val" / "1.jpg")
    Image.fromarray(pictures.rocket()).save(folder / "val" / "2.jpg")
    Image.fromarray(pictures.astronaut()[::-1]).save(folder / "train" / "1.jpg")
    header = "file,age,gender,race,service_test\n"
    rows = "val/1.jpg,30-39,Female,White,True\nval/2.jpg,3-9,Male,Black,True\n"
    (folder / "fairface_label_val.csv").write_text(header + rows)
    (folder / "fairface_label_train.csv").write_text(header + "train/1.jpg,30-39,Female,White,True\n")
    return folder


def test_scores_by_hand():
    faces = pd.DataFrame(
        {"age_min": [20, 20, 0, 70, None], "age_max": [29, 29, 2, 116, None], "gender": [0, 1, 1, 1, None],
         "race": [FAIRFACE.index(name) for name in ("white", "east_asian", "middle_eastern", "indian")] + [None]}
    ).astype("Int64")  # fmt: skip
    race = np.array(
        [[0.5, 0.1, 0.1, 0.1, 0.2], [0.1, 0.1, 0.3, 0.1, 0.4], [1, 0, 0, 0, 0], [0.9, 0, 0, 0.1, 0], [1, 0, 0, 0, 0]]
    )
    gender = np.eye(2)[[0, 0, 1, 1, 0]]
    answers = {"age_mean": np.array([29.5, 31.0, 30.0, 60.0, 5.0]), "gender": gender, "race": race}
    scores = score_outside(answers, UTKFACE, faces, FAIRFACE)
    assert scores["band_exact"].tolist()[:4] == [1, 0, 0, 0]
    assert scores["band_within_one"].tolist()[:4] == [1, 1, 0, 1]
    assert scores["years_outside_band"].tolist()[:4] == [0, 1, 27, 10]
    assert scores["gender_accuracy"].tolist()[:4] == [1, 0, 1, 1]
    assert scores["race_of_four_accuracy"].tolist()[:2] == [1, 1]  # "other" is no answer among the four
    assert np.isnan(scores["race_of_four_accuracy"][2]) and scores["race_of_four_accuracy"][3] == 0
    assert scores.iloc[4].isna().all()


def test_the_shipped_model_answers_for_faces_that_it_finds(fairface: Path):
    table, counts = evaluate_outside(SHIPPED_MODEL, "fairface", fairface)
    assert counts == {"faces": 2, "no_face": 1, "unreadable": 0} and (table["count"] == 1).all()
    assert list(table.index) == [
        "band_exact", "band_within_one", "years_outside_band", "gender_accuracy", "race_of_four_accuracy",
    ]  # fmt: skip
    assert table.loc[["band_within_one", "gender_accuracy"], "value"].tolist() == [1, 1]
    everything, counts = evaluate_outside(SHIPPED_MODEL, "fairface", fairface, detect=False)
    assert counts["no_face"] == 0 and (everything["count"] == 2).all()


def test_the_command_says_what_was_left_out(fairface: Path):
    result = CliRunner().invoke(app, ["evaluate", str(SHIPPED_MODEL), "--data", "fairface", "--source", str(fairface)])
    assert result.exit_code == 0 and "fairface test  gender_accuracy" in result.output
    assert "no face found in 1 of 2 images" in result.output and "unreadable" not in result.output


def test_an_unreadable_image_is_not_said_to_hold_no_face(fairface: Path, tmp_path: Path):
    folder = shutil.copytree(fairface, tmp_path / "FairFace")
    (folder / "val" / "2.jpg").write_text("not an image")
    result = CliRunner().invoke(app, ["evaluate", str(SHIPPED_MODEL), "--data", "fairface", "--source", str(folder)])
    assert "no face found in 0 of 2 images" in result.output and "left out: 1 unreadable images" in result.output


def test_a_split_without_faces_is_refused(fairface: Path, one_clear_line):
    with one_clear_line("no face of the split 'unlisted'", "--split"):
        evaluate_outside(SHIPPED_MODEL, "fairface", fairface, "unlisted")


def test_networks_of_drawn_faces_are_not_scored_on_photographs(tiny_run: Path, monkeypatch, one_clear_line):
    with one_clear_line("labels that no other data set has", "Leave --data out"):
        outside.open_answerer(tiny_run)
    for about, labels in (({}, {"gender": ["disc", "ring"]}), ({"data": "synthetic"}, {"race": ["plain", "striped"]})):
        drawn = SimpleNamespace(labels=labels, about=about)
        monkeypatch.setattr(outside, "FaceModel", lambda path, drawn=drawn: drawn)
        with one_clear_line("drawn.onnx", "labels that no other data set has"):
            outside.open_answerer(Path("drawn.onnx"))

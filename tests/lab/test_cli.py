import contextlib
import errno
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from agr_lab.cli import main as cli
from agr_lab.reports.outside import open_answerer
from agr_utils.deploy.model import SHIPPED_MODEL
from agr_utils.training.checkpoints import load_tensors, save_tensors

TINY = ["--backbone", "custom_cnn", "--num-epochs", "1", "--image-size", "32"]
TINY += ["--num-images", "100", "--batch-size", "32"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["agr", "train", *TINY, "--output-dir", str(folder)])
        with contextlib.suppress(SystemExit):  # how a command ends
            cli.main()
    return folder


COMMANDS = (
    ["data", "audit"],
    ["data", "prepare"],
    ["train"],
    ["evaluate"],
    ["predict"],
    ["figures"],
    ["explain"],
    ["robustness"],
    ["publish"],
    ["bench"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(agr, command: list[str]):
    status, out, _ = agr(*command, "--help")
    assert status == 0 and "Example:" in out


def test_train_evaluate_publish(agr, run_folder: Path, tmp_path: Path):
    status, out, _ = agr("evaluate", str(run_folder), "--split", "validation")
    assert status == 0 and "age_mae" in out and "n=10" in out
    status, out, err = agr("evaluate", str(run_folder), "--split", "unlisted")
    assert status == 1 and "there are: validation, test" in err
    table = pd.read_parquet(run_folder / "predictions.parquet").astype({"race": "Int8"})
    table.loc[table["split"] == "test", "race"] = pd.NA
    table.to_parquet(tmp_path / "unlabelled.parquet")
    status, out, _ = agr("evaluate", str(tmp_path / "unlabelled.parquet"))
    count = (table["split"] == "test").sum()
    assert status == 0 and "race_accuracy" not in out and "gender_accuracy" in out
    assert f"left out: race: {count} without a label of {count} images" in out
    status, out, _ = agr("publish", str(run_folder), "--results-dir", str(tmp_path))
    assert status == 0
    published = {path.name for path in (tmp_path / "first").iterdir()}
    assert published == {"config.json", "history.csv", "predictions.parquet"}
    recorded = json.loads((run_folder / "config.json").read_text())["command"]
    assert recorded.startswith("agr train --backbone custom_cnn")


def test_explain_and_robustness_write_into_the_run_and_are_published(
    agr, run_folder: Path, tmp_path: Path, monkeypatch
):
    run = tmp_path / "second"
    shutil.copytree(run_folder, run)
    status, _, err = agr("explain", str(run), "--other", str(run))
    assert status == 1 and "differs by its seed" in err
    other = tmp_path / "other"
    other.mkdir()
    tensors, about = load_tensors(run / "checkpoint.safetensors")
    about["config"]["seed"] += 1
    save_tensors(other / "checkpoint.safetensors", tensors, about)
    status, out, _ = agr("explain", str(run), "--num-scored", "10", "--other", str(other))
    assert status == 0 and "layer stages.0, 10 faces of test" in out and "hirescam" in out
    read = []
    monkeypatch.setattr("agr_utils.training.run.load_tensors", lambda path: read.append(path) or load_tensors(path))
    status, out, _ = agr("robustness", str(run), "--num-images", "10", "--split", "validation")
    assert status == 0 and "10 faces of validation" in out and "Low light, noise" in out and len(read) == 1
    assert agr("publish", str(run), "--results-dir", str(tmp_path / "results"))[0] == 0
    published = {path.name for path in (tmp_path / "results" / "second").iterdir()}
    assert published == {"config.json", "history.csv", "predictions.parquet", "maps", "robustness.parquet"}
    assert json.loads((run / "maps" / "about.json").read_text())["other"] == "other"
    assert pd.read_parquet(run / "robustness.parquet").attrs["split"] == "validation"
    status, _, err = agr("explain", str(run), "--layer", "stage.1")
    assert status == 1 and "Did you mean: stages.1" in err


def test_training_a_finished_run_again_trains_nothing(agr, run_folder: Path):
    before = (run_folder / "history.csv").read_text()
    assert agr("train", *TINY, "--output-dir", str(run_folder))[0] == 0
    assert (run_folder / "history.csv").read_text() == before


def test_an_exported_run_answers(agr, run_folder: Path, face_folder: Path, tmp_path: Path):
    model = tmp_path / "first.onnx"
    status, out, _ = agr("export", str(run_folder), "--output", str(model))
    assert status == 0 and "SHA-256" in out
    arguments = [str(face_folder), "--json", "--no-detect", "--model", str(model)]
    status, out, _ = agr("predict", *arguments, "--task", "all")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and len(lines) == 12 and lines[0]["model"] == run_folder.name
    assert list(lines[0])[:7] == [
        "path", "age", "age_interval", "gender", "gender_probability", "race", "race_probabilities",
    ]  # fmt: skip
    (face_folder / "näive Häuser.jpg").write_bytes(b"")
    status, out, _ = agr("predict", *arguments)
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and len(lines) == 13
    assert lines[-1]["path"].endswith("näive Häuser.jpg") and "empty" in lines[-1]["error"]
    assert all("race" not in line for line in lines)
    status, _, err = agr("predict", str(face_folder), "--model", str(run_folder / "checkpoint.safetensors"))
    assert status == 1 and "agr export" in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--backbone", "mobilnet_v3", "--output-dir", "x"], "Did you mean: mobilenet_v3"),
        (["train", "--data", "utkface", "--output-dir", "x"], "AGR_DATA_DIR"),
        (["train", "--data", "synthetic", "--source", "x", "--output-dir", "x"], "--source is of real data"),
        (["train", "--pretrained", "maybe", "--output-dir", "x"], "if-available"),
        (["evaluate", "nowhere"], "no such file"),
        (["predict", "nowhere.jpg"], "no image there"),
        (["data", "audit", "nowhere"], "no such folder"),
        (["explain", "nowhere"], "no such checkpoint"),
        (["robustness", "nowhere"], "no such checkpoint"),
        (["publish", "nowhere"], "not finished"),
    ],
)
def test_bad_input_is_one_clear_line(agr, arguments, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = agr(*arguments)
    assert status == 1 and words in err and err.startswith("agr: error: ")
    assert err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "bad input left something behind"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch):
    from agr_utils.errors import InputError

    monkeypatch.setattr(sys, "argv", ["agr", "evaluate", "nowhere", "--debug"])
    with pytest.raises(InputError):
        cli.main()


def test_an_unforeseen_error_is_one_line_too(agr, monkeypatch: pytest.MonkeyPatch):
    def explode(*args):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("agr_utils.predictions_table.read_predictions", explode)
    status, _, err = agr("evaluate", "nowhere")
    assert status == 1 and err == "agr: error: RuntimeError: two lines. Add --debug to see where\n"


def test_an_interrupt_without_words_says_how_to_go_on(agr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("agr_utils.training.run.train_run", interrupt)
    status, _, err = agr("train", *TINY, "--output-dir", str(tmp_path / "run"))
    assert status == 130 and err == "agr: stopped. Run the same command again to go on\n"


def test_an_audit_tells_copies_of_one_name_and_writes_json_that_others_can_read(agr, face_folder: Path, tmp_path: Path):
    (face_folder / "again").mkdir()
    name = sorted(face_folder.glob("*.jpg"))[0].name
    (face_folder / "again" / name).write_bytes((face_folder / name).read_bytes())
    found = json.loads(agr("data", "audit", str(face_folder), "--json")[1])
    assert found["num_images"] == 13 and found["num_identical"] == 1
    single = tmp_path / "single"
    single.mkdir()
    (single / name).write_bytes((face_folder / name).read_bytes())
    text = agr("data", "audit", str(single), "--json")[1]
    assert "NaN" not in text and json.loads(text)["age_disagreement"] is None


def test_audit_and_prepare(agr, face_folder: Path):
    (face_folder / "300_0_0_20170112213500999.jpg.chip.jpg").write_bytes(next(face_folder.iterdir()).read_bytes())
    (face_folder / "20_0_0_20170112213500998.jpg.chip.jpg").write_bytes(b"\xff\xd8\xff")
    status, out, _ = agr("data", "audit", str(face_folder), "--json")
    found = json.loads(out)
    assert status == 0 and found["num_images"] == 14 and found["num_identical"] == 1
    assert len(found["unreadable"]) == 1 and "age 300" in list(found["malformed"].values())[0]
    assert agr("data", "audit", str(face_folder))[1].count("malformed:") == 1
    status, out, err = agr("data", "prepare", "--source", str(face_folder))
    assert status == 1 and "--skip-unreadable" in err
    status, out, _ = agr("data", "prepare", "--source", str(face_folder), "--skip-unreadable")
    assert status == 0 and "unlisted  13" in out and "unreadable  1" in out


@pytest.mark.parametrize("folder", ["", "."])
def test_a_run_needs_a_folder_of_its_own(agr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str):
    monkeypatch.chdir(tmp_path)
    status, out, err = agr("train", *TINY, "--output-dir", folder)
    assert status == 1 and "--output-dir is empty or the current folder. Name a folder" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 9), "Choose a shorter name"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), "Choose another path"),
        (RuntimeError("Symlink loop from 'a'"), "Choose another path"),
        (OSError(errno.ENOSPC, "No space left on device"), "Make room"),
    ],
)
def test_errors_of_the_system_come_with_advice(error: Exception, advice: str):
    line = cli.describe_error(error)
    assert line.endswith(advice) and str(error) in line and "--debug" not in line


def test_a_model_file_may_end_in_capitals(agr, tmp_path: Path):
    shutil.copy(SHIPPED_MODEL, tmp_path / "M.ONNX")
    assert open_answerer(tmp_path / "M.ONNX")[1] == 128
    assert "need a data set" in agr("evaluate", str(tmp_path / "M.ONNX"))[2]

"""What ``agr export`` checks before it writes a file, and what it refuses."""

import errno
import json
from pathlib import Path

import pytest

from agr_lab import export


@pytest.mark.parametrize("name", ["config.json", "CONFIG.JSON", "model", "checkpoint.safetensors", "folder.onnx", "."])
def test_an_output_that_is_no_onnx_file_is_refused_at_once(name, tmp_path, monkeypatch, one_clear_line):
    monkeypatch.delattr(export, "load_run")  # nothing is computed
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "checkpoint.safetensors").write_text("weights")
    with one_clear_line("ends in .onnx"):
        export.export_run(tmp_path, tmp_path / name)
    assert (tmp_path / "checkpoint.safetensors").read_text() == "weights"


@pytest.mark.parametrize("content", ['{"run_id": "first", "config": {}}', "[1]", "no JSON"])
def test_only_a_report_is_replaced_by_a_report(content, tiny_run, exported, tmp_path, monkeypatch, one_clear_line):
    (tmp_path / "config.json").write_text(content)
    with monkeypatch.context() as patch:
        patch.delattr(export, "load_run")  # nothing is computed
        with one_clear_line("config.json", "no report of agr export", "Choose another --output"):
            export.export_run(tiny_run, tmp_path / "config.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == content
    (tmp_path / "config.json").write_bytes(exported.with_suffix(".json").read_bytes())
    export.check_output(tmp_path / "config.onnx")


def test_only_an_exported_file_is_replaced_by_one(tiny_run, exported, tmp_path, monkeypatch, one_clear_line):
    (tmp_path / "model.onnx").write_bytes(b"a model of another project")
    with monkeypatch.context() as patch:
        patch.delattr(export, "load_run")  # nothing is computed
        with one_clear_line("model.onnx", "not made by agr export", "Choose another --output"):
            export.export_run(tiny_run, tmp_path / "model.onnx", force=True)
    assert (tmp_path / "model.onnx").read_bytes() == b"a model of another project"
    (tmp_path / "model.onnx").write_bytes(exported.read_bytes())
    export.check_output(tmp_path / "model.onnx")


def test_a_file_is_not_a_run_folder(tmp_path, one_clear_line):
    (tmp_path / "README.md").write_text("about")
    with one_clear_line("README.md", "a file, not a run folder", "agr train"):
        export.export_run(tmp_path / "README.md", tmp_path / "m.onnx")
    with one_clear_line("no such checkpoint"):
        export.export_run(tmp_path, tmp_path / "m.onnx")


def test_half_precision_has_a_report_too_and_is_within_what_it_may(tiny_run: Path, tmp_path: Path):
    export.export_run(tiny_run, tmp_path / "m.onnx")
    report = json.loads((tmp_path / "m.json").read_text())
    export.check_answers(tmp_path / "m.onnx", report, int8=False)
    assert not report["int8"] and report["opset"] == 18


def report_with(**changes) -> dict:
    row = {"age_mae": 4.0, "gender_accuracy": 0.92, "race_accuracy": 0.81, "age_shift": 0.0, "apart": {"age_mean": 0.0}}
    return {"torch": row, "batch_1": row, "batch_64": row | changes}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"age_shift": -0.31}, "ages move by -0.31 years"),
        ({"age_mae": 4.31}, "from 4.00 to 4.31 years"),
        ({"gender_accuracy": 0.909}, "accuracy of gender falls from 92.0% to 90.9%"),
        ({"race_accuracy": 0.799}, "accuracy of race falls"),
        ({"age_shift": float("nan")}, "ages move by +nan years"),
    ],
)
def test_a_file_that_lost_too_much_is_refused(changes: dict, words: str, tmp_path: Path, one_clear_line):
    with one_clear_line("m.onnx", words, "(batch 64)", "--force"):
        export.check_answers(tmp_path / "m.onnx", report_with(**changes), int8=True)


def test_a_small_loss_is_let_through_in_eight_bits_only(tmp_path: Path, one_clear_line):
    report = report_with(age_shift=0.29, age_mae=4.29, gender_accuracy=0.91, race_accuracy=0.85)
    export.check_answers(tmp_path / "m.onnx", report, int8=True)
    with one_clear_line("age_mean differs by 0.2000"):
        export.check_answers(tmp_path / "m.onnx", report_with(apart={"age_mean": 0.2}), int8=False)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path, one_clear_line):
    with one_clear_line("checkpoint.safetensors"):
        export.export_run(tmp_path, tmp_path / "m.onnx", int8=True)


@pytest.mark.parametrize("opset", [-1, 17, 99])
def test_an_unknown_opset_is_refused(opset: int, tiny_run: Path, tmp_path: Path, one_clear_line):
    with one_clear_line(f"opset {opset}", "18 to 21"):
        export.export_run(tiny_run, tmp_path / "m.onnx", opset=opset)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_clear_line):
    export.write_with_report(tmp_path / "m.onnx", b"first", {"number": 1})

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with one_clear_line("m.onnx", "No space left on device"):
        export.write_with_report(tmp_path / "m.onnx", b"second", {"number": 2})
    assert (tmp_path / "m.onnx").read_bytes() == b"first"
    assert json.loads((tmp_path / "m.json").read_text()) == {"number": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.json"}

"""Published results: complete, in step with the README, and redrawn the same twice."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from agr_utils.analysis import gallery, tables
from agr_utils.analysis.comparisons import read_evidence
from agr_utils.analysis.markdown import fill_table
from agr_utils.analysis.metrics import summarize
from agr_utils.analysis.multitask import COMPARISONS, paired_seeds
from agr_utils.analysis.results import PUBLISHED_FILES, publish_run, read_folder, read_labels_from_split, read_runs
from agr_utils.data.splits import read_split_file
from agr_utils.errors import InputError
from agr_utils.models.backbones import BACKBONES
from agr_utils.runtime import repository_root
from agr_utils.study.grid import read_study
from agr_utils.training.files import PREDICTIONS_FILE, SWEEP_FILE

ROOT = repository_root()
RUNS = read_runs()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.run_id)
def test_a_published_run_supports_its_numbers(run):
    listed = read_split_file().set_index("image_id")["split"]
    assert run.about["run_id"] == run.run_id
    assert run.predictions["image_id"].is_unique
    assert (run.predictions["split"].astype(str) == run.predictions["image_id"].map(listed).astype(str)).all()
    counts = run.predictions["split"].value_counts()
    assert counts.to_dict() == {"test": (listed == "test").sum(), "validation": (listed == "validation").sum()}
    assert run.history["epoch"].iloc[-1] == pytest.approx(run.about["config"]["num_epochs"], abs=0.01)
    assert {"commit", "command", "hardware", "weights_source"} <= set(run.about)
    last = run.history.iloc[-1]
    # While training, one pass validates; the predictions average it with the mirror image's.
    validation = summarize(*run.split("validation"), num_resamples=10)["value"]
    assert validation["age_mae"] == pytest.approx(last["validation_age_mae"], abs=0.25)
    assert validation["gender_accuracy"] == pytest.approx(last["validation_gender_accuracy"], abs=0.015)


def test_the_tables_of_the_pages_are_what_the_results_give(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        shutil.copyfile(page, tmp_path / page.relative_to(ROOT))
    filled = tables.fill_tables(ROOT / "results", tmp_path)
    assert len(filled) == 5
    for page in filled:
        name = page.relative_to(tmp_path)
        assert page.read_text() == (ROOT / name).read_text(), f"{name} is old. Run: make figures"


def test_figures_are_byte_identical_when_drawn_again(tmp_path: Path):
    written = gallery.draw_all(ROOT / "results", tmp_path / "first", jobs=1)
    again = gallery.draw_all(ROOT / "results", tmp_path / "second", jobs=2)
    names = [name for module in gallery.MODULES for name in gallery.figures_of(module)]
    assert len(written) == 2 * len(names) + 1
    for path in again:
        first = (tmp_path / "first" / path.name).read_bytes()
        assert hashlib.sha256(first).digest() == hashlib.sha256(path.read_bytes()).digest(), path.name
    for name in names:
        assert (ROOT / "figures" / f"{name}.png").exists(), f"{name} is not in figures/. Run: make figures"


def test_figures_can_be_drawn_before_there_is_a_result(tmp_path: Path):
    assert gallery.draw_all(tmp_path / "nothing", tmp_path / "figures")


def test_a_page_without_markers_is_refused(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(InputError, match="no markers"):
        fill_table(page, "real-faces", "| x |")
    assert page.read_text() == "no markers"


def test_labels_can_be_read_from_the_split_file_alone():
    faces = read_labels_from_split()
    assert len(faces) == 21_288
    assert faces["race"].isna().sum() == 3 and faces["age"].notna().all()
    assert isinstance(faces["age"], pd.Series)


def test_publishing_again_keeps_a_sweep_of_the_same_predictions_only(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (*PUBLISHED_FILES, SWEEP_FILE):
        (run / name).write_text(name)
    target = publish_run(run, tmp_path / "results")
    (run / SWEEP_FILE).unlink()
    assert (publish_run(run, tmp_path / "results") / SWEEP_FILE).read_text() == SWEEP_FILE
    (run / PREDICTIONS_FILE).write_text("trained again")
    publish_run(run, tmp_path / "results")
    assert (target / PREDICTIONS_FILE).read_text() == "trained again" and not (target / SWEEP_FILE).exists()


def test_reading_results_does_not_wait_for_what_trains():
    modules = ", ".join(f"agr_utils.analysis.{name}" for name in ("tables", *gallery.MODULES))
    slow = "{'timm', 'torchvision', 'accelerate', 'torchmetrics', 'pytorch_grad_cam', 'sklearn', 'fairlearn'}"
    code = f"import sys, {modules}; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FOLDERS = {"claims": "claims claims_seeds claims_long", "equal_epochs": "equal_epochs", "cues": "cues"}
FOLDERS |= {f"ablations/{name}": name for name in ("age_heads", "balancing", "augmentation")}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_run_is_one_that_a_grid_asks_for(folder: str):
    asked = {}
    for name in FOLDERS[folder].split():
        asked |= read_study(ROOT / "docs" / "grids" / f"{name}.yaml").runs
    listed = read_split_file().set_index("image_id")["split"].astype(str)
    for run in read_folder(ROOT / "results" / folder):
        assert run.config == asked[run.run_id] and run.about["run_id"] == run.run_id
        assert run.predictions["image_id"].is_unique
        assert run.history["epoch"].iloc[-1] == pytest.approx(run.config.num_epochs, abs=0.01)
        if run.config.data == "utkface":
            assert run.about["num_train"] == (listed == "train").sum()
            splits = run.predictions["split"].astype(str)
            assert (splits == run.predictions["image_id"].map(listed)).all()
            assert splits.value_counts().to_dict().items() <= listed.value_counts().to_dict().items()


def test_within_a_seed_both_sides_of_a_claim_have_one_precision():
    evidence = read_evidence(ROOT / "results")
    for comparison in COMPARISONS:
        for backbone in BACKBONES:
            for multi, single in paired_seeds(evidence, backbone, comparison).values():
                assert {run.about["precision"] for run in single} == {multi.about["precision"]}, multi.run_id


def test_only_multitask_runs_one_an_architecture_are_published_as_such(tmp_path: Path):
    for name in ("utkface-custom_cnn-64px-s0", "claims/utkface-custom_cnn-age-64px-s0-short"):
        shutil.copytree(ROOT / "results" / name, tmp_path / Path(name).name)
    assert [run.run_id for run in read_runs(tmp_path)] == ["utkface-custom_cnn-64px-s0"]
    name = "utkface-custom_cnn-64px-s1-short"
    shutil.copytree(ROOT / "results" / "claims" / name, tmp_path / name)
    with pytest.raises(InputError, match="two published runs of one architecture"):
        read_runs(tmp_path)

"""Published results: complete, in step with the README, and redrawn the same twice."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from agr_lab.cli import main as cli
from agr_lab.evidence import gallery, pages
from agr_lab.evidence.markdown import fill_table
from agr_lab.evidence.multitask.multitask import COMPARISONS, paired_seeds
from agr_lab.evidence.reading import read_bench, read_evidence
from agr_lab.publish import publish_run
from agr_lab.study.grid import read_study
from agr_utils.data.splits import read_split_file
from agr_utils.errors import InputError
from agr_utils.files import read_json
from agr_utils.machine import repository_root
from agr_utils.measure.metrics import summarize
from agr_utils.measure.results import PUBLISHED_FILES, read_folder, read_labels_from_split, read_runs
from agr_utils.models.backbones import BACKBONES
from agr_utils.run_files import CONFIG_FILE, HISTORY_FILE, PREDICTIONS_FILE, SWEEP_FILE

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


def test_the_tables_of_the_pages_are_what_the_results_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("read_evidence", "read_map_evidence", "read_robustness"):  # what the figures are drawn of, too
        monkeypatch.setattr(pages, name, partial(gallery._read, getattr(pages, name)))
    (tmp_path / "docs").mkdir()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        shutil.copyfile(page, tmp_path / page.relative_to(ROOT))
    filled = pages.fill_pages(ROOT / "results", tmp_path)
    assert len(filled) == 8
    for page in filled:
        name = page.relative_to(tmp_path)
        assert page.read_text() == (ROOT / name).read_text(), f"{name} is old. Run: make figures"


def test_figures_are_byte_identical_when_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = gallery.draw_all(ROOT / "results", tmp_path / "first", jobs=1)
    assert len(written) == 3 * len(gallery.FIGURES) + len(gallery.FURTHER_TABLES) + 1
    other = set()
    for path in written:
        committed = ROOT / "figures" / path.name
        assert committed.exists(), f"{path.name} is not in figures/. Run: make figures"
        if path.read_bytes() != committed.read_bytes():
            other.add(path.name)
        if path.suffix == ".csv":  # what lessons read
            assert committed.read_text() == path.read_text(), f"{path.name} is old. Run: make figures"
    # The committed ones were drawn by several processes. Where a machine's fonts or arithmetic give pictures other
    # bytes, these are drawn again, so that it is not chance which.
    names = {Path(name).stem for name in other}
    for register in ("FIGURES", "FURTHER_TABLES"):
        chosen = {name: one for name, one in getattr(gallery, register).items() if name in names}
        monkeypatch.setattr(gallery, register, chosen)
    again = gallery.draw_all(ROOT / "results", tmp_path / "second", jobs=2)[:-1] if other else []  # without the page
    for path in again:
        assert (tmp_path / "first" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_figure_is_found_by_its_name():
    shared = {"road": "map_cues", "groups": "map_where", "multitask": "map_regions"}
    shared = {f"map_{name}": module for name, module in shared.items()}
    shared |= {f"robustness_{name}": "severity" for name in ("age", "gender", "race")}
    shared |= {"balancing": "ablations", "age_heads": "ablations", "corruptions": "all_corruptions"}
    page = (ROOT / "figures" / "README.md").read_text()
    for name, figure in gallery.FIGURES.items():
        module = figure.draw.__module__
        assert name.startswith(module.rsplit(".", 1)[-1]) or module.endswith(f".{shared[name]}"), name
        assert f"]({name}.csv), [code](../{module.replace('.', '/')}.py)" in page  # whatever its name is


@pytest.mark.parametrize("name", ["missing", "empty", "checkout"])
def test_figures_of_no_result_are_refused_before_anything_is_touched(tmp_path: Path, name: str, one_clear_line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "checkout" / "results" / "run").mkdir(parents=True)
    (tmp_path / "checkout" / "results" / "run" / CONFIG_FILE).write_text("{}")  # one folder too high
    before = sorted(tmp_path.rglob("*"))
    with one_clear_line(name, "no published run there", "--results-dir"):
        gallery.draw_all(tmp_path / name, tmp_path / "figures", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_pages_are_only_filled_from_the_committed_results_and_with_the_committed_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(gallery, "draw_all", lambda *arguments: asked.append(arguments) or [])
    for options in (
        [],
        ["--results-dir", str(ROOT / "results")],
        ["--results-dir", str(tmp_path)],
        ["--output-dir", "x"],
    ):
        monkeypatch.setattr(sys, "argv", ["agr", "figures", *options])
        with pytest.raises(SystemExit):
            cli.main()
    assert [root for _, _, root in asked] == [ROOT, ROOT, None, None]


def test_a_folder_with_a_page_of_ones_own_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_clear_line
):
    monkeypatch.setattr(gallery, "FIGURES", {})
    monkeypatch.setattr(gallery, "FURTHER_TABLES", {"seeds": (lambda _: pd.DataFrame({"a": [1]}), lambda _: None)})
    for name in ("README.md", "seeds.csv"):
        (tmp_path / name).write_text("my own")
    with one_clear_line("README.md", "not written by agr figures", "--output-dir"):
        gallery.draw_all(ROOT / "results", tmp_path, jobs=1)
    assert [(tmp_path / name).read_text() for name in ("README.md", "seeds.csv")] == ["my own", "my own"]
    for _ in range(2):  # its own page it writes again
        gallery.draw_all(ROOT / "results", tmp_path / "figures", jobs=1)


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


def write_run(folder: Path, *names: str) -> Path:
    """A folder with the files of a finished run, and further ones with their own name for a content."""
    folder.mkdir(parents=True)
    for name in PUBLISHED_FILES:
        shutil.copyfile(ROOT / "results" / "utkface-custom_cnn-64px-s0" / name, folder / name)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_publishing_again_keeps_a_sweep_of_the_same_predictions_only(tmp_path: Path):
    run = write_run(tmp_path / "run", SWEEP_FILE)
    target = publish_run(run, tmp_path / "results")
    (run / SWEEP_FILE).unlink()
    assert (publish_run(run, tmp_path / "results") / SWEEP_FILE).read_text() == SWEEP_FILE
    again = ROOT / "results" / "utkface-mobilenet_v2-64px-s0" / PREDICTIONS_FILE
    shutil.copyfile(again, run / PREDICTIONS_FILE)
    publish_run(run, tmp_path / "results")
    assert (target / PREDICTIONS_FILE).read_bytes() == again.read_bytes() and not (target / SWEEP_FILE).exists()


def test_another_run_of_the_same_name_is_not_replaced(tmp_path: Path, one_clear_line):
    run = write_run(tmp_path / "run")
    target = publish_run(run, tmp_path / "results")
    (target / SWEEP_FILE).write_text("of this run")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    about, history = read_json(run / CONFIG_FILE), (run / HISTORY_FILE).read_text()
    other = about | {"config": about["config"] | {"learning_rate": 0.5}}
    (run / CONFIG_FILE).write_text(json.dumps(other))
    with one_clear_line(str(target), "another run of this name, with another learning_rate", "--results-dir"):
        publish_run(run, tmp_path / "results")
    (run / CONFIG_FILE).write_text(json.dumps(about))
    (run / HISTORY_FILE).write_text(history.replace("116.544", "99.1"))  # seconds of the first epoch
    with one_clear_line(str(target), "of the same config, trained another time"):
        publish_run(run, tmp_path / "results")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    (run / HISTORY_FILE).write_text(history + history.splitlines()[-1])  # the same one, longer
    publish_run(run, tmp_path / "results")
    assert (target / HISTORY_FILE).read_bytes() == (run / HISTORY_FILE).read_bytes()


@pytest.mark.parametrize(("place", "given"), [("", "."), ("maps", ".."), ("", "../run"), ("", "../run/maps/..")])
def test_a_run_is_published_by_its_own_name_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, given: str
):
    run, other = write_run(tmp_path / "runs" / "run"), write_run(tmp_path / "results" / "other")
    (run / "maps").mkdir()
    monkeypatch.chdir(run / place)
    assert publish_run(Path(given), tmp_path / "results") == tmp_path / "results" / "run"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["other", "run"]
    assert sorted(path.name for path in other.iterdir()) == sorted(PUBLISHED_FILES)


@pytest.mark.parametrize("given", [".", "..", "../..", "/"])
def test_what_is_no_finished_run_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str):
    write_run(tmp_path / "results" / "run")
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "begun")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"no {CONFIG_FILE}, so the run is not finished"):
        publish_run(Path(given), tmp_path / "results")
    assert sorted(tmp_path.rglob("*")) == before


def test_publishing_removes_nothing_but_a_published_run(tmp_path: Path, one_clear_line):
    run = write_run(tmp_path / "runs" / "results", "checkpoint.safetensors")
    write_run(tmp_path / "results" / "claims" / "run")
    before = sorted(tmp_path.rglob("*"))
    with one_clear_line("holds claims/run", "Move it away"):
        publish_run(run, tmp_path)  # its name is that of the folder of all results
    with one_clear_line("cannot be published", "--results-dir"):
        publish_run(run, tmp_path / "runs")  # onto itself
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    with one_clear_line("cannot be published", "--results-dir"):
        publish_run(run, tmp_path / "link")
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "link") == before


def test_a_run_that_is_still_being_written_is_not_read(tmp_path: Path):
    shutil.copytree(ROOT / "results" / "utkface-custom_cnn-64px-s0", tmp_path / "utkface-custom_cnn-64px-s0")
    write_run(tmp_path / ".utkface-custom_cnn-64px-s0.partial")
    assert [run.run_id for run in read_folder(tmp_path)] == ["utkface-custom_cnn-64px-s0"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CONFIG_FILE, "[]"),
        (CONFIG_FILE, "{}"),
        (CONFIG_FILE, '{"config": 5}'),
        (CONFIG_FILE, '{"config": {"seed": "one"}}'),
        (HISTORY_FILE, ""),
        (HISTORY_FILE, "a,b\n1,2,3\n4"),
        (PREDICTIONS_FILE, "PAR1"),
    ],
)
def test_an_odd_file_of_a_published_run_is_one_clear_line(tmp_path: Path, name: str, content: str, one_clear_line):
    shutil.copytree(ROOT / "results" / "utkface-custom_cnn-64px-s0", tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    with one_clear_line(str(tmp_path / "run" / name)):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "a,b\n1,2,3\n4,5,6,7"])
def test_an_odd_table_of_a_benchmark_is_one_clear_line(tmp_path: Path, content: str, one_clear_line):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "training.csv").write_text(content)
    with one_clear_line("training.csv", "not a benchmark", "agr bench --only training"):
        read_bench(tmp_path)


def test_a_benchmark_without_a_column_is_one_clear_line(one_clear_line):
    table = pd.DataFrame({"backbone": ["custom_cnn"], "cpu": ["x"], "cores": [2], "threads": [1]})
    with one_clear_line("no seconds or torch", "Measure it again"):
        pages.bench_table(table, {"backbone": "architecture", "seconds": "seconds"})


def test_reading_results_does_not_wait_for_what_trains():
    slow = "{'timm', 'torchvision', 'accelerate', 'torchmetrics', 'pytorch_grad_cam', 'sklearn'}"
    code = f"import sys, agr_lab.evidence.gallery; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FOLDERS = {"claims": "claims claims_seeds claims_long", "cues": "cues_clothing", "cues_128": "cues_128"}
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


def test_nothing_damaged_and_no_photograph_is_published(tiny_run: Path, tmp_path: Path, one_clear_line):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "maps").mkdir()
    for name in ("about.json", "scores.parquet", "face.jpg"):
        (run / "maps" / name).write_bytes(b"x")
    published = publish_run(run, tmp_path / "results")
    assert sorted(path.name for path in (published / "maps").iterdir()) == ["about.json", "scores.parquet"]
    for name in (CONFIG_FILE, PREDICTIONS_FILE):
        kept = (run / name).read_bytes()
        (run / name).write_text("{")
        with one_clear_line(name):
            publish_run(run, tmp_path / "results")
        (run / name).write_bytes(kept)
    assert (published / CONFIG_FILE).read_bytes() == (run / CONFIG_FILE).read_bytes()

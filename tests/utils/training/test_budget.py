"""Training by the clock, and what can be watched meanwhile."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from agr_utils.data.load import FaceData, load_data
from agr_utils.files import read_json
from agr_utils.run_files import CONFIG_FILE
from agr_utils.training import budget
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import check_run_folder, train_run
from agr_utils.training.trainer import Trainer

CONFIG = TrainConfig(backbone="test_efficientnet", image_size=32, batch_size=16, num_images=400, precision="fp32")


@pytest.fixture(scope="module")
def data() -> FaceData:
    return load_data("synthetic", 32, num_images=400)


def test_a_run_by_the_clock_ends_near_its_time_and_can_be_repeated_by_epochs(data: FaceData, tmp_path: Path):
    started = time.perf_counter()
    table = train_run(CONFIG, data, tmp_path / "clock", minutes=0.1)
    minutes = (time.perf_counter() - started) / 60
    # 5 % on a quiet machine and a longer run (docs/scaling.md); tests share the machine with others.
    assert 0.05 < minutes < 0.2
    about = read_json(tmp_path / "clock" / CONFIG_FILE)
    epochs = about["config"]["num_epochs"]
    assert about["minutes"] == 0.1 and epochs > 1
    history = pd.read_csv(tmp_path / "clock" / "history.csv")
    assert history["epoch"].iloc[-1] == pytest.approx(epochs, abs=0.05)
    assert history["learning_rate"].iloc[-1] == 0  # the schedule ends with the time
    again = train_run(replace(CONFIG, num_epochs=epochs), data, tmp_path / "epochs")
    pd.testing.assert_frame_equal(table.drop(columns="run_id"), again.drop(columns="run_id"), check_exact=True)


def test_the_plan_of_a_run_is_made_once(
    data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_clear_line
):
    train_run(CONFIG, data, tmp_path, minutes=0.1)
    planned = read_json(tmp_path / CONFIG_FILE)["config"]["num_epochs"]
    monkeypatch.setattr("agr_utils.training.run.plan_epochs", None)  # calling it would fail
    train_run(CONFIG, data, tmp_path, minutes=0.1)
    assert read_json(tmp_path / CONFIG_FILE)["config"]["num_epochs"] == planned
    with one_clear_line(str(tmp_path), "--minutes"):
        check_run_folder(CONFIG, tmp_path, minutes=0.2)


@pytest.mark.parametrize("minutes", [float("nan"), float("inf")])
def test_minutes_that_are_no_number(tmp_path: Path, one_clear_line, minutes: float):
    with one_clear_line("minutes is", "must be a number of minutes"):
        check_run_folder(CONFIG, tmp_path / "run", minutes)


def test_too_few_minutes_are_an_error_that_says_how_many_it_takes(data: FaceData, one_clear_line):
    with one_clear_line("0.001 minutes are too short", "an epoch takes"):
        budget.plan_epochs(CONFIG, data, 0.001, num_predicted=100)


def test_training_may_start_with_smaller_images(data: FaceData, tmp_path: Path, one_clear_line):
    large = load_data("synthetic", 48, num_images=400)
    config = replace(CONFIG, image_size=48, early_size=32, early_share=0.5, num_epochs=2)
    trainer = Trainer(config, large)
    sizes = []
    make_batch = trainer.make_batch

    def remember(rows):
        images, labels = make_batch(rows)
        sizes.append(images.shape[-1])
        return images, labels

    trainer.make_batch = remember
    history = trainer.run()
    half = len(sizes) // 2
    assert sizes == [32] * half + [48] * half and len(history) == 2
    with one_clear_line("early_size is 48", "below 48"):
        replace(config, early_size=48)
    with one_clear_line("early_share is 1.5"):
        replace(config, early_share=1.5)


def test_tensorboard_gets_the_history(data: FaceData, tmp_path: Path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_run(replace(CONFIG, num_epochs=2), data, tmp_path, tensorboard=True)
    history = pd.read_csv(tmp_path / "history.csv")
    events = event_accumulator.EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    events.Reload()
    written = events.Scalars("train_loss")
    assert [event.step for event in written] == history["step"].tolist()
    assert [event.value for event in written] == pytest.approx(history["train_loss"].tolist(), rel=1e-4)


def test_tensorboard_that_is_not_installed_is_one_clear_line(
    data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_clear_line
):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("agr_utils.training.accelerator.is_tensorboard_available", lambda: False)
    with one_clear_line("TensorBoard is not installed", "pip install tensorboard"):
        Trainer(CONFIG, data, tmp_path, tensorboard=True)

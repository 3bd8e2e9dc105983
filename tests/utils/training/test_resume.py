"""A run that is killed, stopped or finds a damaged state ends with the same bits as one that was left alone."""

import contextlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from agr_lab.study.status import run_status
from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.files import read_json, write_json
from agr_utils.run_files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    PREVIOUS_STATE_FILE,
    STATE_FILE,
)
from agr_utils.training import state
from agr_utils.training.checkpoints import load_tensors, save_tensors
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import train_run
from agr_utils.training.state import load_state, save_state
from agr_utils.training.trainer import Trainer

NUM_KILLS = 20 if os.environ.get("AGR_LONG_TESTS") else 3
CONFIG = TrainConfig(
    backbone="test_efficientnet", num_epochs=3, image_size=32, batch_size=16, num_images=160, precision="fp32"
)


@pytest.fixture(scope="module")
def whole(data: FaceData) -> Trainer:
    """A run that nothing happened to."""
    trainer = Trainer(CONFIG, data)
    trainer.run()
    return trainer


def assert_same_end(trainer: Trainer, whole: Trainer) -> None:
    assert trainer.step == whole.total_steps
    for name, value in whole.ema.module.state_dict().items():
        assert torch.equal(value, trainer.ema.module.state_dict()[name]), name
    losses = [column for column in whole.history_table() if column.startswith(("train", "validation"))]
    pd.testing.assert_frame_equal(trainer.history_table()[losses], whole.history_table()[losses], check_exact=True)


def happen_at(trainer: Trainer, step: int, event: Callable[[], None]) -> None:
    """Have something happen within a training step."""
    train_step = trainer.train_step

    def train_step_and_event(rows):
        losses = train_step(rows)
        if trainer.step == step:
            event()
        return losses

    trainer.train_step = train_step_and_event


class Killed(Exception):
    """Stands for a process that dies."""


def die() -> None:
    raise Killed


@pytest.mark.parametrize("step_of_death", [2, 6, 7, 13, 20])
def test_resume_is_exact(data: FaceData, whole: Trainer, tmp_path: Path, step_of_death: int):
    first = Trainer(CONFIG, data, tmp_path, save_minutes=0)  # saves after every step
    happen_at(first, step_of_death, die)
    with pytest.raises(Killed):
        first.run()
    second = Trainer(CONFIG, data, tmp_path)
    assert second.resume() and second.step == step_of_death
    second.run()
    assert_same_end(second, whole)


@pytest.mark.parametrize("epoch_of_death", [1, 3])
def test_a_death_between_the_last_step_of_an_epoch_and_its_end(
    data: FaceData, whole: Trainer, tmp_path: Path, epoch_of_death: int
):
    first = Trainer(CONFIG, data, tmp_path, save_minutes=0)
    finish = first._finish_epoch

    def finish_or_die(progress) -> None:
        if first.step == epoch_of_death * first.steps_per_epoch:
            die()
        finish(progress)

    first._finish_epoch = finish_or_die
    with pytest.raises(Killed):
        first.run()
    second = Trainer(CONFIG, data, tmp_path)
    assert second.resume() and second.step == epoch_of_death * second.steps_per_epoch
    second.run()
    assert_same_end(second, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    data: FaceData, whole: Trainer, tmp_path: Path, number: signal.Signals
):
    handler = signal.getsignal(number)
    first = Trainer(CONFIG, data, tmp_path)
    happen_at(first, 9, lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt, match=r"after step 10 of 21, saved in .* same command again to go on"):
        first.run()
    assert signal.getsignal(number) == handler
    second = Trainer(CONFIG, data, tmp_path)
    assert second.resume() and second.step == 10
    second.run()
    assert_same_end(second, whole)


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_a_death_between_the_last_state_and_the_history_loses_no_epoch(
    data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_epochs: int
):
    config = replace(CONFIG, num_epochs=num_epochs)
    write = state._write_history

    def write_or_die(trainer: Trainer) -> None:
        if len(trainer.history) == num_epochs:
            die()
        write(trainer)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(state, "_write_history", write_or_die)
        train_run(config, data, tmp_path / "run")
    train_run(config, data, tmp_path / "run")
    assert pd.read_csv(tmp_path / "run" / HISTORY_FILE)["epoch"].tolist() == list(range(1, num_epochs + 1))


def test_a_finished_run_without_a_history_gets_it_by_the_same_command(data: FaceData, tmp_path: Path):
    train_run(CONFIG, data, tmp_path / "run")
    file = tmp_path / "run" / HISTORY_FILE
    before = file.read_text()
    file.unlink()
    assert run_status(tmp_path / "run", ("validation", "test")) == "stopped"  # so a study goes on with it, too
    train_run(CONFIG, data, tmp_path / "run")
    assert file.read_text() == before
    assert run_status(tmp_path / "run", ("validation", "test")) == "finished"


def damage_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_one_bit, tear, empty])
def test_a_damaged_state_is_named_and_the_one_before_is_used(
    data: FaceData, whole: Trainer, tmp_path: Path, damage: Callable, caplog: pytest.LogCaptureFixture
):
    first = Trainer(CONFIG, data, tmp_path, save_minutes=0)
    happen_at(first, 10, die)
    with pytest.raises(Killed):
        first.run()
    damage(tmp_path / STATE_FILE)
    second = Trainer(CONFIG, data, tmp_path)
    assert second.resume() and second.step == 9
    assert STATE_FILE in caplog.text and "damaged" in caplog.text
    assert (tmp_path / "state.damaged").exists()
    second.run()
    assert_same_end(second, whole)


def test_the_state_before_is_used_where_a_kill_came_between_two_renames(data: FaceData, tmp_path: Path):
    trainer = Trainer(CONFIG, data, tmp_path)
    trainer.save()
    (tmp_path / STATE_FILE).rename(tmp_path / PREVIOUS_STATE_FILE)
    assert load_state(tmp_path)[1]["step"] == 0
    assert load_state(tmp_path / "nothing here") is None


def test_killed_at_any_event_of_a_save_there_is_a_whole_state_and_the_next_save_clears_up(tmp_path: Path, die_within):
    def save(step: int) -> None:
        save_state(tmp_path, {"model.weight": torch.full((300,), float(step))}, {"step": step})

    save(0)
    save(1)
    for death in itertools.count(1):
        (state, about), step = load_state(tmp_path), 2 * death
        assert about["step"] % 2 == 1 and (state["model.weight"] == about["step"]).all()
        status = die_within(lambda step=step: save(step), death)
        state, about = load_state(tmp_path)
        assert about["step"] in (step - 1, step) and (state["model.weight"] == about["step"]).all()
        save(step + 1)
        assert {path.name for path in tmp_path.iterdir()} == {STATE_FILE, PREVIOUS_STATE_FILE}
        if status == 0:
            break
    assert death > 4


@pytest.mark.parametrize("part", ["header", "tensors"])
def test_no_flipped_bit_of_a_state_goes_unnoticed(tmp_path: Path, part: str):
    tensors, about = {"model.weight": torch.rand(20, 20), "ema.count": torch.tensor(3)}, {"step": 7, "history": [1.5]}
    path = tmp_path / STATE_FILE
    save_tensors(path, tensors, about)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    places = range(start) if part == "header" else range(start, len(content), 7)
    unnoticed = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found, said = load_tensors(path)
        except InputError as error:
            assert path.name in str(error) and len(str(error).splitlines()) == 1
            continue
        unnoticed += 1
        assert said == about and found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert unnoticed <= 80  # the checksum itself, its name, and white space


def test_no_whole_state_is_an_error_and_not_a_silent_new_start(data: FaceData, tmp_path: Path, one_clear_line):
    trainer = Trainer(CONFIG, data, tmp_path)
    trainer.save()
    trainer.save()
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        tear(tmp_path / name)
    with one_clear_line(str(tmp_path), "no whole state", "step 0"):
        trainer.resume()


def change_label(data: FaceData) -> FaceData:
    faces = data.faces.copy()
    row = data.rows("validation")[0]
    faces.loc[row, "race"] = (faces.loc[row, "race"] + 1) % 5
    return replace(data, faces=faces)


def change_pixel(data: FaceData) -> FaceData:
    pixels = data.pixels.copy()
    pixels[data.rows("train")[0], 0, 0, 0] ^= 1
    return replace(data, pixels=pixels)


@pytest.mark.parametrize("change", [change_label, change_pixel])
@pytest.mark.parametrize("is_finished", [False, True])
def test_other_labels_or_pixels_under_the_same_names_are_refused(
    data: FaceData, tmp_path: Path, one_clear_line, change: Callable[[FaceData], FaceData], is_finished: bool
):
    config, folder = replace(CONFIG, num_epochs=1), tmp_path / "run"
    if is_finished:
        train_run(config, data, folder)
    else:
        folder.mkdir()
        Trainer(config, data, folder).save()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with one_clear_line(str(folder), "other training images, pixels or labels", "another output folder"):
        train_run(config, change(data), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    faces = data.faces.assign(image_id=data.faces["image_id"] + "x")
    with one_clear_line(str(folder), "other training images"):
        train_run(config, replace(data, faces=faces), folder)


def test_a_label_that_no_head_learns_may_change(data: FaceData, tmp_path: Path):
    config = replace(CONFIG, num_epochs=1, tasks=("age",))
    Trainer(config, data, tmp_path).save()
    assert Trainer(config, change_label(data), tmp_path).resume()


def test_a_state_of_version_1_0_0_goes_on_by_the_settings_of_its_record(data: FaceData, tmp_path: Path, one_clear_line):
    Trainer(CONFIG, data, tmp_path).save()
    tensors, about = load_state(tmp_path)
    save_state(tmp_path, tensors, {key: about[key] for key in about if key not in ("config", "data_digest")})
    for use in (train_run, lambda *given: Trainer(*given).resume()):
        with one_clear_line(f"{tmp_path / CONFIG_FILE}: no such file. Put it back, or choose another folder"):
            use(CONFIG, data, tmp_path)
    assert not (tmp_path / CONFIG_FILE).exists()
    write_json(tmp_path / CONFIG_FILE, {"config": CONFIG.to_dict()})
    with one_clear_line(f"{tmp_path / CONFIG_FILE}: of a run with another seed"):
        Trainer(replace(CONFIG, seed=7), data, tmp_path).resume()
    assert Trainer(CONFIG, data, tmp_path).resume()


@pytest.mark.parametrize("other", [{"seed": 7}, {"backbone": "custom_cnn"}])
def test_a_state_of_another_config_is_refused_though_the_record_is_gone(
    data: FaceData, tmp_path: Path, one_clear_line, other: dict
):
    Trainer(CONFIG, data, tmp_path).save()
    with one_clear_line(str(tmp_path), f"a run with another {next(iter(other))}. Choose another output folder"):
        train_run(replace(CONFIG, **other), data, tmp_path)


def test_a_record_that_is_no_record_of_resuming(data: FaceData, tmp_path: Path, one_clear_line):
    train_run(CONFIG, data, tmp_path)
    write_json(tmp_path / CONFIG_FILE, read_json(tmp_path / CONFIG_FILE) | {"resumed": "x"})
    with one_clear_line(f"{tmp_path / CONFIG_FILE}: resumed is 'x'; it must be a list"):
        train_run(CONFIG, data, tmp_path)


def test_a_full_disk_keeps_the_last_state(data: FaceData, tmp_path: Path, one_clear_line):
    trainer = Trainer(CONFIG, data, tmp_path)
    trainer.save()
    before = (tmp_path / STATE_FILE).read_bytes()
    trainer.step = 99
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the system refuses to write any longer file
    try:
        with one_clear_line("cannot write", str(tmp_path), "Free some space"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / STATE_FILE).read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))


def command(output_dir: Path, num_epochs: int) -> list[str]:
    options = "--backbone test_efficientnet --image-size 32 --batch-size 16 --num-images 160 --precision fp32"
    line = f"-m agr_lab.cli train {options} --num-epochs {num_epochs} --save-minutes 0 --output-dir {output_dir}"
    return [sys.executable, *line.split()]


def step_of(output_dir: Path) -> int:
    """The step that a run would go on from; a file may be missing or just being renamed."""
    steps = [0]
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        with contextlib.suppress(InputError):
            steps.append(load_tensors(output_dir / name)[1]["step"])
    return max(steps)


def kill_at_a_random_moment(output_dir: Path, num_epochs: int, rng: random.Random) -> bool:
    """Start (or go on with) the run and kill it soon after it has made a step; False if it came to its end."""
    before = step_of(output_dir)
    process = subprocess.Popen(command(output_dir, num_epochs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and step_of(output_dir) == before:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    process.kill()
    return process.wait() == -signal.SIGKILL


def test_killed_at_random_moments_the_end_is_the_same(data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    num_epochs = 4 * NUM_KILLS
    rng = random.Random(NUM_KILLS)
    killed, alone = tmp_path / "killed" / "run", tmp_path / "alone" / "run"
    steps = []
    for _ in range(NUM_KILLS):
        assert kill_at_a_random_moment(killed, num_epochs, rng), "the run ended before it was killed often enough"
        steps.append(step_of(killed))
    subprocess.run(command(killed, num_epochs), check=True, capture_output=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_run(replace(CONFIG, num_epochs=num_epochs), data, alone)  # and saves less often, which changes nothing
    torch.set_num_threads(threads)
    assert steps == sorted(steps) and steps[0] > 0 and steps[-1] < 7 * num_epochs, steps
    weights, expected = load_tensors(killed / CHECKPOINT_FILE)[0], load_tensors(alone / CHECKPOINT_FILE)[0]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (killed / PREDICTIONS_FILE).read_bytes() == (alone / PREDICTIONS_FILE).read_bytes()
    histories = [pd.read_csv(folder / HISTORY_FILE).filter(regex="^(train|validation)") for folder in (killed, alone)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_a_second_training_in_one_folder_is_refused_while_the_first_is_at_work(
    data: FaceData, tmp_path: Path, one_clear_line
):
    process = subprocess.Popen(command(tmp_path, 3000), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and step_of(tmp_path) == 0:
            time.sleep(0.05)
        with one_clear_line(str(tmp_path), "another training is at work", "--output-dir"):
            train_run(replace(CONFIG, num_epochs=3000), data, tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "agr: stopped after step" in errors and "Traceback" not in errors


def test_a_state_that_cannot_be_read_now_is_not_set_aside(whole: Trainer, data: FaceData, tmp_path: Path, monkeypatch):
    whole.output_dir, before = tmp_path, whole.output_dir
    whole.save()
    whole.output_dir = before

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(InputError, match="cannot be read now .Input/output error"):
        Trainer(CONFIG, data, tmp_path).resume()
    assert (tmp_path / STATE_FILE).exists()
    monkeypatch.undo()
    assert Trainer(CONFIG, data, tmp_path).resume()


def test_a_gradient_scaler_goes_on_where_it_was(data: FaceData, tmp_path: Path):
    trainer = Trainer(CONFIG, data, tmp_path)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)  # what fp16 uses on a GPU
    trainer.save()
    again = Trainer(CONFIG, data, tmp_path)
    again.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    assert again.resume() and again.accelerator.scaler.get_scale() == 8.0

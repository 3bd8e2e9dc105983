import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.files import read_json, write_json
from agr_utils.models.age_heads import AGE_HEADS
from agr_utils.models.network import MultiTaskNet
from agr_utils.run_files import CHECKPOINT_FILE, CONFIG_FILE
from agr_utils.tasks import TASKS
from agr_utils.training import run as run_module
from agr_utils.training.accelerator import choose_precision
from agr_utils.training.batches import Labels, epoch_batches, load_pixels, split_batches, steps_per_epoch
from agr_utils.training.checkpoints import load_tensors, save_tensors
from agr_utils.training.config import TrainConfig
from agr_utils.training.losses import AGE_LOSSES
from agr_utils.training.predictions import conformal_widening, predict_rows
from agr_utils.training.run import check_run_folder, load_model, predict_split, save_model, train_run
from agr_utils.training.trainer import Trainer
from agr_utils.training.validation import validate

CONFIG = TrainConfig(
    backbone="custom_cnn", num_epochs=2, image_size=32, batch_size=32, num_images=160, precision="fp32"
)


@pytest.fixture(scope="module")
def finished_run(data: FaceData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train_run(CONFIG, data, folder, "agr train …")


def test_every_image_once_an_epoch_in_another_order_each_time():
    rows = np.arange(100, 200)
    first, second = (epoch_batches(rows, 0, epoch, 32) for epoch in (0, 1))
    assert sorted(np.concatenate(first)) == sorted(rows) == sorted(np.concatenate(second))
    assert [len(batch) for batch in first] == [25, 25, 25, 25]  # no short last batch
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(first[0], epoch_batches(rows, 0, 0, 32)[0])
    assert [len(batch) for batch in split_batches(rows, 32)] == [32, 32, 32, 4]


@pytest.mark.parametrize(
    "num_images, batch_size", [(9, 2), (3, 2), (2, 2), (2, 64), (65, 64), (129, 64), (7, 3), (100, 99)]
)
def test_no_batch_has_a_single_image(num_images: int, batch_size: int):
    batches = epoch_batches(np.arange(num_images), 0, 0, batch_size)
    assert sorted(np.concatenate(batches)) == list(range(num_images))
    assert len(batches) == steps_per_epoch(num_images, batch_size)
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2 and max(sizes) <= batch_size + 1 and max(sizes) - min(sizes) <= 1


def test_one_image_is_no_training_split():
    with pytest.raises(InputError, match="1 training image is too few: batch normalisation needs at least 2"):
        epoch_batches(np.arange(1), 0, 0, 2)


def test_batches_and_labels(data: FaceData):
    rows = np.array([5, 2, 9])
    images = load_pixels(data, rows)
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.float32
    assert torch.equal((images[1] * 255).round().byte(), torch.from_numpy(data.pixels[2].copy()).permute(2, 0, 1))
    faces = data.faces.copy()
    faces.loc[2, ["age", "age_min", "age_max", "race"]] = pd.NA
    labels = Labels(FaceData(faces, data.pixels, data.scheme)).batch(rows)
    assert labels["age_min"].isnan().tolist() == [False, True, False]
    assert labels["race"][1] == -1 and labels["gender"][1] == faces.loc[2, "gender"]


def test_training_lowers_the_loss(data: FaceData):
    history = Trainer(replace(CONFIG, num_epochs=4), data).run()
    assert history["train_loss"].iloc[-1] < 0.95 * history["train_loss"].iloc[0]


def test_same_seed_same_numbers_another_seed_others(data: FaceData):
    runs = [Trainer(replace(CONFIG, seed=seed), data).run()["train_loss"].tolist() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_run_folder_is_complete(finished_run: tuple[Path, pd.DataFrame], data: FaceData):
    folder, table = finished_run
    about = json.loads((folder / "config.json").read_text())
    assert about["run_id"] == "run" and about["command"] == "agr train …"
    assert about["parameters"] > 1e6 and about["hardware"]["cores"] >= 1
    assert TrainConfig.from_dict(about["config"]) == CONFIG
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    stored = pd.read_parquet(folder / "predictions.parquet")
    assert len(stored) == len(table) == 16 + 32
    assert set(stored["split"]) == {"validation", "test"}
    assert stored.filter(like="race_p").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    assert ((stored["age_lo"] <= stored["age_pred"]) & (stored["age_pred"] <= stored["age_hi"])).all()


def test_the_age_interval_is_calibrated_on_the_validation_split(finished_run, data: FaceData):
    folder, table = finished_run
    model, about = load_model(folder / CHECKPOINT_FILE)
    plain = {split: predict_split(model, data, split, "run") for split in ("validation", "test")}
    assert about["age_widening"] == conformal_widening(plain["validation"]) != conformal_widening(plain["test"])
    stored = table[table["split"] == "test"].reset_index(drop=True)
    expected = np.minimum((plain["test"]["age_lo"] - about["age_widening"]).clip(0, 116), plain["test"]["age_pred"])
    assert stored["age_lo"].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-3)


@pytest.mark.parametrize("name", AGE_HEADS)
def test_every_age_head_is_trained_by_its_own_loss_and_can_be_loaded(name: str, data: FaceData, tmp_path: Path):
    config = replace(CONFIG, tasks=("age",), age_head=name, num_epochs=0.5, dropout=0.0)
    trainer = Trainer(config, data)
    images, labels = trainer.make_batch(trainer.train_rows[:32])
    with torch.no_grad():
        outputs = trainer.model(images)["age"]
    expected = AGE_LOSSES[name](outputs, labels["age_min"], labels["age_max"]).item()
    assert outputs.shape == (32, AGE_HEADS[name].num_outputs)
    assert trainer.optimize(images, labels)["age"] == pytest.approx(expected, rel=1e-4)
    table = train_run(config, data, tmp_path / "run")
    model, _ = load_model(tmp_path / "run" / CHECKPOINT_FILE)
    again = predict_split(model, data, "test", "run")
    stored = table[table["split"] == "test"].reset_index(drop=True)
    assert again["age_pred"].to_numpy() == pytest.approx(stored["age_pred"].to_numpy(), rel=1e-5)


def test_a_checkpoint_gives_the_same_predictions(finished_run: tuple[Path, pd.DataFrame], data: FaceData):
    folder, table = finished_run
    model, about = load_model(folder / CHECKPOINT_FILE)
    again = predict_split(model, data, "test", "run", about["age_widening"])
    pd.testing.assert_frame_equal(again, table[table["split"] == "test"].reset_index(drop=True), rtol=1e-5)


def test_a_run_folder_of_another_config_is_refused(finished_run: tuple[Path, pd.DataFrame], tmp_path: Path):
    folder, _ = finished_run
    check_run_folder(CONFIG, folder)
    with pytest.raises(InputError, match="another learning_rate"):
        check_run_folder(replace(CONFIG, learning_rate=1e-3), folder)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="a file, not a folder"):
        check_run_folder(CONFIG, file)


def can_bf16(monkeypatch: pytest.MonkeyPatch, yes: bool) -> None:
    """Have the processor have, or lack, instructions for bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: yes)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.mark.parametrize(
    "backbone, bf16, begun, chosen",
    [
        ("custom_cnn", True, None, "bf16"),
        ("custom_cnn", False, None, "no"),
        ("mobilenet_v3", True, None, "no"),
        ("custom_cnn", True, "no", "no"),
        ("mobilenet_v3", True, "bf16", "bf16"),
        ("custom_cnn", False, "bf16", "no"),
        ("custom_cnn", False, "fp16", "no"),
    ],
)
def test_a_run_keeps_its_precision_where_it_can(monkeypatch, backbone: str, bf16: bool, begun: str, chosen: str):
    can_bf16(monkeypatch, bf16)
    assert choose_precision(replace(CONFIG, backbone=backbone, precision="auto"), begun) == chosen
    assert choose_precision(replace(CONFIG, backbone=backbone, precision="bf16"), begun) == "bf16"
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        choose_precision(replace(CONFIG, backbone=backbone, precision="fp16"), begun)


def test_a_run_goes_on_in_its_precision_on_another_machine(monkeypatch, data: FaceData, tmp_path: Path, caplog):
    config = replace(CONFIG, precision="auto")
    can_bf16(monkeypatch, False)
    train_run(config, data, tmp_path / "run")
    can_bf16(monkeypatch, True)
    train_run(config, data, tmp_path / "run")
    assert read_json(tmp_path / "run" / CONFIG_FILE)["precision"] == "no" and not caplog.messages
    write_json(tmp_path / "run" / CONFIG_FILE, read_json(tmp_path / "run" / CONFIG_FILE) | {"precision": "bf16"})
    can_bf16(monkeypatch, False)
    train_run(config, data, tmp_path / "run")
    assert "begun in precision 'bf16'" in caplog.text


def test_what_was_written_down_about_a_run_stays(data: FaceData, tmp_path: Path):
    folder = tmp_path / "run"
    train_run(CONFIG, data, folder, "agr train …")
    began = read_json(folder / CONFIG_FILE)
    write_json(folder / CONFIG_FILE, began | {"commit": "then", "weights_source": "there"})
    table = train_run(CONFIG, data, folder, "agr train … --no-test", splits=("validation",))
    assert set(table["split"]) == {"validation", "test"}, "predictions of the test split were thrown away"
    about = read_json(folder / CONFIG_FILE)
    assert (about["commit"], about["weights_source"], about["command"]) == ("then", "there", "agr train …")
    assert "resumed" not in about  # nothing was trained
    write_json(folder / CONFIG_FILE, began | {"commit": "then"})
    trainer = Trainer(CONFIG, data, folder)
    assert trainer.resume()
    trainer.step -= 1
    trainer.save()
    train_run(CONFIG, data, folder)
    (again,) = read_json(folder / CONFIG_FILE)["resumed"]
    assert again["step"] == trainer.step and again["commit"] == began["commit"]


def test_a_run_goes_on_with_its_own_images_only(data: FaceData, tmp_path: Path):
    train_run(CONFIG, data, tmp_path / "run")
    fewer = FaceData(data.faces.drop(index=data.rows("train")[0]).reset_index(drop=True), data.pixels[1:], data.scheme)
    with pytest.raises(InputError, match="begun on other training images"):
        train_run(CONFIG, fewer, tmp_path / "run")


def test_the_data_must_be_the_config_s(data: FaceData):
    with pytest.raises(InputError, match="asks for synthetic at 48 px, the data is synthetic at 32 px"):
        Trainer(replace(CONFIG, image_size=48), data)
    with pytest.raises(InputError, match="asks for utkface"):
        Trainer(replace(CONFIG, data="utkface"), data)


def test_missing_labels_are_trained_around(data: FaceData):
    faces = data.faces.copy()
    train = faces.index[faces["split"] == "train"]
    faces.loc[train[::2], ["age", "age_min", "age_max"]] = pd.NA
    faces.loc[train[1::2], "race"] = pd.NA
    faces.loc[faces["split"] == "validation", "race"] = pd.NA
    history = Trainer(replace(CONFIG, num_epochs=1), FaceData(faces, data.pixels, data.scheme)).run()
    assert np.isfinite(history[["train_age", "train_race", "validation_age_mae"]].to_numpy()).all()
    assert "validation_gender_accuracy" in history and "validation_race_accuracy" not in history  # not 0


@pytest.mark.parametrize(
    "task, columns", [("age", ["age", "age_min", "age_max"]), ("gender", ["gender"]), ("race", ["race"])]
)
def test_a_task_without_a_training_label_is_refused(task: str, columns: list[str], data: FaceData, tmp_path: Path):
    faces = data.faces.copy()
    faces.loc[faces["split"] == "train", columns] = pd.NA
    unlabelled = FaceData(faces, data.pixels, data.scheme)
    with pytest.raises(
        InputError, match=f"none of the {len(data.rows('train'))} training images has a label of {task}. "
    ):
        train_run(CONFIG, unlabelled, tmp_path / "run")
    assert not (tmp_path / "run" / CONFIG_FILE).exists()
    others = tuple(name for name in TASKS if name != task)
    assert Trainer(replace(CONFIG, tasks=others), unlabelled).total_steps > 0
    faces.loc[faces["split"] == "train", ["age_min", "age_max", "gender", "race"]] = pd.NA
    with pytest.raises(InputError, match=r"a label of age or gender or race. Label some of them"):
        Trainer(CONFIG, FaceData(faces, data.pixels, data.scheme))


def test_a_class_without_a_training_image_is_named(data: FaceData, caplog):
    faces = data.faces.copy()
    faces.loc[(faces["split"] == "train") & (faces["race"] == 3).fillna(False), "race"] = pd.NA
    Trainer(CONFIG, FaceData(faces, data.pixels, data.scheme))
    name = data.scheme.classes("race")[3]
    assert f"race: no training image is labelled {name}" in caplog.text and "gender" not in caplog.text


def test_validation_of_bands_alone_has_no_age_error(data: FaceData):
    faces = data.faces.copy()
    faces["age_max"] = faces["age_max"] + 9
    model = Trainer(CONFIG, data).ema.module
    metrics = validate(model, FaceData(faces, data.pixels, data.scheme), data.rows("validation"), 7)
    assert list(metrics) == ["validation_gender_accuracy", "validation_race_accuracy"]
    table = predict_split(model, data, "validation", "")
    assert metrics["validation_gender_accuracy"] == pytest.approx(
        ((table["gender_p"] >= 0.5) == table["gender"]).mean(), abs=0.1
    )


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"image_size": 8}, "image_size is 8"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"precision": "int4"}, "unknown precision"),
        ({"num_epochs": float("nan")}, "num_epochs is nan"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"ema_decay": 2.0}, "ema_decay is 2.0"),
        ({"num_images": 5}, "num_images is 5"),
        ({"data": "imdb"}, "unknown data set"),
        ({"tasks": ("mood",)}, "unknown task"),
    ],
)
def test_bad_settings_are_refused(settings: dict, words: str):
    with pytest.raises(InputError, match=words):
        replace(CONFIG, **settings)


def test_unknown_setting_is_named():
    with pytest.raises(InputError, match="lerning_rate"):
        TrainConfig.from_dict({"lerning_rate": 1})


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"augmentation": {"erase": float("nan")}}, "augmentation.erase is nan"),
        ({"augmentation": {"flip": 2}}, "augmentation.flip is 2"),
        ({"augmentation": {"rotation": -1}}, "augmentation.rotation is -1"),
        ({"augmentation": {"scale": float("inf")}}, "augmentation.scale is inf"),
        ({"augmentation": {"shear": 1}}, "augmentation.shear"),
        ({"augmentation": [1]}, "augmentation is .1.; it must be keys with values"),
        ({"task_weights": {"age": -1.0}}, "task_weights.age is -1.0"),
        ({"task_weights": {"race": float("nan")}}, "task_weights.race is nan"),
        ({"synthetic": {"noise": "much"}}, "synthetic.noise is 'much'; it must be a number"),
        ({"synthetic": {"noise": float("nan")}}, "noise is nan"),
        ({"image_size": 10**9}, "image_size is 1000000000"),
        ({"image_size": 64.0}, "image_size is 64.0; it must be a whole number"),
        ({"batch_size": True}, "batch_size is True; it must be a whole number"),
        ({"num_images": 10**12}, "num_images is 10"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
        ({"warmup_epochs": float("inf")}, "warmup_epochs is inf"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"early_size": 64}, "early_size is 64"),
        ({"conflict_steps": 0}, "conflict_steps is 0"),
        ({"tasks": []}, "at least one"),
        ({"tasks": ["age", "age"]}, "each once"),
        ({"tasks": "age"}, "tasks is 'age'; it must be a list"),
        ({"tasks": [5]}, "a task is 5; it must be text"),
        ({"tasks": [["age"]]}, "a task is .'age'.; it must be text"),
        ({"data": "table", "labels": 5}, "labels is 5; it must be a list"),
        ({"data": "table", "labels": [5]}, "labels is 5; it must be keys with values"),
        ({"data": "table", "labels": [{"name": 5}]}, "name of a task is 5 .* Give text"),
        ({"data": "table", "labels": [{"name": "x", "column": 5}]}, "its column 5. Give text"),
        ({"data": "table", "labels": [{"name": "x", "classes": 5}]}, "x: classes are 5. Give a list of names"),
        ({"data": "table", "labels": [{"name": "x", "classes": "ab"}]}, "classes are 'ab'. Give a list of names"),
        ({"data": "table", "labels": [{"name": "x", "classes": [1, 2]}]}, "classes are .1, 2.. Give a list of names"),
        ({"data": "table", "labels": [{"name": "x", "kind": "number", "limits": 5}]}, "limits are 5. Give a list"),
        ({"data": "table", "labels": [{"name": "x", "kind": "number", "limits": ["a", "b"]}]}, "a list of numbers"),
        ({"data": "table", "labels": [{"name": "x", "kind": "number", "limits": [1]}]}, "smallest and the largest"),
        ({"pretrained": "yes"}, "unknown pretrained 'yes'"),
        ({"backbone": 5}, "backbone is 5; it must be text"),
    ],
)
def test_every_value_of_a_recorded_config_is_checked(settings: dict, words: str, one_clear_line):
    with pytest.raises(InputError, match=words) as caught:
        TrainConfig.from_dict(settings)
    assert len(str(caught.value).splitlines()) == 1


def test_too_few_images_for_a_batch(data: FaceData):
    with pytest.raises(InputError, match="fewer than a batch"):
        Trainer(replace(CONFIG, batch_size=512), data)


def test_damaged_checkpoints_are_named_and_never_unpickled(tmp_path: Path, finished_run: tuple[Path, pd.DataFrame]):
    whole = (finished_run[0] / CHECKPOINT_FILE).read_bytes()
    for name, content in {"torn": whole[: len(whole) // 2], "empty": b"", "pickle": b"\x80\x04K*."}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_model(path)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_model(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="lacks its description"):
        load_model(tmp_path / "bare.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InputError, match="not a regular file"):
        load_model(tmp_path / "pipe.safetensors")
    save_tensors(tmp_path / "foreign.safetensors", {"x": torch.zeros(2)}, {})
    with pytest.raises(InputError, match="not a checkpoint of this project"):
        load_model(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_and_the_tensor_is_named(
    tmp_path: Path, finished_run: tuple[Path, pd.DataFrame], value: float, one_clear_line
):
    tensors, about = load_tensors(finished_run[0] / CHECKPOINT_FILE)
    name = min(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = value
    save_tensors(tmp_path / "bad.safetensors", tensors, about)
    with one_clear_line("bad.safetensors", "NaN or infinity", name):
        load_model(tmp_path / "bad.safetensors")
    model, about = load_model(finished_run[0] / CHECKPOINT_FILE)
    model.state_dict()[name].fill_(value)
    with one_clear_line("new.safetensors", name):
        save_model(tmp_path / "new.safetensors", model, about)
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("about", [[], 5, None, {}, {"config": 5}, {"config": {"tasks": 1}}, {"config": {"x": 1}}])
def test_a_checkpoint_with_an_odd_description_is_one_clear_line(tmp_path: Path, about: object, one_clear_line):
    save_tensors(tmp_path / "odd.safetensors", {"x": torch.zeros(2)}, about)
    with one_clear_line("odd.safetensors", "not"):
        load_model(tmp_path / "odd.safetensors")


def test_no_rows_to_predict_are_named(data: FaceData, one_clear_line):
    with one_clear_line("there is no face to predict"):
        predict_rows(MultiTaskNet("custom_cnn", "synthetic"), data, data.rows("test")[:0])


def test_a_run_folder_stands_for_its_checkpoint_which_others_may_read(finished_run, tmp_path: Path):
    folder = finished_run[0]
    model, about = load_model(folder)
    assert about["run_id"] == "run"
    for name, value in load_model(folder / CHECKPOINT_FILE)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    (tmp_path / "plain").write_text("")
    assert (folder / CHECKPOINT_FILE).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_model_that_is_cut_while_it_is_used_stays_whole(finished_run, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((finished_run[0] / CHECKPOINT_FILE).read_bytes())
    tensors, _ = load_tensors(path)
    os.truncate(path, 100)
    assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())


def test_a_folder_whose_name_no_table_can_hold_is_refused_before_training(data: FaceData, tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"run-\xff")
    with pytest.raises(InputError, match="not valid UTF-8"):
        train_run(CONFIG, data, folder)
    assert not folder.exists()


def test_the_config_is_checked_again_once_the_folder_is_held(data: FaceData, tmp_path: Path, monkeypatch):
    folder, held = tmp_path / "run", run_module.run_lock

    def another_was_faster(output_dir: Path):
        train_run(replace(CONFIG, num_epochs=1, seed=9), data, output_dir)
        return held(output_dir)

    def hold_once(output_dir: Path):
        monkeypatch.setattr(run_module, "run_lock", held)
        return another_was_faster(output_dir)

    monkeypatch.setattr(run_module, "run_lock", hold_once)
    with pytest.raises(InputError, match="holds a run with another seed"):
        train_run(replace(CONFIG, num_epochs=1), data, folder)
    assert read_json(folder / CONFIG_FILE)["config"]["seed"] == 9


def test_a_run_in_the_working_folder_has_the_name_of_that_folder(data: FaceData, tmp_path: Path, monkeypatch):
    (tmp_path / "named").mkdir()
    monkeypatch.chdir(tmp_path / "named")
    table = train_run(replace(CONFIG, num_epochs=0.2), data, Path())
    assert read_json(Path(CONFIG_FILE))["run_id"] == "named" and set(table["run_id"]) == {"named"}

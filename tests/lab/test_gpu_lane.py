"""The accelerator lane runs on a CPU as well: packing, changes on the device, jobs that finish or wait."""

import json
import time
from collections import Counter
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from agr_lab.evidence.maps import maps_128
from agr_lab.gpu import as_run, protocol, trials
from agr_lab.gpu.augment import Changes
from agr_lab.gpu.jobs import Job, job_from
from agr_lab.gpu.pack import BYTES_FILE, FACES_FILE, OFFSETS_FILE, _encode, unpack_faces
from agr_lab.gpu.train import Shift, bundle, finish, main, make_harsh, prepare, short_answers
from agr_lab.gpu.training import Faces, score, soft_losses
from agr_utils.data.load import FaceData
from agr_utils.data.synthetic import draw_faces
from agr_utils.inside.explain import METHODS
from agr_utils.inside.map_tables import RIVALS
from agr_utils.measure.results import read_run
from agr_utils.tasks import get_scheme
from agr_utils.training.losses import age_target, distribution_loss


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    drawn = draw_faces(60, 48, 0)
    faces = drawn.faces[["image_id", "split", "age", "age_min", "age_max", "gender", "race"]].copy()
    faces["split"] = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    faces.loc[0, "race"] = pd.NA
    encoded = [_encode(image, 95) for image in drawn.pixels]
    (folder / BYTES_FILE).write_bytes(b"".join(encoded))
    np.save(folder / OFFSETS_FILE, np.cumsum([0, *map(len, encoded)]))
    faces.to_parquet(folder / FACES_FILE)
    return folder, drawn.pixels


def test_a_pack_gives_back_nearly_the_same_pixels(pack):
    folder, pixels = pack
    unpacked, faces = unpack_faces(folder)
    assert unpacked.shape == pixels.shape and len(faces) == len(pixels)
    assert np.abs(unpacked.astype(int) - pixels).mean() < 8


def test_changes_keep_shape_and_range_and_follow_the_seed(pack):
    images = torch.from_numpy(pack[1][:9].copy()).permute(0, 3, 1, 2).float() / 255
    first, again, other = (Changes(torch.Generator().manual_seed(seed))(images, 32) for seed in (1, 1, 2))
    assert first.shape == (9, 3, 32, 32) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_compression_and_blur_without_strength_change_nothing(pack):
    changes = Changes(torch.Generator().manual_seed(0), strength=0)
    images = torch.from_numpy(pack[1][:3].copy()).permute(0, 3, 1, 2).float() / 255
    changes.chosen = lambda batch, probability: torch.zeros(len(batch), 1, 1, 1)
    assert torch.allclose(changes.blur(images), images, atol=1e-5)
    assert torch.allclose(changes.jpeg(images), images, atol=1e-5)


def test_coarse_compression_is_worse_than_fine_compression(pack):
    images = torch.from_numpy(pack[1][:4].copy()).permute(0, 3, 1, 2).float() / 255
    errors = []
    for quality in (15.0, 90.0):
        changes = Changes(torch.Generator().manual_seed(0))
        changes.chosen = lambda batch, probability: torch.ones(len(batch), 1, 1, 1)
        changes.uniform = lambda low, high, *shape, quality=quality: torch.full(shape, quality)
        errors.append((changes.jpeg(images) - images).abs().mean())
    assert 0 < errors[1] < errors[0] / 2


def test_soft_losses_of_certain_labels_are_the_losses_of_the_course():
    logits, ages = torch.randn(3, 117), torch.tensor([20.0, 41, 66])
    target = age_target(ages, ages)
    ours = soft_losses({"age": logits}, {"age": target})["age"]
    assert ours.item() == pytest.approx(distribution_loss(logits, ages, ages).item(), rel=1e-4)


def test_a_missing_race_is_asked_for_nothing_and_counts_for_nothing(pack, tmp_path):
    folder, pixels = pack
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "harsh.npy", pixels[40:50])
    faces = pd.read_parquet(folder / FACES_FILE)
    faces.to_parquet(tmp_path / "faces.parquet")
    targets = Faces(tmp_path, torch.device("cpu")).targets
    assert targets["race"][0].sum() == 0 and targets["race"][1].sum() == pytest.approx(1)
    width = targets["race"].shape[1]
    perfect = {"age": np.eye(117)[faces["age"].astype(int)], "gender": np.eye(2)[faces["gender"].astype(int)]}
    perfect["race"] = np.eye(width)[faces["race"].astype("Int64").fillna(0).astype(int)]
    assert list(score(perfect, faces).items()) == [("mae", 0.0), ("gender", 1.0), ("race", 1.0)]


def test_harsh_faces_are_the_same_every_time(pack):
    threads = torch.get_num_threads()
    first, again = make_harsh(pack[1][:12]), make_harsh(pack[1][:12])
    torch.set_num_threads(threads)
    assert np.array_equal(first, again) and not np.array_equal(first, pack[1][:12])


def test_jobs_finish_once_wait_for_their_teachers_and_travel(pack, tmp_path, monkeypatch):
    tiny = {"backbone": "custom_cnn", "image_size": 32, "epochs": 0.5, "batch_size": 10, "seconds": 1, "keep": True}
    jobs = [tiny | {"name": "pupil", "teachers": ["teacher"]}, tiny | {"name": "teacher", "changes": 0}]
    jobs.append(tiny | {"name": "alone", "tasks": ["race"], "task_weights": {"race": 3}, "predict": ["test"]})
    path, work, out = tmp_path / "jobs.json", tmp_path / "work", tmp_path / "out"
    path.write_text(json.dumps(jobs))
    out.mkdir()
    arguments = ["train", str(path), "--pack", str(pack[0]), "--work", str(work), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*arguments, "--slots", "2", "--seconds", "300"])
    main()
    assert {file.name for file in (work / "pupil").iterdir()} >= {"job.json", "weights.safetensors", "validation_p.npz"}
    table = tmp_path / "recipe.csv"
    monkeypatch.setattr("sys.argv", ["trials", str(table), str(work)])
    trials.main()
    trials.main()
    rows = pd.read_csv(table).set_index("trial")
    assert list(rows.index) == ["alone", "pupil", "teacher"] and np.isnan(rows.loc["alone", "validation_mae"])
    assert rows.loc["pupil", "teachers"] == "teacher"
    assert (out / "part.00").stat().st_size > 1000
    with np.load(work / "pupil" / "validation_p.npz") as answers:
        assert answers["age_quantiles"].shape == (10, 20) and (np.diff(answers["age_quantiles"]) >= 0).all()
        assert np.abs(answers["gender"].sum(1) - 1).max() < 0.01
    assert set(np.load(work / "alone" / "test_p.npz")) == {"race"}
    bundle([job_from(jobs[0])], work, out)
    drawn = draw_faces(60, 32, 0)
    data = FaceData(drawn.faces, drawn.pixels, get_scheme("utkface"))
    monkeypatch.setattr(as_run, "load_data", lambda **_: data)
    table = as_run.become_run(work / "pupil", tmp_path / "run", ("validation",))
    run = read_run(tmp_path / "run")
    assert run.about["job"]["teachers"] == ["teacher"] and run.config.image_size == 32
    assert list(run.history["epoch"]) == sorted(run.history["epoch"]) and run.history["epoch"].iloc[-1] == 0.5
    assert len(table) == len(data.rows("validation")) and set(table["split"]) == {"validation"}


def test_what_the_time_does_not_allow_is_left_for_the_next_chance(pack, tmp_path, capsys):
    prepare(pack[0], tmp_path, harsh=False)
    faces, cpu = Faces(tmp_path, torch.device("cpu")), torch.device("cpu")
    job = Job("slow", "custom_cnn", image_size=32, epochs=10, batch_size=10, changes=0, seconds=0.01)
    row = {"backbone": "custom_cnn", "image_size": 32, "epochs": 2.0, "seconds": 100.0}
    shift = Shift(lambda _: [job], tmp_path, time.time() + 60, {"before": row})
    assert shift.seconds(job) > 500 and shift.next_job() is None  # 50 seconds per epoch: it is not begun
    hopeful = Shift(lambda _: [job], tmp_path, time.time() + 0.2, {})
    hopeful.work_off(faces, cpu)  # begun, for its own estimate is short; ended when the time is over
    assert "slow: out of time" in capsys.readouterr().out
    assert not hopeful.trained and not (tmp_path / "slow").exists()


def test_a_job_that_fails_keeps_neither_slot_from_ending(pack, tmp_path, capsys):
    prepare(pack[0], tmp_path, harsh=False)
    broken, pupil = Job("broken", "no_such_net", seconds=1), Job("pupil", "custom_cnn", teachers=["broken"], seconds=1)
    shift = Shift(lambda _: [pupil, broken], tmp_path, time.time() + 600, {})
    start = time.time()
    shift.work_off(Faces(tmp_path, torch.device("cpu")), torch.device("cpu"))
    assert shift.next_job() is None and time.time() - start < 60  # not after the 600 seconds that are lent
    assert shift.failed == {"broken"} and not shift.running and "no_such_net" in capsys.readouterr().err


def test_answers_keep_the_order_of_the_tasks():
    tasks = list("hgfedcba")  # of a set the order would be another in every process
    assert list(short_answers({task: np.zeros((1, 2)) for task in tasks})) == tasks


def test_an_unknown_setting_of_a_job_is_refused():
    with pytest.raises(SystemExit, match="epoch"):
        job_from({"name": "x", "backbone": "custom_cnn", "epoch": 3})
    assert job_from({"name": "x", "backbone": "custom_cnn"}) == Job("x", "custom_cnn")


def summary(job, bonus=0.0):
    scores = {"validation_mae": 5 + 40 / job.epochs - bonus, "validation_gender": 0.9, "validation_race": 0.8}
    scores = {name: value + bonus / 50 if value < 1 else value for name, value in scores.items()}
    return {name: value for name, value in scores.items() if name.removeprefix("validation_") in ("mae", *job.tasks)}


def test_the_protocol_is_worked_off_by_its_rules():
    finished, done = {}, []
    while todo := [job for job in protocol.plan(finished) if job.name not in finished]:
        job = todo[0]
        liked = (job.learning_rate == 0.001) + (job.task_weights == {"race": 3})
        finished[job.name] = summary(job, bonus=0.5 * liked)
        done.append(job)
    assert len({job.name for job in done}) == len(done)
    assert done[0].seed == protocol.TUNING_SEED and not any(job.changes for job in done)
    larger = {job.backbone for job in done if job.image_size != 96}
    assert larger == set(protocol.MAP_BACKBONES)
    assert len(larger) == sum(job.image_size != 96 and job.name.endswith("s1-128px") and job.keep for job in done)
    judged = [job for job in done if job.seed != protocol.TUNING_SEED and job.backbone == "mobilenet_v3"]
    assert {job.learning_rate for job in judged} == {0.001}
    multi, alone = ([job for job in judged if (len(job.tasks) == 3) is is_multi] for is_multi in (True, False))
    assert all(job.task_weights == {"race": 3} for job in multi) and not any(job.task_weights for job in alone)
    count = lambda jobs: sorted(Counter(round(job.epochs, 2) for job in jobs).items())  # noqa: E731
    assert count(alone) == [(6.67, 9), (20, 9)]
    assert count(multi) == [(10, 1), (20, 3), (40, 3)]  # each doubling of the length was worth it
    assert not any(len(job.tasks) == 1 for job in done if job.backbone == "resnet18")
    assert Counter(bool(job.initial) for job in done if job.backbone == protocol.INITIAL) == {True: 12, False: 12}
    assert {(job.epochs, job.seed) for job in done if job.keep} == {(20, 1)}


def test_a_length_is_doubled_only_while_that_pays():
    jobs, chosen = protocol.length_jobs("custom_cnn", 0.001, "equal", {})
    assert [job.epochs for job in jobs] == [10] and chosen is None
    finished = {jobs[0].name: summary(jobs[0])}
    jobs, chosen = protocol.length_jobs("custom_cnn", 0.001, "equal", finished)
    finished[jobs[1].name] = {**summary(jobs[0]), "validation_race": 0.801}  # not even 1 % fewer errors on average
    jobs, chosen = protocol.length_jobs("custom_cnn", 0.001, "equal", finished)
    assert [job.epochs for job in jobs] == [10, 20] and chosen.epochs == 10


def test_answers_of_the_device_become_a_predictions_table(pack, tmp_path):
    folder, faces = tmp_path / "finished" / "one", pd.read_parquet(pack[0] / FACES_FILE)
    folder.mkdir(parents=True)
    job = Job("one", "custom_cnn", epochs=2, image_size=32, predict=("test",))
    about = {"job": asdict(job), "torch": "2", "device": "chip", "precision": "fp32", "steps": 8, "seconds": 3.0}
    (folder / "job.json").write_text(json.dumps(about))
    (folder / "history.csv").write_text("step,validation_mae\n4,9\n8,8\n")
    belief = np.eye(117)[[30] * 10].astype(np.float32)
    answers = {"age": belief, "gender": np.tile([0.25, 0.75], (10, 1)), "race": np.full((10, 5), 0.2)}
    np.savez_compressed(folder / "test_p.npz", **short_answers(answers))
    as_run.record_answers(folder, tmp_path / "one", faces, "abc", with_quantiles=True)
    run = read_run(tmp_path / "one")
    table = run.predictions
    assert (table["split"] == "test").all() and table["image_id"].tolist() == faces["image_id"][50:].tolist()
    assert (table["age_pred"] == 30).all() and (table["gender_p"] == 0.75).all() and "race_p4" in table
    assert table["age_q0.025"].iloc[0] == pytest.approx(29.5) and table.filter(like="age_q").shape[1] == 20
    assert run.about["commit"] == "abc" and list(run.history["epoch"]) == [1, 2]
    assert run.about["precision"] == run.about["config"]["precision"] == "fp32"
    assert run.config.warmup_epochs == 0.1  # a twentieth of the steps, as the lane warms up
    assert "as_run work/one runs --faces" in run.about["command"]


def test_maps_of_a_finished_job_are_scored_on_the_pixels_of_its_pack(pack, tmp_path, monkeypatch):
    prepare(pack[0], tmp_path, harsh=False)
    faces, device = Faces(tmp_path, torch.device("cpu")), torch.device("cpu")
    job = Job("small", "custom_cnn", image_size=48, epochs=1, batch_size=20, changes=0, keep=True, evaluations=1)
    finish(job, faces, tmp_path, device, time.time() + 600)
    monkeypatch.setattr(maps_128, "MAP_SIZE", 48)
    ((_, table),) = maps_128.score_faces(tmp_path / "small", (12,))
    assert set(table["kind"]) == {*METHODS, *RIVALS} and set(table["task"]) == {"age", "gender", "race"}
    assert table["image_id"].nunique() == 10 and np.isfinite(table["road"]).all()

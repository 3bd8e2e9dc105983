"""The benchmarks run, and their tables say what they claim; how fast anything is, no test asks."""

import subprocess
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from agr_lab.bench import processes as benchmark_processes
from agr_lab.bench.pipelines import TIME_SHARES, JpegDataset, bench_pipelines, open_faces, usual_transforms
from agr_lab.bench.report import BENCHMARKS, QUICK, choose_benchmarks
from agr_lab.bench.steps import bench_latency, bench_training, take_turns
from agr_lab.cli import main as cli
from agr_lab.evidence.reading import measured, read_bench
from agr_lab.evidence.speed import draw_speed
from agr_utils.data.augment import Augmentation


def test_turns_are_interleaved_and_the_first_round_does_not_count():
    calls = []
    turns = {name: lambda name=name: calls.append(name) or len(calls) for name in ("a", "b")}
    rates = take_turns(turns, seconds=0, min_rounds=20)
    rounds = [tuple(calls[number : number + 2]) for number in range(0, len(calls), 2)]
    assert set(rounds[1:]) == {("a", "b"), ("b", "a")}  # in no fixed order
    assert rates["a"].tolist() == [number + 1 for number, name in enumerate(calls) if name == "a"][1:]
    assert rates["b"].tolist() == [number + 1 for number, name in enumerate(calls) if name == "b"][1:]


def test_everything_runs_as_often_right_after_itself():
    calls = []
    turns = {name: lambda name=name: calls.append(name) or 1.0 for name in "abc"}
    take_turns(turns, seconds=0, min_rounds=600)
    again = Counter(one for one, after in pairwise(calls) if one == after)
    assert min(again[name] for name in "abc") > 40  # of about 67; back and forth, "b" never would


def test_turns_go_on_until_the_time_is_up():
    assert len(take_turns({"a": lambda: 1.0}, seconds=0.05, min_rounds=1)) > 1


def test_training_has_a_row_for_each_architecture_and_size():
    settings = replace(QUICK, backbones=("custom_cnn", "mobilenet_v3"), image_sizes=(32, 40), batch_size=4)
    table = bench_training(settings)
    assert list(zip(table["image_size"], table["backbone"], strict=True)) == [
        (size, name) for size in settings.image_sizes for name in settings.backbones
    ]
    quotient = table["images_per_second"] / table["limit_images_per_second"]
    assert np.allclose(table["share_of_compute_limit"], quotient)
    assert (table["slowest"] <= table["images_per_second"]).all()
    assert (table["images_per_second"] <= table["fastest"]).all()


def test_latency_is_measured_on_one_thread_for_one_image_and_for_a_batch():
    threads = torch.get_num_threads()
    table = bench_latency(replace(QUICK, backbones=("custom_cnn", "mobilenet_v3"), batch_size=4))
    assert table["batch_size"].tolist() == [1, 1, 4, 4] and set(table["threads"]) == {1}
    assert (table["fastest"] <= table["seconds"]).all() and (table["seconds"] <= table["slowest"]).all()
    assert torch.get_num_threads() == threads


def test_both_pipelines_give_the_same_labels_and_nearly_the_same_images():
    settings = replace(QUICK, num_faces=40)
    with open_faces(None, settings) as faces:
        data = faces.load(32)
        rows = data.rows("train")[:5]
        images, labels = zip(*JpegDataset(faces.folder, data, rows, usual_transforms(32, None)), strict=True)
    assert not faces.folder.exists()
    expected = data.faces.iloc[rows]
    for name in ("age_min", "gender", "race"):
        assert [label[name] for label in labels] == expected[name].tolist()
    pixels = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2) / 255
    assert (torch.stack(images) - pixels).abs().mean() < 0.02


def test_the_usual_transforms_augment():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    transform = usual_transforms(32, Augmentation())
    first, second = transform(image), transform(image)
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32
    assert not torch.equal(first, second)


def test_too_few_images_or_an_archive_are_one_clear_line(face_folder: Path, tmp_path: Path, one_clear_line):
    with open_faces(face_folder, QUICK) as faces, one_clear_line("12 images are too few", "give 187 or more"):
        bench_pipelines(QUICK, faces)
    archive = tmp_path / "faces.tar"
    archive.touch()
    with one_clear_line("faces.tar", "Unpack it"), open_faces(archive, QUICK):
        pass


def test_only_known_benchmarks_can_be_chosen(one_clear_line):
    assert choose_benchmarks(None) == list(BENCHMARKS)
    assert choose_benchmarks("memory, training") == ["memory", "training"]
    with one_clear_line("--only names 'speed'", *BENCHMARKS):
        choose_benchmarks("training,speed")
    with one_clear_line("--only names ''"):
        choose_benchmarks("")


def test_a_process_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, one_clear_line):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback …\nOSError: first line\nno space left\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with one_clear_line("measure_memory failed", "no space left"):
        benchmark_processes.run_fresh("measure_memory", folder="x")


def test_memory_is_left_out_where_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(benchmark_processes, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli.app, ["bench", "--quick", "--only", "memory", "--output-dir", str(tmp_path)])
    assert result.exit_code == 0 and "memory: not measured" in result.stdout
    assert not list(tmp_path.iterdir())


def in_this_process(measure: str, **arguments) -> dict:
    """What ``run_fresh`` gives, without a process whose start costs more than what is measured."""
    return getattr(benchmark_processes, measure.rpartition(".")[2])(**arguments) | {"import_seconds": 1.0}


def test_the_quick_command_writes_every_table_and_they_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    start, train = (
        benchmark_processes.run_fresh,
        benchmark_processes._train_rate,
    )  # one real process each
    call = lambda measure, **more: (start if measure.endswith("measure_start") else in_this_process)(measure, **more)  # noqa: E731
    monkeypatch.setattr(benchmark_processes, "run_fresh", call)
    monkeypatch.setattr("agr_utils.training.run.plan_epochs", lambda *_: 0.05)  # on a busy machine it may find no time
    monkeypatch.setattr(benchmark_processes, "_train_rate", lambda *way: train(*way) if way[1] > 1 else 100.0)
    result = CliRunner().invoke(cli.app, ["bench", "--quick", "--output-dir", str(tmp_path / "bench")])
    assert result.exit_code == 0, result.exception
    tables = read_bench(tmp_path)
    assert set(tables) == set(BENCHMARKS)
    for name, table in tables.items():
        assert f"{name}.csv" in result.stdout
        assert {"cpu", "cores", "threads", "torch", "image_size", "batch_size"} <= set(table), name
    cores = torch.get_num_threads()
    assert tables["processes"]["threads"].tolist()[:3] == [1, cores, max(1, cores // 2)]  # each row's own
    pipelines = tables["pipelines"]
    assert pipelines["measure"].tolist() == list(TIME_SHARES)
    quotient = pipelines["images_per_second"] / pipelines["peer_images_per_second"]
    assert np.allclose(pipelines["ratio"], quotient, rtol=1e-3)  # files hold five digits
    start = tables["startup"].iloc[0]
    assert start["import_seconds"] > 0 and start["num_images"] == QUICK.num_faces
    parts = start[["load_seconds", "build_seconds", "first_step_seconds"]].sum()
    assert parts == pytest.approx(start["seconds"], rel=1e-3)
    assert tables["memory"]["num_images"].tolist() == list(QUICK.cached_images)
    assert (tables["memory"]["peak_mib"] > 100).all()
    assert draw_speed(tables)[0].axes[0].get_xlabel()


def test_the_speed_of_an_epoch_is_that_at_64_pixels(tmp_path: Path):
    (tmp_path / "bench").mkdir()
    table = pd.DataFrame({"backbone": ["a", "a"], "image_size": [64, 96], "images_per_second": [300.0, 150.0]})
    table.to_csv(tmp_path / "bench" / "training.csv", index=False)
    bench = read_bench(tmp_path)
    assert measured(bench["training"], "images_per_second", image_size=64).to_dict() == {"a": 300.0}
    assert measured(bench.get("latency"), "seconds", batch_size=1).empty

"""A grid of runs: what it names, what it skips, what a failure or a killed worker does to it."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from PIL import Image

from agr_lab.study import train
from agr_lab.study.grid import read_study, refuse_unused
from agr_lab.study.pools import ProcessDied
from agr_lab.study.status import format_duration, render_status, status_table
from agr_lab.study.train import finish_runs, run_study
from agr_utils.data.load import FaceData, load_data
from agr_utils.data.synthetic import draw_faces
from agr_utils.dials import SyntheticSettings
from agr_utils.errors import InputError
from agr_utils.files import read_json
from agr_utils.run_files import CONFIG_FILE, ERROR_FILE, HISTORY_FILE, LOCK_FILE, LOG_FILE, PREDICTIONS_FILE, STATE_FILE
from agr_utils.training.config import TrainConfig
from agr_utils.training.guards import run_lock

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "grids" / "example.yaml"
SMALL = """
output_dir: {folder}
splits: [validation]
settings: {{num_images: 160, image_size: 32, batch_size: 16, num_epochs: {epochs}, precision: fp32}}
"""


def write_grid(folder: Path, rest: str, epochs: float = 1) -> Path:
    path = folder / "grid.yaml"
    path.write_text(SMALL.format(folder=folder / "runs", epochs=epochs) + rest)
    return path


def test_the_example_names_its_runs_as_the_published_ones_are_named():
    study = read_study(EXAMPLE)
    assert list(study.runs) == [
        "synthetic-custom_cnn-40px-s0",
        "synthetic-custom_cnn-age-40px-s0",
        "synthetic-mobilenet_v3-40px-s0",
        "synthetic-mobilenet_v3-age-40px-s0",
    ]
    assert study.runs["synthetic-custom_cnn-age-40px-s0"].tasks == ("age",)
    assert study.options.splits == ("validation",)


def test_what_tells_runs_apart_is_in_their_names(tmp_path: Path):
    grid = "grid: {learning_rate: [1e-3, 0.003], tasks: [[race, gender]], seed: [0, 1]}\n"
    extra = "runs: [{task_weights: {age: 0.5}}, {}]"
    runs = read_study(write_grid(tmp_path, grid + extra)).runs
    assert list(runs) == [
        "synthetic-mobilenet_v3-gender+race-32px-s0-learning_rate_0.001",
        "synthetic-mobilenet_v3-gender+race-32px-s1-learning_rate_0.001",
        "synthetic-mobilenet_v3-gender+race-32px-s0-learning_rate_0.003",
        "synthetic-mobilenet_v3-gender+race-32px-s1-learning_rate_0.003",
        "synthetic-mobilenet_v3-32px-s0-age_0.5",
        "synthetic-mobilenet_v3-32px-s0-age_1.0",
    ]
    assert list(runs.values())[4].task_weights == {"age": 0.5, "gender": 1.0, "race": 1.0}


def test_several_grids_and_a_label(tmp_path: Path):
    grids = "grid: [{backbone: [custom_cnn], tasks: [all, age]}, {backbone: [mobilenet_v3], seed: [1]}]\nlabel: short"
    assert list(read_study(write_grid(tmp_path, grids)).runs) == [
        "synthetic-custom_cnn-32px-s0-short",
        "synthetic-custom_cnn-age-32px-s0-short",
        "synthetic-mobilenet_v3-32px-s1-short",
    ]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("grid: [", "not a YAML file"),
        ("grid: [seed]", "a grid is 'seed'; it must be keys with values"),
        ("grids: {}", "Did you mean: grid"),
        ("grid: {seed: 1}", "write a list of values"),
        ("grid: {colour: [1]}", "unknown key 'colour'"),
        ("grid: {backbone: [mobilnet_v3]}", "mobilenet_v3"),
        ("grid: {learning_rate: [ten]}", "learning_rate is 'ten'; it must be a number"),
        ("grid: {num_epochs: [2]}", "under settings and under grid"),
        ("grid: {task_weights: [{ages: 1}]}", "task_weights.ages"),
        ("runs: [{seed: 1}, {seed: 1}]", "asked for twice"),
        ("runs: [seed]", "a run under runs"),
        ("threads: 0", "threads is 0"),
        ("threads: 1000000", "threads is 1000000"),
        ("label: " + "x" * 300, "too long a name"),
        ("runs: [{augmentation: {erase: .nan}}]", "augmentation.erase is nan"),
        ("runs: [{task_weights: {age: -1}}]", "task_weights.age is -1"),
        ("runs: [{image_size: 1000000}]", "image_size"),
        ("runs: [{learning_rate: .inf}]", "learning_rate is inf"),
        ("runs: [{tasks: [[age]]}]", "a task is ['age']; it must be text"),
        ("runs: [{seed: " + "1" * 5000 + "}]", "not a YAML file"),
        ("runs: [{seed: 2001-13-45}]", "not a YAML file"),
        ("runs: " + "[" * 5000 + "]" * 5000, "not a YAML file"),
        ("a: &a [*a]", "too large"),
        ("runs: [{seed: 1, seed: 2}]", "the key 'seed' stands twice here"),
        ("output_dir: elsewhere", "the key 'output_dir' stands twice here"),
    ],
)
def test_a_grid_that_cannot_be_is_one_clear_line(rest: str, words: str, tmp_path: Path, one_clear_line):
    with one_clear_line("grid.yaml", words):
        read_study(write_grid(tmp_path, rest))


@pytest.mark.parametrize("splits", ["[]", "[validation, validation]"])
def test_splits_that_no_run_could_finish(splits: str, tmp_path: Path, one_clear_line):
    grid = write_grid(tmp_path, "")
    grid.write_text(grid.read_text().replace("[validation]", splits))
    with one_clear_line("grid.yaml", "splits is [", "each once"):
        read_study(grid)


BOMB = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 12))
MERGE_BOMB = "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("x0: &x0 [1]\n" + BOMB, "too large for a grid"),
        ("x0: &x0 [1]\n" + BOMB + "runs: [{seed: *x11}]", "too large for a grid"),
        ("m0: &m0 {seed: 1}\n" + MERGE_BOMB, "too large for a grid"),
        ("grid: {" + ", ".join(f"a{n}: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]" for n in range(9)) + "}", "1,000,000,000 runs"),
    ],
    ids=["aliases", "aliases in a run", "merged keys", "combinations"],
)
def test_a_grid_that_would_grow_without_bound_is_refused_before_it_does(
    rest: str, words: str, tmp_path: Path, one_clear_line
):
    started, limits = time.perf_counter(), resource.getrlimit(resource.RLIMIT_DATA)
    used = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + 2**28, limits[1]))
    try:
        with one_clear_line("grid.yaml", words):
            read_study(write_grid(tmp_path, rest))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    assert time.perf_counter() - started < 5


def test_a_grid_may_use_anchors(tmp_path: Path):
    rest = "runs: [&first {seed: 1, dropout: 0.1}, {<<: *first, seed: 2}]"
    assert [(run.seed, run.dropout) for run in read_study(write_grid(tmp_path, rest)).runs.values()] == [
        (1, 0.1),
        (2, 0.1),
    ]


def make_log_a_folder(folder: Path) -> None:
    (folder / LOG_FILE).mkdir(parents=True)


def make_run_a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("")


def break_config(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text('{"config": [')


def make_config_odd(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text('{"config": {"seed": "one"}}')


def make_lock_a_folder(folder: Path) -> None:
    (folder / LOCK_FILE).mkdir(parents=True)


def make_error_a_folder(folder: Path) -> None:
    (folder / ERROR_FILE / "x").mkdir(parents=True)


ODDITIES = [make_log_a_folder, make_run_a_file, break_config, make_config_odd, make_lock_a_folder, make_error_a_folder]


@pytest.mark.parametrize("make_odd", ODDITIES)
def test_an_odd_run_folder_stops_no_other_run(tmp_path: Path, make_odd: Callable):
    grid = write_grid(tmp_path, "runs: [{backbone: test_efficientnet}, {backbone: test_efficientnet, seed: 1}]", 0.2)
    odd, good = read_study(grid).runs
    make_odd(tmp_path / "runs" / odd)
    study = read_study(grid)
    outcomes = dict(run_study(study))
    assert outcomes[good] == "" and outcomes[odd] != "" and len(outcomes[odd].splitlines()) == 1
    assert status_table(study)["status"].tolist()[1] == "finished"


@pytest.mark.parametrize("content", ["", "\0\0", "epoch", "a,b\n1,2,3\n4", "epoch,seconds\n"])
def test_a_broken_history_stops_no_run_and_is_made_again(tmp_path: Path, content: str):
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}]", 1))
    folder = study.output_dir / next(iter(study.runs))
    folder.mkdir(parents=True)
    (folder / HISTORY_FILE).write_text(content)
    assert status_table(study)["epochs"].tolist() == [0]
    assert list(dict(run_study(study)).values()) == [""]
    assert pd.read_csv(folder / HISTORY_FILE)["epoch"].tolist() == [1]


def test_finished_runs_are_skipped_and_a_failure_stops_nothing(tmp_path: Path):
    failing = "runs: [{backbone: test_efficientnet, batch_size: 4096}, {backbone: test_efficientnet, seed: 1}]"
    study = read_study(write_grid(tmp_path, failing))
    outcomes = dict(run_study(study))
    broken, good = study.runs
    assert "fewer than a batch" in outcomes[broken] and outcomes[good] == ""
    assert "fewer than a batch" in (study.output_dir / broken / ERROR_FILE).read_text()
    assert status_table(study)["status"].tolist() == ["failed", "finished"]
    stamp = (study.output_dir / good / PREDICTIONS_FILE).stat().st_mtime_ns
    assert len(list(run_study(study))) == 1  # the failed one is tried again
    assert (study.output_dir / good / PREDICTIONS_FILE).stat().st_mtime_ns == stamp


def write_own_grid(folder: Path, rest: str) -> Path:
    """A grid on a table of 60 drawings with an age and a hat, the first 48 to train on."""
    drawn = draw_faces(60, 32, 0)
    rows = pd.DataFrame({"path": [f"{n:02}.png" for n in range(60)], "age": drawn.faces["age"].astype(int)})
    rows["hat"] = drawn.faces["gender"].map({0: "no", 1: "yes"})
    rows["split"] = ["train"] * 48 + ["validation"] * 12
    rows.to_csv(folder / "faces.csv", index=False)
    for path, pixels in zip(rows["path"], drawn.pixels, strict=True):
        Image.fromarray(pixels).save(folder / path)
    own = f"source: {folder / 'faces.csv'}\n{rest}"
    grid = write_grid(folder, own)
    labels = "data: table, labels: [{name: age, kind: age}, {name: hat, classes: ['no', 'yes']}]"
    small = "backbone: test_efficientnet, image_size: 32, batch_size: 8, num_epochs: 0.2, precision: fp32"
    settings = f"settings: {{{labels}, {small}}}"
    grid.write_text(re.sub(r"settings: .*", lambda _: settings, grid.read_text()))
    return grid


def test_a_finished_run_whose_labels_have_changed_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = read_study(write_own_grid(tmp_path, "grid: {seed: [0, 1]}"))
    first, second = study.runs
    assert dict(run_study(study)) == {first: "", second: ""}
    digests = Mock(side_effect=train.digest_data)
    monkeypatch.setattr(train, "digest_data", digests)
    assert dict(run_study(study)) == {} and digests.call_count == 1  # for both

    kept = (tmp_path / "faces.csv").read_text()
    predictions = (study.output_dir / first / PREDICTIONS_FILE).read_bytes()
    swapped = kept.replace(",yes,", ",?,").replace(",no,", ",yes,").replace(",?,", ",no,")
    (tmp_path / "faces.csv").write_text(swapped)
    for _ in range(2):  # it does not become finished by being asked for again
        outcomes = dict(run_study(study))
        assert [*outcomes] == [first, second]
        assert all("begun on other training images, pixels or labels" in reason for reason in outcomes.values())
        assert status_table(study)["status"].tolist() == ["failed", "failed"]
    assert (study.output_dir / first / PREDICTIONS_FILE).read_bytes() == predictions

    (tmp_path / "faces.csv").write_text(kept)
    assert dict(run_study(study)) == {first: "", second: ""}
    assert status_table(study)["status"].tolist() == ["finished", "finished"]


def test_a_grid_varies_the_heads_of_a_table_of_ones_own(tmp_path: Path, one_clear_line):
    runs = read_study(write_own_grid(tmp_path, "grid: {tasks: [[hat], [hat, age]]}\nlabel: own")).runs
    assert [run.tasks for run in runs.values()] == [("hat",), ("age", "hat")]
    assert list(runs)[0] == "table-test_efficientnet-hat-32px-s0-own"
    with one_clear_line("grid.yaml", "unknown task 'hut'"):
        read_study(write_own_grid(tmp_path, "grid: {tasks: [[hut]]}"))


def test_a_run_that_another_study_does_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}]"))
    run_id, config = next(iter(study.runs.items()))
    folder = study.output_dir / run_id
    with run_lock(folder):
        assert train.run_one(run_id, config, folder, study.options) is None
    other = run_lock(folder)

    def load_while_the_other_begins(*arguments: object) -> FaceData:
        other.__enter__()
        return load_data(**config.data_settings())

    with monkeypatch.context() as patch:
        patch.setattr(train, "load_data_of", load_while_the_other_begins)
        assert list(finish_runs(study, study.options, work_here)) == []
    other.__exit__(None, None, None)
    assert not (folder / ERROR_FILE).exists()
    assert train.run_one(run_id, config, folder, study.options) == (run_id, "")
    stamp = (folder / PREDICTIONS_FILE).stat().st_mtime_ns
    assert train.run_one(run_id, config, folder, study.options) is None  # the other has finished it
    assert (folder / PREDICTIONS_FILE).stat().st_mtime_ns == stamp


def work_here(calls: Iterable) -> Iterator:
    yield from (function(*arguments) for function, arguments, _ in calls)


def test_a_folder_with_another_config_is_refused_before_anything_starts(tmp_path: Path, one_clear_line):
    runs = "runs: [{backbone: test_efficientnet, seed: 0}]"
    list(run_study(read_study(write_grid(tmp_path, runs))))
    with one_clear_line("another num_epochs"):
        read_study(write_grid(tmp_path, runs, epochs=2))


def test_the_time_left_comes_from_runs_of_the_same_kind(tmp_path: Path):
    grid = "grid: {backbone: [custom_cnn, mobilenet_v3], seed: [0, 1]}"
    study = read_study(write_grid(tmp_path, grid, epochs=10))
    folder = study.output_dir / "synthetic-custom_cnn-32px-s0"
    folder.mkdir(parents=True)
    history = pd.DataFrame({"epoch": [1.0, 2.0], "seconds": [30.0, 30.0], "validation_age_mae": [9.0, 8.0]})
    history.to_csv(folder / HISTORY_FILE, index=False)
    with run_lock(folder):
        table = status_table(study)
    assert table["status"].tolist() == ["running", "waiting", "waiting", "waiting"]
    assert table["seconds_left"].tolist()[:2] == [240.0, 300.0] and table["seconds_left"].isna().sum() == 2
    assert "not known yet" in render_status(table)
    assert "about 09:00 left" in render_status(table.iloc[:2])
    (folder / STATE_FILE).touch()
    assert status_table(study)["status"][0] == "stopped"
    assert [format_duration(seconds) for seconds in (59, 3723, float("nan"))] == ["00:59", "1:02:03", "?"]


def agr_process(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "agr_lab.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_the_command_tells_what_failed_and_shows_the_status(tmp_path: Path, agr: Callable):
    runs = "[{backbone: test_efficientnet, seed: 1}, {backbone: test_efficientnet, seed: 2, batch_size: 4096}]"
    grid = write_grid(tmp_path, f"runs: {runs}")
    done = agr_process("study", grid, "--jobs", 2)
    assert done.returncode == 1
    assert "-s1: finished" in done.stderr and "1 of 2 runs failed; first: synthetic" in done.stderr
    status, shown, _ = agr("study", grid, "--status")
    assert status == 0
    assert re.search(r"-s1\s+finished", shown) and re.search(r"-s2\s+failed", shown)
    for table in (shown, done.stderr):  # of a log, which is no 80 columns wide
        assert re.search(r"run +status +epochs +spent +left +age mae +gender +race", table)


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_to_a_study_of_several_jobs_leaves_no_worker_behind(tmp_path: Path):
    grid = write_grid(tmp_path, "grid: {backbone: [test_efficientnet], seed: [0, 1]}", epochs=1000)
    folders = [tmp_path / "runs" / run_id for run_id in read_study(grid).runs]
    line = [sys.executable, "-m", "agr_lab.cli", "study", str(grid), "--jobs", "2"]
    parent = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    workers = []
    try:
        while not all((folder / STATE_FILE).exists() for folder in folders):
            assert parent.poll() is None, parent.stderr.read()
            time.sleep(0.1)
        workers = [process_id for folder in folders for process_id in processes_of(folder)]
        parent.send_signal(signal.SIGTERM)
        _, errors = parent.communicate(timeout=60)
        assert parent.returncode == 130 and "stopped; what runs did since their last save is lost" in errors
        deadline = time.monotonic() + 10
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(set(workers)) == 2 and not any(map(is_alive, workers))
    finally:
        for process_id in (parent.pid, *filter(is_alive, workers)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
    assert status_table(read_study(grid))["status"].tolist() == ["stopped", "stopped"]


def test_a_damaged_table_of_predictions_is_made_again(tmp_path: Path):
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}]"))
    list(run_study(study))
    (study.output_dir / next(iter(study.runs)) / PREDICTIONS_FILE).write_bytes(b"PAR1")
    assert status_table(study)["status"].tolist() == ["stopped"]
    list(run_study(study))
    assert status_table(study)["status"].tolist() == ["finished"]


def test_a_run_that_kills_its_process_does_not_stop_the_others(tmp_path: Path):
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}, {backbone: test_resnet}]"))
    killer, other = study.runs
    asked = []

    def work(calls):  # as a pool does whose process dies with one of the runs
        for function, arguments, _ in calls:
            asked.append(arguments[0])
            if arguments[0] == killer:
                raise ProcessDied
            yield function(*arguments)

    outcomes = dict(finish_runs(study, study.options, work))
    assert outcomes[other] == "" and "its process died" in outcomes[killer]
    assert status_table(study)["status"].tolist() == ["failed", "finished"]
    assert asked.count(killer) <= 4


def test_a_scheduler_that_is_not_there_is_one_clear_line(tmp_path: Path, agr: Callable, one_clear_line):
    pytest.importorskip("distributed", reason="needs: pip install distributed")
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}]"))
    with one_clear_line("tcp://127.0.0.1:9", "no Dask scheduler"):
        list(run_study(study, scheduler="tcp://127.0.0.1:9"))
    for address in ("evil://x", "x", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "inproc://x"):
        with one_clear_line(address, "no Dask scheduler"):
            list(run_study(study, scheduler=address))
    status, _, errors = agr("study", tmp_path / "grid.yaml", "--backend", "dask")
    assert status == 1 and "--scheduler ADDRESS" in errors


def test_a_scheduler_that_is_some_other_server_is_one_clear_line_in_seconds(tmp_path: Path, one_clear_line):
    pytest.importorskip("distributed", reason="needs: pip install distributed")
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}]"))
    for greeting in (b"", b"SSH-2.0-OpenSSH_9.6\r\n"):  # an HTTP server waits to be spoken to
        with socket.create_server(("127.0.0.1", 0)) as server:
            accept = threading.Thread(target=lambda server=server, text=greeting: server.accept()[0].sendall(text))
            accept.start()
            started, address = time.perf_counter(), f"tcp://127.0.0.1:{server.getsockname()[1]}"
            with one_clear_line(address, "no Dask scheduler"):
                list(run_study(study, scheduler=address))
            accept.join()
        assert time.perf_counter() - started < 10


def test_the_documented_dask_commands_listen_on_this_machine_alone():
    text = (EXAMPLE.parent.parent / "scaling.md").read_text().replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith(("dask scheduler", "dask worker"))]
    assert len(commands) == 2
    for command in commands:
        assert "--host 127.0.0.1" in command and "--dashboard-address 127.0.0.1:" in command and "--no-dash" in command


def start(*arguments: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def processes_of(folder: Path) -> list[int]:
    """Process ids that were at work on a run, from its log."""
    log = folder / LOG_FILE
    return [int(number) for number in re.findall(r"process (\d+)$", log.read_text(), re.M)] if log.exists() else []


def test_a_run_whose_dask_worker_is_killed_goes_on_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("distributed", reason="needs: pip install distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = read_study(write_grid(tmp_path, "runs: [{backbone: test_efficientnet}]", epochs=30))
    file, folder = tmp_path / "scheduler.json", study.output_dir / next(iter(study.runs))
    options = ("--scheduler-file", str(file), "--no-dashboard")
    processes = [start("dask_scheduler", *options, "--port", "0")]
    try:
        processes += [start("dask_worker", *options, "--nthreads", "1", "--no-nanny") for _ in range(2)]
        while not file.exists():
            time.sleep(0.1)
        command = [sys.executable, "-m", "agr_lab.cli", "study", str(tmp_path / "grid.yaml"), "--backend", "dask"]
        command += ["--scheduler", read_json(file)["address"]]
        client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        processes.append(client)
        table = folder / HISTORY_FILE  # there before it has a row, and after the state
        while not table.exists() or len(table.read_text().splitlines()) < 2:
            assert client.poll() is None, client.stderr.read()
            time.sleep(0.05)
        os.kill(processes_of(folder)[0], signal.SIGKILL)
        history = pd.read_csv(table)
        _, errors = client.communicate(timeout=120)
    finally:
        for process in processes:
            process.kill()
    assert client.returncode == 0, errors
    workers = [process.pid for process in processes[1:3]]
    assert sorted(processes_of(folder)) == sorted(workers)
    final = pd.read_csv(folder / HISTORY_FILE)
    assert 0 < len(history) < len(final) == 30
    # What the first worker had trained was not trained again: its epochs still carry its own seconds.
    pd.testing.assert_frame_equal(final.head(len(history)), history)


def test_settings_of_drawn_faces_are_refused_for_real_ones():
    real = TrainConfig(data="utkface")
    refuse_unused(real)
    refuse_unused(TrainConfig())
    with pytest.raises(InputError, match="num_images only change drawn faces"):
        refuse_unused(replace(real, num_images=500))
    with pytest.raises(InputError, match="noise, relatedness or confounding"):
        refuse_unused(replace(real, synthetic=SyntheticSettings(noise=0.2)))
    refuse_unused(replace(real, protocol="ages-21-60"))
    with pytest.raises(InputError, match="protocol only splits UTKFace and FairFace, and the data is synthetic"):
        refuse_unused(TrainConfig(protocol="ages-21-60"))

"""Two processes train as one does with the same global batch."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agr_utils.measure.results import read_run
from agr_utils.training.guards import check_processes

NUM_EPOCHS = 8 if os.environ.get("AGR_LONG_TESTS") else 2
LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_processes {} --num_machines 1 --main_process_port 0"
LAUNCH += " --mixed_precision no --dynamo_backend no -m agr_lab.cli"


def train(agr: Callable, backbone: str, num_processes: int, output_dir: Path) -> pd.DataFrame:
    """The history of a run by so many processes."""
    line = f"train --backbone {backbone} --image-size 32 --batch-size 16 --num-images 170 --precision fp32"
    line += f" --dropout 0 --num-epochs {NUM_EPOCHS} --output-dir {output_dir}"
    if num_processes == 1:  # this one
        assert agr(*line.split())[0] == 0
    else:
        command = [sys.executable, *LAUNCH.format(num_processes).split(), *line.split()]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
    run = read_run(output_dir)
    assert run.about["processes"] == num_processes
    assert len(run.predictions) == 17 + 34 and run.predictions["image_id"].is_unique
    return run.history


# Without batch normalisation and dropout nothing depends on which images share a process.
@pytest.mark.parametrize(("backbone", "tolerance"), [("test_efficientnet_ln", 1e-3), ("test_efficientnet", 0.15)])
def test_the_loss_curve_is_that_of_one_process(agr: Callable, backbone: str, tolerance: float, tmp_path: Path):
    one, two = (train(agr, backbone, count, tmp_path / str(count)) for count in (1, 2))
    assert one["step"].tolist() == two["step"].tolist()
    for column in one.filter(like="train_"):
        np.testing.assert_allclose(two[column], one[column], rtol=tolerance)
    np.testing.assert_allclose(two["validation_age_mae"], one["validation_age_mae"], rtol=tolerance)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch, one_clear_line):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with one_clear_line("started as 2 processes", "ACCELERATE_USE_CPU"):
        check_processes()


NOTEBOOK_CODE = """
from pathlib import Path
from accelerate import notebook_launcher
from agr_utils.data.load import load_data
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import train_run

def train(output_dir):
    data = load_data("synthetic", 32, num_images=170)
    config = TrainConfig(backbone="test_efficientnet", image_size=32, batch_size=16, num_images=170, num_epochs=1)
    train_run(config, data, Path(output_dir))

notebook_launcher(train, ({folder!r},), num_processes=2, use_port={port!r})
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_the_notebook_launcher_starts_two_processes(tmp_path: Path):
    code = NOTEBOOK_CODE.format(folder=str(tmp_path / "run"), port=str(free_port()))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_run(tmp_path / "run").about["processes"] == 2

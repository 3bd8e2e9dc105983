"""What deployment costs is measured in turns, each number beside its way; how fast anything is, no test asks."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agr_lab.bench import deploy
from agr_utils.data.load import FaceData, load_data
from agr_utils.deploy.answer_net import AnswerNet, build_onnx, finish_onnx
from agr_utils.models.network import MultiTaskNet
from agr_utils.run_files import PREDICTIONS_FILE
from agr_utils.training.config import TrainConfig

RIVAL = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"seconds": 0.5, "age": 40.0, "gender": 1}), flush=True)
"""


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> list[deploy.Way]:
    """One untrained network in PyTorch and as a file."""
    path = tmp_path_factory.mktemp("ways") / "m.onnx"
    torch.manual_seed(0)
    network = AnswerNet(MultiTaskNet("custom_cnn", "synthetic"), mirror=False)
    path.write_bytes(finish_onnx(build_onnx(network, 32), {}))
    common = {"name": "tiny", "backbone": "custom_cnn", "size": 32, "path": path}
    return [deploy.Way(way="eager", network=network, **common), deploy.Way(way="onnx", **common)]


@pytest.fixture
def rival(tmp_path: Path) -> str:
    (tmp_path / "package.py").write_text(RIVAL, encoding="utf-8")
    return f"{sys.executable} {tmp_path / 'package.py'}"


class Crops:
    """Stands for the real faces that other packages answer."""

    def __init__(self, *arguments):
        self.paths = [Path("0.png"), Path("1.png")]
        ages = pd.Series([30, 50])
        self.faces = pd.DataFrame({"image_id": ["a", "b"], "split": "test", "age": ages, "age_min": ages})
        self.faces = self.faces.assign(age_max=ages, gender=[1, 0], race=[0, 0])
        self.data = load_data("synthetic", 128, num_images=60)

    measure_rival = deploy.RivalCrops.measure_rival


def test_every_way_has_a_row_for_each_batch_and_thread(
    ways, rival, data: FaceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    untrained = [dataclasses.replace(way, name="untrained") for way in ways]
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / PREDICTIONS_FILE).touch()
    threads = torch.get_num_threads()
    found = {"tiny": ways, "untrained": untrained}
    monkeypatch.setattr(deploy, "find_ways", lambda run, *more: (found[run.name], data, TrainConfig()))
    monkeypatch.setattr(deploy, "RivalCrops", Crops)
    monkeypatch.setattr(deploy.Way, "about", lambda way: {"megabytes": 1.0, "peak_mib": 2.0})
    table = deploy.bench_deploy([tmp_path / name for name in found], [rival], seconds=0, num_faces=8)
    rows = table.groupby(["network", "way"]).size().to_dict()
    assert rows["tiny", "eager"] == rows["tiny", "onnx"] == rows["shipped", "onnx"] == 4
    assert rows["package", "other package"] == 1
    other = table[table["way"] == "other package"].iloc[0]
    assert other["seconds"] == 0.5 and other["age_mae"] == 10 and other["gender_accuracy"] == 0.5
    assert (table["fast"] <= table["seconds"]).all() and (table["seconds"] <= table["p95"]).all()
    assert np.allclose(table["images_per_second"], table["batch_size"] / table["seconds"])
    one_face = (table["batch_size"] == 1) & (table["threads"] == 1)
    assert (table.loc[one_face, "warm"] > 0).all() and table.loc[~one_face, "warm"].isna().all()
    tiny = table[table["network"] == "tiny"].set_index(["way", "batch_size", "threads"])["age_mae"]
    assert tiny["eager"].to_numpy() == pytest.approx(tiny["onnx"].to_numpy(), abs=0.1)
    assert table.loc[table["network"] == "untrained", "age_mae"].isna().all()  # only timed
    assert {"cpu", "int8_flags", "machine", "onnxruntime"} <= set(table)
    torch.set_num_threads(threads)


def test_a_warm_call_follows_ten_of_its_own():
    rates = iter(range(1, 100))
    assert deploy._warm(lambda: next(rates))() == 11


def test_size_and_peak_memory_are_those_of_a_process_of_its_own(ways):
    about = ways[1].about()
    assert about["megabytes"] == pytest.approx(ways[1].path.stat().st_size / 1e6) and 20 < about["peak_mib"] < 2000


def test_a_package_that_ends_is_named(tmp_path: Path, one_clear_line):
    (tmp_path / "broken.py").write_text("raise SystemExit(1)")
    with deploy.Rival(f"{sys.executable} {tmp_path / 'broken.py'}") as broken, one_clear_line("broken", "by hand"):
        broken.answer(Path("0.png"))

"""What deployment costs: ways to run each network, and other packages, timed in turns; size, memory, accuracy."""

import json
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from agr_lab.bench.fresh import run_fresh
from agr_lab.bench.steps import take_turns, time_images
from agr_utils.data.load import FaceData, load_data
from agr_utils.deploy.answer_net import OPSETS, AnswerNet, answer_pixels, build_onnx, finish_onnx
from agr_utils.deploy.export import calibrate_network
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
from agr_utils.deploy.onnx_file import make_session
from agr_utils.deploy.quantize import NUM_FACES, quantize, shrink
from agr_utils.deploy.verify import answer_batches, score
from agr_utils.errors import InputError
from agr_utils.machine import describe_hardware
from agr_utils.run_files import PREDICTIONS_FILE
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import load_run

BATCH_SIZES, THREADS = (1, 32), (1, 2)
RIVAL_SIZE = 200  # side of the crops that other packages are given, pixels: UTKFace's own
_INT8_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Way:
    """One way to run one network."""

    name: str  # of the network: its run, or the shipped model's
    backbone: str
    way: str  # ``eager`` (PyTorch), ``onnx``, ``int8`` (both onnxruntime) or ``openvino``
    path: Path  # checkpoint or ONNX file
    size: int  # side of its images, pixels
    network: AnswerNet | None = None  # with which ``eager`` answers

    def turn(self, threads: int, batch_size: int) -> Callable[[], float]:
        """A function that times one call, in images per second."""
        answer, shape = self.answerer(threads), (batch_size, self.size, self.size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return lambda: time_images(lambda: answer(pixels), batch_size)

    def answerer(self, threads: int) -> Callable[[np.ndarray], dict]:
        """A function from (B, S, S, 3) uint8 pixels to the network's outputs, on so many threads."""
        if self.way == "eager":

            def answer(pixels: np.ndarray) -> dict:
                torch.set_num_threads(threads)
                return answer_pixels(self.network, pixels)

            return answer
        if self.way == "openvino":
            import openvino

            compiled = openvino.compile_model(self.path, "CPU", {"INFERENCE_NUM_THREADS": threads})
            names = [output.get_any_name() for output in compiled.outputs]
            return lambda pixels: dict(zip(names, compiled(pixels).to_tuple(), strict=True))
        session = make_session(self.path, threads)
        return lambda pixels: answer_batches(session, pixels, len(pixels))

    def about(self) -> dict:
        """What does not depend on how it is called: size on the disk, peak memory of a process that answers once."""
        measured = run_fresh("agr_lab.bench.fresh.measure_answer", way=self.way, path=str(self.path), size=self.size)
        return {"megabytes": self.path.stat().st_size / 1e6, "peak_mib": measured["peak_mib"]}


class Rival:
    """Another package, in a process and an environment of its own: a path a line in, JSON a line out."""

    def __init__(self, command: str):
        self.name = Path(shlex.split(command)[1]).stem
        self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self, path: Path) -> dict:
        """Its ``seconds``, ``age`` and ``gender`` (0 male, 1 female); an InputError if it ended."""
        try:
            self.process.stdin.write(f"{path}\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name}: ended without an answer. Run its command by hand and see why") from error

    def __enter__(self) -> "Rival":
        return self

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.communicate()


def bench_deploy(
    runs: Iterable[Path],
    rivals: Iterable[str] = (),
    source: Path | None = None,
    seconds: float = 60.0,
    num_faces: int | None = None,
) -> pd.DataFrame:
    """Time every way of every run and the shipped model, at every batch size and number of threads, in turns.

    ``rivals`` are commands of other packages (``tools/rivals``), which answer one face at a time. ``seconds`` of taking
    turns for each batch size, and for ``warm``; accuracy is measured on ``num_faces`` test faces, all where it is None.

    Returns:
        One row per network, way, batch size and number of threads: ``seconds`` of a batch (median, ``p95``, and the
        quartiles ``fast`` and ``slow``), ``images_per_second``, ``megabytes``, ``peak_mib``, accuracies, hardware. Each
        runs after another, cold; ``warm`` are the seconds of one face right after ten others.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ways, about, real = [], {}, bool(rivals)
        for run in tqdm(list(runs), desc="export", unit="run"):
            found, data, config = find_ways(Path(run), Path(folder), source)
            real |= config.data == "utkface"
            ways += found
            finished = (Path(run) / PREDICTIONS_FILE).exists()  # what was never trained is only timed
            about |= {way: measure_answers(way, data, num_faces) if finished else way.about() for way in found}
        crops = RivalCrops(Path(folder) / "crops", source, num_faces) if real else None
        if crops is not None:
            shipped = FaceModel(SHIPPED_MODEL)
            kinds = ["onnx"] + (["openvino"] if find_spec("openvino") else [])
            more = [Way("shipped", shipped.about["backbone"], kind, SHIPPED_MODEL, shipped.size) for kind in kinds]
            about |= {way: measure_answers(way, crops.data, num_faces) for way in more}
            ways += more
        others = [stack.enter_context(Rival(command)) for command in rivals]
        for batch_size in BATCH_SIZES:
            turns = {(way, threads): way.turn(threads, batch_size) for way, threads in product(ways, THREADS)}
            if batch_size == 1:
                turns |= {
                    (rival, 1): lambda rival=rival: 1 / rival.answer(crops.paths[0])["seconds"] for rival in others
                }
            rates = take_turns(turns, seconds, 5)
            alone = {one: _warm(turn) for one, turn in turns.items() if batch_size == one[1] == 1}
            warm = (1 / take_turns(alone, seconds, 5).median()).to_dict() if alone else {}
            for (way, threads), rate in rates.items():
                if isinstance(way, Rival):
                    row = {"network": way.name, "way": "other package"} | crops.measure_rival(way)
                else:
                    row = {"network": way.name, "backbone": way.backbone, "way": way.way, "image_size": way.size}
                    row |= about[way]
                row |= {"batch_size": batch_size, "threads": threads, "warm": warm.get((way, threads))}
                rows.append(row | summarize(rate, batch_size))
    return pd.DataFrame(rows).assign(**describe_machine())


def _warm(turn: Callable[[], float]) -> Callable[[], float]:
    return lambda: [turn() for _ in range(11)][-1]  # as for who asks face after face


def find_ways(run: Path, folder: Path, source: Path | None) -> tuple[list[Way], FaceData, TrainConfig]:
    """Export a run in both precisions, without what a file says of itself, and say how it can be run."""
    model, data, config = load_run(run, source)
    network = calibrate_network(model, data, mirror=False)
    common = {"name": run.resolve().name, "backbone": config.backbone, "size": config.image_size}
    ways = [Way(way="eager", path=run / "checkpoint.safetensors", network=network, **common)]
    for way in ("onnx", "int8"):
        path, proto = folder / f"{common['name']}.{way}.onnx", build_onnx(network, config.image_size, OPSETS[0])
        if way == "int8":
            proto, in_float = quantize(proto, data.pixels[data.sample("train", NUM_FACES)])
            shrink(proto.graph, in_float)
        path.write_bytes(finish_onnx(proto, {}))
        ways.append(Way(way=way, path=path, **common))
    if find_spec("openvino"):
        ways.append(Way(way="openvino", path=ways[1].path, **common))
    return ways, data, config


def measure_answers(way: Way, data: FaceData, num_faces: int | None) -> dict:
    """Accuracy on test faces, size and memory of a way."""
    rows, answer = data.rows("test")[:num_faces], way.answerer(threads=1)
    parts = [answer(data.pixels[chunk]) for chunk in np.array_split(rows, -(-len(rows) // 64))]
    answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return score(answers, data.faces.iloc[rows]) | way.about()


class RivalCrops:
    """The test faces as files, for packages that take files, and at the shipped model's size."""

    def __init__(self, folder: Path, source: Path | None, num_faces: int | None):
        self.data = load_data("utkface", FaceModel(SHIPPED_MODEL).size, source, skip_unreadable=True)
        rows = self.data.rows("test")[:num_faces]
        self.faces = self.data.faces.iloc[rows]
        folder.mkdir()
        self.paths = [folder / f"{number}.png" for number in range(len(rows))]
        for path, pixels in zip(self.paths, self.data.pixels[rows], strict=True):
            Image.fromarray(pixels).resize((RIVAL_SIZE, RIVAL_SIZE), Image.Resampling.BICUBIC).save(path)

    def measure_rival(self, rival: Rival) -> dict:
        """Accuracy of another package; it is not asked for race."""
        answers = pd.DataFrame([rival.answer(path) for path in tqdm(self.paths, desc=rival.name, unit="face")])
        gender = np.eye(2)[answers["gender"]]
        return score({"age_mean": answers["age"].to_numpy(), "gender": gender}, self.faces)


def summarize(rates: pd.Series, batch_size: int) -> dict[str, float]:
    """Median, p95 and quartiles of the seconds of a batch, and images per second."""
    seconds = batch_size / rates
    levels = {"seconds": 0.5, "p95": 0.95, "fast": 0.25, "slow": 0.75}
    row = {name: float(seconds.quantile(level)) for name, level in levels.items()}
    return row | {"images_per_second": batch_size / row["seconds"], "rounds": len(rates)}


def describe_machine() -> dict[str, str | int]:
    """The hardware, what it has for eight bits, and the versions of what ran."""
    cpuinfo = Path("/proc/cpuinfo")
    known = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    about = describe_hardware()
    del about["threads"]  # each row has its own
    flags = " ".join(flag for flag in _INT8_FLAGS if flag in known)
    return about | {"int8_flags": flags, "machine": platform.machine(), "onnxruntime": onnxruntime.__version__}

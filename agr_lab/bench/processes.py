"""What only a process of its own can tell: start, memory, time budgets, and what a second process brings."""

import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from agr_lab.bench.fresh import peak_mib, read_status, run_fresh
from agr_lab.bench.pipelines import BACKBONE, FaceFolder
from agr_lab.bench.steps import BenchSettings
from agr_utils.data.load import FaceData, load_data
from agr_utils.data.pixels import open_cache, write_about
from agr_utils.data.splits import apply_protocol
from agr_utils.data.utkface import read_names
from agr_utils.errors import InputError
from agr_utils.run_files import HISTORY_FILE
from agr_utils.tasks import get_scheme
from agr_utils.training.batches import epoch_batches, load_pixels
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import describe_run, planned_epochs, train_run
from agr_utils.training.trainer import Trainer

TRAINED_STEPS = 20  # while memory is measured


def bench_startup(settings: BenchSettings, faces: FaceFolder) -> pd.DataFrame:
    """Time the way to the first training step with a warm pixel cache, each time in a fresh process.

    Returns:
        One row of medians: ``seconds`` after the imports (and their ``slowest, fastest``), its three parts
        ``load_seconds, build_seconds, first_step_seconds``, and ``import_seconds``.
    """
    image_size, batch_size = settings.image_sizes[0], settings.batch_size
    num_images = len(faces.load(image_size).faces)  # and the cache is warm from here on
    arguments = {"name": faces.name, "folder": str(faces.folder), "image_size": image_size, "batch_size": batch_size}
    arguments["cache_dir"] = str(faces.cache_dir) if faces.cache_dir else None
    progress = tqdm(range(settings.num_starts), desc="startup", unit="process")
    starts = pd.DataFrame([run_fresh(f"{__name__}.measure_start", **arguments) for _ in progress])
    row = {"backbone": BACKBONE, "image_size": image_size, "batch_size": batch_size, "num_images": num_images}
    row |= starts.median().to_dict() | {"slowest": starts["seconds"].max(), "fastest": starts["seconds"].min()}
    return pd.DataFrame([row | {"starts": len(starts)}])


def measure_start(name: str, folder: str, cache_dir: str | None, image_size: int, batch_size: int) -> dict[str, float]:
    """Do what ``agr train`` does up to its first step, and time it."""
    clocks = [time.perf_counter()]
    data = FaceFolder(name, Path(folder), Path(cache_dir) if cache_dir else None).load(image_size)
    clocks.append(time.perf_counter())
    config = TrainConfig(data=name, backbone=BACKBONE, image_size=image_size, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = Trainer(config, data, Path(output_dir))
        describe_run(trainer, "agr bench", None)
        clocks.append(time.perf_counter())
        trainer.model.train()
        trainer.train_step(epoch_batches(trainer.train_rows, config.seed, 0, batch_size)[0])
        clocks.append(time.perf_counter())
    load, build, first_step = np.diff(clocks)
    return {
        "seconds": clocks[-1] - clocks[0],
        "load_seconds": load,
        "build_seconds": build,
        "first_step_seconds": first_step,
    }


def bench_memory(settings: BenchSettings) -> pd.DataFrame:
    """Measure the memory of a training against the number of images in its pixel cache, each in a fresh process.

    Two numbers, because the operating system counts a page of a mapped file as resident once it was read, although it
    drops such pages without cost as soon as anything else wants the memory. So the peak grows with the cache wherever
    memory is free. Anonymous memory is what a process really occupies, and must stay flat.

    Returns:
        One row a number of images: ``pixels_mib`` (size of the cache), ``peak_mib`` (resident, mapped pages counted),
        ``anonymous_mib`` (missing outside Linux). No row on Windows, which has no such measure.
    """
    rows = []
    if find_spec("resource") is None:
        return pd.DataFrame(rows)
    image_size, batch_size = settings.image_sizes[0], settings.batch_size
    for num_images in tqdm(settings.cached_images, desc="memory", unit="process"):
        with tempfile.TemporaryDirectory() as folder:
            write_random_cache(Path(folder), num_images, image_size)
            measured = run_fresh(
                f"{__name__}.measure_memory", folder=folder, image_size=image_size, batch_size=batch_size
            )
        row = {"backbone": BACKBONE, "image_size": image_size, "batch_size": batch_size, "num_images": num_images}
        row |= {"pixels_mib": num_images * 3 * image_size**2 / 2**20}
        rows.append(row | {name: measured[name] for name in ("peak_mib", "anonymous_mib")})
    return pd.DataFrame(rows)


def write_random_cache(folder: Path, num_images: int, image_size: int) -> None:
    """A pixel cache of noise, with names as UTKFace has them."""
    block = np.random.default_rng(0).integers(0, 256, (1_000, image_size, image_size, 3), dtype=np.uint8)
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, *block.shape[1:])}
    with (folder / "pixels.npy").open("wb") as file:  # written, not mapped: on a full disk that is an error, no crash
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, num_images, len(block)):
            file.write(block[: num_images - start].tobytes())
    paths = [f"{row % 90}_{row % 2}_{row % 5}_{20170112213500000 + row}.jpg.chip.jpg" for row in range(num_images)]
    write_about(folder, paths, [True] * num_images, [])


def measure_memory(folder: str, image_size: int, batch_size: int) -> dict[str, float | None]:
    """Load every image of a pixel cache once, in random order, train on some of the batches, and look at the memory."""
    pixels, paths, _, _ = open_cache(Path(folder))
    data = FaceData(apply_protocol(read_names(paths), "random-5fold-0"), pixels, get_scheme("utkface"))
    config = TrainConfig(data="utkface", backbone=BACKBONE, image_size=image_size, batch_size=batch_size)
    trainer = Trainer(config, data)
    trainer.model.train()
    batches = epoch_batches(np.arange(len(pixels)), config.seed, 0, batch_size)
    anonymous = []
    for number, rows in enumerate(batches):
        if number % max(1, len(batches) // TRAINED_STEPS) == 0:
            trainer.train_step(rows)
        else:
            load_pixels(data, rows)
        anonymous.append(read_status("RssAnon"))
    return {"peak_mib": peak_mib(), "anonymous_mib": max(anonymous) if None not in anonymous else None}


def measure_budget(backbone: str, image_size: int, batch_size: int, minutes: float) -> dict[str, float]:
    """Train drawn faces for so many minutes."""
    data = load_data("synthetic", image_size)
    config = TrainConfig(backbone=backbone, image_size=image_size, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_run(config, data, Path(folder) / "run", minutes=minutes)
        taken = (time.perf_counter() - started) / 60
        return {"taken": taken, "epochs": planned_epochs(Path(folder) / "run", minutes)}


def bench_processes(settings: BenchSettings) -> pd.DataFrame:
    """Time one process with one thread, one with every thread, and two that share the threads and each batch.

    Returns:
        One row a backbone and way: ``processes, threads`` (of each), ``images_per_second`` of the second epoch, and
        ``speedup`` over one thread.
    """
    cores = torch.get_num_threads()
    ways = [(1, 1), (1, cores), (2, max(1, cores // 2))]
    rows = []
    for backbone in tqdm(settings.process_backbones, desc="processes", unit="architecture"):
        rates = [_train_rate(backbone, processes, threads, settings) for processes, threads in ways]
        for (processes, threads), rate in zip(ways, rates, strict=True):
            row = {"backbone": backbone, "image_size": settings.image_sizes[0], "batch_size": settings.batch_size}
            row |= {"processes": processes, "threads": threads}
            rows.append(row | {"images_per_second": rate, "speedup": rate / rates[0]})
    return pd.DataFrame(rows)


def _train_rate(backbone: str, processes: int, threads: int, settings: BenchSettings) -> float:
    """Images a second of a short run by so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        line = f"--backbone {backbone} --image-size {settings.image_sizes[0]} --batch-size {settings.batch_size}"
        line += f" --num-images {30 * settings.batch_size} --num-epochs 2 --output-dir {folder}/run"
        start = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
        command = [sys.executable, *start, "-m", "agr_lab.cli", "train", *line.split()]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(f"training with {processes} processes failed ({reason})")
        return pd.read_csv(Path(folder) / "run" / HISTORY_FILE)["images_per_second"].iloc[-1]


def bench_budget(settings: BenchSettings) -> pd.DataFrame:
    """Train by the clock and look how long it took.

    Returns:
        One row a backbone: ``minutes`` asked for, ``taken``, ``off`` (relative), ``epochs`` that were planned.
    """
    rows = []
    for backbone in tqdm(settings.process_backbones, desc="budget", unit="run"):
        arguments = {"backbone": backbone, "image_size": settings.image_sizes[0], "batch_size": settings.batch_size}
        arguments["minutes"] = settings.budget_minutes
        measured = run_fresh(f"{__name__}.measure_budget", **arguments)
        row = arguments | {name: measured[name] for name in ("taken", "epochs")}
        rows.append(row | {"off": measured["taken"] / settings.budget_minutes - 1})
    return pd.DataFrame(rows)

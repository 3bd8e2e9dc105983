"""Whole trainings in processes of their own: what a second process brings, and whether a budget is kept."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from agr_lab.bench.processes import run_fresh
from agr_lab.bench.steps import BenchSettings
from agr_utils.errors import InputError
from agr_utils.run_files import HISTORY_FILE


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
        measured = run_fresh("measure_budget", **arguments)
        row = arguments | {name: measured[name] for name in ("taken", "epochs")}
        rows.append(row | {"off": measured["taken"] / settings.budget_minutes - 1})
    return pd.DataFrame(rows)

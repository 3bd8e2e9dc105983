"""How fast a machine trains, answers and looks inside; whatever is compared takes turns, in one process."""

import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import cycle

import pandas as pd
import torch
from tqdm import tqdm

from agr_lab.reports.face_maps import mean_maps
from agr_utils.data.load import load_data
from agr_utils.inside.map_tables import MAP_BATCH
from agr_utils.inside.sweep import SWEEP_BATCH, sweep
from agr_utils.models.backbones import BACKBONES
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.batches import epoch_batches
from agr_utils.training.config import TrainConfig
from agr_utils.training.trainer import Trainer


@dataclass(frozen=True)
class BenchSettings:
    """How much is measured; the defaults take a quarter of an hour on two cores."""

    backbones: tuple[str, ...] = tuple(BACKBONES)  # whose steps are timed
    image_sizes: tuple[int, ...] = (64, 96)  # pixels; the first is the one of what is measured at one size only
    batch_size: int = 64
    seconds: float = 7.0  # of taking turns, for each thing measured
    min_rounds: int = 3  # on a machine so slow that fewer fit into the time
    num_faces: int = 1_600  # JPEG files drawn where no folder of real ones is given
    face_size: int = 200  # their side in pixels
    num_starts: int = 5  # fresh processes in which the start is timed
    cached_images: tuple[int, ...] = (10_000, 20_000, 100_000)  # in the pixel caches whose memory is measured
    process_backbones: tuple[str, ...] = ("custom_cnn", "mobilenet_v3")  # trained by one process, by two, by the clock
    budget_minutes: float = 1.0  # of a training by the clock
    inside_backbones: tuple[str, ...] = ("mobilenet_v3",)  # looked into: mean maps, a sweep of corruptions
    num_inside: int = 2_000  # faces for that


def time_images(call: Callable[[], object], num_images: int) -> float:
    """Images a second of one call that deals with so many."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # a GPU works on after the call has returned
    return num_images / (time.perf_counter() - started)


def take_turns(turns: dict[Hashable, Callable[[], float]], seconds: float, min_rounds: int) -> pd.DataFrame:
    """Measure several things in rounds, so that a machine that slows down slows all of them.

    ``turns`` measure once and return images per second. After some ``seconds`` no further round begins, but there are
    at least ``min_rounds``. One row per round (after one that does not count), one column per function.
    """
    for turn in turns.values():
        turn()  # the first time, memory is allocated, algorithms are chosen and files are read
    rounds, shuffled, started = [], random.Random(0), time.perf_counter()
    while len(rounds) < min_rounds or time.perf_counter() - started < seconds:
        order = shuffled.sample(list(turns), len(turns))  # each finds the caches full of another, or itself, as often
        measured = {name: turns[name]() for name in order}
        rounds.append([measured[name] for name in turns])
    return pd.DataFrame(rounds, columns=pd.Index(turns, tupleize_cols=False))


def summarize_rates(rates: pd.Series, prefix: str = "") -> dict[str, float]:
    """Median, slowest and fastest of what ``take_turns`` measured, as columns of a table."""
    return {
        f"{prefix}images_per_second": rates.median(),
        f"{prefix}slowest": rates.min(),
        f"{prefix}fastest": rates.max(),
    }


def bench_training(settings: BenchSettings) -> pd.DataFrame:
    """Time whole training steps against the same steps on one batch that is already there.

    The whole step goes from cached pixels through augmentation to updated weights, at each architecture's own CPU
    settings. The compute limit is the same trainer's forward, loss, backward, clipping, AdamW and weight averaging on
    a resident batch: what no data pipeline could exceed.

    Returns:
        One row per architecture and image size: ``images_per_second, slowest, fastest``, the same with ``limit_``, and
        ``share_of_compute_limit``, the quotient of the medians.
    """
    rows = []
    for image_size in settings.image_sizes:
        data = load_data("synthetic", image_size, num_images=20 * settings.batch_size)
        for name in tqdm(settings.backbones, desc=f"training at {image_size} px", unit="architecture"):
            config = TrainConfig(backbone=name, image_size=image_size, batch_size=settings.batch_size)
            trainer = Trainer(config, data)
            rates = take_turns(_training_turns(trainer, settings.batch_size), settings.seconds, settings.min_rounds)
            row = {"backbone": name, "image_size": image_size, "batch_size": settings.batch_size}
            row |= {"precision": trainer.accelerator.mixed_precision}
            row |= summarize_rates(rates["whole"]) | summarize_rates(rates["resident"], "limit_")
            row["share_of_compute_limit"] = row["images_per_second"] / row["limit_images_per_second"]
            rows.append(row | {"rounds": len(rates)})
    return pd.DataFrame(rows)


def _training_turns(trainer: Trainer, batch_size: int) -> dict[str, Callable[[], float]]:
    """Images a second of a whole step, and of a step on a resident batch."""
    batches = cycle(epoch_batches(trainer.train_rows, trainer.config.seed, 0, batch_size))
    images, labels = trainer.make_batch(next(batches))
    trainer.model.train()
    return {
        "whole": lambda: time_images(lambda: trainer.train_step(next(batches)), batch_size),
        "resident": lambda: time_images(lambda: trainer.optimize(images, labels), batch_size),
    }


@torch.inference_mode()
def bench_latency(settings: BenchSettings) -> pd.DataFrame:
    """Time forward passes on one thread, in float32: one image, as an application asks, and a whole batch.

    Returns:
        One row per architecture and batch size: ``seconds`` of the whole batch (median), ``slowest, fastest, threads``.
    """
    image_size, rows = settings.image_sizes[0], []
    models = {name: MultiTaskNet(name).eval().to(memory_format=torch.channels_last) for name in settings.backbones}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for batch_size in (1, settings.batch_size):
            images = torch.randn(batch_size, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
            turns = {n: lambda m=m, x=images: time_images(lambda: m(x), len(x)) for n, m in models.items()}
            rates = take_turns(turns, settings.seconds, settings.min_rounds)
            for name in models:
                seconds = batch_size / rates[name]
                row = {"backbone": name, "image_size": image_size, "batch_size": batch_size, "threads": 1}
                row |= {"seconds": seconds.median(), "slowest": seconds.max(), "fastest": seconds.min()}
                rows.append(row | {"rounds": len(rates)})
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def bench_inside(settings: BenchSettings) -> pd.DataFrame:
    """Time mean maps (three tasks, two kinds) and a whole sweep (eleven corruptions, five severities), once each.

    Returns:
        One row a backbone and measure: ``backbone, image_size, batch_size, measure, num_images, seconds``.
    """
    size, count = settings.image_sizes[0], settings.num_inside
    data = load_data("synthetic", size, num_images=max(count, 10))
    rows = []
    for backbone in settings.inside_backbones:
        model = MultiTaskNet(backbone, "synthetic").eval()
        for measure, call, batch_size in (
            ("mean maps", mean_maps, MAP_BATCH),
            ("sweep of corruptions", sweep, SWEEP_BATCH),
        ):
            started = time.perf_counter()
            call(model, data, data.faces.index.to_numpy()[:count])
            row = {"backbone": backbone, "image_size": size, "batch_size": batch_size, "measure": measure}
            rows.append(row | {"num_images": count, "seconds": time.perf_counter() - started})
    return pd.DataFrame(rows)

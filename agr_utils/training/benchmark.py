"""How fast a machine trains each architecture, measured side by side in one process with nothing beside it."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from agr_utils.data.load import load_data
from agr_utils.models.backbones import BACKBONES
from agr_utils.models.multitask import MultiTaskNet
from agr_utils.runtime import describe_hardware
from agr_utils.training.config import TASK_WEIGHTS, TrainConfig
from agr_utils.training.loop import Trainer
from agr_utils.training.losses import multitask_loss

SETTINGS = (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True))


def bench_cpu_settings(
    backbones: Sequence[str] = tuple(BACKBONES), image_size: int = 64, batch_size: int = 64, num_rounds: int = 5
) -> pd.DataFrame:
    """Time training steps on one resident batch: forward, backward and AdamW, in each precision and memory layout.

    The settings of an architecture take turns, so that a machine that slows down slows all of them.

    Args:
        backbones: names of architectures.
        image_size: side in pixels.
        batch_size: images a step.
        num_rounds: timed steps of each setting, after one that is not timed.

    Returns:
        One row a backbone and setting: ``images_per_second`` (median), ``slowest, fastest``, and the hardware.
    """
    rows = []
    hardware = describe_hardware()
    for name in tqdm(backbones, desc="bench", unit="architecture"):
        steps = {setting: _make_step(name, *setting, image_size, batch_size) for setting in SETTINGS}
        seconds: dict[tuple[str, bool], list[float]] = {setting: [] for setting in SETTINGS}
        for number in range(num_rounds + 1):
            for setting, step in steps.items():
                clock = time.perf_counter()
                step()
                if number > 0:
                    seconds[setting].append(time.perf_counter() - clock)
        for (precision, channels_last), times in seconds.items():
            rate = batch_size / pd.Series(times)
            row = {"backbone": name, "precision": precision, "channels_last": channels_last}
            row |= {"images_per_second": rate.median(), "slowest": rate.min(), "fastest": rate.max()}
            rows.append(row | {"image_size": image_size, "batch_size": batch_size} | hardware)
    return pd.DataFrame(rows)


def bench_training(
    backbones: Sequence[str] = tuple(BACKBONES), image_size: int = 64, batch_size: int = 64, num_rounds: int = 10
) -> pd.DataFrame:
    """Time whole training steps, from cached pixels to updated weights, at each architecture's own CPU settings.

    Args:
        backbones: names of architectures; they take turns.
        image_size: side in pixels.
        batch_size: images a step.
        num_rounds: timed steps of each, after one that is not timed.

    Returns:
        One row a backbone: ``images_per_second`` (median), ``slowest, fastest``, precision, and the hardware.
    """
    data = load_data("synthetic", image_size, num_images=20 * batch_size)
    trainers = {
        name: Trainer(TrainConfig(backbone=name, image_size=image_size, batch_size=batch_size), data)
        for name in backbones
    }
    seconds: dict[str, list[float]] = {name: [] for name in backbones}
    for number in tqdm(range(num_rounds + 1), desc="bench", unit="round"):
        for name, trainer in trainers.items():
            rows = np.random.default_rng(number).choice(trainer.train_rows, batch_size, replace=False)
            trainer.model.train()
            clock = time.perf_counter()
            trainer.train_step(rows)
            if number > 0:
                seconds[name].append(time.perf_counter() - clock)
    rows = []
    for name, times in seconds.items():
        rate = batch_size / pd.Series(times)
        row = {"backbone": name, "precision": trainers[name].accelerator.mixed_precision}
        row |= {"images_per_second": rate.median(), "slowest": rate.min(), "fastest": rate.max()}
        rows.append(row | {"image_size": image_size, "batch_size": batch_size} | describe_hardware())
    return pd.DataFrame(rows)


def _make_step(name: str, precision: str, channels_last: bool, image_size: int, batch_size: int):
    """A function that trains one step on the same batch."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = MultiTaskNet(name).to(memory_format=layout).train()
    images = torch.randn(batch_size, 3, image_size, image_size).contiguous(memory_format=layout)
    age = torch.randint(0, 100, (batch_size,)).float()
    labels = {"age_min": age, "age_max": age} | {
        task: torch.randint(0, 2, (batch_size,)) for task in ("gender", "race")
    }
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        loss, _ = multitask_loss(logits, labels, TASK_WEIGHTS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step

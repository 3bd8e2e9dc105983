"""Training by the clock: how many epochs fit into so many minutes on this machine."""

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate.utils import broadcast_object_list
from scipy.stats import trim_mean

from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.training.config import TrainConfig
from agr_utils.training.predictions import predict_rows
from agr_utils.training.trainer import Trainer

WARMUP_STEPS, TIMED_STEPS = 3, 20
TIMED_IMAGES = 512  # predicted, to time what is not training


def plan_epochs(config: TrainConfig, data: FaceData, minutes: float, num_predicted: int) -> float:
    """Epochs after which a run of this config ends on time, in hundredths.

    A few steps are trained on weights that are thrown away, so that the run itself depends on nothing but the number
    of epochs: training for that many gives the same weights, on a slower machine too.

    Args:
        config: what will be trained; its number of epochs is not looked at.
        data: the data set.
        minutes: from now to the predictions on disk; an InputError if they do not pay for a hundredth of an epoch.
        num_predicted: images predicted at the end.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(replace(config, num_epochs=1), data, Path(folder))
        step_seconds = _time_step(trainer, trainer.total_steps - 1)
        if config.early_size:  # a run may start with smaller images
            step_seconds += config.early_share * (_time_step(trainer, 0) - step_seconds)
        save_seconds = _clock(trainer.save)
        rows = trainer.validation_rows[:TIMED_IMAGES]
        validate_seconds = _clock(lambda: trainer.validate(rows))
        predict_seconds = _clock(lambda: predict_rows(trainer.ema.module, data, rows)) / len(rows)
    per_epoch = trainer.steps_per_epoch * step_seconds + save_seconds
    per_epoch += validate_seconds / len(rows) * len(trainer.validation_rows)
    at_the_end = predict_seconds * num_predicted + save_seconds
    left = 60 * minutes - (time.perf_counter() - started) - at_the_end
    epochs = broadcast_object_list([math.floor(100 * left / per_epoch) / 100])[0]  # the main process decides for all
    if epochs <= 0:
        raise InputError(
            f"{minutes:g} minutes are too short: here an epoch takes {per_epoch / 60:.1f} minutes and the predictions "
            f"at the end {at_the_end / 60:.1f}. Give more minutes or fewer pixels (--image-size)"
        )
    return epochs


def _time_step(trainer: Trainer, step: int) -> float:
    """Seconds that a step takes at some point of the schedule, without the slowest and fastest tenth."""
    seconds = []
    trainer.model.train()
    trainer.step = step
    for number in range(WARMUP_STEPS + TIMED_STEPS):
        rows = np.random.default_rng(number).choice(trainer.train_rows, trainer.config.batch_size, replace=False)
        seconds.append(_clock(lambda rows=rows: trainer.train_step(rows)))
    return float(trim_mean(seconds[WARMUP_STEPS:], 0.1))


def _clock(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

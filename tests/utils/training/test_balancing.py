"""Weights of the tasks that are learned, and the cosine between their gradients."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.training.config import TrainConfig
from agr_utils.training.losses import UncertaintyWeights, gradient_cosines, summarize_cosines
from agr_utils.training.trainer import Trainer

CONFIG = TrainConfig(
    backbone="test_efficientnet", num_epochs=2, image_size=32, batch_size=16, num_images=160, precision="fp32"
)


def test_learned_weights_come_to_half_the_inverse_loss():
    balancing = UncertaintyWeights(("age", "gender"))
    losses = {"age": torch.tensor(4.0), "gender": torch.tensor(0.25)}
    optimizer = torch.optim.Adam(balancing.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        balancing(losses).backward()
        optimizer.step()
    assert balancing.weights() == pytest.approx({"age": 1 / 8, "gender": 2.0}, rel=0.01)


def test_cosines_of_known_gradients():
    shared = nn.Parameter(torch.tensor([1.0, 1.0]))
    losses = {"age": shared[0], "gender": 3 * shared[1], "race": -shared.sum()}
    cosines = gradient_cosines(losses, [shared])
    assert cosines == pytest.approx({"age_gender": 0, "age_race": -(0.5**0.5), "gender_race": -(0.5**0.5)}, abs=1e-6)
    zero = gradient_cosines({"age": shared[0], "gender": 0 * shared[1]}, [shared])
    assert np.isnan(zero["age_gender"])
    summary = summarize_cosines([cosines, {"age_gender": 0.5, "age_race": 0.5, "gender_race": float("nan")}])
    assert summary["cosine_age_gender"] == pytest.approx(0.25) and summary["conflict_age_race"] == 0.5
    assert summary["conflict_gender_race"] == 1  # of the one step at which there is an angle
    assert summarize_cosines([]) == {}


def test_measuring_conflict_changes_no_weight(data: FaceData, tmp_path: Path):
    plain = Trainer(CONFIG, data)
    plain.run()
    watched = Trainer(replace(CONFIG, conflict_steps=3), data)
    history = watched.run()
    for name, value in plain.ema.module.state_dict().items():
        assert torch.equal(value, watched.ema.module.state_dict()[name]), name
    pairs = ("age_gender", "age_race", "gender_race")
    assert history[[f"cosine_{pair}" for pair in pairs]].abs().max(axis=None) <= 1
    assert history[[f"conflict_{pair}" for pair in pairs]].isin([0, 0.25, 0.5, 0.75, 1, 1 / 3, 2 / 3]).all(axis=None)
    assert not any(column.startswith("weight_") for column in history)


def test_learned_weights_stand_in_the_history_and_survive_a_stop(data: FaceData, tmp_path: Path):
    config = replace(CONFIG, balancing="uncertainty", conflict_steps=4)
    whole = Trainer(config, data)
    history = whole.run()
    assert (history[["weight_age", "weight_gender", "weight_race"]].iloc[-1] != 1).all()

    begun = Trainer(config, data, tmp_path)
    begun.total_steps = 5
    begun._run_epoch(_NoProgress(), _NeverStop())
    begun.save()
    resumed = Trainer(config, data, tmp_path)
    assert resumed.resume() and resumed.step == 5
    again = resumed.run()
    clocks = ["seconds", "cpu_seconds", "images_per_second"]
    assert again.drop(columns=clocks).equals(history.drop(columns=clocks))
    for name, value in whole.balancing.state_dict().items():
        assert torch.equal(value, resumed.balancing.state_dict()[name])


class _NoProgress:
    def update(self) -> None:
        pass


class _NeverStop:
    requested = False


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="unknown balancing 'gradnorm'"):
        TrainConfig(balancing="gradnorm")
    with pytest.raises(InputError, match="at least two tasks"):
        TrainConfig(tasks=("age",), conflict_steps=10)

import time

import pytest
import torch
from torch import Tensor, nn

from agr_utils.models import backbones
from agr_utils.models.latency import measure_latency


class Sleeper(nn.Module):
    """Takes a known time, and counts how often and in which mode it is called."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds, self.calls = seconds, []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(self.training)
        time.sleep(self.seconds)
        return images


def test_latency_is_the_time_of_one_call():
    model = Sleeper(0.01).train()
    seconds = measure_latency(model, torch.zeros(1), num_repeats=5, num_warmups=2)
    assert 0.01 <= seconds < 1
    assert model.calls == [False] * 7  # in evaluation mode
    assert model.training  # and put back


def test_latency_is_a_median_and_leaves_warm_ups_out():
    model = Sleeper(0.0)
    durations = iter([0.3, 0.0, 0.0, 0.2, 0.0, 0.0])
    model.forward = lambda images: time.sleep(next(durations))
    assert measure_latency(model, torch.zeros(1), num_repeats=5, num_warmups=1) < 0.1


def test_if_available_neither_waits_nor_complains_without_a_network(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def no_network(*args, **keywords):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **keywords: None)
    monkeypatch.setattr(backbones, "urlopen", no_network)
    assert backbones.create_backbone("mobilenet_v2", pretrained="if-available")[2] == "from scratch"
    assert capfd.readouterr().err == ""

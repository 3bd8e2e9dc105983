"""Grad-CAM and HiResCAM as notebook 03 writes them by hand are what the grad-cam package computes."""

from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agr_utils.inside import explain
from agr_utils.models.network import MultiTaskNet

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "03_mobilenet_v2.ipynb"
BY_HAND = {"gradcam": "grad_cam", "hirescam": "hires_cam"}


@pytest.fixture(scope="module")
def source() -> str:
    """The definitions of the lesson: the two kinds of map and what they share."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    names = ("maps_and_gradients", *BY_HAND.values())
    found = {name: [cell for cell in cells if cell.startswith(f"def {name}(")] for name in names}
    assert all(len(definitions) == 1 for definitions in found.values()), "each is defined once"
    assert all(found[name][0].count("\n") < 12 for name in names), "they fit into about ten lines each"
    return "\n\n".join(definitions[0] for definitions in found.values())


@pytest.fixture(scope="module")
def network() -> MultiTaskNet:
    torch.manual_seed(3)
    return MultiTaskNet("mobilenet_v2", "synthetic").eval()


def largest_difference(source: str, network: MultiTaskNet, method: str, task: str) -> float:
    """Between the map by hand, enlarged and stretched to [0, 1], and the package's."""
    namespace = {"torch": torch, "explain": explain}
    exec(source, namespace)
    images = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    layer = explain.find_layer(network, explain.target_layer(network, 40))
    small = namespace[BY_HAND[method]](network, images, task, layer)
    large = stretch(F.interpolate(stretch(small)[:, None], (40, 40), mode="bilinear")[:, 0])
    return (large - explain.explain(network, images, task, method)).abs().max().item()


def stretch(maps: Tensor) -> Tensor:
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-7)


@pytest.mark.parametrize("method", BY_HAND)
@pytest.mark.parametrize("task", ["age", "gender", "race"])
def test_by_hand_is_what_the_package_computes(source: str, network: MultiTaskNet, method: str, task: str):
    assert largest_difference(source, network, method, task) < 0.02


SPOILT = [
    ("gradcam", "gradients.mean(dim=(2, 3)", "gradients.amax(dim=(2, 3)"),
    ("gradcam", "(weights * maps)", "(weights.abs() * maps)"),
    ("hirescam", "(gradients * maps)", "(gradients.mean(dim=(2, 3), keepdim=True) * maps)"),
]


@pytest.mark.parametrize(("method", "right", "wrong"), SPOILT)
def test_a_spoilt_map_is_noticed(source: str, network: MultiTaskNet, method: str, right: str, wrong: str):
    assert source.count(right) == 1
    assert largest_difference(source.replace(right, wrong), network, method, "race") > 0.05

"""Scores of maps: does a map point at the cue, does it depend on what was learned?

Every score is worth only as much as its distance from that of a rival that knows nothing: ``centred_map`` and
``random_maps``.
"""

import copy

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from agr_utils.models.network import MultiTaskNet


def centred_map(height: int, width: int, sigma: float = 0.25) -> Tensor:
    """A Gaussian blob in the middle, (H, W) float32, largest 1: the map that knows nothing but where faces are.

    ``sigma`` is its standard deviation, a share of the side.
    """
    y, x = (((torch.arange(side) + 0.5) / side - 0.5) / sigma for side in (height, width))
    blob = torch.exp(-0.5 * (y[:, None] ** 2 + x**2))
    return blob / blob.max()


def random_maps(count: int, side: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Maps of noise with the coarseness of a layer's map of ``side`` pixels: (count, H, W) float32 in [0, 1]."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    noise = np.random.default_rng(seed).standard_normal((count, side, side)).astype(np.float32)
    return torch.from_numpy(scale_cam_image(np.maximum(noise, 0), (width, height)))


def energy_inside(maps: Tensor, mask: Tensor) -> Tensor:
    """Share of a map's sum that lies inside a mask (Wang et al. 2020): (B, H, W) and (B, H, W) bool to (B,).

    A map of zeros points nowhere: it is given what a uniform one would have, the mask's share of the area.
    """
    mask = mask.expand_as(maps).float()
    total = maps.sum(dim=(1, 2))
    inside = (maps * mask).sum(dim=(1, 2)) / total.clamp(min=1e-12)
    return torch.where(total > 0, inside, mask.mean(dim=(1, 2)))


def pointing_hit(maps: Tensor, mask: Tensor) -> Tensor:
    """Whether the largest value of a map lies inside a mask (the pointing game, Zhang et al. 2018): 0 or 1, (B,).

    Where several pixels share the largest value, the share of them that lies inside.
    """
    largest = (maps == maps.amax(dim=(1, 2), keepdim=True)).float()
    return (largest * mask.expand_as(maps)).sum(dim=(1, 2)) / largest.sum(dim=(1, 2))


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of each map with its other: two (B, H, W) to (B,) in [-1, 1]; 0 where one is constant."""
    ranks = [torch.from_numpy(rankdata(values.flatten(1).numpy(), axis=1)) for values in (maps, others)]
    first, second = (values - values.mean(dim=1, keepdim=True) for values in ranks)  # (B, HW)
    scale = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(scale > 0, (first * second).sum(dim=1) / scale.clamp(min=1e-12), 0.0).float()


def randomise_weights(model: MultiTaskNet, seed: int = 1_000):
    """Replace what was learned by fresh random weights, from the heads downwards (Adebayo et al. 2018).

    With the seed of the training they would be the weights that it began with, and a head that has moved little since
    would seem not to matter.

    Yields:
        Name of the part that was replaced last and a model in which it and all above it are random; the last one
        remembers nothing. It is the same object each time.
    """
    changed = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = MultiTaskNet(model.backbone_name, model.scheme, model.tasks, age_head=model.age_head.name)
    for name in reversed(_parts(model)):
        prefix = f"{name}."
        part = {key: value for key, value in fresh.state_dict().items() if key.startswith(prefix)}
        changed.load_state_dict(changed.state_dict() | part)
        yield name, changed


def _parts(model: nn.Module) -> list[str]:
    """Names of the stages that hold weights, in the order of the forward pass."""
    parts = []
    for name, module in model.backbone.named_children():
        inner = (
            [f"backbone.{name}.{index}" for index, _ in module.named_children()] if name in ("blocks", "stages") else []
        )
        parts += inner or ([f"backbone.{name}"] if module.state_dict() else [])
    return [*parts, "heads"]

"""Scores of maps: does a map point at the cue, does what it marks matter, does it depend on what was learned?

Every score is worth only as much as its distance from that of a rival that knows nothing: ``centred_map`` and
``random_maps``.
"""

import copy

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from agr_utils.inside.explain import explain
from agr_utils.models.network import MultiTaskNet, expected_age, normalize

ROAD_SHARES = (0.1, 0.3, 0.5)  # of the pixels that are replaced


def centred_map(height: int, width: int, sigma: float = 0.25) -> Tensor:
    """A Gaussian blob in the middle, (H, W) float32, largest 1: the map that knows nothing but where faces are.

    Args:
        height: H.
        width: W.
        sigma: standard deviation, share of the side.
    """
    y, x = (((torch.arange(side) + 0.5) / side - 0.5) / sigma for side in (height, width))
    blob = torch.exp(-0.5 * (y[:, None] ** 2 + x**2))
    return blob / blob.max()


def random_maps(count: int, side: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Maps of noise with the coarseness of a network's: (B, H, W) float32 in [0, 1].

    Args:
        count: B.
        side: of the layer's map that noise takes the place of, in pixels.
        height: H.
        width: W.
        seed: of the noise.
    """
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


@torch.no_grad()
def answers(model: MultiTaskNet, images: Tensor) -> dict[str, Tensor]:
    """What ROAD watches: ``age`` (B,) expected age in years; ``gender`` (B, 2), ``race`` (B, R) probabilities.

    Args:
        model: in evaluation mode.
        images: (B, 3, H, W) float32 in [0, 1].
    """
    probabilities = model.probabilities(model(normalize(images)))
    return probabilities | ({"age": expected_age(probabilities["age"])} if "age" in probabilities else {})


def road(model: MultiTaskNet, images: Tensor, maps: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Remove and debias (Rong et al. 2022): what is lost with the most relevant pixels, and not with the least.

    Pixels are replaced by what their neighbours suggest, with a little noise (grad-cam's imputer), so that the shape of
    what was taken out tells the network nothing. Ties in a map are broken at random: of a map that is zero in places no
    more than the share asked for is ever taken out.

    Args:
        model: in evaluation mode.
        images: (B, 3, H, W) float32 in [0, 1].
        maps: (B, H, W) relevance.
        seed: of the ties and the noise.

    Returns:
        For each task of the model (B,): half the difference between what is left of the answer without the least and
        without the most relevant pixels, averaged over ROAD_SHARES; years of the expected age, or probability of the
        class that was predicted for the whole image. Above 0, the map marks what matters.
    """
    before = answers(model, images)
    order = _random_ties(maps, seed)  # (B, HW), 0 the least relevant
    lost = {task: torch.zeros(len(images)) for task in before}
    for share in ROAD_SHARES:
        count = round(share * order.shape[1])
        for sign, removed in ((1, order < count), (-1, order >= order.shape[1] - count)):
            after = answers(model, _impute(images, removed.reshape(maps.shape), seed))
            for task in lost:
                lost[task] += sign * _watched(after[task], before[task]) / (2 * len(ROAD_SHARES))
    return lost


def _watched(after: Tensor, before: Tensor) -> Tensor:
    """The age, or the probability of the class that was predicted before: (B,) on the CPU."""
    return (after if after.ndim == 1 else after.gather(1, before.argmax(dim=1, keepdim=True))[:, 0]).cpu()


def _random_ties(maps: Tensor, seed: int) -> Tensor:
    """Rank of each pixel in its map, (B, HW) int64, equal ones in random order."""
    shuffled = torch.rand(maps.flatten(1).shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    order = shuffled.gather(1, maps.flatten(1).gather(1, shuffled).argsort(dim=1, stable=True))
    return order.argsort(dim=1)


def _impute(images: Tensor, removed: Tensor, seed: int) -> Tensor:
    """Replace pixels, (B, H, W) bool, by what their neighbours suggest."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    impute = NoisyLinearImputer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        filled = [
            impute(image.contiguous(), (~mask).float()) for image, mask in zip(images.cpu(), removed, strict=True)
        ]
    return torch.stack(filled).to(images.device, memory_format=torch.channels_last)


def randomise_weights(model: MultiTaskNet, seed: int = 1_000):
    """Replace what was learned by fresh random weights, from the heads downwards (Adebayo et al. 2018).

    Args:
        model: left as it is.
        seed: of the fresh weights. With that of the training they would be the ones that it began with, and a head
            that has moved little since would seem not to matter.

    Yields:
        Name of the part that was replaced last and a model in which it and all above it are random; the last one
        remembers nothing. It is the same object each time.
    """
    changed = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = MultiTaskNet(model.backbone_name, model.scheme.name, model.tasks, age_head=model.age_head.name)
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


def mirror_consistency(model: MultiTaskNet, images: Tensor, maps: Tensor, task: str, **settings) -> Tensor:
    """Rank correlation of maps with the mirrored maps of the mirrored images, (B,).

    Args:
        model: in evaluation mode.
        images: (B, 3, H, W) float32 in [0, 1].
        maps: of these images.
        task: that they explain.
        **settings: of ``explain``.
    """
    return rank_correlation(maps, explain(model, images.flip(3), task, **settings).flip(2))

"""ROAD: does what a map marks matter to the network's answer?"""

import torch
from torch import Tensor

from agr_utils.models.network import MultiTaskNet, expected_age, normalize

ROAD_SHARES = (0.1, 0.3, 0.5)  # of the pixels that are replaced


@torch.no_grad()
def answers(model: MultiTaskNet, images: Tensor) -> dict[str, Tensor]:
    """What ROAD watches: ``age`` (B,) expected age in years; ``gender`` (B, 2), ``race`` (B, R) probabilities."""
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
        For each task (B,): half the difference between what is left of the answer without the least and without the
        most relevant pixels, averaged over ROAD_SHARES; years of the expected age, or probability of the class that was
        predicted for the whole image. Above 0, the map marks what matters.
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

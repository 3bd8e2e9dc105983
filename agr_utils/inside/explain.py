"""Where a network looked: class activation maps of one task, by the grad-cam package.

A map is a picture that persuades whether or not it is right; ``agr_utils.inside.map_scores`` says which it is.
"""

import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from agr_utils.data.augment import check_images
from agr_utils.errors import InputError, name_hint
from agr_utils.models.backbones import get_backbone
from agr_utils.models.network import MultiTaskNet, evaluating, expected_age, normalize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MAP_COLOURS = "viridis"  # of equal steps to the eye, with any kind of colour vision and in grey
METHODS = {  # name -> (title, class in pytorch_grad_cam, source)
    "gradcam": ("Grad-CAM", "GradCAM", "Selvaraju et al. 2017"),
    "hirescam": ("HiResCAM", "HiResCAM", "Draelos and Carin 2020"),
    "eigencam": ("EigenCAM", "EigenCAM", "Muhammad and Yeasin 2020"),
}


def explain(
    model: MultiTaskNet, images: Tensor, task: str, method: str = "gradcam", layer: str | None = None
) -> Tensor:
    """Map of what spoke for a network's answer to one task.

    Of the age the expected age is explained: the map shows what makes the face look older. Of gender and race it is
    the logit of the class that is predicted. EigenCAM shows what the layer responds to most and knows of no task.

    Args:
        model: any; it is put into evaluation mode, and weights and gradients are left as they were.
        images: (B, 3, H, W) float32 in [0, 1].
        task: one that the model has.
        method: a key of METHODS.
        layer: dotted name within ``model.backbone`` of the layer whose map is taken; the architecture's
            ``target_layer`` where it is None.

    Returns:
        (B, H, W) float32 in [0, 1] on the CPU. The grad-cam package stretches each map so that its smallest value
        is 0 and its largest 1; a map that is the same everywhere, as where nothing spoke for the answer, is all 0.
        A constant image has a zero map, and a warning says so. Elsewhere nothing is masked: a part without content
        may be marked, most of all by a barely trained network.

    Raises:
        InputError: for a task the model lacks, an unknown method or layer, a layer without a map, other images, or
            a model that is not float32.
    """
    import pytorch_grad_cam  # a second to import, and only maps need it

    if task not in model.tasks:
        raise InputError(f"the model has no head for {task}. It answers: {', '.join(model.tasks)}")
    if method not in METHODS:
        raise InputError(f"unknown kind of map '{method}'. Choose one of: {', '.join(METHODS)}")
    make_cam, images = getattr(pytorch_grad_cam, METHODS[method][1]), check_images(images)
    tensors = {name: value.dtype for name, value in model.state_dict().items() if value.is_floating_point()}
    if other := {name: dtype for name, dtype in tensors.items() if dtype != torch.float32}:
        name, dtype = next(iter(other.items()))
        raise InputError(f"the model's {name} is {str(dtype).removeprefix('torch.')}. Maps need float32: model.float()")
    constant = (images.flatten(2).amax(2) == images.flatten(2).amin(2)).all(1)  # (B,)
    if constant.any():
        warnings.warn(f"{int(constant.sum())} of {len(images)} images are constant: their maps are 0", stacklevel=2)
    model.eval()
    name = layer or target_layer(model, images.shape[-1])
    map_side(model, name, *images.shape[2:])  # an InputError if there is none
    module = find_layer(model, name)
    with torch.inference_mode(False), torch.enable_grad(), _frozen(model):
        images = images.to(next(model.parameters()).device).clone()
        with (
            # The graph starts there: nothing below needs a gradient.
            module.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_()),
            make_cam(_ExplainedScore(model, task), [module], lambda maps: _as_maps(maps, images.shape)) as cam,
            # The package keeps the layer's output itself, so an activation that works in place must get a copy.
            module.register_forward_hook(lambda module, inputs, output: output.clone()),
        ):
            maps = torch.from_numpy(cam(images, [lambda output: output[0]] * len(images)))
    return maps.clamp(0, 1).masked_fill(constant.cpu()[:, None, None], 0.0)


class _ExplainedScore(nn.Module):
    """The number that a map explains, (B, 1), from images in [0, 1]: what the grad-cam package takes for a model."""

    def __init__(self, model: MultiTaskNet, task: str):
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: Tensor) -> Tensor:
        return explained_score(self.model, images, self.task)[:, None]


def explained_score(model: MultiTaskNet, images: Tensor, task: str) -> Tensor:
    """Expected age in years, or the logit of the predicted class: (B, 3, H, W) in [0, 1] to (B,)."""
    logits = model(normalize(images))
    if task == "age":
        return expected_age(model.probabilities({"age": logits["age"]})["age"])
    return logits[task].amax(dim=1)


def find_layer(model: MultiTaskNet, name: str) -> nn.Module:
    """A layer of the backbone by its dotted name; an InputError naming near ones if there is none."""
    layers = dict(model.backbone.named_modules())
    if name not in layers or not name:
        hint = name_hint(name, layers, listed=dict(model.backbone.named_children()))
        raise InputError(f"no layer '{name}' in the backbone. {hint}")
    return layers[name]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No weight needs a gradient; afterwards those do that did, and what was accumulated is still there."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, needs_gradient, gradient in before:
            parameter.requires_grad_(needs_gradient)
            parameter.grad = gradient  # grad-cam clears them


def map_layers(model: MultiTaskNet, image_size: int) -> dict[int, str]:
    """The last stage of the backbone at each resolution from a quarter of the input's side downwards.

    Side of the map in pixels, largest first, to the dotted name of the layer.
    """
    # Whole stages: what lies within them is numbered twice.
    stages = {name: module for name, module in model.backbone.named_modules() if name and name.count(".") <= 1}
    shape = (1, 3, image_size, image_size)
    maps = {name: _as_maps(output, shape) for name, output in _outputs(model, stages, shape).items()}
    names = {found.shape[3]: name for name, found in maps.items() if found is not None}
    return {side: names[side] for side in sorted(names, reverse=True) if side <= math.ceil(image_size / 4)}


def map_side(model: MultiTaskNet, layer: str, height: int, width: int | None = None) -> int:
    """Width in cells of the map that a layer of the backbone has of images (square ones without a ``width``).

    Raises:
        InputError: if there is no such layer, or it has no map.
    """
    shape = (1, 3, height, width or height)
    outputs = _outputs(model, {layer: find_layer(model, layer)}, shape)
    if layer not in outputs:
        raise InputError(f"layer '{layer}' takes no part in what is made of the image. Choose another one")
    maps = _as_maps(outputs[layer], shape)
    if maps is None:
        found = tuple(getattr(outputs[layer], "shape", ())) or type(outputs[layer]).__name__
        raise InputError(f"layer '{layer}' has no map (its output is {found}). Choose an earlier one, or larger images")
    return maps.shape[3]


def _outputs(model: MultiTaskNet, layers: dict[str, nn.Module], shape: Sequence[int]) -> dict[str, object]:
    """What layers make of an image, in the order of the forward pass; nothing of positions, which depend on none."""
    outputs: dict[str, object] = {}
    with torch.inference_mode(False), torch.enable_grad(), _frozen(model), evaluating(model), ExitStack() as hooks:
        weight = next(model.parameters())
        image = torch.zeros(shape, device=weight.device, dtype=weight.dtype, requires_grad=True)
        for name, module in layers.items():
            keep = functools.partial(lambda name, module, inputs, output: outputs.update({name: output}), name)
            hooks.enter_context(module.register_forward_hook(keep))
        model(image)
    return {name: output for name, output in outputs.items() if getattr(output, "requires_grad", True)}


def _as_maps(output: object, shape: Sequence[int]) -> Tensor | None:
    """A layer's output as (B, C, h, w), whether channels come first or last; None where there is no map of each image.

    A map has more than one cell, and is as wide for its height as the images, (B, 3, H, W), but for what is rounded
    off.
    """
    count, _, height, width = shape
    if isinstance(output, Tensor) and output.ndim == 4 and len(output) == count:
        for maps in (output, output.permute(0, 3, 1, 2)):
            rows, columns = maps.shape[2:]
            if rows * columns > 1 and abs(rows * width - columns * height) < max(height, width):
                return maps
    return None


def target_layer(model: MultiTaskNet, image_size: int) -> str:
    """The layer that maps are taken from where none is asked for: see ``Backbone.target_layer``.

    For an architecture outside the course it is the last stage at a quarter of the input's side, as it is for the five.
    """
    if name := get_backbone(model.backbone_name).target_layer:
        return name
    layers = map_layers(model, image_size)
    if not layers:
        raise InputError(f"{model.backbone_name} has no layer with a map at {image_size} px. Name one with layer=")
    return next(iter(layers.values()))


def plot_map(image: np.ndarray, values: np.ndarray, ax: "Axes", largest: float | None = None) -> "AxesImage":
    """A map (any resolution) over a drawn face or a mean face (S, S, 3) uint8, in grey; never one person's photograph.

    ``largest`` is the value of the brightest colour; the map's own where it is None. Returns its image, for a colour
    bar.
    """
    size = image.shape[0]
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=(0, size, size, 0))
    largest = largest or max(float(values.max()), 1e-9)
    alpha = 0.25 + 0.5 * np.clip(values / largest, 0, 1)  # where nothing is marked, the face shows
    drawn = ax.imshow(
        values, cmap=MAP_COLOURS, vmin=0, vmax=largest, extent=(0, size, size, 0), interpolation="bilinear", alpha=alpha
    )
    ax.set_axis_off()
    return drawn

"""The registry of backbones: one name each, with the CPU settings that were measured to be fastest for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.request import Request, urlopen

from agr_utils.errors import InputError, by_name, name_hint

if TYPE_CHECKING:  # the registry is read wherever results are, without waiting for PyTorch
    from torch import nn

Pretrained = bool | Literal["if-available"]
_NO_WEIGHTS = (
    "no pretrained weights for {} could be had ({}). Without a network, train from scratch (leave out --pretrained) or "
    "say --pretrained if-available"
)


@dataclass(frozen=True)
class Backbone:
    """One architecture of the course."""

    name: str  #: used everywhere in this project
    title: str  #: for tables and figures
    year: int  #: of publication
    timm_name: str  #: name in timm; empty for the custom CNN
    #: Which trains faster on a CPU with bfloat16 instructions (results/bench/cpu_settings.csv).
    cpu_precision: Literal["bf16", "fp32"]
    #: Dotted name of the layer whose maps are explained: the last at a quarter of the input's side. It found the cues
    #: of drawn faces best in all five (docs/looking_inside.md); the customary last one has 2x2 cells at 64 px.
    target_layer: str


BACKBONES = by_name(
    Backbone("custom_cnn", "Custom CNN", 2026, "", "bf16", "stages.0"),
    Backbone("mobilenet_v2", "MobileNetV2", 2018, "mobilenetv2_100", "fp32", "blocks.1"),
    Backbone("mobilenet_v3", "MobileNetV3", 2019, "mobilenetv3_large_100", "fp32", "blocks.1"),
    Backbone("efficientnet_b1", "EfficientNet-B1", 2019, "efficientnet_b1", "fp32", "blocks.1"),
    Backbone("efficientnet_b3", "EfficientNet-B3", 2019, "efficientnet_b3", "fp32", "blocks.1"),
)


# Not among the five that the claims are about: the custom CNN at half its width, which lessons train where the
# architecture is not their subject.
OTHERS = by_name(Backbone("custom_cnn_half", "Custom CNN, half as wide", 2026, "", "bf16", "stages.0"))


def get_backbone(name: str) -> Backbone:
    """Look a backbone up: one of the five, one of ``OTHERS``, or any name that timm knows; else an InputError."""
    if backbone := BACKBONES.get(name) or OTHERS.get(name):
        return backbone
    import timm  # takes seconds, and the five need it only when they are built

    if timm.is_model(name):
        return Backbone(name, name, 0, name, "fp32", "")
    hint = name_hint(name, [*BACKBONES, *timm.list_models()], listed=BACKBONES)
    raise InputError(f"unknown architecture '{name}'. {hint}")


def create_backbone(name: str, pretrained: Pretrained = False, drop_rate: float = 0.0) -> "tuple[nn.Module, int, str]":
    """Build the feature extractor of an architecture.

    Args:
        name: a name that ``get_backbone`` takes.
        pretrained: True asks timm for ImageNet weights and fails without them; ``"if-available"`` goes on without,
            and does not wait for a network that is not there.
        drop_rate: stochastic depth rate of timm's residual blocks (Huang et al. 2016), in [0, 1).

    Returns:
        The module, ``(B, 3, H, W)`` to ``(B, F)``; F; and where its weights come from.

    Raises:
        InputError: if pretrained weights were asked for and cannot be had, or the architecture has a fixed input size.
    """
    from agr_utils.models.custom_cnn import CustomCNN

    backbone = get_backbone(name)
    if not backbone.timm_name:
        if pretrained is True:
            raise InputError(f"{name} has no pretrained weights. Train it from scratch: leave out --pretrained")
        widths = (24, 48, 96, 192) if name == "custom_cnn_half" else (48, 96, 192, 384)
        model = CustomCNN(widths)
        return model, model.num_features, "from scratch"
    import timm

    if pretrained and not _weights_within_reach(backbone.timm_name):
        if pretrained is True:
            raise InputError(_NO_WEIGHTS.format(name, "no network, and none on this disk"))
        pretrained = False
    options = {"num_classes": 0} | ({"drop_path_rate": drop_rate} if drop_rate else {})  # some do not know the latter
    if pretrained:
        try:
            model = timm.create_model(backbone.timm_name, pretrained=True, **options)
            return model, _num_features(model), f"timm {timm.__version__} {model.pretrained_cfg.get('tag', '')}".strip()
        except Exception as error:  # timm, huggingface_hub and the network each raise their own kinds
            if pretrained != "if-available":
                raise InputError(_NO_WEIGHTS.format(name, type(error).__name__)) from error
    try:
        model = timm.create_model(backbone.timm_name, pretrained=False, **options)
        return model, _num_features(model), "from scratch"
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # as each of timm's models has it
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name} takes no small square images, or not these options ({reason}). Choose another"
        ) from error


def zero_init_residual_(backbone: "nn.Module") -> None:
    """Make each residual block of a timm backbone start as the identity (Goyal et al. 2017, section 5.1), in place.

    The scale of its last batch normalisation becomes 0. Random blocks destroy what an image shows, and a short training
    spends most of its steps on undoing that. The custom CNN's blocks begin so anyway.
    """
    from torch import nn

    for block in backbone.modules():
        if getattr(block, "has_skip", False):
            last = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
            nn.init.zeros_(last.weight)


def _weights_within_reach(timm_name: str) -> bool:
    """Whether weights lie in the local cache or their server answers.

    Asked first because the server's client tries for most of a minute, and complains on stderr, before it gives up.
    """
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    repository = getattr(timm.get_pretrained_cfg(timm_name), "hf_hub_id", None)
    if repository and isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=3):
            return True
    except OSError:  # no network, no such name, a time-out, a proxy that refuses
        return False


def _num_features(model: "nn.Module") -> int:
    """Width of the pooled features; asked of the model, since MobileNetV3 has one more layer after pooling."""
    import torch

    was_training = model.training
    model.eval()
    with torch.no_grad():
        width = model(torch.zeros(1, 3, 64, 64)).shape[1]
    model.train(was_training)
    return width

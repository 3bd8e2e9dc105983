"""One backbone, up to three heads: the network of every chapter."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from agr_utils.models.age_heads import get_age_head
from agr_utils.models.backbones import Pretrained, create_backbone
from agr_utils.tasks import NUM_AGES, LabelScheme, get_scheme

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25  # of pixels scaled to [0, 1]; one pair for every channel and data set


class MultiTaskNet(nn.Module):
    """Shared features and one linear head per task.

    Args:
        backbone: name of an architecture (``agr_utils.models.backbones``).
        scheme: the label scheme or its name, which sets the width of the heads.
        tasks: the heads to build; None for all that the scheme has.
        pretrained: see ``create_backbone``.
        dropout: share of the features dropped before the heads, in [0, 1).
        drop_rate: stochastic depth of the backbone, in [0, 1).
        age_head: how the age is asked for, see ``agr_utils.models.age_heads``.
    """

    def __init__(
        self,
        backbone: str = "mobilenet_v3",
        scheme: str | LabelScheme = "utkface",
        tasks: Sequence[str] | None = None,
        pretrained: Pretrained = False,
        dropout: float = 0.2,
        drop_rate: float = 0.0,
        age_head: str = "distribution",
    ):
        super().__init__()
        self.scheme = get_scheme(scheme) if isinstance(scheme, str) else scheme
        self.tasks = self.scheme.choose(self.scheme.names if tasks is None else tasks)
        self.age_head = get_age_head(age_head)
        self.backbone_name = backbone
        self.backbone, self.num_features, self.weights_source = create_backbone(backbone, pretrained, drop_rate)
        self.dropout = nn.Dropout(dropout)
        widths = {task: self.scheme.num_outputs(task) for task in self.tasks}
        if "age" in widths:
            widths["age"] = self.age_head.num_outputs
        self.heads = nn.ModuleDict({task: nn.Linear(self.num_features, width) for task, width in widths.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each task.

        Args:
            images: (B, 3, H, W) float32, normalised by ``normalize``.

        Returns:
            ``age`` (B, 117 or what the age head needs), classes (B, C), numbers (B, 1), float32: of the model's tasks.
        """
        features = self.dropout(self.backbone(images))  # (B, 3, H, W) -> (B, F)
        return {task: head(features).float() for task, head in self.heads.items()}

    def probabilities(self, logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the logits mean, float32: ``age`` (B, 117) classes (B, C), rows sum to 1; numbers (B, 1)."""
        return {task: self._probabilities(task, values) for task, values in logits.items()}

    def _probabilities(self, name: str, logits: Tensor) -> Tensor:
        task = self.scheme.task(name)
        if task.kind == "number":
            return task.limits[0] + (task.limits[1] - task.limits[0]) * logits
        return self.age_head.to_probabilities(logits) if task.kind == "age" else logits.softmax(dim=1)


def normalize(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1], any shape, to the range the networks are trained on: ``(x - 0.5) / 0.25``."""
    return (pixels - PIXEL_MEAN) / PIXEL_STD


def expected_age(probabilities: Tensor) -> Tensor:
    """Mean of an age distribution (Rothe et al. 2018, eq. 3): (B, 117) to (B,) years."""
    ages = torch.arange(NUM_AGES, device=probabilities.device, dtype=probabilities.dtype)
    return probabilities @ ages


def age_interval(probabilities: Tensor, coverage: float = 0.9, widening: float = 0.0) -> tuple[Tensor, Tensor]:
    """Central interval of an age distribution.

    Args:
        probabilities: (B, 117) float32, rows sum to 1; bin k is the age of k years.
        coverage: share of the mass inside, in (0, 1).
        widening: years added at both ends, from split conformal calibration (Romano et al. 2019, eq. 6).

    Returns:
        Lower and upper end, each (B,) float32, in years, inside [0, 116].

    Raises:
        ValueError: if coverage is outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must lie between 0 and 1")
    cumulative = probabilities.cumsum(dim=1)  # (B, 117)
    tail = (1 - coverage) / 2
    ends = torch.tensor([tail, 1 - tail], device=probabilities.device, dtype=cumulative.dtype)
    # The k-th quantile is the first bin at which the cumulated mass reaches it.
    bins = torch.searchsorted(cumulative.contiguous(), ends.expand(len(cumulative), 2).contiguous())
    lower, upper = bins.clamp(max=NUM_AGES - 1).float().unbind(dim=1)
    return (lower - widening).clamp(0, NUM_AGES - 1), (upper + widening).clamp(0, NUM_AGES - 1)


def age_quantiles(belief: Tensor, levels: Tensor) -> Tensor:
    """Quantiles of age distributions, interpolated: the mass of age k lies evenly between k - 0.5 and k + 0.5.

    Args:
        belief: (B, 117) float32, rows sum to 1.
        levels: (B, Q) float32 in (0, 1).

    Returns:
        (B, Q) float32, years in [0, 116], not decreasing where the levels are not.
    """
    before = belief.cumsum(1) - belief  # (B, 117)
    # Of each bin the share that lies below the level, summed: bins below count 1, the one that holds it a part.
    share = (levels[:, None, :] - before[:, :, None]) / belief.clamp(min=1e-9)[:, :, None]  # (B, 117, Q)
    return (share.clamp(0, 1).sum(1) - 0.5).clamp(0, NUM_AGES - 1)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@torch.no_grad()
def count_macs(model: nn.Module, image_size: int) -> int:
    """Multiply-accumulate operations of one image, by torch's own operation counter (which counts two per MAC)."""
    from torch.utils.flop_counter import FlopCounterMode

    weight = next(model.parameters())
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size, image_size, device=weight.device, dtype=weight.dtype))
    return counter.get_total_flops() // 2


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; afterwards each part is in the mode that it was in, frozen ones too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training

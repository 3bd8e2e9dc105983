"""Ways to ask a network for an age. Each ends in a distribution over 117 years: all that follows is the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agr_utils.errors import InputError, by_name, name_hint
from agr_utils.tasks import NUM_AGES

if TYPE_CHECKING:
    from torch import Tensor

AGE_CENTRE, AGE_SPREAD = 35.0, 20.0  # years: what a regression head's 0 and 1 stand for, about the mean and deviation


@dataclass(frozen=True)
class AgeHead:
    """One way to ask for an age."""

    name: str  #: used everywhere in this project
    num_outputs: int  #: width of the head
    to_probabilities: "Callable[[Tensor], Tensor]"  #: its outputs (B, num_outputs) to (B, 117), rows sum to 1
    source: str  #: paper


def softmax_probabilities(logits: "Tensor") -> "Tensor":
    """One logit a year: (B, 117) to (B, 117)."""
    return logits.softmax(dim=1)


def regressed_age(outputs: "Tensor") -> "Tensor":
    """The age that a regression head's output (B, 1) stands for: (B,) years."""
    return AGE_CENTRE + AGE_SPREAD * outputs[:, 0]


def point_probabilities(outputs: "Tensor") -> "Tensor":
    """An age as a number, (B, 1): all mass on the two years around it, in such shares that its mean is that age."""
    import torch

    age = regressed_age(outputs).clamp(0, NUM_AGES - 1)
    years = torch.arange(NUM_AGES, device=age.device, dtype=age.dtype)
    return (1 - (age[:, None] - years).abs()).clamp(min=0)


def ordinal_probabilities(logits: "Tensor") -> "Tensor":
    """Logit k says whether somebody older than k - 1 is older than k: (B, 116) to (B, 117).

    Probabilities of being older multiply (Shi et al. 2023, eq. 5), so they never rise with k.
    """
    import torch

    older = logits.sigmoid().cumprod(dim=1)  # (B, 116): P(age > 0), P(age > 1), …
    edge = torch.ones_like(older[:, :1])
    return torch.cat([edge, older], dim=1) - torch.cat([older, torch.zeros_like(edge)], dim=1)


AGE_HEADS = by_name(
    AgeHead("distribution", NUM_AGES, softmax_probabilities, "DLDL-v2, Gao et al. 2018"),
    AgeHead("classification", NUM_AGES, softmax_probabilities, "DEX, Rothe et al. 2018"),
    AgeHead("regression", 1, point_probabilities, "smooth L1, Girshick 2015"),
    AgeHead("ordinal", NUM_AGES - 1, ordinal_probabilities, "CORN, Shi et al. 2023"),
)


def get_age_head(name: str) -> AgeHead:
    """A formulation of the age by name; an InputError naming near ones if there is no such."""
    if name not in AGE_HEADS:
        raise InputError(f"unknown age head '{name}'. {name_hint(name, AGE_HEADS)}")
    return AGE_HEADS[name]

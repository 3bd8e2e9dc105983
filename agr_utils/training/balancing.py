"""How the losses of several tasks become one number to descend, and how far the tasks pull apart."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd
import torch
from torch import Tensor, nn

BALANCINGS = ("fixed", "uncertainty")


class UncertaintyWeights(nn.Module):
    """Weights that are learned with the network (Kendall et al. 2018, eq. 10 for classification).

    The sum is exp(-s) * loss + s / 2 for each task; s is the logarithm of the task's noise variance. Left to itself a
    weight exp(-s) comes to 1 / (2 * loss): what is learned badly counts less.

    Args:
        tasks: those that the network has.
    """

    def __init__(self, tasks: Sequence[str]):
        super().__init__()
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        """Scalar sum of the tasks' scalar losses."""
        return sum(
            (-self.log_variances[task]).exp() * loss + self.log_variances[task] / 2 for task, loss in losses.items()
        )

    def weights(self) -> dict[str, float]:
        """Weight of each task as it stands."""
        return {task: (-value.detach()).exp().item() for task, value in self.log_variances.items()}


def gradient_cosines(losses: dict[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Cosine between the gradients of each two tasks: 1 pull the same way, -1 against each other (Yu et al. 2020).

    Args:
        losses: of each task, scalars of one forward pass, whose graph is kept.
        parameters: shared by all tasks.

    Returns:
        ``age_gender``, ``age_race``, ``gender_race``: those the tasks allow; NaN where a gradient is 0.
    """
    flat = {}
    for task, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        flat[task] = torch.cat([gradient.float().flatten() for gradient in gradients])
    cosines = {}
    for first, second in combinations(flat, 2):
        norms = flat[first].norm() * flat[second].norm()
        cosines[f"{first}_{second}"] = (flat[first] @ flat[second] / norms).item() if norms > 0 else float("nan")
    return cosines


def summarize_cosines(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each two tasks the mean ``cosine_…`` and the share of steps at which they pulled apart, ``conflict_…``."""
    table = pd.DataFrame(measured)
    means, shares = table.mean(), (table < 0).where(table.notna()).mean()  # where a gradient is 0 there is no angle
    return {f"cosine_{pair}": means[pair] for pair in table} | {f"conflict_{pair}": shares[pair] for pair in table}

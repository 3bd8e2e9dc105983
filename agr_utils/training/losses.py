"""What each head is asked for, how several losses become one number, and how far the tasks pull apart.

A missing label asks for nothing.
"""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agr_utils.models.age_heads import AGE_SPREAD, regressed_age
from agr_utils.models.network import expected_age
from agr_utils.tasks import NUM_AGES

LABEL_SMOOTHING = 0.05  # share of the target spread over the other classes (Szegedy et al. 2016)
AGE_SIGMA = 2.5  # years: how far a label may be off, as a standard deviation
AGE_MEAN_WEIGHT = 0.1  # of the term on the expected age, per year


def age_target(age_min: Tensor, age_max: Tensor, sigma: float = AGE_SIGMA) -> Tensor:
    """Age label as a distribution (DLDL, Gao et al. 2017): uniform over the labelled years, blurred by a Gaussian.

    Args:
        age_min: (B,) float32, first year that the label allows.
        age_max: (B,) float32, last year; equal to ``age_min`` where the age is known.
        sigma: of the blur, in years.

    Returns:
        (B, 117) float32, rows sum to 1.
    """
    years = torch.arange(NUM_AGES, device=age_min.device, dtype=torch.float32)  # (117,)
    # A label of k years allows every age in [k - 0.5, k + 0.5); ndtr is the Gaussian's distribution function.
    below_end = torch.special.ndtr((age_max[:, None] + 0.5 - years) / sigma)  # (B, 117)
    below_start = torch.special.ndtr((age_min[:, None] - 0.5 - years) / sigma)
    mass = below_end - below_start
    return mass / mass.sum(dim=1, keepdim=True)


def age_loss(logits: Tensor, age_min: Tensor, age_max: Tensor, age_head: str = "distribution") -> Tensor:
    """What the age head is asked for: the mean over the labelled images, 0 where there is none.

    Args:
        logits: (B, 117) float32, or as wide as the age head is.
        age_min: (B,) float32 years; NaN where the label is missing.
        age_max: (B,) float32 years.
        age_head: how the age is asked for, see ``agr_utils.models.age_heads``.
    """
    labelled = ~age_min.isnan()
    if not labelled.any():
        return logits.sum() * 0.0  # keeps the graph, so that distributed training finds a gradient for every weight
    bounds = age_min[labelled], age_max[labelled]
    if age_head in ("classification", "ordinal"):  # which know whole years only
        bounds = tuple(bound.round() for bound in bounds)
    return AGE_LOSSES[age_head](logits[labelled], *bounds)


def distribution_loss(logits: Tensor, age_min: Tensor, age_max: Tensor) -> Tensor:
    """Cross-entropy to the age distribution plus a small smooth L1 between expected age and label (DLDL-v2)."""
    mean = expected_age(logits.softmax(dim=1))  # (B,)
    nearest_allowed = mean.detach().clamp(age_min, age_max)  # a mean inside a band is not pulled anywhere
    on_the_mean = F.smooth_l1_loss(mean, nearest_allowed)
    return F.cross_entropy(logits, age_target(age_min, age_max)) + AGE_MEAN_WEIGHT * on_the_mean


def classification_loss(logits: Tensor, age_min: Tensor, age_max: Tensor) -> Tensor:
    """Cross-entropy to the labelled year, or to equal shares of the years of a band (DEX)."""
    years = torch.arange(NUM_AGES, device=logits.device)
    allowed = ((years >= age_min[:, None]) & (years <= age_max[:, None])).float()  # (B, 117)
    return F.cross_entropy(logits, allowed / allowed.sum(dim=1, keepdim=True))


def regression_loss(outputs: Tensor, age_min: Tensor, age_max: Tensor) -> Tensor:
    """Smooth L1 between the age and the nearest allowed one, in units of the head: AGE_SPREAD years."""
    age = regressed_age(outputs)
    return F.smooth_l1_loss(age / AGE_SPREAD, age.detach().clamp(age_min, age_max) / AGE_SPREAD, beta=0.1)


def ordinal_loss(logits: Tensor, age_min: Tensor, age_max: Tensor) -> Tensor:
    """Cross-entropy of each question "older than k?", asked of those known to be older than k - 1 (CORN, eq. 6).

    Of a band, the questions within it become one: "older than its last year?", whose yes is the product of theirs.
    """
    years = torch.arange(NUM_AGES - 1, device=logits.device)
    older = age_min[:, None] > years  # (B, 116)
    within = ~older & (age_max[:, None] >= years)
    log_yes = F.logsigmoid(logits)
    log_beyond = (log_yes * within).sum(dim=1).clamp(max=-torch.finfo(logits.dtype).tiny)  # (B,)
    is_asked = age_max < NUM_AGES - 1  # nobody is older than the last year
    no = torch.where(is_asked, -torch.log(-torch.expm1(log_beyond)), 0.0)
    return (no - (log_yes * older).sum(dim=1)).sum() / (older.sum() + is_asked.sum()).clamp(min=1)


AGE_LOSSES = {
    "distribution": distribution_loss,
    "classification": classification_loss,
    "regression": regression_loss,
    "ordinal": ordinal_loss,
}


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with label smoothing of (B, C) float32 logits to (B,) int64 codes, -1 where the label is missing.

    The mean over the labelled images, 0 where there is none.
    """
    if not (labels >= 0).any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=LABEL_SMOOTHING)


def number_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Smooth L1 between a number's place between its limits, (B, 1) float32, and the labelled one, (B,) float32.

    The mean over the labelled images, whose label is not NaN; 0 where there is none.
    """
    labelled = ~labels.isnan()
    if not labelled.any():
        return outputs.sum() * 0.0
    return F.smooth_l1_loss(outputs[labelled, 0], labels[labelled], beta=0.1)


def multitask_loss(
    logits: dict[str, Tensor], labels: dict[str, Tensor], weights: dict[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the losses of the tasks that the model has, and each one's unweighted loss, detached.

    Arguments are as of ``MultiTaskNet.forward`` and ``Labels.batch``; ``weights`` are those of each task.
    """
    losses = task_losses(logits, labels)
    return weighted_sum(losses, weights), {task: loss.detach() for task, loss in losses.items()}


def task_losses(
    logits: dict[str, Tensor], labels: dict[str, Tensor], age_head: str = "distribution"
) -> dict[str, Tensor]:
    """Loss of each task that the model has, a scalar; arguments as for ``multitask_loss`` and ``age_loss``."""
    return {
        task: age_loss(values, labels["age_min"], labels["age_max"], age_head)
        if task == "age"
        else (number_loss if labels[task].is_floating_point() else class_loss)(values, labels[task])
        for task, values in logits.items()
    }


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Scalar sum of the tasks' scalar losses."""
    return sum(weights[task] * loss for task, loss in losses.items())


class UncertaintyWeights(nn.Module):
    """Weights that are learned with the network (Kendall et al. 2018, eq. 10 for classification).

    The sum is exp(-s) * loss + s / 2 for each task; s is the logarithm of the task's noise variance. Left to itself a
    weight exp(-s) comes to 1 / (2 * loss): what is learned badly counts less.
    """

    def __init__(self, tasks: Sequence[str]):
        super().__init__()
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        """Scalar sum of the tasks' scalar losses."""
        return sum(
            (-self.log_variances[task]).exp() * loss + self.log_variances[task] / 2 * (loss.detach() != 0)
            for task, loss in losses.items()  # a loss of 0 is that of a batch without a label: it says nothing of noise
        )

    def weights(self) -> dict[str, float]:
        """Weight of each task as it stands."""
        return {task: (-value.detach()).exp().item() for task, value in self.log_variances.items()}


def gradient_cosines(losses: dict[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Cosine between the gradients of each two tasks: 1 pull the same way, -1 against each other (Yu et al. 2020).

    ``losses`` are scalars of one forward pass, whose graph is kept; ``parameters`` are shared by all tasks. Returns
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

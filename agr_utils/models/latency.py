"""How long a model takes: a number that means something only beside the hardware it was measured on."""

import time

import numpy as np
import torch
from torch import Tensor, nn

from agr_utils.models.network import evaluating


@torch.inference_mode()
def measure_latency(model: nn.Module, images: Tensor, num_repeats: int = 15, num_warmups: int = 3) -> float:
    """Median time of a forward pass; the median, because whatever else the machine does only ever adds time.

    Args:
        model: any module; put into evaluation mode meanwhile.
        images: what it takes, batch first; its device must be the model's.
        num_repeats: timed calls.
        num_warmups: calls before that, not timed: the first ones allocate memory and choose algorithms.

    Returns:
        Seconds for the whole batch. See ``agr_utils.machine.describe_hardware`` for what to write beside it.
    """
    seconds = []
    with evaluating(model):
        for _ in range(num_warmups + num_repeats):
            clock = time.perf_counter()
            model(images)
            if images.is_cuda:
                torch.cuda.synchronize()  # a GPU works on after the call has returned
            seconds.append(time.perf_counter() - clock)
    return float(np.median(seconds[num_warmups:]))

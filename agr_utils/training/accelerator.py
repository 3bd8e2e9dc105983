"""Where and how precisely a run computes, by accelerate: device, precision, processes, trackers, memory."""

import contextlib
import ctypes
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import is_tensorboard_available, parse_flag_from_env

from agr_utils.errors import InputError
from agr_utils.models.backbones import get_backbone
from agr_utils.training.config import TrainConfig


def create_accelerator(
    config: TrainConfig,
    output_dir: Path | None = None,
    tensorboard: bool = False,
    previous_precision: str | None = None,
) -> Accelerator:
    """Make the accelerator of one run; ``previous_precision``: see ``choose_precision``.

    Raises:
        InputError: if TensorBoard is asked for without a run folder to write its events to, or is not installed.
    """
    if tensorboard and output_dir is None:
        raise InputError("TensorBoard events need a run folder: give an output_dir")
    if tensorboard and not is_tensorboard_available():
        raise InputError("TensorBoard is not installed. Install it with: pip install tensorboard")
    AcceleratorState._reset_state()  # a notebook trains several models, each at its own precision
    accelerator = Accelerator(
        mixed_precision=choose_precision(config, previous_precision),
        log_with="tensorboard" if tensorboard else None,
        project_dir=output_dir if tensorboard else None,
    )
    if tensorboard:
        accelerator.init_trackers("tensorboard")
    return accelerator


def choose_precision(config: TrainConfig, previous_precision: str | None = None) -> str:
    """Precision in accelerate's terms: ``no`` (float32), ``bf16`` or ``fp16``.

    ``auto`` keeps what the run was begun in where the device computes it well, so that a run that moves to another
    machine goes on as it was.

    Raises:
        InputError: if fp16 is asked for without a GPU.
    """
    on_gpu = get_processes().device.type == "cuda"
    if config.precision == "fp16" and not on_gpu:
        raise InputError("precision fp16 needs a GPU; without one it would be float32. Choose one of: auto, fp32, bf16")
    if config.precision != "auto":
        return "no" if config.precision == "fp32" else config.precision
    fast = _fast_precisions(on_gpu)
    if previous_precision in fast:
        return previous_precision
    if on_gpu:
        return fast[0]
    return "bf16" if "bf16" in fast and get_backbone(config.backbone).cpu_precision == "bf16" else "no"


def _fast_precisions(on_gpu: bool) -> tuple[str, ...]:
    """What this device computes without emulation, the fastest on a GPU first."""
    if on_gpu:
        return ("bf16", "fp16", "no") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16", "no")
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ("bf16", "no") if has_bf16 else ("no",)


def get_processes() -> PartialState:
    """This process among those that train together; started by ``accelerate launch``, torchrun or a notebook, or alone.

    Several processes on CPUs need ``ACCELERATE_USE_CPU=true`` (accelerate alone reads it too late for its first state).
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of handing it back to the system.

    A training step on a CPU frees and asks again for the same hundreds of megabytes; fetching them from the system page
    by page costs a small network a tenth of its speed. Peak memory stays the same. Without glibc this does nothing.
    """
    mmap_threshold, trim_threshold = -3, -1  # names of the options in malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25)  # older versions allow 32 MiB
        mallopt(trim_threshold, 2**31 - 1)

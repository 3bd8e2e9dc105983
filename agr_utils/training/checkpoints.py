"""Checkpoints in safetensors: tensors and a JSON header, so that loading one never runs code."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from agr_utils.errors import DamagedError, InputError
from agr_utils.files import CHECKSUM, atomic_path, check_checksum, read_bytes, set_checksum


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Write tensors, a JSON-able description and a checksum, atomically; on a full disk the old file is kept."""
    with atomic_path(path) as partial:
        partial.write_bytes(pack_tensors(tensors, about))


def pack_tensors(tensors: dict[str, Tensor], about: dict) -> bytes:
    """Content of the file that ``save_tensors`` writes."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return set_checksum(save(contiguous, {"about": json.dumps(about)} | CHECKSUM))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what ``save_tensors`` wrote, into memory: who cuts the file later changes nothing.

    Raises:
        InputError: if it is missing or unreadable; a DamagedError if it does not hold what was written.
    """
    content = read_bytes(path, "no such checkpoint. Train a model first: agr train --help")
    try:
        check_checksum(content)
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")  # of the header, which load has checked
        about = json.loads(json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("about", "null"))
    except MemoryError:
        raise InputError(f"{path}: cannot be read now (too large for this machine's memory). Free some of it") from None
    except (SafetensorError, ValueError, RecursionError, RuntimeError) as error:  # of the header, its JSON, of torch
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: damaged or no checkpoint ({reason}). Name a run folder, or train again") from error
    if not isinstance(about, dict):
        raise DamagedError(f"{path}: damaged or not a checkpoint of this project (it lacks its description)")
    return tensors, about


def check_finite(tensors: dict[str, Tensor], where: object) -> None:
    """Refuse weights that are no numbers: an InputError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{where}: NaN or infinity in the tensor {name}. Train again with a lower --learning-rate")

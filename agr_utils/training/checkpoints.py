"""Checkpoints in safetensors: tensors and a JSON header, so that loading one never runs code."""

import json
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from agr_utils.errors import DamagedError, InputError
from agr_utils.files import atomic_path, read_bytes


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Write tensors, their checksums and a JSON-able description, atomically; on a full disk the old file is kept."""
    with atomic_path(path) as partial:
        partial.write_bytes(pack_tensors(tensors, about))


def pack_tensors(tensors: dict[str, Tensor], about: dict) -> bytes:
    """Content of the file that ``save_tensors`` writes."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "about": json.dumps(about),
        "checksums": json.dumps({name: _checksum(tensor) for name, tensor in contiguous.items()}),
    }
    metadata["header"] = str(_header_checksum(contiguous, metadata["about"]))
    return save(contiguous, metadata)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what ``save_tensors`` wrote, into memory: who cuts the file later changes nothing.

    Raises:
        InputError: if it is missing or unreadable; a DamagedError if it does not hold what was written.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint. Train a model first: agr train --help")
    try:
        content = read_bytes(path)
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")  # of the header, which load has checked
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        about, checksums = (json.loads(metadata.get(key, "{}")) for key in ("about", "checksums"))
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "too large for this machine's memory"
        raise InputError(f"{path}: cannot be read now ({reason}). See to the disk and try again") from error
    except (SafetensorError, ValueError, RecursionError, RuntimeError) as error:  # of the header, its JSON, of torch
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: damaged or no checkpoint ({reason}). Name a run folder, or train again") from error
    if not isinstance(about, dict) or not isinstance(checksums, dict) or checksums.keys() != tensors.keys():
        raise DamagedError(f"{path}: damaged or not a checkpoint of this project (its tensors lack their checksums)")
    for name, checksum in checksums.items():
        if _checksum(tensors[name]) != checksum:
            raise DamagedError(f"{path}: damaged (the checksum of {name} is wrong). Delete it and train again")
    # Older files have no such checksum.
    if metadata.get("header") not in (None, str(_header_checksum(tensors, metadata.get("about", "")))):
        raise DamagedError(f"{path}: damaged (the checksum of its header is wrong). Delete it and train again")
    return tensors, about


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


def _header_checksum(tensors: dict[str, Tensor], about: str) -> int:
    """Of the description, and of each tensor's name, kind and shape."""
    layout = sorted((name, str(tensor.dtype), list(tensor.shape)) for name, tensor in tensors.items())
    return zlib.crc32(json.dumps([about, layout]).encode())


def check_finite(tensors: dict[str, Tensor], where: object) -> None:
    """Refuse weights that are no numbers: an InputError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{where}: NaN or infinity in the tensor {name}. Train again with a lower --learning-rate")

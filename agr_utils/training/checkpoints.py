"""Checkpoints in safetensors: tensors and a JSON header, so that loading one never runs code."""

import json
import logging
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from agr_utils.errors import InputError
from agr_utils.runtime import atomic_path
from agr_utils.training.files import PREVIOUS_STATE_FILE, STATE_FILE

logger = logging.getLogger(__name__)


class DamagedError(InputError):
    """A file that does not hold what was written."""


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Write tensors, their checksums and a JSON-able description, atomically.

    Raises:
        InputError: if the disk is full; what was there before is kept.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    checksums = {name: _checksum(tensor) for name, tensor in contiguous.items()}
    metadata = {"about": json.dumps(about), "checksums": json.dumps(checksums)}
    with atomic_path(path) as partial:
        try:
            save_file(contiguous, partial, metadata=metadata)
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what ``save_tensors`` wrote.

    Raises:
        InputError: if the file is missing, torn, no safetensors file, or does not hold what was written.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint. Train a model first: agr train --help")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        about, checksums = (json.loads(metadata.get(key, "{}")) for key in ("about", "checksums"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read now ({error.strerror or error}). See to the disk and try again"
        ) from error
    except (SafetensorError, json.JSONDecodeError, RuntimeError) as error:  # the last: torch's own reader
        raise DamagedError(f"{path}: damaged or no checkpoint ({error}). Delete it and train again") from error
    for name, checksum in checksums.items():
        if name not in tensors or _checksum(tensors[name]) != checksum:
            raise DamagedError(f"{path}: damaged (the checksum of {name} is wrong). Delete it and train again")
    return tensors, about


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


def save_state(folder: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Write the state of a run, keeping the one before; there is a whole one at any moment."""
    state = Path(folder) / STATE_FILE
    written = state.with_name("state.new.safetensors")
    save_tensors(written, tensors, about)
    if state.exists():
        state.replace(state.with_name(PREVIOUS_STATE_FILE))
    written.replace(state)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """Read the last whole state of a run; None where there is none.

    A damaged file is named in a warning and set aside, and the one before it is used.

    Raises:
        InputError: if states are there but none is whole, or one cannot be read now.
    """
    problems = []
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        path = Path(folder) / name
        if not path.exists():
            continue
        try:
            return load_tensors(path)
        except DamagedError as error:
            problems.append(str(error))
            path.replace(path.with_suffix(".damaged"))
            logger.warning("%s: damaged, set aside as %s; going on from the one before", path, path.stem + ".damaged")
    if problems:
        raise InputError(f"{folder}: no whole state left ({problems[0]}). Run the command again to start from step 0")
    return None


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimizer as ``optimizer.<parameter number>.<name>`` tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, entries in state.items()
        for name, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``flatten_optimizer`` took out; groups and their options stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                if value.shape == parameter.shape:
                    # The fused kernel walks raw memory: moments must lie as their (channels last) weights do.
                    optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value)

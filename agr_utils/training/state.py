"""The state of a training on disk: saved so that a run that was stopped goes on exactly as if it had not been."""

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agr_utils.errors import DamagedError, InputError
from agr_utils.files import atomic_path, read_json
from agr_utils.run_files import CONFIG_FILE, HISTORY_FILE, PREVIOUS_STATE_FILE, STATE_FILE
from agr_utils.training.checkpoints import load_tensors, pack_tensors
from agr_utils.training.config import different_settings

if TYPE_CHECKING:
    from agr_utils.training.trainer import Trainer

logger = logging.getLogger(__name__)
KEPT = ("step", "sums", "seconds", "cosines", "history", "data_digest")  # of a trainer, beside its tensors


def _modules(trainer: "Trainer") -> dict[str, nn.Module]:
    """Everything with weights in it."""
    modules = {"model": trainer.model, "ema": trainer.ema.module, "balancing": trainer.balancing}
    return {name: trainer.accelerator.unwrap_model(module) for name, module in modules.items() if module is not None}


def save_trainer(trainer: "Trainer") -> None:
    """Write the whole state and the history to the run folder (main process only)."""
    if trainer.output_dir is None or not trainer.accelerator.is_main_process:
        return
    modules = _modules(trainer)
    tensors = {f"{name}.{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
    tensors |= flatten_optimizer(trainer.optimizer)
    about = {name: getattr(trainer, name) for name in KEPT} | {"config": trainer.config.to_dict()}
    if trainer.accelerator.scaler is not None:
        about["scaler"] = trainer.accelerator.scaler.state_dict()
    save_state(trainer.output_dir, tensors, about)
    _write_history(trainer)


def _write_history(trainer: "Trainer") -> None:
    with atomic_path(trainer.output_dir / HISTORY_FILE) as partial:
        trainer.history_table().to_csv(partial, index=False, float_format="%.6g")


def resume_trainer(trainer: "Trainer") -> bool:
    """Go on from the state in the run folder; False if there is none.

    Raises:
        InputError: if it is of another config, or of other images, pixels or labels.
    """
    state = load_state(trainer.output_dir) if trainer.output_dir else None
    if state is None:
        return False
    tensors, about = state
    path, settings = trainer.output_dir / STATE_FILE, about
    if "config" not in about:  # of a state begun with 1.0.0, whose settings stand beside it
        path = trainer.output_dir / CONFIG_FILE
        settings = read_json(path)
    if different := different_settings(settings, path, trainer.config):
        raise InputError(f"{path}: of a run with another {', '.join(different)}. Choose another output folder")
    same = "data_digest" not in about or about["data_digest"] == trainer.data_digest
    if "images_digest" in about:  # of a state begun with 1.0.0
        names = "\n".join(trainer.data.faces["image_id"].iloc[trainer.train_rows])
        same = about["images_digest"] == hashlib.sha256(names.encode(errors="surrogatepass")).hexdigest()[:16]
    if not same:
        raise InputError(
            f"{trainer.output_dir}: was begun on other training images, pixels or labels, or was validated on others. "
            "Bring those back (AGR_DATA_DIR; another Pillow may decode other pixels), or choose another output folder"
        )
    for name, module in _modules(trainer).items():
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    restore_optimizer(trainer.optimizer, tensors)
    trainer.step, trainer.sums, trainer.seconds = about["step"], about["sums"], about["seconds"]
    trainer.cosines, trainer.history = about.get("cosines", []), about["history"]
    trainer.scheduler.step_update(trainer.step)
    if trainer.accelerator.scaler is not None and "scaler" in about:
        trainer.accelerator.scaler.load_state_dict(about["scaler"])
    if trainer.accelerator.is_main_process:
        _write_history(trainer)  # a kill may have come between the state and the history
    return True


def save_state(folder: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Write the state of a run, keeping the one before; there is a whole one at any moment."""
    state = Path(folder) / STATE_FILE
    with atomic_path(state) as partial:
        partial.write_bytes(pack_tensors(tensors, about))
        if state.exists():
            state.replace(state.with_name(PREVIOUS_STATE_FILE))


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """Read the last whole state of a run; None where there is none, an InputError if none is whole.

    A damaged file is named in a warning and set aside, and the one before it is used.
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
            go_on = "; trying the one before" if name == STATE_FILE else ""
            logger.warning("%s: damaged, set aside as %s%s", path, path.stem + ".damaged", go_on)
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

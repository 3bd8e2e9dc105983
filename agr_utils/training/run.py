"""A run from start to finish: train, predict, and write down everything that the results depend on."""

import logging
import math
import zlib
from contextlib import nullcontext, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from agr_utils.data.faces import SPLITS
from agr_utils.data.load import FaceData, load_data
from agr_utils.errors import DamagedError, InputError
from agr_utils.files import clear_leftovers, read_json, write_json, write_table
from agr_utils.machine import current_commit, describe_hardware
from agr_utils.models.network import MultiTaskNet, count_macs, count_parameters
from agr_utils.predictions_table import read_predictions
from agr_utils.run_files import CHECKPOINT_FILE, CONFIG_FILE, PREDICTIONS_FILE, PREVIOUS_STATE_FILE
from agr_utils.training.accelerator import get_processes
from agr_utils.training.budget import plan_epochs
from agr_utils.training.checkpoints import check_finite, load_tensors, save_tensors
from agr_utils.training.config import TrainConfig, check_kind, different_settings, recorded_config
from agr_utils.training.guards import check_processes, run_lock
from agr_utils.training.predictions import conformal_widening, predict_rows, predictions_table
from agr_utils.training.trainer import Trainer

logger = logging.getLogger(__name__)

ENVIRONMENT = ("numpy", "pandas", "pillow", "torch", "torchvision", "timm", "accelerate")  # written down of each run


def train_run(
    config: TrainConfig,
    data: FaceData,
    output_dir: Path,
    command: str = "",
    splits: tuple[str, ...] = ("validation", "test"),
    minutes: float | None = None,
    save_minutes: float = 5.0,
    tensorboard: bool = False,
) -> pd.DataFrame:
    """Train into a run folder, or go on with what is there.

    Args:
        config: what to train.
        data: the data set that ``config.data`` names.
        output_dir: the run folder; its name is the run id. Gets ``config.json, history.csv, checkpoint.safetensors,
            predictions.parquet`` and, while it trains, ``state.safetensors`` and the state before it.
        command: the command line, written down for whoever wants to repeat it.
        splits: predicted at the end. Leave ``test`` out while choices are still being made.
        minutes: to plan the number of epochs by, see ``plan_epochs``; the config's own is then not looked at.
        save_minutes: between two saves within an epoch.
        tensorboard: also write TensorBoard events into the run folder.

    Returns:
        The predictions table (on the main process; empty on others).

    Raises:
        InputError: if the folder holds a run of another config, or another training is at work in it.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    output_dir = Path(output_dir)
    check_processes()
    check_run_folder(config, output_dir, minutes)
    num_predicted = sum(len(data.rows(split)) for split in ("validation", *splits))  # before any training: are there?
    process = get_processes()
    with run_lock(output_dir) if process.is_main_process else nullcontext():
        if process.is_main_process:
            check_run_folder(config, output_dir, minutes)  # again: another may have begun a run there meanwhile
            clear_leftovers(output_dir)
        if minutes is not None:
            planned = planned_epochs(output_dir, minutes) or plan_epochs(config, data, minutes, num_predicted)
            config = replace(config, num_epochs=planned)
        recorded = read_record(output_dir)
        previous_precision = recorded.get("precision")
        trainer = Trainer(config, data, output_dir, save_minutes, tensorboard, previous_precision)
        about = describe_run(trainer, command, minutes)
        if previous_precision not in (None, about["precision"]):
            logger.warning(
                "%s: begun in precision '%s', which this machine lacks; it goes on in '%s', to other numbers",
                output_dir, previous_precision, about["precision"],
            )  # fmt: skip
        if trainer.resume() and recorded:
            about = continue_record(about, recorded, trainer)
        kept = read_kept(output_dir, about["run_id"]) if trainer.step == trainer.total_steps else {}
        if process.is_main_process:
            write_json(output_dir / CONFIG_FILE, about)
        trainer.run()
        table = pd.DataFrame()
        if process.is_main_process:
            table = finish_run(trainer.ema.module, data, output_dir, about, splits, kept)
        process.wait_for_everyone()  # a launcher stops all processes when the first is done
        trainer.accelerator.end_training()
    return table


def describe_run(trainer: Trainer, command: str, minutes: float | None) -> dict:
    """What is written down about a run before it starts."""
    config = trainer.config
    return {
        "run_id": trainer.output_dir.resolve().name,
        "config": config.to_dict(),
        "minutes": minutes,
        "command": command,
        "commit": current_commit(),
        "weights_source": trainer.weights_source,
        "precision": trainer.accelerator.mixed_precision,
        "processes": trainer.accelerator.num_processes,
        "parameters": count_parameters(trainer.ema.module),
        "macs": count_macs(trainer.ema.module, config.image_size),
        "num_train": len(trainer.train_rows),
        "pixels_crc32": f"{zlib.crc32(trainer.data.pixels):08x}",  # the same picture decoded otherwise is another one
        "environment": {name: version(name) for name in ENVIRONMENT},
        "hardware": describe_hardware(),
    }


def continue_record(about: dict, recorded: dict, trainer: Trainer) -> dict:
    """What is written down about a run that goes on: how it began, and in ``resumed`` where else it went on."""
    names = ("command", "commit", "weights_source", "precision", "hardware")
    kept = {key: recorded[key] for key in names if key in recorded}
    here = {key: about[key] for key in ("commit", "precision", "hardware")}
    resumed = recorded.get("resumed", [])
    check_kind(f"{trainer.output_dir / CONFIG_FILE}: resumed", resumed, list)
    before = resumed[-1] if resumed else recorded
    if trainer.step < trainer.total_steps and any(here[key] != before.get(key) for key in here):
        resumed = [*resumed, {"step": trainer.step} | here]
    return about | kept | ({"resumed": resumed} if resumed else {})


def read_kept(output_dir: Path, run_id: str) -> dict[str, pd.DataFrame]:
    """What a finished run has predicted, by split: it stays, whatever has become of pictures and labels since."""
    with suppress(InputError):  # missing or damaged
        table = read_predictions(output_dir / PREDICTIONS_FILE)
        return dict(list(table[table["run_id"] == run_id].groupby("split", sort=False)))
    return {}


def finish_run(
    model: MultiTaskNet,
    data: FaceData,
    output_dir: Path,
    about: dict,
    splits: tuple[str, ...],
    kept: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    """Calibrate the age interval, write the checkpoint, predict the splits that are not kept, write the predictions."""
    about = about | {"age_widening": calibrate(model, data)}
    write_json(output_dir / CONFIG_FILE, about)
    save_model(output_dir / CHECKPOINT_FILE, model, about)
    new = [split for split in splits if split not in kept]
    parts = [predict_split(model, data, split, about["run_id"], about["age_widening"]) for split in new]
    table = pd.concat([*kept.values(), *parts]).reset_index(drop=True)
    write_table(table, output_dir / PREDICTIONS_FILE)
    (output_dir / PREVIOUS_STATE_FILE).unlink(missing_ok=True)
    return table


def read_record(output_dir: Path) -> dict:
    """What is written down about the run in a folder; empty where there is none."""
    path = output_dir / CONFIG_FILE
    return read_json(path) if path.exists() else {}


def planned_epochs(output_dir: Path, minutes: float) -> float | None:
    """Epochs that the run in a folder was planned for; None where there is none of so many minutes."""
    about = read_record(output_dir)
    return about["config"]["num_epochs"] if about.get("minutes") == minutes else None


def check_run_folder(config: TrainConfig, output_dir: Path, minutes: float | None = None) -> None:
    """Refuse a folder that no run can be written to (a DamagedError), or that holds a run of another config."""
    try:
        output_dir.resolve().name.encode()
    except UnicodeEncodeError:  # it is the run's id, and a table can hold none but Unicode
        raise InputError(f"{output_dir}: its name is not valid UTF-8. Choose another --output-dir") from None
    if minutes is not None and not math.isfinite(minutes):
        raise InputError(f"minutes is {minutes}; it must be a number of minutes")
    if output_dir.exists() and not output_dir.is_dir():
        raise DamagedError(f"{output_dir}: a file, not a folder. Choose another --output-dir")
    if about := read_record(output_dir):
        different = different_settings(about, output_dir / CONFIG_FILE, config)
        if minutes is not None:
            different = [key for key in different if key != "num_epochs"]
        if about.get("minutes") != minutes:
            different.append("time budget (--minutes)")
        if different:
            raise InputError(
                f"{output_dir}: holds a run with another {', '.join(different)}. Choose another output folder"
            )


def calibrate(model: MultiTaskNet, data: FaceData) -> float:
    """Widening of the age interval, in years, from the validation split; 0 for a model without an age head."""
    if "age" not in model.tasks:
        return 0.0
    return conformal_widening(predict_split(model, data, "validation", ""))


def predict_split(model: MultiTaskNet, data: FaceData, split: str, run_id: str, widening: float = 0.0) -> pd.DataFrame:
    """Predictions table of one split."""
    rows = data.rows(split)
    return predictions_table(predict_rows(model, data, rows), data.faces.iloc[rows], run_id, widening)


def save_model(path: Path, model: MultiTaskNet, about: dict) -> None:
    """Write the weights, all finite, with everything needed to build the model again."""
    check_finite(model.state_dict(), path)
    save_tensors(path, model.state_dict(), about)


def load_model(path: Path) -> tuple[MultiTaskNet, dict]:
    """Build the model of a checkpoint, or of the run folder that holds it, in evaluation mode.

    Returns:
        The model (float32) and what was written down about its run.

    Raises:
        InputError: if the file is no whole checkpoint of this project, or its weights are no numbers.
    """
    path = Path(path) / CHECKPOINT_FILE if Path(path).is_dir() else Path(path)
    tensors, about = load_tensors(path)
    check_finite(tensors, path)
    config = recorded_config(about, path)
    model = MultiTaskNet(config.backbone, config.scheme, config.tasks, age_head=config.age_head)
    try:
        model.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: does not fit {config.backbone} as this version builds it ({reason})") from error
    return model.eval().to(memory_format=torch.channels_last), about


def load_run(run_dir: Path, source: Path | None = None) -> tuple[MultiTaskNet, FaceData, TrainConfig]:
    """Model of a finished run, and the data that it was trained for; real data lies at ``source`` or AGR_DATA_DIR."""
    if Path(run_dir).is_file():
        raise InputError(f"{run_dir}: a file, not a run folder. Name a folder that agr train made")
    model, about = load_model(Path(run_dir) / CHECKPOINT_FILE)
    config = TrainConfig.from_dict(about["config"])
    return model, load_run_data(run_dir, config, source), config


def load_run_data(run_dir: Path, config: TrainConfig, source: Path | None = None) -> FaceData:
    """The data of a run, split as it was for the run, whatever would be drawn now: a mended label may change that.

    A picture has the split that the run's predictions name, and counts as a training picture where they do not name it.
    A split of which they hold nothing (``agr train --no-test``) is kept only if all others are as they were.
    """
    data = load_data(source=source, skip_unreadable=True, **config.data_settings())
    path = Path(run_dir) / PREDICTIONS_FILE
    if not path.exists():
        return data
    named = read_predictions(path).drop_duplicates("image_id").set_index("image_id")["split"]
    drawn = data.faces["split"]
    kept = data.faces["image_id"].map(named).astype("string").fillna("train").where(drawn.isin(SPLITS[:3]), drawn)
    differs = kept.ne(drawn).fillna(False)
    if not (differs & (drawn.isin(named) | kept.ne("train"))).any():
        return data
    logger.warning("%s: %d pictures have another split than is drawn now; the run's own is kept", path, differs.sum())
    return replace(data, faces=data.faces.assign(split=kept))

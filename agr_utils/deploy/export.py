"""What goes into the ONNX file of a run: its network, calibrated, and what the file says of itself."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from agr_utils.data.corruptions import SEVERITIES, corrupt
from agr_utils.data.load import FaceData
from agr_utils.data.reading.images import resize_square
from agr_utils.deploy.answer_net import AnswerNet, answer_pixels
from agr_utils.deploy.answers import to_answer
from agr_utils.deploy.calibrate import QUANTILES, fit_abstention, fit_interval_levels, fit_temperature
from agr_utils.deploy.detect import ZOOM
from agr_utils.deploy.model import FORMAT
from agr_utils.deploy.quality import fit_limit, measure_quality
from agr_utils.models.network import MultiTaskNet
from agr_utils.run_files import CHECKPOINT_FILE
from agr_utils.tasks import TASKS
from agr_utils.training.config import TrainConfig
from agr_utils.training.predictions import predictions_table

LICENCES = {
    "utkface": "non-commercial research only, as UTKFace's",
    "fairface": "CC BY 4.0, as FairFace's",
    "synthetic": "MIT",
}
_SIDES = np.array([8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48])  # pixels that faces are shrunk to


def describe(run: Path, network: AnswerNet, data: FaceData, config: TrainConfig) -> dict:
    """What a file says of itself."""
    model, validation = network.model, data.rows("validation")
    pixels, faces, train = data.pixels[validation], data.faces.iloc[validation], data.faces.iloc[data.rows("train")]
    answers = answer_pixels(network, pixels)
    ages = train[["age_min", "age_max"]].dropna()
    return {
        "format": FORMAT,
        "run_id": Path(run).resolve().name,
        "image_size": config.image_size,
        "tasks": list(model.tasks),
        "labels": class_names(model),
        "licence": LICENCES[config.data],
        "backbone": config.backbone,
        "data": config.data,
        "num_train": len(train),
        "num_validation": len(validation),
        "weights_sha256": hashlib.sha256((Path(run) / CHECKPOINT_FILE).read_bytes()).hexdigest(),
        "trained_ages": [int(ages["age_min"].min()), int(ages["age_max"].max())] if len(ages) else None,
        "zoom": ZOOM,
        "quantiles": QUANTILES.round(3).tolist(),
        "mirror": network.mirror,
        "calibration": network.calibration,
        "abstain": fit_abstention(answer_table(answers, faces)),
        "limits": fit_limits(network, pixels, answers, faces),
    }


def class_names(model: MultiTaskNet) -> dict[str, list[str]]:
    """Names of the classes of gender and race, of those that the model has."""
    return {task: list(model.scheme.classes(task)) for task in model.tasks if task != "age"}


def predict_pixels(pixels: np.ndarray, network: AnswerNet) -> list[dict]:
    """Answers (``to_answer``) of a network that is not exported, one per face of (B, S, S, 3) uint8 pixels."""
    outputs = answer_pixels(network, pixels)
    about = {"labels": class_names(network.model)}
    return [to_answer({name: values[row] for name, values in outputs.items()}, about) for row in range(len(pixels))]


def calibrate_network(model: MultiTaskNet, data: FaceData, mirror: bool = True) -> AnswerNet:
    """A network with the temperatures of its classes and the levels of its age interval that validation faces ask for.

    The age has no temperature: one moves the expected age of a lopsided distribution, by more than a year of a network
    that is barely trained, and the interval keeps its promise without.
    """
    rows = data.rows("validation")
    raw, faces = answer_pixels(AnswerNet(model, mirror), data.pixels[rows]), data.faces.iloc[rows]
    labels = {task: faces[task].to_numpy(dtype=float, na_value=np.nan) for task in model.tasks}
    temperatures = {task: fit_temperature(raw[task], labels[task]) for task in model.tasks if task != "age"}
    calibration = {"temperatures": temperatures}
    if "age" in model.tasks:
        calibration |= fit_interval_levels(raw["age"], labels["age"])
    return AnswerNet(model, mirror, calibration)


def answer_table(answers: dict[str, np.ndarray], faces: pd.DataFrame) -> pd.DataFrame:
    """A predictions table of what an exported network answers, intervals included."""
    table = predictions_table({task: answers[task] for task in TASKS if task in answers}, faces, "export")
    if "age" in answers:
        table["age_lo"], table["age_hi"] = answers["age_interval"].T
    return table


def fit_limits(network: AnswerNet, pixels: np.ndarray, answers: dict, faces: pd.DataFrame) -> dict[str, float]:
    """Brightness, sharpness and side up to which ages are told badly, measured on our own corruptions."""
    ages = faces["age"].to_numpy(dtype=float, na_value=np.nan)
    rows = np.flatnonzero(np.isfinite(ages))[:250]
    if "age" not in answers or len(rows) < 100:
        return {}
    pixels, ages, clean = pixels[rows], ages[rows], np.abs(answers["age_mean"][rows] - ages[rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    def corrupted(name: str) -> list[np.ndarray]:
        changed = [(corrupt(images, name, severity) * 255).round().byte() for severity in SEVERITIES]
        return [pixels, *[tensor.permute(0, 2, 3, 1).numpy() for tensor in changed]]

    def shrunk(side: int) -> np.ndarray:
        small = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in pixels]
        return np.stack([resize_square(image, pixels.shape[1]) for image in small])

    def limit(versions: Sequence[np.ndarray], measured: np.ndarray) -> float | None:
        errors = [np.abs(answer_pixels(network, version)["age_mean"] - ages) for version in versions]
        return fit_limit(measured, np.concatenate(errors), np.tile(clean, len(versions)))

    sides = _SIDES[pixels.shape[1] > _SIDES]
    limits = {"side": limit([shrunk(side) for side in sides], np.repeat(sides, len(pixels)))}
    for measure, corruption in {"brightness": "gamma", "sharpness": "blur"}.items():
        versions = corrupted(corruption)
        measured = np.array([measure_quality(image)[measure] for version in versions for image in version])
        found = limit(versions, measured)
        if found is not None:  # of faces as they are, no more than one in twenty is warned of
            limits[measure] = min(found, float(np.quantile(measured[: len(pixels)], 0.05)))
    return {name: round(value, 4) for name, value in limits.items() if value is not None}

"""A face in, three answers out: the shipped model on files, offline."""

import glob
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from agr_utils.data.images import SUFFIXES, is_image, resize_square, use_image
from agr_utils.deploy.detect import crop_face
from agr_utils.errors import InputError
from agr_utils.files import read_json, write_json
from agr_utils.models.multitask import MultiTaskNet, age_interval, expected_age
from agr_utils.tasks import TASKS
from agr_utils.training.checkpoints import halve, load_tensors, save_tensors
from agr_utils.training.predictions import COVERAGE, predict_probabilities
from agr_utils.training.run import load_model

SHIPPED_MODEL = Path(__file__).parent / "mobilenet_v3.safetensors"
SHIPPED_ABOUT = SHIPPED_MODEL.with_suffix(".json")
_BATCH = 64


def load_shipped_model() -> tuple[MultiTaskNet, dict]:
    """The MobileNetV3 that comes with the package, after checking its hash.

    Raises:
        InputError: if the file is missing or is not the one that was published.
    """
    expected = read_json(SHIPPED_ABOUT)["sha256"]
    if not SHIPPED_MODEL.exists():
        raise InputError(f"{SHIPPED_MODEL}: the shipped model is missing. Install the package again")
    if hashlib.sha256(SHIPPED_MODEL.read_bytes()).hexdigest() != expected:
        raise InputError(f"{SHIPPED_MODEL}: not the published file (its hash differs). Install the package again")
    return load_model(SHIPPED_MODEL)


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files that paths, folders and globs stand for, in the order given; a folder's images sorted by name.

    Raises:
        InputError: if one of them matches nothing.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(item for item in path.rglob("*") if is_image(item.name) and item.is_file())
        elif path.exists():
            found = [path]
        else:
            found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not found:
            raise InputError(f"{pattern}: no image there (looked for {', '.join(SUFFIXES)}). Check the path")
        files.extend(found)
    return files


def predict_files(
    files: Sequence[Path],
    model: MultiTaskNet,
    about: dict,
    tasks: Sequence[str] = ("age", "gender"),
    detect: bool = False,
) -> Iterator[dict]:
    """Answer for each file, in order.

    Args:
        files: aligned face crops; the centre square of each is taken.
        model: see ``load_model``.
        about: what the checkpoint says of its run: the image size and the widening of the age interval.
        tasks: what to answer. Race is only answered when it is asked for.
        detect: look for the face first, see ``agr_utils.deploy.detect``.

    Yields:
        ``path`` and, for each task, ``age`` and ``age_interval`` (years), ``gender`` and ``gender_probability``,
        ``race`` and ``race_probabilities``; or ``path`` and ``error`` for a file that cannot be read.
    """
    size = about["config"]["image_size"]
    read = partial(_read_file, size=size, detect=detect)
    remaining = iter(files)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(remaining, _BATCH)):
            loaded = list(pool.map(read, chunk))
            pixels = [item for item in loaded if isinstance(item, np.ndarray)]
            answers = iter(
                predict_pixels(np.stack(pixels), model, about.get("age_widening", 0.0), tasks) if pixels else ()
            )
            for path, item in zip(chunk, loaded, strict=True):
                if isinstance(item, np.ndarray):
                    yield {"path": str(path)} | next(answers)
                else:
                    yield {"path": str(path), "error": item}


def _read_file(path: Path, size: int, detect: bool) -> np.ndarray | str:
    """Pixels (S, S, 3) uint8, or why there are none."""
    try:
        return use_image(
            path.read_bytes(),
            path.name,
            lambda image: resize_square(crop_face(image) if detect else image, size),
        )
    except InputError as error:
        return str(error).removeprefix(f"{path.name}: ")
    except OSError as error:
        return f"cannot be read: {error.strerror}"


@torch.inference_mode()
def predict_pixels(
    pixels: np.ndarray, model: MultiTaskNet, widening: float = 0.0, tasks: Sequence[str] = TASKS
) -> list[dict]:
    """Answers for a batch of pixels, (B, S, S, 3) uint8, one dictionary a face as in ``predict_files``."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    probabilities = predict_probabilities(model, images)
    answers: list[dict] = [{} for _ in pixels]
    if "age" in tasks and "age" in probabilities:
        belief = probabilities["age"]  # (B, 117)
        mean, (lower, upper) = expected_age(belief), age_interval(belief, COVERAGE, widening)
        for answer, age, low, high in zip(answers, mean.tolist(), lower.tolist(), upper.tolist(), strict=True):
            answer |= {"age": round(age, 1), "age_interval": [round(min(low, age), 1), round(max(high, age), 1)]}
    for task in ("gender", "race"):
        if task not in tasks or task not in probabilities:
            continue
        classes = model.scheme.classes(task)
        for answer, row in zip(answers, probabilities[task].tolist(), strict=True):
            best = int(np.argmax(row))
            answer[task] = classes[best]
            if task == "gender":
                answer["gender_probability"] = round(row[best], 4)
            else:
                answer["race_probabilities"] = {name: round(value, 4) for name, value in zip(classes, row, strict=True)}
    return answers


def save_shipped_model(checkpoint: Path) -> None:
    """Publish a run's checkpoint as the shipped model: half precision, with its hash and origin beside it."""
    tensors, about = load_tensors(checkpoint)
    save_tensors(SHIPPED_MODEL, halve(tensors), about)
    digest = hashlib.sha256(SHIPPED_MODEL.read_bytes()).hexdigest()
    write_json(SHIPPED_ABOUT, {"sha256": digest, "bytes": SHIPPED_MODEL.stat().st_size} | about)

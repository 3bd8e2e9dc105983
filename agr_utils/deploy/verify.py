"""Whether an exported file answers as its network does in PyTorch: measured on test faces, and refused if not."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd

from agr_utils.deploy.answer_net import AnswerNet, answer_pixels
from agr_utils.deploy.onnx_file import open_session
from agr_utils.errors import InputError

NUM_FACES = 500
BATCH_SIZES = (1, 64)
MAX_AGE_CHANGE = 0.3  # years, of the mean age and of the mean absolute error
MAX_ACCURACY_LOSS = 0.01
# Mean difference that half precision may make: shares of belief, years, years, years, probabilities.
_LOOSE = {"age": 0.001, "age_quantiles": 0.2, "age_mean": 0.1, "age_interval": 0.3, "gender": 0.005, "race": 0.005}


def compare_with_torch(content: bytes, network: AnswerNet, pixels: np.ndarray, faces: pd.DataFrame) -> dict:
    """Figures of an exported file beside those of its network on (N, S, S, 3) uint8 pixels.

    Returns:
        ``torch``: the network's figures. ``batch_1`` and ``batch_64``: the file's at these batch sizes, and
        ``apart``, the mean difference of each output; ``age_moved``, the mean over faces of how far their age moved,
        and ``age_shift``, that with its sign.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        session = open_session(path)[0]
    expected = answer_pixels(network, pixels)
    report = {"num_faces": len(pixels), "torch": score(expected, faces)}
    for batch_size in BATCH_SIZES:
        found = answer_batches(session, pixels, batch_size)
        apart = {name: float(np.abs(found[name] - expected[name]).mean()) for name in expected}
        row = score(found, faces) | {"apart": apart}
        if "age_mean" in expected:
            row["age_moved"] = apart["age_mean"]
            row["age_shift"] = float((found["age_mean"] - expected["age_mean"]).mean())
        report[f"batch_{batch_size}"] = row
    return report


def answer_batches(session: onnxruntime.InferenceSession, pixels: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """The outputs of a session for (N, S, S, 3) uint8 pixels, so many at a time."""
    names = [output.name for output in session.get_outputs()]
    starts = range(0, len(pixels), batch_size)
    parts = [session.run(names, {"image": pixels[start : start + batch_size]}) for start in starts]
    return {name: np.concatenate(arrays) for name, arrays in zip(names, zip(*parts, strict=True), strict=True)}


def score(outputs: dict[str, np.ndarray], faces: pd.DataFrame) -> dict[str, float]:
    """``age_mae`` in years, ``gender_accuracy`` and ``race_accuracy``: those that are answered and labelled."""
    figures = {}
    for task, name in (("age", "age_mean"), ("gender", "gender"), ("race", "race")):
        labels = faces[task].to_numpy(dtype=float, na_value=np.nan)
        known = np.isfinite(labels)
        if name not in outputs or not known.any():
            continue
        answers = outputs[name][known]
        if task == "age":
            figures["age_mae"] = float(np.abs(answers - labels[known]).mean())
        else:
            figures[f"{task}_accuracy"] = float((answers.argmax(axis=1) == labels[known]).mean())
    return figures


def find_problems(report: dict, int8: bool) -> list[str]:
    """What of a comparison is not as it must be, in words.

    In eight bits the mean age and its mean absolute error may change by 0.3 years, and each accuracy may fall by a
    point; otherwise each output may differ by what half precision makes of it.
    """
    problems = []
    for batch_size in BATCH_SIZES:
        row = report[f"batch_{batch_size}"]
        far = {name: apart for name, apart in row["apart"].items() if not apart <= _LOOSE[name]}
        differing = (f"{name} differs by {apart:.4f} on average" for name, apart in far.items())
        found = _losses(report["torch"], row) if int8 else differing
        problems += [f"{text} (batch {batch_size})" for text in found]
    return problems


def _losses(before: dict, after: dict) -> Iterator[str]:
    shift = after.get("age_shift", 0.0)
    if not abs(shift) <= MAX_AGE_CHANGE:
        yield f"ages move by {shift:+.2f} years on average"
    if not after.get("age_mae", 0.0) - before.get("age_mae", 0.0) <= MAX_AGE_CHANGE:
        yield f"the mean absolute error grows from {before['age_mae']:.2f} to {after['age_mae']:.2f} years"
    for task in ("gender", "race"):
        name = f"{task}_accuracy"
        if name in before and before[name] - after[name] > MAX_ACCURACY_LOSS + 1e-9:
            yield f"the accuracy of {task} falls from {before[name]:.1%} to {after[name]:.1%}"


def check_answers(output: Path, report: dict, int8: bool) -> None:
    """Refuse a file that answers otherwise than its network: an InputError that says in what."""
    if problems := find_problems(report, int8):
        advice = "Leave out --int8, or write it all the same with --force" if int8 else "See the figures with --force"
        raise InputError(f"{output}: onnxruntime and PyTorch differ: {'; '.join(problems)}. Not written. {advice}")

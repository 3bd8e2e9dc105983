"""Whether an exported file answers as its network does in PyTorch: figures of both."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd

from agr_utils.deploy.answer_net import AnswerNet, answer_pixels
from agr_utils.deploy.onnx_file import open_session
from agr_utils.measure.metrics import score_rows
from agr_utils.training.predictions import predictions_table

BATCH_SIZES = (1, 64)


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
    table = predictions_table({task: outputs[task] for task in ("gender", "race") if task in outputs}, faces, "")
    if "age_mean" in outputs:
        table["age_pred"] = outputs["age_mean"]  # what a file answers, to the last digit; other packages have no belief
    return score_rows(table).drop(columns="age_cs5", errors="ignore").mean().to_dict()

"""A trained run becomes one ONNX file, pixels in, calibrated answers out, checked against torch."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from agr_utils.data.corruptions import SEVERITIES, corrupt
from agr_utils.data.load import FaceData
from agr_utils.data.reading.images import resize_square
from agr_utils.deploy.answers import OUTPUTS, to_answer
from agr_utils.deploy.calibrate import QUANTILES, fit_abstention, fit_interval_levels, fit_temperature, soften
from agr_utils.deploy.detect import ZOOM
from agr_utils.deploy.model import FORMAT, FaceModel
from agr_utils.deploy.onnx_file import seal
from agr_utils.deploy.quality import fit_limit, measure_quality
from agr_utils.errors import InputError
from agr_utils.files import atomic_path
from agr_utils.models.network import MultiTaskNet, age_quantiles, expected_age, normalize
from agr_utils.run_files import CHECKPOINT_FILE
from agr_utils.tasks import TASKS
from agr_utils.training.predictions import predictions_table
from agr_utils.training.run import load_run

LICENCES = {
    "utkface": "non-commercial research only, as UTKFace's",
    "fairface": "CC BY 4.0, as FairFace's",
    "synthetic": "MIT",
}
MAX_BYTES = 12_000_000
_MIN_WEIGHTS = 1000  # of a tensor that is worth storing in half precision
# Mean difference that half precision may make: shares of belief, years, years, years, probabilities.
_LOOSE = {"age": 0.001, "age_quantiles": 0.2, "age_mean": 0.1, "age_interval": 0.3, "gender": 0.005, "race": 0.005}
_SIDES = np.array([8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48])  # pixels that faces are shrunk to


class AnswerNet(nn.Module):
    """A network with everything between pixels and answers around it: this is what is exported.

    Args:
        model: the trained network.
        mirror: average over each image and its mirror image.
        calibration: ``temperatures`` of the tasks, and ``edges`` and ``levels`` of the age interval; none where None.
    """

    def __init__(self, model: MultiTaskNet, mirror: bool = True, calibration: dict | None = None):
        super().__init__()
        self.calibration = calibration = calibration or {}
        self.model, self.mirror = model.eval(), mirror
        self.temperatures = calibration.get("temperatures", {})
        self.register_buffer("edges", torch.tensor(calibration.get("edges", []), dtype=torch.float32))
        self.register_buffer("levels", torch.tensor(calibration.get("levels", [0.9]), dtype=torch.float32))
        self.register_buffer("quantiles", torch.from_numpy(QUANTILES.astype(np.float32)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, S, S, 3) uint8 RGB to the OUTPUTS of the model's tasks, in order."""
        pixels = normalize(image.permute(0, 3, 1, 2).float() / 255)
        if self.mirror:
            pixels = torch.cat([pixels, pixels.flip(3)])  # (2B, 3, S, S)
        probabilities = self.model.probabilities(self.model(pixels))
        if self.mirror:
            probabilities = {
                task: values.view(2, image.shape[0], values.shape[1]).mean(0) for task, values in probabilities.items()
            }
        answers: list[Tensor] = []
        for task in self.model.tasks:
            values = (probabilities[task].clamp(min=1e-12).log() / self.temperatures.get(task, 1.0)).softmax(1)
            answers += self._age_answers(values) if task == "age" else [values]
        return tuple(answers)

    def _age_answers(self, belief: Tensor) -> list[Tensor]:
        mean = expected_age(belief)  # (B,)
        band = (mean[:, None] >= self.edges).sum(1)
        level = self.levels[band][:, None]  # (B, 1)
        interval = age_quantiles(belief, torch.cat([(1 - level) / 2, (1 + level) / 2], dim=1))
        # The interval always holds the point that is reported.
        interval = torch.stack([torch.minimum(interval[:, 0], mean), torch.maximum(interval[:, 1], mean)], dim=1)
        return [belief, age_quantiles(belief, self.quantiles.expand(belief.shape[0], -1)), mean, interval]


@torch.inference_mode()
def answer_pixels(network: AnswerNet, pixels: np.ndarray, batch_size: int = 256) -> dict[str, np.ndarray]:
    """The OUTPUTS for (N, S, S, 3) uint8 pixels, computed by torch."""
    parts = [network(torch.from_numpy(chunk)) for chunk in np.array_split(pixels, -(-len(pixels) // batch_size))]
    names = [name for task in network.model.tasks for name in OUTPUTS[task]]
    return {name: torch.cat(arrays).numpy() for name, arrays in zip(names, zip(*parts, strict=True), strict=True)}


def export_run(run: Path, output: Path, source: Path | None = None, mirror: bool = True) -> FaceModel:
    """Calibrate a run on its validation faces and write it as an ONNX file for ``agr predict``.

    Args:
        run: a finished run folder.
        output: the file; replaced if it is there.
        source: folder or archive of real faces; ``AGR_DATA_DIR`` where it is None.
        mirror: average over each image and its mirror image; half as fast.

    Returns:
        The model as it was written.

    Raises:
        InputError: if the run, its faces, or its weights cannot be used, the file would be over 12 MB, or onnxruntime
            answers otherwise than torch.
    """
    model, data, config = load_run(run, source)
    check_finite(model, run)
    network = calibrate_network(model, data, mirror)
    validation = data.rows("validation")
    pixels, faces, train = data.pixels[validation], data.faces.iloc[validation], data.faces.iloc[data.rows("train")]
    answers = answer_pixels(network, pixels)
    ages = train[["age_min", "age_max"]].dropna()
    about = {
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
        "mirror": mirror,
        "calibration": network.calibration,
        "abstain": fit_abstention(answer_table(answers, faces)),
        "limits": fit_limits(network, pixels, answers, faces),
    }
    return write_checked(build_onnx(network, config.image_size, about), output, network, pixels[:64])


def class_names(model: MultiTaskNet) -> dict[str, list[str]]:
    """Names of the classes of gender and race, of those that the model has."""
    return {task: list(model.scheme.classes(task)) for task in model.tasks if task != "age"}


def predict_pixels(pixels: np.ndarray, network: AnswerNet, tasks: Sequence[str] = TASKS) -> list[dict]:
    """Answers of a network that is not exported, one dictionary a face as in ``agr_utils.deploy.answers.to_answer``.

    Args:
        pixels: (B, S, S, 3) uint8.
        network: of ``calibrate_network``.
        tasks: those of its tasks that are answered.
    """
    outputs = answer_pixels(network, pixels)
    wanted = [name for task in tasks for name in OUTPUTS[task] if name in outputs]
    about = {"labels": class_names(network.model)}
    return [to_answer({name: outputs[name][row] for name in wanted}, about) for row in range(len(pixels))]


def check_finite(model: MultiTaskNet, run: Path) -> None:
    """Refuse weights that are not finite, by name."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{run}: its weights are damaged ({name} is not finite). Train it again")


def calibrate_network(model: MultiTaskNet, data: FaceData, mirror: bool = True) -> AnswerNet:
    """A network with the temperatures and the levels of the age interval that its validation faces ask for."""
    rows = data.rows("validation")
    if len(rows) == 0:
        raise InputError("there are no validation faces to calibrate on. Take a data set or protocol that has some")
    raw, faces = answer_pixels(AnswerNet(model, mirror), data.pixels[rows]), data.faces.iloc[rows]
    labels = {task: faces[task].to_numpy(dtype=float, na_value=np.nan) for task in model.tasks}
    temperatures = {task: fit_temperature(raw[task], labels[task]) for task in model.tasks}
    calibration = {"temperatures": temperatures}
    if "age" in model.tasks:
        calibration |= fit_interval_levels(soften(raw["age"], temperatures["age"]), labels["age"])
    return AnswerNet(model, mirror, calibration)


def answer_table(answers: dict[str, np.ndarray], faces: pd.DataFrame) -> pd.DataFrame:
    """A predictions table of what an exported network answers, intervals included."""
    table = predictions_table({task: answers[task] for task in TASKS if task in answers}, faces, "export")
    if "age" in answers:
        table["age_lo"], table["age_hi"] = answers["age_interval"].T
    return table


def fit_limits(
    network: AnswerNet, pixels: np.ndarray, answers: dict, faces: pd.DataFrame, num_faces: int = 250
) -> dict[str, float]:
    """Brightness, sharpness and side up to which ages are told badly, measured on our own corruptions."""
    ages = faces["age"].to_numpy(dtype=float, na_value=np.nan)
    rows = np.flatnonzero(np.isfinite(ages))[:num_faces]
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


def build_onnx(network: AnswerNet, size: int, about: dict) -> bytes:
    """The network as a sealed ONNX file with its description inside."""
    from onnx import helper

    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    names = [name for task in network.model.tasks for name in OUTPUTS[task]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecated calls
        program = torch.onnx.export(
            network.cpu(), (example,), dynamo=True, input_names=["image"], output_names=names, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},), opset_version=18,
        )  # fmt: skip
    proto = program.model_proto
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]  # source lines of torch, absolute paths included
        node.doc_string = ""
    store_half(proto.graph)
    helper.set_model_props(proto, {"agr": json.dumps(about, allow_nan=False)})
    return seal(proto.SerializeToString())


def store_half(graph, smallest: int = _MIN_WEIGHTS) -> None:
    """Store large float32 weights of an ONNX graph in half precision, each with a Cast that is folded on loading.

    Raises:
        InputError: naming the weight, if one is too large for half precision.
    """
    from onnx import TensorProto, helper, numpy_helper

    for item in graph.initializer:
        array = numpy_helper.to_array(item)
        if array.dtype != np.float32 or array.size < smallest:
            continue
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise InputError(
                f"the weight {item.name} holds values that half precision cannot ({np.abs(array).max():g})"
            )
        name = item.name
        item.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))


def write_checked(content: bytes, output: Path, network: AnswerNet, pixels: np.ndarray) -> FaceModel:
    """Write an ONNX file if it is small enough and answers as torch does.

    Raises:
        InputError: if it is not.
    """
    if len(content) > MAX_BYTES:
        raise InputError(
            f"{output}: would be {len(content) / 1e6:.1f} MB, over {MAX_BYTES / 1e6:.0f}. Export a smaller network"
        )
    expected = answer_pixels(network, pixels)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "model.onnx"
        trial.write_bytes(content)
        model = FaceModel(trial)
    found = [model.run(image, model.tasks) for image in pixels]
    for name, values in expected.items():
        apart = np.abs(values - np.stack([answer[name] for answer in found])).mean()
        if not apart <= _LOOSE[name]:
            raise InputError(f"{output}: onnxruntime and torch differ in {name} by {apart:.4f} on average. Not written")
    with atomic_path(output) as partial:
        partial.write_bytes(content)
    return FaceModel(output)

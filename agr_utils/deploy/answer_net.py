"""A network with everything between pixels and answers around it, in torch and as an ONNX model."""

import json
import re
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from agr_utils.deploy.answers import OUTPUTS
from agr_utils.deploy.calibrate import QUANTILES
from agr_utils.deploy.onnx_file import seal
from agr_utils.errors import InputError
from agr_utils.models.network import MultiTaskNet, age_quantiles, expected_age, normalize

OPSETS = range(18, 22)  # of ONNX's operators: what PyTorch writes, up to what onnxruntime 1.20 runs
_MIN_WEIGHTS = 1000  # of a tensor that is worth storing in half precision


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
def answer_pixels(network: AnswerNet, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The OUTPUTS for (N, S, S, 3) uint8 pixels, computed by torch."""
    parts = [network(torch.from_numpy(chunk)) for chunk in np.array_split(pixels, -(-len(pixels) // 256))]
    names = [name for task in network.model.tasks for name in OUTPUTS[task]]
    return {name: torch.cat(arrays).numpy() for name, arrays in zip(names, zip(*parts, strict=True), strict=True)}


def build_onnx(network: AnswerNet, size: int, opset: int = OPSETS[0]):
    """The network as an ONNX model (``onnx.ModelProto``), weights in float32; it ends on the CPU.

    Raises:
        InputError: for an opset that is none of OPSETS, or naming the operator that ONNX lacks.
    """
    check_opset(opset)
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    names = [name for task in network.model.tasks for name in OUTPUTS[task]]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecated calls
            program = torch.onnx.export(
                network.cpu(), (example,), dynamo=True, input_names=["image"], output_names=names, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},), opset_version=opset,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        operator = re.search(r"op='([^']+)'", str(error))
        lacking = f"the operator {operator[1]}" if operator else " ".join(str(error).split())[:200]
        raise InputError(
            f"ONNX lacks {lacking}, which {network.model.backbone_name} uses. Export another one"
        ) from error
    proto = program.model_proto
    del proto.graph.value_info[:], proto.graph.metadata_props[:]  # the latter: torch's own names of every weight
    for node in proto.graph.node:
        del node.metadata_props[:]  # source lines of torch, absolute paths included
        node.doc_string = ""
    return proto


def check_opset(opset: int) -> None:
    """Refuse an opset that is not one of OPSETS."""
    if opset not in OPSETS:
        raise InputError(f"opset {opset} cannot be written here. Choose one from {OPSETS[0]} to {OPSETS[-1]}")


def finish_onnx(proto, about: dict) -> bytes:
    """A sealed ONNX file with large weights in half precision and its description inside."""
    from onnx import helper

    store_half(proto.graph)
    del proto.metadata_props[:]
    helper.set_model_props(proto, {"agr": json.dumps(about, allow_nan=False)})
    return seal(proto.SerializeToString())


def store_half(graph, least: int = _MIN_WEIGHTS) -> None:
    """Store float32 tensors of so many numbers in half precision, each with a Cast that is folded on loading."""
    from onnx import TensorProto, helper, numpy_helper

    for item in graph.initializer:
        array = numpy_helper.to_array(item)
        if array.dtype != np.float32 or array.size < least:
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

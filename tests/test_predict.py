import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.data.load import load_data
from agr_utils.deploy import predict
from agr_utils.deploy.detect import crop_face
from agr_utils.errors import InputError
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import load_model, train_run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on drawn faces for two steps: its answers are nonsense, their form is not."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = TrainConfig(backbone="custom_cnn", num_epochs=1, image_size=32, batch_size=32, num_images=100)
    train_run(config, load_data("synthetic", 32, num_images=100), folder)
    return folder / "checkpoint.safetensors"


def test_answers_come_in_order_and_bad_files_do_not_stop_them(face_folder: Path, checkpoint: Path):
    (face_folder / "00_bad.jpg").write_bytes(b"")
    (face_folder / "zz text.png").write_text("no image")
    files = predict.find_images([str(face_folder)])
    answers = list(predict.predict_files(files, *load_model(checkpoint), tasks=("age", "gender", "race")))
    assert [answer["path"] for answer in answers] == [str(path) for path in files]
    assert "error" in answers[0] and "error" in answers[-1]
    for answer in answers[1:-1]:
        low, high = answer["age_interval"]
        assert 0 <= low <= answer["age"] <= high <= 116
        assert 0.5 <= answer["gender_probability"] <= 1
        assert sum(answer["race_probabilities"].values()) == pytest.approx(1, abs=0.01)
        assert answer["race"] == max(answer["race_probabilities"], key=answer["race_probabilities"].get)


def test_race_is_not_answered_unless_asked_for(face_folder: Path, checkpoint: Path):
    answers = list(predict.predict_files(predict.find_images([str(face_folder)]), *load_model(checkpoint)))
    assert all("race" not in answer and "race_probabilities" not in answer for answer in answers)


def test_an_answer_does_not_depend_on_its_neighbours(face_folder: Path, checkpoint: Path):
    model, about = load_model(checkpoint)
    files = predict.find_images([str(face_folder)])
    together = list(predict.predict_files(files, model, about))
    alone = [next(predict.predict_files([path], model, about)) for path in files]
    for one, other in zip(together, alone, strict=True):
        assert one["age"] == pytest.approx(other["age"], abs=0.11)


def test_files_folders_and_globs(face_folder: Path):
    files = sorted(face_folder.iterdir())
    (face_folder / "._21_1_2_3.jpg").write_bytes(b"what macOS leaves behind")
    assert predict.find_images([str(face_folder)]) == files
    assert predict.find_images([str(face_folder / "*.jpg")]) == files
    assert predict.find_images([str(files[3]), str(files[1])]) == [files[3], files[1]]
    with pytest.raises(InputError, match="no image there"):
        predict.find_images([str(face_folder / "*.gif")])


def test_a_shipped_model_that_was_tampered_with_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predict, "SHIPPED_MODEL", tmp_path / "model.safetensors")
    monkeypatch.setattr(predict, "SHIPPED_ABOUT", tmp_path / "model.json")
    predict.save_shipped_model(checkpoint)
    model, about = predict.load_shipped_model()
    assert about["config"]["backbone"] == "custom_cnn"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for half, whole in zip(
        predict.predict_pixels(pixels, model), predict.predict_pixels(pixels, load_model(checkpoint)[0]), strict=True
    ):
        assert half["age"] == pytest.approx(whole["age"], abs=0.3)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="hash differs"):
        predict.load_shipped_model()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="missing"):
        predict.load_shipped_model()


def test_a_mirrored_face_gets_the_same_answer(checkpoint: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model, _ = load_model(checkpoint)
    assert predict.predict_pixels(pixels, model) == predict.predict_pixels(pixels[:, :, ::-1].copy(), model)


def test_a_picture_without_a_face_is_taken_as_it_is():
    image = Image.new("RGB", (120, 80), "grey")
    assert crop_face(image) is image


needs_shipped_model = pytest.mark.skipif(
    not predict.SHIPPED_MODEL.exists(), reason="no model ships with this checkout yet: agr publish RUN --ship"
)


@needs_shipped_model
def test_shipped_model_is_small_and_its_record_complete():
    assert predict.SHIPPED_MODEL.stat().st_size <= 12_000_000
    about = json.loads(predict.SHIPPED_ABOUT.read_text())
    assert about["bytes"] == predict.SHIPPED_MODEL.stat().st_size
    model, stored = predict.load_shipped_model()
    assert stored["config"]["backbone"] == "mobilenet_v3" and model.tasks == ("age", "gender", "race")
    assert model.scheme.race == ("white", "black", "asian", "indian", "other")


@needs_shipped_model
def test_shipped_model_answers_as_published_on_real_faces(real_data_dir: Path):
    """From files, not from the cache: the whole way that a user's picture takes."""
    from agr_utils.analysis.results import read_run
    from agr_utils.data.images import decode_image, resize_square
    from agr_utils.data.sources import list_images, read_images
    from agr_utils.runtime import repository_root

    model, about = predict.load_shipped_model()
    published = read_run(repository_root() / "results" / about["run_id"]).predictions.set_index("image_id")
    wanted = set(published[published["split"] == "test"].index[:256])
    names, pixels = [], []
    for path, content in read_images(real_data_dir):
        name = path.rsplit("/", 1)[-1]
        if name in wanted:
            names.append(name)
            pixels.append(resize_square(decode_image(content, name), 64))
    assert len(names) == len(wanted) <= len(list_images(real_data_dir))
    answers = predict.predict_pixels(np.stack(pixels), model, about["age_widening"])
    expected = published.loc[names]
    difference = np.abs([answer["age"] for answer in answers] - expected["age_pred"].to_numpy(dtype=float))
    # Half precision, rounding, and that JPEGs were decoded at half scale when the run was published.
    assert np.median(difference) < 0.2 and difference.max() < 3.0
    same_gender = [(a["gender"] == "female") == (p >= 0.5) for a, p in zip(answers, expected["gender_p"], strict=True)]
    assert np.mean(same_gender) > 0.98

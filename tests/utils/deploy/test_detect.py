from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.deploy.detect import LAYOUT, Face, Placement, cut_out, detect, find_faces, is_upright, place_crop

# Where the face of scikit-image's public-domain astronaut is.
BOX, EYES = (182, 58, 88, 120), [(203, 102), (247, 104)]


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    pictures = pytest.importorskip("skimage.data")
    return Image.fromarray(pictures.astronaut())


def test_a_face_is_found_with_its_eyes(astronaut: Image.Image):
    (face,) = find_faces(astronaut)
    assert face.box == pytest.approx(BOX, abs=3) and 0.9 < face.score <= 1 and face.turned == 0
    assert face.landmarks[:2] == pytest.approx(np.array(EYES), abs=3)
    assert is_upright(face)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_turned_photographs_are_tried_upright(astronaut: Image.Image, turned: int):
    picture = astronaut.rotate(turned, expand=True)
    (face,) = find_faces(picture)
    assert face.turned == 360 - turned and face.score > 0.85
    left, top, width, height = face.box
    centre = np.array([BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] / 2])
    expected = {90: (centre[1], 512 - centre[0]), 180: 512 - centre, 270: (512 - centre[1], centre[0])}[turned]
    assert [left + width / 2, top + height / 2] == pytest.approx(list(expected), abs=4)
    # What is cut out is the right way up: much the same pixels as of the upright photograph.
    crop = cut_out(picture, place_crop(face), 64).astype(float)
    straight = cut_out(astronaut, place_crop(find_faces(astronaut)[0]), 64).astype(float)
    assert np.abs(crop - straight).mean() < 12


def test_all_faces_are_found_largest_first(astronaut: Image.Image):
    group = Image.new("RGB", (1100, 520), "grey")
    group.paste(astronaut.resize((300, 300)), (0, 100))
    group.paste(astronaut, (320, 0))
    group.paste(astronaut.resize((200, 200)), (860, 200))
    faces = find_faces(group)
    assert [round(face.box[0], -1) for face in faces] == pytest.approx([500, 110, 930], abs=10)


def test_small_faces_of_a_large_photograph_are_found(astronaut: Image.Image):
    photo = Image.new("RGB", (2400, 1600), "darkgreen")
    photo.paste(astronaut.resize((300, 300)), (1000, 700))  # a face of 52 pixels, 14 in the first copy that is searched
    (face,) = find_faces(photo)
    assert face.box[:2] == pytest.approx((1106, 734), abs=6)


@pytest.mark.parametrize("name", ["chelsea", "coffee", "brick", "rocket", "moon"])
def test_no_face_is_found_where_there_is_none(name: str):
    pictures = pytest.importorskip("skimage.data")
    assert find_faces(Image.fromarray(getattr(pictures, name)()).convert("RGB")) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (31, 33), (3000, 20)])
def test_odd_sizes_and_noise_hold_no_face(size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert find_faces(Image.fromarray(pixels)) == []


def synthetic_face(side: float, angle: float, centre: tuple[float, float]) -> Face:
    """Landmarks as a crop of UTKFace of this side, turned clockwise by so many degrees, would have them."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    points = (LAYOUT - 0.5) * side @ np.array([[cos, sin], [-sin, cos]]) + centre
    landmarks = np.concatenate([points[:2], points.mean(axis=0, keepdims=True), points[2:]])
    return Face((0, 0, side, side), 1.0, landmarks)


@pytest.mark.parametrize("angle", [-70, -20, 0, 35, 90, 180])
def test_a_crop_lies_as_those_it_was_trained_on(angle: float):
    place = place_crop(synthetic_face(120, angle, (300, 200)), zoom=1.0)
    assert place.centre == pytest.approx((300, 200)) and place.side == pytest.approx(120)
    assert np.exp(1j * place.angle) == pytest.approx(np.exp(1j * np.radians(angle)))
    assert place_crop(synthetic_face(120, angle, (300, 200)), zoom=1.5).side == pytest.approx(180)
    assert is_upright(synthetic_face(120, angle, (0, 0))) == (abs(angle) < 60)


@pytest.mark.parametrize("angle", [0, 25, -90, 180])
@pytest.mark.parametrize("side", [40, 64, 150, 600])
def test_what_is_cut_out_is_what_lies_there(angle: float, side: int):
    rows, columns = np.mgrid[0:64, 0:64]
    card = np.stack([columns * 4, rows * 4, np.full((64, 64), 90)], axis=2).astype(np.uint8)
    pasted = Image.fromarray(card).resize((side, side), Image.Resampling.BICUBIC)
    photo = Image.new("RGB", (1000, 900))
    turned = pasted.rotate(-angle, Image.Resampling.BICUBIC, expand=True)
    photo.paste(turned, (450 - turned.width // 2, 420 - turned.height // 2))
    crop = cut_out(photo, Placement((450, 420), side, np.radians(angle)), 64)
    assert np.abs(crop[4:-4, 4:-4].astype(float) - card[4:-4, 4:-4]).mean() < 5


def test_a_crop_beyond_the_edge_repeats_it():
    photo = Image.fromarray(np.tile(np.linspace(10, 200, 50).astype(np.uint8)[None, :, None], (40, 1, 3)))
    crop = cut_out(photo, Placement((0, 20), 40, 0.0), 32)
    assert np.all(crop[:, :14] == 10) and crop[16, -1, 0] > 60
    for centre in ((-500.0, 20.0), (10.0, 900.0)):
        assert cut_out(photo, Placement(centre, 30.0, 0.3), 16).shape == (16, 16, 3)


def test_a_damaged_or_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_clear_line):
    from agr_utils.deploy import detect as module

    for content, word in ((None, "no such model"), (module.DETECTOR.read_bytes()[:-1000], "damaged")):
        if content:
            (tmp_path / "centerface.onnx").write_bytes(content)
        monkeypatch.setattr(module, "DETECTOR", tmp_path / "centerface.onnx")
        module.load_detector.cache_clear()
        with one_clear_line("centerface.onnx", word):
            detect(Image.new("RGB", (64, 64)))
    monkeypatch.undo()
    module.load_detector.cache_clear()


def test_threads_find_the_same(astronaut: Image.Image):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: detect(astronaut)[0].box, range(16)))
    assert len(set(found)) == 1

import csv
import io
import json
import os
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_lab.cli import main as cli
from agr_utils.data.reading.pictures import find_images, reason_of
from agr_utils.data.reading.skipped import Skipped
from agr_utils.deploy.command import csv_rows, json_line, text_lines
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
from agr_utils.deploy.predict import Request, predict_files, predict_rgb
from agr_utils.errors import InputError
from agr_utils.tasks import TASKS

CROP = Request(detect=False)
pictures = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return FaceModel()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Two faces: scikit-image's public-domain astronaut, and she again at half the size."""
    astronaut = Image.fromarray(pictures.astronaut())
    group = Image.new("RGB", (800, 520), "grey")
    group.paste(astronaut.resize((256, 256)), (0, 100))
    group.paste(astronaut, (280, 0))
    group.save(tmp_path / "group.png")
    return tmp_path / "group.png"


@pytest.fixture
def agr(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """Runs a command: exit status, stdout, stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agr", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capfd.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


def agr_process(*arguments, code: str = "", **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "agr_lab.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_no_torch_and_no_pandas_are_imported(photo: Path):
    code = f"""
import sys
sys.argv = ["agr", "predict", {str(photo)!r}, "--json", "--task", "all"]
from agr_lab.cli import main as cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code
heavy = {{"torch", "timm", "pandas", "scipy", "sklearn", "matplotlib", "torchvision", "onnx", "accelerate", "cv2"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = agr_process(code=code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert len(json.loads(done.stdout.splitlines()[0])["faces"]) == 2


def test_every_face_is_answered_largest_first(photo: Path, model: FaceModel):
    (answer,) = predict_files([photo], model, Request(tasks=TASKS, quantiles=True))
    assert list(answer) == ["path", "faces", "model", "model_sha256", "trained_ages"]
    assert answer["model"] == model.run_id and model.sha256.startswith(answer["model_sha256"])
    large, small = answer["faces"]
    assert large["box"] == pytest.approx([462, 58, 88, 120], abs=4) and small["box"][2] == pytest.approx(44, abs=4)
    for face in (large, small):
        assert {"box", "score", "age", "age_interval", "age_quantiles", "gender", "gender_probability"} <= set(face)
        assert face["gender"] == "female" and face["race"] == "white" and 20 < face["age"] < 45
        assert face["age_interval"][0] <= face["age"] <= face["age_interval"][1]
        assert face["age_quantiles"] == sorted(face["age_quantiles"]) and len(face["age_quantiles"]) == 20
    assert abs(large["age"] - small["age"]) < 6
    (one,) = predict_files([photo], model, Request(faces="one"))
    assert len(one["faces"]) == 1 and one["faces"][0]["box"] == large["box"] and "race" not in one["faces"][0]


def test_no_face_is_an_answer(agr, tmp_path: Path):
    Image.fromarray(pictures.coffee()).save(tmp_path / "cup.png")
    status, out, err = agr("predict", tmp_path / "cup.png")
    assert (status, out) == (0, f"{tmp_path}/cup.png: no face found\n") and "no face found in 1 of 1" in err
    status, out, err = agr("predict", tmp_path / "cup.png", "--json")
    assert status == 0 and json.loads(out)["faces"] == [] and json.loads(err)["without_faces"] == 1
    assert list(csv.DictReader(io.StringIO(agr("predict", tmp_path / "cup.png", "--csv")[1])))[0]["faces"] == "0"


def test_alone_in_a_batch_and_in_threads_the_answer_is_the_same(
    face_folder: Path, model: FaceModel, monkeypatch: pytest.MonkeyPatch
):
    files = sorted(face_folder.iterdir())
    together = list(predict_files(files, model, CROP))
    assert [next(predict_files([path], model, CROP)) for path in files] == together
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert list(predict_files(files, model, CROP)) == together
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert list(predict_files(files * 9, model, CROP)) == together * 9


def test_one_photograph_linked_often_has_one_answer(photo: Path, tmp_path: Path):
    for number in range(12):
        (tmp_path / f"link{number}.png").symlink_to(photo)
    done = agr_process("predict", *sorted(tmp_path.glob("link*.png")), "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 12 and len({json.dumps(answer["faces"]) for answer in answers}) == 1


def test_a_path_a_picture_and_arrays_get_one_answer(photo: Path, model: FaceModel):
    image = Image.open(photo)
    pixels = np.asarray(image)
    floats = pixels.astype(np.float32) / 255
    answers = predict_rgb([photo, str(photo), image, pixels, floats, floats.astype(np.float64)], model)
    first = {key: value for key, value in answers[0].items() if key != "path"}
    assert all({key: value for key, value in answer.items() if key != "path"} == first for answer in answers)
    assert predict_rgb(pixels, model) == [first] and predict_rgb(pixels[None], model) == [first]
    assert predict_rgb([pixels[:, :, ::-1]], model) != [first]  # blue first: the caller's mistake, which cannot be seen


def test_a_jpeg_and_its_array_get_one_answer(face_folder: Path, model: FaceModel):
    for path in sorted(face_folder.iterdir())[:4]:
        (by_path,) = predict_rgb([path], model, CROP)
        (by_array,) = predict_rgb([np.asarray(Image.open(path))], model, CROP)
        assert by_path == {"path": str(path)} | by_array


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((8, 8), np.uint8), "Convert it to RGB"),
        (np.zeros((3, 8, 8), np.uint8), "Move the channels to the end"),
        (np.zeros((8, 8, 4), np.uint8), "Convert it to RGB"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.full((8, 8, 3), 200.0), "between 0 and 1"),
        (np.full((8, 8, 3), -0.5), "undo any normalisation"),
        (np.full((8, 8, 3), np.nan), "between 0 and 1"),
        (Image.new("RGB", (0, 0)), "0x0 pixels"),
        (Image.new("RGB", (5, 0)), "5x0 pixels"),
        ([[1, 2, 3]], "is no image"),
        (b"bytes", "a bytes is no image"),
        (None, "is no image"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, words: str, model: FaceModel, one_clear_line):
    for request in (CROP, Request()):
        with one_clear_line("image 0", words):
            predict_rgb([array], model, request)


def test_tensors_are_arrays(model: FaceModel, one_clear_line):
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(8, 9, 3)
    (answer,) = predict_rgb(tensor, model, CROP)
    assert predict_rgb([tensor.numpy()], model, CROP) == [answer]
    with one_clear_line("image 0", "requires grad"):
        predict_rgb([tensor.requires_grad_()], model, CROP)


def test_a_file_that_cannot_be_read_is_refused_in_python(tmp_path: Path, model: FaceModel, one_clear_line):
    with one_clear_line("nowhere.jpg", "No such file"):
        predict_rgb([tmp_path / "nowhere.jpg"], model)
    with one_clear_line("nul", "null byte"):
        predict_rgb(["nul\0.jpg"], model)
    with one_clear_line("no task"):
        Request(tasks=())
    with one_clear_line("faces is 'two'"):
        Request(faces="two")
    with one_clear_line("no head for beauty"):
        list(predict_files([], model, Request(tasks=("beauty",))))


def test_answers_come_in_order_and_bad_files_do_not_stop_them(agr, face_folder: Path):
    (face_folder / "00_bad.jpg").write_bytes(b"")
    (face_folder / "zz text.png").write_text("no image")
    (face_folder / "b.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    status, out, err = agr("predict", face_folder, "--json", "--no-detect", "--task", "all")
    answers = [json.loads(line) for line in out.splitlines()]
    assert (
        status == 1
        and len(answers) == 14
        and sorted(answer["path"] for answer in answers) == [answer["path"] for answer in answers]
    )
    assert "error" in answers[0] and "error" in answers[-1]
    assert list(answers[1])[:5] == ["path", "age", "age_interval", "gender", "gender_probability"]
    assert "faces" not in answers[1] and sum(answers[1]["race_probabilities"].values()) == pytest.approx(1, abs=0.01)
    counts = json.loads(err)
    assert counts["pictures"] == 12 and counts["skipped"]["total"] == 3
    assert counts["skipped"]["reasons"]["HEIC (install pillow-heif)"]["count"] == 1
    status, out, err = agr("predict", face_folder, "--no-detect")
    assert status == 1 and err.splitlines()[-1].startswith("3 skipped: ") and "1 HEIC (install pillow-heif)" in err


@pytest.mark.parametrize("images", [None, b"the bytes of a file", np.zeros((8, 9), np.uint8), 7])
def test_what_is_no_picture_nor_several_is_refused(images, model: FaceModel, one_clear_line):
    shape = getattr(images, "shape", None)
    with one_clear_line("image 0", f"its shape is {shape}" if shape else f"a {type(images).__name__} is no image"):
        predict_rgb(images, model, CROP)


def test_a_model_may_be_named_by_its_file_and_tasks_are_several(face_folder: Path, model: FaceModel, one_clear_line):
    path = sorted(face_folder.iterdir())[0]
    answer = predict_rgb(path, model, CROP)
    assert predict_rgb(path, SHIPPED_MODEL, CROP) == predict_rgb(path, str(SHIPPED_MODEL), CROP) == answer
    assert list(predict_files(path, str(SHIPPED_MODEL), CROP)) == answer
    with one_clear_line("tasks is the text 'age'", "('age',)"):
        Request("age")


def test_csv_says_what_is_abstained_from(agr, photo: Path):
    rows = list(csv.DictReader(io.StringIO(agr("predict", photo, "--csv", "--abstain")[1])))
    for row in rows:
        assert row["abstained"] == "; ".join(task for task in ("age", "gender") if not row[task])
    assert next(csv_rows({"path": "a", "abstained": ["age", "gender"]}))["abstained"] == "age; gender"
    assert "abstained" not in agr("predict", photo, "--csv")[1]


def test_csv_has_a_row_a_face(agr, photo: Path):
    out = agr("predict", photo, "--csv", "--task", "all", "--quantiles")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["face"] for row in rows] == ["1", "2"] and {row["faces"] for row in rows} == {"2"}
    assert float(rows[0]["age_low"]) <= float(rows[0]["age"]) <= float(rows[0]["age_high"])
    assert float(rows[0]["age_q0.025"]) < float(rows[0]["age_q0.975"]) and rows[0]["race"] == "white"
    assert sum(float(rows[0][f"race_{name}"]) for name in ("white", "black", "asian", "indian", "other")) > 0.99
    status, _, err = agr("predict", photo, "--csv", "--json")
    assert status == 1 and "exclude each other" in err


def test_abstaining_follows_the_thresholds(photo: Path, model: FaceModel, monkeypatch: pytest.MonkeyPatch):
    def ask(**thresholds: float) -> dict:
        monkeypatch.setitem(model.about, "abstain", {task: {"threshold": value} for task, value in thresholds.items()})
        return next(predict_files([photo], model, Request(abstain=True)))["faces"][0]

    sure = ask(age=-200, gender=0.5)
    assert sure["abstained"] == [] and sure["gender"] == "female" and sure["age"] > 0
    unsure = ask(age=-1, gender=0.9999)
    assert unsure["abstained"] == ["age", "gender"] and unsure["age"] is None and unsure["gender"] is None
    assert unsure["age_interval"] == sure["age_interval"]
    (line,) = text_lines({"path": "a.jpg"} | {key: unsure[key] for key in unsure if key not in ("box", "score")})
    assert line.startswith("a.jpg: age can't tell (") and "gender can't tell" in line
    with pytest.raises(InputError, match="gender was not measured"):
        ask(age=-1)


def test_no_answer_is_shown_as_certain():
    face = {"gender": "male", "race": "white", "race_probabilities": {"white": 0.994}}
    for sure, shown in ((0.9949, "99%"), (0.995, ">99%"), (1.0, ">99%")):
        (line,) = text_lines({"path": "a.jpg"} | face | {"gender_probability": sure})
        assert line == f"a.jpg: male ({shown}), white (99%)"


def test_what_is_out_of_range_is_said(photo: Path, tmp_path: Path, model: FaceModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(model.about, "trained_ages", [21, 60])
    image = Image.open(photo)
    monkeypatch.setattr(model, "about", model.about | {"limits": {"brightness": 60.0, "sharpness": 0.02, "side": 30.0}})
    dark, tiny = image.point(lambda value: value // 4), image.resize((200, 130))
    answers = predict_rgb([image, dark, tiny], model)
    assert answers[0]["trained_ages"] == [21, 60]
    assert (
        "too dark" not in answers[0]["faces"][0].get("warnings", [])
        and "too dark" in answers[1]["faces"][0]["warnings"]
    )
    assert "too small" in answers[2]["faces"][-1]["warnings"]
    low, high = answers[0]["faces"][0]["age_interval"]
    outside = low < 21 or high > 60
    assert outside == any(
        "ages it was trained on (21 to 60)" in word for word in answers[0]["faces"][0].get("warnings", [])
    )


def test_a_face_that_the_edge_of_the_picture_cuts_off_is_said(photo: Path, model: FaceModel):
    with Image.open(photo) as image:
        left, top, width, height = predict_rgb([image], model)[0]["faces"][0]["box"]
        whole = image.crop((left - width // 4, 0, *image.size))
        cut = [image.crop((left + width // 5, 0, *image.size)), image.crop((0, 0, left + 4 * width // 5, image.height))]
        answers = [answer["faces"] for answer in predict_rgb([whole, *cut], model)]
    said = ["cut off by the edge of the picture" in faces[0].get("warnings", []) for faces in answers]
    assert said == [False, True, True]


@pytest.mark.parametrize("form", ["gif", "tiff", "png"])
def test_of_several_pictures_in_a_file_the_first_is_answered_and_said(form: str, photo: Path, model: FaceModel):
    image = Image.open(photo)
    path = photo.with_name(f"many.{form}")
    image.save(path, save_all=True, append_images=[Image.new("RGB", image.size)])
    (answer,) = predict_files([path], model)
    assert answer["faces"][0]["gender"] == "female"
    assert answer["warnings"] == ["only the first picture of the file was looked at"]
    assert all(
        line.endswith(", warning: only the first picture of the file was looked at") for line in text_lines(answer)
    )
    assert [row["warnings"] for row in csv_rows(answer)] == 2 * answer["warnings"]
    (crop,) = predict_files([path], model, CROP)
    assert (
        next(text_lines(crop)).count("only the first") == next(csv_rows(crop))["warnings"].count("only the first") == 1
    )


def test_the_first_of_several_pictures_without_a_face_is_said_too():
    answer = {"path": "a.gif", "faces": [], "warnings": ["only the first picture"]}
    assert list(text_lines(answer)) == ["a.gif: no face found, warning: only the first picture"]
    assert [row["warnings"] for row in csv_rows(answer)] == ["only the first picture"]
    (line,) = text_lines(answer | {"faces": [{"box": (1, 2, 3, 4), "warnings": ["too dark"]}]})
    assert line.endswith("warning: too dark, warning: only the first picture")


def photoshop(layers: bytes) -> bytes:
    """A grey PSD of 64 by 64 pixels whose section of layers holds these bytes."""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 64, 64, 8, 3) + struct.pack(">2I", 0, 0)
    return header + struct.pack(">I", len(layers)) + layers + struct.pack(">H", 0) + bytes([128]) * (64 * 64 * 3)


def test_layers_are_not_several_pictures_and_damaged_ones_stop_nothing(face_folder: Path, model: FaceModel):
    record = struct.pack(">4iH", 0, 0, 8, 8, 1) + struct.pack(">hI", 0, 2) + b"8BIMnorm" + bytes(4) + bytes(4)
    layers = struct.pack(">h", 2) + 2 * record + 2 * (struct.pack(">H", 0) + bytes(64))
    whole, damaged = face_folder / "0.psd", face_folder / "1.psd"
    whole.write_bytes(photoshop(struct.pack(">I", len(layers)) + layers))
    damaged.write_bytes(photoshop(b"\0\0\0\4\0\1\0\0"))
    with Image.open(whole) as image:
        assert image.is_animated, "Pillow takes layers for frames"
    answers = list(predict_files(sorted(face_folder.iterdir()), model, CROP))
    assert len(answers) == 14 and all("age" in answer for answer in answers)
    assert not any("only the first" in word for answer in answers for word in answer.get("warnings", ()))


def test_files_folders_and_globs(face_folder: Path):
    files = sorted(face_folder.iterdir())
    (face_folder / "._21_1_2_3.jpg").write_bytes(b"what macOS leaves behind")
    (face_folder / "a.jpg").mkdir()
    assert find_images([str(face_folder)]) == files
    assert find_images([str(face_folder / "[0-9]*.jpg")]) == files
    assert find_images([str(files[3]), str(files[1])]) == [files[3], files[1]]
    with pytest.raises(InputError, match="no image there"):
        find_images([str(face_folder / "*.gif")])
    with pytest.raises(InputError, match="no image there"):
        find_images([str(face_folder / "a.jpg")])


def test_globs_do_not_follow_links_to_folders(face_folder: Path, monkeypatch: pytest.MonkeyPatch):
    files = sorted(path.name for path in face_folder.iterdir())
    (face_folder / "sub" / ".hidden").mkdir(parents=True)
    monkeypatch.chdir(face_folder)
    for link, target in (("loop", "."), ("loop2", f"../{face_folder.name}"), ("sub/up", ".."), ("link.jpg", files[0])):
        Path(link).symlink_to(target)
    for copy in ("sub/b.jpg", "sub/.hidden/c.jpg"):
        Path(copy).write_bytes(Path(files[0]).read_bytes())
    assert find_images(["**/*.jpg"]) == sorted(map(Path, [*files, "link.jpg", "sub/b.jpg"]))
    assert find_images(["**"]) == find_images(["**/*.jpg"])
    assert find_images([str(face_folder / "**/b*.jpg")]) == [face_folder / "sub/b.jpg"]
    assert find_images(["*/*.jpg"]) == find_images(["sub/**"]) == [Path("sub/b.jpg")]
    assert find_images(["loop/s*/b.jpg"]) == [Path("loop/sub/b.jpg")]  # a link that is named
    assert find_images(["sub/.hidden/*.jpg"]) == [Path("sub/.hidden/c.jpg")]
    assert find_images(["**.jpg"]) == [Path(name) for name in sorted([*files, "link.jpg"])]


def test_one_error_line_a_path_and_the_others_are_answered(agr, face_folder: Path, tmp_path: Path):
    good = sorted(face_folder.iterdir())[0]
    os.mkfifo(tmp_path / "pipe.jpg")
    wrong = ["x" * 5000, "", str(tmp_path / "pipe.jpg"), "nowhere.jpg", "nul\0.jpg"]
    status, out, err = agr("predict", "--json", "--no-detect", *wrong, good)
    answers = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and [answer["path"] for answer in answers] == [*wrong, str(good)]
    assert all("error" in answer for answer in answers[:-1]) and "age" in answers[-1]
    assert "too long" in answers[0]["error"] and "empty" in answers[1]["error"]
    assert "not a regular file" in answers[2]["error"] and "no image there" in answers[3]["error"]
    assert json.loads(err)["skipped"]["total"] == 5


def test_a_path_given_twice_is_answered_twice(agr, face_folder: Path):
    good = sorted(face_folder.iterdir())[0]
    _, out, err = agr("predict", "--json", "--no-detect", "nowhere.jpg", good, "nowhere.jpg", good)
    assert [json.loads(line)["path"] for line in out.splitlines()] == 2 * ["nowhere.jpg"] + 2 * [str(good)]
    assert json.loads(err)["skipped"]["total"] == 2


def test_what_is_skipped_names_its_folder(agr, face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("b", "c"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.dng").write_bytes(b"raw")
    monkeypatch.chdir(tmp_path)
    status, _, err = agr("predict", "b", "c", face_folder, "--no-detect")
    assert status == 1 and [line.split(": ")[1] for line in err.splitlines()[:-1]] == ["b/deep/a.dng", "c/deep/a.dng"]
    assert str(tmp_path / "b/deep/a.dng") in agr("predict", tmp_path / "b", "--json")[2]


def test_json_is_ascii_where_the_output_is_not_utf_8(face_folder: Path):
    source = sorted(face_folder.iterdir())[0]
    path = source.rename(face_folder / "é😀\x7f.jpg")
    (face_folder / "ü.dng").write_bytes(b"raw")
    for encoding, plain in (("cp1252", False), ("utf8", True), ("UTF-8", True)):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = agr_process("predict", path, face_folder, "--json", "--no-detect", env=environment, encoding="utf-8")
        assert json.loads(done.stdout.splitlines()[0])["path"] == str(path), encoding
        assert json.loads(done.stderr)["skipped"]["total"] == 1
        assert plain == ("é" in done.stdout) == ("ü" in done.stderr)


@pytest.mark.parametrize("name, words", [("", "empty"), ("nowhere.jpg", "no image there"), ("x" * 5000, "too long")])
def test_a_single_wrong_path_is_one_clear_line(agr, name: str, words: str):
    status, out, err = agr("predict", name)
    assert status == 1 and not out and err.startswith("agr: error: ") and words in err and err.count("\n") == 1


def test_pipes_are_not_waited_for(agr, tmp_path: Path, face_folder: Path):
    os.mkfifo(tmp_path / "p.onnx")
    (face_folder / "pipe.jpg").unlink(missing_ok=True)
    os.mkfifo(face_folder / "pipe.jpg")
    status, out, err = agr("predict", face_folder, "--no-detect")
    assert status == 1 and len(out.splitlines()) == 12 and "not a regular file" in err
    status, _, err = agr("predict", face_folder, "--model", tmp_path / "p.onnx")
    assert status == 1 and "not a regular file" in err


def test_names_that_no_file_can_have_end_no_batch(face_folder: Path, model: FaceModel):
    good = sorted(face_folder.iterdir())[0]
    answers = list(predict_files(["nul\0.jpg", "\ud800.jpg", good], model, CROP))
    assert ["error" in answer for answer in answers] == [True, True, False]
    assert list(predict_files(str(good), model, CROP)) == list(predict_files(good, model, CROP)) == answers[2:]


def test_a_file_that_vanishes_is_an_error_of_its_own(face_folder: Path, model: FaceModel):
    files = sorted(face_folder.iterdir())
    files[2].unlink()
    answers = list(predict_files(files, model, CROP))
    assert "No such file" in answers[2]["error"] and sum("age" in answer for answer in answers) == 11


def test_a_locked_folder_is_said(agr, face_folder: Path, monkeypatch: pytest.MonkeyPatch):
    locked = face_folder / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests' user may be root, who may read everything
    status, out, err = agr("predict", face_folder, "--no-detect")
    assert status == 1 and len(out.splitlines()) == 12 and "locked" in err and "Permission denied" in err


def test_a_closed_pipe_ends_quietly(face_folder: Path):
    command = f"{sys.executable} -m agr_lab.cli predict --no-detect {face_folder} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_closed_streams(face_folder: Path):
    command = f"{sys.executable} -m agr_lab.cli predict --no-detect {face_folder} "
    done = subprocess.run(["bash", "-c", command + ">&-"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "standard output is closed" in done.stderr
    done = subprocess.run(["bash", "-c", command + "2>&-"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.count(": age ") == 12


def test_names_cannot_steer_a_terminal(agr, face_folder: Path):
    source = sorted(face_folder.iterdir())[0]
    name = "a\x1b[2J\n\x9b31m\u202egpj.jpg"
    (face_folder / name).write_bytes(source.read_bytes())
    odd = os.fsencode(str(face_folder)) + b"/\xff.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"")
    for options in ([], ["--json"], ["--csv"]):
        _, out, err = agr("predict", face_folder, "--no-detect", *options)
        assert not set("\x1b\x9b\u202e") & set(out + err), options
    paths = [json.loads(line)["path"] for line in agr("predict", face_folder, "--no-detect", "--json")[1].splitlines()]
    assert str(face_folder / name) in paths and os.fsdecode(odd) in paths
    with pytest.raises(ValueError):
        json_line({"age": float("nan")})


def test_a_model_of_another_kind_is_refused(agr, tmp_path: Path, face_folder: Path):
    with zipfile.ZipFile(tmp_path / "m.onnx", "w") as archive:
        archive.writestr("a", "b")
    for path in (tmp_path / "m.onnx", face_folder, tmp_path / "nowhere.onnx"):
        status, out, err = agr("predict", face_folder, "--no-detect", "--model", path)
        assert status == 1 and not out and err.count("\n") == 1 and "agr export" in err


def test_memory_stays_flat_and_few_files_are_ahead(face_folder: Path, model: FaceModel):
    source, taken = sorted(face_folder.iterdir())[0], 0

    def files():
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield source

    answers = predict_files(files(), model, CROP)
    next(answers)
    assert taken <= 8 * (os.cpu_count() or 1) + 1
    before = threading.active_count()
    answers.close()  # a caller that stops early leaves no threads behind
    assert threading.active_count() < before


def test_reasons_are_counted_without_what_is_particular():
    skipped = Skipped()
    for error in (
        "1200x90000 pixels is too large (limit 100 megapixels). Crop the face first",
        "90000x1200 pixels is too large (limit 100 megapixels). Crop the face first",
        "damaged image (broken data stream). Get it again, or leave it out",
        "cannot be read here: HEIC (install pillow-heif)",
    ):
        skipped.add(reason_of(error), "a.jpg")
    assert str(skipped) == "4 skipped: 2 is too large, 1 damaged image, 1 HEIC (install pillow-heif)"


def test_the_course_is_asked_for_in_one_line():
    code = """
import sys, importlib.abc
class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "pandas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from agr_lab.cli import main as cli
sys.argv = ["agr", *COMMAND]
cli.main()
"""
    for command in (["evaluate", "nowhere"], ["data", "audit", "."], ["train", "--output-dir", "x"]):
        done = agr_process(code=f"COMMAND = {command}\n" + code)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert 'pip install ".[course]"' in done.stderr

"""``agr data audit``, ``agr data prepare`` and ``agr train`` on what users have, and what they say of the rest."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.data.load import load_data

TINY = ["--backbone", "mobilenet_v2", "--num-epochs", "1", "--image-size", "32", "--batch-size", "2"]
BANDS = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"]


def photograph(seed: int) -> Image.Image:
    """Soft random shapes, which no other seed has."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture
def fairface(tmp_path: Path) -> Path:
    """60 training and 20 test images; train/0 to train/4 are copies of val/0 to val/4, two of them mirrored."""
    folder = tmp_path / "FairFace"
    for part, name, count in (("train", "train", 60), ("val", "val", 20)):
        (folder / part).mkdir(parents=True)
        lines = ["file,age,gender,race,service_test"]
        for number in range(count):
            picture = photograph(1000 + number if part == "val" or number < 5 else number)
            if part == "train" and number in (3, 4):
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            picture.save(folder / part / f"{number}.jpg", quality=80 if part == "train" else 95)
            lines.append(f"{part}/{number}.jpg,{BANDS[number % 9]},Male,White,{number % 2 == 0}")
        (folder / f"fairface_label_{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_an_audit_speaks_of_fairface_in_its_own_terms(agr, fairface):
    for source in (fairface, fairface / "fairface_label_val.csv"):
        found = json.loads(agr("data", "audit", source, "--json")[1])
        assert (found["data"], found["num_images"], found["malformed"], found["num_unlisted"]) == (
            "fairface",
            80,
            {},
            0,
        )
        assert (found["num_pairs"], found["num_pairs_across"], found["num_train_copies"]) == (5, 5, 5)
        assert (found["age_disagreement"], found["age_conflicts"], found["num_service_test"]) == (None, 0.0, 40)
        assert found["skipped"] == {"total": 0, "reasons": {}}
    status, out, _ = agr("data", "audit", fairface)
    assert status == 0 and "5  " not in out.splitlines()[0]
    for line in (
        "malformed lines of label files  0", "pairs across two published parts  5",
        "training images copied in the test part  5", "twins' age bands differ in  0.0%", "marked as service_test  40",
    ):  # fmt: skip
        assert line in out
    found = json.loads(agr("data", "audit", fairface, "--service-test", "--json")[1])
    assert (found["num_images"], found["num_train_copies"], found["num_service_test"]) == (40, 3, 40)
    assert found["skipped"]["reasons"]["not in the service test"]["count"] == 40


def test_an_audit_counts_what_the_label_files_and_the_folder_lack(agr, fairface):
    labels = fairface / "fairface_label_train.csv"
    labels.write_text(labels.read_text().replace("train/7.jpg,60-69,Male", "train/7.jpg,60-69,man"))
    (fairface / "train" / "8.jpg").unlink()
    (fairface / "train" / "9.jpg").write_bytes(b"")
    (fairface / "train" / "new.jpg").write_bytes((fairface / "train" / "10.jpg").read_bytes())
    (fairface / "train" / "phone.heic").write_bytes(b"x")
    found = json.loads(agr("data", "audit", fairface, "--json")[1])
    assert found["malformed"] == {"fairface_label_train.csv line 9": "gender 'man' is none of male, female"}
    assert (found["num_unlisted"], found["num_identical"]) == (1, 1)
    assert {reason: entry["count"] for reason, entry in found["skipped"]["reasons"].items()} == {
        "HEIC (install pillow-heif)": 1,
        "listed but not there": 1,
        "image without a row in a label file": 1,
        "unreadable": 1,
    }
    out = agr("data", "audit", fairface)[1]
    assert "malformed: fairface_label_train.csv line 9: gender 'man'" in out
    assert "skipped: train/phone.heic: HEIC (install pillow-heif)" in out
    assert out.splitlines()[-1].startswith("4 skipped: 1 HEIC (install pillow-heif)")


def test_utkface_is_audited_as_before_and_says_so(agr, face_folder, fairface):
    found = json.loads(agr("data", "audit", face_folder, "--json")[1])
    assert (found["data"], found["num_images"], found["num_unlisted"], found["num_service_test"]) == (
        "utkface",
        12,
        12,
        None,
    )
    found = json.loads(agr("data", "audit", fairface, "--data", "utkface", "--json")[1])
    assert (found["data"], len(found["malformed"])) == ("utkface", 80)
    status, _, err = agr("data", "audit", face_folder, "--service-test")
    assert status == 1 and "no image is marked as service_test" in err


def test_prepare_keeps_copies_on_one_side_and_counts_them(agr, fairface, monkeypatch):
    (fairface / "train" / "phone.heic").write_bytes(b"x")
    status, out, err = agr("data", "prepare", "--data", "fairface", "--source", fairface, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["splits"] == {"train": 50, "test": 20, "validation": 5, "unlisted": 5}
    copies = found["skipped"]["reasons"]["training image with a copy in the test split"]
    assert copies == {"count": 5, "examples": [f"train/{number}.jpg" for number in range(5)]}
    data = load_data("fairface", 64, fairface)
    used = data.faces[data.faces["split"] != "unlisted"]
    assert used.groupby("group")["split"].nunique().max() == 1
    assert str(data.skipped).startswith("6 skipped: 5 training image with a copy")
    monkeypatch.setenv("AGR_DATA", "fairface")
    monkeypatch.setattr("agr_utils.data.duplicates.hash_images", lambda *_: pytest.fail("hashed again"))
    out = agr("data", "prepare", "--source", fairface, "--protocol", "service-test")[1]
    assert "unlisted  43" in out  # 40 that are not marked, and of the five copies the three that are
    assert out.splitlines()[-1].startswith("6 skipped: 5 training image with a copy in the test split, 1 HEIC")


def test_prepare_refuses_what_fairface_does_not_say(agr, fairface):
    labels = fairface / "fairface_label_train.csv"
    labels.write_text(labels.read_text().replace("train/7.jpg,60-69", "train/7.jpg,9-Mar"))
    status, out, err = agr("data", "prepare", "--data", "fairface", "--source", fairface)
    assert status == 1 and out == ""
    assert "fairface_label_train.csv line 9: age '9-mar' is none of 0-2, 3-9, 10-19" in err


def test_a_pipe_among_the_images_hangs_nothing(agr, face_folder):
    os.mkfifo(face_folder / "pipe.jpg")
    (face_folder / "album.png").mkdir()
    status, out, _ = agr("data", "prepare", "--source", face_folder)
    assert status == 0 and "unlisted  12" in out
    assert "skipped: pipe.jpg: not a regular file (a pipe, socket or device)" in out
    assert out.splitlines()[-1].startswith("2 skipped: ")


def test_names_that_steer_a_terminal_are_shown_in_letters(agr, face_folder):
    (face_folder / "\x1b[2J20_0_0_20170112213500998.jpg").write_bytes(b"")
    _, out, err = agr("data", "audit", face_folder)
    assert "\x1b" not in out + err and r"\x1b[2J20_0_0" in out


def test_train_takes_the_data_set_from_the_environment(agr, face_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AGR_DATA", "utkface")
    monkeypatch.setenv("AGR_DATA_DIR", str(face_folder))
    os.mkfifo(face_folder / "pipe.jpg")
    arguments = ["train", *TINY, "--protocol", "random-5fold-0", "--output-dir", tmp_path / "run", "--json"]
    status, out, err = agr(*arguments)
    assert status == 0, err
    found = json.loads(out)
    assert found["num_train"] == 6 and set(found["metrics"]) == {"validation", "test"}
    assert found["skipped"]["total"] == 1
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["config"]["data"] == "utkface"
    assert about["command"].startswith("AGR_DATA=utkface agr train")
    monkeypatch.setenv("AGR_DATA", "celeba")
    status, _, err = agr("train", "--output-dir", tmp_path / "other")
    assert status == 1 and "unknown data set 'celeba'" in err


def test_an_odd_number_of_images_in_batches_of_two(agr, tmp_path):
    status, out, err = agr(
        "train", *TINY, "--data", "synthetic", "--num-images", "12", "--output-dir", tmp_path / "run"
    )
    assert status == 0, err
    assert "trained on" in out

from pathlib import Path

import pandas as pd
import pytest

from agr_utils.data.fairface import parse_band, read_labels
from agr_utils.data.splits import apply_protocol
from agr_utils.tasks import get_scheme

HEADER = "file,age,gender,race,service_test"
RACES = ["White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"]


@pytest.fixture
def write_labels(tmp_path: Path):
    """Write both label files, of lines without the header, and return their folder."""

    def write(train: list[str], test: list[str] = (), header: str = HEADER) -> Path:
        for name, lines in (("fairface_label_train.csv", train), ("fairface_label_val.csv", test)):
            (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-2", (0, 2)), ("3-9", (3, 9)), ("60-69", (60, 69)), ("more than 70", (70, 116)), ("More than 70 ", (70, 116))],
)
def test_a_band_is_an_interval(text, expected):
    assert parse_band(text) == expected


@pytest.mark.parametrize("text", ["", "old", "30", "-9", "3-", "3-9-12", "09-Mar"])
def test_what_is_no_band(one_clear_line, text):
    with one_clear_line(f"'{text}'", "no age band"):
        parse_band(text)


def test_age_is_a_band_and_never_a_number(write_labels):
    source = write_labels(["train/1.jpg,20-29,Male,White,True", "train/2.jpg,more than 70,Female,Black,False"])
    faces = read_labels(["train/1.jpg", "train/2.jpg"], source)
    assert faces["age"].isna().all()
    assert faces["age_min"].tolist() == [20, 70]
    assert faces["age_max"].tolist() == [29, 116]
    assert faces["gender"].tolist() == [0, 1]


def test_all_seven_races_have_their_own_code(write_labels):
    source = write_labels([f"train/{code}.jpg,3-9,Male,{race},True" for code, race in enumerate(RACES)])
    faces = read_labels([f"train/{code}.jpg" for code in range(7)], source)
    assert faces["race"].tolist() == list(range(7))
    assert len(get_scheme("fairface").race) == 7


def test_rows_follow_the_paths_and_the_published_parts_are_the_splits(write_labels):
    source = write_labels(["train/1.jpg,3-9,Male,White,True"], ["val/1.jpg,20-29,Female,Indian,True"])
    faces = read_labels(["FairFace/val/1.jpg", "FairFace/train/1.jpg"], source)
    assert faces["split"].tolist() == ["test", "train"]
    assert faces["age_min"].tolist() == [20, 3]
    assert faces["path"].tolist() == ["FairFace/val/1.jpg", "FairFace/train/1.jpg"]
    assert faces["image_id"].tolist() == ["val/1.jpg", "train/1.jpg"]
    assert (faces["source"] == "fairface").all()


def test_missing_and_unknown_labels_are_missing(write_labels):
    lines = ["train/1.jpg,,Male,White,True", "train/2.jpg,3-9,,Martian,True", "train/3.jpg,3-9,1,4,True"]
    faces = read_labels(["train/1.jpg", "train/2.jpg", "train/3.jpg", "train/4.jpg"], write_labels(lines))
    assert faces["age_min"].isna().tolist() == [True, False, False, True]
    assert faces["gender"].isna().tolist() == [False, True, True, True]
    assert faces["race"].isna().tolist() == [False, True, True, True]
    assert faces["split"].tolist() == ["train", "train", "train", "unlisted"]


def test_a_missing_label_file(write_labels, one_clear_line):
    source = write_labels(["train/1.jpg,3-9,Male,White,True"])
    (source / "fairface_label_val.csv").unlink()
    with one_clear_line(source.name, "no fairface_label_val.csv", "docs/data.md"):
        read_labels(["train/1.jpg"], source)


@pytest.mark.parametrize("column", ["file", "age", "gender", "race"])
def test_a_missing_column(write_labels, one_clear_line, column):
    source = write_labels([], header=HEADER.replace(column, "other"))
    with one_clear_line("fairface_label_train.csv", f"no column '{column}'", "FairFace's own"):
        read_labels(["train/1.jpg"], source)


def test_a_spreadsheet_that_turned_bands_into_dates(write_labels, one_clear_line):
    source = write_labels(["train/1.jpg,09-Mar,Male,White,True"])
    with one_clear_line("fairface_label_train.csv", "'09-Mar'", "FairFace's own"):
        read_labels(["train/1.jpg"], source)


@pytest.mark.parametrize(
    "content",
    [b"", b"file,age,gender,race\na,3-9,Male,White,5,6\nb,1,2,3,4,5,6,7,8\n", b"\xff\xfe\x00f\x00i"],
    ids=["empty", "uneven rows", "no text"],
)
def test_a_label_file_that_is_no_table(write_labels, one_clear_line, content):
    source = write_labels([])
    (source / "fairface_label_val.csv").write_bytes(content)
    with one_clear_line("fairface_label_val.csv", "not a CSV", "FairFace's own"):
        read_labels(["val/1.jpg"], source)


def test_a_tenth_of_the_training_part_validates_and_the_test_part_is_untouched(write_labels):
    train = [f"train/{number}.jpg" for number in range(50)]
    test = [f"val/{number}.jpg" for number in range(20)]
    source = write_labels(
        [f"{path},3-9,Male,White,True" for path in train], [f"{path},3-9,Male,White,True" for path in test]
    )
    faces = read_labels(train + test, source)
    split = apply_protocol(faces, "grouped")["split"]
    assert split.value_counts().to_dict() == {"train": 45, "validation": 5, "test": 20}
    assert (split.iloc[50:] == "test").all()
    pd.testing.assert_series_equal(split, apply_protocol(faces, "grouped")["split"])

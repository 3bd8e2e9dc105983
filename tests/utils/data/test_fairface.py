import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agr_utils.data.fairface import BANDS, read_labels
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.splits import apply_protocol
from agr_utils.data.utkface import read_names
from agr_utils.errors import InputError
from agr_utils.tasks import get_scheme

HEADER = "file,age,gender,race,service_test"
RACES = ["White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"]


def read(paths: list[str], source: Path, skipped: Skipped | None = None, problems: dict | None = None) -> pd.DataFrame:
    return read_labels(paths, source, Skipped() if skipped is None else skipped, problems)


@pytest.fixture
def write_labels(tmp_path: Path):
    """Write both label files, of lines without the header, and return their folder."""

    def write(train: list[str], test: list[str] = (), header: str = HEADER) -> Path:
        for name, lines in (("fairface_label_train.csv", train), ("fairface_label_val.csv", test)):
            (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return tmp_path

    return write


def test_age_is_a_band_and_never_a_number(write_labels):
    source = write_labels(["train/1.jpg,20-29,Male,White,True", "train/2.jpg,more than 70,Female,Black,False"])
    faces = read(["train/1.jpg", "train/2.jpg"], source)
    assert faces["age"].isna().all()
    assert faces["age_min"].tolist() == [20, 70]
    assert faces["age_max"].tolist() == [29, 116]
    assert faces["gender"].tolist() == [0, 1]


def test_all_seven_races_have_their_own_code(write_labels):
    source = write_labels([f"train/{code}.jpg,3-9,Male,{race},True" for code, race in enumerate(RACES)])
    faces = read([f"train/{code}.jpg" for code in range(7)], source)
    assert faces["race"].tolist() == list(range(7))
    assert len(get_scheme("fairface").race) == 7


def test_rows_follow_the_paths_and_the_published_parts_are_the_splits(write_labels):
    source = write_labels(["train/1.jpg,3-9,Male,White,True"], ["val/1.jpg,20-29,Female,Indian,True"])
    faces = read(["FairFace/val/1.jpg", "FairFace/train/1.jpg"], source)
    assert faces["split"].tolist() == ["test", "train"]
    assert faces["age_min"].tolist() == [20, 3]
    assert faces["path"].tolist() == ["FairFace/val/1.jpg", "FairFace/train/1.jpg"]
    assert faces["image_id"].tolist() == ["val/1.jpg", "train/1.jpg"]
    assert (faces["source"] == "fairface").all()


def test_the_nine_bands_are_years_without_a_gap():
    assert list(BANDS) == ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"]
    years = [year for low, high in BANDS.values() for year in range(low, high + 1)]
    assert years == list(range(117))


def test_spaces_and_capitals_do_not_matter(write_labels):
    lines = [
        " train/1.jpg ,More than 70 ,Male , latino_hispanic ,true",
        "train\\2.jpg, 3 - 9,FEMALE,Southeast  Asian, False ",
        "./train/3.jpg,0-2,male,MIDDLE EASTERN,TRUE",
    ]
    faces = read([f"train/{number}.jpg" for number in (1, 2, 3)], write_labels(lines))
    assert faces["age_min"].tolist() == [70, 3, 0]
    assert faces["age_max"].tolist() == [116, 9, 2]
    assert faces["gender"].tolist() == [0, 1, 0]
    assert faces["race"].tolist() == [2, 4, 6]
    assert faces["service_test"].tolist() == [True, False, True]


def test_an_absent_label_is_missing(write_labels):
    lines = ["train/1.jpg,,Male,White,True", "train/2.jpg,3-9,,,"]
    skipped = Skipped()
    faces = read(["train/1.jpg", "train/2.jpg", "train/4.jpg"], write_labels(lines), skipped)
    assert faces["age_min"].isna().tolist() == [True, False, True]
    assert faces["gender"].isna().tolist() == [False, True, True]
    assert faces["race"].isna().tolist() == [False, True, True]
    assert faces["service_test"].isna().tolist() == [False, True, True]
    assert faces["split"].tolist() == ["train", "train", "unlisted"]
    assert str(skipped) == "1 skipped: 1 image without a row in a label file"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train/2.jpg,09-Mar,Male,White,True", ("age '09-mar'", "3-9", "more than 70")),
        ("train/2.jpg,15-18,Male,White,True", ("age '15-18'", "20-29")),
        ("train/2.jpg,30,Male,White,True", ("age '30'",)),
        ("train/2.jpg,3-9-12,Male,White,True", ("age '3-9-12'",)),
        ("train/2.jpg,3-9,man,White,True", ("gender 'man'", "male, female")),
        ("train/2.jpg,3-9,1,White,True", ("gender '1'",)),
        ("train/2.jpg,3-9,Male,Martian,True", ("race 'martian'", "southeast asian", "middle eastern")),
        ("train/2.jpg,3-9,Male,Asian,True", ("race 'asian'", "east asian")),
        ("train/2.jpg,3-9,Male,White,yes", ("service_test 'yes'", "true, false")),
    ],
)
def test_a_value_that_is_none_of_fairface_s(write_labels, one_clear_line, line, words):
    source = write_labels(["train/1.jpg,3-9,Male,White,True", line])
    with one_clear_line("fairface_label_train.csv line 3", *words, "FairFace's own"):
        read(["train/1.jpg", "train/2.jpg"], source)
    problems = {}
    faces = read(["train/1.jpg", "train/2.jpg"], source, problems=problems)
    assert list(problems) == ["fairface_label_train.csv line 3"]
    assert words[0] in problems["fairface_label_train.csv line 3"]
    assert faces["split"].tolist() == ["train", "train"]


def test_all_wrong_values_are_counted_and_lines_are_those_of_the_file(write_labels, one_clear_line):
    source = write_labels(["", "train/1.jpg,1-2,boy,White,True", "", "train/2.jpg,3-9,Male,Green,True"])
    with one_clear_line("fairface_label_train.csv line 3", "age '1-2'", "gender 'boy'", "1 more such values"):
        read(["train/1.jpg"], source)
    problems = {}
    read(["train/1.jpg", "train/2.jpg"], source, problems=problems)
    assert list(problems) == ["fairface_label_train.csv line 3", "fairface_label_train.csv line 5"]


def test_rows_whose_image_is_not_there_are_counted(write_labels):
    skipped = Skipped()
    lines = [f"train/{number}.jpg,3-9,Male,White,True" for number in range(5)]
    faces = read(["train/1.jpg"], write_labels(lines, ["val/7.jpg,3-9,Male,White,True"]), skipped)
    assert len(faces) == 1
    assert str(skipped) == "5 skipped: 5 listed but not there"
    assert skipped.examples["listed but not there"] == [
        "train/0.jpg",
        "train/2.jpg",
        "train/3.jpg",
        "train/4.jpg",
        "val/7.jpg",
    ]


def test_an_image_with_two_rows(write_labels, one_clear_line):
    row = "train/1.jpg,3-9,Male,White,True"
    with one_clear_line("fairface_label_train.csv line 4", "train/1.jpg is listed twice", "Keep one"):
        read(["train/1.jpg"], write_labels([row, row.replace("/1", "/2"), row.replace("Male", "Female")]))
    with one_clear_line("train/1.jpg has two rows", "Keep one"):
        read(["train/1.jpg"], write_labels([row], [row]))


def test_a_row_without_a_file_name(write_labels, one_clear_line):
    with one_clear_line("fairface_label_train.csv line 2", "no file name"):
        read(["train/1.jpg"], write_labels([",3-9,Male,White,True"]))


def test_a_label_file_with_a_byte_order_mark_and_without_service_test(write_labels):
    source = write_labels(["train/1.jpg,3-9,Male,White"], header="\ufefffile, Age ,gender,race")
    faces = read(["train/1.jpg"], source)
    assert faces["age_min"].tolist() == [3]
    assert faces["service_test"].isna().all()


def test_rows_longer_than_the_header(write_labels, one_clear_line):
    with one_clear_line("fairface_label_train.csv", "Expected 5 fields in line 2, saw 6"):
        read(["train/1.jpg"], write_labels(["train/1.jpg,3-9,Male,White,True,again"]))


cells = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["3-9", "more than 70", "Male", "female ", "East Asian", "True", "train/1.jpg", "", "NA", '"']),
)


@settings(max_examples=60)
@given(
    rows=st.lists(st.lists(cells, max_size=6), max_size=5), header=st.sampled_from([HEADER, "file,age,gender,race", ""])
)
def test_any_label_file_is_a_table_in_the_scheme_or_one_clear_line(rows, header):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fairface_label_train.csv", "fairface_label_val.csv"):
            lines = [header, *(",".join(row) for row in rows)]
            (Path(folder) / name).write_text("\n".join(lines), encoding="utf-8", errors="replace")
        try:
            faces = read(["train/1.jpg"], Path(folder), problems={})
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            return
    assert len(faces) == 1
    assert faces["gender"].dropna().isin([0, 1]).all() and faces["race"].dropna().isin(range(7)).all()
    assert (faces["age_min"].dropna() <= faces["age_max"].dropna()).all()


def test_a_missing_label_file(write_labels, one_clear_line):
    source = write_labels(["train/1.jpg,3-9,Male,White,True"])
    (source / "fairface_label_val.csv").unlink()
    with one_clear_line(source.name, "no fairface_label_val.csv", "docs/data.md"):
        read(["train/1.jpg"], source)


@pytest.mark.parametrize("column", ["file", "age", "gender", "race"])
def test_a_missing_column(write_labels, one_clear_line, column):
    source = write_labels([], header=HEADER.replace(column, "other"))
    with one_clear_line("fairface_label_train.csv", f"no column '{column}'", "FairFace's own"):
        read(["train/1.jpg"], source)


@pytest.mark.parametrize(
    "content",
    [b"", b"file,age,gender,race\na,3-9,Male,White,5,6\nb,1,2,3,4,5,6,7,8\n", b"\xff\xfe\x00f\x00i"],
    ids=["empty", "uneven rows", "no text"],
)
def test_a_label_file_that_is_no_table(write_labels, one_clear_line, content):
    source = write_labels([])
    (source / "fairface_label_val.csv").write_bytes(content)
    with one_clear_line("fairface_label_val.csv", "not a CSV", "FairFace's own"):
        read(["val/1.jpg"], source)


def test_a_tenth_of_the_training_part_validates_and_the_test_part_is_untouched(write_labels):
    train = [f"train/{number}.jpg" for number in range(50)]
    test = [f"val/{number}.jpg" for number in range(20)]
    source = write_labels(
        [f"{path},3-9,Male,White,True" for path in train], [f"{path},3-9,Male,White,True" for path in test]
    )
    faces = read(train + test, source)
    split = apply_protocol(faces, "grouped")["split"]
    assert split.value_counts().to_dict() == {"train": 45, "validation": 5, "test": 20}
    assert (split.iloc[50:] == "test").all()
    pd.testing.assert_series_equal(split, apply_protocol(faces, "grouped")["split"])


def faces_in_groups(write_labels, groups: dict[str, int], service_test: str = "True") -> pd.DataFrame:
    """FairFace of these images, of which those of one number are copies of each other."""
    rows = {
        part: [f"{path},20-29,Male,White,{service_test}" for path in groups if path.startswith(part)]
        for part in ("train", "val")
    }
    faces = read(list(groups), write_labels(rows["train"], rows["val"]))
    faces["group"] = pd.Series(list(groups.values()), dtype="Int64")
    return faces


def test_copies_never_straddle(write_labels):
    groups = {f"train/{number}.jpg": number // 3 for number in range(60)}  # threes of copies
    groups |= {f"val/{number}.jpg": number for number in range(12, 25)}  # 12 to 19 have copies in training
    skipped = Skipped()
    faces = apply_protocol(faces_in_groups(write_labels, groups), "grouped", skipped)
    used = faces[faces["split"] != "unlisted"]
    assert used.groupby("group")["split"].nunique().max() == 1
    assert str(skipped) == "24 skipped: 24 training image with a copy in the test split"
    assert (faces["split"].iloc[36:60] == "unlisted").all()
    assert faces["split"].value_counts().to_dict() == {"train": 33, "unlisted": 24, "test": 13, "validation": 3}


def test_ages_21_to_60_of_bands_are_those_that_lie_inside(write_labels):
    lines = [f"val/{number}.jpg,{band},Male,White,True" for number, band in enumerate(BANDS)]
    faces = apply_protocol(read([f"val/{number}.jpg" for number in range(9)], write_labels([], lines)), "ages-21-60")
    assert faces["split"].tolist() == ["unlisted"] * 4 + ["test"] * 3 + ["unlisted"] * 2


def test_the_service_test_is_a_protocol(write_labels, one_clear_line):
    lines = [f"val/{number}.jpg,3-9,Male,White,{number % 2 == 0}" for number in range(6)]
    paths = [f"val/{number}.jpg" for number in range(6)]
    faces = apply_protocol(read(paths, write_labels([], lines)), "service-test")
    assert faces["split"].tolist() == ["test", "unlisted"] * 3
    with one_clear_line("no column service_test"):
        apply_protocol(
            read(paths, write_labels([], [line[: line.rindex(",")] for line in lines], HEADER[:20])), "service-test"
        )


def test_the_service_test_needs_its_column_in_both_label_files(write_labels, one_clear_line):
    source = write_labels(["train/1.jpg,3-9,Male,White,True"], ["val/1.jpg,3-9,Male,White,True"])
    paths = ["train/1.jpg", "val/1.jpg", "val/unlisted.jpg"]
    assert apply_protocol(read(paths, source), "service-test")["split"].tolist() == ["train", "test", "unlisted"]
    for file in source.glob("*train.csv"):
        file.write_text("\n".join(line.rpartition(",")[0] for line in file.read_text().splitlines()))
    with one_clear_line("a label file of FairFace has no column service_test"):
        apply_protocol(read(paths, source), "service-test")


def test_a_protocol_of_the_other_data_set(write_labels, one_clear_line):
    faces = read(["val/1.jpg"], write_labels([], ["val/1.jpg,3-9,Male,White,True"]))
    with one_clear_line("'cvpr24-0' is one of utkface", "the data is fairface"):
        apply_protocol(faces, "cvpr24-0:database.json")
    with one_clear_line("'service-test' is one of fairface", "the data is utkface"):
        apply_protocol(read_names(["20_0_1_20170112213500903.jpg"]), "service-test")

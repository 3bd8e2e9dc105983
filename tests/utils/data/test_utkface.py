import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agr_utils.data.faces import COLUMNS, age_band, make_faces
from agr_utils.data.utkface import WELL_FORMED, parse_name, read_names

STAMP = "20170112213500903"


def labels_of(name: str) -> tuple:
    row = parse_name(name)
    return tuple(None if pd.isna(row[task]) else row[task] for task in ("age", "gender", "race"))


@pytest.mark.parametrize(
    ("age", "gender", "race"),
    [(0, 0, 0), (1, 1, 4), (21, 0, 2), (116, 1, 3)],
)
def test_a_well_formed_name(age, gender, race):
    name = f"{age}_{gender}_{race}_{STAMP}.jpg.chip.jpg"
    assert labels_of(name) == (age, gender, race)
    assert parse_name(name)["problem"] == ""
    assert WELL_FORMED.fullmatch(name)


@pytest.mark.parametrize(
    ("name", "expected", "problem"),
    [
        ("24_0_1_20170116220224657 .jpg.chip.jpg", (24, 0, 1), "unusual spelling"),
        ("55_0_0_20170116232725357jpg.chip.jpg", (55, 0, 0), "unusual spelling"),
        ("39_1_20170116174525125.jpg.chip.jpg", (39, 1, None), "no race"),
        ("61_1_20170109142408075.jpg.chip.jpg", (61, 1, None), "no race"),
        ("61_1_20170109150557335.jpg.chip.jpg", (61, 1, None), "no race"),
    ],
)
def test_the_five_malformed_names_of_utkface_keep_what_can_be_read(name, expected, problem):
    assert labels_of(name) == expected
    assert problem in parse_name(name)["problem"]


@pytest.mark.parametrize(
    ("name", "expected", "problem"),
    [
        (f"117_0_1_{STAMP}.jpg", (None, 0, 1), "age 117 is not 0-116"),
        (f"300_0_1_{STAMP}.jpg", (None, 0, 1), "age 300 is not 0-116"),
        (f"30_3_1_{STAMP}.jpg", (30, None, 1), "gender 3 is not 0-1"),
        (f"30_1_7_{STAMP}.jpg", (30, 1, None), "race 7 is not 0-4"),
        (f"300_3_7_{STAMP}.jpg", (None, None, None), "age 300"),
    ],
)
def test_a_label_out_of_range_is_missing_and_the_others_stay(name, expected, problem):
    assert labels_of(name) == expected
    assert problem in parse_name(name)["problem"]


@pytest.mark.parametrize(
    ("name", "expected", "problem"),
    [
        (f"53__0_{STAMP}.jpg", (53, None, 0), "no gender"),
        (f"53__{STAMP}.jpg", (53, None, None), "no gender; no race"),
        (f"53_{STAMP}.jpg", (53, None, None), "no gender; no race"),
        (f"_1_0_{STAMP}.jpg", (None, 1, 0), "no age"),
        (f"53_1__{STAMP}.jpg", (53, 1, None), "no race"),
        (f"53_x_0_{STAMP}.jpg", (53, None, 0), "gender x is not 0-1"),
        (f"53_1_white_{STAMP}.jpg", (53, 1, None), "race white is not 0-4"),
        (f"-5_0_1_{STAMP}.jpg", (None, 0, 1), "age -5 is not 0-116"),
        (f"5.5_0_1_{STAMP}.jpg", (None, 0, 1), "age 5.5 is not 0-116"),
        ("1000_0_1_2017.jpg", (None, 0, 1), "age 1000 is not 0-116"),
        (f"53_1234_0_{STAMP}.jpg", (53, None, 0), "gender 1234 is not 0-1"),
        ("25_0_1.jpg", (25, 0, 1), "unusual spelling"),
    ],
)
def test_each_label_is_read_by_itself(name, expected, problem):
    assert labels_of(name) == expected
    assert problem in parse_name(name)["problem"]


@given(name=st.text(max_size=60))
@example(name="9" * 5000 + f"_0_1_{STAMP}.jpg")
def test_any_name_is_a_row_whose_labels_are_in_the_scheme(name):
    row = parse_name(name)
    assert pd.isna(row["age"]) or 0 <= row["age"] <= 116
    assert pd.isna(row["gender"]) or row["gender"] in (0, 1)
    assert pd.isna(row["race"]) or row["race"] in range(5)
    assert row["path"] == name
    if any(pd.isna(row[task]) for task in ("age", "gender", "race")):
        assert row["problem"]


@given(
    fields=st.tuples(
        st.one_of(st.none(), st.integers(0, 116)),
        st.one_of(st.none(), st.integers(0, 1)),
        st.one_of(st.none(), st.integers(0, 4)),
    )
)
def test_whatever_stands_in_the_name_is_read_whatever_else_is_missing(fields):
    name = "_".join("" if field is None else str(field) for field in fields) + f"_{STAMP}.jpg.chip.jpg"
    assert labels_of(name) == fields


@pytest.mark.parametrize("name", ["holiday.jpg", "_0_0_x.jpg", f"IMG_0_1_{STAMP}.jpg", "IMG_20170112_213500.jpg"])
def test_a_name_without_labels_is_kept_without_labels(name):
    assert labels_of(name) == (None, None, None)
    assert parse_name(name)["problem"] == "no labels in the name"
    assert parse_name(name)["image_id"] == name


@pytest.mark.parametrize("ending", [".jpg", " copy.jpg", "_ünïcode-顔.png", ".jpg.chip.jpg"])
@pytest.mark.parametrize("folder", ["", "UTKFace/", "my faces/größe/"])
def test_spaces_folders_and_other_alphabets_do_not_matter(folder, ending):
    path = f"{folder}21_1_2_{STAMP}{ending}"
    assert labels_of(path) == (21, 1, 2)
    assert parse_name(path)["image_id"] == f"21_1_2_{STAMP}{ending}"
    assert parse_name(path)["path"] == path


def test_the_table_has_the_order_of_the_paths_and_missing_is_missing():
    paths = [f"b/30_3_1_{STAMP}.jpg", f"a/0_0_4_{STAMP}.jpg", "a/39_1_20170116174525125.jpg.chip.jpg", "x.jpg"]
    faces = read_names(paths)
    assert list(faces.columns) == list(COLUMNS)
    assert faces["path"].tolist() == paths
    assert faces["age"].tolist()[:3] == [30, 0, 39]
    assert faces["gender"].isna().tolist() == [True, False, False, True]
    assert faces["race"].isna().tolist() == [False, False, True, True]
    assert faces["age"].isna().tolist() == [False, False, False, True]
    assert (faces["source"] == "utkface").all()
    assert faces["age_min"].equals(faces["age"])
    assert faces["age_max"].equals(faces["age"])


def test_every_image_is_its_own_group_until_something_is_known():
    faces = read_names([f"{age}_0_0_{STAMP}.jpg" for age in range(10)])
    assert faces["group"].nunique() == 10
    assert (faces["split"] == "unlisted").all()


def test_the_same_file_name_in_two_folders(one_clear_line):
    with one_clear_line(f"21_1_2_{STAMP}.jpg", "listed twice", "Keep one"):
        read_names([f"a/21_1_2_{STAMP}.jpg", f"b/21_1_2_{STAMP}.jpg"])


def test_an_empty_table_has_all_columns():
    assert list(make_faces([]).columns) == list(COLUMNS)


def test_age_bands_meet_without_gap_or_overlap():
    ages = pd.Series([0, 2, 3, 9, 10, 19, 20, 69, 70, 116, None], dtype="Float32")
    bands = age_band(ages)
    assert bands.iloc[:-1].tolist() == ["0-2", "0-2", "3-9", "3-9", "10-19", "10-19", "20-29", "60-69", "70+", "70+"]
    assert pd.isna(bands.iloc[-1])

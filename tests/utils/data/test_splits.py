import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agr_utils.data.faces import age_band, make_faces
from agr_utils.data.splits import apply_protocol, groups_of, read_split_file, split_by_group, split_by_name
from agr_utils.data.utkface import read_names

USED = ("train", "validation", "test")


@pytest.fixture(scope="module")
def listed_faces() -> pd.DataFrame:
    """The faces table of every name in the committed split: labels, no images."""
    return read_names([f"UTKFace/{name}" for name in read_split_file()["image_id"]])


@pytest.fixture(scope="module")
def grouped_faces() -> pd.DataFrame:
    """900 made-up rows in groups of one to four; ages, genders and races as uneven as those of real data."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(900), rng.integers(1, 5, 900))[:900]
    table = {
        "image_id": [f"{row}.jpg" for row in range(900)],
        "path": [f"{row}.jpg" for row in range(900)],
        "age": np.minimum(rng.gamma(3, 11, 900), 116).astype(int),
        "gender": (rng.random(900) < 0.4).astype(int),
        "race": rng.choice(5, 900, p=[0.45, 0.2, 0.15, 0.12, 0.08]),
        "source": "utkface",
    }
    faces = make_faces(pd.DataFrame(table))
    faces["group"] = pd.Series(group, dtype="Int64")
    return faces


@pytest.fixture(scope="module")
def split(grouped_faces: pd.DataFrame) -> pd.Series:
    return split_by_group(grouped_faces)


def shares(column: pd.Series, split: pd.Series) -> pd.DataFrame:
    """Share of each class within each split, one column per split."""
    return pd.crosstab(column.to_numpy(dtype=object), split.to_numpy(dtype=object), normalize="columns")


# Splitting by group


def test_no_group_straddles_two_splits(grouped_faces, split):
    assert split.groupby(grouped_faces["group"]).nunique().max() == 1


def test_shares_are_near_70_10_20(split):
    found = split.value_counts(normalize=True)
    assert set(found.index) == set(USED)
    assert found["train"] == pytest.approx(0.7, abs=0.02)
    assert found["validation"] == pytest.approx(0.1, abs=0.02)
    assert found["test"] == pytest.approx(0.2, abs=0.02)


def test_every_class_has_the_same_share_in_every_split(grouped_faces, split):
    for column in (grouped_faces["gender"], grouped_faces["race"], age_band(grouped_faces["age"])):
        table = shares(column, split)
        assert (table.max(axis=1) - table.min(axis=1)).max() < 0.06, table


def test_the_seed_decides_the_split(grouped_faces, split):
    assert split_by_group(grouped_faces, seed=0).equals(split)
    assert not split_by_group(grouped_faces, seed=1).equals(split)


def test_missing_labels_and_rare_combinations_are_split_too(grouped_faces):
    faces = grouped_faces.copy()
    faces.loc[:40, "race"] = pd.NA
    faces.loc[20:60, "age"] = pd.NA
    faces.loc[70:75, "age"] = 115
    assert split_by_group(faces).isin(USED).all()


def test_too_few_groups_to_split(grouped_faces, one_clear_line):
    few = grouped_faces.head(40).assign(group=np.arange(40) % 9)
    with one_clear_line("9 groups", "at least 10", "Add images"):
        split_by_group(few)
    assert split_by_group(few.assign(group=np.arange(40) % 10)).isin(USED).all()


def test_a_split_by_name_keeps_groups_and_shares_and_asks_for_no_label(grouped_faces):
    assert len(grouped_faces) > 500
    split = split_by_name(grouped_faces[["path", "group"]])
    assert (split.groupby(grouped_faces["group"]).nunique() == 1).all()
    shares = split.groupby(grouped_faces["group"]).first().value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7, abs=0.01) and shares["test"] == pytest.approx(0.2, abs=0.01)
    shuffled = grouped_faces.sample(frac=1, random_state=0)
    renumbered = shuffled.assign(group=-shuffled["group"])
    assert split_by_name(renumbered).sort_index().equals(split)


def test_pictures_that_are_added_hardly_change_a_split_by_name(grouped_faces):
    fewer = grouped_faces[grouped_faces["group"] % 20 != 0]
    before, after = split_by_name(fewer), split_by_name(grouped_faces).loc[fewer.index]
    assert 0 < (before != after).mean() < 0.03


@pytest.mark.parametrize("number", [10, 11, 19])
def test_ten_groups_are_enough_to_split_by_name(grouped_faces, number, one_clear_line):
    few = grouped_faces.head(40)
    split = split_by_name(few.assign(group=np.arange(40) % number))
    assert set(split) == set(USED)
    with one_clear_line("9 groups", "at least 10", "Add images"):
        split_by_name(few.assign(group=np.arange(40) % 9))


# The committed split of UTKFace


def test_the_committed_split_keeps_groups_together():
    table = read_split_file()
    assert table["image_id"].is_unique
    assert table.notna().all(axis=None)
    assert table.groupby("group")["split"].nunique().max() == 1
    assert table["group"].nunique() < len(table)  # there are near-duplicates to keep together


def test_the_committed_split_has_the_published_sizes():
    counts = read_split_file()["split"].value_counts().to_dict()
    assert counts == {"train": 14_903, "validation": 2_129, "test": 4_256}


def test_the_committed_split_is_stratified(listed_faces):
    faces = apply_protocol(listed_faces)
    for column in (faces["gender"], faces["race"].fillna(-1), age_band(faces["age"])):
        table = shares(column, faces["split"])
        assert (table.max(axis=1) - table.min(axis=1)).max() < 0.01, table


def test_an_image_that_the_committed_split_does_not_list(listed_faces):
    stranger = "UTKFace/30_0_1_20990112213500903.jpg.chip.jpg"
    faces = read_names([*listed_faces["path"].head(50), stranger, stranger.replace("30_", "31_")])
    applied = apply_protocol(faces, "grouped")
    assert (applied["split"] == "unlisted").tolist() == [False] * 50 + [True] * 2
    strangers = applied["group"].tail(2)
    assert strangers.nunique() == 2
    assert not strangers.isin(read_split_file()["group"]).any()


def test_applying_a_protocol_leaves_the_table_it_was_given_alone(listed_faces):
    faces = listed_faces.head(20)
    before = faces.copy()
    apply_protocol(faces, "random-5fold-0")
    pd.testing.assert_frame_equal(faces, before)


def test_groups_of_knows_the_listed_and_keeps_strangers_apart():
    table = read_split_file()
    twins = table[table["group"].duplicated(keep=False)].sort_values("group")["image_id"].head(2).tolist()
    groups = groups_of(pd.Series([*twins, "stranger.jpg", "another.jpg"]))
    assert groups[0] == groups[1]
    assert groups.nunique() == 3


# Protocols


def test_ages_21_to_60(listed_faces):
    default = apply_protocol(listed_faces, "grouped")
    restricted = apply_protocol(listed_faces, "ages-21-60")
    inside = default["age"].between(21, 60)
    assert (restricted.loc[~inside, "split"] == "unlisted").all()
    assert restricted.loc[inside, "split"].equals(default.loc[inside, "split"])
    used = restricted.loc[restricted["split"].isin(USED), "age"]
    assert (used.min(), used.max()) == (21, 60)


def test_an_unknown_age_is_outside_21_to_60(listed_faces):
    faces = listed_faces[listed_faces["age"] == 30].head(10).reset_index(drop=True)
    assert (apply_protocol(faces, "ages-21-60")["split"] != "unlisted").all()
    faces[["age", "age_min", "age_max"]] = pd.NA
    assert (
        apply_protocol(faces.astype({"age_min": "Float32", "age_max": "Float32"}), "ages-21-60")["split"] == "unlisted"
    ).all()


def test_five_random_folds_test_every_image_once(listed_faces):
    faces = listed_faces.head(1003)
    folds = [apply_protocol(faces, f"random-5fold-{number}")["split"] for number in range(5)]
    times = sum((fold == "test").astype(int) for fold in folds)
    assert (times == 1).all()
    for fold in folds:
        found = fold.value_counts(normalize=True)
        assert found["train"] == pytest.approx(0.6, abs=0.002)
        assert found["validation"] == pytest.approx(0.2, abs=0.002)
        assert found["test"] == pytest.approx(0.2, abs=0.002)
    assert sum((fold == "validation").astype(int) for fold in folds).eq(1).all()


def test_random_folds_do_leak_near_duplicates(listed_faces):
    """The reason why they are not the default."""
    faces = apply_protocol(listed_faces, "random-5fold-0")
    assert faces.groupby("group")["split"].nunique().max() > 1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A tiny database of the CVPR'24 benchmark: one image in each of its ten folders."""
    entries = [
        {"img_path": f"some/where/{20 + folder}_0_1_20170112213500903.jpg", "age": 20 + folder, "folder": folder}
        for folder in range(10)
    ]
    file = tmp_path / "UTKFace database.json"
    file.write_text(json.dumps(entries))
    return file


@pytest.mark.parametrize(
    ("fold", "train", "validation", "test"),
    [
        (0, {0, 1, 2, 3, 4, 5}, {6, 7}, {8, 9}),
        (1, {2, 3, 4, 5, 6, 7}, {8, 9}, {0, 1}),
        (2, {4, 5, 6, 7, 8, 9}, {0, 1}, {2, 3}),
        (3, {5, 6, 7, 8, 9, 0}, {1, 2}, {3, 4}),
        (4, {6, 7, 8, 9, 0, 1}, {2, 3}, {4, 5}),
    ],
)
def test_the_folders_of_the_cvpr24_benchmark(database, fold, train, validation, test):
    names = [f"UTKFace/{20 + folder}_0_1_20170112213500903.jpg" for folder in range(10)]
    faces = apply_protocol(read_names([*names, "UTKFace/90_0_1_20170112213500903.jpg"]), f"cvpr24-{fold}:{database}")
    found = {split: {int(age) - 20 for age in faces.loc[faces["split"] == split, "age"]} for split in USED}
    assert found == {"train": train, "validation": validation, "test": test}
    assert faces["split"].iloc[-1] == "unlisted"


@pytest.mark.parametrize(
    "content",
    ["", "not JSON", "{}x", '{"img_path": "a.jpg"}', "[1, 2]", '[{"img_path": "a.jpg"}]', "null", b"\xff\xfe\x00"],
)
def test_a_database_that_is_none(tmp_path, one_clear_line, content):
    file = tmp_path / "bad.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with one_clear_line("bad.json", "not the benchmark's database", "--protocol cvpr24-0:"):
        apply_protocol(read_names(["20_0_1_20170112213500903.jpg"]), f"cvpr24-0:{file}")


def test_a_database_that_is_missing_or_was_not_named(tmp_path, one_clear_line):
    faces = read_names(["20_0_1_20170112213500903.jpg"])
    with one_clear_line("nowhere.json", "--protocol cvpr24-0:"):
        apply_protocol(faces, f"cvpr24-1:{tmp_path / 'nowhere.json'}")
    with one_clear_line("no file given", "--protocol cvpr24-0:"):
        apply_protocol(faces, "cvpr24-1")


@pytest.mark.parametrize(
    "protocol", ["", "mine", "random-5fold", "random-5fold-5", "random-5fold-x", "cvpr24-7:x.json"]
)
def test_an_unknown_protocol(one_clear_line, protocol):
    with one_clear_line(f"unknown protocol '{protocol}'", "grouped", "ages-21-60", "random-5fold-K", "cvpr24-K:FILE"):
        apply_protocol(read_names(["20_0_1_20170112213500903.jpg"]), protocol)

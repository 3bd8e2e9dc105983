"""UTKFace itself, where the user has it. Skipped elsewhere; nothing about a person is kept or shown."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agr_utils.data.load import FaceData, load_data
from agr_utils.data.reading.images import decode_image, resize_square
from agr_utils.data.reading.sources import read_images
from agr_utils.data.splits import read_split_file
from agr_utils.data.utkface import WELL_FORMED, parse_name

SIZE = 32


@pytest.fixture(scope="module")
def data(real_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaceData]:
    """All images at 32 px, from a cache that is made here and used by the tests of this file only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGR_CACHE_DIR", str(tmp_path_factory.mktemp("real_cache")))
        yield load_data("utkface", SIZE, real_data_dir, skip_unreadable=False)


@pytest.fixture(scope="module")
def listed(data: FaceData) -> pd.DataFrame:
    """The rows that the committed split lists; the published download holds more images than that."""
    return data.faces[data.faces["split"] != "unlisted"]


def test_everything_loads(data):
    assert len(data.faces) >= 21_288
    assert data.pixels.shape == (len(data.faces), SIZE, SIZE, 3)
    assert data.faces["image_id"].is_unique
    assert (data.faces["split"] != "unreadable").all()
    assert (data.pixels.reshape(len(data.pixels), -1).max(axis=1) > 0).all()  # no row was left black


def test_every_image_of_the_committed_split_is_there(data, listed):
    assert set(listed["image_id"]) == set(read_split_file()["image_id"])
    assert len(listed) == 21_288
    if len(data.faces) == 21_288:
        assert (data.faces["split"] != "unlisted").all()


def test_split_sizes(data):
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [14_903, 2_129, 4_256]


def test_no_group_straddles_two_splits(listed):
    assert listed.groupby("group")["split"].nunique().max() == 1
    assert listed["group"].duplicated().any()


def test_exactly_five_names_are_malformed_and_three_have_no_race(listed):
    problems = {name: parse_name(name)["problem"] for name in listed["image_id"] if not WELL_FORMED.fullmatch(name)}
    assert len(problems) == 5
    assert sorted(problems.values()) == ["no race"] * 3 + ["unusual spelling, labels readable"] * 2
    assert listed["race"].isna().sum() == 3
    assert listed["age"].notna().all()
    assert listed["gender"].notna().all()


def test_labels_span_the_scheme(listed, data):
    assert (listed["age"].min(), listed["age"].max()) == (1, 116)
    assert set(listed["gender"]) == {0, 1}
    assert set(listed["race"].dropna()) == set(range(len(data.scheme.race)))


def test_pixels_belong_to_their_rows(data, real_data_dir):
    position = {path: row for row, path in enumerate(data.faces["path"])}
    for number, (path, content) in enumerate(read_images(real_data_dir)):
        if number == 20:
            break
        expected = resize_square(decode_image(content, path), SIZE)
        assert np.array_equal(data.pixels[position[path]], expected)


def test_an_archive_of_some_images_gives_the_same_rows(data, real_data_dir, tmp_path):
    if not real_data_dir.is_dir():
        pytest.skip("AGR_DATA_DIR is an archive itself")
    chosen = data.faces["path"].iloc[::2000]
    archive = tmp_path / "some.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        for path in chosen:
            target.add(real_data_dir / path, path)
    packed = load_data("utkface", SIZE, archive)
    columns = ["image_id", "path", "age", "gender", "race", "group", "split"]
    pd.testing.assert_frame_equal(packed.faces[columns], data.faces.loc[chosen.index, columns].reset_index(drop=True))
    assert np.array_equal(packed.pixels, data.pixels[chosen.index])

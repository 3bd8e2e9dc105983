import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agr_utils.data import load
from agr_utils.data.load import load_data
from agr_utils.data.reading.sources import list_images
from agr_utils.data.splits import read_split_file
from agr_utils.data.synthetic import SyntheticSettings
from agr_utils.errors import InputError
from agr_utils.tasks import TASKS

SIZE = 16


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Synthetic


def test_synthetic_is_the_default_and_needs_nothing():
    data = load_data(image_size=24, num_images=20)
    assert len(data.faces) == 20
    assert data.pixels.shape == (20, 24, 24, 3)
    assert data.scheme.name == "synthetic"
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [14, 2, 4]


@pytest.mark.parametrize("count", [0, -3])
def test_a_sample_of_no_image_is_refused(count: int):
    data = load_data(image_size=24, num_images=20)
    assert len(data.sample("test", 1)) == 1 and len(data.sample("test", 99)) == 4
    with pytest.raises(InputError, match=f"a sample of {count} images. Ask for at least one"):
        data.sample("test", count)


def test_the_seed_decides_the_synthetic_faces():
    first, again, other = (load_data(image_size=24, num_images=10, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.pixels, again.pixels)
    pd.testing.assert_frame_equal(first.faces, again.faces)
    assert not np.array_equal(first.pixels, other.pixels)


def test_the_dials_reach_the_drawing():
    faces = load_data(image_size=24, num_images=50, settings=SyntheticSettings(relatedness=1)).faces
    assert (faces["gender"] == (faces["age"] >= 45)).all()


def test_no_synthetic_image_is_refused_and_not_taken_for_the_default(one_clear_line):
    with one_clear_line("asked for 0 images", "at least 10"):
        load_data(image_size=24, num_images=0)


# Where the data lies


def test_an_unknown_data_set(one_clear_line):
    with one_clear_line("'celeba'", "utkface", "synthetic"):
        load_data("celeba")


@pytest.mark.parametrize("name", ["utkface", "fairface"])
def test_real_data_that_nobody_has_named(one_clear_line, name):
    with one_clear_line(name, "docs/data.md", "AGR_DATA_DIR"):
        load_data(name)


def test_the_environment_names_the_folder_and_an_argument_beats_it(face_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AGR_DATA_DIR", str(face_folder))
    assert len(load_data("utkface", SIZE).faces) == 12
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    shutil.copy(sorted(face_folder.iterdir())[0], smaller)
    assert len(load_data("utkface", SIZE, smaller).faces) == 1


def test_a_missing_folder_and_an_empty_one(tmp_path, cache_dir, one_clear_line):
    with one_clear_line("nowhere", "no such folder", "AGR_DATA_DIR"):
        load_data("utkface", SIZE, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with one_clear_line("empty", "no image", "Name the folder"):
        load_data("utkface", SIZE, tmp_path / "empty")
    assert list(cache_dir.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path, one_clear_line):
    file = tmp_path / "labels.csv"
    file.write_text("file,age\n")
    with one_clear_line("labels.csv", "neither a folder nor"):
        load_data("utkface", SIZE, file)


def test_fairface_without_its_labels(face_folder, one_clear_line):
    with one_clear_line("no fairface_label_train.csv", "docs/data.md"):
        load_data("fairface", SIZE, face_folder)


# Folder and archive


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".zip"])
def test_an_archive_gives_the_same_table_and_pixels_as_the_folder(face_folder, tmp_path, ending):
    archive = tmp_path / f"packed{ending}"
    files = sorted(face_folder.iterdir(), reverse=True)
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for path in files:
                target.write(path, path.name)
    else:
        with tarfile.open(archive, "w:gz" if ending == ".tar.gz" else "w") as target:
            for path in files:
                target.add(path, path.name)
    from_folder, from_archive = load_data("utkface", SIZE, face_folder), load_data("utkface", SIZE, archive)
    pd.testing.assert_frame_equal(from_folder.faces, from_archive.faces)
    assert np.array_equal(from_folder.pixels, from_archive.pixels)
    assert from_folder.pixels.any()


def test_labels_and_pixels_of_a_row_belong_together(face_folder, drawn_faces):
    data = load_data("utkface", 48, face_folder)
    position = {name: row for row, name in enumerate(data.faces["image_id"])}
    for row in drawn_faces.faces.itertuples():
        name = f"{int(row.age)}_{row.gender}_{row.race}_{20170112213500000 + row.Index}.jpg.chip.jpg"
        found = data.faces.iloc[position[name]]
        assert [found[task] for task in TASKS] == [row.age, row.gender, row.race]
        difference = data.pixels[position[name]].astype(float) - drawn_faces.pixels[row.Index]
        assert np.abs(difference).mean() < 12  # JPEG blurs the edges of a drawing


def test_names_with_spaces_and_other_alphabets(face_folder):
    files = sorted(face_folder.iterdir())
    names = ["24_0_1_20170116220224657 .jpg.chip.jpg", "61_1_2_20170109142408075 ünï 顔.jpg"]
    for file, name in zip(files, names, strict=False):
        file.rename(face_folder / name)
    faces = load_data("utkface", SIZE, face_folder).faces.set_index("image_id")
    assert len(faces) == 12
    assert faces.loc[names[0], list(TASKS)].tolist() == [24, 0, 1]
    assert faces.loc[names[1], list(TASKS)].tolist() == [61, 1, 2]


def test_odd_images_and_odd_labels_are_kept(tmp_path):
    picture = Image.new("RGB", (20, 30), (10, 200, 100))
    picture.save(tmp_path / "0_0_4_20170112213500001.jpg", "PNG")
    picture.convert("CMYK").save(tmp_path / "116_1_0_20170112213500002.jpg", "JPEG")
    picture.convert("L").save(tmp_path / "300_0_0_20170112213500003.jpg", "JPEG")
    picture.convert("RGBA").save(tmp_path / "30_3_0_20170112213500004.png")
    Image.new("RGB", (1, 1), (10, 200, 100)).save(tmp_path / "30_1_7_20170112213500005.png")
    data = load_data("utkface", SIZE, tmp_path)
    faces = data.faces.set_index("image_id").sort_values("image_id")
    by_number = {name.split(".")[0][-1]: row for name, row in faces.iterrows()}
    assert by_number["1"]["age"] == 0
    assert by_number["2"]["age"] == 116
    assert pd.isna(by_number["3"]["age"])
    assert pd.isna(by_number["4"]["gender"])
    assert pd.isna(by_number["5"]["race"])
    assert by_number["5"]["gender"] == 1
    grey = data.faces["image_id"].str.startswith("300").to_numpy()
    assert np.abs(data.pixels[~grey].astype(int) - (10, 200, 100)).max() < 10


# The cache


def test_the_second_time_nothing_is_decoded(face_folder, monkeypatch):
    first = load_data("utkface", SIZE, face_folder)

    def fail(*_):
        raise AssertionError("the cache was built again")

    monkeypatch.setattr(load, "build_cache", fail)
    second = load_data("utkface", SIZE, face_folder)
    assert np.array_equal(first.pixels, second.pixels)
    pd.testing.assert_frame_equal(first.faces, second.faces)


def test_new_images_are_noticed(face_folder):
    before = load_data("utkface", SIZE, face_folder)
    extra = face_folder / "99_1_3_20170112213599999.jpg.chip.jpg"
    Image.new("RGB", (20, 20), (250, 0, 0)).save(extra)
    after = load_data("utkface", SIZE, face_folder)
    assert len(before.faces) == 12
    assert len(after.faces) == 13
    row = after.faces.index[after.faces["image_id"] == extra.name][0]
    assert np.abs(after.pixels[row].astype(int) - (250, 0, 0)).max() < 10
    extra.write_bytes(b"")
    extra.unlink()
    assert np.array_equal(load_data("utkface", SIZE, face_folder).pixels, before.pixels)


def test_a_torn_cache_is_refused_and_made_again_when_deleted(face_folder, cache_dir, one_clear_line):
    before = np.array(load_data("utkface", SIZE, face_folder).pixels)
    (folder,) = cache_dir.iterdir()
    truncate(folder / "pixels.npy")
    with one_clear_line(str(folder), "Delete the folder"):
        load_data("utkface", SIZE, face_folder)
    shutil.rmtree(folder)
    assert np.array_equal(load_data("utkface", SIZE, face_folder).pixels, before)


# Unreadable images


def test_an_unreadable_image_stops_unless_told_to_skip(face_folder, one_clear_line):
    whole = np.array(load_data("utkface", SIZE, face_folder).pixels)
    names = list_images(face_folder)
    truncate(face_folder / names[4])
    with one_clear_line(names[4], "damaged image", "--skip-unreadable"):
        load_data("utkface", SIZE, face_folder)
    data = load_data("utkface", SIZE, face_folder, protocol="random-5fold-0", skip_unreadable=True)
    assert data.faces["image_id"].tolist() == names
    assert data.rows("unreadable").tolist() == [4]
    others = np.arange(12) != 4
    assert np.array_equal(data.pixels[others], whole[others])
    used = np.concatenate([data.rows(split) for split in ("train", "validation", "test")])
    assert sorted(used) == [row for row in range(12) if row != 4]


def test_skipping_once_does_not_hide_the_damage_next_time(face_folder, one_clear_line):
    names = list_images(face_folder)
    (face_folder / names[0]).write_bytes(b"")
    load_data("utkface", SIZE, face_folder, skip_unreadable=True)
    with one_clear_line("1 images cannot be read", names[0], "0 bytes", "--skip-unreadable"):
        load_data("utkface", SIZE, face_folder)


# Splits


def test_the_committed_split_is_found_by_file_name(face_folder):
    listed = read_split_file().groupby("split").head(1)
    for file, name in zip(sorted(face_folder.iterdir()), listed["image_id"], strict=False):
        file.rename(face_folder / name)
    data = load_data("utkface", SIZE, face_folder)
    found = data.faces.set_index("image_id")
    for row in listed.itertuples():
        assert found.loc[row.image_id, "split"] == row.split
        assert found.loc[row.image_id, "group"] == row.group
    assert len(data.rows("unlisted")) == 12 - len(listed)


def test_a_split_without_images_says_which_there_are(face_folder, one_clear_line):
    data = load_data("utkface", SIZE, face_folder)
    with one_clear_line("'train'", "unlisted", "Choose another split or protocol"):
        data.rows("train")


def test_the_protocol_reaches_the_splits(face_folder, one_clear_line):
    data = load_data("utkface", SIZE, face_folder, protocol="random-5fold-1")
    assert len(data.rows("train")) + len(data.rows("validation")) + len(data.rows("test")) == 12
    with one_clear_line("unknown protocol 'mine'"):
        load_data("utkface", SIZE, face_folder, protocol="mine")


def test_a_wrong_protocol_is_told_before_anything_is_decoded(face_folder, cache_dir, one_clear_line, monkeypatch):
    monkeypatch.setattr("agr_utils.data.load.build_cache", lambda *_: pytest.fail("decoded first"))
    with one_clear_line("unknown protocol 'mine'"):
        load_data("utkface", SIZE, face_folder, protocol="mine")
    (face_folder / "again").mkdir()
    name = sorted(face_folder.glob("*.jpg"))[0].name
    (face_folder / "again" / name).write_bytes((face_folder / name).read_bytes())
    with one_clear_line(name, f"{name} and again/{name}", "point AGR_DATA_DIR at one of them"):
        load_data("utkface", SIZE, face_folder)

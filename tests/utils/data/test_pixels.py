import errno
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.data import pixels as pixels_module
from agr_utils.data.duplicates import read_groups
from agr_utils.data.pixels import build_cache, cache_folder, fingerprint, open_cache
from agr_utils.data.reading.images import decode_image, decode_square, resize_square
from agr_utils.data.reading.sources import list_images
from agr_utils.errors import InputError

SIZE = 16


def contents_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


@pytest.fixture
def folder(face_folder: Path, cache_dir: Path) -> Path:
    """Where the cache of the dozen faces belongs; not made yet."""
    return cache_folder(face_folder, SIZE, cache_dir)


def test_every_image_stands_at_its_name(face_folder, folder):
    build_cache(face_folder, SIZE, folder)
    pixels, paths, decoded, errors = open_cache(folder)
    assert pixels.shape == (12, SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert paths == list_images(face_folder)
    assert decoded.all()
    assert errors == []
    for image, path in zip(pixels, paths, strict=True):
        expected = resize_square(decode_image((face_folder / path).read_bytes()), SIZE)
        assert np.array_equal(image, expected)


def test_an_archive_in_another_order_gives_the_same_cache(face_folder, folder, tmp_path, cache_dir):
    archive = tmp_path / "reversed.tar"
    with tarfile.open(archive, "w") as target:
        for path in sorted(face_folder.iterdir(), reverse=True):
            target.add(path, path.name)
    build_cache(face_folder, SIZE, folder)
    build_cache(archive, SIZE, cache_folder(archive, SIZE, cache_dir))
    from_folder, from_archive = open_cache(folder), open_cache(cache_folder(archive, SIZE, cache_dir))
    assert from_folder[1] == from_archive[1]
    assert np.array_equal(from_folder[0], from_archive[0])


def test_the_mapped_pixels_cannot_be_changed(face_folder, folder):
    build_cache(face_folder, SIZE, folder)
    pixels, *_ = open_cache(folder)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


# What the cache belongs to


def test_fingerprint_changes_with_the_images_only(face_folder, tmp_path):
    before = fingerprint(face_folder)
    (face_folder / "notes.txt").write_text("no image")
    assert fingerprint(face_folder) == before
    moved = face_folder.rename(tmp_path / "elsewhere")
    assert fingerprint(moved) == before
    first = sorted(moved.glob("*.jpg"))[0]
    content, times = first.read_bytes(), (first.stat().st_atime_ns, first.stat().st_mtime_ns)
    first.write_bytes(content + b"\0")
    os.utime(first, ns=times)
    replaced = fingerprint(moved)
    first.write_bytes(content)
    os.utime(first, ns=times)
    assert fingerprint(moved) == before
    (moved / "new.jpg").write_bytes(content)
    added = fingerprint(moved)
    (moved / "new.jpg").unlink()
    first.rename(moved / "renamed.jpg")
    renamed = fingerprint(moved)
    assert len({before, replaced, added, renamed}) == 4


def test_pictures_of_one_size_are_told_apart_by_their_time(tmp_path, cache_dir):
    """As bitmaps are whatever they show: another folder of the same name, or pictures that were edited in place."""
    folders = [tmp_path / place / "faces" for place in "ab"]
    for shade, source in enumerate(folders):
        source.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (200 * shade, number, 0)).save(source / f"{number}.bmp")
            os.utime(source / f"{number}.bmp", ns=(0, 10**9 * (shade + 1)))
    caches = [cache_folder(source, 16, cache_dir) for source in folders]
    assert caches[0] != caches[1]
    first = read_groups(folders[0], cache_dir)
    Image.new("RGB", (16, 16), (0, 0, 250)).save(folders[0] / "1.bmp")
    assert cache_folder(folders[0], 16, cache_dir) != caches[0]
    assert read_groups(folders[0], cache_dir).keys() == first.keys()
    assert len(list(cache_dir.glob("faces-groups-*.json"))) == 2


def test_fingerprint_of_an_archive_changes_with_it(face_folder, tmp_path):
    archive = tmp_path / "faces.tar"
    with tarfile.open(archive, "w") as target:
        target.add(face_folder, "faces")
    before = fingerprint(archive)
    assert fingerprint(archive) == before
    with tarfile.open(archive, "a") as target:
        target.add(next(face_folder.iterdir()), "one_more.jpg")
    assert fingerprint(archive) != before


def test_fingerprint_of_nothing(tmp_path, one_clear_line):
    with one_clear_line("nowhere", "no such folder", "AGR_DATA_DIR"):
        fingerprint(tmp_path / "nowhere")


def test_sizes_and_sources_have_their_own_folders(face_folder, tmp_path, cache_dir):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"x")
    folders = {cache_folder(source, size, cache_dir) for source in (face_folder, other) for size in (16, 32)}
    assert len(folders) == 4
    assert {path.parent for path in folders} == {cache_dir}


def test_a_cache_of_an_older_format_is_not_used(face_folder, folder, cache_dir, monkeypatch, one_clear_line):
    build_cache(face_folder, SIZE, folder)
    monkeypatch.setattr(pixels_module, "FORMAT", pixels_module.FORMAT + 1)
    assert cache_folder(face_folder, SIZE, cache_dir) != folder
    with one_clear_line(folder.name, "not a whole pixel cache of this version", "Delete the folder"):
        open_cache(folder)


# Images that cannot be read


def test_an_unreadable_image_stops_and_leaves_nothing(face_folder, folder, cache_dir, one_clear_line):
    fourth = list_images(face_folder)[3]
    truncate(face_folder / fourth)
    with one_clear_line(fourth, "damaged image", "--skip-unreadable"):
        build_cache(face_folder, SIZE, folder)
    assert list(cache_dir.iterdir()) == []


def test_skipping_keeps_the_other_images_in_place(face_folder, folder):
    names = list_images(face_folder)
    truncate(face_folder / names[3])
    (face_folder / names[7]).write_bytes(b"")
    build_cache(face_folder, SIZE, folder, skip_unreadable=True)
    pixels, paths, decoded, errors = open_cache(folder)
    assert paths == names
    assert np.flatnonzero(~decoded).tolist() == [3, 7]
    assert len(errors) == 2
    assert names[3] in " ".join(errors)
    assert names[7] in " ".join(errors)
    assert (pixels[~decoded] == 0).all()
    for row in np.flatnonzero(decoded):
        expected = resize_square(decode_image((face_folder / names[row]).read_bytes()), SIZE)
        assert np.array_equal(pixels[row], expected)


def test_no_readable_image_at_all(face_folder, folder, cache_dir, one_clear_line):
    for path in face_folder.iterdir():
        path.write_bytes(b"")
    with one_clear_line("faces", "none of its 12 images can be read", "agr data audit"):
        build_cache(face_folder, SIZE, folder, skip_unreadable=True)
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_none(face_folder, cache_dir, one_clear_line, size):
    with one_clear_line(f"image size is {size}", "at least 1"):
        build_cache(face_folder, size, cache_dir / "cache")
    assert list(cache_dir.iterdir()) == []


# A full disk, a read-only disk, an interruption


def fill_the_disk(*_) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_a_full_disk_leaves_no_half_cache(face_folder, folder, cache_dir, monkeypatch, one_clear_line):
    monkeypatch.setattr(os, "posix_fallocate", fill_the_disk)
    with one_clear_line(folder.name, "No space left on device", "Free some space"):
        build_cache(face_folder, SIZE, folder)
    assert list(cache_dir.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_a_full_disk_keeps_the_previous_cache(face_folder, folder, cache_dir, monkeypatch, one_clear_line):
    build_cache(face_folder, SIZE, folder)
    truncate(folder / "cache.json")
    before = contents_below(cache_dir)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fill_the_disk)
        with one_clear_line("No space left"):
            build_cache(face_folder, SIZE, folder)
    assert contents_below(cache_dir) == before


def test_space_is_reserved_before_the_first_image_is_decoded(face_folder, folder, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system cannot reserve disk space")
    reserved = []
    monkeypatch.setattr(os, "posix_fallocate", lambda descriptor, offset, length: reserved.append(length))
    build_cache(face_folder, SIZE, folder)
    assert reserved[0] >= 12 * SIZE * SIZE * 3


def test_a_read_only_cache_folder(face_folder, folder, monkeypatch, one_clear_line):
    # Root may write anywhere, so the refusal is simulated where folders are made.
    make_folder = Path.mkdir

    def refuse(path: Path, *arguments, **options) -> None:
        if folder.parent in (path, *path.parents):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        make_folder(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with one_clear_line(folder.name, "Permission denied", "choose another folder"):
        build_cache(face_folder, SIZE, folder)


def test_an_interruption_leaves_no_half_cache(face_folder, folder, cache_dir, monkeypatch):
    calls = iter(range(12))

    def interrupted(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return decode_square(*arguments)

    monkeypatch.setattr(pixels_module, "decode_square", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_cache(face_folder, SIZE, folder)
    assert list(cache_dir.iterdir()) == []


def test_processes_that_build_one_cache_at_a_time_all_get_it_and_one_decodes(face_folder, folder, cache_dir):
    code = (
        "import sys; from pathlib import Path; from agr_utils.data import pixels\n"
        "decode = pixels.decode_square\n"
        "pixels.decode_square = lambda *arguments: print('decoded') or decode(*arguments)\n"
        "folder = Path(sys.argv[2]); pixels.build_cache(Path(sys.argv[1]), 16, folder)\n"
        "print(len(pixels.open_cache(folder)[0]))"
    )
    command = [sys.executable, "-c", code, str(face_folder), str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert all(out.endswith("12\n") for out, _ in outputs)
    assert "".join(out for out, _ in outputs).count("decoded") == 12  # threads print into each other's lines
    assert list(cache_dir.iterdir()) == [folder]


def test_a_cache_of_a_builder_that_was_killed_is_cleared_by_the_next_one_of_any_images(
    face_folder, folder, cache_dir, die_within
):
    def die_while_decoding() -> None:
        pixels_module.decode_square = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        build_cache(face_folder, SIZE, folder)

    assert die_within(die_while_decoding, 0) == -signal.SIGKILL
    assert list(cache_dir.glob(".*.partial"))
    next(face_folder.iterdir()).unlink()  # so that the cache gets another name
    other = cache_folder(face_folder, SIZE, cache_dir)
    build_cache(face_folder, SIZE, other)
    assert list(cache_dir.iterdir()) == [other]


@pytest.mark.parametrize("name", ["pixels.npy", "cache.json"])
def test_no_flipped_bit_of_a_cache_goes_unnoticed(face_folder, folder, one_clear_line, name):
    build_cache(face_folder, SIZE, folder)
    expected = open_cache(folder)
    content = (folder / name).read_bytes()
    for place in range(0, len(content), len(content) // 100):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (folder / name).write_bytes(flipped)
        try:
            found = open_cache(folder)
        except InputError:
            continue
        assert name == "cache.json" and chr(content[place]).isspace()  # white space between two names
        assert found[1] == expected[1] and np.array_equal(found[0], expected[0])


# A torn cache


@pytest.mark.parametrize(
    "tear",
    [
        lambda folder: truncate(folder / "pixels.npy"),
        lambda folder: (folder / "pixels.npy").write_bytes(b""),
        lambda folder: (folder / "pixels.npy").unlink(),
        lambda folder: truncate(folder / "cache.json"),
        lambda folder: (folder / "cache.json").write_text("[]"),
        lambda folder: (folder / "cache.json").unlink(),
    ],
    ids=["half the pixels", "no pixels", "pixels gone", "half the names", "other names", "names gone"],
)
def test_a_torn_cache_is_refused_and_says_what_to_do(face_folder, folder, one_clear_line, tear):
    build_cache(face_folder, SIZE, folder)
    tear(folder)
    with one_clear_line(str(folder), "not a whole pixel cache", "Delete the folder"):
        open_cache(folder)
    build_cache(face_folder, SIZE, folder)  # what the line tells the user to do, and more: it replaces the torn one
    assert open_cache(folder)[0].shape == (12, SIZE, SIZE, 3)

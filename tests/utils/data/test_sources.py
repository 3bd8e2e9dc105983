"""What is taken for an image, what is left out and said so, and what would hang or fill the memory."""

import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.data.reading import images, sources
from agr_utils.data.reading.images import decode_image, is_image, missing_support
from agr_utils.data.reading.skipped import MAX_EXAMPLES, Skipped
from agr_utils.data.reading.sources import find_files, list_images, map_images, read_images
from agr_utils.errors import InputError, printable

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def encode(file_format: str = "PNG", colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, file_format)
    return buffer.getvalue()


def test_the_record_counts_by_reason_and_names_examples():
    skipped = Skipped()
    assert (len(skipped), bool(skipped), str(skipped), list(skipped.lines())) == (0, False, "", [])
    skipped.add("unreadable", "c.jpg")
    for name in ("a.heic", "b.heic"):
        skipped.add("HEIC (install pillow-heif)", name)
    assert str(skipped) == "3 skipped: 2 HEIC (install pillow-heif), 1 unreadable"
    assert skipped.to_dict() == {
        "total": 3,
        "reasons": {
            "unreadable": {"count": 1, "examples": ["c.jpg"]},
            "HEIC (install pillow-heif)": {"count": 2, "examples": ["a.heic", "b.heic"]},
        },
    }
    assert list(skipped.lines())[0] == "skipped: c.jpg: unreadable"


def test_the_record_keeps_some_examples_and_the_whole_count():
    skipped = Skipped()
    for number in range(1000):
        skipped.add("unreadable", f"{number}.jpg")
    assert len(skipped) == 1000
    assert len(skipped.to_dict()["reasons"]["unreadable"]["examples"]) == MAX_EXAMPLES
    lines = list(skipped.lines())
    assert len(lines) == MAX_EXAMPLES + 1 and lines[-1] == "skipped: and 980 more: unreadable"


def test_control_characters_never_reach_the_terminal():
    skipped = Skipped()
    skipped.add("unreadable", "a\x1b[2J\r\n\u202egpj.\x9b1\udcff")
    (line,) = skipped.lines()
    assert line == r"skipped: a\x1b[2J\r\n\u202egpj.\x9b1\udcff: unreadable"
    assert str(InputError("a\x1b[31m\nb")) == r"a\x1b[31m\nb"
    assert printable("näive Häuser 顔 👩\u200d🔬.jpg") == "näive Häuser 顔 👩\u200d🔬.jpg"


@pytest.mark.parametrize(
    ("suffix", "file_format"),
    [
        (".gif", "GIF"), (".tif", "TIFF"), (".TIFF", "TIFF"), (".jfif", "JPEG"), (".jpe", "JPEG"), (".jp2", "JPEG2000"),
        (".avif", "AVIF"), (".webp", "WEBP"), (".bmp", "BMP"), (".ppm", "PPM"), (".tga", "TGA"), (".ico", "ICO"),
        (".pcx", "PCX"), (".dds", "DDS"), (".sgi", "SGI"), (".mpo", "MPO"), (".apng", "PNG"), (".dib", "DIB"),
        ("", "JPEG"), ("", "PNG"), ("", "TIFF"), ("", "GIF"),
    ],
)  # fmt: skip
def test_whatever_pillow_reads_is_an_image(tmp_path, suffix, file_format):
    if file_format not in (*images.FORMATS, "MPO"):
        pytest.skip("this Pillow was built without it")
    (tmp_path / f"face{suffix}").write_bytes(encode(file_format))
    (tmp_path / "notes").write_text("no suffix, no image")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    skipped = Skipped()
    assert list_images(tmp_path, skipped) == [f"face{suffix}"]
    assert not skipped
    assert find_files(tmp_path, skipped) == [tmp_path / f"face{suffix}"]
    ((_, content),) = read_images(tmp_path)
    assert np.abs(np.subtract(decode_image(content).getpixel((10, 10)), (255, 0, 0))).max() < 8


def test_files_without_a_suffix_that_are_cut_short_are_no_images(tmp_path):
    (tmp_path / "whole.png").write_bytes(encode("PNG"))
    for file_format in images.FORMATS:
        if file_format in ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "DIB", "ICO", "PCX", "DDS"):
            for size in range(16):
                (tmp_path / f"{file_format}-{size}").write_bytes(encode(file_format)[:size])
    assert list_images(tmp_path, Skipped()) == ["whole.png"]


def test_files_without_a_suffix_are_found_in_archives_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("part/face", encode())
        archive.writestr("part/notes", "none")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name, content in (("part/face", encode()), ("part/notes", b"none")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for name in ("a.zip", "a.tar.gz"):
        assert list_images(tmp_path / name) == ["part/face"]
        assert dict(read_images(tmp_path / name)) == {"part/face": encode()}


@pytest.mark.skipif("HEIF" in images.FORMATS, reason="HEIC can be read here")
def test_what_cannot_be_read_is_named_with_what_helps(tmp_path, one_clear_line):
    for name in ("a.HEIC", "b.heif", "c.dng", "d.svg", "e.jxl", "._a.heic", "notes.txt", "labels.csv"):
        (tmp_path / name).write_bytes(HEIC)
    (tmp_path / "f").write_bytes(HEIC)
    (tmp_path / "face.png").write_bytes(encode())
    skipped = Skipped()
    assert list_images(tmp_path, skipped) == ["face.png"]
    assert skipped.counts == {
        "HEIC (install pillow-heif)": 3,
        "camera RAW (convert it to JPEG)": 1,
        "vector graphics (convert it to PNG)": 1,
        "JPEG XL (convert it to JPEG)": 1,
    }
    with one_clear_line("x.jpg", "HEIC (install pillow-heif)"):
        decode_image(HEIC, "x.jpg")
    (tmp_path / "face.png").unlink()
    with one_clear_line("no image in it", "6 skipped: 3 HEIC (install pillow-heif)"):
        list_images(tmp_path)


def test_avif_where_pillow_has_none(monkeypatch):
    monkeypatch.setattr(images, "FORMATS", tuple(name for name in images.FORMATS if name != "AVIF"))
    monkeypatch.setattr(images, "SUFFIXES", (".jpg",))
    monkeypatch.setitem(images.SUPPORT, ".avif", "AVIF (install Pillow 11.3 or newer)")
    assert not is_image("a.avif")
    assert missing_support(".avif") == "AVIF (install Pillow 11.3 or newer)"
    assert missing_support(header=encode("AVIF")[:32]) == "AVIF (install Pillow 11.3 or newer)"


def test_pipes_sockets_links_and_folders_are_a_line_each(tmp_path, monkeypatch):
    (tmp_path / "face.jpg").write_bytes(encode("JPEG"))
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "album.jpg" / "inside.png").write_bytes(encode())
    for name in ("pipe.jpg", "pipe without suffix"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "album.jpg")
    (tmp_path / "whole.jpg").symlink_to("face.jpg")
    os.mkfifo(tmp_path / "pipe.txt")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.png")
        skipped = Skipped()
        assert list_images(tmp_path, skipped) == ["album.jpg/inside.png", "face.jpg", "whole.jpg"]
    assert {path: reason for reason, paths in skipped.examples.items() for path in paths} == {
        "album.jpg": "a folder named like an image",
        "pipe.jpg": "not a regular file (a pipe, socket or device)",
        "pipe without suffix": "not a regular file (a pipe, socket or device)",
        "socket.png": "not a regular file (a pipe, socket or device)",
        "gone.jpg": "link that leads nowhere",
        "circle.jpg": "unreadable (Too many levels of symbolic links)",
        "elsewhere": "link to a folder (not followed)",
    }
    assert sorted(name for name, _ in read_images(tmp_path)) == ["album.jpg/inside.png", "face.jpg", "whole.jpg"]


def test_unreadable_folders_are_a_line_each(tmp_path, monkeypatch, one_clear_line):
    for name in ("open", "locked", "open/locked too"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "face.png").write_bytes(encode())
    scan = os.scandir

    def refuse(folder):  # root may look everywhere, so the refusal is simulated
        if "locked" in str(folder):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    skipped = Skipped()
    assert list_images(tmp_path, skipped) == ["open/face.png"]
    ((reason, examples),) = skipped.examples.items()
    assert reason == "unreadable folder (Permission denied)" and sorted(examples) == ["locked", "open/locked too"]
    with one_clear_line("locked", "no permission"):
        list_images(tmp_path / "locked")


def test_a_pipe_or_a_device_as_source_does_not_hang(tmp_path, one_clear_line):
    os.mkfifo(tmp_path / "faces.tar")
    for source in (tmp_path / "faces.tar", Path("/dev/zero")):
        with one_clear_line(str(source), "neither a folder nor"):
            list_images(source)


def test_a_zip_that_was_cut_off_is_damaged(tmp_path, one_clear_line):
    source = tmp_path / "faces.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("face.png", b"x" * 1000)
    source.write_bytes(source.read_bytes()[:600])
    with one_clear_line(str(source), "damaged archive (a zip whose end is missing). Download it again"):
        list_images(source)


def test_links_and_odd_things_in_a_tar(tmp_path):
    archive = tmp_path / "odd.tar"
    with tarfile.open(archive, "w") as target:
        for name, kind, link in (
            ("folder", tarfile.DIRTYPE, ""),
            ("album.jpg", tarfile.DIRTYPE, ""),
            ("to folder.jpg", tarfile.SYMTYPE, "folder"),
            ("gone.jpg", tarfile.SYMTYPE, "nowhere"),
            ("circle.jpg", tarfile.SYMTYPE, "circle.jpg"),
            ("pipe.jpg", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            target.addfile(member)
        member = tarfile.TarInfo("folder/face.png")
        member.size = len(encode())
        target.addfile(member, io.BytesIO(encode()))
    skipped = Skipped()
    assert list_images(archive, skipped) == ["folder/face.png"]
    assert {path: reason for reason, paths in skipped.examples.items() for path in paths} == {
        "album.jpg": "a folder named like an image",
        "to folder.jpg": "link to a folder (not followed)",
        "gone.jpg": "link that leads nowhere",
        "circle.jpg": "link that leads nowhere",
        "pipe.jpg": "not a regular file (a pipe, socket or device)",
    }


def test_a_link_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "face.jpg")
        archive.writestr("face.jpg", encode("JPEG"))
    skipped = Skipped()
    assert list_images(tmp_path / "a.zip", skipped) == ["face.jpg"]
    assert list(skipped.examples.values()) == [["link.jpg"]]


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch, one_clear_line):
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    folder = tmp_path / "faces"
    folder.mkdir()
    (folder / "huge.jpg").write_bytes(bytes(1001))
    (folder / "face.png").write_bytes(encode())
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "huge.jpg", "huge.jpg")
        archive.write(folder / "face.png", "face.png")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(folder, "")
    for source in (folder, tmp_path / "a.zip", tmp_path / "a.tgz"):
        contents = {name.removeprefix("/"): content for name, content in read_images(source)}
        assert contents["face.png"] == encode()
        with one_clear_line("huge.jpg", "too large (limit 0 MB)"):
            raise contents["huge.jpg"]


def test_a_tar_entry_whose_description_is_huge(tmp_path, one_clear_line):
    archive = tmp_path / "bomb.tar"
    with tarfile.open(archive, "w") as target:
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**21
        target.addfile(member, io.BytesIO(bytes(2**21)))
    with one_clear_line("bomb.tar", "damaged archive"):
        list_images(archive)


def test_a_label_file_that_is_too_large_for_one(tmp_path, monkeypatch, one_clear_line):
    monkeypatch.setattr(sources, "MAX_TABLE_BYTES", 10)
    (tmp_path / "labels.csv").write_text("file,age,gender,race")
    with one_clear_line("labels.csv", "too large"):
        sources.read_member(tmp_path, "labels.csv")


def test_work_is_done_on_every_image_and_errors_are_values(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number}.png").write_bytes(b"x" * number)
    monkeypatch.setattr(sources, "READ_AHEAD_BYTES", 1000)

    def work(name: str, content: bytes) -> int:
        if len(content) % 100 == 7:
            raise InputError(f"{name}: seven")
        return len(content)

    results = dict(map_images(tmp_path, work))
    assert len(results) == 300
    for number in range(300):
        result = results[f"{number}.png"]
        assert str(result) == f"{number}.png: seven" if number % 100 == 7 else result == number


def test_pillow_s_remarks_stay_off_the_terminal(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), "red").save(buffer, "JPEG", exif=exif)
    content = buffer.getvalue()
    start = content.index(b"Exif\0\0") + 14
    (tmp_path / "odd.jpg").write_bytes(content[:start] + b"\xff\xf0" + content[start + 2 :])
    imports = "import sys; from agr_utils.data.reading.images import decode_image"
    script = f"{imports}; decode_image(open(sys.argv[1], 'rb').read())"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "odd.jpg")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    plain = "from PIL import Image; import sys; Image.open(sys.argv[1]).getexif()"
    done = subprocess.run([sys.executable, "-c", plain, str(tmp_path / "odd.jpg")], capture_output=True, text=True)
    assert "Warning" in done.stderr  # the picture does make Pillow speak

import errno
import io
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.data.reading import images
from agr_utils.data.reading.images import decode_image, decode_square, resize_square
from agr_utils.data.reading.sources import list_images, read_images, read_member
from agr_utils.errors import InputError


def encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def textured(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def assert_colour(image: Image.Image, position: tuple[int, int], expected: tuple[int, int, int], tolerance: int = 2):
    assert image.mode == "RGB"
    assert np.abs(np.subtract(image.getpixel(position), expected)).max() <= tolerance, image.getpixel(position)


def pack(folder: Path, archive: Path) -> Path:
    """Put the files of a folder into an archive, last name first, under the names that the folder gives them."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for path in files:
                target.write(path, path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as target:
            for path in files:
                target.add(path, path.relative_to(folder).as_posix())
    return archive


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# Listing and reading


def test_lists_images_only_sorted_and_with_their_folders(tmp_path):
    for name in ("b.jpg", "a.PNG", "part two/c d.jpeg", "ünïcode-顔.webp", "notes.txt", "._b.jpg", "jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"anything")
    assert list_images(tmp_path) == sorted(["b.jpg", "a.PNG", "part two/c d.jpeg", "ünïcode-顔.webp"])


def test_a_folder_that_looks_like_an_image_is_not_one(tmp_path, one_clear_line):
    (tmp_path / "faces" / "album.jpg").mkdir(parents=True)
    with one_clear_line("faces", "no image in it"):
        list_images(tmp_path / "faces")


@pytest.mark.parametrize("archive_name", ["faces.tar", "faces.tar.gz", "faces.tgz", "faces.zip"])
def test_an_archive_holds_what_its_folder_holds(face_folder, tmp_path, archive_name):
    (face_folder / "more").mkdir()
    (face_folder / "more" / "zwölf mit Leerzeichen.png").write_bytes(encode(textured()))
    archive = pack(face_folder, tmp_path / archive_name)
    assert list_images(archive) == list_images(face_folder)
    assert dict(read_images(archive)) == dict(read_images(face_folder))


def test_linked_copies_are_not_lost_from_a_tar(face_folder, tmp_path):
    original = sorted(face_folder.iterdir())[0]
    os.link(original, face_folder / "hard_link.jpg")
    (face_folder / "soft_link.jpg").symlink_to(original.name)
    archive = tmp_path / "linked.tar"
    with tarfile.open(archive, "w") as target:
        target.add(face_folder, "faces")
    contents = dict(read_images(archive))
    assert len(contents) == 14
    assert contents["faces/hard_link.jpg"] == contents["faces/soft_link.jpg"] == original.read_bytes()


def test_read_member_finds_a_file_in_any_folder(tmp_path, one_clear_line):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "labels.csv").write_text("file,age\n")
    archive = pack(tmp_path, tmp_path / "labels.tar")
    for source in (tmp_path, archive):
        assert read_member(source, "labels.csv").read() == b"file,age\n"
        with one_clear_line(source.name, "no other.csv", "docs/data.md"):
            read_member(source, "other.csv")


def test_missing_folder(tmp_path, one_clear_line):
    with one_clear_line("nowhere", "no such folder", "AGR_DATA_DIR"):
        list_images(tmp_path / "nowhere")


def test_empty_folder(tmp_path, one_clear_line):
    with one_clear_line(str(tmp_path), "no image", "Name the folder"):
        list_images(tmp_path)


def test_a_file_where_a_folder_was_meant(tmp_path, one_clear_line):
    file = tmp_path / "face.jpg"
    file.write_bytes(encode(textured(), "JPEG"))
    with one_clear_line("face.jpg", "neither a folder nor", "Name the folder"):
        list_images(file)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), ("cannot be read (Permission denied)", "permissions")),
        (OSError(errno.EIO, "Input/output error"), ("cannot be read (Input/output error)",)),
    ],
)
def test_a_file_that_the_system_cannot_read(face_folder, monkeypatch, one_clear_line, error, words):
    names = list_images(face_folder)
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(error))
    contents = dict(read_images(face_folder))
    assert list(contents) == names
    for name, content in contents.items():
        with one_clear_line(name, *words):
            raise content


def test_a_name_that_is_not_utf8(tmp_path, one_clear_line):
    try:
        (tmp_path / os.fsdecode(b"1_0_0_20170112213500903\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with one_clear_line(tmp_path.name, "not UTF-8", "Rename"):
        list_images(tmp_path)


# Archives that are damaged or hostile


def damage(archive: Path, position: int, length: int = 40) -> None:
    content = bytearray(archive.read_bytes())
    content[position : position + length] = bytes(255 - value for value in content[position : position + length])
    archive.write_bytes(bytes(content))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("archive_name", ["faces.tar", "faces.tar.gz", "faces.zip"])
def test_a_truncated_archive_never_passes_for_a_smaller_one(face_folder, tmp_path, one_clear_line, archive_name, share):
    archive = pack(face_folder, tmp_path / archive_name)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    for use in (list_images, lambda source: list(read_images(source))):
        with one_clear_line(archive_name):
            use(archive)


def test_a_tar_cut_between_two_members(face_folder, tmp_path, one_clear_line):
    archive = pack(face_folder, tmp_path / "faces.tar")
    with tarfile.open(archive) as opened:
        fifth = opened.getmembers()[4]
    archive.write_bytes(archive.read_bytes()[: fifth.offset])
    with one_clear_line("faces.tar", "damaged archive", "Download it again"):
        list_images(archive)


def test_a_tar_with_a_broken_header_in_the_middle(face_folder, tmp_path, one_clear_line):
    archive = pack(face_folder, tmp_path / "faces.tar")
    with tarfile.open(archive) as opened:
        fifth = opened.getmembers()[4]
    damage(archive, fifth.offset + 100)
    with one_clear_line("faces.tar", "damaged archive", "Download it again"):
        list_images(archive)


@pytest.mark.parametrize("archive_name", ["faces.tar.gz", "faces.zip"])
def test_flipped_bytes_are_caught_by_the_checksum(face_folder, tmp_path, one_clear_line, archive_name):
    archive = pack(face_folder, tmp_path / archive_name)
    damage(archive, archive.stat().st_size // 2, length=4)
    with one_clear_line(archive_name, "damaged archive", "Download it again"):
        list(read_images(archive))


def test_a_wrong_checksum_at_the_end_of_a_tar_gz(face_folder, tmp_path, one_clear_line):
    archive = pack(face_folder, tmp_path / "faces.tar.gz")
    damage(archive, archive.stat().st_size - 8, length=4)
    with one_clear_line("faces.tar.gz", "damaged archive", "Download it again"):
        list(read_images(archive))


def test_an_archive_with_a_password(tmp_path, one_clear_line):
    archive = tmp_path / "locked.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("a.jpg", b"x")
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1  # the bit that says: encrypted
    archive.write_bytes(bytes(content))
    with one_clear_line("locked.zip", "password"):
        list(read_images(archive))


@pytest.mark.parametrize("archive_name", ["evil.tar", "evil.zip"])
def test_member_names_that_point_outside_write_nothing(tmp_path, archive_name):
    inside = tmp_path / "inside"
    inside.mkdir()
    archive = inside / archive_name
    picture = encode(textured(), "JPEG")
    names = ["../evil.jpg", "../../evil.jpg", str(tmp_path / "absolute.jpg"), "good.jpg"]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for name in names:
                target.writestr(name, picture)
    else:
        with tarfile.open(archive, "w") as target:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(picture)
                target.addfile(member, io.BytesIO(picture))
    before = everything_below(tmp_path)
    contents = dict(read_images(archive))
    assert len(contents) == len(names)
    assert set(contents.values()) == {picture}
    assert everything_below(tmp_path) == before


def test_a_link_to_a_file_outside_the_archive_is_not_followed(tmp_path, one_clear_line):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as target:
        member = tarfile.TarInfo("innocent.jpg")
        member.type = tarfile.SYMTYPE
        member.linkname = str(secret)
        target.addfile(member)
    with one_clear_line("evil.tar"):
        list(read_images(archive))


# Decoding: what is refused


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_truncated_image(one_clear_line, file_format, share):
    content = encode(textured(64, 64), file_format)
    with one_clear_line("half.jpg", "damaged image", "Get it again"):
        decode_image(content[: int(share * len(content))], "half.jpg")


def test_an_empty_file(one_clear_line):
    with one_clear_line("empty.jpg", "0 bytes", "Get it again"):
        decode_image(b"", "empty.jpg")


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>", b"x", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"],
    ids=["web page", "one byte", "PostScript"],
)
def test_no_image_at_all(one_clear_line, content):
    with one_clear_line("page.jpg", "not an image this can read", content[:4].hex(" "), "Get it again"):
        decode_image(content, "page.jpg")


def one_bit_png(side: int) -> bytes:
    """A whole black PNG of side x side pixels, in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(level=1)
    row = bytes(1 + (side + 7) // 8)
    body = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux counts it")
@pytest.mark.parametrize("side", [11_000, 20_000])
def test_a_huge_image_is_refused_before_it_takes_memory(tmp_path, side):
    picture = tmp_path / "huge.png"
    picture.write_bytes(one_bit_png(side))
    script = """
import resource, sys
from pathlib import Path
from agr_utils.data.reading.images import decode_image
from agr_utils.errors import InputError
content = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(content, "huge.png")
except InputError as error:
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before} {error}")
"""
    command = [sys.executable, "-c", script, str(picture)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kilobytes, message = output.split(" ", 1)
    assert int(kilobytes) < 50_000
    assert len(message.splitlines()) == 1
    assert "huge.png" in message
    assert "too large" in message
    assert "Crop the face" in message


@pytest.mark.filterwarnings("ignore")  # pytest's own filters come before those of the package
def test_random_damage_never_shows_another_error():
    picture = textured()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    contents = [
        encode(picture, "JPEG", exif=exif),
        encode(picture, "JPEG", progressive=True),
        encode(picture, "PNG", exif=exif),
        encode(picture.convert("P"), "PNG"),
        encode(picture, "WEBP", exif=exif),
        encode(picture, "BMP"),
    ]
    dice = random.Random(0)
    outcomes = {"decoded": 0, "refused": 0}
    for number in range(1500):
        content = bytearray(contents[number % len(contents)])
        reach = min(len(content), dice.choice([40, 200, len(content)]))
        for _ in range(dice.randint(1, 6)):
            content[dice.randrange(reach)] = dice.randrange(256)
        try:
            assert decode_image(bytes(content), "odd.jpg").mode == "RGB"
            outcomes["decoded"] += 1
        except InputError as error:
            assert str(error).startswith("odd.jpg: ")
            assert len(str(error).splitlines()) == 1
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100  # both happen, or the damage is not what it should be


def test_a_turned_picture_with_an_odd_exif_tag_is_still_turned():
    # ImageOps.exif_transpose fails on this one: it writes the EXIF anew, and a text is where a number should be.
    picture = Image.new("RGB", (32, 16), "red")
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    block += struct.pack(">HHI4s", 0x0100, 2, 3, b"ab\0\0") + b"\0\0\0\0"
    decoded = decode_image(encode(picture, "JPEG", exif=block))
    assert decoded.size == (16, 32)
    assert_colour(decoded, (8, 8), (254, 0, 0))


def test_too_little_memory_is_not_called_damage(monkeypatch, one_clear_line):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", fail)
    with one_clear_line("large.png", "too little memory", "Free some"):
        decode_image(encode(textured()), "large.png")


# Decoding: what works


def test_a_png_named_jpg():
    picture = textured()
    assert np.array_equal(np.asarray(decode_image(encode(picture, "PNG"), "face.jpg")), np.asarray(picture))


def test_jpeg_keeps_its_colours():
    assert_colour(decode_image(encode(Image.new("RGB", (16, 16), (200, 100, 50)), "JPEG")), (8, 8), (200, 100, 50), 4)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 40, 40), (40, 40, 200)])
def test_cmyk(colour):
    content = encode(Image.new("RGB", (64, 64), colour).convert("CMYK"), "JPEG", quality=95)
    assert_colour(decode_image(content), (8, 8), colour, 8)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_greyscale(file_format):
    for value in (0, 100, 255):
        content = encode(Image.new("L", (16, 16), value), file_format)
        assert_colour(decode_image(content), (8, 8), (value,) * 3)


def test_transparency_lies_on_white():
    picture = Image.new("RGBA", (30, 10), (255, 0, 0, 255))
    picture.paste((255, 0, 0, 128), (10, 0, 20, 10))
    picture.paste((0, 0, 0, 0), (20, 0, 30, 10))
    for content in (encode(picture, "PNG"), encode(picture, "WEBP", lossless=True)):
        decoded = decode_image(content)
        assert_colour(decoded, (5, 5), (255, 0, 0))
        assert_colour(decoded, (15, 5), (255, 127, 127))
        assert_colour(decoded, (25, 5), (255, 255, 255))


def test_transparency_of_grey_and_palette_lies_on_white():
    grey = Image.new("LA", (20, 10), (60, 255))
    grey.paste((60, 0), (10, 0, 20, 10))
    palette = Image.new("P", (20, 10), 0)
    palette.putpalette([60, 60, 60, 10, 20, 30])
    palette.paste(1, (10, 0, 20, 10))
    for content in (encode(grey, "PNG"), encode(palette, "PNG", transparency=1)):
        decoded = decode_image(content)
        assert_colour(decoded, (5, 5), (60, 60, 60))
        assert_colour(decoded, (15, 5), (255, 255, 255))


def test_16_bit_grey_is_scaled_and_not_clipped():
    values = np.array([0, 0x4000, 0x8000, 0xC000, 0xFFFF], np.uint16).repeat(4)[None].repeat(8, axis=0)
    content = encode(Image.fromarray(values), "PNG")
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    decoded = decode_image(content)
    for index, expected in enumerate((0, 64, 128, 191, 255)):
        assert_colour(decoded, (4 * index + 1, 4), (expected,) * 3)


def test_a_dark_16_bit_picture_stays_dark():
    decoded = decode_image(encode(Image.fromarray(np.full((8, 8), 0x1000, np.uint16)), "PNG"))
    assert_colour(decoded, (4, 4), (16, 16, 16))


@pytest.mark.parametrize(
    ("orientation", "red_side"),
    [(1, "left"), (2, "right"), (3, "right"), (4, "left"), (5, "top"), (6, "top"), (7, "bottom"), (8, "bottom")],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(orientation, red_side, file_format):
    picture = Image.new("RGB", (64, 32), "blue")
    picture.paste("red", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(picture, file_format, exif=exif, quality=95))
    assert (decoded.width > decoded.height) == (red_side in ("left", "right"))
    across, down = decoded.width, decoded.height
    place = {
        "left": (across // 8, down // 2),
        "right": (across * 7 // 8, down // 2),
        "top": (across // 2, down // 8),
        "bottom": (across // 2, down * 7 // 8),
    }
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    assert_colour(decoded, place[red_side], (254, 0, 0), 6)
    assert_colour(decoded, place[opposite[red_side]], (0, 0, 254), 6)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_one_pixel(file_format):
    decoded = decode_image(encode(Image.new("RGB", (1, 1), (90, 90, 90)), file_format))
    square = resize_square(decoded, 32)
    assert square.shape == (32, 32, 3)
    assert np.abs(square.astype(int) - 90).max() <= 3


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_file_and_its_array_give_the_same_pixels(file_format):
    exif = Image.Exif()
    exif[0x0112] = 6
    for side in (64, 130, 300, 1100):  # a JPEG decoded at a smaller scale would differ
        content = encode(textured(side + 40, side), file_format, **({} if file_format == "GIF" else {"exif": exif}))
        array = np.asarray(decode_image(content))
        assert np.array_equal(decode_square(content, "face", 64), resize_square(Image.fromarray(array), 64))


def test_resize_takes_the_middle_square():
    picture = Image.new("RGB", (90, 30), (0, 255, 0))
    picture.paste((255, 0, 0), (0, 0, 30, 30))
    picture.paste((0, 0, 255), (60, 0, 90, 30))
    square = resize_square(picture, 10)
    assert square.shape == (10, 10, 3)
    assert square.dtype == np.uint8
    assert (square[:, 1:-1] == (0, 255, 0)).all()  # the outermost pixels mix in their neighbours

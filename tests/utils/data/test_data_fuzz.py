"""Any bytes are an image of the promised shape or one clear line, for the decoder and for ``agr predict``."""

import io
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agr_utils.data.reading.images import FORMATS, decode_image, decode_square
from agr_utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # pytest's own filters come before those of the package
USUAL = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM", "TGA", "ICO", "PCX")
PICTURE_FORMATS = [name for name in USUAL if name in FORMATS]


def encode(file_format: str, mode: str = "RGB") -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {"exif": exif} if file_format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


CONTENTS = [encode(name) for name in PICTURE_FORMATS] + [
    encode("PNG", mode) for mode in ("RGBA", "LA", "P", "I;16", "1")
]


def mutate(content: bytes, dice: random.Random) -> bytes:
    """Bytes flipped (mostly in the header), cut, doubled, or put into another file."""
    changed = bytearray(content)
    reach = min(len(changed), dice.choice([40, 200, len(changed)]))
    for _ in range(dice.randint(1, 8)):
        changed[dice.randrange(reach)] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])
    kind = dice.randrange(6)
    if kind == 0:
        return bytes(changed[: dice.randrange(len(changed))])
    if kind == 1:
        return bytes(changed + changed)
    if kind == 2:
        place = dice.randrange(len(changed))
        return bytes(changed[:place]) + dice.choice(CONTENTS) + bytes(changed[place:])
    return bytes(changed)


def assert_image_or_one_line(content: bytes) -> None:
    try:
        square = decode_square(content, "odd name.jpg", 24)
    except InputError as error:
        assert str(error).startswith("odd name.jpg: ") and len(str(error).splitlines()) == 1
        assert "elete" not in str(error)
        return
    assert square.shape == (24, 24, 3) and square.dtype == np.uint8
    decoded = decode_image(content)
    assert decoded.mode == "RGB" and min(decoded.size) >= 1


@settings(max_examples=150)
@given(content=st.binary(max_size=200))
def test_any_bytes(content):
    assert_image_or_one_line(content)


@settings(max_examples=250)
@given(
    start=st.sampled_from(CONTENTS),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
    end=st.integers(0, 4000),
)
def test_any_change_of_an_image(start, changes, end):
    content = bytearray(start)
    for place, value in changes:
        content[place % len(content)] = value
    assert_image_or_one_line(bytes(content[: max(1, len(content) - end)]) if end % 2 else bytes(content))


@pytest.mark.skipif(not os.environ.get("AGR_LONG_TESTS"), reason="minutes long: make test-long")
def test_two_hundred_mutated_images_are_answered_or_refused(tmp_path: Path):
    dice = random.Random(0)
    suffixes = ("jpg", "png", "webp", "gif", "tif", "bmp", "jp2", "avif")
    for number in range(200):
        content = mutate(CONTENTS[number % len(CONTENTS)], dice)
        (tmp_path / f"{number:03} {zlib.crc32(content):x}.{suffixes[number % len(suffixes)]}").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "agr_lab.cli", "predict", str(tmp_path), "--json"], capture_output=True, text=True
    )
    answers = [line for line in map(json.loads, done.stdout.splitlines()) if "path" in line]
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
    assert sorted(Path(answer["path"]).name for answer in answers) == sorted(path.name for path in tmp_path.iterdir())
    refused = [answer for answer in answers if "error" in answer]
    assert 20 < len(refused) < 180
    assert all(len(answer["error"].splitlines()) == 1 and "elete" not in answer["error"] for answer in refused)
    assert all(np.isfinite(answer["age"]) for answer in answers if "error" not in answer)

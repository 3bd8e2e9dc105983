"""Hostile inputs that are small on disk and huge in memory: every command gets 2 GB more than it needs to start."""

import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agr_utils.data.duplicates import Hashes, find_pairs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux counts it")

GIGABYTE = 10**9
long_test = pytest.mark.skipif(not os.environ.get("AGR_LONG_TESTS"), reason="minutes long: make test-long")
LIMITED = """
import resource, sys
from agr_lab.cli import main as cli
import agr_utils.data.audit, agr_utils.data.load
if sys.argv[2] == "predict":
    import torch
    import agr_utils.deploy.predict
    agr_utils.deploy.predict.load_shipped_model()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[1]),) * 2)
sys.argv = ["agr", *sys.argv[2:]]
cli.main()
"""


def agr(*arguments: object, limit: int = 2 * GIGABYTE) -> subprocess.CompletedProcess:
    """Run ``agr`` with so many bytes of memory beyond what its imports take."""
    command = [sys.executable, "-c", LIMITED, str(limit), *map(str, arguments)]
    environment = os.environ | {"TQDM_DISABLE": "1", "MALLOC_ARENA_MAX": "2"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def flat_png(side: int, colour_type: int, channels: int, value: int = 90, depth: int = 8) -> bytes:
    """A PNG of one colour, side x side pixels, in some hundred kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(level=1)
    row = b"\0" + bytes([value]) * (side * channels * depth // 8)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def small_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 90, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def links(folder: Path, content: bytes, count: int, suffix: str) -> Path:
    """``count`` names for one file, as UTKFace gives them."""
    folder.mkdir()
    (folder / f"20_0_0_20170112213500000{suffix}").write_bytes(content)
    for number in range(1, count):
        os.link(folder / f"20_0_0_20170112213500000{suffix}", folder / f"20_0_0_{20170112213500000 + number}{suffix}")
    return folder


@pytest.fixture(scope="module")
def huge_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three transparent pictures of 98 megapixels, 400 kB each, and one of 16-bit grey."""
    folder = links(tmp_path_factory.mktemp("huge") / "faces", flat_png(9_900, 6, 4), 3, ".png")
    (folder / "20_0_0_20170112213509999.png").write_bytes(flat_png(9_900, 0, 1, depth=16))
    return folder


def test_huge_transparent_pictures_are_prepared_one_at_a_time(huge_pictures, cache_dir):
    done = agr("data", "prepare", "--source", huge_pictures, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "data": "utkface", "splits": {"unlisted": 4}, "skipped": {"total": 0, "reasons": {}}
    }  # fmt: skip
    pixels = np.load(next(cache_dir.glob("faces-64px-*/pixels.npy")))
    on_white = round(90 * 90 / 255 + 255 * (1 - 90 / 255))
    assert np.abs(pixels[:3].astype(int) - on_white).max() <= 2
    assert np.abs(pixels[3].astype(int) - 90).max() <= 1


@long_test
def test_huge_transparent_pictures_are_audited_one_at_a_time(huge_pictures):
    done = agr("data", "audit", huge_pictures, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["num_images"], found["num_identical"], found["unreadable"]) == (4, 2, {})


@long_test
def test_huge_transparent_pictures_are_answered(huge_pictures):
    done = agr("predict", "--json", "--no-detect", huge_pictures)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 4 and all("age" in answer for answer in answers)


@pytest.mark.parametrize(
    "command", [("audit",), pytest.param(("prepare", "--source"), marks=long_test)], ids=lambda command: command[0]
)
def test_many_camera_pictures_wait_on_the_disk(tmp_path, command):
    folder = links(tmp_path / "faces", small_jpeg() + bytes(12_000_000), 120, ".jpg")
    done = agr("data", *command, folder, "--json", limit=GIGABYTE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["num_images"] == 120 if command == ("audit",) else found["splits"] == {"unlisted": 120}


def pack_zeros(archive: Path, count: int) -> None:
    """An archive of one face and one image of ``count`` zeros."""
    face, name = small_jpeg(), "30_0_0_20170112213500002.jpg"
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
            target.writestr("20_0_0_20170112213500001.jpg", face)
            with target.open(name, "w", force_zip64=True) as file:
                for _ in range(count // 2**20):
                    file.write(bytes(2**20))
        return
    member, zeros = tarfile.TarInfo("20_0_0_20170112213500001.jpg"), tarfile.TarInfo(name)
    member.size, zeros.size = len(face), count // 2**20 * 2**20
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(member.tobuf() + face + bytes(-len(face) % 512) + zeros.tobuf())
        for _ in range(count // 2**20):
            file.write(bytes(2**20))
        file.write(bytes(1024))


@pytest.mark.parametrize("name", ["bomb.zip", pytest.param("bomb.tar.gz", marks=long_test)])
@pytest.mark.parametrize(
    "command",
    [("audit",), pytest.param(("prepare", "--skip-unreadable", "--source"), marks=long_test)],
    ids=lambda command: command[0],
)
def test_an_archive_that_expands_without_a_bound(tmp_path, name, command):
    pack_zeros(tmp_path / name, 10**9)
    assert (tmp_path / name).stat().st_size < 6_000_000
    done = agr("data", *command, tmp_path / name, "--json", limit=8 * 10**8)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"]["reasons"]["unreadable"] == {
        "count": 1, "examples": ["30_0_0_20170112213500002.jpg"]
    }  # fmt: skip


@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@long_test
@pytest.mark.parametrize("sparse", ["gnu", "posix"])
def test_a_sparse_tar(tmp_path, sparse):
    with (tmp_path / "30_0_0_20170112213500002.jpg").open("wb") as file:
        file.truncate(50 * GIGABYTE)
    (tmp_path / "20_0_0_20170112213500001.jpg").write_bytes(small_jpeg())
    names = [path.name for path in tmp_path.iterdir()]
    packed = subprocess.run(["tar", f"--format={sparse}", "-Scf", "a.tar", *names], cwd=tmp_path, capture_output=True)
    if packed.returncode or (tmp_path / "a.tar").stat().st_size > 100_000:
        pytest.skip("this tar or file system keeps no holes")
    done = agr("data", "audit", tmp_path / "a.tar", "--json", limit=8 * 10**8)
    assert done.returncode == 0, done.stderr
    (error,) = json.loads(done.stdout)["unreadable"].values()
    assert "50000 MB is too large" in error


@long_test
def test_too_little_memory_is_not_called_damage(tmp_path):
    (tmp_path / "20_0_0_20170112213500001.png").write_bytes(flat_png(9_900, 6, 4))
    done = agr("data", "audit", tmp_path, limit=5 * 10**8)
    assert done.returncode == 0, done.stderr
    assert "too little memory" in done.stdout and "damaged" not in done.stdout


def test_many_candidates_are_compared_in_little_memory():
    """Hashes that are all alike make each picture a candidate for each; of flat ones there is nothing to compare."""
    count = 400
    thumbs = np.random.default_rng(0).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    flat = np.zeros((4_000, 32, 32), np.uint8)
    for pictures in (thumbs, flat):
        names = np.array([f"{number}.png" for number in range(len(pictures))])
        hashes = Hashes(names, names, np.zeros((len(names), 2), np.uint64), pictures, np.full(len(names), ""))
        tracemalloc.start()
        pairs = find_pairs(hashes)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(pairs) == 0
        assert peak < 3 * 10**8

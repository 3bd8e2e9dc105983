"""The pixel cache: every image decoded once into one uint8 array on disk, which training maps and slices."""

import contextlib
import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from agr_utils.data.reading.images import decode_square
from agr_utils.data.reading.sources import list_images, map_images
from agr_utils.errors import DamagedError, InputError
from agr_utils.files import clear_leftovers, read_json, replace_folder, write_json

FORMAT = 2  # raise it when the layout or the decoding changes: older caches are then made again
PIXELS_FILE, ABOUT_FILE = "pixels.npy", "cache.json"


def fingerprint(source: Path) -> str:
    """Twelve hex digits that change when the images of a folder or archive do (names, sizes, times, not contents)."""
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: no such folder or archive. Check the path, or AGR_DATA_DIR")
    files = {name: source / name for name in list_images(source)} if source.is_dir() else {source.name: source}
    # In formats without compression all pictures of one shape have one size: only the time tells them apart.
    stats = {name: path.stat() for name, path in files.items()}
    stamps = [f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats.items()]
    return hashlib.sha256("\n".join([str(FORMAT), *stamps]).encode()).hexdigest()[:12]


def cache_folder(source: Path, image_size: int, cache_dir: Path) -> Path:
    """The folder in which the cache of these images at this size belongs."""
    return Path(cache_dir) / f"{Path(source).stem}-{image_size}px-{fingerprint(source)}"


def build_cache(source: Path, image_size: int, folder: Path, skip_unreadable: bool = False) -> None:
    """Decode every image of ``source`` into ``folder``; the folder appears only when all of it is written.

    It gets ``pixels.npy`` (N, S, S, 3) uint8 and ``cache.json`` (names in the same order). A whole cache that is there
    already, from another process say, is left as it is.

    Raises:
        InputError: at the first unreadable image unless told to skip, if the size is no size, or the disk is full.
    """
    if image_size < 1:
        raise InputError(f"image size is {image_size}; it must be at least 1 pixel")
    paths = list_images(source)
    position = {path: index for index, path in enumerate(paths)}
    decoded = np.zeros(len(paths), dtype=bool)
    errors = []
    clear_leftovers(folder.parent)
    with replace_folder(folder, (PIXELS_FILE, ABOUT_FILE)) as partial:
        with contextlib.suppress(InputError):
            open_cache(folder)
            return  # another process was faster
        pixels = _allocate(partial / PIXELS_FILE, (len(paths), image_size, image_size, 3))
        results = map_images(source, lambda path, content: decode_square(content, path, image_size))
        for path, result in tqdm(results, total=len(paths), desc="decode", unit="image"):
            if isinstance(result, InputError):
                if not skip_unreadable:
                    raise InputError(f"{result}; or leave such images out with --skip-unreadable")
                errors.append(str(result))
                continue
            pixels[position[path]] = result
            decoded[position[path]] = True
        pixels.flush()
        del pixels  # closes it: Windows renames no folder that holds an open file
        if not decoded.any():
            raise InputError(f"{source}: none of its {len(paths)} images can be read. See: agr data audit {source}")
        write_about(partial, paths, decoded.tolist(), errors)


def write_about(folder: Path, paths: list[str], decoded: list[bool], errors: list[str]) -> None:
    """Write ``cache.json`` beside finished pixels: names in order, which are decoded, messages, checksum."""
    about = {"format": FORMAT, "paths": paths, "decoded": decoded, "errors": errors}
    write_json(folder / ABOUT_FILE, about | {"checksum": _checksum(folder, about)})


def _checksum(folder: Path, about: dict) -> int:
    """CRC-32 of the names and all pixels: 2 GB per second, read without keeping them in memory."""
    checksum = zlib.crc32(json.dumps(about).encode())
    with (folder / PIXELS_FILE).open("rb") as file:
        while block := file.read(2**24):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped array whose disk space is reserved now, so that a full disk is an error and not a crash."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels


def open_cache(folder: Path) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Map a cache read-only.

    Returns:
        Pixels (N, S, S, 3) uint8, their N paths, N bool (False where the image could not be read), and the messages
        about those.

    Raises:
        InputError: if the folder is no whole cache, or not what was written there.
    """
    folder = Path(folder)
    try:
        about = read_json(folder / ABOUT_FILE)
        checksum = about.pop("checksum")
        if about["format"] == FORMAT and checksum == _checksum(folder, about):
            pixels = np.load(folder / PIXELS_FILE, mmap_mode="r")
            return pixels, about["paths"], np.array(about["decoded"]), about["errors"]
    except (InputError, OSError, KeyError, ValueError):  # missing or torn, a name that is missing, no array
        pass
    raise DamagedError(f"{folder}: not a whole pixel cache of this version. Delete the folder; it is made again")

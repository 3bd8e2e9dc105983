"""The pixel cache: every image decoded once into one uint8 array on disk, which training maps and slices."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from agr_utils.data.images import decode_image, list_images, read_images, resize_square
from agr_utils.errors import InputError
from agr_utils.files import read_json, replace_folder, write_json

FORMAT = 1  # raise it when the layout or the decoding changes: older caches are then made again
PIXELS_FILE, ABOUT_FILE = "pixels.npy", "cache.json"


def fingerprint(source: Path) -> str:
    """Twelve hex digits that change when the images of a folder or archive do (names and sizes, not contents)."""
    source = Path(source)
    if source.is_dir():
        stamps = [f"{name}:{(source / name).stat().st_size}" for name in list_images(source)]
    elif source.exists():
        stat = source.stat()
        stamps = [source.name, str(stat.st_size), str(stat.st_mtime_ns)]
    else:
        raise InputError(f"{source}: no such folder or archive. Check the path, or AGR_DATA_DIR")
    return hashlib.sha256("\n".join([str(FORMAT), *stamps]).encode()).hexdigest()[:12]


def cache_folder(source: Path, image_size: int, cache_dir: Path) -> Path:
    """The folder in which the cache of these images at this size belongs."""
    return Path(cache_dir) / f"{Path(source).stem}-{image_size}px-{fingerprint(source)}"


def build_cache(source: Path, image_size: int, folder: Path, skip_unreadable: bool = False) -> None:
    """Decode every image of ``source`` into ``folder``; the folder appears only when all of it is written.

    A whole cache that is there already, from another process say, is left as it is.

    Args:
        source: folder or archive.
        image_size: side in pixels.
        folder: made here: ``pixels.npy`` (N, S, S, 3) uint8 and ``cache.json`` (names in the same order).
        skip_unreadable: leave out the images that cannot be read instead of stopping at the first.

    Raises:
        InputError: at the first unreadable image unless told to skip, if the size is no size, or the disk is full.
    """
    if image_size < 1:
        raise InputError(f"image size is {image_size}; it must be at least 1 pixel")
    paths = list_images(source)
    position = {path: index for index, path in enumerate(paths)}
    decoded = np.zeros(len(paths), dtype=bool)
    errors = []
    with replace_folder(folder, (PIXELS_FILE, ABOUT_FILE)) as partial:
        if _is_whole(folder):  # another process was faster
            return
        pixels = _allocate(partial / PIXELS_FILE, (len(paths), image_size, image_size, 3))
        for path, result in tqdm(_decode_all(source, image_size), total=len(paths), desc="decode", unit="image"):
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
        about = {"format": FORMAT, "bytes": (partial / PIXELS_FILE).stat().st_size}
        about |= {"paths": paths, "decoded": decoded.tolist(), "errors": errors}
        write_json(partial / ABOUT_FILE, about)


def _is_whole(folder: Path) -> bool:
    try:
        open_cache(folder)
    except InputError:
        return False
    return True


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped array whose disk space is reserved now, so that a full disk is an error and not a crash."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels


def _decode_all(source: Path, image_size: int) -> Iterator[tuple[str, np.ndarray | InputError]]:
    """Decode in threads (PIL releases the interpreter lock), a bounded number of images ahead."""

    def decode(item: tuple[str, bytes]) -> tuple[str, np.ndarray | InputError]:
        name, content = item
        try:
            return name, resize_square(decode_image(content, name, image_size), image_size)
        except InputError as error:
            return name, error

    images = read_images(source)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        while chunk := list(islice(images, 512)):
            yield from pool.map(decode, chunk)


def open_cache(folder: Path) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Map a cache read-only.

    Returns:
        Pixels (N, S, S, 3) uint8, their N paths, N bool (False where the image could not be read), and the messages
        about those.

    Raises:
        InputError: if the folder is no whole cache.
    """
    file = Path(folder) / PIXELS_FILE
    not_whole = InputError(f"{folder}: not a whole pixel cache of this version. Delete the folder; it is made again")
    try:
        about = read_json(Path(folder) / ABOUT_FILE)
    except InputError:
        raise not_whole from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise not_whole
    if not file.exists() or file.stat().st_size != about.get("bytes"):
        raise not_whole
    pixels = np.load(file, mmap_mode="r")
    if pixels.shape[0] != len(about["paths"]):
        raise InputError(f"{folder}: {pixels.shape[0]} images but {len(about['paths'])} names. Delete the folder")
    return pixels, about["paths"], np.array(about["decoded"]), about["errors"]

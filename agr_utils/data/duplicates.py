"""Find copies of the same photograph, so that none of them is trained on while another is tested on.

A perceptual hash (imagehash's pHash, 64 bits) names candidates, the correlation of two 32x32 grey thumbnails confirms
them. The hash alone would link hundreds of strangers: aligned faces look alike to it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from scipy import fftpack
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from agr_utils.data.pixels import fingerprint
from agr_utils.data.reading.images import use_image
from agr_utils.data.reading.sources import list_images, map_images
from agr_utils.errors import InputError
from agr_utils.files import read_json, write_json

MAX_DISTANCE = 8  # bits of 64; beyond it hardly a candidate is confirmed (notebook 01 shows the counts)
MIN_CORRELATION = 0.95
_THUMB = 32
_COMPARED_AT_ONCE = 2**23  # pairs of images whose hashes are compared at a time, 9 bytes each


@dataclass(frozen=True)
class Hashes:
    """What is known of each of N images after one look."""

    paths: np.ndarray  #: (N,) names
    digests: np.ndarray  #: (N,) SHA-256 of the files' bytes, as hexadecimal text
    hashes: np.ndarray  #: (N, 2) uint64, pHash of the image and of its mirror image
    thumbs: np.ndarray  #: (N, 32, 32) uint8, grey
    errors: np.ndarray  #: (N,) text; empty where the image can be read, else what is wrong with it


class _Look(NamedTuple):
    """What one look at an image gives: the columns of ``Hashes`` after its path."""

    digest: str
    hashes: np.ndarray = np.zeros(2, np.uint64)
    thumb: np.ndarray = np.zeros((_THUMB, _THUMB), np.uint8)
    error: str = ""


def hash_images(source: Path) -> Hashes:
    """Look at every image of a folder or archive once, a bounded number of them in memory at a time.

    Raises:
        InputError: if there is no image, or the archive is damaged.
    """
    images, looks = map_images(source, _look), {}
    for path, look in tqdm(images, total=len(list_images(source)), desc="hash", unit="image"):
        looks[path] = _Look(f"none of {path}", error=str(look)) if isinstance(look, InputError) else look
    paths = sorted(looks)
    return Hashes(np.array(paths), *map(np.array, zip(*(looks[path] for path in paths), strict=True)))


def _look(path: str, content: bytes) -> _Look:
    digest = hashlib.sha256(content).hexdigest()
    try:
        return use_image(content, path, lambda image: _Look(digest, *_shrink(image.convert("L"))))
    except InputError as error:
        return _Look(digest, error=str(error))


def _shrink(grey: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """imagehash's pHash of the picture and its mirror image, (2,) uint64, and the thumbnail, (32, 32) uint8."""
    side = (_THUMB, _THUMB)
    planes = np.stack([plane.resize(side, Image.Resampling.LANCZOS) for plane in (grey, ImageOps.mirror(grey))])
    lowest = fftpack.dct(fftpack.dct(planes, axis=1), axis=2)[:, :8, :8]
    bits = lowest > np.median(lowest, axis=(1, 2), keepdims=True)
    hashes = np.packbits(bits.reshape(2, 64), axis=1).view(">u8")[:, 0].astype(np.uint64)
    return hashes, np.asarray(grey.resize(side, Image.Resampling.BOX))


def find_pairs(hashes: Hashes) -> np.ndarray:
    """Confirmed near-duplicate pairs, (P, 2) int64 row numbers, first < second.

    Compares every image with every later one, some rows at a time: memory grows with N, time with N squared
    (a second or two for 21,000 images, where hashing them takes twenty).
    """
    flat = np.ptp(hashes.thumbs, axis=(1, 2)) == 0  # nothing in them but their bytes to compare
    comparable = (hashes.errors == "") & ~flat
    rows = max(1, _COMPARED_AT_ONCE // len(comparable))
    confirmed = [_identical_pairs(hashes.digests)]
    for start in range(0, len(comparable), rows):
        for mirrored in (False, True):
            block = hashes.hashes[start : start + rows, int(mirrored)]
            distance = np.bitwise_count(block[:, None] ^ hashes.hashes[None, start:, 0])
            first, second = np.nonzero(distance <= MAX_DISTANCE)
            later = (second > first) & comparable[first + start] & comparable[second + start]
            candidates = np.stack([first[later], second[later]], axis=1) + start
            for part in np.array_split(candidates, 1 + len(candidates) // 4096):
                confirmed.append(part[_correlation(hashes.thumbs, part, mirrored) >= MIN_CORRELATION])
    return np.unique(np.concatenate(confirmed), axis=0)


def _correlation(thumbs: np.ndarray, pairs: np.ndarray, mirrored: bool) -> np.ndarray:
    """Correlation of the two thumbnails of each pair, (P,) float32; 0 where one of them is flat."""
    sides = [thumbs[pairs[:, side]].astype(np.float32) for side in (0, 1)]
    for side in sides:
        side -= side.mean(axis=(1, 2), keepdims=True)
        side /= np.maximum(np.linalg.norm(side, axis=(1, 2), keepdims=True), 1e-6)
    return np.einsum("nij,nij->n", sides[0][:, :, ::-1] if mirrored else sides[0], sides[1])


def _identical_pairs(digests: np.ndarray) -> np.ndarray:
    """Each file with the first file of the same bytes, (P, 2) row numbers."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    rows = np.arange(len(digests))
    original = first[inverse]
    copies = rows != original
    return np.stack([original[copies], rows[copies]], axis=1)


def group_pairs(pairs: np.ndarray, num_images: int) -> np.ndarray:
    """Number of each image's near-duplicate cluster, (N,) int64: connected components of the pairs."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(num_images, num_images))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def read_groups(source: Path, cache_dir: Path) -> dict[str, int]:
    """Near-duplicate cluster of each image by its path; kept under a name that changes with the images."""
    source = Path(source)
    file = Path(cache_dir) / f"{source.stem}-groups-{fingerprint(source)}.json"
    if not file.exists():
        hashes = hash_images(source)
        groups = group_pairs(find_pairs(hashes), len(hashes.paths))
        write_json(file, dict(zip(hashes.paths.tolist(), groups.tolist(), strict=True)))
    return read_json(file)

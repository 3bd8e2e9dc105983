"""Find copies of the same photograph, so that none of them is trained on while another is tested on.

A perceptual hash (imagehash's pHash, 64 bits) names candidates, the correlation of two 32x32 grey thumbnails confirms
them. The hash alone would link hundreds of strangers: aligned faces look alike to it.
"""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from agr_utils.data.images import decode_image, list_images, read_images
from agr_utils.errors import InputError

MAX_DISTANCE = 8  # bits of 64; beyond it hardly a candidate is confirmed (notebook 01 shows the counts)
MIN_CORRELATION = 0.95
_THUMB = 32


@dataclass(frozen=True)
class Hashes:
    """What is known of each of N images after one look.

    Attributes:
        paths: their names.
        digests: (N,) SHA-256 of the files' bytes, as hexadecimal text.
        hashes: (N, 2) uint64, pHash of the image and of its mirror image.
        thumbs: (N, 32, 32) uint8, grey.
        errors: (N,) text; empty where the image can be read, else what is wrong with it.
    """

    paths: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray
    errors: np.ndarray


def hash_image(item: tuple[str, bytes]) -> tuple[str, str, tuple[int, int], np.ndarray, str]:
    """Path, digest, both hashes, thumbnail and error of one image."""
    path, content = item
    digest = hashlib.sha256(content).hexdigest()
    try:
        grey = decode_image(content, path, size=128).convert("L")
    except InputError as error:
        return path, digest, (0, 0), np.zeros((_THUMB, _THUMB), np.uint8), str(error)
    bits = (imagehash.phash(grey).hash, imagehash.phash(ImageOps.mirror(grey)).hash)
    both = tuple(int(np.packbits(plane.ravel()).view(">u8")[0]) for plane in bits)
    thumb = np.asarray(grey.resize((_THUMB, _THUMB), Image.Resampling.BOX))
    return path, digest, both, thumb, ""


def hash_images(source: Path, num_processes: int | None = None) -> Hashes:
    """Look at every image of a folder or archive once.

    Args:
        source: folder or archive.
        num_processes: to spread the work over; None for one a core.
    """
    total, results, images = len(list_images(source)), [], read_images(source)
    with ProcessPoolExecutor(num_processes) as pool, tqdm(total=total, desc="hash", unit="image") as progress:
        while chunk := list(islice(images, 1024)):  # a bounded number of images in memory at a time
            results.extend(pool.map(hash_image, chunk, chunksize=64))
            progress.update(len(chunk))
    results.sort(key=lambda row: row[0])
    paths, digests, hashes, thumbs, errors = zip(*results, strict=True)
    return Hashes(np.array(paths), np.array(digests), np.array(hashes, np.uint64), np.stack(thumbs), np.array(errors))


def find_pairs(
    hashes: Hashes, max_distance: int = MAX_DISTANCE, min_correlation: float = MIN_CORRELATION
) -> np.ndarray:
    """Confirmed near-duplicate pairs, (P, 2) int64 row numbers, first < second.

    Compares every image with every later one a thousand rows at a time: memory grows with N, time with N squared
    (a second or two for 21,000 images, where hashing them takes twenty).
    """
    readable = hashes.errors == ""
    thumbs = hashes.thumbs.astype(np.float32)
    thumbs -= thumbs.mean(axis=(1, 2), keepdims=True)
    thumbs /= np.maximum(np.linalg.norm(thumbs, axis=(1, 2), keepdims=True), 1e-6)
    confirmed = []
    for start in range(0, len(thumbs), 1000):
        for mirrored in (0, 1):
            block = hashes.hashes[start : start + 1000, mirrored]
            distance = np.bitwise_count(block[:, None] ^ hashes.hashes[None, start:, 0])
            first, second = np.nonzero(distance <= max_distance)
            later = (second > first) & readable[first + start] & readable[second + start]
            first, second = first[later] + start, second[later] + start
            left = thumbs[first][:, :, ::-1] if mirrored else thumbs[first]
            correlation = np.einsum("nij,nij->n", left, thumbs[second])
            keep = correlation >= min_correlation
            confirmed.append(np.stack([first[keep], second[keep]], axis=1))
    same_bytes = _identical_pairs(hashes.digests)
    return np.unique(np.concatenate([*confirmed, same_bytes]), axis=0)


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

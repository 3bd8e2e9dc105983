from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from agr_utils.data.duplicates import Hashes, find_pairs, group_pairs, hash_images


def photograph(seed: int, side: int = 96) -> Image.Image:
    """Something with the spectrum of a photograph: soft random shapes and a little grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 226, (7, 7, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 3, (side, side, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of photograph 0 in every disguise, photograph 1 twice byte by byte, strangers, and broken files."""
    folder = tmp_path_factory.mktemp("album")
    original = photograph(0)
    original.save(folder / "a0 original.jpg", quality=95)
    original.save(folder / "a1 recompressed.jpg", quality=30)
    ImageEnhance.Brightness(original).enhance(1.08).save(folder / "a2 brighter.jpg", quality=95)
    ImageOps.mirror(original).save(folder / "a3 mirrored.jpg", quality=90)
    original.resize((60, 60)).save(folder / "a4 smaller.png")
    original.convert("L").save(folder / "a5 grey.jpg", quality=90)
    photograph(1).save(folder / "b0.jpg", quality=90)
    (folder / "b1.jpg").write_bytes((folder / "b0.jpg").read_bytes())
    for name in ("c0 flat.png", "c1 flat.png"):  # nothing in them to compare but their bytes
        Image.new("RGB", (96, 96), (120, 120, 120)).save(folder / name)
    for seed in range(2, 22):
        photograph(seed).save(folder / f"stranger {seed}.jpg", quality=90)
    (folder / "z0 empty.jpg").write_bytes(b"")
    (folder / "z1 truncated.jpg").write_bytes((folder / "a0 original.jpg").read_bytes()[:800])
    return folder


@pytest.fixture(scope="module")
def hashes(album: Path) -> Hashes:
    return hash_images(album)


def members_of_one_group(hashes: Hashes) -> dict[str, int]:
    groups = group_pairs(find_pairs(hashes), len(hashes.paths))
    return dict(zip(hashes.paths.tolist(), groups.tolist(), strict=True))


def test_copies_in_disguise_are_one_group(hashes):
    group_of = members_of_one_group(hashes)
    assert len({group for path, group in group_of.items() if path.startswith("a")}) == 1


def test_identical_files_are_one_group(hashes):
    group_of = members_of_one_group(hashes)
    assert group_of["b0.jpg"] == group_of["b1.jpg"]
    assert group_of["c0 flat.png"] == group_of["c1 flat.png"]
    assert len({group_of[name] for name in ("a0 original.jpg", "b0.jpg", "c0 flat.png")}) == 3


def test_strangers_stay_strangers(hashes):
    group_of = members_of_one_group(hashes)
    groups = [group for path, group in group_of.items() if path.startswith(("stranger", "a0", "b0"))]
    assert len(set(groups)) == len(groups) == 22


def test_unreadable_files_are_named_and_linked_to_nothing(hashes):
    errors = dict(zip(hashes.paths.tolist(), hashes.errors.tolist(), strict=True))
    assert {path for path, error in errors.items() if error} == {"z0 empty.jpg", "z1 truncated.jpg"}
    assert "0 bytes" in errors["z0 empty.jpg"]
    group_of = members_of_one_group(hashes)
    for path in ("z0 empty.jpg", "z1 truncated.jpg"):
        assert list(group_of.values()).count(group_of[path]) == 1


def test_pairs_are_ordered_and_unique(hashes):
    pairs = find_pairs(hashes)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_paths_are_sorted_and_digests_tell_files_apart(hashes, album):
    assert hashes.paths.tolist() == sorted(path.name for path in album.iterdir())
    digests = dict(zip(hashes.paths.tolist(), hashes.digests.tolist(), strict=True))
    assert digests["b0.jpg"] == digests["b1.jpg"]
    assert digests["c0 flat.png"] == digests["c1 flat.png"]
    assert len(set(digests.values())) == len(digests) - 2


def test_the_hash_is_imagehash_s(hashes, album):
    for path, found in zip(hashes.paths.tolist(), hashes.hashes, strict=True):
        if path.startswith("z"):
            continue
        grey = Image.open(album / path).convert("L")
        for picture, value in zip((grey, ImageOps.mirror(grey)), found, strict=True):
            assert int(str(imagehash.phash(picture)), 16) == value


def make_hashes(hashes: np.ndarray, thumbs: np.ndarray, errors: dict[int, str] | None = None) -> Hashes:
    """Hashes of images that exist as numbers only; the mirror hash is never near anything."""
    rng = np.random.default_rng(99)
    count = len(hashes)
    both = np.stack([hashes, rng.integers(0, 2**63, count, dtype=np.uint64)], axis=1)
    messages = np.array([(errors or {}).get(row, "") for row in range(count)])
    names = np.array([f"{row}.jpg" for row in range(count)])
    return Hashes(names, names, both, thumbs.astype(np.uint8), messages)


def test_a_hash_alone_links_nobody():
    rng = np.random.default_rng(0)
    same_hash = np.full(5, 12345, dtype=np.uint64)
    assert len(find_pairs(make_hashes(same_hash, rng.integers(0, 256, (5, 32, 32))))) == 0


def test_twins_far_apart_in_the_list_are_found():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, 2100, dtype=np.uint64)
    thumbs = rng.integers(0, 256, (2100, 32, 32))
    for first, second in ((3, 7), (5, 2050), (1500, 1501), (999, 1000)):
        codes[second] = codes[first] ^ np.uint64(0b101)
        thumbs[second] = thumbs[first]
    assert find_pairs(make_hashes(codes, thumbs)).tolist() == [[3, 7], [5, 2050], [999, 1000], [1500, 1501]]


def test_an_unreadable_image_is_no_twin_of_another():
    thumbs = np.random.default_rng(0).integers(0, 256, (1, 32, 32)).repeat(3, axis=0)
    codes = np.zeros(3, dtype=np.uint64)
    assert len(find_pairs(make_hashes(codes, thumbs))) == 3
    assert len(find_pairs(make_hashes(codes, thumbs, errors={0: "empty", 2: "empty"}))) == 0


def test_a_chain_of_twins_is_one_group():
    """First and third differ too much to be a pair; the second links them."""
    rng = np.random.default_rng(0)
    base, change = rng.normal(128, 30, (32, 32)), rng.normal(0, 8, (32, 32))
    thumbs = np.stack([base - change, base, base + change, rng.normal(128, 30, (32, 32))]).clip(0, 255)
    codes = np.array([0b11111111, 0, 0b11111111 << 20, 2**60 - 1], dtype=np.uint64)
    pairs = find_pairs(make_hashes(codes, thumbs))
    assert pairs.tolist() == [[0, 1], [1, 2]]
    groups = group_pairs(pairs, 4)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_groups_without_any_pair():
    assert group_pairs(np.empty((0, 2), dtype=np.int64), 4).tolist() == [0, 1, 2, 3]


def test_nothing_to_hash(tmp_path, one_clear_line):
    with one_clear_line(tmp_path.name, "no image"):
        hash_images(tmp_path)

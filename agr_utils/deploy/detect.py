"""Find the face in a photograph, where a detector is installed; otherwise take the picture as it is."""

import threading
from functools import lru_cache

import numpy as np
from PIL import Image

ALREADY_A_CROP = 0.45  # a face at least this share of the shorter side needs no cropping
MARGIN = 0.45  # of the detected box, added on each side: crops of UTKFace show the whole head
_one_at_a_time = threading.Lock()  # a cascade keeps what it computes; pictures are read in several threads


@lru_cache
def get_detector():
    """OpenCV's frontal-face cascade, or None where OpenCV is absent or, as from version 5 on, has none."""
    try:
        import cv2

        detector = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):
        return None
    return None if detector.empty() else detector


def crop_face(image: Image.Image) -> Image.Image:
    """Cut out the largest face with a margin.

    Returns:
        The crop; the image itself where there is no detector, no face is found, or it is a crop already.
    """
    detector = get_detector()
    if detector is None:
        return image
    scale = min(1.0, 480 / max(image.size))  # faces are found as well and faster in a small copy
    small = image.convert("L").resize([max(1, round(side * scale)) for side in image.size])
    with _one_at_a_time:
        boxes = detector.detectMultiScale(np.asarray(small), scaleFactor=1.1, minNeighbors=5)
    if len(boxes) == 0:
        return image
    left, top, width, height = (value / scale for value in max(boxes, key=lambda box: box[2] * box[3]))
    if width >= ALREADY_A_CROP * min(image.size):
        return image
    corners = (left - MARGIN * width, top - MARGIN * height, left + (1 + MARGIN) * width, top + (1 + MARGIN) * height)
    return image.crop([round(value) for value in corners])

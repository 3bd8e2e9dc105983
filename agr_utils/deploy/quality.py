"""Whether a crop is of the kind that the model can answer: too dark, blurred or small is said as a warning."""

from collections.abc import Mapping

import numpy as np

TOLERATED = 1.25  # error of faces that are in range, relative to their error as they were taken
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def measure_quality(pixels: np.ndarray) -> dict[str, float]:
    """Brightness and sharpness of a crop.

    Args:
        pixels: (S, S, 3) uint8, as the model gets it.

    Returns:
        ``brightness``: mean luminance of the middle, 0 to 255. ``sharpness``: mean difference between a pixel and the
        mean of its neighbourhood, relative to the contrast, so that it does not depend on the light; noise raises it.
    """
    grey = pixels @ _LUMINANCE  # (S, S)
    edge = len(grey) // 6
    middle = grey[edge:-edge, edge:-edge]
    rows = middle[:-2] + middle[1:-1] + middle[2:]
    mean = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    detail = float(np.abs(middle[1:-1, 1:-1] - mean).mean() / max(middle.std(), 1.0))
    return {"brightness": float(middle.mean()), "sharpness": detail}


def warnings_of(pixels: np.ndarray, side: float | None, limits: Mapping[str, float]) -> list[str]:
    """What is out of range about a crop (S, S, 3) uint8 of some side (pixels, if known), in words.

    ``limits``: ``brightness``, ``sharpness`` and ``side`` up to which it is; what is missing is not looked at.
    """
    found = measure_quality(pixels) | ({} if side is None else {"side": side})
    words = {"brightness": "too dark", "sharpness": "too blurred", "side": "too small"}
    return [words[name] for name, limit in limits.items() if name in found and found[name] <= limit]


def fit_limit(measured: np.ndarray, harm: np.ndarray, clean: np.ndarray) -> float | None:
    """Smallest value of a measure at which corrupted faces are answered nearly as well as they were.

    Args:
        measured: (n,) the measure, of faces at all severities, corrupted and not.
        harm: (n,) the age's absolute error, of the same.
        clean: (n,) the error of the same faces uncorrupted.

    Returns:
        The edge below which each of twenty equal groups errs over TOLERATED times as much; None where none does.
    """
    groups = np.array_split(np.argsort(measured, kind="stable"), 20)
    limit = None
    for group in groups:
        if harm[group].mean() <= TOLERATED * clean[group].mean():
            break
        limit = float(measured[group].max())
    return limit

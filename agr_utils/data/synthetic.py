"""Cartoon figures drawn from a seed: a controlled experiment, not a caricature.

What codes a label is an arbitrary cue on clothing, in a known place and large enough for any network:

- age: how far the hat is filled with white, from its brim upwards;
- gender (``disc``, ``ring``): the shape on the badge;
- race (``plain, rows, columns, checks, dots``): the pattern of the shirt.

Nothing of the face codes anything. The colours of hat, shirt and badge, skin tone, background, light, pose, expression,
glasses, a covered mouth and the collar vary on their own and say nothing about any label. So nothing about people can
be learned from these figures, by a network or by a reader; but since the cue of every label is known, so is the best
possible error, and where a network should look.

Three dials (``SyntheticSettings``) set how noisy the cues are, how much the tasks share, and whether a nuisance is tied
to a label in the training split only.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agr_utils.data.faces import make_faces
from agr_utils.dials import SyntheticSettings
from agr_utils.errors import InputError
from agr_utils.tasks import TASKS, get_scheme

NUM_YEARS = 90  # ages 0 to 89, equally likely
NUM_RACES = len(get_scheme("synthetic").race)
NUM_CLASSES = {"age": NUM_YEARS, "gender": 2, "race": NUM_RACES}
_WHITE = [0.95, 0.95, 0.95]
_CHUNK = 128  # images drawn at once: their planes fit the processor's cache


@dataclass(frozen=True)
class SyntheticFaces:
    """Drawn faces."""

    faces: pd.DataFrame  #: the faces table
    pixels: np.ndarray  #: (N, S, S, 3) uint8
    nuisances: pd.DataFrame  #: what varies without saying anything about a label, one column each
    #: where the cue of each task is, and the ``collar``: name to (N, S, S) bool; empty unless asked for
    masks: dict[str, np.ndarray] = field(default_factory=dict)


def draw_faces(
    num_images: int,
    image_size: int = 64,
    seed: int = 0,
    settings: SyntheticSettings = SyntheticSettings(),
    with_masks: bool = False,
) -> SyntheticFaces:
    """Draw faces: the same arguments give the same bytes.

    Args:
        num_images: N, at least 10.
        image_size: side S in pixels, at least 24; smaller ones cannot show the cues.
        seed: of everything random.
        settings: the dials.
        with_masks: also return where each cue is.

    Raises:
        InputError: if a number is too small, or the seed negative.
    """
    if num_images < 10 or image_size < 24:
        raise InputError(f"asked for {num_images} images of {image_size} px; at least 10 of 24 px are needed")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or more")
    rng, labels, split, cues = _draw_figures(num_images, seed, settings)
    nuisances = _draw_nuisances(labels, split, settings, rng)
    pixels = np.empty((num_images, image_size, image_size, 3), dtype=np.uint8)
    masks = {name: np.zeros(pixels.shape[:3], dtype=bool) for name in (*TASKS, "collar") if with_masks}
    for start in range(0, num_images, _CHUNK):
        rows = slice(start, start + _CHUNK)
        batch = {name: torch.from_numpy(values[rows].astype(np.float32)) for name, values in (cues | nuisances).items()}
        image, batch_masks = _render(batch, image_size)
        pixels[rows] = image
        for name in masks:
            masks[name][rows] = batch_masks[name]
    faces = make_faces(pd.DataFrame(labels | {"split": split, "source": "synthetic"}))
    return SyntheticFaces(faces, pixels, pd.DataFrame(nuisances), masks)


def _draw_figures(
    num_images: int, seed: int, settings: SyntheticSettings
) -> tuple[np.random.Generator, dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """The generator after its first draws, and these: labels, splits and what the cues show."""
    rng = np.random.default_rng([seed, 20260101])
    labels = {"image_id": [f"synthetic-{seed}-{row:06d}" for row in range(num_images)]}
    labels |= _draw_labels(num_images, settings, rng)
    split = np.full(num_images, "train", dtype=object)
    validation, test, _ = np.split(rng.permutation(num_images), [num_images // 10, 3 * num_images // 10])
    split[validation], split[test] = "validation", "test"
    return rng, labels, split, _draw_cues(labels, settings, rng)


def _labels_of(hidden: np.ndarray, task: str) -> np.ndarray:
    """The label that a hidden number in [0, 1) stands for."""
    return np.floor(hidden * NUM_CLASSES[task]).astype(np.int64)


def _draw_labels(count: int, settings: SyntheticSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    shared = rng.random(count)
    labels = {}
    for task in TASKS:
        own, follows = rng.random(count), rng.random(count) < settings.relatedness
        labels[task] = _labels_of(np.where(follows, shared, own), task)
    return labels


def _draw_cues(labels: dict, settings: SyntheticSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What is drawn for each label: the label plus the noise of its cue."""
    count = len(labels["age"])
    flip = rng.random(count) < settings.noise / 2
    replaced = rng.random(count) < settings.noise
    other_pattern = (labels["race"] + rng.integers(1, NUM_RACES, count)) % NUM_RACES
    return {
        "age": labels["age"] + settings.age_sigma * rng.standard_normal(count),
        "gender": np.where(flip, 1 - labels["gender"], labels["gender"]),
        "race": np.where(replaced, other_pattern, labels["race"]),
    }


def _draw_nuisances(labels: dict, split: np.ndarray, settings: SyntheticSettings, rng: np.random.Generator) -> dict:
    """What says nothing about a label, except the collar where it is tied to one: name to (N,)."""
    count = len(split)
    tied = (split == "train") & (rng.random(count) < settings.confounding)
    return {
        "collar": np.where(tied, labels["gender"], rng.integers(0, 2, count)),  # 0 dark, 1 light
        "hat_hue": rng.random(count),
        "shirt_hue": rng.random(count),
        "badge_hue": rng.random(count),
        "skin": rng.random(count),  # 0 light, 1 dark
        "background": rng.random(count),
        "light": rng.uniform(-0.25, 0.25, count),  # side and strength of the shade
        "shift_x": rng.uniform(-0.05, 0.05, count),  # shares of the side
        "shift_y": rng.uniform(-0.05, 0.05, count),
        "angle": rng.uniform(-0.12, 0.12, count),  # radians
        "zoom": rng.uniform(0.95, 1.05, count),
        "expression": rng.uniform(-1, 1, count),  # -1 sad, 1 smiling
        "glasses": rng.random(count) < 0.1,
        "covered_mouth": rng.random(count) < 0.1,
    }


def best_possible(settings: SyntheticSettings = SyntheticSettings(), num_draws: int = 20_000) -> dict[str, float]:
    """Error of the ideal observer, who sees every cue exactly: no model can be better on average.

    The expected error under the exact posterior over all 90 x 2 x 5 label combinations, averaged over ``num_draws``
    drawn cues. What it is on certain figures, say ``ideal_scores``.

    Returns:
        ``age_mae`` in years (of the posterior median), ``gender_accuracy`` and ``race_accuracy`` in 0 to 1.
    """
    *_, cues = _draw_figures(num_draws, 0, settings)
    posterior, rows = _posterior(cues, settings), np.arange(num_draws)
    answers = _ideal_answers(posterior)
    distance = np.abs(np.arange(NUM_YEARS) - answers["age"][:, None])
    right = {f"{task}_accuracy": float(posterior[task][rows, answers[task]].mean()) for task in ("gender", "race")}
    return {"age_mae": float((posterior["age"] * distance).sum(axis=1).mean())} | right


def ideal_scores(num_images: int, seed: int = 0, settings: SyntheticSettings = SyntheticSettings()) -> pd.DataFrame:
    """How the ideal observer, who sees every cue exactly, does on each of the figures that ``draw_faces`` draws.

    To be compared with a model figure by figure: luck in the drawing of the test figures is then the same for both.

    Returns:
        A row per figure, by ``image_id``: ``age_mae`` in years, ``gender_accuracy`` and ``race_accuracy`` 0 or 1, as
        ``score_rows`` gives them for a model.
    """
    _, labels, _, cues = _draw_figures(num_images, seed, settings)
    answers = _ideal_answers(_posterior(cues, settings))
    scores = {"age_mae": np.abs(answers["age"] - labels["age"]).astype(float)}
    scores |= {f"{task}_accuracy": (answers[task] == labels[task]).astype(float) for task in ("gender", "race")}
    return pd.DataFrame(scores, index=pd.Index(labels["image_id"], dtype="string", name="image_id"))


def _posterior(cues: dict[str, np.ndarray], settings: SyntheticSettings) -> dict[str, np.ndarray]:
    """Probability of each label given all cues of a figure, for each task: (N, classes)."""
    prior, years, parts = _joint_prior(settings.relatedness), np.arange(NUM_YEARS), []  # (90, 2, 5)
    gender_table = np.where(np.eye(2, dtype=bool), 1 - settings.noise / 2, settings.noise / 2)  # [cue, label]
    race_table = np.where(np.eye(NUM_RACES, dtype=bool), 1 - settings.noise, settings.noise / (NUM_RACES - 1))
    for start in range(0, len(cues["age"]), 1000):
        rows = slice(start, start + 1000)
        distance = cues["age"][rows, None] - years
        age_likelihood = np.exp(-0.5 * (distance / settings.age_sigma) ** 2) if settings.noise else distance == 0
        likelihoods = age_likelihood, gender_table[cues["gender"][rows]], race_table[cues["race"][rows]]
        joint = np.einsum("agr,na,ng,nr->nagr", prior, *likelihoods)
        joint /= joint.sum(axis=(1, 2, 3), keepdims=True)
        parts.append([joint.sum(axis=axes) for axes in ((2, 3), (1, 3), (1, 2))])
    return dict(zip(TASKS, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def _ideal_answers(posterior: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The median of the age and the likeliest classes: (N,) of each task."""
    median = (posterior["age"].cumsum(axis=1) < 0.5).sum(axis=1)
    return {"age": median} | {task: posterior[task].argmax(axis=1) for task in ("gender", "race")}


def _joint_prior(relatedness: float) -> np.ndarray:
    """Probability of each combination of labels, (90, 2, 5): given the hidden number the labels are independent."""
    hidden = (np.arange(1800) + 0.5) / 1800
    factors = []
    for task, classes in NUM_CLASSES.items():
        follows = np.eye(classes)[_labels_of(hidden, task)]  # (1800, classes)
        factors.append(relatedness * follows + (1 - relatedness) / classes)
    return np.einsum("ha,hg,hr->agr", *factors) / len(hidden)


# Coordinates are those of the figure: x to the right, y down, the image's borders at -1 and 1. A shape is a signed
# distance (negative inside). Only + - * / sqrt, floor and comparisons touch pixels: threads cannot change a bit.


def _render(face: dict[str, Tensor], size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw a batch: (n, S, S, 3) uint8, and where the cues are: name to (n, S, S) bool."""
    column = {name: values[:, None, None] for name, values in face.items()}  # (n, 1, 1)
    x, y = _coordinates(column, size)
    pixel = 2.0 / size
    background = 0.4 + 0.3 * column["background"], 0.7 - 0.3 * column["background"], 0.55
    planes = [value + 0.0 * x for value in background]  # red, green and blue, each (n, S, S)

    def paint(distance: Tensor, colour: list[Tensor | float], opacity: Tensor | float = 1.0) -> None:
        cover = (0.5 - distance / pixel).clamp(0, 1) * opacity
        for plane, value in zip(planes, colour, strict=True):
            plane.add_(cover * (value - plane))

    paint(shirt := _ellipse(x, y - 1.15, 0.98, 0.93), _WHITE)
    paint(torch.maximum(shirt, _pattern(x, y, column["race"])), _dark(column["shirt_hue"]))
    paint(collar := _ellipse(x, y - 0.26, 0.45, 0.17), [0.15 + 0.7 * column["collar"]] * 3)
    skin = [light + column["skin"] * (dark - light) for light, dark in ((0.97, 0.33), (0.82, 0.21), (0.72, 0.15))]
    paint(head := _ellipse(x, y + 0.1, 0.36, 0.36), skin)
    _paint_features(x, y + 0.04, column, paint)
    paint(plate := _ellipse(x, y - 0.63, 0.36, 0.36), _WHITE)
    disc = _ellipse(x, y - 0.63, 0.29, 0.29)
    ring = torch.maximum(disc, -_ellipse(x, y - 0.63, 0.2, 0.2))
    paint(torch.where(column["gender"] > 0.5, ring, disc), _dark(column["badge_hue"]))
    hat = _box(x, y + 0.62, 0.52, 0.25)
    full = ((column["age"] + 15) / (NUM_YEARS + 30)).clamp(0, 1)  # (n, 1, 1), 0 young to 1 old
    paint(torch.minimum(hat, _box(x, y + 0.33, 0.66, 0.05)), _dark(column["hat_hue"]))
    paint(torch.maximum(hat, -0.37 - 0.5 * full - y), _WHITE)
    shade = 1 + column["light"] * x
    image = torch.stack([(plane * shade).clamp(0, 1) for plane in planes], dim=-1)
    edge = pixel / 2  # what is painted reaches so far
    seen = (plate > -edge) & (head > -edge)
    masks = {"age": hat < edge, "gender": disc < edge, "race": (shirt < edge) & (collar > -edge) & seen}
    masks["collar"] = (collar < edge) & seen
    return (image * 255 + 0.5).to(torch.uint8).numpy(), {name: mask.numpy() for name, mask in masks.items()}


def _coordinates(column: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Coordinates of every pixel, each (n, S, S), after shift, rotation and zoom."""
    axis = (torch.arange(size) + 0.5) * (2.0 / size) - 1
    across, down = axis[None, None, :] - 2 * column["shift_x"], axis[None, :, None] - 2 * column["shift_y"]
    cos, sin = column["angle"].cos() / column["zoom"], column["angle"].sin() / column["zoom"]
    return cos * across + sin * down, cos * down - sin * across


def _dark(hue: Tensor) -> list[Tensor]:
    """A dark colour of a hue in [0, 1), as red, green and blue: white stands out from every one of them."""
    wheel = (6 * hue - 3).abs() - 1, 2 - (6 * hue - 2).abs(), 2 - (6 * hue - 4).abs()
    return [0.05 + 0.3 * channel.clamp(0, 1) for channel in wheel]


def _ellipse(x: Tensor, y: Tensor, radius_x: float, radius_y: float) -> Tensor:
    """Approximate signed distance to an ellipse around the origin."""
    return ((x / radius_x).square() + (y / radius_y).square()).sqrt_().sub_(1).mul_(min(radius_x, radius_y))


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    """Approximate signed distance to a rectangle around the origin."""
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _pattern(x: Tensor, y: Tensor, code: Tensor) -> Tensor:
    """Signed distance to one of five patterns: plain, rows, columns, checks, dots."""
    period = 0.44
    across, down = (((axis / period) - (axis / period).floor() - 0.5) * period for axis in (x, y))
    rows, columns = down.abs() - 0.14, across.abs() - 0.08
    checks = torch.maximum(torch.minimum(rows, columns), -torch.maximum(rows, columns))
    dots = (across.square() + down.square()).sqrt() - 0.26 * period
    chosen = torch.full_like(x, -1.0)
    for number, pattern in enumerate((rows, columns, checks, dots), start=1):
        chosen = torch.where(code == number, pattern, chosen)
    return chosen


def _paint_features(x: Tensor, y: Tensor, column: dict[str, Tensor], paint) -> None:
    """Eyes and mouth with their nuisances: expression, glasses, a covered mouth."""
    side = x.abs() - 0.15
    paint(_ellipse(side, y + 0.08, 0.08, 0.05), _WHITE)
    paint(_ellipse(side, y + 0.08, 0.04, 0.04), [0.1, 0.1, 0.1])
    curve = y - 0.12 + 1.2 * column["expression"] * (x.square() - 0.01)
    paint(torch.maximum(x.abs() - 0.14, curve.abs() - 0.02), [0.6, 0.1, 0.15])
    paint(_box(x, y + 0.08, 0.28, 0.05), [0.05, 0.05, 0.1], column["glasses"])
    paint(_box(x, y - 0.12, 0.24, 0.09), [0.6, 0.75, 0.85], column["covered_mouth"])

"""Maps of many faces: what they score against maps that know nothing."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from agr_utils.data.load import FaceData
from agr_utils.data.synthetic import SyntheticFaces
from agr_utils.errors import check_has
from agr_utils.inside.explain import METHODS, explain, map_layers, map_side, target_layer
from agr_utils.inside.map_scores import centred_map, energy_inside, pointing_hit, random_maps
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.batches import load_pixels

SHOWN = ("gradcam", "hirescam")  # kinds of map that are worth a look and a mean
RIVALS = ("random", "centred")
KIND_TITLES = {kind: title for kind, (title, _, _) in METHODS.items()} | {"centred": "blob", "random": "noise"}
MAP_BATCH = 100

# images, their rows, task, kind of map, maps
Score = Callable[[Tensor, np.ndarray, str, str, Tensor], dict[str, Tensor]]


def score_cues(
    model: MultiTaskNet,
    drawn: SyntheticFaces,
    rows: np.ndarray,
    layer: str | None = None,
    methods: Sequence[str] = tuple(METHODS),
) -> pd.DataFrame:
    """Do maps point at the cues?

    Args:
        model: in evaluation mode.
        drawn: faces with masks.
        rows: which of them.
        layer: see ``explain``.
        methods: kinds of map.

    Returns:
        Rows ``image_id, task, kind, energy, hit, collar``: share of energy inside the task's cue, pointing game, share
        of energy inside the collar, which says nothing (or is a shortcut).
    """
    check_has(drawn.masks, *model.tasks, what="the set of masks")
    data = FaceData(drawn.faces, drawn.pixels, model.scheme)
    return score_maps(model, data, rows, layer, methods, cue_score(drawn))


def cue_score(drawn: SyntheticFaces) -> Score:
    """What ``score_cues`` says of some maps, for ``score_maps``."""

    def score(images: Tensor, batch: np.ndarray, task: str, kind: str, maps: Tensor) -> dict[str, Tensor]:
        cue, collar = (torch.from_numpy(drawn.masks[name][batch]) for name in (task, "collar"))
        scores = {"energy": energy_inside(maps, cue), "hit": pointing_hit(maps, cue)}
        return scores | {"collar": energy_inside(maps, collar)}

    return score


def score_maps(
    model: MultiTaskNet, data: FaceData, rows: np.ndarray, layer: str | None, methods: Sequence[str], score: Score
) -> pd.DataFrame:
    """Give every kind of map and both rivals of every task to ``score``, batch by batch."""
    size = data.pixels.shape[1]
    layer = layer or target_layer(model, size)
    side = map_side(model, layer, size)
    parts = []
    for images, batch in map_batches(model, data, rows, "score maps"):
        rivals = {
            "random": random_maps(len(images), side, size, size, seed=int(batch[0])),
            "centred": centred_map(size, size).expand(len(images), -1, -1),
        }
        for task in model.tasks:
            own = {method: explain(model, images, task, method, layer) for method in methods}
            for kind, maps in (own | rivals).items():
                scores = {name: values.numpy() for name, values in score(images, batch, task, kind, maps).items()}
                labels = {"image_id": data.faces["image_id"].iloc[batch].to_numpy(), "task": task, "kind": kind}
                parts.append(pd.DataFrame(labels | scores))
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"image_id": "string", "task": "category", "kind": "category"})


def map_batches(
    model: MultiTaskNet, data: FaceData, rows: np.ndarray, what: str
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Images of some rows on the model's device, and which rows they are; a bar says ``what`` is done with them."""
    device = next(model.parameters()).device
    batches = np.array_split(rows, math.ceil(len(rows) / MAP_BATCH))  # none of a single face, which has no other
    for batch in tqdm(batches, desc=what, unit="batch", leave=False, disable=None):
        yield load_pixels(data, batch, device), batch


def compare_layers(model: MultiTaskNet, drawn: SyntheticFaces, rows: np.ndarray) -> pd.DataFrame:
    """Which layer's maps (``map_layers``) find the cues of some drawn faces with masks?

    Returns:
        Rows ``layer, side, task, kind, energy, hit, collar``: means over the faces; side of the layer's map in pixels.
    """
    size, parts = drawn.pixels.shape[1], []
    for side, name in map_layers(model, size).items():
        scores = score_cues(model, drawn, rows, name, SHOWN)
        means = scores.groupby(["task", "kind"], sort=False, observed=True)[["energy", "hit", "collar"]].mean()
        parts.append(means.reset_index().assign(layer=name, side=side))
    return pd.concat(parts, ignore_index=True)


def scores_with_intervals(scores: pd.DataFrame, score: str) -> pd.DataFrame:
    """One score of a MapReport in percent with 95 % intervals over faces, text: a row per kind, a column per task."""
    cells = {}
    for (task, kind), rows in scores.groupby(["task", "kind"], sort=False, observed=True):
        samples = GroupBootstrap(np.arange(len(rows)), 2_000).means(rows[[score]].to_numpy())
        row = 100 * interval(samples).iloc[0]
        cells[task, KIND_TITLES[kind]] = f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
    tasks, kinds = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    return pd.Series(cells).unstack(0).loc[kinds, tasks]

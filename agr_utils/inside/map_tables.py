"""Maps of many faces: what they score, and where they look on average."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from agr_utils.data.load import FaceData
from agr_utils.data.synthetic import SyntheticFaces
from agr_utils.inside.explain import METHODS, explain, map_layers, map_side, target_layer
from agr_utils.inside.face_regions import REGIONS, region_shares
from agr_utils.inside.map_scores import (
    centred_map,
    energy_inside,
    mirror_consistency,
    pointing_hit,
    random_maps,
    randomise_weights,
    rank_correlation,
    road,
)
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.fairness import label_groups
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.batches import load_pixels

RIVALS = ("random", "centred")
KIND_TITLES = {kind: title for kind, (title, _, _) in METHODS.items()} | {"centred": "blob", "random": "noise"}
KIND_STYLE = {"gradcam": ("#0072B2", "o"), "hirescam": ("#D55E00", "s"), "eigencam": ("#6b6b6b", "D")}
TASKLESS = (*RIVALS, "eigencam")
MEAN_SIDE = 16  # of the mean maps that are kept; the layers' own are no finer
MAP_BATCH = 100
MIN_FACES = 100  # of a group that gets a mean map: nobody's portrait

# images, their rows, task, kind of map, maps
Score = Callable[[Tensor, np.ndarray, str, str, Tensor], dict[str, Tensor]]


def score_cues(
    model: MultiTaskNet,
    drawn: SyntheticFaces,
    rows: np.ndarray,
    layer: str | None = None,
    methods: Sequence[str] = tuple(METHODS),
    other: MultiTaskNet | None = None,
) -> pd.DataFrame:
    """Do maps point at the cues?

    Args:
        model: in evaluation mode.
        drawn: faces with masks.
        rows: which of them.
        layer: see ``explain``.
        methods: kinds of map.
        other: see ``report_faces``.

    Returns:
        Rows ``image_id, task, kind, energy, hit, collar``: share of energy inside the task's cue, pointing game, share
        of energy inside the collar, which says nothing (or is a shortcut); ``seeds`` where there is another model.
    """

    def score(images: Tensor, batch: np.ndarray, task: str, kind: str, maps: Tensor) -> dict[str, Tensor]:
        cue, collar = (torch.from_numpy(drawn.masks[name][batch]) for name in (task, "collar"))
        scores = {"energy": energy_inside(maps, cue), "hit": pointing_hit(maps, cue)}
        return scores | {"collar": energy_inside(maps, collar)} | _agreement(other, images, task, kind, maps, layer)

    data = FaceData(drawn.faces, drawn.pixels, model.scheme)
    return _score(model, data, rows, layer, methods, score)


def score_faces(
    model: MultiTaskNet,
    data: FaceData,
    rows: np.ndarray,
    layer: str | None = None,
    other: MultiTaskNet | None = None,
    methods: Sequence[str] = tuple(METHODS),
) -> pd.DataFrame:
    """Does what maps mark matter, does it depend on what was learned, is it the same in the mirror?

    Args:
        model: in evaluation mode.
        data: faces.
        rows: which of them.
        layer: see ``explain``.
        other: see ``report_faces``.
        methods: kinds of map.

    Returns:
        Rows ``image_id, task, kind`` and ``road`` (see ``map_scores.road``), and for what is no rival the rank
        correlations ``randomised`` (with the map of a network of random weights), ``mirrored`` (with the mirrored
        face's) and ``another`` (with that of the next face by file name, which often has the same labels);
        ``seeds`` where there is another model. Each network's maps explain the class that it itself predicts.
    """
    *_, (_, random_model) = randomise_weights(model)
    lost: dict[tuple[str, int], dict[str, Tensor]] = {}  # of maps that are the same for every task: a third of the work

    def score(images: Tensor, batch: np.ndarray, task: str, kind: str, maps: Tensor) -> dict[str, Tensor]:
        key = (kind if kind in TASKLESS else f"{kind} {task}", batch[0])
        if key not in lost:
            lost[key] = road(model, images, maps)
        scores = {"road": lost[key][task]}
        if kind in RIVALS:
            return scores
        settings = {"method": kind, "layer": layer}
        scores["randomised"] = rank_correlation(maps, explain(random_model, images, task, **settings))
        scores["mirrored"] = mirror_consistency(model, images, maps, task, **settings)
        scores["another"] = rank_correlation(maps, maps.roll(1, dims=0))
        return scores | _agreement(other, images, task, kind, maps, layer)

    return _score(model, data, rows, layer, methods, score)


def _agreement(
    other: MultiTaskNet | None, images: Tensor, task: str, kind: str, maps: Tensor, layer: str | None
) -> dict[str, Tensor]:
    """Rank correlation with the maps of a model of another seed."""
    if other is None or kind in RIVALS:
        return {}
    return {"seeds": rank_correlation(maps, explain(other, images, task, kind, layer))}


def _score(
    model: MultiTaskNet, data: FaceData, rows: np.ndarray, layer: str | None, methods: Sequence[str], score: Score
) -> pd.DataFrame:
    """Give every kind of map and both rivals of every task to ``score``, batch by batch."""
    size = data.pixels.shape[1]
    layer = layer or target_layer(model, size)
    side = map_side(model, layer, size)
    parts = []
    for images, batch in _batches(model, data, rows, "score maps"):
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


def _batches(model: MultiTaskNet, data: FaceData, rows: np.ndarray, what: str) -> Iterator[tuple[Tensor, np.ndarray]]:
    device = next(model.parameters()).device
    batches = np.array_split(rows, math.ceil(len(rows) / MAP_BATCH))  # none of a single face, which has no other
    for batch in tqdm(batches, desc=what, unit="batch", leave=False, disable=None):
        yield load_pixels(data, batch, device), batch


def compare_layers(
    model: MultiTaskNet, drawn: SyntheticFaces, rows: np.ndarray, methods: Sequence[str] = ("gradcam", "hirescam")
) -> pd.DataFrame:
    """Which layer's maps find the cues? Those of ``map_layers``.

    Args:
        model: in evaluation mode.
        drawn: faces with masks; of a split that choices may be made on.
        rows: which of them.
        methods: kinds of map.

    Returns:
        Rows ``layer, side, task, kind, energy, hit, collar``: means over the faces; side of the layer's map in pixels.
    """
    size, parts = drawn.pixels.shape[1], []
    for side, name in map_layers(model, size).items():
        scores = score_cues(model, drawn, rows, name, methods)
        means = scores.groupby(["task", "kind"], sort=False, observed=True)[["energy", "hit", "collar"]].mean()
        parts.append(means.reset_index().assign(layer=name, side=side))
    return pd.concat(parts, ignore_index=True)


def cascade(model: MultiTaskNet, data: FaceData, rows: np.ndarray, layer: str | None = None) -> pd.DataFrame:
    """Rank correlation of maps with those of a network whose weights are made random from the heads downwards.

    Args:
        model: in evaluation mode.
        data: faces.
        rows: which of them.
        layer: see ``explain``.

    Returns:
        Rows ``step, part, task, kind, value``: mean over the faces.
    """
    images = load_pixels(data, rows, next(model.parameters()).device)
    kinds = [(task, kind) for task in model.tasks for kind in METHODS]
    before = {(task, kind): explain(model, images, task, kind, layer) for task, kind in kinds}
    parts = []
    steps = enumerate(tqdm(randomise_weights(model), desc="make random", unit="part", leave=False, disable=None), 1)
    for step, (part, changed) in steps:
        for task, kind in kinds:
            values = rank_correlation(before[task, kind], explain(changed, images, task, kind, layer))
            parts.append({"step": step, "part": part, "task": task, "kind": kind, "value": float(values.mean())})
    return pd.DataFrame(parts)


def mean_maps(
    model: MultiTaskNet,
    data: FaceData,
    rows: np.ndarray,
    layer: str | None = None,
    methods: Sequence[str] = ("gradcam", "hirescam"),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where maps look on average, in all and in each labelled group of at least 100 faces.

    Every map is divided by its sum first, so that each face counts alike; maps of zeros are left out. The regions are
    those of UTKFace's crops (``face_regions``): of others they are no more than parts of the picture.

    Args:
        model: in evaluation mode.
        data: aligned faces.
        rows: which of them.
        layer: see ``explain``.
        methods: kinds of map.

    Returns:
        The tables ``mean_maps`` and ``regions`` of a MapReport.
    """
    faces = data.faces.iloc[rows].reset_index(drop=True)
    members = {("all", "all"): np.ones(len(rows), dtype=bool)}
    for grouping, column in label_groups(faces, data.scheme).items():
        members |= {(grouping, str(name)): (column == name).to_numpy() for name in column.cat.categories}
    members = {key: inside for key, inside in members.items() if inside.sum() >= min(MIN_FACES, len(rows))}
    maps: dict[tuple[str, str], list[Tensor]] = {(task, kind): [] for task in model.tasks for kind in methods}
    shares: dict[tuple[str, str], list[Tensor]] = {key: [] for key in maps}
    for images, _ in _batches(model, data, rows, "mean maps"):
        for task, kind in maps:
            drawn = explain(model, images, task, kind, layer)
            small = torch.nn.functional.adaptive_avg_pool2d(drawn, MEAN_SIDE).flatten(1)  # (B, MEAN_SIDE²)
            total = small.sum(dim=1, keepdim=True)
            maps[task, kind].append(torch.where(total > 0, small / total.clamp(min=1e-12), torch.nan))
            shares[task, kind].append(region_shares(drawn))
    means, regions = [], []
    for task, kind in maps:
        own = torch.cat(maps[task, kind]).numpy()
        for (grouping, group), inside in members.items():
            row = {"task": task, "kind": kind, "grouping": grouping, "group": group, "count": int(inside.sum())}
            means.append(row | {"map": np.nanmean(own[inside], axis=0)})
        part = pd.DataFrame(torch.cat(shares[task, kind]).numpy(), columns=list(REGIONS)).round(4)
        part.insert(0, "image_id", faces["image_id"])
        regions.append(part.assign(task=task, kind=kind))
    categories = {"task": "category", "kind": "category"}
    return pd.DataFrame(means), pd.concat(regions, ignore_index=True).astype(categories)


def scores_with_intervals(scores: pd.DataFrame, score: str, scale: float = 100) -> pd.DataFrame:
    """One score of every kind of map and rival with 95 % intervals over faces, as text.

    Args:
        scores: of a MapReport.
        score: its column.
        scale: that it is multiplied with.

    Returns:
        A row a kind, a column a task.
    """
    cells = {}
    for (task, kind), rows in scores.groupby(["task", "kind"], sort=False, observed=True):
        samples = GroupBootstrap(np.arange(len(rows)), 2_000).means(rows[[score]].to_numpy())
        row = scale * interval(samples).iloc[0]
        cells[task, KIND_TITLES[kind]] = f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
    return (
        pd.Series(cells)
        .unstack(0)
        .loc[list(dict.fromkeys(kind for _, kind in cells)), list(dict.fromkeys(task for task, _ in cells))]
    )

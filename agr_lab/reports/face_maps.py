"""Maps of many aligned faces: whether what they mark matters, and where they look on average."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from agr_lab.reports.face_regions import REGIONS, region_shares
from agr_lab.reports.road import road
from agr_utils.data.load import FaceData
from agr_utils.inside.explain import METHODS, explain
from agr_utils.inside.map_scores import randomise_weights, rank_correlation
from agr_utils.inside.map_tables import RIVALS, SHOWN, Score, map_batches, score_maps
from agr_utils.measure.fairness import label_groups
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.batches import load_pixels

TASKLESS = (*RIVALS, "eigencam")
MEAN_SIDE = 16  # of the mean maps that are kept; the layers' own are no finer
MIN_FACES = 100  # of a group that gets a mean map: nobody's portrait


def score_faces(
    model: MultiTaskNet, data: FaceData, rows: np.ndarray, layer: str | None = None, other: MultiTaskNet | None = None
) -> pd.DataFrame:
    """Does what maps mark matter, does it depend on what was learned, is it the same in the mirror?

    Returns:
        Rows ``image_id, task, kind`` and ``road`` (see ``road``), and for what is no rival the rank
        correlations ``randomised`` (with the map of a network of random weights), ``mirrored`` (with the mirrored
        face's) and ``another`` (with that of the next face by file name, which often has the same labels);
        ``seeds`` where there is another model. Each network's maps explain the class that it itself predicts.
    """
    *_, (_, random_model) = randomise_weights(model)
    score_road = road_score(model)

    def score(images: Tensor, batch: np.ndarray, task: str, kind: str, maps: Tensor) -> dict[str, Tensor]:
        scores = score_road(images, batch, task, kind, maps)
        if kind in RIVALS:
            return scores
        settings = {"method": kind, "layer": layer}
        scores["randomised"] = rank_correlation(maps, explain(random_model, images, task, **settings))
        scores["mirrored"] = rank_correlation(maps, explain(model, images.flip(3), task, **settings).flip(2))
        scores["another"] = rank_correlation(maps, maps.roll(1, dims=0))
        return scores

    return score_maps(model, data, rows, layer, tuple(METHODS), with_seeds(score, other, layer))


def with_seeds(score: Score, other: MultiTaskNet | None, layer: str | None) -> Score:
    """A score, and ``seeds``: the rank correlation with the maps of a model of another seed, where there is one."""

    def both(images: Tensor, batch: np.ndarray, task: str, kind: str, maps: Tensor) -> dict[str, Tensor]:
        scores = score(images, batch, task, kind, maps)
        if other is None or kind in RIVALS:
            return scores
        return scores | {"seeds": rank_correlation(maps, explain(other, images, task, kind, layer))}

    return both


def road_score(model: MultiTaskNet) -> Score:
    """``road`` alone, for ``score_maps``; of maps that are the same for every task, once: a third of the work."""
    lost: dict[tuple[str, int], dict[str, Tensor]] = {}

    def score(images: Tensor, batch: np.ndarray, task: str, kind: str, maps: Tensor) -> dict[str, Tensor]:
        key = (kind if kind in TASKLESS else f"{kind} {task}", batch[0])
        if key not in lost:
            lost[key] = road(model, images, maps)
        return {"road": lost[key][task]}

    return score


def cascade(model: MultiTaskNet, data: FaceData, rows: np.ndarray, layer: str | None = None) -> pd.DataFrame:
    """Rank correlation of maps with those of a network whose weights are made random from the heads downwards.

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
    model: MultiTaskNet, data: FaceData, rows: np.ndarray, layer: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where maps look on average, in all and in each labelled group of at least 100 faces.

    Every map is divided by its sum first, so that each face counts alike; maps of zeros are left out. The regions are
    those of UTKFace's crops (``face_regions``): of others they are no more than parts of the picture.

    Returns:
        The tables ``mean_maps`` and ``regions`` of a MapReport.
    """
    faces = data.faces.iloc[rows].reset_index(drop=True)
    members = {("all", "all"): np.ones(len(rows), dtype=bool)}
    for grouping, column in label_groups(faces, data.scheme).items():
        members |= {(grouping, str(name)): (column == name).to_numpy() for name in column.cat.categories}
    members = {key: inside for key, inside in members.items() if inside.sum() >= min(MIN_FACES, len(rows))}
    maps: dict[tuple[str, str], list[Tensor]] = {(task, kind): [] for task in model.tasks for kind in SHOWN}
    shares: dict[tuple[str, str], list[Tensor]] = {key: [] for key in maps}
    for images, _ in map_batches(model, data, rows, "mean maps"):
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

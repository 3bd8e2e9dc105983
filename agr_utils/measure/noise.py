"""The noise of the labels: where one photograph is filed twice, its labels can be compared with each other."""

from itertools import combinations

import numpy as np
import pandas as pd

from agr_utils.measure.results import read_labels_from_split


def twin_differences(faces: pd.DataFrame | None = None) -> pd.DataFrame:
    """How far the labels of near-duplicate photographs differ.

    Args:
        faces: with ``age, gender, race, group``; None takes the 21,288 UTKFace files of the committed split.

    Returns:
        One row per group of several images, each the mean over its pairs: ``age`` (absolute difference, years),
        ``gender`` and ``race`` (share that disagrees, NaN where a label is missing), and ``size``.
    """
    faces = read_labels_from_split() if faces is None else faces
    twins = faces[faces["group"].duplicated(keep=False)]
    labels = twins[["age", "gender", "race"]].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    rows = []
    for members in twins.groupby("group").indices.values():
        pairs = np.array([np.abs(one - other) for one, other in combinations(labels[members], 2)])  # (pairs, 3)
        pairs[:, 1:] = np.where(np.isnan(pairs[:, 1:]), np.nan, pairs[:, 1:] > 0)
        known = ~np.isnan(pairs)
        sums = np.where(known, pairs, 0).sum(axis=0)
        means = np.divide(sums, known.sum(axis=0), out=np.full(3, np.nan), where=known.any(axis=0))
        rows.append([*means, len(members)])
    return pd.DataFrame(rows, columns=["age", "gender", "race", "size"])


def noise_floor(differences: pd.DataFrame) -> dict[str, float]:
    """What no model can beat on these faces: ``age_mae`` (years), ``gender_accuracy`` and ``race_accuracy`` (0 to 1).

    A model gives both images of a pair (nearly) one answer. If their labels are ``d`` apart, its two errors add up to
    at least ``d``, so on average it errs by half of that. It holds for near-duplicates; others may be labelled with
    more care, or less.
    """
    half = differences[["age", "gender", "race"]].mean() / 2
    return {"age_mae": half["age"], "gender_accuracy": 1 - half["gender"], "race_accuracy": 1 - half["race"]}

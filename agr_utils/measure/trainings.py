"""How sure a difference between models is, about other faces and about other trainings at once, without resampling."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import COVERAGE


def cluster_variance(values: np.ndarray, clusters: Sequence | pd.Series) -> np.ndarray:
    """Variance of the mean of each column over faces, (n, c) to (c,), of which those in a cluster belong together.

    The sandwich estimator of a mean (Liang and Zeger 1986), with the factor G / (G - 1) for G clusters; NaN where a
    face does not count.
    """
    counted = ~np.isnan(values)
    residuals = np.where(counted, values - np.nanmean(values, axis=0), 0.0) / counted.sum(axis=0)
    codes, names = pd.factorize(pd.Series(clusters))
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, codes, residuals)
    return (sums**2).sum(axis=0) * len(names) / (len(names) - 1)


def difference_of_trainings(
    differences: Mapping[str, Sequence[pd.DataFrame]], clusters: Sequence | pd.Series, independence: float = 1.0
) -> pd.DataFrame:
    """Mean differences with the uncertainty of both kinds.

    The variance is that of the mean over faces (of the mean over trainings, clusters kept together) plus that of the
    mean over trainings (the variance between them, pooled over all names, divided by their number). Intervals and
    p-values are those of Student's t with Satterthwaite's degrees of freedom.

    Args:
        differences: under each name, as of an architecture, a table for each pair of trainings: (n, c), a row per face,
            the same columns everywhere, NaN where a face does not count.
        clusters: near-duplicate cluster of each of the n faces.
        independence: share of the degrees of freedom between trainings that is left where names have some in common.

    Returns:
        Rows ``name, metric, value, low, high, p, faces_error, trainings_error, degrees, seeds``: the two standard
        errors, the degrees of freedom, and the difference of each pair of trainings.

    Raises:
        InputError: if no name has two trainings, so that nothing says how far they differ.
    """
    means = {name: np.array([table.mean() for table in tables]) for name, tables in differences.items()}  # (S, c)
    freedom = sum(len(table) - 1 for table in means.values())
    if freedom < 1:
        raise InputError(
            "one training of each says nothing about another. Train at least two seeds of one architecture"
        )
    between = sum(((m - m.mean(axis=0)) ** 2).sum(axis=0) for m in means.values()) / freedom  # (c,)
    freedom *= independence
    num_clusters, parts = len(set(clusters)), []
    for name, tables in differences.items():
        faces = cluster_variance(sum(table.to_numpy(dtype=float) for table in tables) / len(tables), clusters)
        trainings = between / len(tables)
        value, error = means[name].mean(axis=0), np.sqrt(faces + trainings)
        with np.errstate(invalid="ignore"):  # two models that answer alike: 0 / 0
            degrees = (faces + trainings) ** 2 / (faces**2 / (num_clusters - 1) + trainings**2 / freedom)
            p = np.where(error > 0, 2 * student.sf(np.abs(value) / error, degrees), 1.0)
        half = np.where(error > 0, student.ppf((1 + COVERAGE) / 2, degrees) * error, 0.0)
        table = {"value": value, "low": value - half, "high": value + half, "p": p, "faces_error": np.sqrt(faces)}
        table |= {"trainings_error": np.sqrt(trainings), "degrees": degrees}
        seeds = [tuple(column) for column in means[name].T]
        parts.append(pd.DataFrame({"name": name, "metric": list(tables[0])} | table | {"seeds": seeds}))
    return pd.concat(parts, ignore_index=True)

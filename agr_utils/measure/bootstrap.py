"""Intervals by drawing faces again. Whole near-duplicate groups are drawn: their images are not independent."""

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from agr_utils.errors import InputError

logger = logging.getLogger(__name__)

COVERAGE = 0.95  # of every interval shown, unless it says otherwise
MIN_GROUPS = 10  # of fewer a percentile interval is far too narrow, and over one group it has no width at all
_BLOCK = 100  # resamples at a time: few enough for a processor's cache once they are float64


class GroupBootstrap:
    """Resamples of the groups of some images (Field and Welsh 2007), drawn once for all statistics of these images.

    Statistics are made from sums over images. Every method gives a row for each resample, and first one for the images
    as they are; so whatever is computed row by row has its value in row 0 and its distribution below. Two models scored
    on the same resamples are compared in pairs.

    Args:
        groups: near-duplicate cluster of each of n images.
        num_resamples: R.
        seed: of the drawing.
    """

    def __init__(self, groups: pd.Series | Sequence, num_resamples: int = 10_000, seed: int = 0):
        self.codes, names = pd.factorize(pd.Series(groups), sort=True)  # what is drawn depends on no order of rows
        if (self.codes < 0).any():
            raise InputError(f"{(self.codes < 0).sum()} images have no near-duplicate group. Give each one of its own")
        self.num_groups = len(names)
        if 0 < self.num_groups < MIN_GROUPS:
            logger.warning("intervals over %d persons or near-duplicate groups are too narrow", self.num_groups)
        self._weights = _draw_weights(self.num_groups, num_resamples, seed)

    def __len__(self) -> int:
        """Rows of every result: the images as they are, and R resamples."""
        return sum(map(len, self._weights))

    def sums(self, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Sums of columns: (n, c), or (k, c) for k of the images, to (R + 1, c) float64."""
        present, codes = np.unique(self.codes[rows], return_inverse=True)
        by_group = np.zeros((len(present), values.shape[1]))
        np.add.at(by_group, codes, values)
        columns = slice(None) if len(present) == self.num_groups else present  # an index of all would copy them
        return np.concatenate([block[:, columns].astype(np.float64) @ by_group for block in self._weights])

    def means(self, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Means of columns over what is not NaN, shaped as ``sums``; NaN where nothing is left."""
        values = np.asarray(values, dtype=float)
        if not values.size:
            return np.full_like(self.sums(values, rows), np.nan)
        counted = ~np.isnan(values)
        # Many columns lack the same labels. Compared as bytes, which is far faster than np.unique along an axis.
        packed = np.ascontiguousarray(np.packbits(counted, axis=0).T)
        _, first, column = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
        sums = self.sums(np.concatenate([counted[:, first], np.where(counted, values, 0.0)], axis=1), rows)
        with np.errstate(invalid="ignore"):
            return sums[:, len(first) :] / sums[:, column]

    def group_means(self, values: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Means of each column (n, c) within each of g sets (n, g) of images, (R + 1, c, g); NaN of an empty set."""
        result = np.empty((len(self), values.shape[1], members.shape[1]))
        for number, member in enumerate(members.T):
            chosen = np.flatnonzero(member)
            result[:, :, number] = self.means(values[chosen], chosen)
        return result


@lru_cache(maxsize=4)
def _draw_weights(num_groups: int, num_resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    """How often each group is in each resample, uint8 blocks of rows; the first block is the groups as they are."""
    rng = np.random.default_rng(seed)
    weights = [np.ones((1, num_groups), dtype=np.uint8)]
    for start in range(0, num_resamples, _BLOCK):
        size = (min(_BLOCK, num_resamples - start), num_groups)
        drawn = rng.integers(0, max(1, num_groups), size)
        offsets = np.arange(size[0])[:, None] * num_groups
        counts = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(size)
        weights.append(counts.astype(np.uint8))
    for block in weights:
        block.flags.writeable = False  # everything that is drawn alike shares them
    return tuple(weights)


def interval(samples: np.ndarray, coverage: float = COVERAGE) -> pd.DataFrame:
    """Value, percentile interval and p-value of statistics.

    Args:
        samples: (R + 1, c): the value, then its resamples.
        coverage: of the interval, in (0, 1).

    Returns:
        c rows of ``value, low, high, p, resamples``. Resamples without a value, as of a class that was not drawn, are
        left out of the interval: ``resamples`` is the number of the others, and a warning is logged. ``p`` is
        two-sided, of the value being 0 (twice the smaller share of resamples on either side of it); it is never below
        2 / (R + 1), which is all that R resamples can tell, and 1 where a resample has no value.
    """
    tail, num_resamples = (1 - coverage) / 2, len(samples) - 1
    used = [column[~np.isnan(column)] for column in samples[1:].T]
    ends = [np.quantile(column, [tail, 1 - tail]) if len(column) else (np.nan, np.nan) for column in used]
    low, high = np.reshape(ends, (-1, 2)).T
    counts = np.array([len(column) for column in used], dtype=int)
    if len(partial := counts[(counts > 0) & (counts < num_resamples)]):
        logger.warning(
            "of %d resamples only %d have a value: the others lack a whole class or group", num_resamples, partial.min()
        )
    # What is 0 lies on both sides. Sums in another order, as on another processor, leave about 1e-16 of their terms.
    zero = 1e-9 * np.abs(samples).max(axis=0)
    sides = [(1 + (samples[1:] <= zero).sum(axis=0)), (1 + (samples[1:] >= -zero).sum(axis=0))]
    p = np.minimum(1.0, 2 * np.minimum(*sides) / (num_resamples + 1))
    p[np.isnan(samples).any(axis=0)] = 1.0  # NaN lies on neither side
    return pd.DataFrame({"value": samples[0], "low": low, "high": high, "p": p, "resamples": counts})


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values of a family corrected for their number (Holm 1979), in the order given."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected

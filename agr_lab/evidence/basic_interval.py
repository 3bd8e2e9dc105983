"""Intervals of statistics that resampling shifts: of gaps between groups, and of calibration errors."""

import numpy as np
import pandas as pd

from agr_utils.measure.bootstrap import interval


def basic_interval(samples: np.ndarray) -> pd.DataFrame:
    """Value and interval of statistics that resampling shifts, such as the largest of several noisy means.

    Resamples lie off the value as the value lies off the truth; so both are mirrored at the value ("basic" interval,
    Davison and Hinkley 1997, eq. 5.6).

    Args:
        samples: (R + 1, c): the value, then its resamples.

    Returns:
        c rows of ``value, low, high, resamples``; the value is 2 times the value minus the mean of its resamples.
    """
    plain = interval(samples)
    with np.errstate(invalid="ignore"):
        means = np.nansum(samples[1:], axis=0) / plain["resamples"]  # of those that have a value
    mirrored = {"value": means, "low": plain["high"], "high": plain["low"]}
    result = pd.DataFrame({name: 2 * samples[0] - values for name, values in mirrored.items()})
    return result.assign(resamples=plain["resamples"])

"""What validation faces teach a model about itself: temperatures, levels of the age interval, when to say "can't tell".

Probabilities are those of the validation split, averaged as they will be averaged when it answers.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from agr_utils.predictions_table import class_probabilities, tasks_of
from agr_utils.tasks import AGE_BANDS, AGE_COVERAGE

QUANTILES = np.arange(0.025, 1, 0.05)  # levels of the 20 age quantiles
FAR_OFF = 10.0  # years: an age that is further off counts as wrong
_MIN_BAND = 40  # faces of a predicted age band that may have an interval of their own
_MIN_ANSWERED = 50  # faces behind a point of a risk-coverage curve


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, K) at another temperature (Guo et al. 2017): above 1 less sure."""
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Temperature in [0.25, 4] of least negative log-likelihood; 1 where fewer than 50 labels are known.

    Args:
        probabilities: (n, K) float, rows sum to 1.
        codes: (n,) right classes, NaN where not known.
    """
    known = np.isfinite(codes)
    if known.sum() < _MIN_ANSWERED:
        return 1.0
    rows, right = probabilities[known], codes[known].astype(int)
    candidates = np.geomspace(0.25, 4, 129)
    losses = [-np.log(soften(rows, value)[np.arange(len(rows)), right] + 1e-12).mean() for value in candidates]
    return round(float(candidates[np.argmin(losses)]), 4)


def fit_interval_levels(probabilities: np.ndarray, ages: np.ndarray) -> dict[str, list]:
    """How much of the age distribution an interval must hold to cover AGE_COVERAGE of the ages, by predicted age band.

    Split conformal prediction whose score is how far from the middle the cumulative distribution is at the right age
    (Chernozhukov et al. 2021), once for each band of predicted ages (Mondrian; Vovk 2012). A band with fewer than 40
    faces takes the level of all.

    Args:
        probabilities: (n, 117).
        ages: (n,) years, NaN where not known.

    Returns:
        ``edges`` of the bands in years, B - 1 of them, and ``levels``, B shares of the distribution's mass.
    """
    known = np.isfinite(ages)
    rows, right = probabilities[known], ages[known].astype(int)
    mass = rows[np.arange(len(rows)), right]
    cumulative = rows.cumsum(axis=1)[np.arange(len(rows)), right] - mass / 2  # each age is a bin's middle
    return fit_levels(cumulative, rows @ np.arange(rows.shape[1]))


def fit_levels(cumulative: np.ndarray, predicted: np.ndarray) -> dict[str, list]:
    """``fit_interval_levels`` from (n,) shares of the distributions below the right ages, and predicted ages."""
    scores, band = np.abs(2 * cumulative - 1), np.digitize(predicted, AGE_BANDS[1:-1])
    pooled = _conformal_quantile(scores, AGE_COVERAGE)
    levels = [
        _conformal_quantile(scores[band == number], AGE_COVERAGE) if (band == number).sum() >= _MIN_BAND else pooled
        for number in range(len(AGE_BANDS) - 1)
    ]
    return {"edges": list(AGE_BANDS[1:-1]), "levels": [round(level, 5) for level in levels]}


def _conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """The score that a new one stays below with this probability; 1 (the whole range) where too few are known."""
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0


def risk_coverage(confidence: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of wrong answers if only the surest are given (El-Yaniv and Wiener 2010).

    Args:
        confidence: (n,) float, larger is surer.
        wrong: (n,) bool.

    Returns:
        Coverage, risk and the confidence needed, each of one entry an answer, surest first; answers as sure as one
        another are given together.
    """
    order = np.argsort(-confidence, kind="stable")
    surest, counts = confidence[order], np.arange(1, len(order) + 1)
    last = np.append(surest[1:] != surest[:-1], True)[: len(order)]  # of answers that are equally sure
    return (counts / len(order))[last], (np.cumsum(wrong[order]) / counts)[last], surest[last]


def fit_abstention(table: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Confidence below which each task answers "can't tell": those still answered are wrong half as often as all.

    Args:
        table: a predictions table of validation faces (or its columns as arrays). The confidence in a class is its
            probability, in an age minus the width of its interval; an age is wrong if it is more than 10 years off.

    Returns:
        For each task with at least 50 labels: ``threshold``, the ``coverage`` and ``risk`` there, and ``risk_of_all``.
        Where none halves the risk, the threshold of least risk.
    """
    found = {}
    for task, (confidence, wrong) in confidences(table).items():
        known = np.isfinite(wrong)
        if known.sum() < _MIN_ANSWERED:
            continue
        coverage, risk, needed = risk_coverage(confidence[known], wrong[known] > 0)
        enough = np.flatnonzero(coverage * known.sum() >= _MIN_ANSWERED)
        low = enough[risk[enough] <= risk[-1] / 2]
        chosen = low[-1] if len(low) else enough[np.argmin(risk[enough])]
        found[task] = {
            "threshold": float(needed[chosen]),
            "coverage": round(float(coverage[chosen]), 4),
            "risk": round(float(risk[chosen]), 4),
            "risk_of_all": round(float(risk[-1]), 4),
        }
    return found


def confidences(table: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Confidence, and 1 where the answer is wrong, 0 where it is right, NaN where the label is not known."""
    table, found = pd.DataFrame(table), {}
    if "age_pred" in table:
        age, predicted, low, high = (table[name].astype("float64") for name in ("age", "age_pred", "age_lo", "age_hi"))
        error = (predicted - age).abs().to_numpy()
        found["age"] = (low - high).to_numpy(), np.where(np.isnan(error), np.nan, error > FAR_OFF)
    for task in ("gender", "race"):
        if task in tasks_of(table):
            probabilities, codes = class_probabilities(table, task), table[task].to_numpy(dtype=float, na_value=np.nan)
            wrong = np.where(np.isnan(codes), np.nan, probabilities.argmax(axis=1) != codes)
            found[task] = probabilities.max(axis=1), wrong
    return found

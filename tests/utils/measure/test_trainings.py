"""Uncertainty of both kinds: against theory, a bootstrap, and repeated experiments."""

import numpy as np
import pandas as pd
import pytest

from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.trainings import cluster_variance, difference_of_trainings


def test_single_faces_have_the_textbook_variance_of_a_mean():
    values = np.random.default_rng(0).normal(size=(50, 2))
    assert cluster_variance(values, range(50)) == pytest.approx(values.var(axis=0, ddof=1) / 50)


def test_copies_of_a_face_add_nothing():
    values = np.random.default_rng(0).normal(size=(40, 1))
    once, twice = (
        cluster_variance(values, range(40)),
        cluster_variance(np.repeat(values, 2, 0), np.repeat(range(40), 2)),
    )
    assert once == pytest.approx(twice)


def test_missing_labels_and_clusters_agree_with_the_bootstrap():
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 300, 800)
    values = rng.normal(size=(800, 1)) + rng.normal(size=300)[clusters][:, None]
    values[rng.random(800) < 0.2] = np.nan
    drawn = GroupBootstrap(clusters, 4000).means(values)[1:, 0]
    assert np.sqrt(cluster_variance(values, clusters)[0]) == pytest.approx(drawn.std(), rel=0.05)


def make_experiment(rng, spread_of_faces, spread_of_trainings, names=5, seeds=3, faces=200):
    """Differences whose true mean is 0: each face and each training has an effect of its own."""
    result = {}
    for name in range(names):
        of_faces = rng.normal(0, spread_of_faces, faces)
        of_trainings = rng.normal(0, spread_of_trainings, seeds)
        noise = rng.normal(0, 0.5, (seeds, faces))
        result[str(name)] = [pd.DataFrame({"x": of_faces + t + e}) for t, e in zip(of_trainings, noise, strict=True)]
    return result


@pytest.mark.parametrize(("of_faces", "of_trainings"), [(1.0, 0.0), (1.0, 0.1), (0.1, 0.3)])
def test_intervals_hold_the_truth_as_often_as_they_promise(of_faces, of_trainings):
    rng = np.random.default_rng(2)
    tables = [difference_of_trainings(make_experiment(rng, of_faces, of_trainings), np.arange(200)) for _ in range(120)]
    every = pd.concat(tables)  # 600 intervals
    held = ((every["low"] <= 0) & (every["high"] >= 0)).mean()
    assert 0.92 <= held <= 0.985
    assert (every["p"] < 0.05).mean() == pytest.approx(1 - held)


def test_faces_alone_would_promise_too_much():
    rng = np.random.default_rng(3)
    held = []
    for _ in range(60):
        table = difference_of_trainings(make_experiment(rng, 0.1, 0.3), np.arange(200))
        held += list(table["value"].abs() < 1.96 * table["faces_error"])
    assert np.mean(held) < 0.5


def test_models_that_answer_alike_differ_by_nothing():
    same = pd.DataFrame({"x": np.zeros(10)})
    row = difference_of_trainings({"a": [same, same]}, range(10)).iloc[0]
    assert (row["value"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)


def test_one_training_of_each_is_refused():
    with pytest.raises(InputError, match="at least two seeds"):
        difference_of_trainings({"a": [pd.DataFrame({"x": [0.0, 1.0]})]}, range(2))


def test_names_with_trainings_in_common_are_less_sure():
    experiment = make_experiment(np.random.default_rng(4), 0.1, 0.3)
    alone, sharing = (difference_of_trainings(experiment, np.arange(200), share) for share in (1.0, 0.5))
    assert (sharing["degrees"] < alone["degrees"]).all() and (sharing["p"] > alone["p"]).all()
    assert (sharing["trainings_error"] == alone["trainings_error"]).all()

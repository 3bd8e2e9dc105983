import numpy as np
import pandas as pd
import pytest

from agr_utils.measure.noise import noise_floor, twin_differences


def test_differences_and_floor_by_hand():
    faces = pd.DataFrame(
        {
            "age": [20, 26, 30, 30, 30, 36, 50],
            "gender": [0, 1, 1, 1, 1, 1, 0],
            "race": pd.array([0, 0, pd.NA, 1, 2, 2, 4], dtype="Int8"),
            "group": [1, 1, 2, 2, 3, 3, 4],
        }
    )
    table = twin_differences(faces)
    assert table["age"].tolist() == [6, 0, 6] and table["gender"].tolist() == [1, 0, 0]
    assert table["race"].tolist()[::2] == [0, 0] and np.isnan(table["race"][1])
    assert noise_floor(table) == pytest.approx({"age_mae": 2.0, "gender_accuracy": 5 / 6, "race_accuracy": 1.0})


def test_no_predictor_beats_the_floor_on_twins():
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 60, 400)
    ages = truth[:, None] + rng.normal(0, 5, (400, 2))
    faces = pd.DataFrame({"age": ages.ravel(), "gender": 0, "race": 0, "group": np.repeat(np.arange(400), 2)})
    floor = noise_floor(twin_differences(faces))["age_mae"]
    for guess in (truth, ages.mean(axis=1), ages[:, 0]):
        assert np.abs(ages - guess[:, None]).mean() >= floor - 1e-9


def test_the_committed_labels_have_twins_that_disagree():
    table = twin_differences()
    assert len(table) > 500 and (table["size"] >= 2).all()
    assert 0 < noise_floor(table)["age_mae"] < 5

import time

import numpy as np
import pandas as pd
import pytest

from agr_utils.analysis.metrics import bootstrap, predicted_class, score_rows, summarize, tasks_of
from agr_utils.training.predictions import conformal_widening, predictions_table


def make_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run_id": "a",
            "image_id": list("abcd"),
            "split": "test",
            "age": pd.array([30, 40, pd.NA, 10], dtype="Float32"),
            "age_pred": [31.0, 48.0, 20.0, 10.0],
            "gender": pd.array([0, 1, 1, pd.NA], dtype="Int8"),
            "gender_p": [0.2, 0.6, 0.4, 0.9],
            "race": pd.array([0, pd.NA, 2, 1], dtype="Int8"),
            **{f"race_p{code}": [float(code == c) for c in (0, 1, 2, 2)] for code in range(5)},
        }
    )


def test_metrics_by_hand_with_missing_labels_left_out():
    summary = summarize(make_table(), num_resamples=100)
    assert summary["value"].to_dict() == pytest.approx(
        {"age_mae": 3.0, "age_cs5": 2 / 3, "gender_accuracy": 2 / 3, "race_accuracy": 2 / 3}
    )
    assert summary["count"].tolist() == [3, 3, 3, 3]


def test_a_table_of_one_task_has_that_task_only():
    table = make_table().drop(columns=["age_pred", "gender_p"])
    assert tasks_of(table) == ("race",)
    assert list(score_rows(table)) == ["race_accuracy"]
    assert predicted_class(table, "gender") is None


def test_interval_of_a_known_proportion():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"accuracy": (rng.random(2_000) < 0.8).astype(float)})
    row = bootstrap(scores, pd.Series(range(2_000))).loc["accuracy"]
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 2_000)
    assert row["low"] == pytest.approx(row["value"] - half_width, abs=0.003)
    assert row["high"] == pytest.approx(row["value"] + half_width, abs=0.003)


def test_copies_do_not_make_an_interval_narrower():
    rng = np.random.default_rng(1)
    once = pd.DataFrame({"error": rng.exponential(5, 300)})
    groups = pd.Series(range(300))
    alone = bootstrap(once, groups, 2_000).loc["error"]
    copied = bootstrap(pd.concat([once] * 4), pd.concat([groups] * 4), 2_000).loc["error"]
    assert copied["high"] - copied["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.1)
    pretended = bootstrap(pd.concat([once] * 4), pd.Series(range(1_200)), 2_000).loc["error"]
    assert pretended["high"] - pretended["low"] < 0.6 * (alone["high"] - alone["low"])


def test_same_seed_same_interval():
    scores = score_rows(make_table())
    groups = pd.Series([0, 0, 1, 2])
    pd.testing.assert_frame_equal(bootstrap(scores, groups, 50), bootstrap(scores, groups, 50))


def test_ten_thousand_resamples_of_a_test_split_are_quick():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.random((4_256, 4)), columns=list("abcd"))
    clock = time.process_time()
    bootstrap(scores, pd.Series(range(4_256)))
    assert time.process_time() - clock < 10  # about 1.5 s of one core; the limit leaves room for a busy machine


def test_conformal_widening_reaches_the_coverage_asked_for():
    rng = np.random.default_rng(0)
    age = rng.uniform(0, 100, 2_000)
    centre = age + rng.normal(0, 6, 2_000)
    table = pd.DataFrame({"age": age, "age_lo": centre - 2, "age_hi": centre + 2})
    widening = conformal_widening(table.iloc[:1_000], 0.9)
    rest = table.iloc[1_000:]
    covered = (rest["age_lo"] - widening <= rest["age"]) & (rest["age"] <= rest["age_hi"] + widening)
    assert widening > 0
    assert covered.mean() == pytest.approx(0.9, abs=0.03)
    assert conformal_widening(table.iloc[:0]) == 0


def test_predictions_table_keeps_missing_labels_missing(drawn_faces):
    faces = drawn_faces.faces.copy()
    faces.loc[0, "race"] = pd.NA
    probabilities = {
        "age": np.full((12, 117), 1 / 117, dtype=np.float32),
        "gender": np.full((12, 2), 0.5, dtype=np.float32),
    }
    table = predictions_table(probabilities, faces, "run", widening=3.0)
    assert table["race"].isna().sum() == 1 and "race_p0" not in table
    assert table["age_pred"].to_numpy() == pytest.approx(58, abs=1e-3)


def test_the_age_interval_is_the_central_share_and_what_calibration_adds(drawn_faces):
    belief = np.zeros((12, 117), dtype=np.float32)
    belief[:, 30:50] = 1 / 20  # five in a hundred are the first year, and five the last
    for widening, low, high in ((0.0, 30, 48), (3.0, 27, 51), (-2.0, 32, 46)):
        table = predictions_table({"age": belief}, drawn_faces.faces, "run", widening)
        assert table["age_lo"].unique() == pytest.approx([low], abs=1) and (table["age_lo"] % 1 == 0).all()
        assert table["age_hi"].unique() == pytest.approx([high], abs=1) and (table["age_hi"] % 1 == 0).all()
    ends = [predictions_table({"age": belief}, drawn_faces.faces, "run", years) for years in (0.0, 3.0)]
    assert (ends[0]["age_lo"] - ends[1]["age_lo"]).unique() == (ends[1]["age_hi"] - ends[0]["age_hi"]).unique() == 3

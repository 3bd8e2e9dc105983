"""What must hold of measures for any table: missing labels and answers, single groups, ties, any order of rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agr_lab.evidence.accuracy.every_metric import evaluate_table
from agr_lab.evidence.basic_interval import basic_interval
from agr_lab.evidence.multitask import gaps
from agr_utils.measure import fairness
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.calibration import coverage_table, reliability, sample_ece
from agr_utils.measure.metrics import score_rows, summarize
from agr_utils.models.network import age_interval
from agr_utils.tasks import NUM_AGES, get_scheme

SCHEME = get_scheme("utkface")
ALL_GROUPINGS = (*fairness.GROUPINGS, "race x age band")
measured = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def small_groups_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of three are large enough, so that small tables have some."""
    monkeypatch.setattr(fairness, "MIN_IMAGES", 3)


@st.composite
def tables(draw) -> pd.DataFrame:
    """A predictions table of 1 to 40 rows in which labels and answers are missing here and there, or all of a kind."""
    count, rng = draw(st.integers(1, 40)), np.random.default_rng(draw(st.integers(0, 10**6)))

    def lose(values: np.ndarray, dtype: str) -> pd.array:
        share = draw(st.sampled_from([0.0, 0.3, 1.0]))
        return pd.Series(values.astype(float)).where(rng.random(count) >= share).astype(dtype).array

    num_races, num_answers = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3, 50]))  # few answers: ties
    age = lose(rng.integers(0, 110, count), "Float32")
    table = pd.DataFrame({"run_id": "a", "image_id": [f"{row:03d}" for row in range(count)], "age": age})
    table["age_min"] = table["age_max"] = table["age"]
    table["gender"] = lose(rng.integers(0, 2, count), "Int8")
    table["race"] = lose(rng.integers(0, num_races, count), "Int8")
    table["age_pred"] = rng.integers(0, num_answers, count).astype(float)
    table["age_lo"], table["age_hi"] = table["age_pred"] - 5, table["age_pred"] + 5
    table["gender_p"] = rng.integers(0, num_answers, count) / 50
    beliefs = rng.dirichlet(np.ones(5), num_answers)[rng.integers(0, num_answers, count)]
    for code in range(5):
        table[f"race_p{code}"] = beliefs[:, code]
    for column in ("age_pred", "gender_p", "race_p2"):
        table.loc[rng.random(count) < draw(st.sampled_from([0.0, 0.2, 1.0])), column] = np.nan
    return table.assign(cluster=rng.integers(0, draw(st.integers(1, count)), count))


@given(tables(), st.randoms(use_true_random=False))
@measured
def test_measures_know_no_order_of_rows(table: pd.DataFrame, random):
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = table.iloc[order]  # with the index of before: it must not matter either
    both = [(one, GroupBootstrap(one["cluster"], 40)) for one in (table, shuffled)]
    pd.testing.assert_frame_equal(*(evaluate_table(one, boot) for one, boot in both))
    pd.testing.assert_frame_equal(summarize(table, num_resamples=40), summarize(shuffled, num_resamples=40))
    for grouping in ("race", "race x age band"):
        pd.testing.assert_frame_equal(*(fairness.group_intervals(one, SCHEME, grouping, boot) for one, boot in both))
        members = [fairness.group_members(one, SCHEME, grouping) for one, _ in both]
        covered = [coverage_table(one, of, boot) for (one, boot), of in zip(both, members, strict=True)]
        pd.testing.assert_frame_equal(*covered)
    pd.testing.assert_frame_equal(*(fairness.group_table(one, SCHEME, "gender x race") for one in (table, shuffled)))


@given(tables())
@measured
def test_groups_hold_those_with_all_labels_and_nobody_else(table: pd.DataFrame):
    labels = fairness.label_groups(table, SCHEME)
    for grouping in ALL_GROUPINGS:
        columns = fairness.group_columns(grouping)
        rows = labels[columns].astype(object).where(labels[columns].notna(), None).itertuples(index=False)
        names = pd.Series([None if None in row else ", ".join(row) for row in rows], dtype=object)
        counts = names.value_counts()
        members = fairness.group_members(table, SCHEME, grouping)
        assert members.sum().to_dict() == counts[counts >= 3].to_dict()
        assert all((names[members[name]] == name).all() for name in members)
        assert set(gaps.small_groups(table, SCHEME, grouping)) == set(counts[counts < 3].index)
    means = fairness.group_table(table, SCHEME, "race")
    assert means["count"].to_dict() == labels["race"].value_counts()[lambda counts: counts > 0].to_dict()


@given(tables())
@measured
def test_values_are_those_of_the_faces_that_have_a_label_and_an_answer(table: pd.DataFrame):
    scores, boot = score_rows(table), GroupBootstrap(table["cluster"], 40)
    known = table["race"].notna() & table[[f"race_p{code}" for code in range(5)]].notna().all(axis=1)
    assert ("race_accuracy" in scores) == known.any()
    if known.any():
        answers = table.loc[known, [f"race_p{code}" for code in range(5)]].to_numpy().argmax(axis=1)
        right = answers == table.loc[known, "race"].to_numpy(dtype=int)
        assert scores["race_accuracy"].mean() == pytest.approx(right.mean())
        assert 0 <= sample_ece(table, "race", boot)[0] <= 1
    assert reliability(table, "race")["count"].sum() == known.sum()
    result = evaluate_table(table, boot)
    assert result["value"].notna().all()
    some = result[result["resamples"] > 0]
    assert (some["low"] <= some["high"]).all() and result["resamples"].between(0, 40).all()


@given(arrays(float, (21, 3), elements=st.floats(-1e6, 1e6) | st.just(np.nan)))
@measured
def test_an_interval_is_that_of_the_resamples_with_a_value(samples: np.ndarray):
    found, mirrored = interval(samples), basic_interval(samples)
    for column, row in found.iterrows():
        drawn = samples[1:, column]
        drawn = drawn[~np.isnan(drawn)]
        assert row["resamples"] == len(drawn)
        ends = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else [np.nan, np.nan]
        np.testing.assert_allclose(row[["low", "high"]].astype(float), ends)
        value = 2 * samples[0, column]
        np.testing.assert_allclose(
            mirrored.loc[column, ["low", "high"]].astype(float), [value - ends[1], value - ends[0]]
        )


@given(
    arrays(float, (12, 2), elements=st.floats(-100, 100) | st.just(np.nan)),
    st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
@measured
def test_resampled_means_stay_among_the_values_whatever_categories_are_unused(values: np.ndarray, clusters: list[int]):
    means = GroupBootstrap(clusters, 30).means(values)
    unused = GroupBootstrap(pd.Categorical(clusters, categories=range(9)), 30).means(values)
    np.testing.assert_array_equal(means, unused)
    for column in range(2):
        known = values[:, column][~np.isnan(values[:, column])]
        drawn = means[:, column][~np.isnan(means[:, column])]
        assert len(drawn) == 0 if len(known) == 0 else means[0, column] == pytest.approx(known.mean(), abs=1e-9)
        assert len(known) == 0 or (drawn.min() >= known.min() - 1e-9 and drawn.max() <= known.max() + 1e-9)


@given(
    arrays(np.float32, (3, NUM_AGES), elements=st.floats(0, 1, width=32)),
    st.floats(0.05, 0.99),
    st.floats(-20, 200),
)
@measured
def test_an_age_interval_holds_its_share_and_widens(masses: np.ndarray, coverage: float, widening: float):
    masses[:, 0] += 1e-3  # never all zero
    belief = torch.from_numpy(masses / masses.sum(axis=1, keepdims=True))
    low, high = age_interval(belief, coverage)
    assert (low >= 0).all() and (low <= high).all() and (high <= NUM_AGES - 1).all()
    ages = torch.arange(NUM_AGES)
    inside = (ages >= low[:, None]) & (ages <= high[:, None])
    assert ((belief * inside).sum(dim=1) >= coverage - 1e-4).all()
    lower, upper = age_interval(belief, coverage, widening)
    torch.testing.assert_close(lower, (low - widening).clamp(0, NUM_AGES - 1))
    torch.testing.assert_close(upper, (high + widening).clamp(0, NUM_AGES - 1))

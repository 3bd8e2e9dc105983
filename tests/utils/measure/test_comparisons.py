"""Two runs of one's own against each other: paired by face, by group, with the calls of the claims."""

import numpy as np
import pandas as pd
import pytest

from agr_utils.measure.comparisons import compare_runs
from agr_utils.measure.results import read_figure, read_runs
from agr_utils.tasks import get_scheme


def make_predictions(error: float, wrong: float = 0.3, count: int = 600) -> pd.DataFrame:
    """Ages off by ``error`` years more than a difficulty that all models share; a share of the genders wrong."""
    rng = np.random.default_rng(0)
    hard, gender = rng.exponential(4, count), rng.integers(0, 2, count)
    right = rng.random(count) >= wrong
    table = pd.DataFrame(
        {"image_id": [f"face-{n}" for n in range(count)], "split": "test", "age": 30, "age_min": 30, "age_max": 30}
        | {"age_pred": 30 + hard + error, "gender": gender, "gender_p": np.where(right, gender, 1 - gender)}
        | {"race": pd.NA}
    )
    whole = dict.fromkeys(("age", "age_min", "age_max", "gender", "race"), "Int64")
    return table.astype({"image_id": "string"} | whole)


def test_a_model_is_better_by_what_it_errs_less_on_each_face():
    ours, theirs = make_predictions(0.5), make_predictions(1.5)[::-1]  # rows in another order
    table = compare_runs(ours, theirs, num_resamples=500).set_index("metric")
    assert table.loc["age_mae", ["value", "low", "high"]].tolist() == pytest.approx([1, 1, 1])  # paired: nothing unsure
    assert table.loc["age_mae", "call"] == "better" and table.loc["gender_accuracy", "call"] == "no difference"
    assert table.loc["age_cs5", "call"] == "" and set(table["group"]) == {"all"}
    back = compare_runs(theirs, ours, num_resamples=500).set_index("metric")
    assert back.loc["age_mae", "call"] == "worse" and back.loc["age_mae", "value"] == pytest.approx(-1)


def test_groups_are_compared_apart_and_counted_together():
    ours = make_predictions(0.5)
    theirs = make_predictions(0.5).assign(age_pred=lambda table: table["age_pred"] + 2 * (table["gender"] == 1))
    table = compare_runs(ours, theirs, get_scheme("utkface"), "gender", num_resamples=500)
    ages = table[table["metric"] == "age_mae"].set_index("group")
    assert ages["value"].to_dict() == pytest.approx({"male": 0, "female": 2})
    assert ages["call"].to_dict() == {"male": "no difference", "female": "better"}
    assert (table.dropna(subset="p_holm")["p_holm"] >= table.dropna(subset="p_holm")["p"]).all()


def test_a_face_that_one_model_does_not_answer_counts_for_neither():
    ours, theirs = make_predictions(0.5), make_predictions(1.5)
    silent = ours.assign(age_pred=ours["age_pred"].where(ours["age_pred"] < 33), gender_p=np.nan)
    silent.loc[0, "gender_p"] = ours.loc[0, "gender_p"]
    for pair in ((silent, ours), (ours, silent)):
        table = compare_runs(*pair, num_resamples=100).set_index("metric")
        assert (table["value"] == 0).all(), "a model is no better than itself"
    table = compare_runs(silent, theirs, num_resamples=100).set_index("metric")
    assert table.loc["age_mae", "value"] == pytest.approx(1)


def test_whole_groups_of_the_table_are_drawn_again():
    ours, theirs = make_predictions(0.5, 0.3), make_predictions(0.5, 0.4)
    alone = compare_runs(ours, theirs, num_resamples=500).set_index("metric").loc["gender_accuracy"]
    right = [(table["gender_p"].round() == table["gender"]).astype(int) for table in (ours, theirs)]
    groups = (right[0] * 10 + right[1] * 20 + np.arange(len(ours)) % 10).astype("Int64")  # alike within a group
    for pair in ((ours.assign(group=groups), theirs), (ours, theirs.assign(group=groups))):
        table = compare_runs(*pair, num_resamples=500).set_index("metric").loc["gender_accuracy"]
        assert table["value"] == alone["value"] and table["high"] - table["low"] > 2 * (alone["high"] - alone["low"])


def test_of_few_persons_nothing_is_told():
    """Two persons, or groups in which few have the label, would call a model better than its equal."""
    ours, theirs = make_predictions(0.5), make_predictions(1.5)
    for persons, call in ((9, "cannot tell"), (10, "better")):
        group = pd.Series(np.arange(600) % persons, dtype="Int64")
        row = compare_runs(ours.assign(group=group), theirs, num_resamples=200).set_index("metric").loc["age_mae"]
        assert row["call"] == call and np.isnan(row["low"]) == (call == "cannot tell")
    known = (np.arange(600) % 60 == 0) | (ours["gender"] == 0)  # of those labelled 1, some ten have an age
    few, others = (table.assign(age=table["age"].where(known)) for table in (ours, theirs))
    table = compare_runs(few, others, get_scheme("utkface"), "gender", num_resamples=200).set_index(["group", "metric"])
    assert table["call"]["male", "age_mae"] == "better" and table["call"]["female", "age_mae"] == "cannot tell"


def test_what_cannot_be_compared_is_one_clear_line(one_clear_line):
    ours = make_predictions(0.5)
    with one_clear_line("different faces", "a column split keeps it as it is"):
        compare_runs(ours, ours.head(10))
    with one_clear_line("the labels of age differ for 2 faces"):
        compare_runs(ours, ours.assign(age=ours["age"].mask(ours.index < 1).mask(ours.index == 5, 31)))
    with one_clear_line("no task in common"):
        compare_runs(ours[["image_id", "split", "age", "age_min", "age_max", "age_pred"]],
                     ours[["image_id", "split", "gender", "gender_p"]])  # fmt: skip
    with one_clear_line("need the names of the labels"):
        compare_runs(ours, ours, grouping="gender")
    with one_clear_line("no group by gender"):
        compare_runs(ours.head(40), ours.head(40), get_scheme("utkface"), "gender")


def test_published_runs_get_the_calls_of_the_claims():
    published = read_figure("pairs")
    runs = {run.title: run.split("test")[0] for run in read_runs()}
    first = published.iloc[:3]
    found = compare_runs(runs[first["first"].iloc[0]], runs[first["second"].iloc[0]]).set_index("metric")
    for row in first.itertuples():
        assert found.loc[row.metric, ["value", "low", "high"]].tolist() == pytest.approx(
            [row.value, row.low, row.high], rel=1e-5
        )

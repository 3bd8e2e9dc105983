import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agr_lab.cli.inspect import left_out
from agr_utils.data.splits import groups_of
from agr_utils.errors import InputError
from agr_utils.files import write_table
from agr_utils.measure import plots
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.calibration import confidence, covered, null_ece, reliability
from agr_utils.measure.fairness import group_intervals, group_members
from agr_utils.measure.forest import plot_group_errors
from agr_utils.measure.metrics import bootstrap, predicted_class, score_rows, signed_error, summarize
from agr_utils.predictions_table import (
    predicted_splits,
    probability_columns,
    read_predictions,
    tasks_of,
)
from agr_utils.tasks import get_scheme
from agr_utils.training.predictions import conformal_widening, predictions_table

SCHEME = get_scheme("utkface")


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


def test_a_table_of_one_task_has_that_task_only(one_clear_line):
    table = make_table().drop(columns=["age_pred", "gender_p"])
    assert tasks_of(table) == ("race",)
    assert list(score_rows(table)) == ["race_accuracy"]
    with one_clear_line("the table lacks gender_p0. There is: "):
        predicted_class(table, "gender")


AGES, GENDERS = ("age_pred", "age_lo", "age_hi"), ("gender_p",)


@pytest.mark.parametrize(
    ("lacking", "use", "words"),
    [
        (GENDERS, lambda table: confidence(table, "gender"), "the table lacks gender_p0"),
        (GENDERS, lambda table: reliability(table, "gender"), "the table lacks gender_p0"),
        (GENDERS, lambda table: null_ece(table, "gender"), "the table lacks gender_p0"),
        (GENDERS, lambda table: plots.plot_confusion(table, "gender", SCHEME, None), "the table lacks gender_p0"),
        (("race",), lambda table: plots.plot_confusion(table, "race", SCHEME, None), "the table lacks race. There is"),
        (("race",), lambda table: group_members(table, SCHEME, "race"), "lacks race. There is: gender, age band"),
        (("age_min",), lambda table: group_members(table, SCHEME, "age band"), "lacks age band. There is"),
        ((), lambda table: group_members(table, SCHEME, "smile"), "lacks smile. There is: gender, race, age band"),
        (AGES, signed_error, "the table lacks age_pred. There is: run_id, image_id"),
        (AGES, covered, "the table lacks age_lo, age_hi"),
        (AGES, plots.age_error_by_band, "the table lacks age_pred"),
        (AGES, lambda table: plots.plot_age_error(table, None), "the table lacks age_pred"),
        (AGES, lambda table: plots.plot_intervals({"a": summarize(table)}, "age_mae", None), "of a lacks age_mae"),
        (AGES, lambda table: draw_errors(table, "age_mae"), "the table of a lacks age_mae. There is: gender_er"),
        ((), lambda table: draw_errors(table, "smile_error"), "ERRORS lacks smile_error. There is: age_mae"),
    ],
)
def test_a_task_that_the_table_lacks_is_named(lacking: tuple[str, ...], use, words: str, one_clear_line):
    table = make_table().assign(age_min=30.0, age_max=30.0, age_lo=20.0, age_hi=50.0).drop(columns=list(lacking))
    with one_clear_line(words):
        use(table)


def draw_errors(table: pd.DataFrame, error: str) -> None:
    table = pd.concat([table.assign(image_id=table["image_id"] + str(number)) for number in range(20)])
    rows = group_intervals(table.reset_index(drop=True), SCHEME, "gender", GroupBootstrap(range(80), 10))
    plot_group_errors({"a": rows}, error, plt.figure().subplots())


def test_a_history_without_the_column_is_named(one_clear_line):
    run = SimpleNamespace(title="mine", history=pd.DataFrame({"epoch": [1], "cpu_seconds": [1.0]}))
    with one_clear_line("the history of mine lacks race_accuracy. There is: epoch, cpu_seconds"):
        plots.plot_learning_curves([run], "race_accuracy", "race", None)


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


def test_conformal_widening_reaches_the_coverage_asked_for(one_clear_line):
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
    for coverage in (0, 1, -1, float("nan")):
        with one_clear_line(f"the coverage is {coverage}. It must be more than 0 and less than 1"):
            conformal_widening(table, coverage)


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


def test_an_answer_that_is_not_a_number_is_no_answer():
    table = make_table()
    table.loc[0, ["age_pred", "gender_p"]] = np.nan  # NaN >= 0.5 is False, and the label is class 0
    table.loc[2, "race_p4"] = np.nan  # one is enough: who knows what it would have been
    table.loc[3, "age_pred"] = np.inf
    summary = summarize(table, num_resamples=10)
    assert summary["value"].to_dict() == pytest.approx(
        {"age_mae": 8.0, "age_cs5": 0.0, "gender_accuracy": 0.5, "race_accuracy": 0.5}
    )
    assert summary["count"].tolist() == [1, 1, 2, 2]
    assert predicted_class(table, "gender").isna().tolist() == [True, False, False, False]
    assert left_out(table) == [
        "age: 1 without a label, 2 without an answer of 4 images",
        "gender: 1 without a label, 1 without an answer of 4 images",
        "race: 1 without a label, 1 without an answer of 4 images",
    ]


def test_what_is_left_out_of_a_task_whose_name_begins_another():
    table = make_table().drop(columns=["age_pred", "gender_p", *[f"race_p{code}" for code in range(5)]])
    table["hat"] = pd.array([0, 1, pd.NA, pd.NA], dtype="Int8")
    table["hat_colour"] = pd.array([0, 1, 1, 0], dtype="Int8")
    table = table.assign(hat_p0=0.5, hat_p1=0.5, hat_colour_p0=0.5, hat_colour_p1=0.5)
    assert left_out(table) == ["hat: 2 without a label of 4 images"]


def test_intervals_are_over_the_groups_of_the_table():
    table = pd.concat([make_table().assign(image_id=[f"{name}{n}" for name in "abcd"]) for n in range(20)])
    table = table.reset_index(drop=True)
    groups = table["image_id"].str[0].map({"a": 7, "b": 8, "c": 9, "d": 9}).astype("Int64")
    pd.testing.assert_frame_equal(summarize(table.assign(group=groups)), summarize(table, groups))
    alone, together = summarize(table).loc["age_mae"], summarize(table.assign(group=groups)).loc["age_mae"]
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_a_metric_without_a_label_or_an_answer_is_left_out():
    table = make_table()
    table["race"] = pd.array([pd.NA] * 4, dtype="Int8")
    table["age_pred"] = np.nan
    assert list(score_rows(table)) == ["gender_accuracy"]
    table["gender"] = pd.array([pd.NA] * 4, dtype="Int8")
    assert summarize(table, num_resamples=10).empty


def test_race_probabilities_are_those_of_their_codes():
    table = make_table().assign(race_pred="white")  # no probability, whatever its name begins with
    many = pd.concat(
        [table] + [pd.DataFrame({f"race_p{code}": 0.0}, index=table.index) for code in range(5, 12)], axis=1
    )
    assert probability_columns(many, "race") == [f"race_p{code}" for code in range(12)]  # and 10 comes after 9
    for lost in ("race_p0", "race_p3"):
        with pytest.raises(InputError, match=f"the table lacks {lost}"):
            summarize(table.drop(columns=lost))
    with pytest.raises(InputError, match="give 2 classes of race; labels are"):
        summarize(table.drop(columns=["race_p2", "race_p3", "race_p4"]))
    with pytest.raises(InputError, match="the table lacks gender"):
        summarize(table.drop(columns="gender"))


def test_a_face_that_is_there_twice_is_refused(tmp_path):
    table = predictions_of(40)
    with pytest.raises(InputError, match="3 rows of the predictions repeat an image, first: 004"):
        summarize(pd.concat([table, table.iloc[4:7]]))
    write_table(pd.concat([table, table]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"twice.parquet: 40 rows of the predictions repeat an image"):
        read_predictions(tmp_path / "twice.parquet")
    both = pd.concat([table, table.assign(run_id="b")])  # of two runs each face is there once
    assert score_rows(both)["age_mae"].notna().sum() == 80


def predictions_of(count: int) -> pd.DataFrame:
    ages = pd.array(np.arange(count) % 90, dtype="Float32")
    names = [f"{row:03d}" for row in range(count)]
    table = pd.DataFrame(
        {"run_id": "a", "image_id": names, "split": "test", "age": ages, "age_min": ages, "age_max": ages}
    )
    table["gender"], table["race"] = pd.array([0, 1] * (count // 2), dtype="Int8"), pd.array([0] * count, dtype="Int8")
    return table.assign(age_pred=30.0, age_lo=20.0, age_hi=40.0, gender_p=0.25)


@pytest.mark.parametrize(
    "column, values, words",
    [
        ("age", ["thirty"] * 40, "'age' of the predictions holds"),
        ("gender_p", [[0.5]] * 40, "'gender_p' of the predictions holds object, and not numbers"),
        ("gender", ["male"] * 40, "'gender' of the predictions holds"),
        ("age_pred", pd.to_datetime(["2020-01-01"] * 40), "'age_pred' of the predictions holds datetime64"),
        ("gender", [7] * 40, r"2 classes of gender; labels are \[7\]"),
        ("gender", [-1] * 40, r"labels are \[-1\]"),
        ("gender_p", [1.5] * 40, "probabilities of gender outside 0 to 1"),
    ],
)
def test_odd_columns_of_a_predictions_file_are_named(tmp_path, column: str, values, words: str):
    path = tmp_path / "odd.parquet"
    predictions_of(40).assign(**{column: values}).to_parquet(path)
    with pytest.raises(InputError, match=words) as caught:
        read_predictions(path)
    assert "odd.parquet" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_predictions_file_needs_its_columns(tmp_path):
    for column in ("image_id", "split", "age", "gender", "race"):
        predictions_of(40).drop(columns=column).to_parquet(tmp_path / "short.parquet")
        with pytest.raises(InputError, match=f"no {column}"):
            read_predictions(tmp_path / "short.parquet")
    predictions_of(40).assign(split=[["test"]] * 40).to_parquet(tmp_path / "lists.parquet")
    assert predicted_splits(tmp_path / "lists.parquet") == ()


def test_an_interval_is_that_of_the_resamples_with_a_value(caplog):
    samples = np.arange(101.0)[:, None] * [1.0, 1.0, np.nan]
    samples[1:51, 1] = np.nan
    found = interval(samples)
    assert found["resamples"].tolist() == [100, 50, 0]
    assert found.loc[1, ["low", "high"]].tolist() == pytest.approx(np.quantile(np.arange(51, 101), [0.025, 0.975]))
    assert np.isnan(found.loc[2, ["low", "high"]].astype(float)).all()
    assert "of 100 resamples only 50 have a value" in caplog.text


def test_a_p_value_does_not_hang_on_the_order_of_summation():
    changes = np.random.default_rng(1).integers(-1, 2, (40, 5)) / 5  # many resamples add up to exactly nothing
    boot = GroupBootstrap(range(40), 1000)
    orders = (range(5), (4, 2, 0, 3, 1), (1, 3, 4, 0, 2))
    means = [sum(boot.means(changes[:, [column]]) for column in order) for order in orders]
    assert not np.array_equal(np.sign(means[0]), np.sign(means[1]))  # or this would test nothing
    whole = np.rint(200 * means[0])  # fifths, averaged over 40 faces: whole numbers, without any error
    assert len({interval(samples).loc[0, "p"] for samples in (*means, whole, 1e-15 * means[0])}) == 1


def test_nothing_to_resample_is_no_error():
    boot = GroupBootstrap(range(6), 20)
    assert boot.means(np.empty((6, 0))).shape == (21, 0)
    assert boot.group_means(np.ones((6, 2)), np.zeros((6, 0), dtype=bool)).shape == (21, 2, 0)
    assert np.isnan(boot.group_means(np.ones((6, 2)), np.zeros((6, 1), dtype=bool))).all()
    assert interval(np.empty((21, 0))).empty
    with pytest.raises(InputError, match="2 images have no near-duplicate group"):
        GroupBootstrap([1, None, 2, None])


def test_images_outside_the_split_have_groups_by_name_and_not_by_place():
    ids = pd.Series(["b", "a", "c", "a"])
    assert groups_of(ids).tolist() == [-2, -3, -1, -3]


@pytest.mark.parametrize("count", range(1, 12))
def test_too_few_faces_are_promised_nothing_less_than_all_ages(count: int, caplog):
    rng = np.random.default_rng(count)
    age = rng.uniform(0, 100, (2_000, count + 1))
    centre = age + rng.normal(0, 6, age.shape)
    frames = [pd.DataFrame({"age": a, "age_lo": c - 2, "age_hi": c + 2}) for a, c in zip(age, centre, strict=True)]
    widenings = np.array([conformal_widening(frame.iloc[:-1]) for frame in frames[:400]])
    outside = np.abs(centre - age)[:400, -1] - 2
    assert (outside <= widenings).mean() >= 0.86  # 0.9, and twice what 400 of them may be off by chance
    assert (widenings == 116).all() == (count < 9)
    assert (f"{count} validation faces with a known age are too few" in caplog.text) == (count < 9)

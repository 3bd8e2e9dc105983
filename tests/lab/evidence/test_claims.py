"""The claims' statistics on made-up runs whose truth is known: what must be found is found, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from agr_lab.evidence.accuracy.every_metric import evaluate_table
from agr_lab.evidence.architectures.pairs import NEWER, OLDER, against, pair_differences
from agr_lab.evidence.architectures.pareto import cost_table, on_front
from agr_lab.evidence.basic_interval import basic_interval
from agr_lab.evidence.claims import (
    OFF_FRONTS,
    all_findings,
    find_accuracy,
    find_efficiency,
    find_multitask,
    lacking_pairs,
    verdict_accuracy,
    verdict_efficiency,
    verdict_gaps,
    verdict_multitask,
    verdict_of_all,
)
from agr_lab.evidence.markdown import NOT_YET
from agr_lab.evidence.multitask.gaps import gap_differences, gap_table
from agr_lab.evidence.multitask.multitask import multitask_differences, multitask_table, paired_seeds
from agr_lab.evidence.reading import Evidence
from agr_utils.data.faces import age_band
from agr_utils.data.splits import read_split_file
from agr_utils.data.utkface import read_names
from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap, holm, interval
from agr_utils.measure.calibration import coverage_table, null_ece, reliability, sample_ece
from agr_utils.measure.comparisons import MATTERS, add_calls
from agr_utils.measure.fairness import (
    GROUPINGS,
    error_rows,
    gaps,
    group_intervals,
    group_members,
    group_table,
    sample_groups,
    worst,
)
from agr_utils.measure.metrics import score_rows
from agr_utils.measure.results import Run
from agr_utils.models.backbones import BACKBONES
from agr_utils.predictions_table import probability_columns
from agr_utils.tasks import TASKS, get_scheme

SCHEME = get_scheme("utkface")


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of what is published: p-values go down to 0.001, below 0.05 after a correction for 30 comparisons."""
    monkeypatch.setattr(GroupBootstrap.__init__, "__defaults__", (2_000, 0))


@pytest.fixture(scope="module")
def faces() -> pd.DataFrame:
    listed = read_split_file()
    names = listed.loc[listed["split"] == "test", "image_id"].tolist()
    return read_names(names).assign(split="test")


def make_run(faces: pd.DataFrame, backbone: str, tasks: tuple[str, ...], label: str, error: float, **options) -> Run:
    """A run whose age errors have a standard deviation of ``error`` years and which is wrong in error / 50 of classes.

    Options: ``seed``; ``hard`` adds errors for one race.
    """
    seed, hard = options.get("seed", 0), options.get("hard", 0.0)
    rng = np.random.default_rng([seed, len(tasks), len(label), list(BACKBONES).index(backbone)])
    shared = np.random.default_rng(7)  # what is hard about a face is hard for every model
    table = faces[["image_id", "split", "age", "age_min", "age_max", "gender", "race"]].reset_index(drop=True)
    table.insert(0, "run_id", "made-up")
    is_hard = (table["race"] == 3).fillna(False).to_numpy(dtype=bool)
    if "age" in tasks:
        noise = 0.8 * shared.normal(size=len(table)) + 0.6 * rng.normal(size=len(table))
        table["age_pred"] = table["age"].astype(float) + error * (1 + hard * is_hard) * noise
        table["age_lo"], table["age_hi"] = table["age_pred"] - 1.645 * error, table["age_pred"] + 1.645 * error
    draw = np.where(shared.random(len(table)) < 0.5, shared.random(len(table)), rng.random(len(table)))
    wrong = draw < error / 50 * (1 + hard * is_hard)
    if "gender" in tasks:
        label_code = table["gender"].astype(float).to_numpy()
        table["gender_p"] = np.where(wrong, 1 - label_code, label_code) * 0.8 + 0.1
    if "race" in tasks:
        code = table["race"].astype("float64").fillna(0).to_numpy().astype(int)
        code = np.where(wrong, (code + 1) % 5, code)
        for number in range(5):
            table[f"race_p{number}"] = np.where(code == number, 0.8, 0.05)
    about = {
        "config": {"backbone": backbone, "tasks": list(tasks), "seed": seed, "data": "utkface", "num_epochs": 1},
        "parameters": 1_000_000 * (1 + list(BACKBONES).index(backbone)),
        "macs": 1_000_000,
        "num_train": 1000,
    }
    return Run(f"made-up-{label}" if label != "long" else "made-up-s0", about, pd.DataFrame(), table)


def make_evidence(
    faces: pd.DataFrame,
    multi: float,
    single: float,
    backbones=tuple(BACKBONES),
    long: float | None = None,
    long_single: float | None = None,
    **options,
) -> Evidence:
    runs = []
    for name in backbones:
        errors = {"short": multi, "long": multi if long is None else long}
        runs += [make_run(faces, name, TASKS, label, error) for label, error in errors.items()]
        runs += [make_run(faces, name, (task,), "short", single, **options) for task in TASKS]
        runs += [make_run(faces, name, (task,), "long", long_single) for task in TASKS if long_single is not None]
    rows = [{"backbone": name, "image_size": 64, "images_per_second": 100.0} for name in backbones]
    machine = {"cpu": "none", "cores": 1, "threads": 1}
    latency = [{"backbone": name, "batch_size": 1, "seconds": 0.01} | machine for name in backbones]
    return Evidence(tuple(runs), {"training": pd.DataFrame(rows), "latency": pd.DataFrame(latency)})


def test_means_and_intervals_agree_with_what_is_known():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (1_500, 2))
    values[:500, 1] = np.nan
    samples = GroupBootstrap(range(1_500), 2_000).means(values)
    table = interval(samples)
    assert samples.shape == (2_001, 2)
    assert table["value"].to_numpy() == pytest.approx([values[:, 0].mean(), values[500:, 1].mean()])
    half = 1.96 * 2 / np.sqrt([1_500, 1_000])
    assert (table["high"] - table["low"]).to_numpy() / 2 == pytest.approx(half, rel=0.1)


def test_group_means_are_those_of_each_group():
    values = np.array([[1.0], [2.0], [np.nan], [6.0]])
    members = np.array([[True, False], [True, True], [False, True], [False, True]])
    bootstrap = GroupBootstrap([0, 1, 2, 3], 10)
    samples = bootstrap.group_means(values, members)
    assert samples.shape == (11, 1, 2)
    assert samples[0, 0].tolist() == [1.5, 4.0]
    assert gaps(samples)[0, 0] == 2.5
    spread = np.where(members, values, np.nan)  # the same, with what is not a member left out
    assert np.allclose(samples[:, 0], bootstrap.means(spread), equal_nan=True)
    assert np.isnan(bootstrap.group_means(values, np.zeros((4, 1), dtype=bool))).all()


def test_p_values_are_uniform_where_there_is_nothing():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 200))
    p = interval(GroupBootstrap(range(400), 1_000).means(values))["p"]
    assert 0.01 < (p < 0.05).mean() < 0.1
    assert interval(GroupBootstrap(range(400), 1_000).means(values + 1))["p"].max() == pytest.approx(2 / 1_001)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("row", "call"),
    [
        ((0.5, 0.3, 0.7, 0.001, (0.4, 0.6)), "better"),
        ((-0.5, -0.7, -0.3, 0.001, (-0.5,)), "worse"),
        ((0.5, 0.3, 0.7, 0.001, (1.2, -0.2)), "cannot tell"),  # the seeds do not agree
        ((0.5, 0.3, 0.7, 0.001, (1.0, 0.0)), "cannot tell"),
        ((-0.5, -0.7, -0.3, 0.001, (-1.0, 0.0)), "cannot tell"),
        ((0.02, -0.05, 0.09, 0.5, (0.02,)), "no difference"),
        ((0.05, -0.05, 0.15, 0.3, (0.05,)), "cannot tell"),
    ],
)
def test_what_a_difference_is_called(row: tuple, call: str):
    table = pd.DataFrame([dict(zip(("value", "low", "high", "p", "seeds"), row, strict=True), matters=0.1)])
    assert add_calls(table)["call"].tolist() == [call]


def test_verdicts_follow_the_protocol():
    assert verdict_multitask(pd.Series(["better"] * 3 + ["cannot tell"] * 2)) == "supported"
    assert verdict_multitask(pd.Series(["better"] * 4 + ["worse"])) == "cannot tell"
    assert verdict_multitask(pd.Series(["no difference"] * 2 + ["worse"] + ["better"] * 2)) == "not supported"
    assert verdict_gaps(pd.Series(["better"] * 4 + ["cannot tell"] * 12)) == "supported"
    assert verdict_gaps(pd.Series(["worse"] * 4 + ["cannot tell"] * 12)) == "not supported"
    assert verdict_gaps(pd.Series(["worse"] * 4 + ["better"] * 4 + ["cannot tell"] * 8)) == "cannot tell"
    assert verdict_gaps(pd.Series(["no difference"] * 12 + ["cannot tell"] * 4)) == "not supported"
    assert verdict_of_all(["supported", "cannot tell", "not supported"]) == "not supported"
    assert verdict_of_all(["supported", "cannot tell"]) == "cannot tell"
    assert verdict_of_all(["supported", "supported"]) == "supported"


def test_an_effect_that_is_there_is_found(faces: pd.DataFrame):
    evidence = make_evidence(faces, multi=6.0, single=8.0)
    table = multitask_differences(evidence, "a")
    counted = table[table["metric"] != "age_cs5"]
    assert len(counted) == 15 and set(counted["call"]) == {"better"}
    assert table.loc[table["metric"] == "age_mae", "value"].mean() == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.1)
    finding = all_findings(evidence)[0]
    assert (
        finding.verdict == "supported" and finding.lacking == "of 3 seeds there are so far: Custom CNN 1, MobileNetV3 1"
    )


def test_an_effect_that_is_not_there_is_not_found(faces: pd.DataFrame):
    evidence = make_evidence(faces, multi=6.0, single=6.0)
    calls = multitask_differences(evidence, "a")["call"]
    assert not set(calls) & {"better", "worse"}
    assert not set(gap_differences(evidence, "a")["call"]) & {"better", "worse"}


def test_each_comparison_has_its_own_runs(faces: pd.DataFrame):
    evidence = make_evidence(faces, multi=9.0, single=6.5, long=4.0, long_single=2.0)
    calls = {name: set(multitask_differences(evidence, name)["call"]) - {""} for name in ("a", "b", "long")}
    assert calls == {"a": {"worse"}, "b": {"better"}, "long": {"worse"}}
    changes = {name: gap_differences(evidence, name).set_index(["error", "grouping"])["overall"] for name in "ab"}
    assert (changes["a"]["age_mae"] < -0.8).all() and (changes["b"]["age_mae"] > 0.8).all()
    assert [find_multitask(evidence, name).verdict for name in "ab"] == ["not supported", "supported"]


def test_what_is_the_same_on_every_face_is_beyond_doubt(faces: pd.DataFrame):
    """Both sides on the same resamples: unpaired, the difficulty of the faces would make the intervals wide."""

    def shift(run: Run, years: float) -> Run:
        table = run.predictions.copy()
        if "age_pred" in table:
            table["age_pred"] = table["age"].astype(float) + hard + years
        return replace(run, predictions=table)

    hard = np.random.default_rng(0).exponential(5, len(faces))
    plain = make_evidence(faces, multi=6.0, single=6.0)
    runs = [shift(run, 1.0 if run.tasks == TASKS and run.length == "short" else 1.5) for run in plain.runs]
    ages = multitask_differences(Evidence(tuple(runs), {}), "a").set_index("metric").loc["age_mae"]
    assert ages[["value", "low", "high"]].to_numpy(dtype=float) == pytest.approx(0.5)
    gap = gap_differences(Evidence(tuple(runs), {}), "a").set_index("error").loc["age_mae"]
    assert gap[["overall", "overall_low", "overall_high"]].to_numpy(dtype=float) == pytest.approx(0.5)
    long = [shift(run, list(BACKBONES).index(run.backbone)) for run in plain.runs if run.length == "long"]
    pairs = pair_differences(Evidence(tuple(long), {})).set_index(["first", "second", "metric"])
    first_two = pairs.loc[("custom_cnn", "mobilenet_v2", "age_mae"), ["value", "low", "high"]]
    assert first_two.tolist() == pytest.approx([1.0] * 3)


def test_families_and_what_matters_are_those_of_the_protocol(faces: pd.DataFrame):
    assert MATTERS == {"age_mae": 0.1, "gender_accuracy": 0.005, "race_accuracy": 0.005}
    evidence = make_evidence(faces, multi=6.0, single=6.1)
    table = multitask_differences(evidence, "a")
    counted = table[table["metric"] != "age_cs5"]
    assert counted["p_holm"].to_numpy() == pytest.approx(holm(counted["p"])) and len(counted) == 15
    assert set(table.loc[table["metric"] == "age_cs5", "call"]) == {""}
    assert counted["matters"].to_numpy() == pytest.approx(counted["metric"].map(MATTERS).to_numpy())
    gap = gap_differences(evidence, "a")
    assert gap["p_holm"].to_numpy() == pytest.approx(holm(gap["p"])) and len(gap) == 16
    assert gap["matters"].to_numpy() == pytest.approx(0.1 * gap["single"].to_numpy())
    pairs = pair_differences(evidence)
    assert pairs["p_holm"].to_numpy() == pytest.approx(holm(pairs["p"])) and len(pairs) == 30
    assert counted["p"].max() > 0.05 and counted["p_holm"].max() > counted["p"].max()  # some are not at the floor


def test_images_are_paired_by_name_and_not_by_place(faces: pd.DataFrame):
    evidence = make_evidence(faces, multi=6.0, single=8.0, backbones=("custom_cnn",))
    shuffled = [
        replace(run, predictions=run.predictions.sample(frac=1, random_state=number))
        for number, run in enumerate(evidence.runs)
    ]
    again = Evidence((evidence.runs[0], *shuffled[1:]), {})
    pd.testing.assert_frame_equal(multitask_differences(again, "a"), multitask_differences(evidence, "a"))


def test_multitask_that_harms_is_called_worse(faces: pd.DataFrame):
    assert find_multitask(make_evidence(faces, multi=8.0, single=6.0), "a").verdict == "not supported"


def test_a_gap_that_shrinks_is_found(faces: pd.DataFrame):
    evidence = make_evidence(faces, multi=6.0, single=6.0, hard=1.5)
    table = gap_differences(evidence, "a").set_index(["error", "grouping"])
    assert len(table) == 16
    row = table.loc[("age_mae", "race")]
    assert row["call"] == "better" and row["single"] - row["multi"] == pytest.approx(row["value"])
    assert row["value"] == pytest.approx(1.5 * 6 * np.sqrt(2 / np.pi), rel=0.15)
    assert table.loc[("age_mae", "gender"), "call"] in ("cannot tell", "no difference")
    assert len(row["backbones"]) == 5 and np.mean(list(row["backbones"].values())) == pytest.approx(row["value"])
    assert row["worst"] == pytest.approx(row["value"], rel=0.15)  # one race is made worse, the others stay
    further = gap_table(evidence, "a").splitlines()
    assert sum("not counted" in line for line in further) == 8 and "race × age band: asian, 10-19;" in further[-1]
    assert gap_table(Evidence((), {}), "a") == NOT_YET == multitask_table(Evidence((), {}))


def test_a_gap_is_averaged_over_seeds_and_not_that_of_averaged_errors(faces: pd.DataFrame):
    runs = []
    for seed in range(3):
        runs.append(make_run(faces, "custom_cnn", TASKS, "short", 6.0, seed=seed))
        runs += [make_run(faces, "custom_cnn", (task,), "short", 6.0 + 2 * seed, seed=seed) for task in TASKS]
    table = gap_differences(Evidence(tuple(runs), {}), "a").set_index(["error", "grouping"])
    each = [gap_differences(Evidence(tuple(r for r in runs if r.seed == seed), {}), "a") for seed in range(3)]
    each = [one.set_index(["error", "grouping"])["value"] for one in each]
    pd.testing.assert_series_equal(table["value"], sum(each) / 3)


def test_the_basic_interval_is_that_of_the_resamples_with_a_value():
    samples = np.arange(101.0)[:, None]
    samples[1:51] = np.nan
    assert basic_interval(samples).loc[0, "value"] == pytest.approx(-np.arange(51, 101).mean())


def test_the_basic_interval_takes_the_bias_out():
    rng = np.random.default_rng(0)
    ranges = []
    for _ in range(100):
        values = rng.normal(size=(300, 1))
        members = np.arange(300)[:, None] % 6 == np.arange(6)
        samples = GroupBootstrap(range(300), 500).group_means(values, members)
        basic = basic_interval(gaps(samples))
        assert (basic["low"] <= basic["high"]).all()
        ranges.append((gaps(samples)[0, 0], basic["value"].item(), interval(gaps(samples))["value"].item()))
    plain, without_bias, value = np.mean(ranges, axis=0)
    assert plain == value > 0.3  # although no group differs from another
    assert without_bias < 0.75 * plain


def test_what_cannot_be_resampled_is_not_significant():
    samples = np.ones((101, 2))
    samples[3, 1] = np.nan
    assert interval(samples)["p"].tolist() == [pytest.approx(2 / 101), 1.0]


def test_missing_runs_are_said_to_be_missing(faces: pd.DataFrame):
    evidence = make_evidence(faces, multi=6.0, single=8.0, backbones=("custom_cnn", "mobilenet_v2"))
    verdicts = [finding.verdict for finding in all_findings(evidence)]
    assert verdicts[:6] == ["not finished (2 of 5 architectures)"] * 6
    assert all_findings(Evidence((), {})) == []
    lonely = Evidence(tuple(run for run in evidence.runs if run.tasks != ("race",)), {})
    assert paired_seeds(lonely, "custom_cnn", "a") == {}


def test_a_run_gives_the_split_that_it_is_asked_for(faces: pd.DataFrame):
    run = make_run(faces, "custom_cnn", TASKS, "long", 6.0)
    run.predictions.loc[:99, "split"] = "validation"
    table, groups = run.split("validation")
    assert len(table) == len(groups) == 100 and len(run.split("test")[0]) == len(faces) - 100


def test_seeds_are_paired_and_averaged(faces: pd.DataFrame):
    runs = []
    for seed in (0, 1, 2):
        runs.append(make_run(faces, "custom_cnn", TASKS, "short", 6.0, seed=seed))
        runs += [make_run(faces, "custom_cnn", (task,), "short", 8.0, seed=seed) for task in TASKS]
    table = multitask_differences(Evidence(tuple(runs), {}), "a").set_index("metric")
    seeds = table.loc["age_mae", "seeds"]
    assert len(seeds) == 3 and np.mean(seeds) == pytest.approx(table.loc["age_mae", "value"])
    assert lacking_pairs(Evidence(tuple(runs), {}), "a") == "of 3 seeds there are so far: MobileNetV3 0"
    longer = Evidence((make_run(faces, "custom_cnn", TASKS, "long", 5.0, seed=1), *runs), {})
    (pair,) = paired_seeds(longer, "custom_cnn", "b").items()
    assert pair[0] == 1 and {run.seed for run in (pair[1][0], *pair[1][1])} == {1}


def test_architectures_and_fronts(faces: pd.DataFrame):
    errors = dict(zip(BACKBONES, (5.0, 6.0, 6.0, 7.0, 8.0), strict=True))
    runs = tuple(make_run(faces, name, TASKS, "long", error) for name, error in errors.items())
    evidence = Evidence(runs, make_evidence(faces, 6, 6).bench)
    pairs = pair_differences(evidence)
    assert len(pairs) == 30
    assert set(against(pairs, "custom_cnn", "efficientnet_b3")) == {"better"}
    assert set(against(pairs, "efficientnet_b3", "custom_cnn")) == {"worse"}
    calls = against(pairs, "mobilenet_v3", "mobilenet_v2")
    assert len(calls) == 3 and set(calls) <= {"cannot tell", "no difference"}
    found = {finding.claim.rsplit(", ", 1)[-1]: finding for finding in all_findings(evidence)}
    assert found["in accuracy"].verdict == "not supported" and found["in efficiency"].verdict == "not supported"
    assert cost_table(evidence).loc["custom_cnn", "epoch_seconds"] == 10


@pytest.mark.parametrize(
    ("against_first", "against_second", "verdict"),
    [
        (("better", "better", "cannot tell"), ("better", "better", "better"), "supported"),
        (("better", "better", "worse"), ("better", "better", "better"), "cannot tell"),
        (("better", "cannot tell", "cannot tell"), ("better", "better", "better"), "cannot tell"),
        (("worse", "worse", "better"), ("better", "better", "better"), "not supported"),
    ],
)
def test_the_accuracy_of_a_newer_architecture(against_first: tuple, against_second: tuple, verdict: str):
    rows = [
        {"first": NEWER[0], "second": other, "metric": metric, "call": call}
        for other, calls in zip(OLDER, (against_first, against_second), strict=True)
        for metric, call in zip(MATTERS, calls, strict=True)
    ]
    assert verdict_accuracy(pd.DataFrame(rows), NEWER[0]) == verdict
    turned = pd.DataFrame(rows).rename(columns={"first": "second", "second": "first"})
    turned["call"] = turned["call"].replace({"better": "worse", "worse": "better"})
    assert verdict_accuracy(turned, NEWER[0]) == verdict


@pytest.mark.parametrize(
    ("on", "verdict"), [(12, "supported"), (11, "cannot tell"), (7, "cannot tell"), (6, "not supported")]
)
def test_the_efficiency_of_a_newer_architecture(on: int, verdict: str):
    assert OFF_FRONTS == 6  # of twelve, as the protocol has it
    assert verdict_efficiency(pd.DataFrame({"a": [True] * on + [False] * (12 - on)}), "a") == verdict


def test_every_training_of_one_architecture_against_every_one_of_the_other(faces: pd.DataFrame):
    errors = {"custom_cnn": (5.0, 5.2, 7.0), "mobilenet_v2": (6.5, 6.6, 8.0), "mobilenet_v3": (9.0,)}
    runs = [
        make_run(faces, name, TASKS, "long", error, seed=seed)
        for name, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    ]
    evidence = Evidence(tuple(runs), {})
    pairs = pair_differences(evidence).set_index(["first", "second", "metric"])
    close, far = (pairs.loc[("custom_cnn", name, "age_mae")] for name in ("mobilenet_v2", "mobilenet_v3"))
    assert len(close["seeds"]) == 9 and len(far["seeds"]) == 3
    assert close["p_holm"] < 0.05 and close["call"] == "cannot tell"  # 7.0 of one lies above 6.5 of the other
    assert far["call"] == "better"
    twice = Evidence((*runs, make_run(faces, "custom_cnn", TASKS, "long", 5.0)), {})
    with pytest.raises(InputError, match="two long runs of one seed"):
        twice.select("long", "custom_cnn")


def test_accuracy_has_a_verdict_without_timings(faces: pd.DataFrame):
    runs = make_evidence(faces, 6, 6).runs
    untimed = Evidence(runs, {})
    assert find_accuracy(untimed).verdict in ("not supported", "cannot tell")
    assert "agr bench" in find_efficiency(untimed).verdict


def test_pareto_front_by_hand():
    costs = pd.Series({"cheap": 1.0, "middle": 2.0, "bad": 2.0, "dear": 9.0})
    errors = pd.Series({"cheap": 7.0, "middle": 5.0, "bad": 6.0, "dear": 5.0})
    assert on_front(costs, errors, more_is_better=False).to_dict() == {
        "cheap": True, "middle": True, "bad": False, "dear": True,
    }  # fmt: skip
    assert not on_front(costs, -errors - costs / 10, more_is_better=True)["dear"]


def test_group_tables_name_small_groups_without_a_number(faces: pd.DataFrame):
    small = faces[(faces["race"] != 4) | (np.arange(len(faces)) % 30 == 0)].reset_index(drop=True)
    table = make_run(small, "custom_cnn", TASKS, "long", 6.0)
    table = table.predictions
    by_race = group_table(table, SCHEME, "race")
    assert by_race.index.tolist() == list(SCHEME.race)
    assert 0 < by_race.loc["other", "count"] < 30 and by_race.loc["other"].drop("count").isna().all()
    errors = error_rows(table)
    asian = (table["race"] == 2).fillna(False)
    some = table.assign(age=table["age"].where(~asian | (asian.cumsum() <= 20)))  # many of a group, few with the label
    lacking = group_table(some, SCHEME, "race").loc["asian"]
    assert np.isnan(lacking["age_mae"]) and lacking["gender_error"] == by_race.loc["asian", "gender_error"]
    found = group_intervals(some, SCHEME, "race", GroupBootstrap(some.index, 20))
    assert "asian" not in set(found[found["error"] == "age_mae"]["group"])
    assert found.set_index(["error", "group"])["count"]["gender_error", "asian"] == asian.sum()
    assert by_race.loc["asian", "age_mae"] == pytest.approx(errors.loc[asian, "age_mae"].mean())
    assert "other" not in group_members(table, SCHEME, "race")
    crossed = group_table(table, SCHEME, "gender x race")
    assert crossed["count"].sum() == table["race"].notna().sum()
    assert [len(group_members(table, SCHEME, grouping).columns) for grouping in GROUPINGS] == [2, 4, 9, 8]


def test_ece_is_that_of_torchmetrics(faces: pd.DataFrame):
    rng = np.random.default_rng(0)
    table = make_run(faces, "custom_cnn", TASKS, "long", 10.0).predictions
    p = rng.dirichlet([0.5] * 5, len(table))
    table[probability_columns(table, "race")] = p
    ours = sample_ece(table, "race", GroupBootstrap(range(len(table)), 50))
    known = table["race"].notna().to_numpy()
    codes = torch.from_numpy(table.loc[known, "race"].to_numpy(dtype=int))
    theirs = multiclass_calibration_error(torch.from_numpy(p[known]), codes, num_classes=5, n_bins=15)
    assert ours.shape == (51,) and ours[0] == pytest.approx(theirs.item(), rel=1e-5)
    bins = reliability(table, "race")
    assert bins["count"].sum() == known.sum()
    accuracy = (p[known].argmax(axis=1) == codes.numpy()).mean()
    assert (bins["accuracy"] * bins["count"]).sum() / known.sum() == pytest.approx(accuracy)
    assert (bins["confidence"] * bins["count"]).sum() / known.sum() == pytest.approx(p[known].max(axis=1).mean())


def test_coverage_and_every_metric_of_a_run(faces: pd.DataFrame):
    table = make_run(faces, "custom_cnn", TASKS, "long", 6.0, hard=1.0).predictions
    bootstrap = GroupBootstrap(range(len(table)), 500)
    by_race = coverage_table(table, group_members(table, SCHEME, "race"), bootstrap)
    assert by_race.loc["asian", "value"] == pytest.approx(0.9, abs=0.04)
    assert by_race.loc["indian", "high"] < 0.9  # twice the error, the same interval
    assert by_race["width"].to_numpy() == pytest.approx(2 * 1.645 * 6, rel=1e-6)
    result = evaluate_table(table, bootstrap)
    scores = score_rows(table)
    assert result.loc["age_mae", "value"] == pytest.approx(scores["age_mae"].mean())
    by_class = scores["race_accuracy"].groupby(table["race"]).mean()
    assert result.loc["race_balanced_accuracy", "value"] == pytest.approx(by_class.mean())
    by_band = scores["age_mae"].groupby(age_band(table["age_min"]), observed=True).mean()
    assert result.loc["age_macro_mae", "value"] == pytest.approx(by_band.mean())
    inside = (table["age_lo"] <= table["age"]) & (table["age"] <= table["age_hi"])
    assert result.loc["age_coverage", "value"] == pytest.approx(inside[table["age"].notna()].mean())
    by_gender = scores["gender_accuracy"].groupby(table["gender"]).mean()
    assert result.loc["gender_balanced_accuracy", "value"] == pytest.approx(by_gender.mean())
    for grouping in ("race", "gender"):
        means = group_table(table, SCHEME, grouping)
        found = group_intervals(table, SCHEME, grouping, bootstrap)
        for _, row in found.iterrows():
            assert row["value"] == pytest.approx(means.loc[row["group"], row["error"]])
            assert row["low"] <= row["value"] <= row["high"] and row["count"] == means.loc[row["group"], "count"]
    assert (result["low"] <= result["high"]).all()
    alone = evaluate_table(table.drop(columns=["age_pred", "age_lo", "age_hi", "gender_p"]), bootstrap)
    assert alone.index.tolist() == ["race_accuracy", "race_balanced_accuracy", "race_ece"]


def test_faces_without_a_label_are_in_no_group(faces: pd.DataFrame):
    whole = make_run(faces, "custom_cnn", TASKS, "long", 6.0).predictions
    bootstrap = GroupBootstrap(range(len(whole)), 50)
    for column, grouping in (("race", "race"), ("gender", "gender x race"), ("age_min", "age band")):
        table = whole.copy()
        table.loc[::3, column] = pd.NA
        kept = table[table[column].notna()]
        expected = group_members(kept, SCHEME, grouping).sum()
        members = group_members(table, SCHEME, grouping)
        pd.testing.assert_series_equal(members.sum(), expected)
        assert not members[table[column].isna()].any(axis=None)
        found = group_intervals(table, SCHEME, grouping, bootstrap)
        expected = group_intervals(kept, SCHEME, grouping, GroupBootstrap(range(len(kept)), 50))
        assert found["value"].to_numpy() == pytest.approx(expected["value"].to_numpy())
        assert coverage_table(table, members, bootstrap)["count"].tolist() == members.sum().tolist()


def test_without_a_group_of_enough_faces_there_are_no_rows(faces: pd.DataFrame):
    few = make_run(faces, "custom_cnn", TASKS, "long", 6.0).predictions.iloc[:12]
    none = few.assign(race=pd.array([pd.NA] * 12, dtype="Int8"), gender=pd.array([pd.NA] * 12, dtype="Int8"))
    bootstrap = GroupBootstrap(range(12), 20)
    for table in (few, none):
        for grouping in GROUPINGS:
            members = group_members(table, SCHEME, grouping)
            assert members.shape == (12, 0)
            assert group_intervals(table, SCHEME, grouping, bootstrap).empty
            assert coverage_table(table, members, bootstrap).empty
            samples, names = sample_groups(bootstrap, [error_rows(table)], table, SCHEME, grouping)
            assert names == [] and np.isnan(gaps(samples)).all() and np.isnan(worst(samples)).all()
    assert group_table(none, SCHEME, "gender x race").empty
    assert group_table(few, SCHEME, "race").drop(columns="count").isna().all(axis=None)


def test_a_gap_is_one_between_groups_that_have_a_value():
    by_group = np.array([[1.0, 4.0, np.nan], [2.0, 7.0, 3.0], [np.nan, 5.0, np.nan]])
    assert gaps(by_group)[:2].tolist() == [3.0, 5.0] and np.isnan(gaps(by_group)[2])  # a resample lost a whole group
    assert np.isnan(gaps(by_group[:, 1:])).all()  # one group has no gap
    assert worst(-by_group)[:2].tolist() == [4.0, 7.0]


def test_a_class_that_some_resamples_lose_does_not_cost_the_interval(faces: pd.DataFrame, caplog):
    table = make_run(faces, "custom_cnn", TASKS, "long", 6.0).predictions.iloc[:200].reset_index(drop=True)
    table["race"] = pd.array([0] * 198 + [1, 1], dtype="Int8")
    bootstrap = GroupBootstrap(range(200), 400)
    row = evaluate_table(table, bootstrap).loc["race_balanced_accuracy"]
    right = score_rows(table)["race_accuracy"].to_numpy()
    both = np.stack([bootstrap.means(right[part, None], part)[:, 0] for part in (np.arange(198), np.arange(198, 200))])
    values = both.mean(axis=0)[1:]
    lost = np.isnan(values)
    assert 0.05 < lost.mean() < 0.25  # about exp(-2)
    assert row["resamples"] == (~lost).sum() and f"of 400 resamples only {(~lost).sum()}" in caplog.text
    assert row[["low", "high"]].tolist() == pytest.approx(np.quantile(values[~lost], [0.025, 0.975]))


def test_the_calibration_error_of_a_calibrated_model_is_no_finding(faces: pd.DataFrame):
    table = make_run(faces, "custom_cnn", TASKS, "long", 6.0).predictions
    rng, ours, null = np.random.default_rng(0), [], []
    for _ in range(20):
        certainty = rng.uniform(0.5, 1, len(table))
        table["gender_p"] = np.where(
            (rng.random(len(table)) < certainty) == table["gender"].astype(bool), certainty, 1 - certainty
        )
        ours.append(sample_ece(table, "gender", GroupBootstrap(range(len(table)), 5))[0])
        null.append(null_ece(table, "gender", 100))
    assert np.mean(ours) == pytest.approx(np.mean(null), rel=0.1)
    inside = [
        np.quantile(draws[1:], 0.025) <= value <= np.quantile(draws[1:], 0.975)
        for value, draws in zip(ours, null, strict=True)
    ]
    assert np.mean(inside) >= 0.8
    table["gender_p"] = 0.1 + 0.8 * table["gender"].astype(float)  # right always, and only 90 % sure
    row = evaluate_table(table, GroupBootstrap(range(len(table)), 200)).loc["gender_ece"]
    assert row["value"] == pytest.approx(0.1) and np.quantile(null_ece(table, "gender"), 0.975) < 0.02


def test_an_ece_lies_inside_its_interval_and_not_at_its_end(faces: pd.DataFrame):
    table = make_run(faces, "custom_cnn", TASKS, "long", 6.0).predictions
    certainty = np.random.default_rng(1).uniform(0.5, 1, len(table))
    right = np.random.default_rng(2).random(len(table)) < certainty - 0.02
    table["gender_p"] = np.where(right == table["gender"].astype(bool), certainty, 1 - certainty)
    bootstrap = GroupBootstrap(range(len(table)), 500)
    row, samples = evaluate_table(table, bootstrap).loc["gender_ece"], sample_ece(table, "gender", bootstrap)
    low, high = np.quantile(samples[1:], [0.025, 0.975])
    assert row["value"] == samples[0] < np.median(samples[1:])  # noise only ever adds
    assert row[["low", "high"]].tolist() == pytest.approx([max(0, 2 * samples[0] - high), 2 * samples[0] - low])


def test_what_is_kept_cannot_be_changed_by_who_is_given_it(faces: pd.DataFrame):
    evidence = make_evidence(faces, 6.0, 6.5, list(BACKBONES)[:2])
    for give in (
        lambda: multitask_differences(evidence, "a"),
        lambda: gap_differences(evidence, "a"),
        lambda: pair_differences(evidence),
        lambda: evidence.faces,
        lambda: evidence.scores(evidence.runs[:1], score_rows)[0],
    ):
        given, before = give(), give()
        given[given.columns[0]] = None
        pd.testing.assert_frame_equal(give(), before)
    with pytest.raises(ValueError, match="read-only"):
        evidence.bootstrap._weights[1][:] = 0

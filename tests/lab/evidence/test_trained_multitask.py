"""C1 and C2 of the second protocol on made-up trainings whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from agr_lab.evidence.architectures.trained import front_probabilities
from agr_lab.evidence.multitask import trained_multitask as second
from agr_lab.evidence.reading import Evidence
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.fairness import error_rows
from agr_utils.measure.results import Run
from agr_utils.tasks import TASKS

NUM_FACES = 900
RNG = np.random.default_rng(5)
FACES = pd.DataFrame(
    {
        "age": RNG.integers(0, 90, NUM_FACES),
        "gender": RNG.integers(0, 2, NUM_FACES),
        "race": RNG.integers(0, 5, NUM_FACES),
    }
).assign(age_min=lambda t: t["age"], age_max=lambda t: t["age"] + 1, split="test", image_id=lambda t: t.index.map(str))
HARD = (FACES["gender"] == 1).to_numpy()


def make_run(backbone: str, tasks: tuple, seed: int, error: float, unequal: float) -> Run:
    """A training that errs by ``error`` years on average, more on the faces of one gender by the factor ``unequal``."""
    rng = np.random.default_rng([seed, len(tasks), len(backbone), int(100 * error)])
    factor = np.where(HARD, unequal, 1.0)
    factor /= factor.mean()
    table = FACES.assign(run_id="made-up")
    if "age" in tasks:
        table["age_pred"] = FACES["age"] + error * factor * rng.choice([-1, 1], NUM_FACES) * rng.uniform(
            0.5, 1.5, NUM_FACES
        )
    wrong = rng.random(NUM_FACES) < error / 40 * factor
    if "gender" in tasks:
        table["gender_p"] = np.where(wrong, 1 - FACES["gender"], FACES["gender"]) * 0.8 + 0.1
    if "race" in tasks:
        code = np.where(wrong, (FACES["race"] + 1) % 5, FACES["race"])
        table[[f"race_p{n}" for n in range(5)]] = np.where(code[:, None] == np.arange(5), 0.8, 0.05)
    config = {
        "backbone": backbone,
        "tasks": list(tasks),
        "seed": seed,
        "data": "utkface",
        "num_epochs": 20,
        "image_size": 96,
    }
    about = {"config": config, "job": {"epochs": 20}, "weights_source": "from scratch", "precision": "bf16"}
    size = 1_000_000 * (1 + len(backbone))
    return Run(f"{backbone}-s{seed}", about | {"parameters": size, "macs": size}, pd.DataFrame(), table)


def make_evidence(
    multi: tuple[float, float], single: tuple[float, float], names=("custom_cnn", "mobilenet_v3")
) -> Evidence:
    runs = [make_run(name, TASKS, seed, *multi) for name in names for seed in (1, 2, 3)]
    runs += [make_run(name, (task,), seed, *single) for name in names for seed in (1, 2, 3) for task in TASKS]
    return Evidence(tuple(runs), {}, tuple(runs))


@pytest.fixture(autouse=True)
def clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up faces are in no committed split."""
    monkeypatch.setattr(second, "groups_of", lambda names: pd.Series(range(len(names))))


def test_what_multitask_learning_changes_is_found_and_averaged():
    evidence = make_evidence(multi=(6.0, 1.0), single=(8.0, 1.0))
    pairs = second.paired_frames(evidence, "a", second.score_rows)
    assert second.is_complete(pairs, ("custom_cnn", "mobilenet_v3")) and not second.is_complete(pairs)
    table = second.multitask_improvements(pairs, pd.Series(range(NUM_FACES))).set_index(["name", "metric"])
    assert set(table.loc["custom_cnn", "call"][["age_mae"]]) == {"better"}
    assert table.loc[("mean", "age_mae"), "value"] == pytest.approx(2, abs=0.15)
    by_name = table["value"].sort_index().drop("mean").groupby("metric").mean()
    assert by_name[list(MATTERS)].to_numpy() == pytest.approx(table.loc["mean", "value"][list(MATTERS)].to_numpy())


def test_a_seed_counts_when_all_four_models_are_there():
    evidence = make_evidence(multi=(6.0, 1.0), single=(6.0, 1.0), names=("custom_cnn",))
    fewer = Evidence(
        evidence.runs, {}, tuple(run for run in evidence.trained if (run.seed, run.tasks) != (2, ("race",)))
    )
    pairs = second.paired_frames(fewer, "a", second.score_rows)
    assert len(pairs["custom_cnn"]) == 2
    assert second.paired_frames(fewer, "b", second.score_rows) == {}
    table = second.multitask_improvements(pairs, pd.Series(range(NUM_FACES)))
    assert list(table["name"].unique()) == ["custom_cnn"]  # no mean while a seed is missing
    text = second.trained_multitask_table(fewer)
    assert "(a) equal epochs: 2 of 15 pairs" in text and "| (a) equal epochs | Custom CNN | 2 |" in text
    assert not any(call in text for call in ("better", "worse", "cannot tell"))


def test_a_pair_is_made_on_one_kind_of_device():
    evidence = make_evidence(multi=(6.0, 1.0), single=(8.0, 1.0), names=("custom_cnn",))
    moved = [run for run in evidence.trained if run.seed == 3]

    def on_a_cpu(*numbers: int) -> Evidence:
        copies = [replace(run, about=run.about | {"precision": "fp32"}) for run in map(moved.__getitem__, numbers)]
        kept = [run for run in evidence.trained if (run.seed, run.tasks) != (3, ("race",))]
        return Evidence((), {}, (*kept, *copies))

    for numbers, pairs in (((3,), 2), ((1, 2, 3), 2), ((0, 1, 2, 3), 3)):
        assert len(second.paired_frames(on_a_cpu(*numbers), "a", second.score_rows)["custom_cnn"]) == pairs


@pytest.mark.parametrize(("multi", "single", "calls"), [(1.0, 2.0, {"better"}), (2.0, 1.0, {"worse"})])
def test_gaps_relative_to_the_error_are_told_from_lower_errors(multi: float, single: float, calls: set):
    evidence = make_evidence(multi=(6.0, multi), single=(9.0, single))  # errs less either way
    pairs = second.paired_frames(evidence, "a", error_rows)
    samples = second.relative_gaps(pairs, FACES, GroupBootstrap(range(NUM_FACES), 4_000), seed=1)
    called = second.call_gaps(samples).set_index(["error", "grouping"])
    assert len(called) == 16 and called.loc[("age_mae", "gender"), "call"] in calls
    again = second.relative_gaps(pairs, FACES, GroupBootstrap(range(NUM_FACES), 4_000), seed=1)
    assert again.equals(samples)


def test_a_p_value_at_the_threshold_is_undecided():
    clear = np.concatenate([[1.0], np.full(999, 1.0), [-1.0]])
    edge = np.concatenate([[1.0], np.full(975, 1.0), np.full(25, -1.0)])
    calls = [second.call_gaps(pd.DataFrame({("age_mae", "gender"): column}))["call"].item() for column in (clear, edge)]
    assert calls == ["better", "cannot tell"]


@pytest.mark.parametrize(
    ("families", "verdict"),
    [
        (("better", "better", "cannot tell", "cannot tell"), "supported"),
        (("better", "better", "worse", "cannot tell"), "cannot tell"),
        (("better", "worse", "worse", "cannot tell"), "not supported"),
        (("cannot tell",) * 4, "not supported"),
        (("better", "cannot tell", "cannot tell", "cannot tell"), "cannot tell"),
    ],
)
def test_the_rule_of_c2(families: tuple, verdict: str):
    table = pd.DataFrame({"error": list("abcd") * 2, "call": [*families, *["cannot tell"] * 4]})
    assert second.verdict_relative_gaps(table) == verdict


def test_a_network_that_costs_more_and_errs_more_is_on_no_front(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agr_lab.evidence.reading.groups_of", lambda names: pd.Series(range(len(names))))
    monkeypatch.setattr("agr_utils.measure.results.clusters_of", lambda table: pd.Series(range(len(table))))
    runs = [make_run(name, TASKS, seed, error, 1.0) for name, error in (("resnet18", 5.0), ("mobilenet_v2", 7.0))
            for seed in (1, 2)]  # fmt: skip
    row = {"way": "onnx", "image_size": 96, "batch_size": 1, "threads": 1, "network": "x", "cpu": "old", "fast": 0.01,
           "slow": 0.01}  # fmt: skip
    bench = {"deploy": pd.DataFrame([row | {"backbone": name} for name in ("resnet18", "mobilenet_v2")])}
    table = front_probabilities(Evidence((), bench, tuple(runs)), 100)
    assert len(table) == 9 and (table["resnet18"] == 1).all()
    assert table.loc[[("MACs", "age_mae"), ("latency, old", "age_mae")], "mobilenet_v2"].tolist() == [0, 0]
    assert front_probabilities(Evidence((), {}, tuple(runs))).empty
    # Each device has its latency; one that did not time every network is left out.
    bench["deploy_new"] = bench["deploy"].assign(cpu="new")
    bench["deploy_part"] = bench["deploy"].head(1).assign(cpu="part")
    found = front_probabilities(Evidence((), bench, tuple(runs)), 100)
    assert {cost for cost, _ in found.index} == {"parameters", "MACs", "latency, old", "latency, new"}
    # A network that errs more is on the front of latency only where it is certainly faster.
    rounds = bench["deploy"].set_index("backbone")
    for fast, slow, share in ((0.008, 0.009, 1), (0.008, 0.0101, 0)):
        rounds.loc["mobilenet_v2", ["fast", "slow"]] = fast, slow
        found = front_probabilities(Evidence((), {"deploy": rounds.reset_index()}, tuple(runs)), 100)
        assert found.loc[[("latency, old", "age_mae")], "mobilenet_v2"].item() == share

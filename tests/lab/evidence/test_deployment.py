"""C4's rule on made-up measurements whose verdict is known, and the interval that is calibrated from quantiles."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from agr_lab.evidence.architectures.deployment import (
    deployment_table,
    describe_choice,
    judge_device,
    verdict_of_devices,
)
from agr_lab.evidence.groups.coverage import calibrated_by_quantiles
from agr_lab.evidence.reading import Evidence
from agr_utils.deploy.calibrate import QUANTILES
from agr_utils.measure.calibration import covered
from agr_utils.measure.comparisons import MATTERS

ANSWERS = {"age_mae": 5.0, "gender_accuracy": 0.92, "race_accuracy": 0.82}


def measured(**changes: dict) -> pd.DataFrame:
    """Two networks, three ways each; ``changes`` by backbone and way, as in ``mobilenet_v3_int8={...}``."""
    rows = []
    for backbone in ("mobilenet_v3", "mobilenet_v2"):
        for way, seconds in (("eager", 0.020), ("onnx", 0.005), ("int8", 0.004)):
            row = {"network": f"utkface-{backbone}-96px-s1", "backbone": backbone, "way": way, "image_size": 96}
            row |= {"batch_size": 1, "threads": 1, "seconds": seconds, "megabytes": 4.0, "peak_mib": 100.0}
            row["p95"] = seconds
            row |= ANSWERS | changes.get(f"{backbone}_{way}", {})
            rows.append(row | {"fast": 0.99 * row["seconds"], "slow": 1.01 * row["seconds"], "images_per_second": 1.0})
    return pd.DataFrame(rows).assign(cpu="made-up", cores=2, int8_flags="avx2", onnxruntime="1", torch="2")


def calls(call: str | None) -> pd.DataFrame:
    """What MobileNetV3 is called against MobileNetV2 in each task; nothing where they were not compared."""
    table = pd.DataFrame({"first": "mobilenet_v3", "second": "mobilenet_v2", "metric": list(MATTERS), "call": call})
    return table if call else table.iloc[:0]


@pytest.mark.parametrize(
    ("changes", "call", "lines", "verdict"),
    [
        ({}, "cannot tell", (True, True, True), "supported"),
        ({"mobilenet_v3_int8": {"megabytes": 4.6}}, "cannot tell", (False, True, True), "cannot tell"),
        ({"mobilenet_v3_int8": {"age_mae": 5.2}}, "better", (False, True, True), "cannot tell"),
        ({"mobilenet_v3_int8": {"age_mae": 5.2}}, "cannot tell", (False, True, False), "not supported"),  # V2's int8
        ({"mobilenet_v3_onnx": {"seconds": 0.008}}, "cannot tell", (True, False, True), "cannot tell"),
        ({"mobilenet_v2_int8": {"seconds": 0.003}}, "cannot tell", (True, True, False), "not supported"),
        ({"mobilenet_v2_int8": {"seconds": 0.0038}}, "worse", (True, True, True), "supported"),  # less than a tenth
        ({"mobilenet_v2_int8": {"seconds": 0.003}}, "better", (True, True, True), "supported"),  # faster and worse
        ({"mobilenet_v2_int8": {"seconds": 0.003, "megabytes": 9}}, "worse", (True, True, True), "supported"),
        # The file that fits is slower than the fastest way: which of the two counts decides, so nothing is decided.
        (
            {"mobilenet_v3_onnx": {"seconds": 0.003}, "mobilenet_v2_int8": {"seconds": 0.0031}},
            "cannot tell",
            (True, True, None),
            "cannot tell",
        ),
        ({"mobilenet_v2_int8": {"seconds": 0.003}}, None, (True, True, None), "cannot tell"),  # not compared
    ],
)
def test_the_rule_of_c4(changes: dict, call: str, lines: tuple, verdict: str):
    judged = judge_device(measured(**changes), calls(call))
    row = judged.loc["mobilenet_v3"]
    assert (row["fits"], row["fast"], row["chosen"]) == lines
    assert verdict_of_devices({"made-up": judged}) == verdict


def test_int8_that_costs_too_much_is_not_the_fastest_way():
    judged = judge_device(measured(mobilenet_v3_int8={"race_accuracy": 0.81}), calls("cannot tell"))
    assert judged.loc["mobilenet_v3", ["way", "seconds"]].tolist() == ["onnx", 0.005]


def test_a_verdict_needs_every_device():
    good = judge_device(measured(), calls("cannot tell"))
    bad = judge_device(measured(mobilenet_v2_int8={"seconds": 0.003}), calls("cannot tell"))
    assert verdict_of_devices({"a": good, "b": bad}) == "cannot tell" == verdict_of_devices({})


def test_the_second_reading_is_told_where_it_differs():
    """MobileNetV3 is fastest with the file that fits; of MobileNetV2 it is the float file that beats it."""
    same = judge_device(measured(), calls("cannot tell")).loc["mobilenet_v3"]
    assert describe_choice(same).count(" ms ") == 1
    table = measured(mobilenet_v2_onnx={"seconds": 0.003})
    told = describe_choice(judge_device(table, calls("cannot tell")).loc["mobilenet_v3"]).split("; ")
    assert "MobileNetV2 is faster" in told[0] and "no other network" in told[1]


def test_the_table_has_a_row_for_every_way():
    table = deployment_table(Evidence((), {"deploy": measured(), "deploy_b": measured().assign(cpu="another")}))
    assert table.count("| MobileNetV3 |") == 6 and "another, 2 cores" in table
    assert "Not measured yet" in deployment_table(Evidence((), {}))


def test_intervals_from_quantiles_that_are_too_narrow_hold_what_they_promise():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(20, 60, 8_000)
    table = pd.DataFrame({"age": predicted + rng.normal(0, 6, 8_000), "age_pred": predicted})
    for level in QUANTILES:  # of a model that thinks it errs by 5.2 years
        table[f"age_q{level:.3f}"] = predicted + 5.2 * norm.ppf(level)
    table["split"] = ["validation", "test"] * 4_000
    found = calibrated_by_quantiles(table)
    assert len(found) == 4_000 and covered(found).mean() == pytest.approx(0.9, abs=0.015)
    assert (found["age_hi"] - found["age_lo"]).mean() == pytest.approx(2 * 1.645 * 6, rel=0.1)

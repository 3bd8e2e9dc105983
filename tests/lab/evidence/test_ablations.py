"""Ablations: changes against the usual setting, paired by face, and how far gradients agree."""

import numpy as np
import pandas as pd
import pytest

from agr_lab.evidence.markdown import NOT_YET
from agr_lab.evidence.multitask.ablations import ablation_table, draw_age_heads, setting_table
from agr_lab.evidence.multitask.conflict import conflict_table, gradient_agreement
from agr_utils.errors import InputError
from agr_utils.measure.metrics import summarize
from agr_utils.measure.results import Run
from agr_utils.models.age_heads import AGE_HEADS

NUM_FACES = 300


def make_run(
    weights: dict[str, float], error: float, order: int = 1, history: pd.DataFrame | None = None, **changed
) -> Run:
    """A run whose ages are off by ``error`` years more than a difficulty that all runs share."""
    rng = np.random.default_rng(0)
    hard = rng.exponential(4, NUM_FACES)
    ids = [f"face-{number}" for number in range(NUM_FACES)]
    table = pd.DataFrame({"image_id": ids, "split": "validation", "age": 30, "age_pred": 30 + hard + error})
    table = table.astype({"image_id": "string", "age": "Int64"})[::order]
    config = {"balancing": "fixed", "task_weights": {"age": 1.0, "gender": 1.0} | weights} | changed
    about = {"config": config, "precision": "no"}
    return Run("made-up", about, pd.DataFrame() if history is None else history, table)


def test_a_setting_is_compared_with_the_usual_one_face_by_face():
    usual, better = make_run({}, 1.0), make_run({"age": 3.0}, 0.5, order=-1)  # rows in another order
    table = setting_table([better, usual], "balancing").query("metric == 'age_mae'").set_index("setting")
    assert list(table.index) == ["equal weights", "age × 3"]
    assert np.isnan(table.loc["equal weights", "value"])
    expected = summarize(*better.split("validation")).loc["age_mae", "value"]
    assert table.loc["age × 3", "absolute"] == pytest.approx(expected)
    # Half a year less on every face, whatever its difficulty: paired, there is nothing to be unsure of.
    assert table.loc["age × 3", ["value", "low", "high"]].tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_without_the_usual_setting_there_is_no_change():
    table = setting_table([make_run({"age": 3.0}, 0.5)], "balancing")
    assert table["absolute"].notna().all() and table["value"].isna().all()
    assert ablation_table({"balancing": [make_run({"age": 3.0}, 0.5)]}, "balancing", "Weights").count("\n") == 2
    assert ablation_table({}, "balancing", "Weights") == NOT_YET and setting_table([], "balancing").empty


def test_every_way_to_ask_for_an_age_is_compared_with_the_distribution():
    errors = {"distribution": 1.0, "classification": 2.0, "regression": 0.5, "ordinal": 1.0}
    assert set(errors) == set(AGE_HEADS)
    runs = [make_run({}, error, age_head=name) for name, error in errors.items()]
    table = setting_table(runs, "age_heads").query("metric == 'age_mae'").set_index("setting")
    assert list(table.index) == ["distribution", "classification", "ordinal", "regression"]
    assert table["value"].tolist()[1:] == pytest.approx([-1.0, 0.0, 0.5])
    lines = ablation_table({"age_heads": runs}, "age_heads", "Age head").splitlines()
    assert len(lines) == 2 + 4 and "(-1.00 [-1.00, -1.00])" in lines[3] and "(+0.50 [+0.50, +0.50])" in lines[5]
    drawn, _ = draw_age_heads({"age_heads": runs})
    labels = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert labels == ["classification", "ordinal", "regression"] and len(drawn.axes) == 2


def test_runs_that_differ_in_more_than_the_setting_are_refused():
    usual, other = make_run({}, 1.0), make_run({"age": 3.0}, 0.5)
    other.about["precision"] = "bf16"
    with pytest.raises(InputError, match="another precision"):
        setting_table([usual, other], "balancing")
    with pytest.raises(InputError, match="another seed"):
        setting_table([usual, make_run({"age": 3.0}, 0.5, seed=1)], "balancing")
    with pytest.raises(InputError, match="two runs of one setting, equal weights"):
        setting_table([usual, make_run({}, 0.5)], "balancing")


def test_gradients_agree_on_average_over_the_steps():
    history = pd.DataFrame(
        {"epoch": [1, 2, 2.5], "step": [100, 200, 250], "cosine_age_gender": [0.1, 0.3, -0.2]}
        | {"conflict_age_gender": [0.5, 0.0, 1.0]}
    )
    table = gradient_agreement(history).set_index("measure")
    assert table.loc["cosine", "value"] == pytest.approx((0.1 * 100 + 0.3 * 100 - 0.2 * 50) / 250)
    assert table.loc["conflict", "value"] == pytest.approx(0.4)
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    unmeasured = {"epoch": 2.51, "step": 251, "cosine_age_gender": np.nan, "conflict_age_gender": np.nan}
    longer = pd.concat([history, pd.DataFrame([unmeasured])], ignore_index=True)
    pd.testing.assert_frame_equal(gradient_agreement(longer).set_index("measure"), table)
    run = make_run({}, 1.0, history=history)
    assert "| age and gender | +0.12 [" in conflict_table({"balancing": [make_run({"age": 3.0}, 1.0), run]})
    assert conflict_table({"balancing": [make_run({}, 1.0)]}) == NOT_YET

"""C3 by the second protocol: the published trainings, recomputed another way."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from agr_lab.evidence.architectures.task_weights import draw_task_weights, tuned, tuning_table
from agr_lab.evidence.architectures.trained import independence, multitask_trainings, trained_differences
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.gpu import protocol
from agr_utils.machine import repository_root

EVIDENCE = read_evidence(repository_root() / "results")
TRAININGS = multitask_trainings(EVIDENCE)
TABLE = trained_differences(EVIDENCE).set_index(["first", "second", "metric"])


def test_every_training_answers_the_same_faces():
    faces = [run.split("test")[0]["image_id"].tolist() for runs in TRAININGS.values() for run in runs]
    assert len(faces[0]) == 4256 and all(one == faces[0] for one in faces)


@pytest.mark.parametrize("second", ["mobilenet_v2", "resnet18", "custom_cnn"])
def test_the_difference_in_age_is_that_of_the_mean_errors(second):
    errors = {}
    for name in ("efficientnet_b3", second):
        tables = [run.split("test")[0] for run in TRAININGS[name]]
        errors[name] = np.mean([(t["age_pred"] - t["age"]).abs().mean() for t in tables])
    row = TABLE.loc["efficientnet_b3", second, "age_mae"]
    assert row["value"] == pytest.approx(errors[second] - errors["efficientnet_b3"], abs=1e-4)


def test_intervals_are_wider_than_those_of_faces_alone():
    assert (TABLE["high"] - TABLE["low"] > 2 * 1.95 * TABLE["faces_error"]).all()
    assert (TABLE["p_holm"] >= TABLE["p"]).all()


def test_no_training_at_all_gives_an_empty_table():
    assert trained_differences(Evidence((), {})).empty


def test_pairs_that_share_a_network_count_for_less():
    assert independence([("a", "x"), ("b", "y")]) == 1
    assert independence([("a", "x"), ("b", "x")]) == pytest.approx(0.8)
    assert independence([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]) == pytest.approx(2 / 3)


def test_what_validation_chose_is_drawn_and_said():
    def scored(mae: float) -> dict:
        return {"validation_mae": mae, "validation_gender": 0.9, "validation_race": 0.8}

    name, tasks = "mobilenet_v2", ("age", "gender", "race")
    trials = {job.name: scored(7 - job.learning_rate) for job in protocol.rate_jobs(name, tasks)}
    assert tuned(trials) == {} and "No finished runs" in tuning_table(trials)
    for key, job in zip(protocol.WEIGHTINGS, protocol.weight_jobs(name, 0.003), strict=True):
        trials[job.name] = scored(5 if key == "race3" else 6)
    for epochs, mae in zip(protocol.LENGTHS, (5.0, 4.0, 3.999), strict=True):
        trials[protocol.make_job(name, tasks, 0.003, epochs, 1, "race3").name] = scored(mae)
    cells = "5.00 / 90.0 / 80.0 | 4.00 / 90.0 / 80.0 | 4.00 / 90.0 / 80.0"
    assert f"| MobileNetV2 | 0.003 | race × 3 | {cells} | 20 epochs |" in tuning_table(trials)
    figure, table = draw_task_weights(trials)
    assert table.loc[table["chosen"], "weights"].tolist() == ["race × 3"] and len(table) == 6
    plt.close(figure)
    figure, table = draw_task_weights({})
    assert table.empty
    plt.close(figure)

"""C3 by the second protocol: the published trainings, recomputed another way."""

import numpy as np
import pytest

from agr_lab.evidence.architectures.trained import multitask_trainings, trained_differences
from agr_lab.evidence.reading import Evidence, read_evidence
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

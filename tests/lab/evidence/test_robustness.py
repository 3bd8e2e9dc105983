"""Changed faces, and what a sweep says of one model or of two."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from agr_lab.evidence.robustness.robustness_groups import group_differences
from agr_lab.evidence.robustness.severity import mean_errors_table
from agr_lab.evidence.robustness.sweeps import RobustnessEvidence, increase_differences
from agr_lab.reports.sweep_report import read_sweep, summarize_sweep, write_sweep
from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from agr_utils.data.load import FaceData
from agr_utils.data.splits import read_split_file, stable_numbers
from agr_utils.errors import InputError
from agr_utils.inside.sweep import Sweep, curve_table, sweep
from agr_utils.models.network import MultiTaskNet
from agr_utils.tasks import TASKS, get_scheme


@pytest.fixture(scope="module")
def images(drawn_faces) -> Tensor:
    return torch.from_numpy(drawn_faces.pixels).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_can_be_repeated(name: str, images: Tensor):
    before = images.clone()
    distances = []
    for severity in SEVERITIES:
        changed = corrupt(images, name, severity, data="synthetic")
        assert changed.shape == images.shape and changed.dtype == torch.float32
        assert changed.min() >= 0 and changed.max() <= 1
        assert torch.equal(changed, corrupt(images, name, severity, data="synthetic"))
        distances.append(float((changed - images).square().mean()))
    kept = 0.9 if name == "scale" else 1.0  # once hardly anything overlaps, a still smaller face differs by no more
    assert all(later >= kept * earlier for earlier, later in zip(distances, distances[1:], strict=False))
    assert 0 < distances[0] < 0.6 * distances[3]
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_face_is_changed_alike_in_any_batch(name: str, images: Tensor):
    whole = corrupt(images, name, 3, range(12))
    part = corrupt(images[5:7].contiguous(memory_format=torch.channels_last), name, 3, [5, 6])
    assert torch.allclose(whole[5:7], part, atol=1e-6)


def test_random_corruptions_differ_between_faces(images: Tensor):
    same = images[:1].expand(8, -1, -1, -1)
    for name in ("shade", "low_light", "rotation", "scale", "random_block"):
        changed = corrupt(same, name, 3)
        assert not all(torch.equal(changed[0], other) for other in changed[1:])
    for name in ("gamma", "contrast", "blur", "jpeg", "eye_bar", "mouth_block"):
        changed = corrupt(same, name, 3)
        assert torch.allclose(changed, changed[:1].expand(8, -1, -1, -1))


def test_bars_lie_where_the_data_set_has_eyes_and_mouth():
    white = torch.ones(1, 3, 100, 100)
    eyes = (corrupt(white, "eye_bar", 2, data="utkface")[0, 0, :, 50] < 1).nonzero()
    assert eyes.float().mean() == pytest.approx(28, abs=1)
    mouth = (corrupt(white, "mouth_block", 1, data="synthetic")[0, 0, :, 50] < 1).nonzero()
    assert mouth.float().mean() == pytest.approx(54, abs=1)


def test_unknown_corruptions_are_named(images: Tensor):
    with pytest.raises(InputError, match="unknown corruption 'blurr'. Did you mean: blur"):
        corrupt(images, "blurr", 1)
    with pytest.raises(InputError, match="severity is 6; choose 1"):
        corrupt(images, "blur", 6)


def test_a_sweep_of_a_model_is_read_back_as_it_was(data: FaceData, tmp_path: Path):
    torch.manual_seed(0)
    model = MultiTaskNet("custom_cnn", "synthetic").eval()
    rows = data.rows("test")
    table = sweep(model, data, rows, ["blur", "eye_bar"])
    assert len(table) == 11 * len(rows)
    assert list(table.columns) == ["image_id", "corruption", "severity", "age_signed", "gender_error", "race_error"]
    write_sweep(table, tmp_path / "robustness.parquet")
    first, again = Sweep(table), Sweep(read_sweep(tmp_path / "robustness.parquet"))
    assert first.conditions == again.conditions and first.conditions[0] == ("clean", 0)
    assert np.allclose(first.values, again.values, atol=0.051)
    assert np.isnan(first.values).sum() == 0 and first.corruptions == ["blur", "eye_bar"]
    assert list(summarize_sweep(table).index) == ["clean", "Blur", "Bar over the eyes"]
    single = sweep(MultiTaskNet("custom_cnn", "synthetic", ["gender"]).eval(), data, rows[:5], ["gamma"])
    assert Sweep(single).errors == ["gender_error"]
    with pytest.raises(InputError, match="no such file. Make it with: agr robustness"):
        read_sweep(tmp_path / "missing" / "robustness.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InputError, match="not a sweep"):
        read_sweep(tmp_path / "text.parquet")


def test_a_sweep_says_the_groups_that_no_file_knows(data: FaceData):
    data = replace(data, faces=data.faces.assign(source="fairface", group=data.faces.index // 2))
    table = sweep(MultiTaskNet("custom_cnn", "synthetic", ["gender"]).eval(), data, data.rows("test"), ["gamma"])
    known = data.faces.set_index("image_id").loc[table["image_id"], "group"]
    assert table["group"].tolist() == known.tolist()


def made_up(growth: dict[str, float], group_growth: float = 0.0, count: int = 400) -> pd.DataFrame:
    """A sweep in which each severity adds so many years, more for gender 1; a tenth of the races is wrong."""
    rng = np.random.default_rng(0)
    noise, extra = np.abs(rng.normal(5, 1, count)), group_growth * (np.arange(count) % 2)
    parts = []
    for name, severity in [("clean", 0), *((name, s) for name in growth for s in SEVERITIES)]:
        added = severity * growth.get(name, 0) + (extra if severity else 0)
        parts.append(
            pd.DataFrame(
                {
                    "image_id": [f"face-{number}" for number in range(count)],
                    "corruption": name,
                    "severity": severity,
                    "age_signed": noise + added,
                    "race_error": np.arange(count) % 10 == 0,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_bad_input_of_a_corruption_is_named(images: Tensor):
    with pytest.raises(InputError, match="expected .B, 3, H, W. float32 in .0, 1."):
        corrupt((images * 255).to(torch.uint8), "gamma", 1)
    with pytest.raises(InputError, match="1 seeds for 2 images"):
        corrupt(images[:2], "gamma", 1, seeds=[0])
    with pytest.raises(InputError, match="unknown data set 'celeba'. Choose one of: utkface"):
        corrupt(images[:2], "gamma", 1, data="celeba")


def test_a_sweep_that_lacks_rows_is_refused():
    table = made_up({"blur": 1.0}, count=10)
    for lacking in (table.iloc[:-1], table.drop(index=range(0, 60, 10)), table.drop(index=[3, 14])):
        if lacking["image_id"].value_counts().nunique() > 1:
            with pytest.raises(InputError, match="the same faces in every condition"):
                Sweep(lacking)
        else:
            assert len(Sweep(lacking).image_ids) == 9
    age, race = table.drop(columns="race_error"), table.drop(columns="age_signed")
    with pytest.raises(InputError, match="no error in common"):
        increase_differences([Sweep(age)], [Sweep(race)])


def test_a_face_is_numbered_alike_whatever_lies_beside_it():
    listed = read_split_file()["image_id"]
    assert stable_numbers(listed.iloc[[7, 3]]).tolist() == [7, 3]
    assert stable_numbers(pd.Series(["unknown-a", listed[5], "unknown-b"])).tolist() == [0, 5, 2]


def test_curves_and_increases_of_a_known_sweep():
    table = made_up({"blur": 1.0, "jpeg": 0.0})
    curves = curve_table(Sweep(table)).set_index(["corruption", "severity", "error"])
    clean = curves.loc[("clean", 0, "age_mae"), "value"]
    assert curves.loc[("blur", 5, "age_mae"), "value"] == pytest.approx(clean + 5)
    assert curves.loc[("jpeg", 5, "race_error"), "value"] == pytest.approx(0.1)
    row = curves.loc[("blur", 2, "age_mae")]
    assert row["low"] < row["value"] < row["high"]
    assert np.allclose(Sweep(table).increases().mean(axis=0), [[3, 0], [0, 0]])


def test_two_models_are_compared_by_what_a_corruption_adds():
    multi, single = made_up({"blur": 1.0, "jpeg": 0.1}), made_up({"blur": 0.8, "jpeg": 0.3})
    age, race = single.drop(columns="race_error"), single.drop(columns="age_signed")
    found = increase_differences([Sweep(multi)], [Sweep(age), Sweep(race)]).set_index(["corruption", "error"])
    assert found.loc[("blur", "age_mae"), "value"] == pytest.approx(-0.6)  # averaged over severities 1 to 5
    assert found.loc[("jpeg", "age_mae"), "value"] == pytest.approx(0.6)
    assert found.loc[("jpeg", "race_error"), "value"] == 0
    assert found["seeds"].tolist() == [(value,) for value in found["value"]]  # as write_csv and plot_forest take them
    with pytest.raises(InputError, match="different faces or corruptions"):
        increase_differences([Sweep(multi)], [Sweep(made_up({"blur": 1.0, "jpeg": 0.1}, count=300))])


def test_without_a_group_of_enough_faces_nobody_is_compared():
    swept = Sweep(made_up({"blur": 1.0}, count=20))
    faces = pd.DataFrame({"image_id": swept.image_ids, "age_min": 30.0, "race": pd.array([0] * 20, dtype="Int8")})
    faces["gender"] = pd.array([pd.NA] * 20, dtype="Int8")
    assert group_differences(swept, faces, get_scheme("utkface"), "blur", 3).empty


def test_a_group_that_is_hurt_more_is_found():
    table = made_up({"low_light": 1.0}, group_growth=2.0)
    numbers = np.arange(400)
    faces = pd.DataFrame({"image_id": [f"face-{n}" for n in numbers], "age_min": 30.0})
    faces = faces.assign(gender=numbers % 2, race=(numbers // 2) % 2)
    found = group_differences(Sweep(table), faces, get_scheme("utkface"), "low_light", 3)
    calls = found[found["error"] == "age_mae"].set_index("group")["call"]
    assert calls.to_dict() == {"male": "better", "female": "worse", "white": "cannot tell", "black": "cannot tell"}
    assert found.set_index(["group", "error"]).loc[("female", "age_mae"), "value"] == pytest.approx(-2)


def test_tables_have_the_short_runs_of_all_architectures_and_the_long_ones_beside_them():
    growth = dict.fromkeys(CORRUPTIONS, 1.0)
    short = {(name, TASKS): Sweep(made_up(growth, count=60)) for name in ("mobilenet_v3", "custom_cnn")}
    alone = {("mobilenet_v2", ("age",)): Sweep(made_up(growth, count=60))}
    evidence = RobustnessEvidence(short | alone, {"mobilenet_v3": Sweep(made_up(growth, count=60))}, {}, [])
    assert list(evidence.architectures) == ["custom_cnn", "mobilenet_v3"]  # in the order of the course
    lines = mean_errors_table(evidence, "age_mae").splitlines()
    assert lines[0] == "| Corruption | Custom CNN | MobileNetV3 | MobileNetV3, long |"
    assert len(lines) == 2 + 1 + len(CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_rounding_errors_beside_0_and_1_do_no_harm(name: str, images: Tensor):
    changed = corrupt(torch.cat([images.round() - 1e-6, images.round() + 1e-6]), name, 1)
    assert changed.isfinite().all() and changed.min() >= 0 and changed.max() <= 1


def test_a_sweep_that_does_not_begin_with_the_faces_as_they_are_is_refused():
    table = made_up({"blur": 1.0}).sort_values(["corruption", "severity", "image_id"])
    with pytest.raises(InputError, match="begins with the clean faces, and this one with"):
        Sweep(table)


def test_faces_of_a_group_are_drawn_together():
    table = made_up({"blur": 1.0}, count=40)
    table["group"] = table["image_id"].map({name: n // 2 for n, name in enumerate(table["image_id"].unique())})
    swept = Sweep(table)
    assert swept.clusters.nunique() == 20
    means = swept.bootstrap().means(np.arange(40.0)[:, None])
    assert len(means) > 1 and swept.bootstrap().num_groups == 20

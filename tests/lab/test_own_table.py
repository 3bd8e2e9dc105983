"""A table of one's own: images beside a CSV file, tasks of any names and kinds, some labels missing."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from agr_lab.cli.main import app
from agr_lab.export import export_run
from agr_lab.reports.map_report import explain_run_folder
from agr_lab.reports.outside import evaluate_outside
from agr_lab.reports.sweep_report import sweep_run_folder
from agr_utils.data.load import load_data
from agr_utils.data.synthetic import draw_faces
from agr_utils.errors import InputError
from agr_utils.measure.fairness import group_table
from agr_utils.measure.metrics import get_metric, score_rows, summarize
from agr_utils.measure.results import read_run
from agr_utils.tasks import Task, get_scheme
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import load_run, train_run

TASKS = (Task("glasses", classes=("no", "yes")), Task("height", "number", limits=(100, 220)), Task("age", "age"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 drawings: glasses are the badge, height follows the age; a tenth of the labels is missing."""
    folder = tmp_path_factory.mktemp("own")
    drawn = draw_faces(60, 32, 0)
    rows = pd.DataFrame({"path": [f"faces/{n:02}.png" for n in range(60)], "age": drawn.faces["age"].astype(int)})
    rows["glasses"] = drawn.faces["gender"].map({0: "no", 1: "yes"}).where(np.arange(60) % 10 > 0)
    rows["height"] = (120 + drawn.faces["age"]).round(1)
    rows["person"] = [f"p{n // 2}" if n < 4 else "" for n in range(60)]
    (folder / "faces").mkdir()
    for path, pixels in zip(rows["path"], drawn.pixels, strict=True):
        Image.fromarray(pixels).save(folder / path)
    rows.to_csv(folder / "faces.csv", index=False)
    return folder


def load(folder, tmp_path, tasks=TASKS, name="faces.csv"):
    return load_data("table", 32, folder / name, cache_dir=tmp_path, labels=tasks)


def change(folder, name, **cells):
    """The table with the first row changed, or without a column."""
    table = pd.read_csv(folder / "faces.csv", dtype="string")
    for column, value in cells.items():
        if value is None:
            table = table.drop(columns=column)
        else:
            table.loc[0, column] = value
    table.to_csv(folder / name, index=False)
    return name


def test_labels_are_read_and_persons_stay_together(folder, tmp_path):
    data = load(folder, tmp_path)
    faces, table = data.faces, pd.read_csv(folder / "faces.csv")
    assert faces["glasses"].isna().sum() == 6 and set(faces["glasses"].dropna()) == {0, 1}
    assert faces["height"].tolist() == pytest.approx(table["height"].tolist())
    assert faces["age_min"].tolist() == table["age"].tolist() and faces["gender"].isna().all()
    assert set(faces["split"]) == {"train", "validation", "test"}
    assert faces["split"][0] == faces["split"][1] and faces["split"][2] == faces["split"][3]
    assert faces["group"][0] == faces["group"][1] != faces["group"][2]


def test_a_split_of_ones_own_is_kept_and_images_without_a_row_take_no_part(folder, tmp_path):
    table = pd.read_csv(folder / "faces.csv").iloc[:50]
    table["split"] = ["train"] * 30 + ["validation"] * 10 + ["test"] * 10
    table.to_csv(folder / "split.csv", index=False)
    data = load(folder, tmp_path, name="split.csv")
    assert data.faces["split"].value_counts().to_dict() == {"train": 30, "validation": 10, "test": 10, "unlisted": 10}
    assert str(data.skipped) == "10 skipped: 10 image without a row in the table"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"glasses": "maybe"}, r"line 2: glasses is 'maybe', not one of no, yes \(1 such cells\)"),
        ({"height": "tall"}, "line 2: height is 'tall', not a number from 100 to 220"),
        ({"height": "90"}, "line 2: height is '90', not a number from 100 to 220"),
        ({"age": "200"}, "line 2: age is '200', not a number from 0 to 116"),
        ({"glasses": None}, "no column 'glasses'; it has path, age, height, person"),
        ({"path": None}, "no column 'path'"),
        ({"path": "faces/99.png"}, r"line 2: faces/99.png is no image in .* \(1 of 60 rows have none\)"),
        ({"path": "faces/01.png"}, "line 3: faces/01.png is listed twice"),
        ({"path": ""}, "line 2: no path"),
        ({"path": "./faces/01.png"}, "line 3: faces/01.png is listed twice"),
        ({"age": "NaN"}, "line 2: age is 'NaN', not a number from 0 to 116"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_a_line(folder, tmp_path, cells, message):
    with pytest.raises(InputError, match=message) as caught:
        load(folder, tmp_path, name=change(folder, "wrong.csv", **cells))
    assert "\n" not in str(caught.value)


def write_rows(folder, **cells):
    """A table of the 60 images with these columns."""
    rows = pd.DataFrame({"path": [f"faces/{n:02}.png" for n in range(60)]} | cells)
    rows.to_csv(folder / "rows.csv", index=False)
    return "rows.csv"


def test_a_task_called_race_or_gender_may_be_a_number_and_have_many_classes(folder, tmp_path):
    shades, codes = [n * 5 for n in range(60)], [f"k{n % 60 + 100}" for n in range(60)]
    name = write_rows(folder, race=shades, gender=[0.5] * 60, code=codes)
    tasks = (
        Task("race", "number", limits=(0, 300)),
        Task("gender", "number", limits=(0, 1)),
        Task("code", classes=[f"k{n}" for n in range(160)]),
    )
    data = load(folder, tmp_path, tasks, name)
    assert data.faces["race"].tolist() == shades and (data.faces["gender"] == 0.5).all()
    assert data.faces["code"].tolist() == [n + 100 for n in range(60)]
    config = TrainConfig(
        data="table", labels=tasks, backbone="custom_cnn", image_size=32, num_epochs=1, batch_size=8, precision="fp32"
    )
    table = train_run(config, data, tmp_path / "run")
    labels = dict(zip(data.faces["image_id"], zip(shades, codes, strict=True), strict=True))
    assert table["race"].tolist() == [labels[image][0] for image in table["image_id"]]
    scores = score_rows(table)
    assert set(scores) == {"race_mae", "gender_mae", "code_accuracy"}
    assert scores["race_mae"].mean() == pytest.approx((table["race_pred"] - table["race"]).abs().mean(), rel=1e-5)


def test_only_an_empty_cell_is_a_missing_label(folder, tmp_path):
    classes = ("None", "NA", "null", "n/a")
    name = write_rows(folder, hat=[*classes * 14, "", "", "None", "NA"])
    faces = load(folder, tmp_path, (Task("hat", classes=classes),), name).faces
    assert faces["hat"].isna().sum() == 2 and faces["hat"].value_counts().to_dict() == {0: 15, 1: 15, 2: 14, 3: 14}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,glasses,glasses\nfaces/00.png,no,yes\n", "two columns are called 'glasses'"),
        ("path,glasses, glasses\nfaces/00.png,no,yes\n", "two columns are called 'glasses'"),
        ("path;glasses\nfaces/00.png;no\n", "separated by semicolons or tabs"),
        ("path\tglasses\nfaces/00.png\tno\n", "separated by semicolons or tabs"),
        ('path,glasses,note\nfaces/00.png,no,"a\nb"\nfaces/01.png,maybe,\n', "line 4: glasses is 'maybe'"),
        ("path,glasses,\nfaces/00.png,maybe,\n", "line 2: glasses is 'maybe'"),
        ("path,hat,\nfaces/00.png,no,\n", "no column 'glasses'; it has path, hat. Rename"),
    ],
)
def test_what_is_wrong_with_the_columns_is_said(folder, tmp_path, text, message):
    (folder / "columns.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load(folder, tmp_path, TASKS[:1], "columns.csv")


def test_a_person_in_two_splits_is_refused_and_rows_without_a_split_are_counted(folder, tmp_path):
    splits = ["train"] * 40 + ["validation"] * 10 + ["test"] * 6 + ["", " "] * 2
    name = write_rows(folder, glasses="no", split=splits, person=[f"p{n // 4}" for n in range(60)])
    with pytest.raises(InputError, match="'p12' is in validation and test. Put all images of a person into one"):
        load(folder, tmp_path, TASKS[:1], name)
    name = write_rows(folder, glasses="no", split=splits, person=[f"p{n // 2}" if n % 3 else " " for n in range(60)])
    assert str(load(folder, tmp_path, TASKS[:1], name).skipped) == "4 skipped: 4 no split in the table"


def test_a_table_without_a_split_that_is_needed(folder, tmp_path, monkeypatch):
    name = write_rows(folder, glasses="no", split="train")
    with pytest.raises(InputError, match="no image in the split 'test' .* Write it into the column split"):
        load(folder, tmp_path, TASKS[:1], name).rows("test")
    monkeypatch.delenv("AGR_DATA_DIR", raising=False)
    with pytest.raises(InputError, match="Name its CSV file with --source"):
        load_data("table", 32, labels=TASKS)


def test_no_task_has_a_name_that_torch_needs():
    words = {name for kind in (nn.ModuleDict, nn.ParameterDict) for name in dir(kind()) if re.fullmatch("[a-z]+", name)}
    for name in words:
        with pytest.raises(InputError, match="cannot be the name"):
            Task(name, classes=("no", "yes"))


def test_no_such_table_and_no_table_at_all(folder, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(folder, tmp_path, name="nothing.csv")
    (tmp_path / "no_images").mkdir()
    with pytest.raises(InputError, match="no such file"):  # not that its folder has no image
        load(tmp_path / "no_images", tmp_path, name="nothing.csv")
    (folder / "empty.csv").write_text("")
    with pytest.raises(InputError, match="not a CSV file"):
        load(folder, tmp_path, name="empty.csv")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "Big Hat", "classes": ("a", "b")}, "cannot be the name"),
        ({"name": "hat", "classes": ("a",)}, "at least two"),
        ({"name": "hat", "classes": ("a", "a")}, "each once"),
        ({"name": "years", "kind": "age"}, "belong together"),
        ({"name": "height", "kind": "number"}, "smallest and the largest"),
        ({"name": "height", "kind": "number", "limits": (2, 1)}, "smallest and the largest"),
        ({"name": "split", "classes": ("a", "b")}, "cannot be the name"),
        *[
            ({"name": name, "classes": ("a", "b")}, "cannot be the name")
            for name in ("hat_pred", "hat_p", "hat_p12", "age_lo", "person", "steps", "ärmel", "_hat")
        ],
        ({"name": "hat", "classes": ("no", "yes", "")}, "none of them empty"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(record, message):
    with pytest.raises(InputError, match=message):
        Task(**record)


def test_a_model_of_own_tasks_is_trained_measured_and_loaded_again(folder, tmp_path, monkeypatch):
    config = TrainConfig(
        data="table", labels=TASKS, backbone="custom_cnn", image_size=32, num_epochs=2, batch_size=8, precision="fp32"
    )
    assert config.tasks == ("glasses", "height", "age") and TrainConfig.from_dict(config.to_dict()) == config
    data = load(folder, tmp_path)
    table = train_run(config, data, tmp_path / "run")
    scores = score_rows(table)
    assert set(scores) == {"age_mae", "age_cs5", "glasses_accuracy", "height_mae"}
    answered = table[table["glasses"].notna()]
    expected = ((answered["glasses_p1"] >= 0.5).astype(int) == answered["glasses"]).mean()
    assert scores["glasses_accuracy"].mean() == pytest.approx(expected)
    assert scores["height_mae"].mean() == pytest.approx((table["height_pred"] - table["height"]).abs().mean(), rel=1e-5)
    assert table["height_pred"].between(50, 270).all()
    assert table["group"].tolist() == data.faces.set_index("image_id").loc[table["image_id"], "group"].tolist()
    assert get_metric("height_mae").title == "Height, MAE (units)" and get_metric("glasses_accuracy").label == "Glasses"
    many = pd.concat([table.assign(image_id=table["image_id"] + str(n)) for n in range(10)], ignore_index=True)
    groups = group_table(many, data.scheme, "glasses")
    assert set(groups.columns) == {"count", "age_mae", "age_signed", "glasses_error", "height_mae"}
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path))
    model, again, _ = load_run(tmp_path / "run", folder / "faces.csv")
    assert model.scheme == get_scheme("table", TASKS) and (again.faces["split"] == data.faces["split"]).all()
    report = explain_run_folder(tmp_path / "run", folder / "faces.csv", num_scored=10, num_mean=10)
    assert set(report.tables["scores"]["task"]) == {"glasses", "height", "age"}
    with pytest.raises(InputError, match="of a table of one's own, for which it is not known where to cover"):
        sweep_run_folder(tmp_path / "run")
    with pytest.raises(InputError, match="answers with labels that no other data set has"):
        evaluate_outside(tmp_path / "run", "fairface", folder)
    with pytest.raises(InputError, match="answers glasses, height, age of a table of one's own"):
        export_run(tmp_path / "run", tmp_path / "own.onnx", folder / "faces.csv")
    swapped = [Task("glasses", classes=("yes", "no")), *TASKS[1:]]
    with pytest.raises(InputError, match="the data is table at 32 px with other labels"):
        train_run(config, load(folder, tmp_path, swapped), tmp_path / "swapped")
    changed = data.faces.assign(glasses=1 - data.faces["glasses"]).where(data.faces["split"] == "test", data.faces)
    kept = train_run(config, replace(data, faces=changed), tmp_path / "run")  # a finished run's answers stay
    pd.testing.assert_frame_equal(
        kept.reset_index(drop=True), read_run(tmp_path / "run").predictions, check_dtype=False
    )
    assert score_rows(kept)["glasses_accuracy"].mean() == pytest.approx(expected)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert {"validation_glasses_accuracy", "validation_height_mae", "validation_age_mae"} <= set(history)


def test_a_run_keeps_its_split_when_the_table_changes(folder, tmp_path, monkeypatch, caplog):
    """Without a column split, pictures that are gone draw another one, and its test split holds what was trained on."""
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path))
    config = TrainConfig(
        data="table", labels=TASKS, backbone="custom_cnn", image_size=32, num_epochs=1, batch_size=8, precision="fp32"
    )
    before = load(folder, tmp_path).faces
    train_run(config, load(folder, tmp_path), tmp_path / "run")
    train_run(config, load(folder, tmp_path), tmp_path / "chosen", splits=("validation",))
    for run in ("run", "chosen"):  # nothing has changed: what a run without a test split is tested on is drawn as ever
        assert load_run(tmp_path / run, folder / "faces.csv")[1].faces["split"].equals(before["split"])
    assert "another split" not in caplog.text
    table = pd.read_csv(folder / "faces.csv", dtype="string")
    table["age"] = table["age"].sample(frac=1, random_state=0).to_numpy()
    table.drop(index=table.index[before["split"] == "test"][:2]).to_csv(folder / "mended.csv", index=False)
    drawn = load(folder, tmp_path, name="mended.csv").faces["split"]
    kept = load_run(tmp_path / "run", folder / "mended.csv")[1].faces["split"]
    assert (kept[drawn != "unlisted"] == before["split"][drawn != "unlisted"]).all()
    assert (kept[drawn == "unlisted"] == "unlisted").all() and (drawn == "unlisted").sum() == 2
    assert f"{(kept != drawn).sum()} pictures have another split than is drawn now" in caplog.text
    kept = load_run(tmp_path / "chosen", folder / "mended.csv")[1].faces["split"]
    assert (kept == "validation").equals(before["split"] == "validation") and not (kept == "test").any()


def test_a_drawn_split_is_the_same_for_other_heads_and_labels_and_can_be_written_into_the_table(
    folder, tmp_path, monkeypatch
):
    """The lines of docs/use.md, run."""
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(folder)
    pd.read_csv("faces.csv", dtype=str).rename(columns={"glasses": "hat"}).to_csv("hats.csv", index=False)
    text = (Path(__file__).parents[2] / "docs" / "use.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("faces.csv", "hats.csv")
    exec(code, {})
    hats = (Task("hat", classes=("no", "yes")),)
    both, one = (load(folder, tmp_path, tasks, "split.csv").faces for tasks in ((TASKS[2], *hats), hats))
    drawn = load(folder, tmp_path, (TASKS[2], *hats), "hats.csv").faces["split"]
    assert both["split"].equals(drawn) and one["split"].equals(drawn)
    assert load(folder, tmp_path, hats, "hats.csv").faces["split"].equals(drawn)
    table = pd.read_csv("hats.csv", dtype="string")
    table["age"] = table["age"].sample(frac=1, random_state=0).to_numpy()
    table.to_csv("mended.csv", index=False)
    assert load(folder, tmp_path, (TASKS[2], *hats), "mended.csv").faces["split"].equals(drawn)


def test_few_persons_make_wide_intervals(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path))
    split = ["train"] * 24 + ["validation"] * 12 + ["test"] * 24
    hats = [["no", "yes"][n // 8 % 2] for n in range(60)]  # a person of the test split is 8 pictures, and has one label
    name = write_rows(
        folder, hat=hats, split=split, person=[f"p{n // 4 if n < 36 else n // 8 * 100}" for n in range(60)]
    )
    command = ["train", "--data", str(folder / name), "--task", "hat=no,yes", "--backbone", "custom_cnn"]
    command += ["--image-size", "32", "--num-epochs", "1", "--batch-size", "8", "--output-dir", str(tmp_path / "run")]
    trained, evaluated = (CliRunner().invoke(app, words) for words in (command, ["evaluate", str(tmp_path / "run")]))
    run = read_run(tmp_path / "run")
    table, groups = run.split("test")
    assert groups.nunique() == table["group"].nunique() == 4
    row = summarize(table, table["image_id"].map(pd.read_csv(folder / name).set_index("path")["person"])).iloc[0]
    line = f"test  hat_accuracy          {row['value']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]"
    assert line in trained.output and line in evaluated.output
    alone = summarize(table.drop(columns="group")).iloc[0]
    assert row["high"] - row["low"] > alone["high"] - alone["low"]


def test_near_duplicates_across_a_column_split_are_counted(folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "pics").mkdir()
    for number, pixels in enumerate(draw_faces(30, 32, 1).pixels):
        Image.fromarray(pixels).save(tmp_path / "pics" / f"{number:02}.png")
    for number in (28, 29):
        (tmp_path / "pics" / f"{number}.png").write_bytes((tmp_path / "pics" / f"{number - 28:02}.png").read_bytes())
    rows = pd.DataFrame({"path": [f"pics/{n:02}.png" for n in range(30)], "hat": ["no", "yes"] * 15})
    rows["split"] = ["train"] * 20 + ["validation"] * 5 + ["test"] * 5
    rows.to_csv(tmp_path / "faces.csv", index=False)
    load(tmp_path, tmp_path / "cache", (Task("hat", classes=("no", "yes")),))
    assert (
        caplog.text.count("2 pictures have near-duplicates in another split, first: pics/00.png and pics/28.png") == 1
    )
    caplog.clear()
    rows.assign(split="train").to_csv(tmp_path / "faces.csv", index=False)
    load(tmp_path, tmp_path / "cache", (Task("hat", classes=("no", "yes")),))
    assert "near-duplicates" not in caplog.text


def test_too_few_groups_name_the_file_and_the_column(folder, tmp_path):
    with pytest.raises(InputError, match=r"rows.csv: 1 groups .* images of one 'person' are one group"):
        load(folder, tmp_path, TASKS[:1], write_rows(folder, glasses="no", person="p"))


def test_a_table_without_a_split_is_refused_before_it_is_trained_on(folder, tmp_path):
    tasks = (TASKS[0],)
    data = load(folder, tmp_path, tasks, write_rows(folder, glasses="no", split=["train"] * 50 + ["validation"] * 10))
    config = TrainConfig(data="table", labels=tasks, backbone="custom_cnn", image_size=32, num_epochs=0.2, batch_size=8)
    with pytest.raises(InputError, match="no image in the split 'test' .* --no-test"):
        train_run(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert set(train_run(config, data, tmp_path / "run", splits=("validation",))["split"]) == {"validation"}


def test_a_path_that_is_not_found_has_a_hint(folder, tmp_path):
    for path in ("faces\\00.png", "faces//00.png", "linked/00.png"):
        with pytest.raises(InputError, match=r"with / and .* \(NFC or NFD\); links to folders are not followed"):
            load(folder, tmp_path, TASKS[:1], change(folder, "wrong.csv", path=path))


def test_a_task_without_a_label_in_a_split_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path))
    split = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    name = write_rows(folder, hat=["no", "yes"] * 20 + [""] * 10 + ["no"] * 10, split=split)
    command = ["train", "--data", str(folder / name), "--task", "hat=no,yes", "--backbone", "custom_cnn"]
    command += ["--image-size", "32", "--num-epochs", "1", "--batch-size", "8", "--output-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "no column split" not in result.output
    assert result.output.count("no picture has a label of hat") == 1
    assert "validation: no picture has a label of hat" in result.output


def test_labels_without_a_table_and_a_table_without_labels_are_refused():
    for settings in ({"data": "table"}, {"data": "synthetic", "labels": TASKS}):
        with pytest.raises(InputError, match="only a table"):
            TrainConfig(**settings)


def test_the_command_line_trains_on_a_table_of_ones_own(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path))
    command = ["train", "--data", str(folder / "faces.csv"), "--task", "age", "--task", "spectacles:glasses=no,yes"]
    command += ["--task", "height=100..220", "--backbone", "custom_cnn", "--image-size", "32", "--num-epochs", "1"]
    command += ["--batch-size", "8", "--output-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "spectacles_accuracy" in result.output and "height_mae" in result.output
    assert CliRunner().invoke(app, ["evaluate", str(tmp_path / "run")]).exit_code == 0
    record = read_run(tmp_path / "run").config
    assert record.scheme.task("spectacles") == Task("spectacles", classes=("no", "yes"), column="glasses")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hat", "say what the column holds"),
        ("all", "say what its columns hold, as in --task age"),
        ("height=tall..small", "no two numbers"),
        ("height=1..2..3", "no two numbers"),
        ("height=220..100", "smallest and the largest"),
        ("height=100..inf", "smallest and the largest"),
        ("hat=a", "at least two"),
        ("hat=no,yes,", "none of them empty"),
    ],
)
def test_a_task_that_is_half_said_is_refused(folder, tmp_path, text, message):
    command = ["train", "--data", str(folder / "faces.csv"), "--task", text, "--output-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0 and message in str(result.exception)

"""The checks of exercises that train something: each is tried with wrong answers, and the training is made up."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def check_of(notebook: str, text: str) -> str:
    """The one check cell of a lesson that holds a text."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    found = [cell.source for cell in cells if "check" in cell.metadata.get("tags", []) and text in cell.source]
    assert len(found) == 1
    return found[0]


def gain(low: float) -> pd.DataFrame:
    return pd.DataFrame({"value": [low + 0.1], "low": [low], "high": [low + 0.2]}, index=["race_accuracy"])


def run_rescue(answer: dict, low: float = 0.1) -> None:
    names = {
        "rescue": lambda: answer,
        "train_deep": lambda **settings: (None, "table"),
        "paired": lambda table, reference: gain(low),
        "stuck_table": "stuck",
        "PUBLISHED": {"dropout": 0.2},
        "profile": SimpleNamespace(name="quick"),
    }
    exec(check_of("02_custom_cnn.ipynb", "rescue()"), names)


def run_ablation(answer: str | None, accuracy: float = 0.95, modules: tuple = (), step: int = 9) -> None:
    network = SimpleNamespace(modules=lambda: modules)
    trainer = SimpleNamespace(model=network, ema=SimpleNamespace(module=network), step=step, total_steps=9)
    names = {
        "train_without_attention": lambda: answer and (trainer, answer),
        "paired_difference": lambda table, reference: gain(0.0 if table == reference else -0.2).assign(
            value=0.0 if table == reference else -0.1
        ),
        "predictions": {"MobileNetV3": "with"},
        "summarize": lambda table: pd.DataFrame({"value": [accuracy]}, index=["gender_accuracy"]),
        "profile": SimpleNamespace(name="quick"),
        "DATA": "synthetic",
    }
    exec(check_of("04_mobilenet_v3.ipynb", "train_without_attention()"), names)


@pytest.mark.parametrize(
    ("run", "answer", "settings"),
    [
        (run_rescue, {"dropout": 0.0, "ema_decay": 0.9}, {}),
        (run_rescue, {"num_epochs": 20}, {}),
        (run_rescue, {"learning_rate": 1e-3}, {"low": -0.02}),
        (run_ablation, "with", {}),
        (run_ablation, "without", {"accuracy": 0.5}),
        (run_ablation, "without", {"modules": (SimpleNamespace(conv_reduce="there"),)}),
        (run_ablation, "without", {"step": 4}),
    ],
)
def test_a_wrong_answer_is_told(run, answer, settings):
    with pytest.raises(AssertionError):
        run(answer, **settings)


@pytest.mark.parametrize(
    ("run", "answer", "said"),
    [
        (run_rescue, {}, "not done yet"),
        (run_rescue, {"learning_rate": 1e-3}, "right"),
        (run_ablation, None, "not done yet"),
        (run_ablation, "without", "right"),
    ],
)
def test_what_a_right_answer_and_none_are_told(run, answer, said, capsys):
    run(answer)
    assert said in capsys.readouterr().out

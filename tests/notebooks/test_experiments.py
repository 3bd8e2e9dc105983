"""The checks of exercises that train something: each is tried with wrong answers, and the training is made up."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from agr_utils.data.corruptions import corrupt
from agr_utils.measure.metrics import METRICS, bootstrap
from agr_utils.measure.results import read_figure

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def check_of(notebook: str, text: str) -> str:
    """The one check cell of a lesson that holds a text."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    found = [cell.source for cell in cells if "check" in cell.metadata.get("tags", []) and text in cell.source]
    assert len(found) == 1
    return found[0]


def gain(low: float) -> pd.DataFrame:
    return pd.DataFrame({"value": [low + 0.1], "low": [low], "high": [low + 0.2]}, index=["race_accuracy"])


def run_weight(answer: dict[str, str], age: float = -1.0) -> None:
    """The trainings are made up: with a weight of 1 the ages are a year better, and nothing else changes."""

    def scores(years: float) -> pd.DataFrame:
        rng, right = np.random.default_rng(0), np.tile([0.0, 1.0], 50)
        table = {"age_mae": rng.uniform(4, 6, 100) + years, "age_cs5": right}
        return pd.DataFrame(table | {"gender_accuracy": right, "race_accuracy": right})

    names = {
        "with_weight_1": lambda: answer,
        "train_weighted": lambda age_weight: scores(age if age_weight == 1 else 0),
        "at_03": scores(0),
        "metrics": SimpleNamespace(bootstrap=bootstrap),
        "profile": SimpleNamespace(name="quick"),
        "np": np,
    }
    exec(check_of("02_custom_cnn.ipynb", "with_weight_1()"), names)


def run_class_weights(class_weights) -> None:
    names = {"class_weights": class_weights, "torch": torch}
    exec(check_of("02_custom_cnn.ipynb", "class_weights(labels_02"), names)


def balanced(labels: torch.Tensor, num_classes: int, only_present: bool = True) -> torch.Tensor:
    """Inverse frequencies; with one mistake, classes without a face count among those to be balanced."""
    counts = torch.bincount(labels[labels >= 0], minlength=num_classes)
    share = (counts > 0).sum() if only_present else num_classes
    return counts.sum() / (share * counts.clamp(min=1))


def run_equal_pulls(equal_pulls) -> None:
    exec(check_of("14_designing_multitask_networks.ipynb", "equal_pulls({"), {"equal_pulls": equal_pulls, "np": np})


def equal_pulls(norms: dict[str, float], total: float | None = None) -> dict[str, float]:
    """Weights of equal pull, with a mean of 1, or with another sum."""
    inverse = {task: 1 / norm for task, norm in norms.items() if norm}
    scale = (total or len(inverse)) / sum(inverse.values())
    return {task: scale * inverse[task] if task in inverse else 1 for task in norms}


def run_one_more(answer: tuple[dict, str], low: float = 0.1, second: float | None = None) -> None:
    lows = iter([low, low if second is None else second])
    names = {
        "one_more": lambda: answer,
        "train_deep": lambda seed, **settings: None,
        "scores": lambda trainer: None,
        "paired": lambda table, reference: gain(next(lows)),
        "profile": SimpleNamespace(name="quick"),
        "pd": pd,
    }
    exec(check_of("14_designing_multitask_networks.ipynb", "one_more()"), names)


def surgery(
    gradients: list[torch.Tensor], *, only_opposed: bool = True, from_copies: bool = False, at_once: bool = False
) -> torch.Tensor:
    """Gradient surgery by the book, or with one of three mistakes."""
    kept = [gradient.clone() for gradient in gradients]
    for number, mine in enumerate(kept):
        for place, other in enumerate(kept if from_copies else gradients):
            against = (gradients[number] if at_once else mine) @ other
            if place != number and (not only_opposed or against < 0):
                mine -= against / (other @ other) * other
    return sum(kept)


def surgery_in_place(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Wrong: the right sum, but the caller's gradients are changed."""
    total = surgery(gradients)
    gradients[0].zero_()
    return total


def run_surgery(pcgrad) -> None:
    names = {"pcgrad": pcgrad, "torch": torch, "Tensor": torch.Tensor}
    exec(check_of("14_designing_multitask_networks.ipynb", "pcgrad(opposed)"), names)


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


def copies_01() -> dict:
    """What the lesson gives to the experiment 01.4: pictures of noise, and darker ones that are moved by a pixel."""
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 255, (40, 24, 24)).astype(np.uint8)
    copies = np.roll(originals, 1, axis=2)
    names = {"originals": originals, "cuts": copies, "np": np, "pd": pd, "bootstrap": bootstrap, "Image": Image}
    cells = nbformat.read(NOTEBOOKS / "01_data_exploration.ipynb", as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code" and cell.source.startswith(("def found_copies", "def plain_likeness")):
            exec(cell.source, names)
    return names | {"baseline": names["found_copies"](plain, originals, copies)}


def correlation(original: np.ndarray, copies: np.ndarray) -> np.ndarray:
    return np.corrcoef([original.ravel(), *copies.reshape(len(copies), -1)])[0, 1:]


def plain(original, copies):
    return correlation(original, copies)


def moved(original, copies):
    """Right: tries the move, too."""
    return np.maximum(correlation(original, copies), correlation(np.roll(original, 1, axis=1), copies))


def run_copies(likeness) -> None:
    exec(check_of("01_data_exploration.ipynb", "01.4: right"), copies_01() | {"likeness": likeness})


class Backbone(nn.Module):
    """Keeps the brightness of its images at first, and has forgotten it at the end."""

    def __init__(self, seed: int):
        super().__init__()
        self.early = nn.Linear(1, 8)
        nn.init.normal_(self.early.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return torch.randn(len(images), 8, generator=torch.Generator().manual_seed(3))


def from_the_start(backbone, images):
    return backbone.early(images.mean(dim=(1, 2, 3))[:, None])


def run_features(features_from) -> None:
    rng = np.random.default_rng(0)
    collar = rng.integers(0, 2, 400)
    pixels = np.clip(100 + 60 * collar[:, None, None, None] + rng.normal(0, 9, (400, 8, 8, 3)), 0, 255).astype(np.uint8)
    drawn = SimpleNamespace(pixels=pixels, nuisances=pd.DataFrame({"collar": collar}))
    names = {
        "features_from": features_from,
        "draw_faces": lambda *arguments, **settings: drawn,
        "profile": SimpleNamespace(name="quick", image_size=8),
        "normalize": lambda pixels: (pixels - 0.5) / 0.25,
        "source": Backbone(0).requires_grad_(False),
        "random_backbone": Backbone(1).requires_grad_(False),
        "torch": torch,
        "np": np,
        "pd": pd,
        "bootstrap": bootstrap,
        "LogisticRegression": LogisticRegression,
    }
    exec(check_of("03_mobilenet_v2.ipynb", "03.4: right"), names)


def change(race: float, age: float = 0.0) -> pd.DataFrame:
    """A paired change whose intervals reach 0.02 (years: 0.2) to either side."""
    values = pd.Series({"age_mae": age, "gender_accuracy": 0.0, "race_accuracy": race})
    half = pd.Series({"age_mae": 0.2, "gender_accuracy": 0.02, "race_accuracy": 0.02})
    return pd.DataFrame({"value": values, "low": values - half, "high": values + half})


def run_dials(dials: tuple | None, race: float = 0.05) -> None:
    names = {
        "choose_dials": lambda: dials,
        "train_dialled": lambda depth, width, resolution: (depth * width**2 * resolution**2, [0.0, race]),
        "score_rows": np.array,
        "bootstrap": lambda difference, groups: change(race),
        "np": np,
        "profile": SimpleNamespace(name="quick"),
    }
    exec(check_of("05_efficientnet_b1.ipynb", "05.4: right"), names)


def run_budget(settings: dict, race: float = 0.0, age: float = -0.5) -> None:
    names = {
        "spend_budget": lambda: settings,
        "training_macs": lambda image_size, num_epochs, early_size=None, early_share=0.7: num_epochs * image_size**2,
        "train_with": lambda **settings: change(0.0),
        "score_rows": lambda table: pd.DataFrame(0.0, index=[0], columns=table.index),
        "metrics": ["age_mae", "gender_accuracy", "race_accuracy"],
        "scores": {"48 px": [0.0]},
        "bootstrap": lambda difference, groups: change(race, age),
        "groups": None,
        "METRICS": METRICS,
        "HIGH": 48,
        "NUM_EPOCHS": 1,
        "profile": SimpleNamespace(name="quick"),
    }
    exec(check_of("06_efficientnet_b3.ipynb", "06.4: right"), names)


def share_found(differences, num_faces, num_sets=200, deviations=1.96):
    """Right as it is."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(num_sets):
        drawn = rng.choice(differences, num_faces)
        found += abs(drawn.mean()) > deviations * drawn.std() / np.sqrt(num_faces)
    return found / num_sets


def run_found(answer) -> None:
    worse = np.random.default_rng(0).normal(0.5, 4, 600)
    tables = {"Custom CNN": (np.zeros(600),), "MobileNetV2": (worse,)}
    names = {"share_found": answer, "published": tables, "np": np}
    names["score_rows"] = lambda errors: pd.DataFrame({"age_mae": errors})
    exec(check_of("07_comparison.ipynb", "07.3: right"), names)


def brightened(images):
    """Right: pictures in the dark get the light of the others, and those in good light are left alone."""
    brightness = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(brightness < 0.35, images * (0.5 / brightness), images).clamp(0, 1)


def run_mend(mend) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = 0.5 + 0.1 * (torch.rand(40, 3, 8, 8, generator=generator) - 0.5)

    def errors_of(model, images):  # of a network that knows one brightness only
        off = (images.mean(dim=(1, 2, 3)) - 0.5).abs().numpy()
        return pd.DataFrame({name: off + 0.3 * (images.std(dim=(1, 2, 3)).numpy() < 1e-6) for name in ("a", "b")})

    names = {"mend": mend, "pictures": pictures, "corrupt": corrupt, "errors_of": errors_of, "plain": [None], "pd": pd,
             "bootstrap": bootstrap, "profile": SimpleNamespace(name="quick")}  # fmt: skip
    exec(check_of("11_robustness.ipynb", "11.3: right"), names)


def two_winners(curves, corruption, before=0):
    """Right as it is: the smallest error, and the smallest increase since a severity."""
    own = curves[curves["corruption"].isin(["clean", corruption])]
    wide = own.pivot(index="architecture", columns="severity", values="value")
    return wide[5].idxmin(), (wide[5] - wide[before]).idxmin()


def run_winners(answer) -> None:
    names = {"two_winners": answer, "pd": pd, "read_figure": read_figure}
    exec(check_of("11_robustness.ipynb", "two_winners("), names)


def coarser(split: str):
    """An answer to 13.2 that changes the pictures of one split."""
    return lambda pixels, faces, rng: np.where((faces["split"] == split).to_numpy()[:, None, None, None], 9, pixels)


def run_webcam(serve_webcam, webcam: float = 2.0, phone: float = 0.0) -> None:
    """The trainings are made up: the second is better for each camera by so many years, on 20 strangers."""
    split = ["train"] * 40 + ["validation"] * 10 + ["test"] * 80
    data = SimpleNamespace(
        faces=pd.DataFrame({"split": split}), pixels=np.zeros((130, 4, 4, 3), np.uint8), scheme="scheme"
    )
    camera = np.arange(80) % 4 == 0
    faces = pd.DataFrame({"camera": camera.astype(int), "group": np.arange(80) // 4})
    errors = pd.DataFrame({"age_mae": np.linspace(4, 8, 80)})
    better = errors.sub(np.where(camera, webcam, phone), axis=0)
    names = {
        "serve_webcam": serve_webcam,
        "data": data,
        "HEADS": ("age", "badge", "collar"),
        "TASKS": [],
        "NUM_PEOPLE": 20,
        "IMAGE_SIZE": 4,
        "SEED": 0,
        "train": lambda name, data, tasks: None,
        "photograph_people": lambda num_people, folder, seed: None,
        "load_data": lambda *arguments, **settings: SimpleNamespace(faces=faces, pixels=None, scheme=None),
        "FaceData": lambda faces, pixels, scheme: SimpleNamespace(faces=faces, pixels=pixels, scheme=scheme),
        "load_model": lambda folder: (folder.name, None),
        "predict_split": lambda model, data, split, run_id: errors if model == "own" else better,
        "score_rows": lambda table: table,
        "bootstrap": bootstrap,
        "runs": Path(__file__).parent,
        "tempfile": SimpleNamespace(mkdtemp=lambda: "nowhere"),
        "Path": Path,
        "profile": SimpleNamespace(name="quick"),
        "np": np,
        "pd": pd,
    }
    exec(check_of("13_your_own_faces.ipynb", "serve_webcam("), names)


@pytest.mark.parametrize(
    ("run", "answer", "settings"),
    [
        (run_weight, {"age": "better"}, {}),  # two tasks are missing
        (run_weight, {"age": "better", "gender": "worse", "race": "cannot tell"}, {}),
        (run_weight, {"age": "better", "gender": "cannot tell", "race": "cannot tell"}, {"age": 1.0}),  # it got worse
        (run_weight, {"age": "more", "gender": "cannot tell", "race": "cannot tell"}, {}),
        (run_class_weights, lambda labels, count: balanced(labels, count, only_present=False), {}),
        (run_class_weights, lambda labels, count: torch.ones(count), {}),
        (run_equal_pulls, lambda norms: dict.fromkeys(norms, 1.0), {}),
        (run_equal_pulls, lambda norms: equal_pulls(norms, total=1), {}),
        (run_one_more, ({"dropout": 0.0, "ema_decay": 0.9}, "better"), {}),
        (run_one_more, ({"num_epochs": 20}, "better"), {}),
        (run_one_more, ({"seed": 3}, "better"), {}),
        (run_one_more, ({"tasks": ("race",)}, "better"), {}),
        (run_one_more, ({"ema_decay": 0.9}, "yes"), {}),
        (run_one_more, ({"ema_decay": 0.9}, "better"), {"second": -0.02}),  # one seed is not two
        (run_one_more, ({"ema_decay": 0.9}, "cannot tell"), {}),
        (run_surgery, sum, {}),  # the plain sum
        (run_surgery, lambda gradients: surgery(gradients, only_opposed=False), {}),
        (run_surgery, lambda gradients: surgery(gradients, from_copies=True), {}),
        (run_surgery, lambda gradients: surgery(gradients, at_once=True), {}),
        (run_surgery, surgery_in_place, {}),
        (run_ablation, "with", {}),
        (run_ablation, "without", {"accuracy": 0.5}),
        (run_ablation, "without", {"modules": (SimpleNamespace(conv_reduce="there"),)}),
        (run_ablation, "without", {"step": 4}),
        (run_copies, plain, {}),  # no better than the baseline
        (run_copies, lambda original, copies: np.arange(len(copies)), {}),  # the place in the list, not the picture
        (run_copies, lambda original, copies: 0.5, {}),  # one number for all
        (run_copies, lambda original, copies: -moved(original, copies), {}),  # a distance
        (run_features, lambda backbone, images: backbone(images), {}),  # the last layer again
        (run_features, lambda backbone, images: images.flatten(1), {}),  # pixels
        (run_features, lambda backbone, images: from_the_start(backbone, images)[:, 0], {}),  # no table
        (run_dials, (2, 1.5, 32), {}),  # too dear
        (run_dials, (1, 1.2, 32), {"race": 0.01}),  # within chance
        (run_dials, (1, 1, 32), {"race": 0.0}),  # the baseline itself
        (run_budget, {"image_size": 48, "num_epochs": 2}, {}),  # too dear
        (run_budget, {"image_size": 32, "num_epochs": 2, "learning_rate": 1e-2}, {}),  # something else was changed
        (run_budget, {"image_size": 32, "num_epochs": 2}, {"race": -0.1}),  # a task pays for it
        (run_budget, {"image_size": 32, "num_epochs": 2}, {"age": 0.1}),  # within chance
        (run_found, lambda faces, count: 0.95, {}),  # what an interval is said to hold
        (run_found, lambda faces, count: share_found(faces, count, deviations=1.0), {}),  # too narrow
        (run_found, lambda faces, count: share_found(faces[:count], count, num_sets=1), {}),  # one set
        (run_mend, lambda images: images, {}),  # no gain
        (run_mend, lambda images: (images * 2.2).clamp(0, 1), {}),  # pictures in good light pay for it
        (run_mend, lambda images: images * 0 + 0.5, {}),  # grey
        (run_mend, lambda images: images * 3, {}),  # beyond white
        (run_winners, lambda curves, name: two_winners(curves, name, before=5), {}),  # no increase at all
        (run_winners, lambda curves, name: two_winners(curves, name)[::-1], {}),  # the wrong way round
        (run_winners, lambda curves, name: ("A", "B"), {}),  # right in fog only
        (run_webcam, coarser("test"), {}),  # the test was changed, too
        (run_webcam, lambda pixels, faces, rng: pixels, {}),  # nothing was changed
        (run_webcam, coarser("train"), {"webcam": 0.0}),  # within chance
        (run_webcam, coarser("train"), {"phone": -1.0}),  # the other pictures pay for it
    ],
)
def test_a_wrong_answer_is_told(run, answer, settings):
    with pytest.raises(AssertionError):
        run(answer, **settings)


@pytest.mark.parametrize(
    ("run", "answer", "said"),
    [
        (run_weight, {}, "not done yet"),
        (run_weight, {"age": "better", "gender": "cannot tell", "race": "cannot tell"}, "right"),
        (run_class_weights, lambda labels, count: None, "not done yet"),
        (run_class_weights, balanced, "right"),
        (run_equal_pulls, lambda norms: None, "not done yet"),
        (run_equal_pulls, equal_pulls, "right"),
        (run_one_more, ({}, ""), "not done yet"),
        (run_one_more, ({"ema_decay": 0.9}, "better"), "right"),
        (run_surgery, lambda gradients: None, "not done yet"),
        (run_surgery, surgery, "right"),
        (run_ablation, None, "not done yet"),
        (run_ablation, "without", "right"),
        (run_copies, lambda original, copies: None, "not done yet"),
        (run_copies, moved, "right"),
        (run_features, lambda backbone, images: None, "not done yet"),
        (run_features, from_the_start, "right"),
        (run_dials, None, "not done yet"),
        (run_dials, (1, 1.4, 32), "right"),
        (run_budget, {}, "not done yet"),
        (run_budget, {"image_size": 32, "num_epochs": 2}, "right"),
        (run_budget, {"image_size": 48, "num_epochs": 1}, "right"),
        (run_found, lambda faces, count: None, "not done yet"),
        (run_found, share_found, "right"),
        (run_mend, lambda images: None, "not done yet"),
        (run_mend, brightened, "right"),
        (run_winners, lambda curves, name: None, "not done yet"),
        (run_winners, two_winners, "right"),
        (run_webcam, lambda pixels, faces, rng: None, "not done yet"),
        (run_webcam, coarser("train"), "right"),
    ],
)
def test_what_a_right_answer_and_none_are_told(run, answer, said, capsys):
    run(answer)
    assert said in capsys.readouterr().out

"""The checks of exercises that train something: each is tried with wrong answers, and the training is made up."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from agr_utils.data.corruptions import CORRUPTIONS, corrupt
from agr_utils.data.faces import age_band
from agr_utils.measure import calibration, plots
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.metrics import bootstrap
from agr_utils.measure.results import read_figure
from agr_utils.models.backbones import create_backbone
from agr_utils.models.network import count_macs

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def check_of(notebook: str, text: str) -> str:
    """The one check cell of a lesson that holds a text."""
    cells = nbformat.read(NOTEBOOKS / notebook, as_version=4).cells
    found = [cell.source for cell in cells if "check" in cell.metadata.get("tags", []) and text in cell.source]
    assert len(found) == 1
    return found[0]


def gain(low: float) -> pd.DataFrame:
    return pd.DataFrame({"value": [low + 0.1], "low": [low], "high": [low + 0.2]}, index=["race_accuracy"])


def run_weight(answer: dict[str, str]) -> None:
    """The trainings are made up: with a weight of 1 the ages are a year better, and nothing else changes."""

    def scores(years: float) -> pd.DataFrame:
        rng, right = np.random.default_rng(0), np.tile([0.0, 1.0], 50)
        table = {"age_mae": rng.uniform(4, 6, 100) + years, "age_cs5": right}
        return pd.DataFrame(table | {"gender_accuracy": right, "race_accuracy": right})

    names = {
        "with_weight_1": lambda: answer,
        "train_weighted": lambda age_weight: scores(-1 if age_weight == 1 else 0),
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
    exec(check_of("08b_designing_multitask_networks.ipynb", "equal_pulls({"), {"equal_pulls": equal_pulls, "np": np})


def equal_pulls(norms: dict[str, float], total: float | None = None) -> dict[str, float]:
    """Weights of equal pull, with a mean of 1, or with another sum."""
    inverse = {task: 1 / norm for task, norm in norms.items() if norm}
    scale = (total or len(inverse)) / sum(inverse.values())
    return {task: scale * inverse[task] if task in inverse else 1 for task in norms}


def run_one_more(answer: tuple[dict, str], low: float = 0.1, second: float | None = None) -> None:
    lows = iter([low, low if second is None else second])
    names = {
        "one_more": lambda: answer,
        "cured": None,
        "SEED": 0,
        "train_deep": lambda seed, **settings: None,
        "scores": lambda trainer: None,
        "paired": lambda table, reference: gain(next(lows)),
        "profile": SimpleNamespace(name="quick"),
        "pd": pd,
    }
    exec(check_of("08b_designing_multitask_networks.ipynb", "one_more()"), names)


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
    exec(check_of("08b_designing_multitask_networks.ipynb", "pcgrad(opposed)"), names)


def run_ablation(
    answer: str | None, accuracy: float = 0.95, modules: tuple = (), step: int = 9, num_epochs: int = 3
) -> None:
    network = SimpleNamespace(modules=lambda: modules)
    trainer = SimpleNamespace(
        model=network, ema=SimpleNamespace(module=network), step=step, total_steps=9, config=num_epochs
    )
    names = {
        "train_without_attention": lambda: answer and (trainer, answer),
        "paired_difference": lambda table, reference: gain(0.0 if table == reference else -0.2).assign(
            value=0.0 if table == reference else -0.1
        ),
        "predictions": {"MobileNetV3": "with"},
        "config": 3,
        "summarize": lambda table: pd.DataFrame({"value": [accuracy]}, index=["gender_accuracy"]),
        "profile": SimpleNamespace(name="quick"),
        "DATA": "synthetic",
    }
    exec(check_of("04_mobilenet_v3.ipynb", "train_without_attention()"), names)


class Gated(nn.Module):
    """Stands for a block with squeeze-and-excite, as timm names its parts."""

    def __init__(self):
        super().__init__()
        self.conv_reduce, self.gate = nn.Conv2d(3, 3, 1), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.conv_reduce(x.mean(dim=(2, 3), keepdim=True)))


def with_gates(change, in_a_copy: bool = True, num_blocks: int | None = None):
    """An answer to 04.3 that changes what every gate says, or those of the first blocks."""

    def answer(network: nn.Module) -> nn.Module:
        other = copy.deepcopy(network) if in_a_copy else network
        for block in other[:num_blocks]:
            block.gate.register_forward_hook(lambda module, inputs, output: change(output))
        return other

    return answer


def of_the_one_before(gates: torch.Tensor) -> torch.Tensor:
    return gates.roll(1, dims=0)


def run_gates(answer) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 4, 4)
    cells = nbformat.read(NOTEBOOKS / "04_mobilenet_v3.ipynb", as_version=4).cells
    names = {
        "with_gates_of_another": answer,
        "model": nn.Sequential(Gated(), Gated()),
        "asked": SimpleNamespace(rows=lambda split: np.arange(8)),
        "load_pixels": lambda data, rows: images[rows],
        "normalize": lambda pixels: pixels,
        "predict_split": lambda *which, run_id: None,
        "answers": {"free": None},
        "paired_difference": lambda table, reference: gain(0.1),
        "torch": torch,
    }
    exec(next(cell.source for cell in cells if cell.source.startswith("def record_gates")), names)
    exec(check_of("04_mobilenet_v3.ipynb", "with_gates_of_another(model)"), names)


def epochs_for_budget(network: nn.Module, high: int, low: int, num_epochs: int, rounded=round) -> int:
    return max(1, rounded(num_epochs * count_macs(network, high) / count_macs(network, low)))


def run_budget(answer) -> None:
    names = {"epochs_for_budget": answer, "nn": nn, "create_backbone": create_backbone}
    exec(check_of("06_efficientnet_b3.ipynb", "epochs_for_budget(Square()"), names)


def halves_by(order, middle_is_wide: bool = False):
    """An answer to 00.2 that sorts the faces by ``order(answer, error)``."""

    def errors_by_width(answers, ages):
        errors = [abs(answer["age"] - age) for answer, age in zip(answers, ages, strict=True)]
        places = sorted(range(len(answers)), key=lambda place: order(answers[place], errors[place]))
        half = len(places) // 2
        parts = places[:half], places[half if middle_is_wide else len(places) - half :]
        return tuple(float(np.mean([errors[place] for place in part])) for part in parts)

    return errors_by_width


def width(answer: dict, error: float) -> float:
    return answer["age_interval"][1] - answer["age_interval"][0]


def run_widths(errors_by_width) -> None:
    answers = [{"age": 30.0, "age_interval": [20.0, 40.0 + number]} for number in range(4)]
    names = {"errors_by_width": errors_by_width, "answers": answers, "ages": np.array([31, 33, 25, 40]), "np": np}
    exec(check_of("00_start_here.ipynb", "00.2: right"), names)


def noise_01(num_images: int = 60, seed: int = 0) -> np.ndarray:
    """In place of drawings, (N, 24, 24, 3): pictures of noise."""
    return np.random.default_rng(seed).integers(0, 255, (num_images, 24, 24, 3)).astype(np.uint8)


def moved_copies(pixels: np.ndarray, rng: object = None) -> np.ndarray:
    """In place of cut copies: grey ones that are moved by a pixel."""
    return np.roll(grey_copies(pixels), 1, axis=2)


def grey_copies(pixels: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(face).convert("L")) for face in pixels])


def run_copies(likeness) -> None:
    names = {"originals": grey_copies(noise_01()), "cuts": moved_copies(noise_01()), "np": np, "Image": Image}
    names["draw_faces"] = lambda num_images, size, seed: SimpleNamespace(pixels=noise_01(num_images, seed))
    names["cut_copies"] = moved_copies
    cells = nbformat.read(NOTEBOOKS / "01_data_exploration.ipynb", as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code" and cell.source.startswith(("def found_copies", "def plain_likeness")):
            exec(cell.source.split("\n\n\n")[0], names)
    exec(check_of("01_data_exploration.ipynb", "01.4: right"), names | {"likeness": likeness})


def correlation(original: np.ndarray, copies: np.ndarray) -> np.ndarray:
    return np.corrcoef([original.ravel(), *copies.reshape(len(copies), -1)])[0, 1:]


def plain(original, copies):
    return correlation(original, copies)


def moved(original, copies):
    """Right: tries the move, too."""
    return np.maximum(correlation(original, copies), correlation(np.roll(original, 1, axis=1), copies))


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


def with_pixels(backbone, images):
    """Wrong: the pictures themselves are among the features, which need no backbone."""
    return torch.hstack([images.flatten(1), from_the_start(backbone, images)])


def forgets_unless_trained(backbone, images):
    """Right, and of the other outcome: only the first backbone, in place of a trained one, keeps the brightness."""
    brightness = from_the_start(backbone, images)
    trained = torch.equal(backbone.early.weight, Backbone(0).early.weight)
    noise = torch.randn(brightness.shape, generator=torch.Generator().manual_seed(4))
    return brightness if trained else noise


def fades_with_training(backbone, images):
    """Right, and of the third outcome: noise covers some of the brightness, in the trained backbone only."""
    brightness = from_the_start(backbone, images)
    trained = torch.equal(backbone.early.weight, Backbone(0).early.weight)
    return brightness + trained * 1.5 * torch.randn(brightness.shape, generator=torch.Generator().manual_seed(4))


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
        "untrained": Backbone(1).requires_grad_(False),
        "torch": torch,
        "np": np,
        "pd": pd,
        "bootstrap": bootstrap,
        "LogisticRegression": LogisticRegression,
    }
    exec(check_of("03b_transfer_learning.ipynb", "03b.2: right"), names)


def per_number(layer, side, batch, fetches=1, maps=2):
    """Right as it is; with as many fetches of the weights as images, or one map of the two, it makes a mistake."""
    inputs_and_outputs = layer.in_channels + layer.out_channels if maps == 2 else layer.in_channels
    moved = batch * inputs_and_outputs * side**2 + fetches * layer.weight.numel()
    return batch * layer.weight.numel() * side**2 / moved


def run_shapes(answer: tuple, shapes=("pointwise", "halfway", "last")) -> None:
    """The clock is made up: the first and the last of three shapes are slower."""
    count, said = answer
    measured = pd.DataFrame({"verdict": ("slower", "undecided", "slower")}, index=["pointwise", "halfway", "last"])
    names = {
        "GUESS": dict(zip(shapes, said, strict=True)),
        "macs_per_number_of_batch": count,
        "SHAPES": {"early": (32, 3, 24), "pointwise": (96, 1, 24), "halfway": (128, 3, 6), "last": (256, 3, 3)},
        "compare_shapes": lambda: measured,
        "dense": nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False),
        "nn": nn,
        "pd": pd,
    }
    exec(check_of("03_mobilenet_v2.ipynb", "03.3: done"), names)


def run_prediction(said: dict, found: tuple, function: str, notebook: str) -> None:
    """A prediction is compared with the verdicts that the trainings gave."""
    table = pd.DataFrame({"verdict": found}, index=list(said))
    names = {
        f"predict_{function}": lambda: said,
        f"compare_{function}": lambda: table.copy(),
        "pd": pd,
        "profile": SimpleNamespace(name="quick"),
        "DATA": "synthetic",
    }
    exec(check_of(notebook, f"predict_{function}()"), names)


DIALS = ("depth", "width", "resolution", "resolution again")


def run_dials(said: tuple, found=("lose", "undecided", "gain", "undecided"), dials=DIALS) -> None:
    said = dict(zip(dials, said, strict=True))
    run_prediction(said, found, "dials", "05_efficientnet_b1.ipynb")


def run_ways(said: tuple, found=("gain", "undecided", "lose"), ways=("small", "growing", "large")) -> None:
    run_prediction(dict(zip(ways, said, strict=True)), found, "ways", "06_efficientnet_b3.ipynb")


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


def run_foretell(answer: dict) -> None:
    """Trainings are made up: of 30 labels sharing brings 20 points, of 600 nothing."""
    right = {("age", "race"): {30: 0.6, 600: 0.9}, ("race",): {30: 0.4, 600: 0.9}}

    def train(num_labels, tasks, seed):
        return None, pd.DataFrame({"race_accuracy": np.arange(100) < 100 * right[tasks][num_labels]}).astype(float)

    names = {
        "foretell": lambda: answer,
        "make_data": lambda relatedness, num_labels: num_labels,
        "train": train,
        "PAIR": ("age", "race"),
        "MATTERS": MATTERS,
        "bootstrap": bootstrap,
        "pd": pd,
        "profile": SimpleNamespace(name="quick"),
    }
    exec(check_of("08_multitask_or_not.ipynb", "08.2: right"), names)


def standardised(errors, group, band, weights=None):
    """Right as it is; with the weights of bands, given a table of all faces, it makes a mistake."""
    faces = pd.DataFrame({"error": errors, "group": group, "band": band})
    shares = faces["band"].value_counts(normalize=True) if weights is None else weights(faces)
    return (faces.pivot_table(index="group", columns="band", values="error") * shares).sum(axis=1).to_dict()


def names_10() -> dict:
    """What lessons 10 and 10b give to the checks of their exercises: faces of two classes, and a model too modest."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    shown = np.where(rng.random(500) < 0.9, labels, 1 - labels)
    faces = pd.DataFrame({"age": rng.integers(0, 80, 500), "race": labels, "race_p0": 0.7 - 0.4 * shown})
    faces["race_p1"] = 1 - faces["race_p0"]
    faces["gender"], faces["gender_p"] = rng.integers(0, 2, 500), rng.random(500)
    faces["age_pred"], faces["age_lo"], faces["age_hi"] = faces["age"] + 4, faces["age"] + 2, faces["age"] + 6

    def in_words(table, threshold=0.5):
        return groups["race"].to_numpy(), *(
            np.where(one, "female", "male") for one in (table["gender"] == 1, table["gender_p"] >= threshold)
        )

    groups = pd.DataFrame({"race": np.where(labels, "b", "a")})
    return {
        "table": faces,
        "run": SimpleNamespace(split=lambda name: (faces, None)),
        "race": groups["race"],
        "right": pd.DataFrame({"female": [90.0, 91.0]}),
        "in_words": in_words,
        "by_criterion": lambda group, label, answer: pd.DataFrame({"female": [90.0, 91.0]}),
        "age_band": age_band,
        "scheme": SimpleNamespace(race=("a", "b")),
        "errors": pd.DataFrame({"age_mae": rng.random(500)}),
        "fairness": SimpleNamespace(label_groups=lambda table, scheme: groups),
        "calibration": calibration,
        "plots": plots,
        "plt": plt,
        "calibration_error": lambda confidence, correct: abs(confidence.mean() - correct.mean()),
        "np": np,
        "pd": pd,
    }


def run_standardised(answer) -> None:
    exec(check_of("10_fairness.ipynb", "standardised("), names_10() | {"standardised": answer})


def thresholds(p, label, group, share, rank=math.ceil, whose=1):
    """Right as it is; with another rounding of the rank, or the rank among all faces, wrong."""
    levels = {}
    for name in dict.fromkeys(group.tolist()):
        falling = np.sort(p[(group == name) & (label >= whose)])[::-1]
        levels[name] = falling[max(1, rank(share * len(falling))) - 1]
    return levels


def run_thresholds(answer) -> None:
    exec(check_of("10_fairness.ipynb", "thresholds("), names_10() | {"thresholds": answer})


def with_temperature(p, temperature):
    """Right as it is."""
    powers = p ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def run_temperature(answer) -> None:
    exec(check_of("10b_calibration.ipynb", "with_temperature("), names_10() | {"with_temperature": answer})


def widening_by_group(needed, group, coverage=0.9, too_few=np.inf):
    """Right as it is."""
    years = {}
    for name in dict.fromkeys(group.tolist()):
        ordered = np.sort(needed[group == name])
        rank = math.ceil((len(ordered) + 1) * coverage)
        years[name] = float(ordered[rank - 1]) if rank <= len(ordered) else too_few
    return years


def run_widening(answer) -> None:
    exec(check_of("10b_calibration.ipynb", "widening_by_group("), names_10() | {"widening_by_group": answer})


def brightened(images):
    """Right: pictures in the dark get the light of the others, and those in good light are left alone."""
    brightness = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(brightness < 0.35, images * (0.5 / brightness), images).clamp(0, 1)


def run_mend(mend) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = 255 * (0.5 + 0.1 * (torch.rand(80, 8, 8, 3, generator=generator) - 0.5))
    faces = pd.DataFrame({name: np.zeros(80) for name in ("age", "gender", "race")})

    def errors_of(model, images, labels):  # of a network that knows one brightness only
        off = (images.mean(dim=(1, 2, 3)) - 0.5).abs().numpy()
        return pd.DataFrame({name: off + 0.3 * (images.std(dim=(1, 2, 3)).numpy() < 1e-6) for name in ("a", "b")})

    names = {"mend": mend, "strangers": SimpleNamespace(pixels=pixels.byte().numpy(), faces=faces), "NUM_SWEPT": 40,
             "corrupt": corrupt, "errors_of": errors_of, "plain": [None] * 3, "pd": pd, "torch": torch,
             "bootstrap": bootstrap, "profile": SimpleNamespace(name="quick")}  # fmt: skip
    exec(check_of("11_robustness.ipynb", "11.3: right"), names)


def two_winners(curves, corruption, before=0):
    """Right as it is: the smallest error, and the smallest increase since a severity."""
    own = curves[curves["corruption"].isin(["clean", corruption])]
    wide = own.pivot(index="architecture", columns="severity", values="value")
    return wide[5].idxmin(), (wide[5] - wide[before]).idxmin()


def run_winners(answer) -> None:
    names = {"two_winners": answer, "pd": pd, "read_figure": read_figure, "CORRUPTIONS": CORRUPTIONS}
    exec(check_of("11_robustness.ipynb", "two_winners("), names)


def coarser(split: str):
    """An answer to 13.2 that changes the pictures of one split."""
    return lambda pixels, faces, rng: np.where((faces["split"] == split).to_numpy()[:, None, None, None], 9, pixels)


def one_picture(pixels):
    """The pixels with the first picture changed, which is of the training."""
    changed = pixels.copy()
    changed[0] = 9
    return changed


def run_webcam(serve_webcam, webcam: float = 2.0, phone: float = 0.0, expected=("gain", "cannot tell")) -> None:
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
        "EXPECTED": dict(zip(("webcam", "phone"), expected, strict=True)),
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


def run_nothing_gained(serve_webcam) -> None:
    """A null result is right, too."""
    run_webcam(serve_webcam, webcam=0.0, expected=("cannot tell", "cannot tell"))


def run_other_guess(serve_webcam) -> None:
    """So is a guess that did not come true: nothing was gained, and the phone paid."""
    run_webcam(serve_webcam, webcam=0.0, phone=-1.0)


def run_faster(faster) -> None:
    exec(check_of("12_deployment.ipynb", "faster("), {"faster": faster})


def wins(first, second, share=0.9, fewest=10):
    """Which of two series won at least that share of the rounds, where there are enough."""
    first, second = np.array(first), np.array(second)
    firsts, seconds = (first < second).mean(), (first > second).mean()
    if len(first) < fewest:
        return "cannot tell"
    return "first" if firsts >= share else "second" if seconds >= share else "cannot tell"


def nine_wins(first, second):
    """As if there were always ten rounds."""
    won, lost = (np.array(first) < second).sum(), (np.array(first) > second).sum()
    return "first" if won >= 9 else "second" if lost >= 9 else "cannot tell"


class Years(nn.Module):
    """Small enough to be rounded at once: a convolution, and a head that says an age. Its channels lie far apart."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 1)
        self.conv.weight.data *= 4.0 ** -torch.arange(8.0)[:, None, None, None]

    def forward(self, images):
        return 40 + 20 * self.head(self.conv(images).mean(dim=(2, 3)))[:, 0]


def ages_of(network, pixels):
    with torch.no_grad():
        return {"age_mean": network(torch.from_numpy(pixels)).numpy()}


def run_bits(age_error_at) -> None:
    names = {
        "age_error_at": age_error_at,
        "answer_pixels": ages_of,
        "calibrated": Years(),
        "copy": copy,
        "data": SimpleNamespace(
            rows=lambda split: np.arange(20),
            pixels=np.random.default_rng(0).random((20, 3, 2, 2), dtype=np.float32),
            faces=pd.DataFrame({"age": np.linspace(10, 80, 20)}),
        ),
        "np": np,
        "torch": torch,
    }
    exec(check_of("12_deployment.ipynb", "age_error_at("), names)


def rounded(layers=nn.Conv2d | nn.Linear, per_channel=True, copied=True, kind=None):
    """An answer to 12.2 by the function of the lesson, or with integers of another kind."""
    cells = nbformat.read(NOTEBOOKS / "12_deployment.ipynb", as_version=4).cells
    names = {"np": np}
    exec(next(cell.source for cell in cells if cell.source.startswith("def quantize_weights")), names)

    def age_error_at(bits, network, pixels, ages):
        network = copy.deepcopy(network) if copied else network
        for layer in network.modules():
            if isinstance(layer, layers):
                weights = layer.weight.detach().numpy()
                integers, scale = names["quantize_weights"](weights, per_channel, bits)
                rows = integers.astype(kind or integers.dtype).reshape(len(weights), -1) * scale
                layer.weight.data = torch.from_numpy(rows.reshape(weights.shape)).float()
        return np.abs(ages_of(network, pixels)["age_mean"] - ages).mean()

    return age_error_at


def run_limits(sentences: str) -> None:
    data = SimpleNamespace(rows=lambda split: range(1188))
    exec(check_of("13_your_own_faces.ipynb", "MY_LIMITS"), {"MY_LIMITS": sentences, "data": data})


def limits(number: str) -> str:
    return (
        f"It was tested on {number} pictures of drawn people.\n"
        "Nobody in the pictures is younger than twenty.\n"
        "It must not decide who may enter a building."
    )


@pytest.mark.parametrize(
    ("run", "answer", "settings"),
    [
        (run_weight, {"age": "better"}, {}),  # two tasks are missing
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
        (run_surgery, sum, {}),  # the plain sum
        (run_surgery, lambda gradients: surgery(gradients, only_opposed=False), {}),
        (run_surgery, lambda gradients: surgery(gradients, from_copies=True), {}),
        (run_surgery, lambda gradients: surgery(gradients, at_once=True), {}),
        (run_surgery, surgery_in_place, {}),
        (run_ablation, "with", {}),
        (run_ablation, "without", {"accuracy": 0.5}),
        (run_ablation, "without", {"modules": (SimpleNamespace(conv_reduce="there"),)}),
        (run_ablation, "without", {"step": 4}),
        (run_gates, with_gates(lambda gates: gates.mean(dim=0).expand_as(gates)), {}),  # the mean, as in section 7
        (run_gates, with_gates(lambda gates: gates), {}),  # its own
        (run_gates, with_gates(lambda gates: 1 - gates), {}),  # nobody's
        (run_gates, with_gates(of_the_one_before, in_a_copy=False), {}),
        (run_gates, with_gates(of_the_one_before, num_blocks=1), {}),  # those of the first block alone
        (run_budget, lambda *sizes: epochs_for_budget(*sizes, rounded=math.ceil), {}),
        (run_budget, lambda *sizes: epochs_for_budget(*sizes, rounded=math.floor), {}),
        (run_widths, halves_by(lambda answer, error: error), {}),  # sorted by the error: a circle
        (run_widths, halves_by(lambda answer, error: answer["age"]), {}),  # by the age
        (run_widths, halves_by(lambda answer, error: answer["age_interval"][1] - answer["age"]), {}),  # half a width
        (run_widths, halves_by(lambda answer, error: -width(answer, error)), {}),  # the wide ones first
        (run_widths, halves_by(width, middle_is_wide=True), {}),  # of an odd number
        (run_ablation, "without", {"num_epochs": 30}),  # a longer training
        (run_copies, plain, {}),  # no better than the baseline
        (run_copies, lambda original, copies: np.arange(len(copies)), {}),  # the place in the list, not the picture
        (run_copies, lambda original, copies: 0.5, {}),  # one number for all
        (run_copies, lambda original, copies: -moved(original, copies), {}),  # a distance
        (run_features, lambda backbone, images: backbone(images), {}),  # the last layer again
        (run_features, lambda backbone, images: images.flatten(1), {}),  # pixels
        (run_features, lambda backbone, images: from_the_start(backbone, images)[:, 0], {}),  # no table
        (run_features, with_pixels, {}),
        (run_shapes, (lambda *sizes: per_number(*sizes, fetches=sizes[2]), ("slower",) * 3), {}),  # of single images
        (run_shapes, (lambda *sizes: per_number(*sizes, maps=1), ("slower",) * 3), {}),  # the outputs are forgotten
        (run_shapes, (lambda *sizes: sizes[2] * per_number(*sizes), ("slower",) * 3), {}),
        (run_shapes, (per_number, ("slower", "level", "slower")), {}),  # another word
        (run_shapes, (per_number, ("slower",) * 3), {"shapes": ("pointwise", "halfway", "end")}),
        (run_dials, ("lose", "undecided", "gain", "worse"), {}),  # another word
        (run_dials, ("lose", "undecided", "gain", "gain"), {"dials": (*DIALS[:3], "size")}),  # another dial
        (run_ways, ("gain", "no difference", "lose"), {}),
        (run_ways, ("gain", "undecided", "lose"), {"ways": ("small", "growing", "big")}),
        (run_found, lambda faces, count: 0.95, {}),  # what an interval is said to hold
        (run_found, lambda faces, count: share_found(faces, count, deviations=1.0), {}),  # too narrow
        (run_found, lambda faces, count: share_found(faces[:count], count, num_sets=1), {}),  # one set
        (run_foretell, {30: "gain"}, {}),  # half an answer
        (run_foretell, {30: "gain", 600: "nothing"}, {}),  # no such word
        (run_standardised, lambda *faces: pd.Series(faces[0]).groupby(faces[1]).mean().to_dict(), {}),  # as they are
        (run_standardised, lambda *faces: standardised(*faces, lambda table: 0.5), {}),  # all bands alike
        (run_thresholds, lambda *faces: thresholds(*faces, rank=math.floor), {}),  # less than the share
        (run_thresholds, lambda *faces: thresholds(*faces, whose=0), {}),  # of all faces
        (run_thresholds, lambda p, label, group, share: dict.fromkeys(group.tolist(), 0.5), {}),  # one for all
        (run_temperature, lambda p, temperature: p, {}),
        (run_temperature, lambda p, temperature: p ** (1 / temperature), {}),  # no longer probabilities
        (run_temperature, lambda p, temperature: with_temperature(p, 1 / temperature), {}),  # the wrong way round
        (run_widening, lambda *faces, **share: widening_by_group(*faces, **share, too_few=7.0), {}),  # of eight faces
        (run_mend, lambda images: images, {}),  # no gain
        (run_mend, lambda images: (images * 2.2).clamp(0, 1), {}),  # pictures in good light pay for it
        (run_mend, lambda images: images * 0 + 0.5, {}),  # grey
        (run_mend, lambda images: images * 3, {}),  # beyond white
        (run_winners, lambda curves, name: two_winners(curves, name, before=5), {}),  # no increase at all
        (run_winners, lambda curves, name: two_winners(curves, name)[::-1], {}),  # the wrong way round
        (run_winners, lambda curves, name: ("A", "B"), {}),  # right in fog only
        (run_webcam, coarser("test"), {}),  # the test was changed, too
        (run_webcam, lambda pixels, faces, rng: pixels, {}),  # nothing was changed
        (run_webcam, lambda pixels, faces, rng: one_picture(pixels), {}),  # one picture was changed
        (run_webcam, coarser("train"), {"expected": ("", "")}),  # nothing was expected
        (run_webcam, coarser("train"), {"expected": ("better", "cannot tell")}),  # not one of the words
        (run_faster, nine_wins, {}),  # of however many rounds
        (run_faster, lambda first, second: wins(first, second, share=0.8), {}),
        (run_faster, lambda *times: wins(*([np.mean(one)] * len(one) for one in times)), {}),  # one hiccup decides
        (run_faster, lambda first, second: wins(first, second, fewest=1), {}),  # one round decides
        (run_faster, lambda first, second: wins(first, second, fewest=9), {}),
        (run_bits, rounded(copied=False), {}),
        (run_bits, rounded(kind=np.int8), {}),  # 16 bits in one byte
        (run_bits, rounded(layers=nn.Conv2d), {}),  # the heads were forgotten
        (run_bits, rounded(per_channel=False), {}),
        (run_limits, limits("11880"), {}),  # another number that holds the right one
        (run_limits, limits("2,1188"), {}),
        (run_limits, "\n".join(["It was tested on 1188 pictures of drawn people."] * 3), {}),  # one, three times
    ],
)
def test_a_wrong_answer_is_told(run, answer, settings):
    with pytest.raises(AssertionError):
        run(answer, **settings)


@pytest.mark.parametrize(
    ("run", "answer", "settings", "foreseen"),
    [
        (run_ways, ("gain", "undecided", "lose"), {}, "3 of 3"),
        (run_ways, ("gain", "gain", "lose"), {}, "2 of 3"),
        (run_foretell, {30: "gain", 600: "gain"}, {}, "1 of 2"),
        (run_shapes, (per_number, ("slower", "undecided", "slower")), {}, "3 of 3"),
        (run_shapes, (per_number, ("faster", "faster", "slower")), {}, "1 of 3"),
        (run_foretell, {30: "undecided", 600: "loss"}, {}, "0 of 2"),
        (run_one_more, ({"ema_decay": 0.9}, "better"), {}, "1 of 1"),
        (run_one_more, ({"ema_decay": 0.9}, "cannot tell"), {}, "0 of 1"),
        (run_one_more, ({"ema_decay": 0.9}, "better"), {"second": -0.02}, "0 of 1"),  # one seed is not two
    ],
)
def test_an_honest_guess_passes_and_hits_are_counted(run, answer, settings, foreseen, capsys):
    run(answer, **settings)
    told = capsys.readouterr().out
    assert f"oreseen: {foreseen}" in told and "right" in told


@pytest.mark.parametrize(("run", "count"), [(run_dials, 4), (run_ways, 3)])
def test_an_honest_null_passes(run, count, capsys):
    run(("undecided",) * count, found=("undecided",) * count)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "answer", "said"),
    [
        (run_weight, {}, "not done yet"),
        (run_weight, {"age": "better", "gender": "cannot tell", "race": "cannot tell"}, "3 of 3 guesses came true"),
        (run_weight, dict.fromkeys(("age", "gender", "race"), "worse"), "0 of 3 guesses came true\n(One training each"),
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
        (run_gates, lambda network: None, "not done yet"),
        (run_gates, with_gates(of_the_one_before), "right"),
        (run_budget, lambda *sizes: None, "not done yet"),
        (run_budget, epochs_for_budget, "right"),
        (run_widths, lambda answers, ages: None, "not done yet"),
        (run_widths, halves_by(width), "right"),
        (run_copies, lambda original, copies: None, "not done yet"),
        (run_copies, moved, "right"),
        (run_features, lambda backbone, images: None, "not done yet"),
        (run_features, from_the_start, "untrained it does as well there"),
        (run_features, from_the_start, "right"),
        (run_features, forgets_unless_trained, "that is what it has learned"),
        (run_features, fades_with_training, "untrained it shows even more there"),
        (run_shapes, (lambda *sizes: None, ("slower",) * 3), "not done yet"),
        (run_shapes, (per_number, ("slower", None, "slower")), "not done yet"),
        (run_dials, (None,) * 4, "not done yet"),
        (run_dials, ("lose", None, "gain", "gain"), "not done yet"),
        (run_dials, ("lose", "undecided", "gain", "undecided"), "4 of 4 guesses came true"),
        (run_dials, ("gain", "gain", "gain", "gain"), "1 of 4 guesses came true\n05.4: done"),  # honest and wrong
        (run_ways, (None, None, None), "not done yet"),
        (run_ways, ("gain", "undecided", "lose"), "right"),
        (run_found, lambda faces, count: None, "not done yet"),
        (run_found, share_found, "right"),
        (run_foretell, {}, "not done yet"),
        (run_foretell, {30: "gain", 600: "undecided"}, "right"),
        (run_standardised, lambda errors, group, band: {}, "not done yet"),
        (run_standardised, standardised, "right"),
        (run_thresholds, lambda p, label, group, share: None, "not done yet"),
        (run_thresholds, thresholds, "right"),
        (run_temperature, lambda p, temperature: None, "not done yet"),
        (run_temperature, with_temperature, "right"),
        (run_widening, lambda needed, group, coverage=0.9: None, "not done yet"),
        (run_widening, widening_by_group, "right"),
        (run_mend, lambda images: None, "not done yet"),
        (run_mend, brightened, "right"),
        (run_winners, lambda curves, name: None, "not done yet"),
        (run_winners, two_winners, "right"),
        (run_webcam, lambda pixels, faces, rng: None, "not done yet"),
        (run_webcam, coarser("train"), "right"),
        (run_nothing_gained, coarser("train"), "right"),
        (run_other_guess, coarser("train"), "came true: 0 of 2"),
        (run_faster, lambda first, second: None, "not done yet"),
        (run_faster, wins, "right"),
        (run_bits, lambda *question: None, "not done yet"),
        (run_bits, rounded(), "right"),
        (run_limits, "", "not done yet"),
        (run_limits, limits("1188"), "right"),
        (run_limits, limits("1,188"), "right"),
    ],
)
def test_what_a_right_answer_and_none_are_told(run, answer, said, capsys):
    run(answer)
    assert said in capsys.readouterr().out

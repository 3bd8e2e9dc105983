"""What notebook 02 writes by hand is what the package does.

The definitions of the notebook (imports, constants, functions, classes; nothing that computes) are run here and
compared with their twins. Each comparison is also tried on a definition that is spoilt on purpose: it must notice.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from agr_utils.data.augment import Augmentation
from agr_utils.data.load import load_data
from agr_utils.machine import seed_everything
from agr_utils.models import network as multitask
from agr_utils.tasks import get_scheme
from agr_utils.training import losses
from agr_utils.training.config import TrainConfig
from agr_utils.training.trainer import Trainer

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "02_custom_cnn.ipynb"
DESIGNS = NOTEBOOKS / "solutions" / "08b_designing_multitask_networks.ipynb"  # PCGrad, and a study built on lesson 02
SOURCES = (NOTEBOOK, DESIGNS)
NAN = float("nan")


def is_definition(node: ast.stmt) -> bool:
    """An import, a function, a class, or a constant: names in capitals that are given literal values."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
        return True
    if not isinstance(node, ast.Assign):
        return False
    names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return all(name.isupper() for name in names)


def read_source() -> str:
    """The code of the notebook and of the designs, without the cells for Colab and for the learner's own answers."""
    cells = [cell for path in SOURCES for cell in nbformat.read(path, as_version=4).cells]
    left_out = {"setup", "exercise", "check"}
    return "\n".join(
        cell.source for cell in cells if cell.cell_type == "code" and not left_out & set(cell.metadata.get("tags", []))
    )


def run_definitions(source: str) -> dict:
    """The names that the notebook's definitions make."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if is_definition(node)]
    namespace = {"__name__": "notebook_02", "DEVICE": torch.device("cpu")}
    exec(compile(tree, NOTEBOOK.name, "exec"), namespace)
    return namespace


def random_labels(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Labels of every kind: known, in a band, missing."""
    low = torch.randint(0, 100, (count,), generator=generator).float()
    high = low + torch.where(torch.rand(count, generator=generator) < 0.3, 9.0, 0.0)
    missing = torch.rand(count, generator=generator) < 0.3
    low[missing], high[missing] = NAN, NAN
    gender = torch.randint(-1, 2, (count,), generator=generator)
    race = torch.randint(-1, 5, (count,), generator=generator)
    return {"age_min": low, "age_max": high, "gender": gender, "race": race}


def random_logits(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    widths = {"age": 117, "gender": 2, "race": 5}
    return {task: 3 * torch.randn(count, width, generator=generator) for task, width in widths.items()}


def assert_same_loss(ours: Callable, theirs: Callable, logits: Tensor, *labels: Tensor) -> None:
    """The same value and the same gradient."""
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours(mine, *labels).backward()
    theirs(other, *labels).backward()
    torch.testing.assert_close(ours(logits, *labels), theirs(logits, *labels))
    torch.testing.assert_close(mine.grad, other.grad)


def check_normalize(notebook: dict) -> None:
    pixels = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(notebook["normalize"](pixels), multitask.normalize(pixels))


def check_expected_age(notebook: dict) -> None:
    belief = torch.randn(16, 117).softmax(dim=1)
    torch.testing.assert_close(notebook["expected_age"](belief), multitask.expected_age(belief))


def check_age_target(notebook: dict) -> None:
    low = torch.tensor([0.0, 1.0, 35.0, 20.0, 70.0, 116.0])
    high = torch.tensor([0.0, 1.0, 35.0, 29.0, 116.0, 116.0])
    torch.testing.assert_close(notebook["age_target"](low, high), losses.age_target(low, high))


def check_age_loss(notebook: dict) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        labels = random_labels(32, generator)
        logits = random_logits(32, generator)["age"]
        assert_same_loss(notebook["age_loss"], losses.age_loss, logits, labels["age_min"], labels["age_max"])
    nothing = torch.full((32,), NAN)
    assert_same_loss(notebook["age_loss"], losses.age_loss, logits, nothing, nothing)


def check_class_loss(notebook: dict) -> None:
    generator = torch.Generator().manual_seed(2)
    for task in ("gender", "race"):
        labels, logits = random_labels(32, generator)[task], random_logits(32, generator)[task]
        assert_same_loss(notebook["class_loss"], losses.class_loss, logits, labels)
        assert_same_loss(notebook["class_loss"], losses.class_loss, logits, torch.full((32,), -1))


def check_multitask_loss(notebook: dict) -> None:
    generator = torch.Generator().manual_seed(3)
    labels, logits = random_labels(32, generator), random_logits(32, generator)
    weights = {"age": 0.3, "gender": 1.5, "race": 0.7}
    total, parts = notebook["multitask_loss"](logits, labels, weights)
    package_total, package_parts = losses.multitask_loss(logits, labels, weights)
    torch.testing.assert_close(total, package_total)
    torch.testing.assert_close(parts, package_parts)


def check_network(notebook: dict) -> None:
    seed_everything(4)
    ours = notebook["MultiTaskNet"](get_scheme("fairface"))
    seed_everything(4)
    theirs = multitask.MultiTaskNet("custom_cnn", "fairface")
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)  # the same start
    for parameter in theirs.parameters():  # away from zeros, which would hide a difference
        nn.init.normal_(parameter, std=0.05)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 48, 48)
    for training in (True, False):
        torch.manual_seed(5)  # dropout
        answers = ours.train(training)(images)
        torch.manual_seed(5)
        torch.testing.assert_close(answers, theirs.train(training)(images))


def check_weight_decay_groups(notebook: dict) -> None:
    model = multitask.MultiTaskNet("custom_cnn", "synthetic")

    def decay_of(groups: list[dict]) -> dict[int, float]:
        return {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}

    assert decay_of(notebook["weight_decay_groups"](model, 0.05)) == decay_of(param_groups_weight_decay(model, 0.05))


def small_trainer(**settings) -> Trainer:
    config = TrainConfig(
        backbone="custom_cnn", image_size=32, batch_size=32, num_images=160, precision="fp32", **settings
    )
    return Trainer(config, load_data("synthetic", 32, num_images=160))


def check_learning_rate_at(notebook: dict) -> None:
    trainer = small_trainer(num_epochs=12, warmup_epochs=2)
    total = 12 * trainer.steps_per_epoch
    for step in range(total):
        trainer.scheduler.step_update(step)
        expected = trainer.optimizer.param_groups[0]["lr"]
        rate = notebook["learning_rate_at"](step, total, 2 * trainer.steps_per_epoch, trainer.config.learning_rate)
        assert rate == pytest.approx(expected, rel=1e-9), step


def check_update_average(notebook: dict) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average.load_state_dict(model.state_dict())
    twin = ModelEmaV3(model, decay=0.9, use_warmup=True, warmup_power=0.8)
    for step in range(1, 40):
        for value in model.state_dict().values():
            value.add_(1) if not value.is_floating_point() else value.normal_()
        twin.update(model, step=step)
        notebook["update_average"](average, model, step, 0.9)
        torch.testing.assert_close(dict(average.state_dict()), dict(twin.module.state_dict()))


def check_train_by_hand(notebook: dict) -> None:
    trainer = small_trainer(num_epochs=2, augmentation=Augmentation())
    seed_everything(trainer.config.seed)
    model = notebook["MultiTaskNet"](trainer.data.scheme).to(memory_format=torch.channels_last)
    start = flatten(model)
    average, values = notebook["train_by_hand"](model, trainer.data, trainer.config)
    seed_everything(trainer.config.seed)
    history = trainer.run()
    totals = [sum(step.values()) for step in values]  # every task weighs 1
    by_epoch = torch.tensor(totals).reshape(2, -1).mean(dim=1)
    torch.testing.assert_close(by_epoch, torch.tensor(history["train_loss"]).float(), rtol=1e-3, atol=0)
    # Single weights differ by rounding, which AdamW magnifies where a gradient is near 0; on the whole hardly anything.
    ours, theirs = flatten(average), flatten(trainer.ema.module)
    assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()


def check_pcgrad(notebook: dict) -> None:
    """Against the formula for two tasks; and what is left of three is what no other task opposes."""
    generator = torch.Generator().manual_seed(6)
    for _ in range(20):
        first, second, third = torch.randn(3, 7, generator=generator)
        dot = first @ second
        expected = first + second
        if dot < 0:
            expected = expected - dot * (second / second.square().sum() + first / first.square().sum())
        torch.testing.assert_close(notebook["pcgrad"]([first, second]), expected)
        agreeing = torch.stack([first, second, third]).abs()
        torch.testing.assert_close(notebook["pcgrad"](list(agreeing)), agreeing.sum(dim=0))


def check_split_net(notebook: dict) -> None:
    """Nothing shared is three networks; everything shared is one, with three heads."""
    sizes, scheme = {}, get_scheme("synthetic")
    for number in range(5):
        net = notebook["SplitNet"](scheme, number)
        answers = net(torch.randn(2, 3, 32, 32))
        assert {task: tuple(values.shape) for task, values in answers.items()} == {
            "age": (2, 117), "gender": (2, 2), "race": (2, 5),
        }  # fmt: skip
        sizes[number] = sum(values.numel() for values in [*net.trunk.parameters(), *net.branches.parameters()])
    assert sizes[0] == 3 * sizes[4] and list(sizes.values()) == sorted(sizes.values(), reverse=True)


def flatten(model: nn.Module) -> Tensor:
    """All weights and running statistics in one row."""
    return torch.cat([value.flatten().double() for value in model.state_dict().values() if value.is_floating_point()])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: with several threads rounding alone drives two trainings apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.fixture(scope="module")
def source() -> str:
    return read_source()


@pytest.mark.parametrize("name", CHECKS)
def test_the_notebook_does_what_the_package_does(name: str, source: str):
    CHECKS[name](run_definitions(source))


SPOILT = [
    ("normalize", "/ PIXEL_STD", "* PIXEL_STD"),
    ("expected_age", "torch.arange(NUM_AGES, device=prob", "1 + torch.arange(NUM_AGES, device=prob"),
    ("age_target", "age_max[:, None] + 0.5", "age_max[:, None] + 0.6"),
    ("age_target", "AGE_SIGMA = 2.5", "AGE_SIGMA = 2.4"),
    ("age_loss", "labelled = ~age_min.isnan()", "labelled = age_min > 30"),
    ("age_loss", "0.1 * smooth_l1", "0.2 * smooth_l1"),
    ("age_loss", "(mean - mean.detach().clamp(age_min, age_max))", "(mean - age_min)"),
    ("class_loss", "labelled = labels >= 0", "labelled = labels >= 1"),
    ("class_loss", "LABEL_SMOOTHING = 0.05", "LABEL_SMOOTHING = 0.06"),
    ("multitask_loss", "weights[task] * loss", "loss"),
    ("network", "x + self.attention(", "self.attention("),
    ("network", "maps.mean(dim=(2, 3))", "maps.amax(dim=(2, 3))"),
    ("network", "dropout: float = 0.2", "dropout: float = 0.1"),
    ("weight_decay_groups", "parameter.ndim > 1", "parameter.ndim > 2"),
    ("learning_rate_at", "math.pi * step / total_steps", "math.pi * (step - warmup_steps) / total_steps"),
    ("update_average", "step**-0.8", "step**-0.7"),
    ("update_average", "value.copy_(current)", "pass"),
    ("train_by_hand", "[config.seed, step, 0]", "[config.seed, step, 1]"),
    ("train_by_hand", "model, step + 1, config", "model, step + 2, config"),
    ("pcgrad", ".clamp(max=0)", ".clamp(min=0)"),
    ("pcgrad", "other.square().sum()", "other.square().mean()"),
    ("pcgrad", "total += kept", "total += gradient"),
    ("split_net", "own[num_shared:]", "parts[0][num_shared:]"),
]


@pytest.mark.parametrize(("name", "right", "wrong"), SPOILT, ids=[f"{name}: {wrong}" for name, _, wrong in SPOILT])
def test_a_spoilt_definition_is_noticed(name: str, right: str, wrong: str, source: str):
    assert source.count(right) == 1, f"the notebook no longer says '{right}' once: spoil something else"
    with pytest.raises(AssertionError):
        CHECKS[name](run_definitions(source.replace(right, wrong)))

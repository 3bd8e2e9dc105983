import pytest
import timm
import torch

from agr_utils.errors import InputError
from agr_utils.models import backbones
from agr_utils.models.backbones import BACKBONES, create_backbone, get_backbone, zero_init_residual_
from agr_utils.models.network import MultiTaskNet, age_interval, count_macs, count_parameters, expected_age, normalize


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("scheme, num_races", [("utkface", 5), ("fairface", 7)])
def test_each_architecture_answers_three_tasks(name: str, scheme: str, num_races: int):
    model = MultiTaskNet(name, scheme).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 64, 64))
    assert {task: tuple(value.shape) for task, value in logits.items()} == {
        "age": (2, 117),
        "gender": (2, 2),
        "race": (2, num_races),
    }
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in logits.values())


def test_any_timm_name_is_an_architecture():
    assert MultiTaskNet("resnet18", tasks=("age",)).num_features == 512


@pytest.mark.parametrize("name", BACKBONES)
def test_target_layer_exists_and_has_a_map(name: str):
    model, _, _ = create_backbone(name)
    maps = []
    model.get_submodule(get_backbone(name).target_layer).register_forward_hook(lambda *args: maps.append(args[2]))
    model.eval()(torch.rand(1, 3, 64, 64))
    assert maps[0].ndim == 4 and maps[0].shape[-1] >= 2


def test_an_architecture_of_a_fixed_size_is_one_clear_line(one_clear_line):
    with one_clear_line("vit_tiny_patch16_224 takes no small square images"):
        create_backbone("vit_tiny_patch16_224")


def test_an_architecture_without_stochastic_depth():
    assert create_backbone("vgg11")[1] == 4096


@pytest.mark.parametrize("name", [name for name, backbone in BACKBONES.items() if backbone.timm_name])
def test_residual_blocks_can_start_as_the_identity(name: str):
    backbone = create_backbone(name)[0].eval()
    blocks = [block for stage in backbone.blocks for block in stage if getattr(block, "has_skip", False)]
    inputs = {}
    for block in blocks:
        block.register_forward_hook(lambda block, args, output: inputs.update({block: (args[0], output)}))
    images = torch.randn(2, 3, 32, 32)
    before = backbone(images)
    assert not any(torch.equal(*pair) for pair in inputs.values()) and len(inputs) == len(blocks) > 5
    zero_init_residual_(backbone)
    after = backbone(images)
    assert all(torch.equal(*pair) for pair in inputs.values())
    assert after.std() > 0 and not torch.equal(before, after)


def test_heads_follow_the_tasks_asked_for():
    model = MultiTaskNet("custom_cnn", tasks=("race", "age"))
    assert model.tasks == ("age", "race")
    with pytest.raises(InputError, match="at least one task"):
        MultiTaskNet("custom_cnn", tasks=())
    with pytest.raises(InputError, match="unknown task 'height'"):
        MultiTaskNet("custom_cnn", tasks=("height",))


def test_unknown_architecture_lists_near_names():
    with pytest.raises(InputError, match="mobilenet_v3"):
        get_backbone("mobilenet_v9")
    with pytest.raises(InputError, match="Choose one of: custom_cnn"):
        get_backbone("§§§§§§")


def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch):
    real_create = timm.create_model

    def offline(*args, pretrained=False, **keywords):
        if pretrained:
            raise OSError("no network")
        return real_create(*args, **keywords)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(backbones, "_weights_within_reach", lambda name: True)  # and gone when they are fetched
    with pytest.raises(InputError, match="if-available") as caught:
        create_backbone("mobilenet_v3", pretrained=True)
    assert "\n" not in str(caught.value)
    assert create_backbone("mobilenet_v3", pretrained="if-available")[2] == "from scratch"
    with pytest.raises(InputError, match="no pretrained weights"):
        create_backbone("custom_cnn", pretrained=True)


def test_pretrained_weights_without_a_network_are_refused_before_anything_is_fetched(monkeypatch, capfd):
    monkeypatch.setattr(backbones, "_weights_within_reach", lambda name: False)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("tried to fetch"))
    with pytest.raises(InputError, match="no network, and none on this disk"):
        create_backbone("mobilenet_v3", pretrained=True)
    assert capfd.readouterr() == ("", "")


def test_macs_and_parameters_of_a_known_network():
    layer = torch.nn.Conv2d(3, 8, 3, padding=1)
    assert count_parameters(layer) == 8 * 3 * 9 + 8
    assert count_macs(layer, 16) == 8 * 3 * 9 * 16 * 16


def test_custom_cnn_is_smaller_than_a_resnet18():
    model, _, _ = create_backbone("custom_cnn")
    assert count_parameters(model) < count_parameters(timm.create_model("resnet18"))


def test_custom_cnn_at_half_its_width_does_a_quarter_of_the_work_and_has_a_map():
    half, whole = (MultiTaskNet(name, "synthetic") for name in ("custom_cnn_half", "custom_cnn"))
    assert 0.2 < count_macs(half, 40) / count_macs(whole, 40) < 0.3
    assert get_backbone("custom_cnn_half").target_layer in dict(half.backbone.named_modules())


def test_normalize_maps_grey_to_zero():
    assert normalize(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-2.0, 0.0, 2.0]


def test_expected_age_and_interval_of_known_distributions():
    certain = torch.zeros(1, 117)
    certain[0, 31] = 1.0
    uniform = torch.full((1, 117), 1 / 117)
    assert expected_age(certain).item() == 31
    assert expected_age(uniform).item() == pytest.approx(58, abs=1e-3)
    assert [end.item() for end in age_interval(certain)] == [31, 31]
    lower, upper = age_interval(uniform, coverage=0.9)
    mass = uniform[0, int(lower) : int(upper) + 1].sum().item()
    assert 0.9 <= mass <= 0.93
    wide_lower, wide_upper = age_interval(certain, widening=4.0)
    assert (wide_lower.item(), wide_upper.item()) == (27, 35)
    assert age_interval(certain, widening=200)[0].item() == 0


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1])
def test_interval_refuses_an_impossible_coverage(coverage: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        age_interval(torch.full((1, 117), 1 / 117), coverage=coverage)


def test_a_frozen_part_stays_frozen_when_operations_are_counted():
    model = MultiTaskNet("custom_cnn_half", dropout=0.0).train()
    model.backbone.eval()
    count_macs(model.double(), 32)
    assert model.training and not model.backbone.training
    with pytest.raises(RuntimeError):
        count_macs(model, 0)
    assert model.training and not any(module.training for module in model.backbone.modules())

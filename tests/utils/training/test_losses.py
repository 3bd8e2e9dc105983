import math

import pytest
import torch
import torch.nn.functional as F

from agr_utils.errors import InputError
from agr_utils.models.age_heads import AGE_CENTRE, AGE_HEADS, AGE_SPREAD, get_age_head
from agr_utils.models.network import expected_age
from agr_utils.training.losses import AGE_SIGMA, age_loss, age_target, class_loss, multitask_loss

NAN = float("nan")


def test_age_target_of_a_number_is_a_gaussian_around_it():
    target = age_target(torch.tensor([40.0]), torch.tensor([40.0]))
    years = torch.arange(117)
    mean = (target[0] * years).sum()
    assert target.sum().item() == pytest.approx(1, abs=1e-5)
    assert mean.item() == pytest.approx(40, abs=0.01)
    # A year is an interval of uniform density, whose variance of 1/12 adds to the Gaussian's.
    variance = (target[0] * (years - mean) ** 2).sum().item()
    assert variance == pytest.approx(AGE_SIGMA**2 + 1 / 12, rel=0.01)


def test_age_target_of_a_band_is_flat_inside_and_falls_off_outside():
    target = age_target(torch.tensor([20.0]), torch.tensor([49.0]))[0]
    inside = target[28:42]
    assert inside.max() - inside.min() < 0.001 * inside.max()
    assert target[10] < 0.01 * inside.mean() and target[60] < 0.01 * inside.mean()


def test_age_target_at_the_ends_of_the_range():
    target = age_target(torch.tensor([0.0, 116.0]), torch.tensor([0.0, 116.0]))
    assert torch.allclose(target.sum(dim=1), torch.ones(2), atol=1e-5)
    assert target.argmax(dim=1).tolist() == [0, 116]


def test_age_loss_prefers_the_right_age_and_skips_missing_labels():
    right, wrong = torch.zeros(2, 117), torch.zeros(2, 117)
    right[:, 30], wrong[:, 60] = 6.0, 6.0
    labels = torch.tensor([30.0, NAN])
    assert age_loss(right, labels, labels) < age_loss(wrong, labels, labels)
    garbage = right.clone()
    garbage[1] = 100 * torch.rand(117)
    assert torch.equal(age_loss(right, labels, labels), age_loss(garbage, labels, labels))


def test_no_label_at_all_asks_for_nothing():
    logits = torch.randn(3, 117, requires_grad=True)
    missing = torch.full((3,), NAN)
    loss = age_loss(logits, missing, missing)
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0
    classes = torch.randn(3, 5, requires_grad=True)
    loss = class_loss(classes, torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0 and classes.grad.abs().max() == 0


def test_a_mean_inside_its_band_is_not_pulled():
    logits = torch.zeros(1, 117)
    logits[0, 35] = 20.0
    band = age_loss(logits, torch.tensor([30.0]), torch.tensor([39.0]))
    target = age_target(torch.tensor([30.0]), torch.tensor([39.0]))
    assert band.item() == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-5)


def test_class_loss_masks_missing_labels():
    logits = torch.randn(4, 5)
    labels = torch.tensor([1, -1, 3, -1])
    assert torch.allclose(class_loss(logits, labels), class_loss(logits[[0, 2]], labels[[0, 2]]))


def test_label_smoothing_keeps_certainty_from_being_free():
    logits = torch.tensor([[50.0, 0.0]])
    assert class_loss(logits, torch.tensor([0])).item() > 1


def test_total_is_the_weighted_sum():
    logits = {"age": torch.randn(4, 117), "gender": torch.randn(4, 2)}
    labels = {
        "age_min": torch.tensor([10.0, 20, 30, 40]),
        "age_max": torch.tensor([10.0, 20, 30, 40]),
        "gender": torch.tensor([0, 1, 1, 0]),
        "race": torch.tensor([0, 1, 2, 3]),
    }
    total, losses = multitask_loss(logits, labels, {"age": 0.5, "gender": 2.0, "race": 7.0})
    assert set(losses) == {"age", "gender"}
    assert total.item() == pytest.approx(0.5 * losses["age"].item() + 2 * losses["gender"].item(), rel=1e-5)
    assert math.isfinite(total.item())


@pytest.mark.parametrize("ages", [(23.0, 71.0), (30.4, 41.5)], ids=["whole", "not whole"])
@pytest.mark.parametrize("name", AGE_HEADS)
def test_every_age_head_can_be_trained_to_a_known_age(name: str, ages: tuple[float, float]):
    outputs = torch.zeros(2, AGE_HEADS[name].num_outputs, requires_grad=True)
    ages = torch.tensor(ages)
    optimizer = torch.optim.Adam([outputs], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        age_loss(outputs, ages, ages, name).backward()
        optimizer.step()
    probabilities = AGE_HEADS[name].to_probabilities(outputs.detach())
    assert probabilities.shape == (2, 117)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(2), atol=1e-5) and (probabilities >= 0).all()
    assert torch.allclose(expected_age(probabilities), ages, atol=2)


@pytest.mark.parametrize("name", AGE_HEADS)
def test_an_age_band_pulls_only_what_is_outside(name: str):
    head, low, high = AGE_HEADS[name], torch.tensor([30.0]), torch.tensor([39.0])
    outputs = torch.zeros(1, head.num_outputs, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        age_loss(outputs, low, high, name).backward()
        optimizer.step()
    assert 29 < expected_age(head.to_probabilities(outputs.detach())).item() < 40


def test_the_ordinal_head_by_hand():
    logits = torch.full((1, 116), -20.0)
    logits[0, :2] = torch.logit(torch.tensor([0.9, 0.5]))  # P(age > 0) = 0.9, P(age > 1 | age > 0) = 0.5
    probabilities = AGE_HEADS["ordinal"].to_probabilities(logits)[0]
    assert probabilities[:4].tolist() == pytest.approx([0.1, 0.45, 0.45, 0], abs=1e-6)
    # Asked of somebody of 1: older than 0 (yes), older than 1 (no), and nothing more.
    loss = age_loss(logits, torch.tensor([1.0]), torch.tensor([1.0]), "ordinal")
    assert loss.item() == pytest.approx(-(math.log(0.9) + math.log(0.5)) / 2, rel=1e-5)


def test_the_ordinal_loss_of_known_ages_is_corns():
    logits, ages = 6 * torch.randn(50, 116, generator=torch.Generator().manual_seed(0)), torch.arange(50.0)
    asked = ages[:, None] >= torch.arange(116)
    answers = (ages[:, None] > torch.arange(116)).float()
    expected = F.binary_cross_entropy_with_logits(logits[asked], answers[asked])
    assert age_loss(logits, ages, ages, "ordinal").item() == pytest.approx(expected.item(), rel=1e-5)
    far = torch.full((1, 116), 60.0, requires_grad=True)  # as sure as can be, and wrong
    age_loss(far, torch.tensor([3.0]), torch.tensor([3.0]), "ordinal").backward()
    assert far.grad[0, 3].item() == pytest.approx(1 / 4) and far.grad.isfinite().all()


@pytest.mark.parametrize("name", AGE_HEADS)
def test_bands_alone_teach_how_many_are_in_each(name: str):
    low = torch.tensor([0.0, 10, 10, 10, 60, 60])
    high = torch.tensor([9.0, 39, 39, 39, 116, 116])
    outputs = torch.zeros(1, AGE_HEADS[name].num_outputs, requires_grad=True)  # one answer for everybody
    optimizer = torch.optim.Adam([outputs], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        age_loss(outputs.expand(6, -1), low, high, name).backward()
        optimizer.step()
    probabilities = AGE_HEADS[name].to_probabilities(outputs.detach())[0]
    if name == "regression":  # one number: that of the many in the middle
        assert 10 <= expected_age(probabilities[None]).item() <= 60
    else:
        shares = torch.stack([probabilities[int(a) : int(b) + 1].sum() for a, b in ((0, 9), (10, 39), (60, 116))])
        assert shares.tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6], abs=0.06)


def test_a_regressed_age_is_spread_over_the_two_years_around_it():
    outputs = torch.tensor([[(30.25 - AGE_CENTRE) / AGE_SPREAD], [50.0]])
    probabilities = AGE_HEADS["regression"].to_probabilities(outputs)
    assert probabilities[0, 30:32].tolist() == pytest.approx([0.75, 0.25], abs=1e-4)
    assert expected_age(probabilities).tolist() == pytest.approx([30.25, 116], abs=1e-3)  # 1,035 is nobody's age


def test_an_unknown_age_head_names_near_ones():
    with pytest.raises(InputError, match="Did you mean: regression"):
        get_age_head("regresion")

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from agr_utils.data.augment import Augmentation, augment, erase_, jitter_colour_, warp

NOTHING = Augmentation(flip=0, rotation=0, scale=0, translation=0, colour=0, erase=0)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draws_for(images: Tensor, count: int) -> Tensor:
    return torch.rand(count, len(images), generator=seeded())


@pytest.fixture
def images() -> Tensor:
    """Soft random pictures, (16, 3, 24, 24) in [0, 1], channels last in memory as the batches of training are."""
    coarse = torch.rand(16, 3, 6, 6, generator=seeded(1))
    soft = torch.nn.functional.interpolate(coarse, size=24, mode="bilinear")
    return soft.contiguous(memory_format=torch.channels_last)


def test_the_generator_decides_everything(images):
    first, again, other = (augment(images, Augmentation(), seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_global_random_state_is_neither_used_nor_changed(images):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, Augmentation(), seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(images, Augmentation(), seeded()), first)


def test_zero_strengths_change_nothing(images):
    assert torch.allclose(augment(images, NOTHING, seeded()), images, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("settings", [Augmentation(), NOTHING], ids=["default", "nothing"])
def test_shape_type_and_memory_layout_stay(images, settings, memory_format):
    given = images.contiguous(memory_format=memory_format)
    result = augment(given, settings, seeded())
    assert result.shape == given.shape
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=memory_format)


def test_values_stay_finite_and_near_the_range(images):
    extreme = Augmentation(flip=1, rotation=180, scale=0.9, translation=0.9, colour=0.9, erase=1)
    for settings in (Augmentation(), extreme):
        result = augment(images, settings, seeded())
        assert torch.isfinite(result).all()
        assert result.abs().max() < 8


def test_the_batch_that_was_given_is_not_changed(images):
    before = images.clone()
    augment(images, Augmentation(erase=1), seeded())
    warp(images, Augmentation(), draws_for(images, 6))
    assert torch.equal(images, before)


def test_processes_that_share_a_batch_change_its_images_as_one_would(images):
    whole = augment(images, Augmentation(erase=0.5), seeded())
    halves = [slice(0, 5), slice(5, len(images))]
    parts = [augment(images[half], Augmentation(erase=0.5), seeded(), half, len(images)) for half in halves]
    assert torch.equal(torch.cat(parts), whole)


def test_a_single_image_is_a_batch_too(images):
    assert augment(images[:1], Augmentation(), seeded()).shape == (1, 3, 24, 24)


def test_flipping_is_exact_mirroring(images):
    flipped = warp(images, replace(NOTHING, flip=1.0), draws_for(images, 6))
    assert torch.allclose(flipped, images.flip(-1), atol=1e-4)


def test_half_of_the_images_are_flipped():
    picture = torch.linspace(0, 1, 24).expand(400, 3, 24, 24)
    flipped = warp(picture, replace(NOTHING, flip=0.5), draws_for(picture, 6))[:, 0, 12, 0] > 0.5
    assert 0.4 < flipped.float().mean() < 0.6


def test_shifts_stay_within_the_share_of_the_side():
    picture = torch.zeros(200, 3, 40, 40)
    picture[:, :, 20, 20] = 1
    shifted = warp(picture, replace(NOTHING, translation=0.1), draws_for(picture, 6))[:, 0]
    weight = shifted / shifted.sum(dim=(1, 2), keepdim=True)
    axis = torch.arange(40.0)
    across, down = (weight.sum(dim=1) * axis).sum(dim=1) - 20, (weight.sum(dim=2) * axis).sum(dim=1) - 20
    for offset in (across, down):
        assert offset.abs().max() < 4.1  # a tenth of 40
        assert offset.abs().max() > 3
        assert offset.mean().abs() < 0.6


def test_a_quarter_turn_goes_all_the_way():
    """With a largest angle of 90 degrees, some image is turned by more than 60 and none by more than 90."""
    picture = torch.zeros(100, 3, 41, 41)
    picture[:, :, 20, 36] = 1  # to the right of the centre
    turned = warp(picture, replace(NOTHING, rotation=90.0), draws_for(picture, 6))[:, 0]
    brightest = turned.flatten(1).argmax(dim=1)
    down, across = brightest // 41 - 20, brightest % 41 - 20
    angle = torch.rad2deg(torch.atan2(down.float(), across.float()))
    assert angle.abs().max() <= 93
    assert angle.max() > 60
    assert angle.min() < -60


def test_only_the_chosen_share_is_resampled_and_the_others_stay_sharp(images):
    strong = replace(NOTHING, rotation=30.0, scale=0.3, translation=0.2)
    assert torch.allclose(warp(images, replace(strong, affine=0.0), draws_for(images, 6)), images, atol=1e-4)
    many = images.repeat(25, 1, 1, 1)
    warped = warp(many, replace(strong, affine=0.3), draws_for(many, 6))
    moved = (warped - many).abs().amax(dim=(1, 2, 3)) > 0.01
    assert 0.22 < moved.float().mean() < 0.38


def test_colour_changes_every_image_by_its_own_amount_within_the_strength():
    picture = torch.full((100, 3, 8, 8), 0.5)
    changed = jitter_colour_(picture.clone(), 0.2, draws_for(picture, 3))
    factor = changed[:, 0, 0, 0] / 0.5
    assert torch.allclose(changed, changed[:, :1, :1, :1].expand_as(changed), atol=1e-6)  # still one flat grey
    assert factor.min() >= 0.8 - 1e-6
    assert factor.max() <= 1.2 + 1e-6
    assert factor.std() > 0.05
    assert len(factor.unique()) > 90


def test_colour_also_changes_saturation_and_contrast_each_on_its_own():
    images = torch.rand(300, 3, 8, 8, generator=seeded(1))
    changed = jitter_colour_(images.clone(), 0.5, draws_for(images, 3))
    grey, new_grey = images.mean(dim=1, keepdim=True), changed.mean(dim=1, keepdim=True)
    saturation = (changed - new_grey).std(dim=(1, 2, 3)) / (images - grey).std(dim=(1, 2, 3))
    brightness = new_grey.mean(dim=(1, 2, 3)) / grey.mean(dim=(1, 2, 3))
    contrast = new_grey.std(dim=(1, 2, 3)) / grey.std(dim=(1, 2, 3))
    factors = torch.stack([brightness, contrast / brightness, saturation / contrast])  # (3, B)
    assert (factors.std(dim=1) > 0.1).all()
    assert (torch.corrcoef(factors) - torch.eye(3)).abs().max() < 0.25


def test_erasing_blanks_one_rectangle_of_the_said_size():
    picture = torch.zeros(500, 3, 40, 40)
    erased = erase_(picture.clone(), 0.4, draws_for(picture, 5))
    chosen = (erased[:, 0] == 0.5).any(dim=(1, 2))
    assert 0.3 < chosen.float().mean() < 0.5
    assert set(erased.unique().tolist()) == {0.0, 0.5}
    for mask in (erased == 0.5)[chosen][:, 0]:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert 0.03 < mask.float().mean() < 0.28  # 5 to 25 %, up to whole pixels
    assert (erased == 0.5).any(dim=0).float().mean() > 0.85  # anywhere, if seldom in the corners

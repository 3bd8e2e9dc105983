from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import binary_dilation

from agr_utils.data.faces import COLUMNS
from agr_utils.data.synthetic import SyntheticFaces, SyntheticSettings, best_possible, draw_faces, ideal_scores
from agr_utils.tasks import TASKS

CLEAN = SyntheticSettings(noise=0)


@pytest.fixture(scope="module")
def many() -> SyntheticFaces:
    """4,000 faces at the smallest size, with the default dials."""
    return draw_faces(4_000, image_size=24, seed=10, with_masks=True)


def label_columns(faces: pd.DataFrame) -> dict[str, np.ndarray]:
    """Age, gender, and one 0/1 column for each race: numbers that can be correlated."""
    columns = {task: faces[task].to_numpy(dtype=float) for task in ("age", "gender")}
    return columns | {f"race {code}": (faces["race"] == code).to_numpy(dtype=float) for code in range(5)}


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(np.asarray(first, dtype=float), np.asarray(second, dtype=float))[0, 1])


def widened(mask: np.ndarray) -> np.ndarray:
    """A mask and the ring of pixels around it, where edges are smoothed."""
    return binary_dilation(mask, np.ones((1, 3, 3)))


def changed_pixels(first: SyntheticFaces, second: SyntheticFaces) -> np.ndarray:
    return (first.pixels != second.pixels).any(axis=-1)


# Seeds


def assert_same(first: SyntheticFaces, second: SyntheticFaces) -> None:
    assert first.pixels.tobytes() == second.pixels.tobytes()
    pd.testing.assert_frame_equal(first.faces, second.faces)
    pd.testing.assert_frame_equal(first.nuisances, second.nuisances)
    for name, mask in first.masks.items():
        assert np.array_equal(mask, second.masks[name])


def test_the_same_seed_gives_the_same_bytes():
    assert_same(draw_faces(200, 32, seed=5, with_masks=True), draw_faces(200, 32, seed=5, with_masks=True))


def test_the_number_of_threads_changes_no_byte():
    threads = torch.get_num_threads()
    try:
        drawn = []
        for number in (1, 2):
            torch.set_num_threads(number)
            drawn.append(draw_faces(40, 48, seed=5, with_masks=True))  # enough for torch to share the work
    finally:
        torch.set_num_threads(threads)
    assert_same(*drawn)


def test_another_seed_gives_other_faces():
    first, second = draw_faces(20, 24, seed=0), draw_faces(20, 24, seed=1)
    assert not np.array_equal(first.pixels, second.pixels)
    assert first.faces["age"].tolist() != second.faces["age"].tolist()
    assert not set(first.faces["image_id"]) & set(second.faces["image_id"])


def test_the_global_random_states_do_not_matter():
    np.random.seed(0)
    torch.manual_seed(0)
    first = draw_faces(20, 24)
    np.random.seed(1)
    torch.manual_seed(1)
    assert_same(first, draw_faces(20, 24))


def test_masks_are_optional_and_change_nothing_else():
    without, with_masks = draw_faces(20, 24), draw_faces(20, 24, with_masks=True)
    assert without.masks == {}
    assert np.array_equal(without.pixels, with_masks.pixels)


def test_a_larger_picture_shows_the_same_faces():
    small, large = draw_faces(40, 24), draw_faces(40, 48)
    pd.testing.assert_frame_equal(small.faces, large.faces)
    halved = large.pixels.reshape(40, 24, 2, 24, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small.pixels).mean() < 5


# The table


def test_the_table_is_whole(many):
    faces = many.faces
    assert list(faces.columns) == list(COLUMNS)
    assert faces[["age", "gender", "race", "split"]].notna().all(axis=None)
    assert faces["image_id"].is_unique
    assert faces["group"].is_unique
    assert (faces["source"] == "synthetic").all()
    assert faces["split"].value_counts().to_dict() == {"train": 2_800, "validation": 400, "test": 800}


def test_every_label_is_equally_likely(many):
    faces = many.faces
    assert (faces["age"].min(), faces["age"].max()) == (0, 89)
    assert faces["age"].mean() == pytest.approx(44.5, abs=1.5)
    assert faces["gender"].mean() == pytest.approx(0.5, abs=0.03)
    assert faces["race"].value_counts(normalize=True).between(0.17, 0.23).all()
    assert faces["race"].nunique() == 5


# Independence


def test_no_label_says_anything_about_a_nuisance(many):
    for label, values in label_columns(many.faces).items():
        for nuisance in many.nuisances:
            found = correlation(values, many.nuisances[nuisance])
            assert abs(found) < 0.06, (label, nuisance, found)


def test_labels_are_independent_of_each_other_and_of_the_split(many):
    columns = label_columns(many.faces)
    for label in ("gender", *(f"race {code}" for code in range(5))):
        assert abs(correlation(columns["age"], columns[label])) < 0.06
    for code in range(5):
        assert abs(correlation(columns["gender"], columns[f"race {code}"])) < 0.06
    for values in columns.values():
        assert abs(correlation(values, many.faces["split"] == "train")) < 0.06


def test_pixels_outside_the_cues_say_nothing_about_a_label(many):
    cues = widened(many.masks["age"] | many.masks["gender"] | many.masks["race"])
    for channel in range(3):
        outside = np.where(cues, 0, many.pixels[..., channel]).sum(axis=(1, 2)) / (~cues).sum(axis=(1, 2))
        for label, values in label_columns(many.faces).items():
            assert abs(correlation(values, outside)) < 0.06, (label, channel)


def test_pixels_inside_the_cues_do(many):
    """The guard of the test above: it could find something."""
    inside = {task: np.where(mask, many.pixels.mean(axis=-1), 0).sum(axis=(1, 2)) for task, mask in many.masks.items()}
    brightness = {task: values / many.masks[task].sum(axis=(1, 2)) for task, values in inside.items()}
    assert correlation(many.faces["age"], brightness["age"]) > 0.5
    assert correlation(many.faces["gender"], brightness["gender"]) > 0.5  # a ring is less ink than a disc
    assert correlation(many.faces["race"] == 0, brightness["race"]) < -0.5  # a plain shirt has no white in it


def hue_angle(drawn: SyntheticFaces, task: str) -> np.ndarray:
    """Mean colour inside a cue as an angle on the red-green-blue wheel, in radians."""
    inside = np.where(drawn.masks[task][..., None], drawn.pixels, 0).sum(axis=(1, 2))
    red, green, blue = inside.T.astype(float)
    return np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)


def test_the_colour_of_a_cue_says_nothing_about_its_label(many):
    for task, nuisance in (("age", "hat_hue"), ("gender", "badge_hue"), ("race", "shirt_hue")):
        angle = hue_angle(many, task)
        for label, values in label_columns(many.faces).items():
            found = max(abs(correlation(values, np.sin(angle))), abs(correlation(values, np.cos(angle))))
            assert found < 0.06, (task, label, found)
        true = 2 * np.pi * many.nuisances[nuisance]
        seen = np.abs(np.mean(np.exp(1j * (angle - true))))
        assert seen > 0.7, (task, seen)  # the guard: it does say which colour was drawn


# Masks


def test_masks_have_the_shape_of_the_pixels_and_something_in_them(many):
    assert set(many.masks) == {*TASKS, "collar"}
    for mask in many.masks.values():
        assert mask.shape == many.pixels.shape[:3]
        assert mask.dtype == bool
        assert mask.any(axis=(1, 2)).all()
        assert mask.mean(axis=(1, 2)).max() < 0.5


def centre(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row and column of each mask, as shares of the side."""
    axis = (np.arange(mask.shape[1]) + 0.5) / mask.shape[1]
    total = mask.sum(axis=(1, 2))
    return (mask.sum(axis=2) * axis).sum(axis=1) / total, (mask.sum(axis=1) * axis).sum(axis=1) / total


def test_masks_are_where_a_figure_has_these_parts():
    masks = draw_faces(100, 48, with_masks=True).masks
    rows = {name: centre(mask)[0] for name, mask in masks.items()}
    assert (rows["age"] < 0.35).all()  # the hat
    assert (rows["age"] < rows["collar"]).all()
    assert (rows["collar"] < rows["gender"]).all()  # the badge is on the shirt
    assert (rows["collar"] < rows["race"]).all()
    for mask in masks.values():
        assert centre(mask)[1].mean() == pytest.approx(0.5, abs=0.03)
    for first, second in combinations(masks, 2):
        if {first, second} != {"race", "collar"}:  # each with the pixels that its edge runs through
            assert not (masks[first] & masks[second]).any(), (first, second)


def test_no_cue_lies_on_the_face():
    """What varies in the face alone changes no pixel inside a cue."""
    drawn = draw_faces(300, 64, with_masks=True)
    covered = drawn.nuisances["covered_mouth"].to_numpy(dtype=bool)
    mouth = (np.abs(drawn.pixels.astype(int) - (153, 191, 217)).sum(axis=-1) < 90) & covered[:, None, None]
    assert mouth[covered].any(axis=(1, 2)).mean() > 0.8
    rows = centre(drawn.masks["age"])[0], centre(mouth[covered])[0], centre(drawn.masks["gender"])[0]
    assert rows[0].max() < np.nanmedian(rows[1]) < rows[2].min()


def test_a_label_changes_pixels_inside_its_mask_and_nowhere_else():
    """Relatedness gives the same faces, in the same pose and light, other labels: only their cues may change."""
    first = draw_faces(300, 64, settings=CLEAN, with_masks=True)
    second = draw_faces(300, 64, settings=SyntheticSettings(noise=0, relatedness=1), with_masks=True)
    pd.testing.assert_frame_equal(first.nuisances, second.nuisances)
    changed = changed_pixels(first, second)
    allowed = np.zeros_like(changed)
    for task in TASKS:
        differs = (first.faces[task] != second.faces[task]).to_numpy(dtype=bool)
        assert 20 < differs.sum() < 300
        allowed[differs] |= widened(first.masks[task][differs])
        assert (changed & first.masks[task])[differs].any(axis=(1, 2)).all()
    assert not (changed & ~allowed).any()


def test_the_collar_changes_pixels_inside_its_mask_and_nowhere_else():
    first = draw_faces(200, 64, with_masks=True)
    second = draw_faces(200, 64, settings=SyntheticSettings(confounding=1), with_masks=True)
    pd.testing.assert_frame_equal(first.faces, second.faces)
    differs = (first.nuisances["collar"] != second.nuisances["collar"]).to_numpy()
    changed = changed_pixels(first, second)
    assert np.array_equal(changed.any(axis=(1, 2)), differs)
    assert not (changed & ~first.masks["collar"]).any()
    assert set(first.faces.loc[differs, "split"]) == {"train"}


# Dials


def test_noise_draws_another_cue_as_often_as_it_says():
    clean, noisy = (
        draw_faces(1000, 48, settings=CLEAN, with_masks=True),
        draw_faces(1000, 48, settings=SyntheticSettings(0.4)),
    )
    pd.testing.assert_frame_equal(clean.faces, noisy.faces)
    changed = changed_pixels(clean, noisy) & ~widened(clean.masks["age"])
    assert (changed & clean.masks["gender"]).any(axis=(1, 2)).mean() == pytest.approx(0.2, abs=0.05)
    assert (changed & clean.masks["race"]).any(axis=(1, 2)).mean() == pytest.approx(0.4, abs=0.05)


def test_relatedness_ties_the_labels_together():
    found = []
    for relatedness in (0, 0.5, 1):
        faces = draw_faces(1000, 24, settings=SyntheticSettings(relatedness=relatedness)).faces
        found.append([correlation(faces["age"], faces["gender"]), correlation(faces["gender"], faces["race"])])
    assert np.abs(found[0]).max() < 0.1
    assert min(found[1]) > 0.1
    assert min(found[2]) > 0.8
    age = faces["age"].to_numpy()
    assert (faces["gender"] == (age >= 45)).all()  # at 1 they are three views of one number
    assert (faces["race"] == age // 18).all()


def test_confounding_ties_the_collar_to_gender_in_training_only():
    tied = draw_faces(4_000, 24, settings=SyntheticSettings(confounding=1))
    half = draw_faces(4_000, 24, settings=SyntheticSettings(confounding=0.5))
    for drawn, low, high in ((tied, 0.999, 1.001), (half, 0.4, 0.6)):
        gender, collar = drawn.faces["gender"].to_numpy(dtype=float), drawn.nuisances["collar"]
        train = (drawn.faces["split"] == "train").to_numpy(dtype=bool)
        assert low < correlation(gender[train], collar[train]) < high
        for split in ("validation", "test"):
            rows = (drawn.faces["split"] == split).to_numpy(dtype=bool)
            assert abs(correlation(gender[rows], collar[rows])) < 0.15
        others = drawn.nuisances.drop(columns="collar")
        assert max(abs(correlation(gender, others[name])) for name in others) < 0.06


def test_the_collar_can_be_seen(many):
    brightness = np.where(many.masks["collar"], many.pixels.mean(axis=-1), 0).sum(axis=(1, 2))
    brightness /= many.masks["collar"].sum(axis=(1, 2))
    assert correlation(brightness, many.nuisances["collar"]) > 0.9


@pytest.mark.parametrize("dial", ["noise", "relatedness", "confounding"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_dial_out_of_range(one_clear_line, dial, value):
    with one_clear_line(f"{dial} is {value}", "between 0 and 1"):
        SyntheticSettings(**{dial: value})


@pytest.mark.parametrize(("num_images", "image_size"), [(9, 32), (0, 32), (-1, 32), (20, 23)])
def test_too_few_or_too_small(one_clear_line, num_images, image_size):
    with one_clear_line(f"{num_images} images of {image_size} px", "at least 10 of 24 px"):
        draw_faces(num_images, image_size)


def test_a_negative_seed(one_clear_line):
    with one_clear_line("seed is -1", "0 or more"):
        draw_faces(10, 24, seed=-1)


# The ideal observer


def test_without_noise_the_ideal_observer_is_perfect():
    expected = {"age_mae": 0, "gender_accuracy": 1, "race_accuracy": 1}
    for relatedness in (0, 0.5, 1):
        assert best_possible(SyntheticSettings(noise=0, relatedness=relatedness), 2_000) == expected


def test_more_noise_never_helps_the_ideal_observer():
    # Up to 0.8, where a shirt says nothing: beyond it, it says which pattern it is not.
    found = pd.DataFrame([best_possible(SyntheticSettings(noise=noise), 4_000) for noise in (0, 0.1, 0.3, 0.5, 0.8)])
    assert found["age_mae"].is_monotonic_increasing
    assert found["gender_accuracy"].is_monotonic_decreasing
    assert found["race_accuracy"].is_monotonic_decreasing
    assert found.iloc[-1]["race_accuracy"] == pytest.approx(0.2, abs=0.03)


def test_the_ideal_scores_are_those_that_can_be_worked_out_by_hand():
    settings = SyntheticSettings(noise=0.1)
    found = best_possible(settings)
    assert settings.age_sigma == 5
    # Mean absolute value of a Gaussian: 0.798 sigma; a little less, because ages end at 0 and 89.
    assert 0.72 * settings.age_sigma < found["age_mae"] < 0.8 * settings.age_sigma
    assert found["gender_accuracy"] == pytest.approx(0.95)
    assert found["race_accuracy"] == pytest.approx(0.9)


def test_the_ideal_observer_fails_exactly_where_a_cue_was_drawn_otherwise():
    noisy, clean = (draw_faces(300, 48, 1, SyntheticSettings(noise=noise), with_masks=True) for noise in (0.1, 0))
    scores = ideal_scores(300, 1)
    assert scores.index.tolist() == noisy.faces["image_id"].tolist()
    for task in ("gender", "race"):
        otherwise = ((noisy.pixels != clean.pixels).any(axis=3) & noisy.masks[task]).any(axis=(1, 2))
        assert 0 < otherwise.sum() < 60
        assert ((scores[f"{task}_accuracy"] == 0) == otherwise).all()
    assert scores["age_mae"].mean() == pytest.approx(best_possible()["age_mae"], abs=0.5)


def test_related_tasks_help_the_ideal_observer():
    alone = best_possible(SyntheticSettings(noise=0.4), 4_000)
    related = best_possible(SyntheticSettings(noise=0.4, relatedness=1), 4_000)
    assert related["age_mae"] < 0.8 * alone["age_mae"]
    assert related["gender_accuracy"] > alone["gender_accuracy"] + 0.02
    assert related["race_accuracy"] > alone["race_accuracy"] + 0.05


def test_the_ideal_observer_does_not_see_the_collar():
    assert best_possible(SyntheticSettings(confounding=1), 2_000) == best_possible(SyntheticSettings(), 2_000)

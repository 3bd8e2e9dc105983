"""A model on another data set than its own: age bands, genders, and the races that both have names for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data.load import read_faces
from agr_utils.data.reading.images import decode_image, resize_square
from agr_utils.data.reading.sources import list_images, map_images
from agr_utils.deploy.detect import cut_out, find_faces, place_crop
from agr_utils.deploy.model import FaceModel
from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.profiles import get_cache_dir, get_data_dir
from agr_utils.tasks import AGE_BANDS, OWN_TABLE, get_scheme

SHARED_RACES = {
    "white": "white", "black": "black", "asian": "asian", "east_asian": "asian", "southeast_asian": "asian",
    "indian": "indian",
}  # fmt: skip
_OTHER_LABELS = "{}: answers with labels that no other data set has. Leave --data out"
_GENDERS = get_scheme("utkface").classes("gender")  # FairFace's too
Answer = Callable[[np.ndarray], dict[str, np.ndarray]]  # (N, S, S, 3) uint8 to age_mean (N,), gender, race (N, C)


def evaluate_outside(
    model: Path, data: str, source: Path | None = None, split: str = "test", detect: bool = True
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Score a model on faces of a data set that it need not have been trained on.

    Args:
        model: a run folder, or an ONNX file of ``agr export``.
        data: ``fairface`` or ``utkface``.
        source: folder or archive of its images and labels; ``AGR_DATA_DIR`` where it is None.
        split: of that data set.
        detect: find the face and cut it out as in training; otherwise the middle square is taken.

    Returns:
        Rows ``band_exact, band_within_one, years_outside_band, gender_accuracy, race_of_four_accuracy`` (those that the
        model answers) with ``value, low, high`` (95 %, whole near-duplicate groups drawn again) and ``count``; and how
        many faces the split has, and what is left out of them: ``no_face`` was found, or the image is ``unreadable``.

    Raises:
        InputError: if there is no such data, or no face of the split can be answered.
    """
    from agr_utils.data.duplicates import read_groups

    source = Path(source) if source else get_data_dir()
    if source is None:
        raise InputError(f"where is {data}? Give --source, or set AGR_DATA_DIR (docs/data.md)")
    answer, size, races = open_answerer(model)
    paths = list_images(source)
    groups = read_groups(source, get_cache_dir()) if data == "fairface" else None
    faces = read_faces(data, paths, source, groups=groups).set_index("path")
    faces = faces[faces["split"] == split]

    def crop(path: str, content: bytes) -> np.ndarray | None:
        if path not in faces.index:
            return None
        image = decode_image(content, path)
        if not detect:
            return resize_square(image, size)
        found = find_faces(image)
        return cut_out(image, place_crop(found[0]), size) if found else None

    found = {path: result for path, result in map_images(source, crop) if path in faces.index}
    crops = {path: result for path, result in found.items() if isinstance(result, np.ndarray)}
    if not crops:
        raise InputError(f"{source}: no face of the split '{split}' can be answered. Check --split and --source")
    chosen = faces.loc[list(crops)]
    scores = score_outside(answer(np.stack(list(crops.values()))), races, chosen, get_scheme(data).race)
    samples = GroupBootstrap(chosen["group"].fillna(-pd.Series(range(1, len(chosen) + 1), chosen.index))).means(scores)
    table = interval(samples).drop(columns=["p", "resamples"]).set_index(scores.columns)
    unreadable = sum(isinstance(result, InputError) for result in found.values())
    left_out = {"no_face": len(faces) - len(crops) - unreadable, "unreadable": unreadable}
    return table.assign(count=scores.notna().sum()), {"faces": len(faces)} | left_out


def open_answerer(model: Path) -> tuple[Answer, int, tuple[str, ...]]:
    """What answers (PyTorch for a run folder, onnxruntime for a file), the side of its crops, and its races' names."""
    if Path(model).suffix.lower() == ".onnx":
        file = FaceModel(model)
        if file.about.get("data") == "synthetic" or tuple(file.labels.get("gender", _GENDERS)) != _GENDERS:
            raise InputError(_OTHER_LABELS.format(model))

        def run_file(pixels: np.ndarray) -> dict[str, np.ndarray]:
            answers = [file.run(face, file.tasks) for face in pixels]
            return {name: np.stack([one[name] for one in answers]) for name in answers[0]}

        return run_file, file.size, tuple(file.labels.get("race", ()))
    from agr_utils.deploy.answer_net import AnswerNet, answer_pixels
    from agr_utils.training.run import load_model

    network, about = load_model(model)
    if network.scheme.name in (OWN_TABLE, "synthetic"):
        raise InputError(_OTHER_LABELS.format(model))
    races = network.scheme.classes("race") if "race" in network.tasks else ()
    return lambda pixels: answer_pixels(AnswerNet(network), pixels), about["config"]["image_size"], races


def score_outside(
    answers: dict[str, np.ndarray], races: tuple[str, ...], faces: pd.DataFrame, labelled: tuple[str, ...]
) -> pd.DataFrame:
    """What each of n faces adds to each score; NaN where its label is missing, or its race has no shared name.

    ``answers``: ``age_mean`` (n,), ``gender`` (n, 2) and ``race`` (n, C), those that the model has, its C races
    named by ``races``; ``labelled`` names those of the faces table.
    """
    scores = pd.DataFrame(index=faces.index)
    low, high = (faces[name].astype("float64") for name in ("age_min", "age_max"))
    if "age_mean" in answers:
        age = pd.Series(answers["age_mean"].astype(float), faces.index)
        apart = (pd.Series(np.digitize(age, AGE_BANDS[1:-1]), faces.index) - np.digitize(low, AGE_BANDS[1:-1])).abs()
        scores["band_exact"], scores["band_within_one"] = (apart == 0).astype(float), (apart <= 1).astype(float)
        scores["years_outside_band"] = np.maximum(0, np.maximum(low - age, age - (high + 1)))
        scores = scores.where(low.notna())
    if "gender" in answers:
        gender = faces["gender"].astype("float64")
        scores["gender_accuracy"] = (answers["gender"].argmax(axis=1) == gender).astype(float).where(gender.notna())
    if "race" in answers:
        shared = sorted(set(SHARED_RACES.values()))
        columns = [[number for number, name in enumerate(races) if SHARED_RACES.get(name) == one] for one in shared]
        belief = np.stack([answers["race"][:, chosen].sum(axis=1) for chosen in columns], axis=1)
        label = faces["race"].map(lambda code: SHARED_RACES.get(labelled[code]), na_action="ignore")
        right = pd.Series(np.array(shared)[belief.argmax(axis=1)], faces.index) == label
        scores["race_of_four_accuracy"] = right.astype(float).where(label.notna())
    return scores

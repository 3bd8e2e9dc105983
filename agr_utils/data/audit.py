"""What is wrong with a folder of faces, before anything is trained on it."""

import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data import fairface, splits
from agr_utils.data.duplicates import Hashes, find_pairs, group_pairs, hash_images
from agr_utils.data.faces import make_faces
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.reading.sources import list_images, read_member
from agr_utils.data.utkface import parse_name
from agr_utils.errors import InputError


def audit_images(source: Path, data: str | None = None, service_test: bool = False) -> tuple[dict, Skipped]:
    """Look at every name, label and image of a folder or archive once.

    Args:
        source: folder, tar, tar.gz or zip; or one of FairFace's label files, which stands for its folder.
        data: ``utkface`` or ``fairface``; None for FairFace where its label files are there.
        service_test: look only at the images that FairFace's label files mark as service_test.

    Returns:
        What was left out, and before it the findings as JSON-able values. ``malformed``: name, or line of a label file,
        to what is wrong with it; ``unreadable``: path to the reason. ``num_identical``: files whose bytes stand in an
        earlier file too; ``num_pairs``: near-duplicate pairs, these included. ``num_pairs_across``: pairs of which one
        image lies in another split than the other, of UTKFace's committed split (free of them) or of FairFace's parts;
        ``num_train_copies``: training images that are copies of test images. ``age_disagreement``: mean difference of
        the ages of a pair in years, a floor for what a model can be asked (None of bands); ``…_conflicts``: share of
        the pairs whose labels differ. ``num_unlisted``: images that the committed split, or FairFace's label files, do
        not list.

    Raises:
        InputError: if there is no image to look at, or a label file cannot be read.
    """
    source = Path(source)
    if source.name in fairface.LABEL_FILES:
        source = source.parent
    skipped, malformed = Skipped(), {}
    paths = list_images(source, skipped)
    data = data or ("fairface" if _is_fairface(source) else "utkface")
    if data == "fairface":
        faces = fairface.read_labels(paths, source, skipped, malformed)
    else:
        faces = _read_names(paths, malformed)
    clock = time.perf_counter()
    hashes = hash_images(source)
    hash_seconds = time.perf_counter() - clock
    if service_test:
        faces, hashes = _keep_service_test(faces, hashes, skipped)
    pairs = find_pairs(hashes)
    pair_seconds = time.perf_counter() - clock - hash_seconds
    faces["group"] = pd.Series(group_pairs(pairs, len(faces)), dtype="Int64")
    faces["place"] = faces["split"].map({"train": 0, "validation": 1, "test": 2})
    unreadable = {path: text for path, text in zip(faces["path"], hashes.errors.tolist(), strict=True) if text}
    for path in unreadable:
        skipped.add("unreadable", path)
    findings = {
        "data": data,
        "num_images": len(faces),
        "malformed": malformed,
        "unreadable": unreadable,
        "num_identical": len(faces) - len(set(hashes.digests.tolist())),
        "num_pairs": len(pairs),
        "num_groups_with_twins": int((faces["group"].value_counts() > 1).sum()),
        "num_pairs_across": int((_difference(faces, pairs, "place") != 0).sum()),
        "num_train_copies": int(splits.copies_across(faces).sum()),
        "age_disagreement": _mean(_difference(faces, pairs, "age").abs()),
        "age_conflicts": _mean(_difference(faces, pairs, "age_min") != 0),
        "gender_conflicts": _mean(_difference(faces, pairs, "gender") != 0),
        "race_conflicts": _mean(_difference(faces, pairs, "race") != 0),
        "num_unlisted": int((faces["split"] == "unlisted").sum()),
        "num_service_test": int(faces["service_test"].sum()) if data == "fairface" else None,
        "seconds": {"hash": round(hash_seconds, 2), "pairs": round(pair_seconds, 2)},
    }
    return findings, skipped


def _is_fairface(source: Path) -> bool:
    """Whether a folder or archive holds one of FairFace's label files."""
    for name in fairface.LABEL_FILES:
        try:
            read_member(source, name)
        except InputError:
            continue
        return True
    return False


def _read_names(paths: list[str], malformed: dict[str, str]) -> pd.DataFrame:
    """UTKFace's faces table with the committed split; ``malformed`` is told what is wrong with a name."""
    labels = [parse_name(path) for path in paths]
    names = pd.Series([label["image_id"] for label in labels], dtype="string")
    malformed |= {label["path"]: label["problem"] for label in labels if label["problem"]}
    if names.duplicated().any():  # the same name in two folders: an audit tells copies, it does not refuse them
        labels = [label | {"image_id": label["path"]} for label in labels]
    listed = splits.read_split_file().set_index("image_id")["split"]
    return make_faces(labels).assign(split=names.map(listed).fillna("unlisted").astype("string"))


def _keep_service_test(faces: pd.DataFrame, hashes: Hashes, skipped: Skipped) -> tuple[pd.DataFrame, Hashes]:
    """The rows that FairFace marks as service_test; ``skipped`` is told of the others."""
    if "service_test" not in faces or not faces["service_test"].any():
        raise InputError("no image is marked as service_test: only FairFace's own label files do so (docs/data.md)")
    kept = faces["service_test"].fillna(False).to_numpy(dtype=bool)
    for path in faces["path"][~kept]:
        skipped.add("not in the service test", path)
    columns = {column.name: getattr(hashes, column.name)[kept] for column in fields(hashes)}
    return faces[kept].reset_index(drop=True), Hashes(**columns)


def _difference(faces: pd.DataFrame, pairs: np.ndarray, column: str) -> pd.Series:
    """Label of the first minus label of the second of each pair, where both are known."""
    values = faces[column].astype("Float64")
    first, second = (values.iloc[pairs[:, side]].reset_index(drop=True) for side in (0, 1))
    return (first - second).dropna().astype(float)


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None

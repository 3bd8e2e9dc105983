"""What is wrong with a folder of faces, before anything is trained on it."""

import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data import fairface, splits
from agr_utils.data.duplicates import Hashes, find_pairs, group_pairs, hash_images
from agr_utils.data.faces import make_faces
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.reading.sources import list_images
from agr_utils.data.utkface import parse_name
from agr_utils.errors import InputError


@dataclass(frozen=True)
class Audit:
    """Findings of an audit of UTKFace or FairFace.

    Attributes:
        data: which of the two.
        num_images: images found (of FairFace's service test, if only that was asked for).
        malformed: name, or line of a label file, to what is wrong with it.
        unreadable: path to the reason.
        num_identical: files whose bytes stand in an earlier file too.
        num_pairs: near-duplicate pairs, identical ones included.
        num_groups_with_twins: near-duplicate clusters of two or more images.
        num_pairs_across: pairs of which one image lies in another split than the other: of UTKFace's committed split
            (free of them), or of FairFace's published parts.
        num_train_copies: training images that are copies of test images, which the split ``grouped`` leaves out.
        age_disagreement: mean difference of the ages of a pair, in years; a floor for what a model can be asked.
            None of FairFace, whose ages are bands.
        age_conflicts: share of the pairs whose ages (of FairFace: bands) differ.
        gender_conflicts: share of the pairs whose genders differ.
        race_conflicts: share of the pairs whose races differ.
        num_unlisted: images that the committed split, or FairFace's label files, do not list.
        num_service_test: images that FairFace's label files mark as service_test; None of UTKFace.
        seconds: that hashing and pairing took.
        skipped: what was left out, and why.
        faces: the faces table with near-duplicate groups.
        pairs: (P, 2) row numbers into ``faces``.
    """

    data: str
    num_images: int
    malformed: dict[str, str]
    unreadable: dict[str, str]
    num_identical: int
    num_pairs: int
    num_groups_with_twins: int
    num_pairs_across: int
    num_train_copies: int
    age_disagreement: float
    age_conflicts: float
    gender_conflicts: float
    race_conflicts: float
    num_unlisted: int
    num_service_test: int | None
    seconds: dict[str, float]
    skipped: Skipped
    faces: pd.DataFrame
    pairs: np.ndarray

    def summary(self) -> dict:
        """The findings as JSON-able values, without the table and the pairs; None for a mean of nothing."""
        names = [item.name for item in fields(self) if item.name not in ("faces", "pairs", "skipped")]
        findings = {name: getattr(self, name) for name in names}
        findings = {name: None if value != value else value for name, value in findings.items()}
        return findings | {"skipped": self.skipped.to_dict()}


def audit_images(source: Path, data: str | None = None, service_test: bool = False) -> Audit:
    """Look at every name, label and image of a folder or archive once.

    Args:
        source: folder, tar, tar.gz or zip; or one of FairFace's label files, which stands for its folder.
        data: ``utkface`` or ``fairface``; None for FairFace where its label files are there.
        service_test: look only at the images that FairFace's label files mark as service_test.

    Raises:
        InputError: if there is no image to look at, or a label file cannot be read.
    """
    source = Path(source)
    if source.name in fairface.LABEL_FILES:
        source = source.parent
    skipped, malformed = Skipped(), {}
    paths = list_images(source, skipped)
    data = data or ("fairface" if fairface.is_fairface(source) else "utkface")
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
    place = faces["split"].map({split: number for number, split in enumerate(("train", "validation", "test"))})
    unreadable = {path: text for path, text in zip(faces["path"], hashes.errors.tolist(), strict=True) if text}
    for path in unreadable:
        skipped.add("unreadable", path)
    return Audit(
        data=data,
        num_images=len(faces),
        malformed=malformed,
        unreadable=unreadable,
        num_identical=len(faces) - len(set(hashes.digests.tolist())),
        num_pairs=len(pairs),
        num_groups_with_twins=int((faces["group"].value_counts() > 1).sum()),
        num_pairs_across=int((_difference(faces.assign(place=place), pairs, "place") != 0).sum()),
        num_train_copies=int(splits.copies_across(faces).sum()),
        age_disagreement=_mean(_difference(faces, pairs, "age").abs()),
        age_conflicts=_mean(_difference(faces, pairs, "age_min") != 0),
        gender_conflicts=_mean(_difference(faces, pairs, "gender") != 0),
        race_conflicts=_mean(_difference(faces, pairs, "race") != 0),
        num_unlisted=int((faces["split"] == "unlisted").sum()),
        num_service_test=int(faces["service_test"].sum()) if data == "fairface" else None,
        seconds={"hash": round(hash_seconds, 2), "pairs": round(pair_seconds, 2)},
        skipped=skipped,
        faces=faces,
        pairs=pairs,
    )


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


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")

"""What is wrong with a folder of faces, before anything is trained on it."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data.duplicates import find_pairs, group_pairs, hash_images
from agr_utils.data.faces import make_faces
from agr_utils.data.splits import read_split_file
from agr_utils.data.utkface import parse_name


@dataclass(frozen=True)
class Audit:
    """Findings of an audit of UTKFace-named images.

    Attributes:
        num_images: images found.
        malformed: name to what is wrong with it.
        unreadable: path to the reason.
        num_identical: files whose bytes stand in an earlier file too.
        num_pairs: near-duplicate pairs, identical ones included.
        num_groups_with_twins: near-duplicate clusters of two or more images.
        age_disagreement: mean difference of the ages of a pair, in years; a floor for what a model can be asked.
        gender_conflicts: share of the pairs whose genders differ.
        race_conflicts: share of the pairs whose races differ.
        num_unlisted: images that the committed split does not list.
        seconds: that hashing and pairing took.
        faces: the faces table with near-duplicate groups.
        pairs: (P, 2) row numbers into ``faces``.
    """

    num_images: int
    malformed: dict[str, str]
    unreadable: dict[str, str]
    num_identical: int
    num_pairs: int
    num_groups_with_twins: int
    age_disagreement: float
    gender_conflicts: float
    race_conflicts: float
    num_unlisted: int
    seconds: dict[str, float]
    faces: pd.DataFrame
    pairs: np.ndarray

    def summary(self) -> dict:
        """The findings as JSON-able values, without the table and the pairs; None for a mean of nothing."""
        findings = {key: value for key, value in asdict(self).items() if key not in ("faces", "pairs")}
        return {key: None if value != value else value for key, value in findings.items()}


def audit_images(source: Path, num_processes: int | None = None) -> Audit:
    """Look at every name and every image of a folder or archive once.

    Args:
        source: folder, tar, tar.gz or zip.
        num_processes: to hash in; None for one a core.

    Raises:
        InputError: if there is no image to look at.
    """
    clock = time.perf_counter()
    hashes = hash_images(source, num_processes)
    hash_seconds = time.perf_counter() - clock
    pairs = find_pairs(hashes)
    pair_seconds = time.perf_counter() - clock - hash_seconds
    paths = hashes.paths.tolist()
    labels = [parse_name(path) for path in paths]
    names = pd.Series([label["image_id"] for label in labels], dtype="string")
    if names.duplicated().any():  # the same name in two folders: an audit tells copies, it does not refuse them
        labels = [label | {"image_id": label["path"]} for label in labels]
    faces = make_faces(labels)
    faces["group"] = pd.Series(group_pairs(pairs, len(faces)), dtype="Int64")
    problems = {label["path"]: label["problem"] for label in labels}
    return Audit(
        num_images=len(faces),
        malformed={path: problem for path, problem in problems.items() if problem},
        unreadable={path: error for path, error in zip(paths, hashes.errors.tolist(), strict=True) if error},
        num_identical=len(paths) - len(set(hashes.digests.tolist())),
        num_pairs=len(pairs),
        num_groups_with_twins=int((faces["group"].value_counts() > 1).sum()),
        age_disagreement=_mean(_difference(faces, pairs, "age").abs()),
        gender_conflicts=_mean(_difference(faces, pairs, "gender") != 0),
        race_conflicts=_mean(_difference(faces, pairs, "race") != 0),
        num_unlisted=int((~names.isin(read_split_file()["image_id"])).sum()),
        seconds={"hash": round(hash_seconds, 2), "pairs": round(pair_seconds, 2)},
        faces=faces,
        pairs=pairs,
    )


def _difference(faces: pd.DataFrame, pairs: np.ndarray, column: str) -> pd.Series:
    """Label of the first minus label of the second of each pair, where both are known."""
    values = faces[column].astype("Float64")
    first, second = (values.iloc[pairs[:, side]].reset_index(drop=True) for side in (0, 1))
    return (first - second).dropna().astype(float)


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")

"""How a data set is divided. The default keeps near-duplicates together; published protocols are options.

Results of different protocols answer different questions and never stand in one table.
"""

import json
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data.faces import age_band
from agr_utils.data.reading.skipped import Skipped
from agr_utils.errors import InputError

SPLIT_FILE = Path(__file__).parent / "utkface_split.csv"
PROTOCOLS = {
    "grouped": "70/10/20 by near-duplicate group, stratified by age band, gender and race (the default)",
    "ages-21-60": "the default's split, ages 21 to 60 only",
    "random-5fold-K": "fold K of 0-4 of five random 60/20/20 splits, which leak near-duplicates",
    "cvpr24-K:FILE": "UTKFace: split K of 0-4 of the CVPR'24 age benchmark, from its own database file (JSON)",
    "service-test": "FairFace: the default's split, only the images that its label files mark as service_test",
}
# Folders of train, validation and test in the five splits of the CVPR'24 benchmark (Paplham and Franc 2024).
CVPR24_FOLDERS = (
    ((0, 1, 2, 3, 4, 5), (6, 7), (8, 9)),
    ((2, 3, 4, 5, 6, 7), (8, 9), (0, 1)),
    ((4, 5, 6, 7, 8, 9), (0, 1), (2, 3)),
    ((5, 6, 7, 8, 9, 0), (1, 2), (3, 4)),
    ((6, 7, 8, 9, 0, 1), (2, 3), (4, 5)),
)


def split_by_group(faces: pd.DataFrame, seed: int = 0) -> pd.Series:
    """Assign 70/10/20 so that no group straddles two splits and strata are alike.

    Returns:
        ``train``, ``validation`` or ``test`` for each row of the faces table; an InputError below ten groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second, and reading a split needs none of it

    num_groups = _count_groups(faces)
    labels = (age_band(faces["age"]), faces["gender"], faces["race"])
    first, *others = (label.astype("string").fillna("?") for label in labels)
    stratum = first.str.cat(others, sep="/")
    rare = stratum.map(stratum.value_counts()) < 10  # too few to give every tenth one
    together = "rare" if rare.sum() >= 10 else stratum.mode()[0]
    codes = pd.factorize(stratum.where(~rare, together))[0]
    tenth = np.zeros(len(faces), dtype=int)
    # Groups are shuffled by renumbering them: scikit-learn's own shuffling spoils the strata in 1.6.
    groups = np.random.default_rng(seed).permutation(num_groups)[pd.factorize(faces["group"])[0]]
    for number, (_, rows) in enumerate(StratifiedGroupKFold(n_splits=10).split(codes, codes, groups)):
        tenth[rows] = number
    return _name_splits(tenth < 7, tenth < 8, faces.index)


def split_by_name(faces: pd.DataFrame) -> pd.Series:
    """Assign 70/10/20 of the groups by a hash of each group's first path, whatever the labels are.

    Returns:
        ``train``, ``validation`` or ``test`` for each row of the faces table; an InputError below ten groups.
    """
    num_groups = _count_groups(faces)
    hashes = faces.groupby("group")["path"].transform("min").map(lambda path: sha256(path.encode()).hexdigest())
    place = pd.factorize(hashes, sort=True)[0]  # of each row's group
    return _name_splits(place < num_groups * 7 // 10, place < num_groups * 8 // 10, faces.index)


def _count_groups(faces: pd.DataFrame) -> int:
    if (num_groups := faces["group"].nunique()) < 10:
        raise InputError(f"{num_groups} groups of images cannot be split 70/10/20; at least 10 are needed. Add images")
    return num_groups


def _name_splits(train: np.ndarray, used: np.ndarray, index: pd.Index) -> pd.Series:
    return pd.Series(np.select([train, used], ["train", "validation"], "test"), index=index, dtype="string")


def read_split_file() -> pd.DataFrame:
    """The committed split: columns ``image_id, group, split``."""
    return pd.read_csv(SPLIT_FILE, dtype={"image_id": "string", "group": "Int64", "split": "string"})


def apply_protocol(faces: pd.DataFrame, protocol: str = "grouped", skipped: Skipped | None = None) -> pd.DataFrame:
    """Fill in ``split`` (and UTKFace's ``group``) as a protocol says.

    Args:
        faces: the faces table of a real data set; FairFace's with ``group`` from ``agr_utils.data.duplicates``.
        protocol: a key of PROTOCOLS, with K and FILE replaced; an InputError for an unknown one, or another data set's.
        skipped: told of the training images that are left out because a test image is a copy of them.
    """
    source = faces["source"].iloc[0]
    name, _, file = protocol.partition(":")
    kind, _, fold = name.rpartition("-")
    if source == "utkface":
        listed = read_split_file().set_index("image_id")["split"]
        split = faces["image_id"].map(listed).fillna("unlisted").astype("string")
        faces = faces.assign(split=split, group=groups_of(faces["image_id"]).set_axis(faces.index))
    elif kind != "random-5fold":
        faces = _apply_published(faces.copy(), Skipped() if skipped is None else skipped)
    only = {"cvpr24": "utkface", "service": "fairface"}.get(kind, source)
    if only != source:
        raise InputError(f"the protocol '{name}' is one of {only}, the data is {source}. Choose another protocol")
    if name == "ages-21-60":  # of a band all years must be inside
        faces.loc[~(faces["age_min"].ge(21) & faces["age_max"].le(60)).fillna(False), "split"] = "unlisted"
    elif name == "service-test":
        listed = faces[faces["split"] != "unlisted"]
        if listed["service_test"].isna().groupby(listed["split"] == "test").all().any():  # there is a file of each
            raise InputError("a label file of FairFace has no column service_test here. Get its own label files")
        faces.loc[~faces["service_test"].fillna(False), "split"] = "unlisted"
    elif kind == "random-5fold" and fold in tuple("01234"):
        faces["split"] = _random_fold(faces, int(fold))
    elif kind == "cvpr24" and fold in tuple("01234"):
        faces["split"] = _cvpr24_split(faces, int(fold), file)
    elif name != "grouped":
        known = "; ".join(f"{key}: {text}" for key, text in PROTOCOLS.items())
        raise InputError(f"unknown protocol '{protocol}'. Choose one of: {known}")
    return faces


def _apply_published(faces: pd.DataFrame, skipped: Skipped) -> pd.DataFrame:
    """FairFace's published parts: a training image like a test image is dropped, a tenth of the groups validates."""
    copies = copies_across(faces)
    faces.loc[copies, "split"] = "unlisted"
    for path in faces["path"][copies]:
        skipped.add("training image with a copy in the test split", path)
    train = faces.index[(faces["split"] == "train").fillna(False)]
    codes, names = pd.factorize(faces["group"][train])
    place = np.random.default_rng(0).permutation(len(names))[codes]  # of each image's group in the drawing
    if tenth := len(train) // 10:
        faces.loc[train[place <= np.sort(place)[tenth - 1]], "split"] = "validation"
    return faces


def copies_across(faces: pd.DataFrame) -> pd.Series:
    """Whether each row is a training image in the near-duplicate group of a test image, (N,) bool."""
    tested = faces["group"][(faces["split"] == "test").fillna(False)]
    return (faces["split"] == "train").fillna(False).astype(bool) & faces["group"].isin(tested)


def _random_fold(faces: pd.DataFrame, fold: int) -> pd.Series:
    """60/20/20 without regard to groups: fold K is tested, the next one validates."""
    from sklearn.model_selection import KFold

    number = np.zeros(len(faces), dtype=int)
    for index, (_, rows) in enumerate(KFold(5, shuffle=True, random_state=0).split(faces)):
        number[rows] = (index - fold) % 5
    return _name_splits(number > 1, number == 1, faces.index)


def _cvpr24_split(faces: pd.DataFrame, fold: int, file: str) -> pd.Series:
    """The benchmark's folders, matched by file name; an image it does not list is ``unlisted``."""
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8"))
        folder_of = {Path(entry["img_path"]).name: int(entry["folder"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file or 'no file given'}: not the benchmark's database (a JSON list of img_path, age, folder): {error}. "
            "Say --protocol cvpr24-0:PATH_TO_DATABASE.json"
        ) from error
    split_of = {
        folder: split
        for split, folders in zip(("train", "validation", "test"), CVPR24_FOLDERS[fold], strict=True)
        for folder in folders
    }
    names = faces["path"].map(lambda path: Path(path).name)
    return names.map(folder_of).map(split_of).fillna("unlisted").astype("string")


@cache
def _listed_groups() -> pd.Series:
    """Cluster by image_id; read once, for tables ask for it by the hundred."""
    return read_split_file().set_index("image_id")["group"]


def stable_numbers(image_ids: pd.Series) -> np.ndarray:
    """A number of each image that does not depend on what else lies in its folder: its place in the committed split.

    An image that the split does not list has its place in ``image_ids``, so drawn faces are numbered as they come.
    """
    places = pd.Series(range(len(_listed_groups())), index=_listed_groups().index)
    own = pd.Series(range(len(image_ids)))
    return image_ids.reset_index(drop=True).map(places).fillna(own).to_numpy(dtype=int)


def groups_of(image_ids: pd.Series) -> pd.Series:
    """Near-duplicate cluster of each UTKFace image by the committed split; one that it does not list is alone."""
    groups = image_ids.reset_index(drop=True).map(_listed_groups())
    codes, names = pd.factorize(image_ids, sort=True)  # by name: whatever the order of the rows
    alone = pd.Series(codes - len(names), index=groups.index, dtype="Int64")
    return groups.astype("Int64").fillna(alone)


LISTED = ("utkface", "synthetic")  # whose near-duplicates are in the committed split, or which have none


def clusters_of(predictions: pd.DataFrame) -> pd.Series:
    """Cluster of each row of a predictions table: its ``group``, or what ``groups_of`` knows where it has none."""
    if "group" in predictions:
        return predictions["group"].reset_index(drop=True)
    return groups_of(predictions["image_id"])

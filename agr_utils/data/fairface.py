"""FairFace (Karkkainen and Joo 2021): labels are in a CSV; age is one of nine bands, race one of seven."""

from pathlib import Path

import pandas as pd

from agr_utils.data.faces import make_faces
from agr_utils.data.images import read_member
from agr_utils.errors import InputError
from agr_utils.tasks import NUM_AGES, get_scheme

LABEL_FILES = {"fairface_label_train.csv": "train", "fairface_label_val.csv": "test"}


def parse_band(text: str) -> tuple[int, int]:
    """First and last year of a band: ``3-9`` is (3, 9), ``more than 70`` is (70, 116).

    Raises:
        InputError: if it is no band.
    """
    if text.strip().lower() == "more than 70":
        return 70, NUM_AGES - 1
    low, dash, high = text.partition("-")
    if not (dash and low.strip().isdigit() and high.strip().isdigit()):
        raise InputError(f"'{text}' is no age band of FairFace, such as 3-9 or more than 70")
    return int(low), int(high)


def read_labels(paths: list[str], source: Path) -> pd.DataFrame:
    """The faces table of a FairFace folder or archive, in the order of ``paths``.

    An image without a row in a label file keeps missing labels. The published validation part is the test split
    here; ``agr_utils.data.splits`` takes a tenth of the training part for validation.

    Raises:
        InputError: if a label file is missing or lacks a column.
    """
    labels = pd.concat([_read_label_file(source, name, split) for name, split in LABEL_FILES.items()])
    known = labels.set_index("file")
    faces = pd.DataFrame({"path": paths})
    faces["image_id"] = ["/".join(path.split("/")[-2:]) for path in paths]  # the label files say train/1.jpg
    faces = faces.join(known, on="image_id")
    faces["source"] = "fairface"
    return make_faces(faces)


def _read_label_file(source: Path, name: str, split: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(read_member(source, name), dtype="string")
    except InputError:
        raise
    except ValueError as error:  # pandas' errors for an empty file, uneven rows or bytes that are no text
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: not a CSV file ({reason}). Get FairFace's own label file (docs/data.md)") from error
    for column in ("file", "age", "gender", "race"):
        if column not in table:
            raise InputError(f"{name}: no column '{column}'. Get FairFace's own label file (docs/data.md)")
    try:
        bands = [(pd.NA, pd.NA) if pd.isna(text) else parse_band(text) for text in table["age"]]
    except InputError as error:
        raise InputError(f"{name}: {error}. Get FairFace's own label file (docs/data.md)") from error
    scheme = get_scheme("fairface")
    result = pd.DataFrame({"file": table["file"], "split": split})
    result["age_min"] = [low for low, _ in bands]
    result["age_max"] = [high for _, high in bands]
    for column in ("gender", "race"):
        names = table[column].str.lower().str.replace(r"[ /]", "_", regex=True)
        codes = {class_name: code for code, class_name in enumerate(scheme.classes(column))}
        result[column] = names.map(codes)  # a name that is not in the scheme becomes missing
    return result

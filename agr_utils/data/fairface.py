"""FairFace (Karkkainen and Joo 2021): labels are in two CSV files; age is one of nine bands, race one of seven."""

import io
from collections import Counter
from pathlib import Path

import pandas as pd

from agr_utils.data.faces import make_faces, read_label_csv
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.reading.sources import read_member
from agr_utils.errors import InputError
from agr_utils.tasks import AGE_BANDS, get_scheme

LABEL_FILES = {"fairface_label_train.csv": "train", "fairface_label_val.csv": "test"}
BANDS = {f"{low}-{high - 1}": (low, high - 1) for low, high in zip(AGE_BANDS[:-2], AGE_BANDS[1:-1], strict=True)}
BANDS[f"more than {AGE_BANDS[-2]}"] = (AGE_BANDS[-2], AGE_BANDS[-1] - 1)
_SCHEME = get_scheme("fairface")
# What each column may say, spelled as ``_tidy`` spells it, and what that means.
_VALUES = {
    "age": BANDS,
    "gender": {name: code for code, name in enumerate(_SCHEME.gender)},
    "race": {name.replace("_", " "): code for code, name in enumerate(_SCHEME.race)},
    "service_test": {"true": True, "false": False},
}
_GET = "Get FairFace's own label file (docs/data.md)"


def read_labels(
    paths: list[str], source: Path, skipped: Skipped, problems: dict[str, str] | None = None
) -> pd.DataFrame:
    """The faces table of a FairFace folder or archive, in the order of ``paths``.

    An image without a row in a label file keeps missing labels. The published validation part is the test split
    here; ``agr_utils.data.splits`` takes a tenth of the training part for validation. Beside the columns of a faces
    table it has ``service_test`` (boolean, missing where the label file has no such column).

    Args:
        paths: of the images, which end as the label files say: ``train/1.jpg``.
        source: folder or archive with both label files.
        skipped: told of rows whose image is not there and of images without a row.
        problems: given, values that are none of FairFace's become missing and are put here, by file and line; without
            it they are an InputError, as is a label file that is missing, lacks a column or lists an image twice.
    """
    found: dict[str, str] = {}
    labels = pd.concat([_read_label_file(source, name, split, found) for name, split in LABEL_FILES.items()])
    if problems is not None:
        problems |= found
    elif found:
        (place, problem), more = next(iter(found.items())), len(found) - 1
        also = f" ({more} more such values: agr data audit)" if more else ""
        raise InputError(f"{place}: {problem}{also}. {_GET}")
    repeated = labels["file"][labels["file"].duplicated()]
    if len(repeated):
        raise InputError(f"{source}: {repeated.iloc[0]} has two rows in the label files. Keep one")
    faces = pd.DataFrame({"path": paths})
    faces["image_id"] = ["/".join(path.split("/")[-2:]) for path in paths]  # the label files say train/1.jpg
    for file in labels["file"][~labels["file"].isin(faces["image_id"])]:
        skipped.add("listed but not there", file)
    faces = faces.join(labels.set_index("file"), on="image_id")
    for path in faces["path"][faces["split"].isna()]:
        skipped.add("image without a row in a label file", path)
    faces["source"] = "fairface"
    return make_faces(faces).assign(service_test=faces["service_test"].astype("boolean"))


def _read_label_file(source: Path, name: str, split: str, problems: dict[str, str]) -> pd.DataFrame:
    """One label file: columns file, split, age_min, age_max, gender, race, service_test; ``problems`` by line."""
    table = _read_csv(read_member(source, name), name)
    for row in table[table["file"].isna()].itertuples():
        raise InputError(f"{name} line {row.line}: no file name. {_GET}")
    for row in table[table["file"].duplicated()].itertuples():
        raise InputError(f"{name} line {row.line}: {row.file} is listed twice. Keep one of the rows")
    for column, values in _VALUES.items():
        wrong = table[column].notna() & ~table[column].isin(list(values))
        for line, value in table.loc[wrong, ["line", column]].itertuples(index=False):
            problem = f"{column} '{value}' is none of {', '.join(values)}"
            place = f"{name} line {line}"
            problems[place] = f"{problems[place]}; {problem}" if place in problems else problem
        table[column] = table[column].map(values)  # what is none of them becomes missing
    low, high = (table["age"].map(lambda band, side=side: band[side], na_action="ignore") for side in (0, 1))
    return table[["file", "gender", "race", "service_test"]].assign(split=split, age_min=low, age_max=high)


def _read_csv(content: io.BytesIO, name: str) -> pd.DataFrame:
    """A label file as text, values tidied."""
    table = read_label_csv(content, name, _GET)
    table.columns = table.columns.str.lower()
    table["line"] = table.index
    repeated = [column for column, count in Counter(table.columns).items() if count > 1]
    for column in ("file", "age", "gender", "race"):
        if column not in table or column in repeated:
            many = "two columns" if column in repeated else "no column"
            raise InputError(f"{name}: {many} '{column}'. {_GET}")
    if "service_test" not in table:
        table["service_test"] = pd.Series(pd.NA, table.index, dtype="string")
    table = table[["line", "file", *_VALUES]].dropna(how="all", subset=["file", *_VALUES]).reset_index(drop=True)
    table["file"] = table["file"].str.strip().str.replace("\\", "/").str.removeprefix("./")
    for column in _VALUES:
        tidy = table[column].str.strip().str.casefold().str.replace(r"[\s_/]+", " ", regex=True)
        table[column] = tidy.str.replace(r"\s*-\s*", "-", regex=True).replace("", pd.NA)
    return table

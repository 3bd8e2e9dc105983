"""The faces table: one row per image. Every reader makes it, everything else reads it."""

import io
from collections.abc import Sequence

import pandas as pd

from agr_utils.errors import InputError
from agr_utils.tasks import AGE_BANDS, NUM_AGES, Task

# column -> pandas type. Missing labels are <NA>, never a made-up class.
COLUMNS = {
    "image_id": "string",  # unique; for UTKFace the file name
    "path": "string",  # inside the folder or archive
    "age": "Float32",  # years; <NA> where only a band is known
    "age_min": "Float32",  # first and last year that the label allows: equal where the age is known
    "age_max": "Float32",
    "gender": "Int8",  # code in the label scheme
    "race": "Int8",
    "group": "Int64",  # near-duplicate cluster; never straddles two splits
    "split": "string",  # one of SPLITS
    "source": "string",  # data set, which is also the name of its label scheme
}
SPLITS = ("train", "validation", "test", "unlisted", "unreadable")  # the last two take no part in anything


def make_faces(rows: list[dict] | pd.DataFrame, tasks: Sequence[Task] = ()) -> pd.DataFrame:
    """Build a faces table; absent columns become missing values, every row its own group.

    Args:
        rows: with columns of COLUMNS, and of the tasks.
        tasks: of a table of one's own: each but the age has a column of codes (Int32) or numbers (Float32).

    Raises:
        InputError: if two rows share an image_id.
    """
    table = pd.DataFrame(rows)
    kinds = {"classes": "Int32", "number": "Float32"}  # of a table of one's own, where race may be a number
    columns = COLUMNS | {task.name: kinds[task.kind] for task in tasks if task.kind in kinds}
    for column in columns:
        if column not in table:
            table[column] = pd.NA
    table = table[list(columns)].astype(columns).reset_index(drop=True)
    table["age_min"] = table["age_min"].fillna(table["age"])
    table["age_max"] = table["age_max"].fillna(table["age"])
    table["group"] = table["group"].fillna(pd.Series(range(len(table)), dtype="Int64"))
    table["split"] = table["split"].fillna("unlisted")
    repeated = table[table["image_id"].duplicated(keep=False)].sort_values("image_id", kind="stable")
    if len(repeated):
        places = " and ".join(repeated["path"].iloc[:2].dropna()) or "two rows"
        raise InputError(
            f"{repeated['image_id'].iloc[0]}: this image is listed twice ({places}). Keep one; if two folders hold the "
            "same images, point AGR_DATA_DIR at one of them"
        )
    return table


def read_label_csv(content: io.BytesIO, name: object, advice: str) -> pd.DataFrame:
    """A CSV file as text, with tidied names of columns; a row's index is its line. Empty rows are left out.

    Only an empty cell is missing: ``None`` or ``NA`` may be the name of a class.

    Raises:
        InputError: with its name and the advice, if it is none, or two of its columns have one name.
    """
    first = content.getvalue().partition(b"\n")[0]
    if max(first.count(b";"), first.count(b"\t")) > first.count(b","):
        raise InputError(f"{name}: its columns are separated by semicolons or tabs, and not by commas. {advice}")
    options = {"header": None, "keep_default_na": False, "na_values": [""], "skip_blank_lines": False}
    try:
        table = pd.read_csv(content, dtype="string", encoding="utf-8-sig", **options)
    except ValueError as error:  # pandas' errors for an empty file, uneven rows or bytes that are no text
        raise InputError(f"{name}: not a CSV file ({' '.join(str(error).split())}). {advice}") from error
    header = table.iloc[0].str.strip().fillna("")
    if len(repeated := header[header.duplicated() & (header != "")]):
        raise InputError(f"{name}: two columns are called '{repeated.iloc[0]}'. Rename or delete one of them")
    breaks = table.apply(lambda column: column.str.count("\n").fillna(0)).sum(axis=1)  # within quotes
    lines = (1 + breaks).cumsum().shift(fill_value=0).astype(int) + 1
    return table.set_axis(header, axis=1).rename_axis(columns=None).set_axis(lines).iloc[1:].dropna(how="all")


def age_band(ages: pd.Series) -> pd.Series:
    """Band of each age as text (``0-2`` … ``70+``), ordered; missing stays missing."""
    labels = [f"{low}-{high - 1}" for low, high in zip(AGE_BANDS[:-2], AGE_BANDS[1:-1], strict=True)]
    ages = pd.to_numeric(ages, errors="coerce").astype("float64")
    return pd.cut(ages.clip(upper=NUM_AGES - 1), AGE_BANDS, right=False, labels=[*labels, f"{AGE_BANDS[-2]}+"])

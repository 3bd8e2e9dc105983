"""Images and labels of one's own: a CSV file with a path in each row, beside the images."""

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data.duplicates import group_pairs
from agr_utils.data.faces import SPLITS, make_faces, read_label_csv
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.splits import split_by_name
from agr_utils.errors import InputError
from agr_utils.files import read_bytes
from agr_utils.tasks import OWN_TABLE, Task

logger = logging.getLogger(__name__)
_TASKS = "say what they are with --task, such as --task glasses=no,yes"


def read_table_faces(
    file: Path, paths: Sequence[str], tasks: Sequence[Task], groups: Mapping[str, int], skipped: Skipped
) -> pd.DataFrame:
    """Faces table of the images beside a CSV file, with the labels that stand in it.

    The file has a column ``path`` (from the folder of the file), one for each task, and may have ``split`` (train,
    validation or test) and ``person``: images of one person stay in one split. Without ``split`` near-duplicates and
    persons are kept together and 70/10/20 drawn by their paths. An empty cell is a missing label. While ``groups``, the
    near-duplicate group of each path, is empty, nothing is split. ``skipped`` is told of the images without a row, or
    without a split.

    Raises:
        InputError: naming the line, column, class or person that is wrong, or the files that are not there.
    """
    table = read_rows(file, tasks)
    known = dict(zip(paths, range(len(paths)), strict=True))
    missing = table[~table["path"].isin(known)]
    if len(missing):
        raise InputError(
            f"{file} line {missing['line'].iloc[0]}: {missing['path'].iloc[0]} is no image in {file.parent or '.'} "
            f"({len(missing)} of {len(table)} rows have none). Paths count from the folder of the file, "
            "with / and the files' own Unicode (NFC or NFD); links to folders are not followed"
        )
    faces = pd.DataFrame({"path": list(paths)}).merge(table, on="path", how="left")
    for path in faces["path"][faces["line"].isna()]:
        skipped.add("image without a row in the table", path)
    faces["image_id"], faces["source"] = faces["path"], OWN_TABLE
    listed = faces["line"].notna()
    faces["group"] = _joined_groups(faces, groups)
    has_split = faces["split"].notna().any()
    for path in faces["path"][listed & faces["split"].isna() & has_split]:
        skipped.add("no split in the table", path)
    faces = make_faces(faces, tasks)
    if groups and has_split:
        parts = faces[faces["split"].isin(SPLITS[:3])].drop_duplicates(["group", "split"])
        copies = parts[parts["group"].duplicated(keep=False)].sort_values("group", kind="stable")
        if count := copies["group"].nunique():
            pair = " and ".join(copies["path"][:2])
            logger.warning("%s: %d pictures have near-duplicates in another split, first: %s", file, count, pair)
    elif groups:
        try:
            faces.loc[listed.to_numpy(), "split"] = split_by_name(faces[listed.to_numpy()])
        except InputError as error:
            raise InputError(f"{file}: {error} (near-duplicates and images of one 'person' are one group)") from None
    return faces


def read_rows(file: Path, tasks: Sequence[Task]) -> pd.DataFrame:
    """The rows of the file: ``line, path, split, person`` and the labels as codes and numbers."""
    columns = ["path", *(task.column or task.name for task in tasks)]
    content = read_bytes(file, f"no such file. Give a CSV file with the columns {', '.join(columns)}")
    table = read_label_csv(io.BytesIO(content), file, "Save it as CSV with commas, UTF-8")
    for column in columns:
        if column not in table:
            raise InputError(
                f"{file}: no column '{column}'; it has {', '.join(filter(None, table))}. Rename it, or {_TASKS}"
            )
    rows = pd.DataFrame({"line": table.index, "path": table["path"].str.strip().str.removeprefix("./")})
    for name in ("split", "person"):
        cells = table[name] if name in table else pd.Series(pd.NA, table.index, dtype="string")
        rows[name] = cells.str.strip().replace("", pd.NA)
    for wrong in rows[~rows["split"].isin(SPLITS[:3]) & rows["split"].notna()].itertuples():
        raise InputError(f"{file} line {wrong.line}: split '{wrong.split}' is none of {', '.join(SPLITS[:3])}")
    for repeated in rows[rows["path"].isna() | rows["path"].duplicated()].itertuples():
        reason = "no path" if pd.isna(repeated.path) else f"{repeated.path} is listed twice. Keep one of the rows"
        raise InputError(f"{file} line {repeated.line}: {reason}")
    for person, splits in rows.dropna(subset="split").groupby("person")["split"].unique().items():
        if len(splits) > 1:
            raise InputError(
                f"{file}: the person '{person}' is in {' and '.join(splits)}. Put all images of a person into one split"
            )
    for task in tasks:
        rows[task.name] = _read_labels(file, table[task.column or task.name].str.strip(), task)
    return rows


def _read_labels(file: Path, cells: pd.Series, task: Task) -> pd.Series:
    """Codes of classes, or numbers; missing where a cell is empty."""
    cells = cells.replace("", pd.NA)
    if task.kind == "classes":
        codes = {name: code for code, name in enumerate(task.classes)}
        wrong, expected = cells.notna() & ~cells.isin(list(codes)), f"one of {', '.join(task.classes)}"
        values = cells.map(codes)
    else:
        low, high = task.limits or (0, 116)
        values = pd.to_numeric(cells, errors="coerce")
        wrong = cells.notna() & ~values.between(low, high).fillna(False).astype(bool)
        expected = f"a number from {low:g} to {high:g}"
    if wrong.any():
        line = wrong.index[wrong][0]
        raise InputError(
            f"{file} line {line}: {task.column or task.name} is '{cells[line]}', not {expected} "
            f"({wrong.sum()} such cells). Mend them (empty: no label), or {_TASKS}"
        )
    return values


def _joined_groups(faces: pd.DataFrame, groups: Mapping[str, int]) -> np.ndarray:
    """Group of each image: near-duplicates and images of one person together, through as many links as there are."""
    number = np.arange(len(faces))
    links = []
    for keys in (faces["path"].map(groups), faces["person"]):
        known = keys.notna().to_numpy()
        first = pd.Series(number[known]).groupby(keys[known].to_numpy()).transform("first")
        links.append(np.stack([number[known], first.to_numpy(dtype=int)], axis=1))
    return group_pairs(np.concatenate(links), len(faces))

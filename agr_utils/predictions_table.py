"""The predictions table: one row per image and run. Training writes it; measures and claims read nothing else."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.errors import InputError, check_has
from agr_utils.files import read_table
from agr_utils.tasks import TASKS

LABELS = ("age", "age_min", "age_max", "gender", "race")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a predictions table; an InputError if it is missing or cannot be scored (``check_predictions``)."""
    table = read_table(path, ("run_id", "image_id", "split", *LABELS), "a predictions table", "agr train")
    try:
        check_predictions(table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return table


def predicted_splits(path: Path) -> tuple[str, ...]:
    """Splits in a predictions table; none where it is missing or damaged."""
    try:
        return tuple(read_predictions(path)["split"].unique())
    except InputError:
        return ()


def class_probabilities(table: pd.DataFrame, task: str) -> np.ndarray:
    """Probability of each class of a task, (n, C) float, position = code."""
    columns = probability_columns(table, task)
    if columns == ["gender_p"]:
        table = pd.DataFrame({"male": 1 - table["gender_p"], "gender_p": table["gender_p"]})
        columns = list(table)
    return table[columns].to_numpy(dtype=float, na_value=np.nan)


def probability_columns(table: pd.DataFrame, task: str) -> list[str]:
    """Names of the columns with the probabilities of a task, in the order of the codes; of gender that of code 1.

    Raises:
        InputError: if the first code, or another one below the largest, has none.
    """
    if task == "gender" and "gender_p" in table:
        return ["gender_p"]
    codes = [int(found[1]) for column in table if (found := re.fullmatch(rf"{task}_p(\d+)", str(column)))]
    columns = [f"{task}_p{code}" for code in range(max(codes, default=0) + 1)]
    check_has(table, *columns)
    return columns


def tasks_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The tasks that a predictions table answers: the three first, then others as their columns come."""
    found = [re.fullmatch(r"([a-z]\w*?)_(?:pred|p\d*)", str(column)) for column in table]
    answered = dict.fromkeys(match[1] for match in found if match)
    return tuple(sorted(answered, key=lambda task: (*TASKS, task).index(task)))


def is_number(table: pd.DataFrame, task: str) -> bool:
    """Whether a task's answers are numbers, as ages are, and not classes, which have probabilities."""
    return f"{task}_pred" in table and not any(re.fullmatch(rf"{task}_p\d*", str(column)) for column in table)


def check_predictions(table: pd.DataFrame) -> None:
    """Refuse a predictions table that cannot be scored.

    Raises:
        InputError: if a row occurs twice, a column that is needed is missing or of another kind, a probability lies
            outside [0, 1], or a label is the code of no class. Missing values are none of these.
    """
    tasks = tasks_of(table)
    answers = {t: [f"{t}_pred"] if is_number(table, t) else probability_columns(table, t) for t in tasks}
    needed = [column for task in tasks for column in (task, *answers[task])]
    check_has(table, *needed)
    for column in needed:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise InputError(f"the column '{column}' of the predictions holds {table[column].dtype}, and not numbers")
    for column in {"run_id", "image_id", "split"} & set(table):
        kind = pd.api.types.infer_dtype(table[column], skipna=True)
        if kind not in ("string", "categorical", "empty"):
            raise InputError(f"the column '{column}' of the predictions holds {kind}, and not names")
    for task in tasks:
        if is_number(table, task):
            continue
        labels, probabilities = table[task].dropna(), class_probabilities(table, task)  # (n, C)
        num_classes = probabilities.shape[1]
        if not labels.isin(range(num_classes)).all():
            raise InputError(f"the predictions give {num_classes} classes of {task}; labels are {sorted(set(labels))}")
        finite = probabilities[np.isfinite(probabilities)]
        if (np.abs(finite - 0.5) > 0.5 + 1e-4).any():
            raise InputError(f"the predictions hold probabilities of {task} outside 0 to 1")
    key = [column for column in ("run_id", "image_id") if column in table]
    if "image_id" in key and (repeated := table.duplicated(key)).any():
        first = table["image_id"][repeated].iloc[0]
        raise InputError(
            f"{repeated.sum()} rows of the predictions repeat an image, first: {first}. Keep one of each: copies would "
            "make intervals too narrow"
        )

"""UTKFace (Zhang et al. 2017): labels are in the file names, and some names are malformed.

The published pattern is ``age_gender_race_timestamp.jpg.chip.jpg``. Five of the 23,708 names break it: one has a space,
one lacks a dot (their labels are still readable), three have no race (kept, with the race missing).
"""

import re
from pathlib import PurePosixPath

import pandas as pd

from agr_utils.data.faces import make_faces
from agr_utils.tasks import NUM_AGES, SCHEMES

WELL_FORMED = re.compile(r"\d{1,3}_[01]_[0-4]_\d{14,20}\.jpg\.chip\.jpg")
_LABELS = re.compile(r"(\d{1,3})_(\d+)_(?:(\d{1,2})_)?(\d{4,})")


def parse_name(path: str) -> dict:
    """Read the labels out of one file name.

    Returns:
        A row of the faces table plus ``problem``: empty, or in a few words what is wrong with the name. A label
        that is absent or out of range is missing, the others are kept.
    """
    name = PurePosixPath(path).name
    row = {"image_id": name, "path": path, "age": pd.NA, "gender": pd.NA, "race": pd.NA, "source": "utkface"}
    match = _LABELS.match(name)
    if not match:
        return row | {"problem": "no labels in the name"}
    age, gender, race, _ = match.groups()
    problems = []
    if int(age) < NUM_AGES:
        row["age"] = int(age)
    else:
        problems.append(f"age {age} is outside 0-{NUM_AGES - 1}")
    if int(gender) < len(SCHEMES["utkface"].gender):
        row["gender"] = int(gender)
    else:
        problems.append(f"gender {gender} is not 0 or 1")
    if race is None:
        problems.append("no race")
    elif int(race) < len(SCHEMES["utkface"].race):
        row["race"] = int(race)
    else:
        problems.append(f"race {race} is not 0-4")
    if not problems and not WELL_FORMED.fullmatch(name):
        problems.append("unusual spelling, labels readable")
    return row | {"problem": "; ".join(problems)}


def read_names(paths: list[str]) -> pd.DataFrame:
    """The faces table of a list of UTKFace paths, in the same order.

    Args:
        paths: names inside the folder or archive, with ``/`` between folders.
    """
    return make_faces([parse_name(path) for path in paths])

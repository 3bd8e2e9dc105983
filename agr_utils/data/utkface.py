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
# Up to three labels before the timestamp. The first is a number or empty: IMG_0_1_20170112.jpg is of some camera.
_LABELS = re.compile(r"\s*((?:[-+]?[0-9]+(?:[.,][0-9]+)?)?)\s*(?:_([^_]*))?(?:_([^_]*))?_\s*[0-9]{4}")
_NO_TIMESTAMP = re.compile(r"([0-9]{1,3})_([01])_([0-4])(?![0-9])")
_RANGES = {"age": range(NUM_AGES)} | {task: range(len(SCHEMES["utkface"].classes(task))) for task in ("gender", "race")}


def parse_name(path: str) -> dict:
    """Read the labels out of one file name, each by itself.

    Returns:
        A row of the faces table plus ``problem``: empty, or in a few words what is wrong with the name. A label
        that is absent or out of range is missing, the others are kept.
    """
    name = PurePosixPath(path).name
    row = {"image_id": name, "path": path, "age": pd.NA, "gender": pd.NA, "race": pd.NA, "source": "utkface"}
    problems = []
    match = _LABELS.match(name) or _NO_TIMESTAMP.match(name)
    if not match:
        return row | {"problem": "no labels in the name"}
    for (task, allowed), field in zip(_RANGES.items(), match.groups(), strict=True):
        text = (field or "").strip()
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) in allowed:
            row[task] = int(text)
        else:
            problems.append(f"{task} {text} is not {allowed[0]}-{allowed[-1]}" if text else f"no {task}")
    if not problems and not WELL_FORMED.fullmatch(name):
        problems.append("unusual spelling, labels readable")
    return row | {"problem": "; ".join(problems)}


def read_names(paths: list[str]) -> pd.DataFrame:
    """The faces table of a list of UTKFace paths, in the same order."""
    return make_faces([parse_name(path) for path in paths])

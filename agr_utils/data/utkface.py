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
_TIMESTAMP = re.compile(r"\s*[0-9]{4}")
_NO_TIMESTAMP = re.compile(r"([0-9]{1,3})_([01])_([0-4])(?![0-9])")
_NUMBER = re.compile(r"[-+]?[0-9]+([.,][0-9]+)?")
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
    labels = _label_fields(name)
    if not labels:
        return row | {"problem": "no labels in the name"}
    for task, text in labels.items():
        allowed = _RANGES[task]
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) in allowed:
            row[task] = int(text)
        else:
            problems.append(f"{task} {text} is not {allowed[0]}-{allowed[-1]}" if text else f"no {task}")
    if not problems and not WELL_FORMED.fullmatch(name):
        problems.append("unusual spelling, labels readable")
    return row | {"problem": "; ".join(problems)}


def _label_fields(name: str) -> dict[str, str]:
    """The text of each of the three labels, empty for one that the name lacks; nothing if the name is of another kind.

    The labels are what stands before the timestamp, in the order age, gender, race.
    """
    fields = [field.strip() for field in name.split("_")]
    ends = [place for place in (3, 2, 1) if place < len(fields) and _TIMESTAMP.match(fields[place])]
    if not ends:
        match = _NO_TIMESTAMP.match(name)
        return dict(zip(_RANGES, match.groups(), strict=True)) if match else {}
    labels = fields[: ends[0]]
    if labels[0] and not _NUMBER.fullmatch(labels[0]):
        return {}  # IMG_0_1_20170112.jpg is a photograph of some camera
    return dict(zip(_RANGES, [*labels, "", ""], strict=False))


def read_names(paths: list[str]) -> pd.DataFrame:
    """The faces table of a list of UTKFace paths, in the same order."""
    return make_faces([parse_name(path) for path in paths])

"""Tasks, and the label schemes of the data sets: what a model is asked for, and what the codes of its answers mean.

A label is what somebody guessed from a picture (UTKFace, FairFace, a table of one's own) or what a generator drew
(synthetic); it is nobody's identity.
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from agr_utils.errors import InputError, by_name, name_hint

TASKS = ("age", "gender", "race")  # of the data sets that this project is about
NUM_AGES = 117  # bins of the age head: the whole years 0 to 116, the range of UTKFace
AGE_COVERAGE = 0.9  # asked of every age interval
AGE_BANDS = (0, 3, 10, 20, 30, 40, 50, 60, 70, NUM_AGES)  # edges in years, FairFace's nine bands


@dataclass(frozen=True)
class Task:
    """One question about a face."""

    name: str  #: used everywhere: of the head, of the columns of tables. A lower-case word
    kind: Literal["age", "classes", "number"] = "classes"  #: ``age`` is a distribution over 117 years
    classes: tuple[str, ...] = ()  #: their names, position = code; of the kind ``classes`` only
    #: smallest and largest value; of the kind ``number`` only. The head learns the place between them
    limits: tuple[float, float] | None = None
    column: str = ""  #: of a table of one's own; the name where it is empty

    def __post_init__(self):
        if not isinstance(self.name, str) or not isinstance(self.column, str):
            raise InputError(f"the name of a task is {self.name!r} and its column {self.column!r}. Give text")
        for name, values, kind in (("classes", self.classes, str), ("limits", self.limits or (), Real)):
            if not isinstance(values, list | tuple) or not all(isinstance(value, kind) for value in values):
                wanted = "names" if kind is str else "numbers"
                raise InputError(f"task {self.name}: {name} are {values!r}. Give a list of {wanted}")
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "limits", tuple(self.limits) if self.limits else None)
        is_word = re.fullmatch(r"[a-z]\w*", self.name) and self.name == self.name.lower()
        if not is_word or self.name in _RESERVED or re.search(r"_(pred|p\d*)$", self.name):
            raise InputError(f"'{self.name}' cannot be the name of a task. Use another word of a to z, such as glasses")
        if (self.kind == "age") != (self.name == "age"):
            raise InputError(f"task {self.name}: the kind 'age' and the name 'age' belong together. Rename one of them")
        if self.kind not in ("age", "classes", "number"):
            raise InputError(f"task {self.name}: unknown kind '{self.kind}'. Choose one of: age, classes, number")
        if self.kind == "classes" and len({*self.classes} - {""}) < max(2, len(self.classes)):
            raise InputError(
                f"task {self.name}: classes are {list(self.classes)}. Name at least two, each once, none of them empty"
            )
        low, high = self.limits if self.limits and len(self.limits) == 2 else (math.nan, math.nan)
        if self.kind == "number" and not -math.inf < low < high < math.inf:
            raise InputError(f"task {self.name}: limits are {self.limits}. Give the smallest and the largest value")

    @property
    def num_outputs(self) -> int:
        """Width of the head: 117 years, a number of classes, or 1."""
        return {"age": NUM_AGES, "classes": len(self.classes), "number": 1}[self.kind]


# Columns of tables and names of sums, and what torch's dictionaries of layers have themselves.
_RESERVED = {
    "image_id", "path", "person", "line", "group", "split", "source", "run_id", "all", "age_min", "age_max", "age_lo",
    "age_hi", "loss", "steps", "images", "apply", "buffers", "children", "clear", "compile", "copy", "cpu", "cuda",
    "double", "eval", "extend", "float", "forward", "fromkeys", "get", "half", "insert", "ipu", "items", "keys",
    "modules", "mtia", "parameters", "pop", "popitem", "setdefault", "to", "train", "training", "type", "update",
    "values", "xpu",
}  # fmt: skip


@dataclass(frozen=True)
class LabelScheme:
    """The tasks that a data set has labels for."""

    name: str  #: of the data set
    tasks: tuple[Task, ...]  #: in the order in which they are shown

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if len({task.name for task in self.tasks}) < len(self.tasks) or not self.tasks:
            raise InputError("a data set needs at least one task, and each name once. Rename or add one")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(task.name for task in self.tasks)

    def task(self, name: str) -> Task:
        """The task of a name; an InputError if there is none."""
        if name not in self.names:
            raise InputError(f"unknown task '{name}'. {name_hint(name, self.names)}")
        return self.tasks[self.names.index(name)]

    def choose(self, names: Collection[str]) -> tuple[str, ...]:
        """Names of some tasks in the order of the scheme; an InputError if one is unknown, or there is none."""
        if not names:
            raise InputError(f"a model needs at least one task. Choose from: {', '.join(self.names)}")
        chosen = {self.task(name).name for name in names}
        return tuple(name for name in self.names if name in chosen)

    def num_outputs(self, name: str) -> int:
        """Width of a task's head."""
        return self.task(name).num_outputs

    def classes(self, name: str) -> tuple[str, ...]:
        """Class names of a task."""
        return self.task(name).classes

    @property
    def gender(self) -> tuple[str, ...]:
        """Class names, position = code."""
        return self.classes("gender")

    @property
    def race(self) -> tuple[str, ...]:
        """Class names, position = code."""
        return self.classes("race")


def _faces_scheme(name: str, gender: Sequence[str], race: Sequence[str]) -> LabelScheme:
    return LabelScheme(name, (Task("age", "age"), Task("gender", classes=gender), Task("race", classes=race)))


SCHEMES = by_name(
    _faces_scheme("utkface", ("male", "female"), ("white", "black", "asian", "indian", "other")),
    _faces_scheme(
        "fairface",
        ("male", "female"),
        ("white", "black", "latino_hispanic", "east_asian", "southeast_asian", "indian", "middle_eastern"),
    ),
    # Synthetic classes are named after what codes them, because they are nothing else: a badge and a pattern.
    _faces_scheme("synthetic", ("disc", "ring"), ("plain", "rows", "columns", "checks", "dots")),
)
OWN_TABLE = "table"  # the data set that is a CSV file of one's own, whose scheme stands in the config


def get_scheme(name: str, tasks: Sequence[Task] = ()) -> LabelScheme:
    """The label scheme of a data set; a table of one's own has the given tasks."""
    if name == OWN_TABLE:
        return LabelScheme(name, tuple(tasks))
    if name not in SCHEMES:
        raise InputError(f"unknown data set '{name}'. Choose one of: {', '.join(SCHEMES)}")
    return SCHEMES[name]

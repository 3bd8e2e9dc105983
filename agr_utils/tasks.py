"""The three tasks and the label schemes of the three data sets.

A label is an integer code; its meaning is the position in a scheme's tuple. Labels are what somebody guessed from a
picture (UTKFace, FairFace) or what a generator drew (synthetic); they are nobody's identity.
"""

from dataclasses import dataclass

from agr_utils.errors import InputError

TASKS = ("age", "gender", "race")
NUM_AGES = 117  # bins of the age head: the whole years 0 to 116, the range of UTKFace
AGE_BANDS = (0, 3, 10, 20, 30, 40, 50, 60, 70, NUM_AGES)  # edges in years, FairFace's nine bands


@dataclass(frozen=True)
class LabelScheme:
    """Names of the classes of the two classification tasks.

    Attributes:
        name: data set the scheme belongs to.
        gender: class names, position = code.
        race: class names, position = code.
    """

    name: str
    gender: tuple[str, ...]
    race: tuple[str, ...]

    def num_outputs(self, task: str) -> int:
        """Width of a task's head: 117 age bins, 2 genders, or the number of races."""
        return {"age": NUM_AGES, "gender": len(self.gender), "race": len(self.race)}[check_task(task)]

    def classes(self, task: str) -> tuple[str, ...]:
        """Class names of ``gender`` or ``race``."""
        return {"gender": self.gender, "race": self.race}[task]


SCHEMES = {
    "utkface": LabelScheme("utkface", ("male", "female"), ("white", "black", "asian", "indian", "other")),
    "fairface": LabelScheme(
        "fairface",
        ("male", "female"),
        ("white", "black", "latino_hispanic", "east_asian", "southeast_asian", "indian", "middle_eastern"),
    ),
    # Synthetic classes are named after what codes them, because they are nothing else: a badge and a pattern.
    "synthetic": LabelScheme("synthetic", ("disc", "ring"), ("plain", "rows", "columns", "checks", "dots")),
}


def get_scheme(name: str) -> LabelScheme:
    """The label scheme of a data set, by name."""
    if name not in SCHEMES:
        raise InputError(f"unknown data set '{name}'. Choose one of: {', '.join(SCHEMES)}")
    return SCHEMES[name]


def check_task(task: str) -> str:
    """Return ``task`` if there is such a task, else raise InputError."""
    if task not in TASKS:
        raise InputError(f"unknown task '{task}'. Choose one of: {', '.join(TASKS)}")
    return task

"""The one error that means: what was handed in cannot be used. And names, with what is said of unknown ones."""

import difflib
import re
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

# Control characters, line and paragraph separators, and what reverses the direction of writing. A file may be named so.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` on one line, without what could steer a terminal: such characters become ``\\x1b`` and the like."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


class InputError(ValueError):
    """Raised for bad input. Its text is one line: what was wrong, where, and what to do next."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class DamagedError(InputError):
    """What lies on the disk is not what this project wrote there."""


def by_name(*items: T) -> dict[str, T]:
    """What is looked up by its ``name``, in the order given."""
    return {item.name: item for item in items}


def name_hint(name: str, known: Iterable[str], listed: Iterable[str] = ()) -> str:
    """What to say of an unknown name: near ones, or else what there is (``listed`` where all would be too many)."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"Did you mean: {', '.join(near)}?" if near else f"Choose one of: {', '.join(listed or known)}"


def check_has(known: Iterable[str], *names: str, what: str = "the table") -> None:
    """Refuse a table, or ``what`` else has names, that lacks one of these: an InputError that says what it has."""
    if missing := [name for name in names if name not in known]:
        raise InputError(f"{what} lacks {', '.join(missing)}. There is: {', '.join(map(str, known))}")


COURSE_NEEDED = 'agr predict needs no more, but this does: pip install ".[course]" in the checkout'

"""The one error that means: what was handed in cannot be used."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Raised for bad input. Its text is one line: what was wrong, where, and what to do next."""


class DamagedError(InputError):
    """What lies on the disk is not what this project wrote there."""


def name_hint(name: str, known: Iterable[str], listed: Iterable[str] = ()) -> str:
    """What to say of an unknown name: near ones, or else what there is.

    Args:
        name: that is not known.
        known: names that there are.
        listed: those that are listed if none is near; all known ones where it is empty.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"Did you mean: {', '.join(near)}?" if near else f"Choose one of: {', '.join(listed or known)}"

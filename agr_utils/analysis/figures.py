"""The register of published figures: what is drawn of which results, and the message it carries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from agr_utils.analysis.results import read_runs

Reader = Callable[[Path], Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the gallery.

    Attributes:
        caption: its message.
        read: makes what ``draw`` is given out of the folder of results.
        draw: draws it.
        note: what its marks mean, for the gallery.
    """

    caption: str
    read: Reader
    draw: Callable[[Any], plt.Figure]
    note: str = ""


FIGURES: dict[str, Figure] = {}


def figure(name: str, caption: str, read: Reader = read_runs, note: str = "") -> Callable:
    """Register a function that draws one figure of the gallery.

    Args:
        name: of the file.
        caption: see ``Figure``, as the others.
        read: of what is drawn.
        note: of its marks.
    """

    def register(draw: Callable[[Any], plt.Figure]) -> Callable:
        FIGURES[name] = Figure(caption, read, draw, note)
        return draw

    return register

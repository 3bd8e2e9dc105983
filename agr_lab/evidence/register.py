"""The register of published figures: what is drawn of which results, and the message it carries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from agr_utils.measure.results import read_runs

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


class Register(dict[str, Figure]):
    """The figures of a module by name, in the order of the gallery."""

    def add(self, name: str, caption: str, read: Reader = read_runs, note: str = "") -> Callable:
        """Register a function that draws one figure.

        Args:
            name: of the file.
            caption: see ``Figure``, as the others.
            read: of what is drawn.
            note: of its marks.
        """

        def register(draw: Callable[[Any], plt.Figure]) -> Callable:
            self[name] = Figure(caption, read, draw, note)
            return draw

        return register

"""The register of published figures: what is drawn of which results, and the message it carries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from agr_utils.measure.results import read_runs

Reader = Callable[[Path], Any]
Draw = Callable[..., tuple[plt.Figure, pd.DataFrame]]


@dataclass(frozen=True)
class Figure:
    """A figure of the gallery."""

    caption: str  # its message
    draw: Draw  # draws it, and gives the table of what is drawn, which goes into the CSV file
    read: Reader | None  # makes what ``draw`` is given out of the folder of results; None where it needs none
    note: str = ""  # what its marks mean


class Register(dict[str, Figure]):
    """Figures by name."""

    def add(self, name: str, caption: str, read: Reader | None = read_runs, note: str = "") -> Callable[[Draw], Draw]:
        """Register a function that draws one figure, under the name of its file; see ``Figure`` for the rest."""

        def register(draw: Draw) -> Draw:
            self[name] = Figure(caption, draw, read, note)
            return draw

        return register


FIGURES = Register()  # of every module that has been imported

"""The register of published figures: what is drawn of which results, and the message it carries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from agr_utils.analysis.results import read_runs

Reader = Callable[[Path], Any]
FIGURES: dict[str, tuple[str, Reader, Callable[[Any], plt.Figure]]] = {}


def figure(name: str, caption: str, read: Reader = read_runs) -> Callable:
    """Register a function that draws one figure of the gallery.

    Args:
        name: of the file.
        caption: its message.
        read: makes what the function is given out of the folder of results.
    """

    def register(draw: Callable[[Any], plt.Figure]) -> Callable:
        FIGURES[name] = (caption, read, draw)
        return draw

    return register

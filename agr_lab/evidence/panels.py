"""What figures of several panels share."""

from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt

from agr_utils.measure.plots import NEUTRAL


def draw_nothing(ax: plt.Axes, what: str = "no finished runs yet") -> plt.Axes:
    """Say that there is nothing to draw yet."""
    ax.text(0.5, 0.5, what, ha="center", va="center", transform=ax.transAxes, color=NEUTRAL)
    ax.set_axis_off()
    return ax


def draw_panels(
    axes: Iterable[plt.Axes], names: Iterable[str], draw: Callable[[str, plt.Axes], object], anything: object = True
) -> None:
    """One panel per name; where there is not anything to draw they say so."""
    for ax, name in zip(axes, names, strict=True):
        if anything:
            draw(name, ax)
        else:
            draw_nothing(ax)


def legend_below(figure: plt.Figure, ax: plt.Axes, num_columns: int = 5) -> None:
    """One legend for all axes of a figure, below them; none where nothing is drawn."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=num_columns, frameon=False)

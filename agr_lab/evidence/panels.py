"""What figures of several panels share."""

from collections.abc import Callable, Iterable, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from agr_utils.measure.fairness import ERRORS
from agr_utils.measure.forest import plot_forest
from agr_utils.measure.metrics import METRICS
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


def lay_out(figure: plt.Figure, num_columns: int = 5) -> None:
    """Let nothing overlap, and put one legend of all panels below them; none where nothing is drawn."""
    figure.tight_layout()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for ax in figure.axes[1:]:
        more = [pair for pair in zip(*ax.get_legend_handles_labels(), strict=True) if pair[1] not in labels]
        handles, labels = handles + [handle for handle, _ in more], labels + [label for _, label in more]
    if handles:
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=num_columns, frameon=False)


def draw_forests(
    table: pd.DataFrame,
    names: Sequence[str],
    columns: tuple[str, str, str],
    label: str,
    height: float,
    title: str = "{}",
    **options: object,
) -> plt.Figure:
    """A panel per metric, each with differences as ``plot_forest`` draws them.

    Args:
        table: as ``plot_forest`` wants it, with ``matters``, the smallest difference that does.
        names: of the metric or error of each panel, as in the table; three in a row, or two by two.
        columns: names of the metric, of the row, and of the marks within a row (empty where there is one).
        label: below each panel, where it says ``{unit}``.
        height: of the figure, in inches.
        title: of each panel, where it says ``{}``.
        options: of ``plot_forest``.
    """
    column, row, series = columns
    shape, width = ((1, 3), 12) if len(names) == 3 else ((2, 2), 10)
    figure, axes = plt.subplots(*shape, figsize=(width, height), sharey=True)

    def draw(name: str, ax: plt.Axes) -> None:
        record, found = (METRICS | ERRORS)[name], table[table[column] == name]
        matters = found["matters"].iloc[0]
        plot_forest(found, ax, row, series, **{"scale": record.scale, "matters": matters} | options)
        ax.set_title(title.format(record.label))
        ax.set_xlabel(label.format(unit=record.change_unit))

    draw_panels(axes.flat, names, draw, len(table))
    lay_out(figure)
    return figure

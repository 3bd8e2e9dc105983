"""Figure ``conflict``: do the tasks pull the backbone apart while it trains?"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import interval_cell, markdown_table
from agr_lab.evidence.panels import draw_nothing
from agr_lab.evidence.reading import read_ablations
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.forest import PALETTE
from agr_utils.measure.plots import NEUTRAL
from agr_utils.measure.results import Run

TITLES = {"cosine": "cosine of the gradients\n(mean of an epoch)", "conflict": "steps at which they\npull apart (%)"}


def gradient_agreement(history: pd.DataFrame) -> pd.DataFrame:
    """Over a whole training with ``conflict_steps``, how far the gradients of each two tasks agree.

    Returns:
        Rows ``pair, measure, value, low, high``, ``measure`` being ``cosine`` or ``conflict`` (share of the steps at
        which two tasks pulled apart). Means over the steps; intervals by drawing epochs again, which takes epochs for
        independent and so is too narrow rather than too wide.
    """
    steps = history["step"].diff().fillna(history["step"]).to_numpy()
    measured = history.filter(regex="^(cosine|conflict)_").notna().all(axis=1)  # a last epoch may be too short for it
    history, steps = history[measured], steps[measured]
    labels = [name.split("_", 1) for name in history if name.startswith(("cosine_", "conflict_"))]
    weighted = np.stack([steps * history["_".join(label)] for label in labels] + [steps], axis=1)
    sums = GroupBootstrap(np.arange(len(history))).sums(weighted)
    table = pd.DataFrame(labels, columns=["measure", "pair"])
    return table.join(interval(sums[:, :-1] / sums[:, -1:]).drop(columns="p"))


def watched_history(runs: list[Run]) -> pd.DataFrame | None:
    """History of the run whose gradients were compared while it trained; None if there is none."""
    return next((run.history for run in runs if "cosine_age_gender" in run.history), None)


@FIGURES.add(
    "conflict", "Do the tasks pull the backbone apart? MobileNetV3, equal weights, while it trains", read_ablations
)
def draw_conflict(ablations: dict[str, list[Run]]) -> tuple[plt.Figure, pd.DataFrame]:
    """Cosines between the tasks' gradients, epoch by epoch; last in the table, their means with intervals."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4))
    history, table = watched_history(ablations.get("balancing", [])), pd.DataFrame()
    if history is None:
        for ax in axes:
            draw_nothing(ax)
    else:
        means = gradient_agreement(history)
        _plot_cosines(history, means, axes)
        epochs = [
            pd.DataFrame({"epoch": history["epoch"], "measure": measure, "pair": pair, "value": history[column]})
            for measure, pair in zip(means["measure"], means["pair"], strict=True)
            if (column := f"{measure}_{pair}") in history
        ]
        table = pd.concat([*epochs, means], ignore_index=True)
    figure.tight_layout()
    return figure, table


def _plot_cosines(history: pd.DataFrame, means: pd.DataFrame, axes: Sequence[plt.Axes]) -> None:
    """Mean cosine of the tasks' gradients in each epoch, and how often they pull apart."""
    by_pair = means.set_index(["measure", "pair"])
    for ax, (measure, title) in zip(axes, TITLES.items(), strict=True):
        scale, digits = (1, 2) if measure == "cosine" else (100, 0)
        for (pair, mean), (colour, marker) in zip(by_pair.loc[measure].iterrows(), PALETTE, strict=False):
            label = f"{pair.replace('_', ' and ')}: {interval_cell(mean, scale, digits)}"
            values = scale * history[f"{measure}_{pair}"]
            ax.plot(history["epoch"], values, marker, ls="-", color=colour, ms=5, label=label)
        ax.set_ylabel(title)
        ax.set_xlabel("epoch")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=10)
    axes[0].axhline(0, color=NEUTRAL, lw=1)
    axes[1].set_ylim(0, 100)


def conflict_table(ablations: dict[str, list[Run]]) -> str:
    """Cosines between the tasks' gradients over the whole training that was watched."""
    history, cells = watched_history(ablations.get("balancing", [])), []
    for pair, rows in gradient_agreement(history).groupby("pair", sort=False) if history is not None else ():
        means = rows.set_index("measure")
        found = [interval_cell(means.loc["cosine"], 1, 2, "+"), interval_cell(means.loc["conflict"], 100, 0)]
        cells.append([pair.replace("_", " and "), *found])
    return markdown_table(["Tasks", "Cosine of their gradients", "Steps at which they pull apart (%)"], cells)

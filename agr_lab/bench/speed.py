"""Figures of what ``agr bench`` measured."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import get_backbone

CACHE_COLOUR = "#0072B2"


def plot_compute_share(table: pd.DataFrame, ax: Axes) -> Axes:
    """Training steps as a share of what computing alone allows (``training.csv``); the smaller images filled."""
    titles = [get_backbone(name).title for name in table["backbone"].unique()]
    sizes = sorted(table["image_size"].unique())
    for row in table.itertuples():
        title = get_backbone(row.backbone).title
        share = 100 * row.share_of_compute_limit
        position = titles.index(title) + 0.42 * (sizes.index(row.image_size) - (len(sizes) - 1) / 2)
        fill = COLOURS[title] if row.image_size == sizes[0] else "white"
        ax.plot(share, position, MARKERS[title], color=COLOURS[title], mfc=fill, mew=2, ms=9)
        ax.annotate(f"{share:.0f} % at {row.image_size} px", (share, position), xytext=(-10, 0),
                    textcoords="offset points", ha="right", va="center", fontsize=11)  # fmt: skip
    ax.axvline(100, color=NEUTRAL, ls="--", lw=1.5)
    ax.set_yticks(range(len(titles)), titles)
    ax.set_ylim(len(titles) - 0.4, -0.6)
    lowest = 100 * table["share_of_compute_limit"].min()
    ax.set_xlim(min(60, 10 * ((lowest - 25) // 10)), max(102, 100 * table["share_of_compute_limit"].max() + 1))
    ax.set_xlabel("training speed (% of the compute limit), more is better")
    return ax


def plot_pipelines(table: pd.DataFrame, ax: Axes) -> Axes:
    """Images a second from the pixel cache and through the usual pipeline (``pipelines.csv``), slowest to fastest."""
    for position, row in enumerate(table.itertuples()):
        ax.plot([row.peer_images_per_second, row.images_per_second], [position] * 2, color="#bbbbbb", lw=4, zorder=0)
        ax.plot([row.peer_slowest, row.peer_fastest], [position] * 2, color=NEUTRAL, lw=1.5)
        ax.plot([row.slowest, row.fastest], [position] * 2, color=CACHE_COLOUR, lw=1.5)
        ax.plot(row.peer_images_per_second, position, "s", color=NEUTRAL, ms=8, label="JPEG files, DataLoader")
        ax.plot(row.images_per_second, position, "o", color=CACHE_COLOUR, ms=9, label="pixel cache (this project)")
        ax.annotate(f"{row.ratio:.1f}×", (max(row.fastest, row.peer_fastest), position), xytext=(9, 0),
                    textcoords="offset points", va="center", fontsize=11)  # fmt: skip
    ax.set_yticks(range(len(table)), [f"{row.measure}, {row.image_size} px" for row in table.itertuples()])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.set_xlim(right=3 * table[["fastest", "peer_fastest"]].max(axis=None))  # room for the last ratio
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("images a second (logarithmic), more is better")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[:2], labels[:2], frameon=False, fontsize=11, ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1))
    return ax

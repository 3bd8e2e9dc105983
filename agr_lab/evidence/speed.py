"""Figure ``speed``: how fast training is, against what computing allows and against the usual pipeline."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.panels import draw_nothing
from agr_lab.evidence.reading import Evidence, machine_title, read_bench
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import BACKBONES, get_backbone
from agr_utils.profiles import PROFILES

CACHE_COLOUR = "#0072B2"
# A T4 computes 8.1e12 operations of float32 per second, as its maker states. A step costs three forward passes.
_T4, _PER_MAC, _SHARE = 8.1e12, 2 * 3, 0.25


@FIGURES.add(
    "speed", "Speed: training against its compute limit, the pixel cache against the usual pipeline", read_bench
)
def draw_speed(bench: dict[str, pd.DataFrame]) -> tuple[plt.Figure, pd.DataFrame]:
    """Share of the compute limit, and the pixel cache against the usual pipeline."""
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 8), height_ratios=(1.3, 1))
    plots = {"training": plot_compute_share, "pipelines": plot_pipelines}
    for ax, (name, plot) in zip(axes, plots.items(), strict=True):
        if name in bench:
            plot(bench[name], ax)
        else:
            draw_nothing(ax, f"{name}: not measured yet. Run: agr bench")
    if bench:
        figure.supxlabel(machine_title(next(iter(bench.values()))), fontsize=10, color=NEUTRAL)
    figure.tight_layout()
    return figure, speed_rows(bench)


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
    ax.set_xlabel("images per second (logarithmic), more is better")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[:2], labels[:2], frameon=False, fontsize=11, ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1))
    return ax


def speed_rows(bench: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Images a second, those of what it is compared with, and the ratio: a row a measurement."""
    names = {
        "training": ("backbone", "limit_images_per_second", "share_of_compute_limit"),
        "pipelines": ("measure", "peer_images_per_second", "ratio"),
    }
    shown = ["what", "image_size", "images_per_second", "compared_with", "ratio"]
    parts = [
        bench[name].rename(columns=dict(zip(columns, ("what", "compared_with", "ratio"), strict=True)))[shown]
        for name, columns in names.items()
        if name in bench
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def t4_table(evidence: Evidence) -> str:
    """Calculated, not measured: minutes that a training of the full profile takes on a T4, a row per network."""
    rows, full = [], PROFILES["full"]
    for name in BACKBONES:
        for run in list(evidence.select_trained(name).values())[:1]:
            macs = run.about["macs"] * (full.image_size / run.config.image_size) ** 2
            operations = _PER_MAC * macs * run.about["num_train"] * full.num_epochs
            minutes = [f"{operations / (share * _T4) / 60:.1f}" for share in (1, _SHARE)]
            rows.append([get_backbone(name).title, f"{macs / 1e6:.0f}", *minutes])
    titles = ["Network", f"MACs at {full.image_size} px (millions)", "at the chip's limit (minutes)",
              f"at {100 * _SHARE:.0f} % of it (minutes)"]  # fmt: skip
    return markdown_table(titles, rows)

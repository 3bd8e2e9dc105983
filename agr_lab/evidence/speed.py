"""Figure ``speed``: how fast training is, against what computing allows and against the usual pipeline."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.bench.speed import plot_compute_share, plot_pipelines
from agr_lab.evidence.panels import draw_nothing
from agr_lab.evidence.register import Register
from agr_utils.measure.plots import NEUTRAL
from agr_utils.measure.results import describe_machine, read_bench

FIGURES = Register()


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
        figure.supxlabel(describe_machine(next(iter(bench.values()))), fontsize=10, color=NEUTRAL)
    figure.tight_layout()
    return figure, speed_rows(bench)


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

"""Figure ``speed``: how fast training is, against what computing allows and against the usual pipeline."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.bench.speed import plot_compute_share, plot_pipelines
from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.panels import draw_nothing
from agr_lab.evidence.reading import Evidence
from agr_lab.evidence.register import Register
from agr_utils.measure.plots import NEUTRAL
from agr_utils.measure.results import describe_machine, read_bench
from agr_utils.models.backbones import BACKBONES, get_backbone
from agr_utils.profiles import PROFILES

FIGURES = Register()
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


def t4_table(evidence: Evidence) -> str:
    """Calculated, not measured: minutes that a training of the full profile takes on a T4, a row a network."""
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

"""Figure ``noise_floor``: what the labels allow, and what others report."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.reading import read_published
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.forest import GREY
from agr_utils.measure.metrics import summarize
from agr_utils.measure.noise import noise_floor, twin_differences
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.measure.results import Run, read_runs


@FIGURES.add(
    "noise_floor",
    "What the labels allow: age errors of each protocol by itself, and the floor that near-duplicates set",
    lambda results_dir: (read_runs(results_dir), read_published(results_dir)),
)
def draw_noise_floor(given: tuple[list[Run], pd.DataFrame]) -> tuple[plt.Figure, pd.DataFrame]:
    """Our runs and published numbers, a panel a protocol, against the noise of the labels."""
    runs, published = given
    ours = [summarize(*run.split("test"), num_resamples=2_000).loc["age_mae"].rename(run.title) for run in runs]
    floor = noise_floor(twin_differences())["age_mae"]
    title = "this project: grouped 70/10/20 split, from scratch, 64 px"
    columns = ["value", "low", "high"]
    panels = {title: pd.DataFrame(ours).reindex(columns=columns)} | {
        protocol: rows.set_index(published_names(rows))[["age_mae"]].astype(float).set_axis(["value"], axis=1)
        for protocol, rows in (published.groupby("protocol", sort=False) if len(published) else ())
    }
    heights = [max(1, len(rows)) for rows in panels.values()]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(8, 1.5 + 0.55 * sum(heights)), sharex=True, height_ratios=heights, squeeze=False
    )
    for ax, (title, rows) in zip(axes[:, 0], panels.items(), strict=True):
        _plot_against_floor(rows, floor, ax)
        ax.set_title(title, fontsize=11, loc="left")
    axes[-1, 0].set_xlabel("MAE of the age (years), less is better")
    figure.tight_layout()
    table = pd.concat(panels, names=["protocol", "model"]).reset_index()
    return figure, table.assign(floor=floor)


def published_names(published: pd.DataFrame) -> pd.Series:
    """Names of the models of ``results/published.csv``, and what they began with."""
    begun = published["pretrained"].map({"no": ", from scratch", "": ""}).fillna(", pretrained")
    return published["model"] + begun


def _plot_against_floor(rows: pd.DataFrame, floor: float, ax: plt.Axes) -> None:
    """Age errors of one protocol, and the line that the noise of the labels draws."""
    for number, (name, row) in enumerate(rows.iterrows()):
        colour = COLOURS.get(name, NEUTRAL)
        if "low" in row:
            ax.plot([row["low"], row["high"]], [number] * 2, color=colour, lw=2)
        ax.plot(row["value"], number, MARKERS.get(name, "P"), color=colour, ms=8)
    ax.axvspan(0, floor, color=GREY, zorder=0)
    ax.axvline(floor, color=NEUTRAL, lw=1, ls="--")
    ax.set_yticks(range(len(rows)), list(rows.index))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(left=0)


def noise_table() -> str:
    """How far the labels of near-duplicates differ, and what follows."""
    twins = twin_differences()
    floor = noise_floor(twins)
    rows = [("age", f"{twins['age'].mean():.2f} years", f"MAE {floor['age_mae']:.2f} years")]
    for task in ("gender", "race"):
        share, best = 100 * twins[task].mean(), 100 * floor[f"{task}_accuracy"]
        rows.append((task, f"{share:.1f} % disagree", f"accuracy {best:.1f} %"))
    titles = ["Label", f"Difference of near-duplicates ({len(twins)} groups)", "No model can beat on them"]
    return markdown_table(titles, rows)


def published_tables(published: pd.DataFrame) -> str:
    """What others report, a table for each protocol."""
    if published.empty:
        return "No list of published numbers."
    columns = {"model": "Model", "pretrained": "Pretrained", "image_size": "px", "age_mae": "MAE"}
    columns |= {"age_cs5": "CS@5 (%)", "gender_accuracy": "Gender (%)"}
    parts = []
    for protocol, rows in published.groupby("protocol", sort=False):
        cells = []
        for row in rows.itertuples():
            source = f"[{row.source}{f' ({row.year})' if row.year else ''}]({row.url})"
            source += ", second-hand" if row.read == "second-hand" else ""
            cells.append([*(getattr(row, name) or "–" for name in columns), source])
        parts.append(
            f"*{protocol[0].upper()}{protocol[1:]}*\n\n" + markdown_table([*columns.values(), "Source"], cells)
        )
    return "\n\n".join(parts)

"""Figure ``task_weights`` and a table: what the validation split chose for each network (docs/protocol_2.md)."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.architectures.trained import title_of
from agr_lab.evidence.markdown import error_number, markdown_table
from agr_lab.evidence.panels import draw_panels, lay_out
from agr_lab.evidence.register import FIGURES
from agr_lab.gpu.jobs import Job
from agr_lab.gpu.protocol import LENGTHS, OLDER, WEIGHTINGS, best, length_jobs, rate_jobs, weight_jobs
from agr_utils.measure.comparisons import MATTERS
from agr_utils.measure.forest import GREY
from agr_utils.measure.metrics import METRICS
from agr_utils.measure.plots import COLOURS, MARKERS, NEUTRAL
from agr_utils.models.backbones import BACKBONES
from agr_utils.tasks import TASKS

Trials = dict[str, dict]  # rows of agr_lab.gpu.trials by name
SCORES = dict(zip(MATTERS, ("validation_mae", "validation_gender", "validation_race"), strict=True))
WEIGHT_TITLES = {"equal": "all equal", "age0.3": "age × 0.3", "age3": "age × 3", "gender3": "gender × 3",
                 "race3": "race × 3", "classes3": "gender and race × 3"}  # fmt: skip


def read_tuning(results_dir: Path) -> Trials:
    """Every training of the second protocol that is there, with its validation scores."""
    path = results_dir / "protocol_2" / "trials.csv"
    return pd.read_csv(path, index_col="trial").to_dict("index") if path.exists() else {}


def tuned(trials: Trials) -> dict[str, tuple[float, dict[str, Job], str]]:
    """Of each network: its learning rate, the trials of its task weights, and the best of them."""
    found = {}
    for name in (*BACKBONES, *OLDER):
        if rate := best(rate_jobs(name, TASKS), trials):
            jobs = dict(zip(WEIGHTINGS, weight_jobs(name, rate.learning_rate), strict=True))
            if chosen := best(list(jobs.values()), trials):
                found[name] = rate.learning_rate, jobs, next(key for key, job in jobs.items() if job == chosen)
    return found


@FIGURES.add(
    "task_weights",
    "What a task's weight in the loss buys and costs: validation split, 5 epochs at 96 px",
    read_tuning,
    "One training each. Filled: the setting with the lowest mean logarithm of the three errors, which was taken.",
)
def draw_task_weights(trials: Trials) -> tuple[plt.Figure, pd.DataFrame]:
    """Validation scores by task weights, a row per setting."""
    rows = [
        {"network": title_of(name), "weights": WEIGHT_TITLES[key], "chosen": key == chosen}
        | {metric: trials[job.name][column] for metric, column in SCORES.items()}
        for name, (_, jobs, chosen) in tuned(trials).items()
        for key, job in jobs.items()
    ]
    table, titles = pd.DataFrame(rows), list(WEIGHT_TITLES.values())
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True)

    def draw(metric: str, ax: plt.Axes) -> None:
        networks = list(table["network"].unique())
        for name, shift in zip(networks, np.linspace(-0.3, 0.3, len(networks)), strict=True):
            marker, colour = MARKERS.get(name, "P"), COLOURS.get(name, NEUTRAL)
            for row in table[table["network"] == name].to_dict("records"):
                ax.plot(METRICS[metric].scale * row[metric], titles.index(row["weights"]) + shift, marker,
                        color=colour, mfc=colour if row["chosen"] else "white", ms=6)  # fmt: skip
            ax.plot([], [], marker, color=colour, label=name)
        for edge in range(1, len(titles)):
            ax.axhline(edge - 0.5, color=GREY, lw=1)
        ax.set_yticks(range(len(titles)), titles)
        ax.set_ylim(len(titles) - 0.5, -0.5)
        ax.set_xlabel(f"{METRICS[metric].title}, {METRICS[metric].direction}")

    draw_panels(axes, MATTERS, draw, len(table))
    lay_out(figure, 6)
    return figure, table


def tuning_table(trials: Trials) -> str:
    """A row per network: learning rate, task weights and length, and what each length reached on validation."""
    rows = []
    for name, (rate, _, weights) in tuned(trials).items():
        jobs, own = length_jobs(name, rate, weights, trials)
        reached = [trials[job.name] for job in jobs if job.name in trials]
        cells = [
            " / ".join(error_number(row[column], METRICS[metric].in_years) for metric, column in SCORES.items())
            for row in reached
        ] + ["–"] * (len(LENGTHS) - len(reached))
        length = f"{own.epochs} epochs" if own else "open"
        rows.append([title_of(name), f"{rate:g}", WEIGHT_TITLES[weights], *cells, length])
    titles = ["Network", "Learning rate", "Task weights", *(f"{epochs} epochs" for epochs in LENGTHS), "Own length"]
    return markdown_table(titles, rows)

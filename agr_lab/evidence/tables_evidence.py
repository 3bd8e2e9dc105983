"""The tables of docs/evidence.md."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from agr_lab.evidence.accuracy.every_metric import ALL_METRICS, MORE_METRICS, evaluate_table
from agr_lab.evidence.markdown import error_cell, error_number, header_lines, interval_cell, table_line
from agr_lab.evidence.multitask.ablations import gradient_agreement, setting_table, watched_history
from agr_lab.evidence.reading import Evidence
from agr_lab.evidence.tables_claims import NOT_YET, gap_table, multitask_table
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.calibration import null_ece
from agr_utils.measure.metrics import METRICS, summarize
from agr_utils.measure.noise import noise_floor, twin_differences
from agr_utils.measure.results import Run, read_ablations, read_folder, read_published, read_runs
from agr_utils.models.backbones import BACKBONES

EQUAL_EPOCHS = 21  # of docs/grids/equal_epochs.yaml


def evidence_tables(results_dir: Path, evidence: Evidence) -> dict[str, str]:
    """Each table of the page as Markdown, by the name of its markers."""
    runs, ablations = read_runs(results_dir), read_ablations(results_dir)
    equal = [run for run in evidence.runs if run.length == "equal"]
    equal += [run for run in runs if equal and run.about["config"]["num_epochs"] == EQUAL_EPOCHS]
    return {
        "every-metric": every_metric_table(runs),
        "multitask": multitask_table(evidence),
        "gaps-a": gap_table(evidence, "a"),
        "gaps-b": gap_table(evidence, "b"),
        "seeds": seeds_table(evidence),
        "equal-epochs": runs_table({run.title: run for run in _in_order(equal)}, "Architecture", "test"),
        "balancing": ablation_table(ablations, "balancing", "Weights"),
        "conflict": conflict_table(ablations),
        "age-heads": ablation_table(ablations, "age_heads", "Age head"),
        "noise": noise_table(),
        "published": published_tables(results_dir / "published.csv"),
        "hours": hours_table(results_dir),
    }


def _in_order(runs: Iterable[Run]) -> list[Run]:
    order = list(BACKBONES)
    return sorted(runs, key=lambda run: (order.index(run.backbone), run.length, run.seed))


def format_value(metric: str, row: pd.Series) -> str:
    """A metric with its interval, in its unit."""
    return error_cell(row, ALL_METRICS[metric].in_years)


def _titles(metrics: Iterable[str]) -> list[str]:
    return [ALL_METRICS[name].title for name in metrics]


def every_metric_table(runs: list[Run]) -> str:
    """A row a metric, a column a run."""
    if not runs:
        return NOT_YET
    splits = [run.split("test") for run in runs]
    results = [evaluate_table(table, GroupBootstrap(groups)) for table, groups in splits]
    lines = header_lines(["Metric", *(run.title for run in runs)])
    for metric, title in zip(MORE_METRICS, _titles(MORE_METRICS), strict=True):
        lines.append(table_line([title, *(format_value(metric, result.loc[metric]) for result in results)]))
    for task in ("gender", "race"):
        ranges = [interval(null_ece(table, task)[:, None]).iloc[0] for table, _ in splits]
        title = f"{task.title()} ECE of a perfectly calibrated model (%)"
        lines.append(table_line([title, *(format_value(f"{task}_ece", row) for row in ranges)]))
    return "\n".join(lines)


def runs_table(runs: dict[str, Run], title: str, split: str) -> str:
    """A row a run, a column a metric that it has."""
    if not runs:
        return NOT_YET
    summaries = {name: summarize(*run.split(split)) for name, run in runs.items()}
    metrics = [name for name in METRICS if name in next(iter(summaries.values())).index]
    lines = header_lines([title, *_titles(metrics)])
    for name, summary in summaries.items():
        lines.append(table_line([name, *(format_value(metric, summary.loc[metric]) for metric in metrics)]))
    return "\n".join(lines)


def seeds_table(evidence: Evidence) -> str:
    """Every multi-task run of an architecture of which there are several seeds."""
    multi = [run for run in evidence.runs if len(run.tasks) > 1 and run.length != "equal"]
    kinds = [(run.backbone, run.length) for run in multi]
    several = _in_order(run for run in multi if kinds.count((run.backbone, run.length)) > 1)
    return runs_table({f"{run.title}, {run.length}, seed {run.seed}": run for run in several}, "Run", "test")


def ablation_table(ablations: dict[str, list[Run]], name: str, title: str) -> str:
    """A row a setting: each metric, and by how much it is better than with the usual setting, which comes first."""
    table = setting_table(ablations.get(name, []), name)
    if table.empty:
        return NOT_YET
    metrics = list(table["metric"].unique())
    lines = header_lines([title, *_titles(metrics)])
    for setting, rows in table.groupby("setting", sort=False):
        cells = []
        for _, row in rows.iterrows():
            years = ALL_METRICS[row["metric"]].in_years
            value = error_number(row["absolute"], years)
            cells.append(value if np.isnan(row["value"]) else f"{value} ({error_cell(row, years, '+')})")
        lines.append(table_line([setting, *cells]))
    return "\n".join(lines)


def conflict_table(ablations: dict[str, list[Run]]) -> str:
    """Cosines between the tasks' gradients over the whole training that was watched."""
    history = watched_history(ablations.get("balancing", []))
    if history is None:
        return NOT_YET
    lines = header_lines(["Tasks", "Cosine of their gradients", "Steps at which they pull apart (%)"])
    for pair, rows in gradient_agreement(history).groupby("pair", sort=False):
        means = rows.set_index("measure")
        cells = [interval_cell(means.loc["cosine"], 1, 2, "+"), interval_cell(means.loc["conflict"], 100, 0)]
        lines.append(table_line([pair.replace("_", " and "), *cells]))
    return "\n".join(lines)


def noise_table() -> str:
    """How far the labels of near-duplicates differ, and what follows."""
    twins = twin_differences()
    floor = noise_floor(twins)
    lines = header_lines(["Label", f"Difference of near-duplicates ({len(twins)} groups)", "No model can beat on them"])
    lines.append(table_line(["age", f"{twins['age'].mean():.2f} years", f"MAE {floor['age_mae']:.2f} years"]))
    for task in ("gender", "race"):
        share, best = 100 * twins[task].mean(), 100 * floor[f"{task}_accuracy"]
        lines.append(table_line([task, f"{share:.1f} % disagree", f"accuracy {best:.1f} %"]))
    return "\n".join(lines)


def published_tables(path: Path) -> str:
    """What others report, a table for each protocol."""
    if not path.exists():
        return "No list of published numbers."
    columns = {"model": "Model", "pretrained": "Pretrained", "image_size": "px", "age_mae": "MAE"}
    columns |= {"age_cs5": "CS@5 (%)", "gender_accuracy": "Gender (%)"}
    parts = []
    for protocol, rows in read_published(path).groupby("protocol", sort=False):
        lines = [f"*{protocol[0].upper()}{protocol[1:]}*", "", *header_lines([*columns.values(), "Source"])]
        for row in rows.itertuples():
            source = f"[{row.source}{f' ({row.year})' if row.year else ''}]({row.url})"
            source += ", second-hand" if row.read == "second-hand" else ""
            lines.append(table_line([*(getattr(row, name) or "–" for name in columns), source]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def hours_table(results_dir: Path) -> str:
    """Hours of one core that the trainings behind each folder of results took."""
    folders = {"published runs": read_runs(results_dir), "claims": read_folder(results_dir / "claims")}
    folders["equal epochs"] = read_folder(results_dir / "equal_epochs")
    folders["maps of drawn faces"] = read_folder(results_dir / "cues")
    folders |= {f"ablation: {name.replace('_', ' ')}": runs for name, runs in read_ablations(results_dir).items()}
    lines = header_lines(["Runs", "Number", "Hours"])
    hours = {name: sum(run.history["cpu_seconds"].sum() for run in runs) / 3600 for name, runs in folders.items()}
    for name, runs in folders.items():
        lines.append(table_line([name, str(len(runs)), f"{hours[name]:.1f}"]))
    lines.append(table_line(["all", str(sum(map(len, folders.values()))), f"{sum(hours.values()):.1f}"]))
    return "\n".join(lines)

"""The tables of the README and the docs, filled in from ``results/``."""

from pathlib import Path

import pandas as pd

from agr_lab.evidence.accuracy.risk_coverage import read_shipped
from agr_lab.evidence.claims import all_findings
from agr_lab.evidence.maps.evidence import read_map_evidence
from agr_lab.evidence.maps.tables import map_tables, trust_table
from agr_lab.evidence.markdown import error_cell, fill_table, header_lines, table_line
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.evidence.robustness.evidence import read_robustness
from agr_lab.evidence.robustness.tables import robustness_tables
from agr_lab.evidence.tables_claims import NOT_YET
from agr_lab.evidence.tables_evidence import evidence_tables
from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.calibration import coverage_table
from agr_utils.measure.fairness import ERRORS, group_intervals
from agr_utils.measure.metrics import METRICS, summarize
from agr_utils.measure.results import Run, describe_machine, read_bench, read_folder, read_runs
from agr_utils.models.backbones import BACKBONES
from agr_utils.tasks import get_scheme


def fill_tables(results_dir: Path, root: Path) -> list[Path]:
    """Write every table into its page.

    Args:
        results_dir: published runs and benchmarks.
        root: folder of the pages.

    Returns:
        The pages.
    """
    bench, evidence, maps = read_bench(results_dir), read_evidence(results_dir), read_map_evidence(results_dir)
    runs = read_runs(results_dir)
    fill_table(root / "README.md", "real-faces", real_faces_table(runs, read_speeds(results_dir)))
    fill_table(root / "README.md", "claims", claims_table(evidence))
    scaling = root / "docs" / "scaling.md"
    for name, columns in BENCH_COLUMNS.items():
        fill_table(scaling, name, bench_table(bench.get(name), columns))
    fill_table(scaling, "early-size", early_size_table(results_dir / "ablations" / "early_size"))
    evidence_page = root / "docs" / "evidence.md"
    for name, table in evidence_tables(results_dir, evidence).items():
        fill_table(evidence_page, name, table)
    card = root / "docs" / "MODEL_CARD.md"
    shipped = read_shipped(results_dir)
    fill_table(card, "home", home_table(shipped))
    fill_table(card, "groups", groups_table(shipped))
    fill_table(root / "README.md", "maps", trust_table(maps))
    inside = root / "docs" / "looking_inside.md"
    for name, table in (map_tables(maps) | robustness_tables(read_robustness(results_dir))).items():
        fill_table(inside, name, table)
    return [root / "README.md", scaling, evidence_page, inside, card]


def claims_table(evidence: Evidence) -> str:
    """What became of each claim: verdict, what was found with intervals, and the figure."""
    lines = header_lines(["Claim", "Compared at", "Verdict", "Found (test split, 95 % intervals)", "Figure"])
    for finding in all_findings(evidence):
        link = f"[{finding.figure}](figures/{finding.figure}.png)" if finding.figure else "–"
        lines.append(table_line([finding.claim, finding.test, f"**{finding.verdict_so_far}**", finding.found, link]))
    return "\n".join(lines)


def read_speeds(results_dir: Path) -> pd.Series:
    """Images of 64 px a second of each backbone as ``agr bench`` measured them; empty where it has not."""
    table = read_bench(results_dir).get("training")
    if table is None:
        return pd.Series(dtype=float)
    return table[table["image_size"] == 64].set_index("backbone")["images_per_second"]


def real_faces_table(runs: list[Run], speeds: pd.Series) -> str:
    """Test-split results of each architecture as a Markdown table, 95 % intervals in brackets.

    Args:
        runs: published runs.
        speeds: see ``read_speeds``.
    """
    header = ["Architecture", "Epochs", *_metric_titles(), "Parameters (M)", "MACs (M)", "Seconds an epoch"]
    lines = header_lines(header)
    for run in runs:
        cells = [run.title, f"{run.about['config']['num_epochs']:g}", *_metric_cells(run, "test")]
        cells += [f"{run.about['parameters'] / 1e6:.1f}", f"{run.about['macs'] / 1e6:.0f}"]
        speed = speeds.get(run.about["config"]["backbone"])
        cells.append(f"{run.about['num_train'] / speed:.0f}" if speed else "–")
        lines.append(table_line(cells))
    return "\n".join(lines)


def home_table(runs: list[Run]) -> str:
    """Scores of the shipped model's run on faces of its own data set, 95 % intervals in brackets."""
    if not runs:
        return NOT_YET
    lines = header_lines(["Split", "Faces", *_metric_titles()])
    for split in ("validation", "test"):
        lines.append(table_line([split, f"{len(runs[0].split(split)[0]):,}", *_metric_cells(runs[0], split)]))
    return "\n".join(lines)


def groups_table(runs: list[Run]) -> str:
    """Errors of a run by labelled group, and how many ages its interval holds: test split, 95 % intervals."""
    if not runs:
        return NOT_YET
    titles = [error.title for error in ERRORS.values()]
    lines = header_lines(["Labelled", "Faces", *titles, "Ages inside the 90 % interval (%)"])
    scheme, (table, clusters) = get_scheme("utkface"), runs[0].split("test")
    bootstrap = GroupBootstrap(clusters)
    for grouping in ("gender", "race", "age band"):
        errors = group_intervals(table, scheme, grouping, bootstrap).set_index(["group", "error"])
        for group, row in coverage_table(table, scheme, grouping, bootstrap).iterrows():
            cells = [error_cell(errors.loc[(group, name)], error.in_years) for name, error in ERRORS.items()]
            lines.append(table_line([group, f"{row['count']:,.0f}", *cells, error_cell(row, years=False)]))
    return "\n".join(lines)


def early_size_table(folder: Path) -> str:
    """What starting with smaller images buys at an equal time: validation split, 95 % intervals in brackets."""
    runs = read_folder(folder)
    if not runs:
        return "Not measured yet."
    lines = header_lines(["Architecture", "Minutes", "Pixels", "Epochs", *_metric_titles()])
    for run in runs:
        config = run.about["config"]
        early = f"{config['early_size']} for {config['early_share']:.0%}, then " if config["early_size"] else ""
        cells = [run.title, f"{run.about['minutes']:g}", f"{early}{config['image_size']}", f"{config['num_epochs']:g}"]
        lines.append(table_line([*cells, *_metric_cells(run, "validation")]))
    return "\n".join(lines)


def _metric_titles() -> list[str]:
    return [metric.title for metric in METRICS.values()]


def _metric_cells(run: Run, split: str) -> list[str]:
    """Each metric of a run with its interval."""
    summary = summarize(*run.split(split))
    return [error_cell(summary.loc[name], metric.in_years) for name, metric in METRICS.items()]


BENCH_COLUMNS = {
    "training": {"backbone": "architecture", "image_size": "px", "precision": "precision",
                 "images_per_second": "images/s", "limit_images_per_second": "resident batch",
                 "share_of_compute_limit": "share"},
    "latency": {"backbone": "architecture", "image_size": "px", "batch_size": "images", "seconds": "seconds"},
    "pipelines": {"measure": "measure", "image_size": "px", "images_per_second": "pixel cache (images/s)",
                  "peer_images_per_second": "JPEG files, DataLoader", "ratio": "ratio"},
    "startup": {"num_images": "images", "seconds": "seconds to the first step", "import_seconds": "of imports before"},
    "memory": {"num_images": "images", "pixels_mib": "pixel cache (MiB)", "anonymous_mib": "anonymous (MiB)",
               "peak_mib": "resident, file pages too (MiB)"},
    "processes": {"backbone": "architecture", "processes": "processes", "threads": "threads each",
                  "images_per_second": "images/s", "speedup": "speed-up"},
    "inside": {"backbone": "architecture", "image_size": "px", "measure": "measure", "num_images": "faces",
               "seconds": "seconds"},
    "budget": {"backbone": "architecture", "minutes": "minutes asked", "taken": "taken", "epochs": "epochs planned"},
}  # fmt: skip


def bench_table(table: pd.DataFrame | None, columns: dict[str, str]) -> str:
    """A table of ``agr bench`` as Markdown, with the hardware below.

    Args:
        table: as it was measured; None where it was not.
        columns: those shown, and their titles.
    """
    if table is None or table.empty:
        return "Not measured yet: `agr bench`"
    if missing := [name for name in (*columns, "cpu", "cores", "threads", "torch") if name not in table]:
        raise InputError(f"results/bench: a table of agr bench has no {' or '.join(missing)}. Measure it again")
    lines = header_lines(list(columns.values()))
    for row in table[list(columns)].itertuples(index=False):
        lines.append(table_line([_format_cell(value) for value in row]))
    lines += ["", f"On {describe_machine(table)}; torch {table.iloc[0]['torch']}."]
    return "\n".join(lines)


def _format_cell(value: object) -> str:
    """Three digits of a number; the name of an architecture."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    if isinstance(value, str):
        return BACKBONES[value].title if value in BACKBONES else value
    return f"{value:,}"

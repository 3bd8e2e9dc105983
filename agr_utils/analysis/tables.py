"""The tables of the README and the docs, filled in from ``results/``."""

import re
from pathlib import Path

import pandas as pd

from agr_utils.analysis.metrics import METRICS, summarize
from agr_utils.analysis.results import Run, read_bench, read_runs
from agr_utils.errors import InputError
from agr_utils.models.backbones import BACKBONES
from agr_utils.runtime import atomic_path


def fill_tables(results_dir: Path, root: Path) -> list[Path]:
    """Write every table into its page.

    Args:
        results_dir: published runs and benchmarks.
        root: folder of the pages.

    Returns:
        The pages.
    """
    bench = read_bench(results_dir)
    fill_table(root / "README.md", "real-faces", real_faces_table(read_runs(results_dir), read_speeds(results_dir)))
    for name, columns in BENCH_COLUMNS.items():
        fill_table(root / "docs" / "scaling.md", name, bench_table(bench.get(name), columns))
    return [root / "README.md", root / "docs" / "scaling.md"]


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
    titles = [METRICS[name][0] + (" (years)" if METRICS[name][1] == "years" else " (%)") for name in METRICS]
    header = ["Architecture", "Epochs", *titles, "Parameters (M)", "MACs (M)", "Seconds an epoch"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for run in runs:
        summary = summarize(*run.split("test"))
        cells = [run.title, f"{run.about['config']['num_epochs']:g}"]
        for name, (_, unit, _) in METRICS.items():
            row = summary.loc[name] * (100 if unit == "%" else 1)
            digits = 1 if unit == "%" else 2
            cells.append(f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]")
        cells += [f"{run.about['parameters'] / 1e6:.1f}", f"{run.about['macs'] / 1e6:.0f}"]
        speed = speeds.get(run.about["config"]["backbone"])
        cells.append(f"{run.about['num_train'] / speed:.0f}" if speed else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fill_table(page: Path, name: str, table: str) -> None:
    """Replace what stands between ``<!-- table:name -->`` and ``<!-- /table -->``.

    Raises:
        InputError: if the page has no such markers.
    """
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- table:{re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    if not pattern.search(text):
        raise InputError(
            f"{page}: no markers for the table '{name}'. Put <!-- table:{name} --> and <!-- /table --> back"
        )
    with atomic_path(page) as partial:
        partial.write_text(pattern.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text), encoding="utf-8")


BENCH_COLUMNS = {
    "training": {"backbone": "architecture", "image_size": "px", "precision": "precision",
                 "images_per_second": "images/s", "limit_images_per_second": "resident batch",
                 "share_of_compute_limit": "share"},
    "pipelines": {"measure": "measure", "image_size": "px", "images_per_second": "pixel cache (images/s)",
                  "peer_images_per_second": "JPEG files, DataLoader", "ratio": "ratio"},
    "startup": {"num_images": "images", "seconds": "seconds to the first step", "import_seconds": "of imports before"},
    "memory": {"num_images": "images", "pixels_mib": "pixel cache (MiB)", "anonymous_mib": "anonymous (MiB)",
               "peak_mib": "resident, file pages too (MiB)"},
    "processes": {"backbone": "architecture", "processes": "processes", "threads": "threads each",
                  "images_per_second": "images/s", "speedup": "speed-up"},
    "budget": {"backbone": "architecture", "minutes": "minutes asked", "taken": "taken", "epochs": "epochs planned"},
}  # fmt: skip


def bench_table(table: pd.DataFrame | None, columns: dict[str, str]) -> str:
    """A table of ``agr bench`` as Markdown, with the hardware below.

    Args:
        table: as it was measured; None where it was not.
        columns: those shown, and their titles.
    """
    if table is None:
        return "Not measured yet: `agr bench`"
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    for row in table[list(columns)].itertuples(index=False):
        lines.append("| " + " | ".join(_format_cell(value) for value in row) + " |")
    first = table.iloc[0]
    lines += ["", f"On {first['cpu']}, {first['cores']} cores, {first['threads']} threads; torch {first['torch']}."]
    return "\n".join(lines)


def _format_cell(value: object) -> str:
    """Three digits of a number; the name of an architecture."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    if isinstance(value, str):
        return BACKBONES[value].title if value in BACKBONES else value
    return f"{value:,}"

"""Redraw every published figure and table from ``results/``: no image, no weight, no GPU."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import joblib

from agr_utils.files import atomic_path
from agr_utils.measure.results import check_results

if TYPE_CHECKING:
    from agr_lab.evidence.register import Register

# Each has a register of figures. Imported where they are drawn: that takes seconds, and each process must do it anyway.
MODULES = ("figures_claims", "accuracy.risk_coverage", "maps.figures", "robustness.figures", "figures_runs")
# For the web and for a paper; without dates, so that the same results give the same bytes.
FORMATS = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
PADDING = 0.1  # inches around what is drawn


def draw_all(results_dir: Path, figures_dir: Path, root: Path | None = None, jobs: int | None = None) -> list[Path]:
    """Draw every figure, write the gallery page and fill in the tables of the README and the docs.

    Args:
        results_dir: published runs and benchmarks.
        figures_dir: where ``<name>.png``, ``<name>.pdf`` and ``README.md`` go.
        root: of the pages with table markers; None fills in none.
        jobs: processes at a time; None is one a core, 1 is this process. They draw the same.

    Returns:
        The files written.

    Raises:
        InputError: if there is no result, before anything is written.
    """
    check_results(results_dir)
    figures_dir.mkdir(parents=True, exist_ok=True)
    calls = [joblib.delayed(_fill_tables)(results_dir, root)] if root else []
    calls += [joblib.delayed(_draw_module)(module, results_dir, figures_dir) for module in MODULES]
    with joblib.parallel_config("loky", n_jobs=min(jobs or joblib.cpu_count(), len(calls)), inner_max_num_threads=1):
        done = joblib.Parallel(batch_size=1)(calls)
    page = [
        "# Figures",
        "",
        "Drawn by `make figures` from the committed results. Lines are 95 % intervals, unless it says otherwise.",
        "",
        *(line for _, lines in done for line in lines),
    ]
    with atomic_path(figures_dir / "README.md") as partial:
        partial.write_text("\n".join(page), encoding="utf-8")
    return [*(path for paths, _ in done for path in paths), figures_dir / "README.md"]


def figures_of(module: str) -> "Register":
    """Figures that a module of MODULES draws."""
    return import_module(f"agr_lab.evidence.{module}").FIGURES


def _fill_tables(results_dir: Path, root: Path) -> tuple[list[Path], list[str]]:
    """Pages filled in, and nothing for the gallery page."""
    from agr_lab.evidence.tables import fill_tables

    return fill_tables(results_dir, root), []


def _draw_module(module: str, results_dir: Path, figures_dir: Path) -> tuple[list[Path], list[str]]:
    """Draw the figures of a module: files written, and lines of the gallery page."""
    import matplotlib
    import matplotlib.pyplot as plt

    from agr_utils.measure import plots

    matplotlib.use("Agg")
    plots.use_style()
    given, written, lines = {}, [], []
    for name, figure in figures_of(module).items():
        if figure.read not in given:
            given[figure.read] = figure.read(results_dir)
        drawn = figure.draw(given[figure.read])
        # Once: bbox_inches="tight" lays out again for each format. Widths of text depend on the resolution.
        drawn.set_dpi(plt.rcParams["savefig.dpi"])
        box = drawn.get_tightbbox().padded(PADDING)
        for kind, metadata in FORMATS.items():
            path = figures_dir / f"{name}.{kind}"
            with atomic_path(path) as partial:
                drawn.savefig(partial, format=kind, bbox_inches=box, metadata=metadata)
            written.append(path)
        plt.close(drawn)
        lines += [f"## {figure.caption}", "", f"![{figure.caption}]({name}.png)", ""]
        lines += [figure.note, ""] if figure.note else []
        lines += [f"[PDF]({name}.pdf)", ""]
    return written, lines

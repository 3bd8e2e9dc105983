"""Redraw every published figure and table from ``results/``: no image, no weight, no GPU."""

from pathlib import Path

import joblib
import matplotlib
import matplotlib.pyplot as plt

from agr_utils.analysis import figures_claims, figures_maps, figures_robustness, figures_runs, plots
from agr_utils.analysis.figures import FIGURES, Reader
from agr_utils.analysis.tables import fill_tables
from agr_utils.runtime import atomic_path

# Importing them puts their figures on the register.
__all__ = ["draw_all", "figures_claims", "figures_maps", "figures_robustness", "figures_runs"]

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
    """
    figures_dir.mkdir(parents=True, exist_ok=True)
    readers = list(dict.fromkeys(figure.read for figure in FIGURES.values()))
    calls = [joblib.delayed(fill_tables)(results_dir, root)] if root else []
    calls += [joblib.delayed(_draw_figures_of)(read, results_dir, figures_dir) for read in readers]
    with joblib.parallel_config("loky", n_jobs=min(jobs or joblib.cpu_count(), len(calls)), inner_max_num_threads=1):
        done = joblib.Parallel(batch_size=1)(calls)
    page = [
        "# Figures",
        "",
        "Drawn by `make figures` from the committed results. Lines are 95 % intervals, unless it says otherwise.",
        "",
    ]
    for name, figure in FIGURES.items():
        page += [f"## {figure.caption}", "", f"![{figure.caption}]({name}.png)", ""]
        page += [figure.note, ""] if figure.note else []
        page += [f"[PDF]({name}.pdf)", ""]
    with atomic_path(figures_dir / "README.md") as partial:
        partial.write_text("\n".join(page), encoding="utf-8")
    return [*(path for paths in done for path in paths), figures_dir / "README.md"]


def _draw_figures_of(reader: Reader, results_dir: Path, figures_dir: Path) -> list[Path]:
    """Draw the figures that are made of what one reader reads, which is then read once."""
    matplotlib.use("Agg")
    plots.use_style()
    given, written = reader(results_dir), []
    for name, figure in FIGURES.items():
        if figure.read is not reader:
            continue
        drawn = figure.draw(given)
        # Once: bbox_inches="tight" lays out again for each format. Widths of text depend on the resolution.
        drawn.set_dpi(plt.rcParams["savefig.dpi"])
        drawn.draw_without_rendering()
        box = drawn.get_tightbbox().padded(PADDING)
        for kind, metadata in FORMATS.items():
            path = figures_dir / f"{name}.{kind}"
            with atomic_path(path) as partial:
                drawn.savefig(partial, format=kind, bbox_inches=box, metadata=metadata)
            written.append(path)
        plt.close(drawn)
    return written

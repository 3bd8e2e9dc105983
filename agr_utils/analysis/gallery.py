"""Redraw every published figure and table from ``results/``: no image, no weight, no GPU."""

from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from agr_utils.analysis import figures_claims, figures_maps, figures_robustness, figures_runs, plots
from agr_utils.analysis.figures import FIGURES
from agr_utils.analysis.tables import fill_tables
from agr_utils.runtime import atomic_path

# Importing them puts their figures on the register.
__all__ = ["draw_all", "figures_claims", "figures_maps", "figures_robustness", "figures_runs"]

# For the web and for a paper; without dates, so that the same results give the same bytes.
FORMATS = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}


def draw_all(results_dir: Path, figures_dir: Path, root: Path | None = None) -> list[Path]:
    """Draw every figure, write the gallery page and fill in the tables of the README and the docs.

    Args:
        results_dir: published runs and benchmarks.
        figures_dir: where ``<name>.png``, ``<name>.pdf`` and ``README.md`` go.
        root: of the pages with table markers; None fills in none.

    Returns:
        The files written.
    """
    matplotlib.use("Agg")
    plots.use_style()
    read_once = cache(lambda read: read(results_dir))
    figures_dir.mkdir(parents=True, exist_ok=True)
    written, page = [], ["# Figures", "", "Drawn by `make figures` from the committed results.", ""]
    for name, (caption, read, draw) in FIGURES.items():
        drawn = draw(read_once(read))
        for kind, metadata in FORMATS.items():
            path = figures_dir / f"{name}.{kind}"
            with atomic_path(path) as partial:
                drawn.savefig(partial, format=kind, bbox_inches="tight", metadata=metadata)
            written.append(path)
        plt.close(drawn)
        page += [f"## {caption}", "", f"![{caption}]({name}.png)", "", f"[PDF]({name}.pdf)", ""]
    with atomic_path(figures_dir / "README.md") as partial:
        partial.write_text("\n".join(page), encoding="utf-8")
    written.append(figures_dir / "README.md")
    return written + (fill_tables(results_dir, root, read_once) if root else [])

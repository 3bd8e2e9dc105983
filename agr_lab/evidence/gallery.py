"""Redraw every published figure and table from ``results/``: no image, no weight, no GPU."""

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from agr_lab.evidence import speed
from agr_lab.evidence.accuracy import accuracy, age_error, learning_curves, risk_coverage, seeds
from agr_lab.evidence.architectures import deployment, pairs, pareto, task_weights, trained
from agr_lab.evidence.claims import claims_rows
from agr_lab.evidence.faces import labels, noise_floor, synthetic_faces, twins
from agr_lab.evidence.groups import coverage, group_errors, reliability
from agr_lab.evidence.maps import map_cues, map_layers, map_regions, map_sanity, map_shortcut, map_where, trust
from agr_lab.evidence.maps.map_evidence import read_map_evidence
from agr_lab.evidence.multitask import ablations, conflict, gaps, multitask
from agr_lab.evidence.pages import fill_pages
from agr_lab.evidence.reading import read_evidence
from agr_lab.evidence.register import FIGURES as REGISTERED
from agr_lab.evidence.register import Figure, Reader
from agr_lab.evidence.robustness import (
    all_corruptions,
    expression,
    robustness_augmentation,
    robustness_groups,
    robustness_multitask,
    severity,
)
from agr_utils.errors import InputError
from agr_utils.files import atomic_path, list_visible, read_bytes
from agr_utils.run_files import CONFIG_FILE

# In the order of the gallery.
MODULES = (multitask, gaps, group_errors, pairs, pareto, trained, task_weights, deployment, reliability, coverage,
           ablations, conflict, noise_floor, seeds, risk_coverage, map_layers, map_cues, map_shortcut, map_sanity,
           map_where, map_regions, all_corruptions, severity, robustness_multitask, robustness_augmentation,
           robustness_groups, expression, synthetic_faces, labels, twins, learning_curves, accuracy, age_error,
           speed)  # fmt: skip
PLACES = {module.__name__: place for place, module in enumerate(MODULES)}
FIGURES: dict[str, Figure] = dict(sorted(REGISTERED.items(), key=lambda item: PLACES[item[1].draw.__module__]))
# Tables without a picture that lessons read: what makes them, and of what.
FURTHER_TABLES = {"claims": (claims_rows, read_evidence), "map_verdicts": (trust.all_verdicts, read_map_evidence)}
# For the web and for a paper; without dates, so that the same results give the same bytes.
FORMATS = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
DRAWN_BY = "Drawn by `make figures`"  # by which its page is known
PADDING = 0.1  # inches around what is drawn


def draw_all(results_dir: Path, figures_dir: Path, root: Path | None = None, jobs: int | None = None) -> list[Path]:
    """Draw every figure, write its table and the gallery page, and fill in the tables of the README and the docs.

    ``figures_dir`` gets ``<name>.png``, ``<name>.pdf``, ``<name>.csv`` and ``README.md``. ``root``: of the pages with
    table markers; None fills in none. ``jobs``: processes at a time; None is one per core, 1 is this process. Returns
    the files written; an InputError, before anything is written, if there is no result or a README.md of another's.
    """
    check_results(results_dir)
    page = figures_dir / "README.md"
    if page.exists() and DRAWN_BY.encode() not in read_bytes(page):
        raise InputError(f"{page}: not written by agr figures, which would replace it. Choose another --output-dir")
    figures_dir.mkdir(parents=True, exist_ok=True)
    calls = [joblib.delayed(fill_pages)(results_dir, root)] if root else []
    calls += [joblib.delayed(_draw)(name, results_dir, figures_dir) for name in FIGURES]
    calls += [joblib.delayed(_write_table)(name, results_dir, figures_dir) for name in FURTHER_TABLES]
    jobs = min(jobs or joblib.cpu_count(), len(calls))
    with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)  # and is replaced, having read much: no leak
        done = joblib.Parallel(batch_size=1)(calls)
    with atomic_path(page) as partial:
        partial.write_text(gallery_page(), encoding="utf-8")
    return [*(path for paths in done for path in paths), page]


def check_results(results_dir: Path) -> None:
    """Refuse a folder without any published run or benchmark where they are read: its figures would show nothing."""
    places = (f"{folder}*/{CONFIG_FILE}" for folder in ("", "claims/", "cues/", "ablations/*/"))
    if not any(list_visible(results_dir, place) for place in (*places, "bench/*.csv")):
        raise InputError(f"{results_dir}: no published run there. Check --results-dir, or make one with: agr publish")


def gallery_page() -> str:
    """Every figure with its message, its files and the module that draws it."""
    about = f"{DRAWN_BY} from the committed results. Lines are 95 % intervals, unless it says otherwise."
    lines = ["# Figures", "", about, ""]
    for name, figure in FIGURES.items():
        code = f"{figure.draw.__module__.replace('.', '/')}.py"
        lines += [f"## {figure.caption}", "", f"![{figure.caption}]({name}.png)", ""]
        lines += [figure.note, ""] if figure.note else []
        lines += [f"[PDF]({name}.pdf), [CSV]({name}.csv), [code](../{code})", ""]
    return "\n".join(lines)


@lru_cache(maxsize=8)  # of a process: several figures are drawn of the same results
def _read(read: Reader, results_dir: Path) -> Any:
    return read(results_dir)


def _draw(name: str, results_dir: Path, figures_dir: Path) -> list[Path]:
    """Draw a figure: files written."""
    import matplotlib
    import matplotlib.pyplot as plt

    from agr_utils.measure.plots import use_style

    matplotlib.use("Agg")
    use_style()
    figure = FIGURES[name]
    drawn, table = figure.draw(*([_read(figure.read, results_dir)] if figure.read else []))
    # Once: bbox_inches="tight" lays out again for each format. Widths of text depend on the resolution.
    drawn.set_dpi(plt.rcParams["savefig.dpi"])
    box = drawn.get_tightbbox().padded(PADDING)
    written = [write_csv(table, figures_dir / f"{name}.csv")]
    for kind, metadata in FORMATS.items():
        path = figures_dir / f"{name}.{kind}"
        with atomic_path(path) as partial:
            drawn.savefig(partial, format=kind, bbox_inches=box, metadata=metadata)
        written.append(path)
    plt.close(drawn)
    return written


def _write_table(name: str, results_dir: Path, figures_dir: Path) -> list[Path]:
    """Write a table that no figure shows: the file written."""
    make, read = FURTHER_TABLES[name]
    return [write_csv(make(_read(read, results_dir)), figures_dir / f"{name}.csv")]


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV, atomically: six significant digits, several numbers in a cell with blanks between them."""
    plain = table.map(lambda cell: " ".join(f"{one:.6g}" for one in cell) if isinstance(cell, tuple) else cell)
    with atomic_path(path) as partial:
        plain.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
    return path

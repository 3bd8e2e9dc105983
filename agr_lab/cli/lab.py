"""``agr publish``, ``agr bench`` and ``agr figures``: from a run to what is published."""

from pathlib import Path
from typing import Annotated

import typer

from agr_lab.cli.options import Source


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    results_dir: Annotated[Path | None, typer.Option(help="Where results are committed. Default: results/.")] = None,
    ship: Annotated[bool, typer.Option("--ship", help="Also make it the model that agr predict uses.")] = False,
    source: Source = None,
) -> None:
    """Copy what supports a run's numbers (config, history, predictions, maps, robustness) to results/, to be committed.

    Example: agr publish runs/utkface-mobilenet_v3-64px-s0 --ship
    """
    from agr_lab.publish import publish_run

    typer.echo(publish_run(run, results_dir))
    if ship:
        from agr_utils.deploy.export import export_run
        from agr_utils.deploy.model import SHIPPED_MODEL

        export_run(run, SHIPPED_MODEL, source)
        typer.echo(SHIPPED_MODEL)


def bench(
    context: typer.Context,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the CSV files. Default: results/bench; with --quick runs/bench.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Some of training,latency,pipelines,startup,memory,processes,budget,inside; else all."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="See in seconds that it works; believe no number.")] = False,
    source: Annotated[
        Path | None, typer.Option(help="Folder of real faces. Default: AGR_DATA_DIR, else drawn faces.")
    ] = None,
) -> None:
    """Measure training, latency, data pipelines, the start, memory, processes, time budgets, maps: 15 minutes.

    Run nothing beside it; OMP_NUM_THREADS sets the number of threads.

    Example: OMP_NUM_THREADS=2 agr bench --only training,pipelines
    """
    if context.invoked_subcommand:
        return
    from agr_lab.bench.report import FULL, QUICK, choose_benchmarks, run_benchmarks
    from agr_utils.machine import describe_hardware
    from agr_utils.profiles import get_data_dir

    names = choose_benchmarks(only)
    output_dir = output_dir or Path("runs/bench" if quick else "results/bench")
    typer.echo(", ".join(f"{name} {value}" for name, value in describe_hardware().items()))
    for name, table in run_benchmarks(output_dir, names, QUICK if quick else FULL, source or get_data_dir()):
        if table.empty:
            typer.echo(f"\n{name}: not measured, this system cannot tell")
            continue
        typer.echo(f"\n{output_dir / name}.csv")
        typer.echo(table.to_string(index=False, float_format="{:.4g}".format))


def figures(
    results_dir: Annotated[Path | None, typer.Option(help="Committed results. Default: results/.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where the figures go. Default: figures/.")] = None,
) -> None:
    """Redraw every figure, and the tables of the README and the docs, from the committed results: no image, no GPU.

    With folders of one's own the README and the docs stay as they are.

    Example: agr figures
    """
    from agr_lab.evidence.gallery import draw_all
    from agr_utils.machine import repository_root

    root = repository_root()
    results_dir, output_dir = results_dir or root / "results", output_dir or root / "figures"
    is_own = (results_dir.resolve(), output_dir.resolve()) == (root / "results", root / "figures")
    for path in draw_all(results_dir, output_dir, root if is_own else None):
        typer.echo(path)

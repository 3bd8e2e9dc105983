"""``agr publish``, ``agr export``, ``agr bench`` and ``agr figures``: from a run to what is published."""

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
        from agr_lab.export import export_run
        from agr_utils.deploy.model import SHIPPED_MODEL

        export_run(run, SHIPPED_MODEL, source)
        typer.echo(SHIPPED_MODEL)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    output: Annotated[Path, typer.Option(help="The ONNX file, which ends in .onnx.")] = Path("model.onnx"),
    source: Source = None,
    no_mirror: Annotated[
        bool, typer.Option("--no-mirror", help="Do not average over mirror images: twice as fast.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="In eight bits, calibrated on training faces.")] = False,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators.")] = 18,
    force: Annotated[bool, typer.Option("--force", help="Write it even if it answers otherwise than the run.")] = False,
) -> None:
    """Calibrate a run on its validation faces and write it as one ONNX file that agr predict --model runs.

    A report is written beside it: how far its answers to 500 test faces are from PyTorch's, at batch 1 and 64.

    Example: agr export runs/first --output runs/first.onnx
    """
    from agr_lab.export import export_run

    model = export_run(run, output, source, not no_mirror, int8, opset, force)
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {model.size} px")
    typer.echo(f"SHA-256 of everything before its seal: {model.sha256}")
    typer.echo(f"{output.with_suffix('.json')}: its answers beside PyTorch's")


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


def bench_deploy(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Finished run folders.")],
    output: Annotated[Path, typer.Option(help="The table.")] = Path("results/bench/deploy.csv"),
    source: Source = None,
    rival: Annotated[
        list[str] | None, typer.Option(help="Command of another package, see tools/rivals; repeat it for several.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of taking turns: for each of two batch sizes, and warm.")] = 60,
    num_faces: Annotated[int | None, typer.Option(help="Test faces for accuracy. Default: all.")] = None,
) -> None:
    """Time runs, the shipped model and other packages: PyTorch, ONNX in 32 and 8 bits, OpenVINO where it is installed.

    All take turns in one process, other packages in their own. Run nothing beside it.

    Example: agr bench deploy runs/a runs/b --rival "rivals/bin/python tools/rivals/package.py"
    """
    from agr_lab.bench.deploy import bench_deploy as measure
    from agr_utils.files import atomic_path

    table = measure(runs, rival or (), source, seconds, num_faces)
    with atomic_path(output) as partial:
        table.to_csv(partial, index=False, float_format="%.5g")
    shown = ["network", "way", "batch_size", "threads", "seconds", "p95", "megabytes", "peak_mib", "age_mae"]
    typer.echo(table[[name for name in shown if name in table]].to_string(index=False, float_format="{:.4g}".format))
    typer.echo(output)


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

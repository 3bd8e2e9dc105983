"""Commands about files that go elsewhere: ``agr export`` and ``agr bench deploy``."""

from pathlib import Path
from typing import Annotated

import typer

from agr_lab.cli.options import Source


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
    from agr_utils.deploy.export import export_run

    model = export_run(run, output, source, not no_mirror, int8, opset, force)
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {model.size} px, SHA-256 {model.sha256}")
    typer.echo(f"{output.with_suffix('.json')}: its answers beside PyTorch's")


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

"""The command line, ``agr``: each command calls one function of the package, which a notebook can call, too."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agr_lab.cli import deploy
from agr_utils.deploy.command import TaskChoice, predict
from agr_utils.errors import COURSE_NEEDED, InputError, printable
from agr_utils.tasks import SCHEMES, TASKS

if TYPE_CHECKING:
    from agr_utils.data.skipped import Skipped

app = typer.Typer(
    help="Multi-task face analysis: age, gender and race from one image. Labels are somebody's guesses, not identity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at a data set and get it ready.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.command()(predict)
app.command()(deploy.export)

DataName = Enum("DataName", {name: name for name in SCHEMES}, type=str)
RealDataName = Enum("RealDataName", {name: name for name in SCHEMES if name != "synthetic"}, type=str)
Source = Annotated[Path | None, typer.Option(help="Folder or archive of the images. Default: AGR_DATA_DIR.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")]
Protocol = Annotated[
    str, typer.Option(help="How real data is split: grouped, ages-21-60, random-5fold-K, cvpr24-K:FILE, service-test.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Works anywhere.")] = False,
) -> None:
    """Multi-task face analysis: age, gender and race from one image. Labels are somebody's guesses, not identity."""


@data_app.command("audit")
def data_audit(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder, tar, tar.gz or zip of UTKFace or FairFace.")],
    data: Annotated[
        RealDataName | None, typer.Option(help="Which of them it is. Default: FairFace where its label files are.")
    ] = None,
    service_test: Annotated[
        bool, typer.Option("--service-test", help="FairFace: only the images marked as service_test.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Report malformed names and labels, unreadable images, copies, near-duplicates and label conflicts among twins.

    Example: agr data audit UTKFace.tar.gz
    """
    from agr_utils.data.audit import audit_images

    audit = audit_images(source, data.value if data else None, service_test)
    if as_json:
        typer.echo(json.dumps(audit.summary(), indent=2))
        return
    is_fairface = audit.data == "fairface"
    parts, listed = ("published parts", "label files") if is_fairface else ("splits", "committed split (unlisted)")
    for title, value in (
        ("images", audit.num_images),
        ("malformed lines of label files" if is_fairface else "malformed names", len(audit.malformed)),
        ("unreadable images", len(audit.unreadable)),
        ("byte-identical copies", audit.num_identical),
        ("near-duplicate pairs", audit.num_pairs),
        ("clusters of two or more", audit.num_groups_with_twins),
        (f"pairs across two {parts}", audit.num_pairs_across),
        ("training images copied in the test part", audit.num_train_copies),
        ("twins' age bands differ in", f"{audit.age_conflicts:.1%}")
        if is_fairface
        else ("twins' ages differ by, on average", f"{audit.age_disagreement:.1f} years"),
        ("twins' genders differ in", f"{audit.gender_conflicts:.1%}"),
        ("twins' races differ in", f"{audit.race_conflicts:.1%}"),
        (f"not in the {listed}", audit.num_unlisted),
        *([("marked as service_test", audit.num_service_test)] if is_fairface else []),
        ("seconds", f"{audit.seconds['hash']} to hash, {audit.seconds['pairs']} to compare"),
    ):
        typer.echo(f"{title:>39}  {value}")
    for heading, entries in (("malformed", audit.malformed), ("unreadable", audit.unreadable)):
        for path, problem in entries.items():
            typer.echo(printable(f"{heading}: {path}: {problem.removeprefix(f'{path}: ')}"))
    echo_skipped(audit.skipped)


@data_app.command("prepare")
def data_prepare(
    data: Annotated[
        RealDataName | None, typer.Option(help="Which real data set it is. Default: AGR_DATA, else utkface.")
    ] = None,
    source: Source = None,
    image_size: Annotated[int, typer.Option(min=24, max=512, help="Side of the square images, pixels.")] = 64,
    protocol: Protocol = "grouped",
    skip_unreadable: SkipUnreadable = False,
    as_json: Json = False,
) -> None:
    """Decode a real data set once into a pixel cache (AGR_CACHE_DIR) and print how it is split.

    Example: AGR_DATA_DIR=UTKFace.tar.gz agr data prepare --image-size 64
    """
    from agr_utils.data.load import load_data
    from agr_utils.profiles import get_data_name

    name = data.value if data else get_data_name()
    name = "utkface" if name == "synthetic" else name  # nothing of drawn faces is to be prepared
    loaded = load_data(name, image_size, source, protocol=protocol, skip_unreadable=skip_unreadable)
    counts = loaded.faces["split"].value_counts().to_dict()
    if as_json:
        typer.echo(json.dumps({"data": name, "splits": counts, "skipped": loaded.skipped.to_dict()}, indent=2))
        return
    for split, count in counts.items():
        typer.echo(f"{split:>12}  {count}")
    echo_skipped(loaded.skipped)


@app.command()
def train(
    output_dir: Annotated[Path, typer.Option(help="The run folder; run the same command again to go on.")],
    data: Annotated[DataName | None, typer.Option(help="Data set. Default: AGR_DATA, else synthetic.")] = None,
    backbone: Annotated[str, typer.Option(help="Architecture: one of the five, or any timm name.")] = "mobilenet_v3",
    task: Annotated[list[TaskChoice], typer.Option(help="Heads to train; repeat it for several.")] = [TaskChoice.all],  # noqa: B006
    num_epochs: Annotated[float, typer.Option(help="Passes over the training split.")] = 24,
    minutes: Annotated[
        float | None, typer.Option(help="Time budget: plan the epochs so that the run ends after so many minutes.")
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, max=512, help="Side of the square images, pixels.")] = 64,
    early_size: Annotated[int | None, typer.Option(help="Start with smaller images of this side.")] = None,
    early_share: Annotated[float, typer.Option(help="Share of the training that --early-size lasts.")] = 0.7,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW's learning rate.")] = 3e-3,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="Share of features dropped before the heads.")] = 0.2,
    age_head: Annotated[
        str, typer.Option(help="How the age is asked for: distribution, classification, regression or ordinal.")
    ] = "distribution",
    balancing: Annotated[str, typer.Option(help="Weights of the tasks: fixed, or learned by uncertainty.")] = "fixed",
    conflict_steps: Annotated[
        int | None, typer.Option(help="Measure the cosine between the tasks' gradients every so many steps.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sets everything random.")] = 0,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or auto.")] = "auto",
    pretrained: Annotated[str, typer.Option(help="ImageNet weights: no, yes or if-available.")] = "no",
    source: Source = None,
    num_images: Annotated[int | None, typer.Option(min=10, help="Synthetic images to draw.")] = None,
    noise: Annotated[float, typer.Option(min=0, max=1, help="Synthetic: how noisy the cues are.")] = 0.1,
    relatedness: Annotated[float, typer.Option(min=0, max=1, help="Synthetic: how much the tasks share.")] = 0.0,
    confounding: Annotated[float, typer.Option(min=0, max=1, help="Synthetic: a shortcut in training only.")] = 0.0,
    protocol: Protocol = "grouped",
    no_test: Annotated[
        bool, typer.Option("--no-test", help="Leave the test split alone, while still choosing.")
    ] = False,
    save_minutes: Annotated[float, typer.Option(min=0, help="Minutes between saves within an epoch.")] = 5,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")] = False,
    skip_unreadable: SkipUnreadable = False,
    as_json: Json = False,
) -> None:
    """Train one model and write config, history, checkpoint and predictions into the run folder.

    Killed, or stopped with Ctrl-C? The same command goes on where it was, to the same result.
    On several GPUs or processes: accelerate launch -m agr_lab.cli train … (docs/scaling.md).

    Example: agr train --data synthetic --backbone custom_cnn --num-epochs 2 --seed 0 --output-dir runs/first
    """
    from agr_utils.data.load import load_data
    from agr_utils.data.synthetic import SyntheticSettings
    from agr_utils.machine import get_processes
    from agr_utils.measure.metrics import summarize
    from agr_utils.profiles import get_data_name
    from agr_utils.training.config import TrainConfig
    from agr_utils.training.run import check_run_folder, train_run

    chosen = {item.value for item in task}
    config = TrainConfig(
        data=data.value if data else get_data_name(),
        backbone=backbone,
        tasks=TASKS if "all" in chosen else tuple(name for name in TASKS if name in chosen),
        seed=seed,
        image_size=image_size,
        early_size=early_size,
        early_share=early_share,
        num_epochs=num_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dropout=dropout,
        age_head=age_head,
        balancing=balancing,
        conflict_steps=conflict_steps,
        precision=precision,
        pretrained=parse_pretrained(pretrained),
        protocol=protocol,
        num_images=num_images,
        synthetic=SyntheticSettings(noise, relatedness, confounding),
    )
    config.refuse_unused()
    check_run_folder(config, output_dir, minutes)  # before minutes are spent on decoding
    with get_processes().main_process_first():  # of several, one decodes and the others find its cache
        faces = load_data(source=source, skip_unreadable=skip_unreadable, **config.data_settings())
    splits = ("validation",) if no_test else ("validation", "test")
    with say_how_to_go_on():
        table = train_run(config, faces, output_dir, command_line(), splits, minutes, save_minutes, tensorboard)
    if not get_processes().is_main_process:
        return
    summaries = {split: summarize(table[table["split"] == split]) for split in splits}
    if as_json:
        metrics = {split: summary["value"].to_dict() for split, summary in summaries.items()}
        about = {"run": str(output_dir), "num_train": len(faces.rows("train")), "metrics": metrics}
        typer.echo(json.dumps(about | {"skipped": faces.skipped.to_dict()}, indent=2))
        return
    typer.echo(f"{output_dir}: trained on {len(faces.rows('train'))} images")
    for split, summary in summaries.items():
        echo_summary(split, summary)
    echo_skipped(faces.skipped)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a predictions table (Parquet).")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
) -> None:
    """Print the metrics of a finished run with 95 % intervals over near-duplicate groups.

    Example: agr evaluate runs/first --split validation
    """
    from agr_utils.data.splits import groups_of
    from agr_utils.measure.metrics import left_out, summarize
    from agr_utils.predictions_table import read_predictions
    from agr_utils.run_files import PREDICTIONS_FILE

    table = read_predictions(run / PREDICTIONS_FILE if run.is_dir() else run)
    chosen = table[table["split"] == split].reset_index(drop=True)
    if chosen.empty:
        known = ", ".join(table["split"].unique())
        raise InputError(f"{run}: no predictions of the split '{split}' (there are: {known}). Choose one of them")
    echo_summary(split, summarize(chosen, groups_of(chosen["image_id"])))
    for line in left_out(chosen):
        typer.echo(f"left out: {line}")


@app.command("explain")
def explain_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    source: Source = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    num_scored: Annotated[int, typer.Option(min=10, help="Faces whose maps are scored.")] = 500,
    num_mean: Annotated[int, typer.Option(min=10, help="Faces that the mean maps are of.")] = 2000,
    other: Annotated[Path | None, typer.Option(help="Run of another seed, to see how far their maps agree.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the backbone. Default: the architecture's.")] = None,
) -> None:
    """Score a run's maps (Grad-CAM, HiResCAM, EigenCAM) and draw mean maps; tables go into RUN/maps.

    Drawn faces are scored against the masks of their cues, real ones by ROAD, random weights and mirror images.
    One map of one task is a call in Python: agr_utils.inside.explain.explain.

    Example: agr explain runs/first --num-scored 100
    """
    from agr_lab.evidence.maps.report import explain_run_folder, summarize_report
    from agr_utils.run_files import MAPS_FOLDER

    report = explain_run_folder(run, source, split, num_scored, num_mean, other, layer, command_line())
    typer.echo(f"{run / MAPS_FOLDER}: layer {report.about['layer']}, {report.about['num_scored']} faces of {split}")
    typer.echo(summarize_report(report).to_string())


@app.command()
def robustness(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    source: Source = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    num_images: Annotated[int, typer.Option(min=10, help="Faces, about: whole near-duplicate groups.")] = 2000,
) -> None:
    """Predict changed faces (eleven corruptions, five severities) and write the errors to RUN/robustness.parquet.

    Example: agr robustness runs/first --num-images 200
    """
    from agr_utils.inside.sweep import summarize_sweep, sweep_run_folder
    from agr_utils.run_files import SWEEP_FILE

    table = sweep_run_folder(run, source, split, num_images, command_line())
    typer.echo(f"{run / SWEEP_FILE}: {table['image_id'].nunique()} faces of {split}")
    typer.echo(summarize_sweep(table).to_string())


@app.command()
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


bench_app = typer.Typer(invoke_without_command=True)
app.add_typer(bench_app, name="bench")
bench_app.command("deploy")(deploy.bench_deploy)


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the CSV files. Default: results/bench; with --quick runs/bench.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Some of training,latency,pipelines,startup,memory,processes,budget,inside,cpu_settings; else all."
        ),
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
    from agr_lab.bench.report import FULL, QUICK, choose_benchmarks, format_table, run_benchmarks
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
        typer.echo(format_table(table))


@app.command()
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


@app.command()
def study(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file that names the runs (docs/scaling.md).")],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time on this machine.")] = 1,
    backend: Annotated[str, typer.Option(help="loky (processes here) or dask (workers of a cluster).")] = "loky",
    scheduler: Annotated[str | None, typer.Option(help="Address of the Dask scheduler, as tcp://host:8786.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Only show what each run has come to.")] = False,
) -> None:
    """Train a grid of runs: finished ones are skipped, stopped ones go on, one that fails does not stop the rest.

    Exit status 1 if a run failed; run the same command again to retry it.

    Example: agr study docs/grids/example.yaml --jobs 2
    """
    from rich.console import Console
    from rich.live import Live

    from agr_lab.study.grid import read_study
    from agr_lab.study.status import render_status, status_table
    from agr_lab.study.train import run_study

    if backend not in ("loky", "dask") or (backend == "dask") != (scheduler is not None):
        raise InputError("the backends are loky, for this machine, and dask, with --scheduler ADDRESS")
    chosen = read_study(grid)
    console = Console(file=sys.stdout if status else sys.stderr)
    if status:
        console.print(render_status(status_table(chosen)))
        return
    failed = []
    live = Live(
        get_renderable=lambda: render_status(status_table(chosen)),
        console=console,
        refresh_per_second=0.5,
        transient=True,
        redirect_stderr=False,  # runs in this process write theirs to a log
    )
    with say_how_to_go_on(), live if console.is_terminal else contextlib.nullcontext():
        for run_id, reason in run_study(chosen, jobs, scheduler):
            outcome = f"failed: {reason}" if reason else "finished"
            console.print(f"{run_id}: {outcome}", highlight=False, markup=False)
            failed += [f"{run_id} ({reason})"] if reason else []
    console.print(render_status(status_table(chosen)))
    if failed:
        raise InputError(f"{len(failed)} of {len(chosen.runs)} runs failed; first: {failed[0]}. Run again to retry")


@contextlib.contextmanager
def say_how_to_go_on() -> Iterator[None]:
    """After Ctrl-C: what was saved, in the words of whoever saved it, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(f"agr: {str(error) or 'stopped. Run the same command again to go on'}", err=True)
        raise typer.Exit(130) from None


def parse_pretrained(text: str) -> bool | str:
    """``no``, ``yes`` or ``if-available`` in the terms of ``create_backbone``."""
    choices = {"no": False, "yes": True, "if-available": "if-available"}
    if text not in choices:
        raise InputError(f"--pretrained is '{text}'. Choose one of: {', '.join(choices)}")
    return choices[text]


def echo_summary(split: str, summary) -> None:
    """Print metrics with their intervals, a line each."""
    for name, row in summary.iterrows():
        typer.echo(
            f"{split:>10}  {name:<16} {row['value']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]  n={row['count']:.0f}"
        )


def echo_skipped(skipped: "Skipped") -> None:
    """Print what was left out, a line each and the counts last; nothing where nothing was."""
    for line in (*skipped.lines(), str(skipped)) if skipped else ():
        typer.echo(line)


def command_line() -> str:
    """The command as it was typed, with what it took from the environment, for the run's record."""
    import shlex

    variable = ["AGR_DATA=" + os.environ["AGR_DATA"]] if os.environ.get("AGR_DATA") else []
    return shlex.join([*variable, "agr", *sys.argv[1:]])


def main() -> None:
    """Entry point: errors become one line and exit status 1, unless --debug is given."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: or the next file that is opened would get what is meant for the terminal
            os.open(os.devnull, os.O_RDWR)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # file names that a terminal or a redirected output cannot write
    debug = "--debug" in sys.argv
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app()
    except Exception as error:  # the last stop: whatever it is, the user gets one line
        if debug:
            raise
        typer.echo(f"agr: error: {describe_error(error)}", err=True)
        sys.exit(1)


def describe_error(error: Exception) -> str:
    """One line about what stopped a command."""
    if isinstance(error, InputError):
        return str(error)
    reason = printable(" ".join(str(error).split()))
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("agr_utils"):
        return reason if COURSE_NEEDED in reason else f"{error.name} is not installed. {COURSE_NEEDED}"
    return f"{type(error).__name__}: {reason}. Add --debug to see where"

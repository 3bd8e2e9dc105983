"""``agr train`` and ``agr study``: runs are made."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from agr_lab.cli.options import Json, Protocol, SkipUnreadable, Source, command_line, echo_skipped, echo_summary
from agr_utils.dials import SyntheticSettings
from agr_utils.errors import InputError
from agr_utils.tasks import OWN_TABLE, TASKS, Task
from agr_utils.training.config import TrainConfig

DEFAULTS, FIELDS = TrainConfig(), {field.name for field in fields(TrainConfig)}


def train(
    context: typer.Context,
    output_dir: Annotated[Path, typer.Option(help="The run folder; run the same command again to go on.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="synthetic, utkface, fairface, or a CSV file of your own. Default: AGR_DATA, else synthetic."
        ),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Architecture: one of the five, or any timm name.")] = DEFAULTS.backbone,
    task: Annotated[
        list[str],
        typer.Option(
            help="Heads to train; repeat it for several: age, gender, race or all. Of a CSV file say what a column "
            "holds: age, hat=no,yes or height=100..220; hat:column=no,yes if the column has another name."
        ),
    ] = ["all"],  # noqa: B006
    num_epochs: Annotated[float, typer.Option(help="Passes over the training split.")] = DEFAULTS.num_epochs,
    minutes: Annotated[
        float | None, typer.Option(help="Time budget: plan the epochs so that the run ends after so many minutes.")
    ] = None,
    image_size: Annotated[
        int, typer.Option(min=32, max=512, help="Side of the square images, pixels.")
    ] = DEFAULTS.image_size,
    early_size: Annotated[int | None, typer.Option(help="Start with smaller images of this side.")] = None,
    early_share: Annotated[
        float, typer.Option(help="Share of the training that --early-size lasts.")
    ] = DEFAULTS.early_share,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per step.")] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW's learning rate.")] = DEFAULTS.learning_rate,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of features dropped before the heads.")
    ] = DEFAULTS.dropout,
    age_head: Annotated[
        str, typer.Option(help="How the age is asked for: distribution, classification, regression or ordinal.")
    ] = DEFAULTS.age_head,
    balancing: Annotated[
        str, typer.Option(help="Weights of the tasks: fixed, or learned by uncertainty.")
    ] = DEFAULTS.balancing,
    conflict_steps: Annotated[
        int | None, typer.Option(help="Measure the cosine between the tasks' gradients every so many steps.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sets everything random.")] = DEFAULTS.seed,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or auto.")] = DEFAULTS.precision,
    pretrained: Annotated[str, typer.Option(help="ImageNet weights: no, yes or if-available.")] = "no",
    source: Source = None,
    num_images: Annotated[int | None, typer.Option(min=10, help="Synthetic images to draw.")] = None,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Synthetic: how noisy the cues are.")
    ] = DEFAULTS.synthetic.noise,
    relatedness: Annotated[
        float, typer.Option(min=0, max=1, help="Synthetic: how much the tasks share.")
    ] = DEFAULTS.synthetic.relatedness,
    confounding: Annotated[
        float, typer.Option(min=0, max=1, help="Synthetic: a shortcut in training only.")
    ] = DEFAULTS.synthetic.confounding,
    protocol: Protocol = DEFAULTS.protocol,
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

    Example: agr train --data faces.csv --task age --task hat=no,yes --output-dir runs/own
    """
    from agr_lab.study.grid import refuse_unused
    from agr_utils.data.load import load_data
    from agr_utils.measure.metrics import summarize
    from agr_utils.profiles import get_data_name
    from agr_utils.training.accelerator import get_processes
    from agr_utils.training.run import check_run_folder, train_run

    if output_dir == Path():
        raise InputError("--output-dir is empty or the current folder. Name a folder for the run, such as runs/first")
    is_own = bool(data) and data.lower().endswith(".csv")
    if is_own and source:
        raise InputError("--data names a CSV file, whose folder holds the images. Leave --source out")
    if is_own and task == ["all"]:
        raise InputError("--data is a CSV file: say what its columns hold, as in --task age --task hat=no,yes")
    labels = tuple(map(parse_task, task)) if is_own else ()
    settings = {name: value for name, value in context.params.items() if name in FIELDS}
    settings |= {
        "data": OWN_TABLE if is_own else data or get_data_name(),
        "labels": labels,
        "tasks": tuple(label.name for label in labels) or (TASKS if "all" in task else tuple(dict.fromkeys(task))),
        "pretrained": parse_pretrained(pretrained),
        "synthetic": SyntheticSettings(noise, relatedness, confounding),
    }
    config = TrainConfig(**settings)
    if source and config.data == "synthetic":
        raise InputError("--source is of real data, and the data is synthetic. Leave it out, or say --data utkface")
    refuse_unused(config)
    check_run_folder(config, output_dir, minutes)  # before minutes are spent on decoding
    with get_processes().main_process_first():  # of several, one decodes and the others find its cache
        faces = load_data(
            source=Path(data) if is_own else source, skip_unreadable=skip_unreadable, **config.data_settings()
        )
    splits = ("validation",) if no_test else ("validation", "test")
    with say_how_to_go_on():
        table = train_run(config, faces, output_dir, command_line(), splits, minutes, save_minutes, tensorboard)
    if not get_processes().is_main_process:
        return
    summaries = {split: summarize(table[table["split"] == split]) for split in splits}
    for split, rows in table.groupby("split", sort=False):
        for name in (task for task in config.tasks if rows[task].isna().all()):
            bands = name == "age" and rows["age_min"].notna().any()
            lacking = "an exact age (agr evaluate with --data measures bands)" if bands else f"a label of {name}"
            typer.echo(f"{split}: no picture has {lacking}, so it is not measured there", err=True)
    if as_json:
        metrics = {split: summary["value"].to_dict() for split, summary in summaries.items()}
        about = {"run": str(output_dir), "num_train": len(faces.rows("train")), "metrics": metrics}
        typer.echo(json.dumps(about | {"skipped": faces.skipped.to_dict()}, indent=2))
        return
    typer.echo(f"{output_dir}: trained on {len(faces.rows('train'))} images")
    for split, summary in summaries.items():
        echo_summary(split, summary)
    echo_skipped(faces.skipped)


def parse_task(text: str) -> Task:
    """What a column of a CSV file holds, from ``age``, ``hat=no,yes`` or ``height:column=100..220``."""
    name, _, meaning = text.partition("=")
    name, _, column = (part.strip() for part in name.partition(":"))
    if name == "age" and not meaning:
        return Task("age", "age", column=column)
    if ".." in meaning:
        try:
            low, high = map(float, meaning.split(".."))
        except ValueError:
            raise InputError(f"--task {text}: '{meaning}' are no two numbers, as in height=100..220") from None
        return Task(name, "number", limits=(low, high), column=column)
    if not meaning:
        raise InputError(f"--task {text}: say what the column holds, as in {name}=no,yes or {name}=100..220")
    return Task(name, classes=[part.strip() for part in meaning.split(",")], column=column)


def parse_pretrained(text: str) -> bool | str:
    """``no``, ``yes`` or ``if-available`` in the terms of ``create_backbone``."""
    choices = {"no": False, "yes": True, "if-available": "if-available"}
    if text not in choices:
        raise InputError(f"--pretrained is '{text}'. Choose one of: {', '.join(choices)}")
    return choices[text]


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
    from agr_lab.study.grid import read_study
    from agr_lab.study.status import render_status, status_table
    from agr_lab.study.train import run_study

    if backend not in ("loky", "dask") or (backend == "dask") != (scheduler is not None):
        raise InputError("the backends are loky, for this machine, and dask, with --scheduler ADDRESS")
    chosen = read_study(grid)
    if status:
        typer.echo(render_status(status_table(chosen)))
        return
    failed = []
    with say_how_to_go_on():
        for run_id, reason in run_study(chosen, jobs, scheduler):
            outcome = f"failed: {reason}" if reason else "finished"
            typer.echo(f"{run_id}: {outcome}", err=True)
            failed += [f"{run_id} ({reason})"] if reason else []
    typer.echo(render_status(status_table(chosen)), err=True)
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

"""The command ``agr predict``."""

import csv
import sys
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from agr_utils.errors import InputError, printable
from agr_utils.tasks import TASKS

TaskChoice = Enum("TaskChoice", {name: name for name in (*TASKS, "all")}, type=str)
FacesChoice = Enum("FacesChoice", {name: name for name in ("all", "one")}, type=str)


def predict(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Image files, folders or globs.")],
    task: Annotated[
        list[TaskChoice] | None, typer.Option(help="age, gender, race or all; repeat it. Default: age and gender.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per picture; counts on stderr.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="One CSV row per face; odd paths are escaped: use --json to read them back.")
    ] = False,
    faces: Annotated[FacesChoice, typer.Option(help="all faces of a picture, or one: the largest.")] = FacesChoice.all,
    no_detect: Annotated[
        bool, typer.Option("--no-detect", help="The images are face crops: take their centre.")
    ] = False,
    quantiles: Annotated[bool, typer.Option("--quantiles", help="Also 20 quantiles of the age (JSON, CSV).")] = False,
    abstain: Annotated[bool, typer.Option("--abstain", help='Say "can\'t tell" where it is not sure enough.')] = False,
    model: Annotated[Path | None, typer.Option(help="Another ONNX file than the shipped one, from agr export.")] = None,
) -> None:
    """Guess age and gender, and race only if asked, of every face of each picture; offline.

    Exit status 1 if an image could not be read; the others are answered all the same.

    Example: agr predict holiday/ --json --task age --task gender
    """
    from agr_utils.data.reading.pictures import find_images, reason_of
    from agr_utils.data.reading.skipped import Skipped
    from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
    from agr_utils.deploy.predict import DEFAULT_TASKS, Request, predict_files

    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other. Choose one")
    if sys.stdout is None:
        raise InputError("standard output is closed, so there is nowhere to answer. Leave it open")
    chosen = {item.value for item in task} if task else set(DEFAULT_TASKS)
    tasks = TASKS if "all" in chosen else tuple(name for name in TASKS if name in chosen)
    skipped, problems = Skipped(), []
    files = find_images(paths, skipped, problems)
    if not files and len(problems) == 1 and not skipped:
        path, problem = problems[0]
        raise InputError(f"{path}: {problem}" if path else problem)
    network = FaceModel(model or SHIPPED_MODEL)
    request = Request(tasks, not no_detect, faces.value, quantiles, abstain)
    write = _writer(as_json, as_csv, tasks, network, request)
    for path, problem in problems:
        write({"path": path, "error": problem})
        skipped.add(reason_of(problem), path)
    counts = {"pictures": 0, "faces": 0, "without_faces": 0}
    for answer in _with_progress(predict_files(files, network, request), len(files)):
        write(answer)
        if "error" in answer:
            skipped.add(reason_of(answer["error"]), answer["path"])
            continue
        found = len(answer.get("faces", [answer]))
        counts = {name: counts[name] + more for name, more in zip(counts, (1, found, found == 0), strict=True)}
    _echo_counts(counts, skipped, network, as_json)
    if skipped:
        raise typer.Exit(1)


def _writer(as_json: bool, as_csv: bool, tasks, network, request) -> Callable[[dict], None]:
    """What prints an answer."""
    from agr_utils.deploy.answers import csv_columns, csv_rows, text_lines

    if as_json:
        return _echo_json
    if not as_csv:
        return lambda answer: typer.echo("\n".join(text_lines(answer)))
    levels = network.about["quantiles"] if request.quantiles else ()
    columns = csv_columns(tasks, network.labels, levels, request.abstain)
    table = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    table.writeheader()
    return lambda answer: table.writerows(csv_rows(answer, levels))


def _echo_json(answer: dict, err: bool = False) -> None:
    """JSON is UTF-8: on a stream of another encoding it is written in ASCII."""
    from agr_utils.deploy.answers import json_line

    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or ""
    typer.echo(json_line(answer, ascii_only=encoding.lower() not in ("utf-8", "utf8")), err=err)


def _with_progress(answers: Iterable[dict], count: int) -> Iterable[dict]:
    """The answers, with a bar on a terminal where they go elsewhere and there are many."""
    if count <= 200 or sys.stderr is None or sys.stdout.isatty() or not sys.stderr.isatty():
        yield from answers
        return
    with typer.progressbar(answers, length=count, file=sys.stderr) as bar:
        yield from bar


def _echo_counts(counts: dict[str, int], skipped, network, as_json: bool) -> None:
    """Say on stderr how many there were and what was left out, so that the lines of the answers stay what they are."""
    if as_json:
        _echo_json(counts | {"skipped": skipped.to_dict()}, err=True)
        return
    if network.narrow_ages:
        typer.echo("The model was trained on ages {} to {} and knows no others.".format(*network.narrow_ages), err=True)
    if counts["without_faces"]:
        typer.echo(f"no face found in {counts['without_faces']} of {counts['pictures']} pictures", err=True)
    if skipped:
        for line in skipped.lines():
            typer.echo(line, err=True)
        typer.echo(printable(str(skipped)), err=True)

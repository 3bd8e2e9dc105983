"""The command ``agr predict``, and how it prints answers: as lines of text, of JSON or of CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from agr_utils.errors import InputError, printable
from agr_utils.tasks import AGE_COVERAGE, TASKS

TaskChoice = Enum("TaskChoice", {name: name for name in (*TASKS, "all")}, type=str)
FacesChoice = Enum("FacesChoice", {name: name for name in ("all", "one")}, type=str)
CANNOT_TELL = "can't tell"


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


def json_line(answer: Mapping, ascii_only: bool = False) -> str:
    """One line of JSON; control characters of file names are escaped, and there is never a NaN."""
    text = json.dumps(answer, ensure_ascii=ascii_only, allow_nan=False)
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def text_lines(answer: Mapping) -> Iterator[str]:
    """Readable lines: one for a crop or a photograph without a face, else one per face."""
    path = answer["path"]
    if "error" in answer:
        yield printable(f"{path}: error: {answer['error']}")
        return
    faces = answer.get("faces")
    if faces is None:
        yield printable(f"{path}: {_describe(answer)}")
        return
    of_file = "".join(f", warning: {word}" for word in answer.get("warnings", ()))
    if not faces:
        yield printable(f"{path}: no face found{of_file}")
    for number, face in enumerate(faces, 1):
        left, top, width, height = face["box"]
        where = f"face {number} of {len(faces)}, {width}x{height} pixels at {left},{top}"
        yield printable(f"{path}: {where}: {_describe(face)}{of_file}")


def _describe(face: Mapping) -> str:
    parts = []
    if "age" in face:
        age = CANNOT_TELL if face["age"] is None else format(face["age"], ".0f")
        parts.append("age {} ({:.0%}: {:.0f} to {:.0f})".format(age, AGE_COVERAGE, *face["age_interval"]))
    for task in [task for task in ("gender", "race") if task in face]:
        sure = face["gender_probability"] if task == "gender" else max(face["race_probabilities"].values())
        share = ">99%" if sure >= 0.995 else f"{sure:.0%}"  # never certain
        parts.append(f"{task} {CANNOT_TELL}" if face[task] is None else f"{face[task]} ({share})")
    parts += [f"warning: {word}" for word in face.get("warnings", ())]
    return ", ".join(parts)


def csv_columns(
    tasks: Sequence[str], labels: Mapping[str, Sequence[str]], quantiles: Sequence[float] = (), abstain: bool = False
) -> list[str]:
    """Names of the columns of ``csv_rows``."""
    columns = ["path", "face", "faces", "left", "top", "width", "height", "score", "turned"]
    if "age" in tasks:
        columns += ["age", "age_low", "age_high", *[f"age_q{level:.3f}" for level in quantiles]]
    if "gender" in tasks:
        columns += ["gender", "gender_probability"]
    if "race" in tasks:
        columns += ["race", *[f"race_{name}" for name in labels["race"]]]
    return [*columns, *["abstained"] * abstain, "warnings", "error", "model", "model_sha256"]


def csv_rows(answer: Mapping, quantiles: Sequence[float] = ()) -> Iterator[dict[str, object]]:
    """A row per face; one row without a face for a photograph that has none, or cannot be read."""
    shared = {"path": printable(answer["path"]), "error": printable(answer.get("error", ""))}
    shared |= {name: answer.get(name, "") for name in ("model", "model_sha256")}
    faces = answer.get("faces", [answer])
    of_file = []
    if "faces" in answer:
        shared["faces"], of_file = len(faces), answer.get("warnings", [])
    if not faces:
        yield shared | {"warnings": "; ".join(of_file)}
    plain = ("score", "turned", "age", "gender", "gender_probability", "race")
    for number, face in enumerate(faces, 1):
        row = shared | {name: face[name] for name in plain if name in face}
        row |= dict(zip(("left", "top", "width", "height"), face.get("box", ()), strict=False))
        row |= dict(zip(("age_low", "age_high"), face.get("age_interval", ()), strict=False))
        levels = [f"age_q{level:.3f}" for level in quantiles]
        row |= dict(zip(levels, face.get("age_quantiles", ()), strict=False))
        row |= {f"race_{name}": value for name, value in face.get("race_probabilities", {}).items()}
        row |= {"abstained": "; ".join(face["abstained"])} if "abstained" in face else {}
        warnings = "; ".join([*face.get("warnings", ()), *of_file])
        yield row | {"face": number if "faces" in answer else "", "warnings": warnings}

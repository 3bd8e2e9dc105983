"""What a network says of one face, in words and numbers: a dictionary, a line of text, of JSON or of CSV."""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from agr_utils.errors import InputError, printable
from agr_utils.tasks import AGE_COVERAGE

OUTPUTS = {"age": ("age", "age_quantiles", "age_mean", "age_interval"), "gender": ("gender",), "race": ("race",)}
CANNOT_TELL = "can't tell"


def to_answer(
    outputs: Mapping[str, np.ndarray], about: Mapping, quantiles: bool = False, abstain: bool = False
) -> dict[str, object]:
    """The answer about one face.

    Args:
        outputs: the OUTPUTS of the tasks that were asked, of this face.
        about: what the model says of itself: ``labels``, and ``abstain`` where that is wanted.
        quantiles: also give the 20 quantiles of the age.
        abstain: give no value below the confidence at which validation faces were answered wrong half as often; an
            InputError if none was measured.

    Returns:
        ``age`` and ``age_interval`` (years), ``age_quantiles``, ``gender`` and ``gender_probability``, ``race`` and
        ``race_probabilities``: those that were asked for; ``abstained``: the tasks whose value is None.
    """
    answer: dict[str, object] = {}
    confidence: dict[str, float] = {}
    if "age" in outputs:
        low, high = outputs["age_interval"].tolist()
        answer |= {"age": round(float(outputs["age_mean"]), 1), "age_interval": [round(low, 1), round(high, 1)]}
        confidence["age"] = low - high
        if quantiles:
            answer["age_quantiles"] = [round(value, 1) for value in outputs["age_quantiles"].tolist()]
    for task in ("gender", "race"):
        if task not in outputs:
            continue
        names, row = about["labels"][task], outputs[task].tolist()
        confidence[task] = max(row)
        answer[task] = names[int(np.argmax(row))]
        if task == "gender":
            answer["gender_probability"] = round(max(row), 4)
        else:
            answer["race_probabilities"] = {name: round(value, 4) for name, value in zip(names, row, strict=True)}
    if abstain:
        thresholds = about.get("abstain", {})
        if missing := [task for task in confidence if task not in thresholds]:
            raise InputError(f"how sure to be of {', '.join(missing)} was not measured. Leave out --abstain")
        answer["abstained"] = [task for task, value in confidence.items() if value < thresholds[task]["threshold"]]
        answer |= dict.fromkeys(answer["abstained"])
    return answer


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

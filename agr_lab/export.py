"""``agr export``: a finished run becomes one ONNX file with a report, checked before it is written."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from agr_utils.deploy.answer_net import OPSETS, build_onnx, check_opset, finish_onnx
from agr_utils.deploy.answers import OUTPUTS
from agr_utils.deploy.export import calibrate_network, describe
from agr_utils.deploy.model import FaceModel
from agr_utils.deploy.onnx_file import read_sealed
from agr_utils.deploy.verify import BATCH_SIZES, compare_with_torch
from agr_utils.errors import InputError
from agr_utils.files import atomic_path, read_json
from agr_utils.machine import current_commit
from agr_utils.tasks import OWN_TABLE
from agr_utils.training.run import load_run

NUM_FACES = 500  # of the test split, that a file is compared on
MAX_AGE_CHANGE = 0.3  # years, of the mean age and of the mean absolute error
MAX_ACCURACY_LOSS = 0.01
# Mean difference that half precision may make: shares of belief, years, years, years, probabilities.
_LOOSE = {"age": 0.001, "age_quantiles": 0.2, "age_mean": 0.1, "age_interval": 0.3, "gender": 0.005, "race": 0.005}


def export_run(
    run: Path,
    output: Path,
    source: Path | None = None,
    mirror: bool = True,
    int8: bool = False,
    opset: int = OPSETS[0],
    force: bool = False,
) -> FaceModel:
    """Calibrate a run on its validation faces and write it as an ONNX file for ``agr predict``.

    Beside it a report is written (``.json`` instead of ``.onnx``): how far the file's answers are from the network's.

    Args:
        run: a finished run folder.
        output: the file, which ends in .onnx; it and its report are replaced if they are there.
        source: folder or archive of real faces; ``AGR_DATA_DIR`` where it is None.
        mirror: average over each image and its mirror image; half as fast.
        int8: in eight bits, see ``agr_utils.deploy.quantize``; otherwise large weights are stored in 16 bits.
        opset: version of ONNX's operators.
        force: write it even if it answers otherwise than the network.

    Returns:
        The model as it was written.

    Raises:
        InputError: if something else lies where the file or its report goes, the run, its faces, or its weights cannot
            be used, ONNX lacks an operator, there are too few faces to calibrate eight bits on, onnxruntime answers
            otherwise than torch, or the disk is full.
    """
    check_opset(opset)
    check_output(output)
    model, data, config = load_run(run, source)
    if own := [task for task in model.tasks if task not in OUTPUTS or config.data == OWN_TABLE]:
        raise InputError(
            f"{run}: answers {', '.join(own)} of a table of one's own; an ONNX file knows the tasks of UTKFace, "
            "FairFace and drawn faces. Use the run in Python: load_model, then predict_split"
        )
    network = calibrate_network(model, data, mirror)
    proto = build_onnx(network, config.image_size, opset)
    report = {"run_id": Path(run).resolve().name, "commit": current_commit(), "opset": opset, "int8": int8}
    if int8:
        from agr_utils.deploy import quantize

        # Drawn at random: files are sorted by name, and so by age.
        proto, in_float = quantize.quantize(proto, data.pixels[data.sample("train", quantize.NUM_FACES)])
        report["convolutions_in_float"] = in_float
        quantize.shrink(proto.graph, in_float)
    content = finish_onnx(proto, describe(run, network, data, config) | {"int8": int8})
    rows = data.sample("test", NUM_FACES)
    report |= {"bytes": len(content)} | compare_with_torch(content, network, data.pixels[rows], data.faces.iloc[rows])
    if not force:
        check_answers(output, report, int8)
    write_with_report(output, content, report)
    return FaceModel(output)


def check_output(output: Path) -> None:
    """Refuse a path where the file cannot be, or where it or its report would take the place of something else."""
    if output.suffix.lower() != ".onnx" or output.is_dir():
        raise InputError(f"{output}: cannot be an ONNX file. Choose an --output that ends in .onnx and is no folder")
    try:
        if output.exists():
            read_sealed(output)
    except InputError:
        raise InputError(f"{output}: not made by agr export, or damaged. Choose another --output") from None
    report = output.with_suffix(".json")
    with contextlib.suppress(InputError):  # not the JSON that a report is
        if not report.exists() or {"opset", "int8"} <= read_json(report).keys():
            return
    raise InputError(f"{report}: no report of agr export, and the report would replace it. Choose another --output")


def write_with_report(output: Path, content: bytes, report: dict) -> None:
    """Write a file and its report, both or neither: on a full disk what was there before is kept."""
    with atomic_path(output.with_suffix(".json")) as described, atomic_path(output) as partial:
        partial.write_bytes(content)
        described.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def check_answers(output: Path, report: dict, int8: bool) -> None:
    """Refuse a file that answers otherwise than its network: an InputError that says in what.

    In eight bits the mean age and its mean absolute error may change by 0.3 years, and each accuracy may fall by a
    point; otherwise each output may differ by what half precision makes of it.
    """
    problems = []
    for batch_size in BATCH_SIZES:
        row = report[f"batch_{batch_size}"]
        far = {name: apart for name, apart in row["apart"].items() if not apart <= _LOOSE[name]}
        differing = (f"{name} differs by {apart:.4f} on average" for name, apart in far.items())
        found = _losses(report["torch"], row) if int8 else differing
        problems += [f"{text} (batch {batch_size})" for text in found]
    if problems:
        advice = "Leave out --int8, or write it all the same with --force" if int8 else "See the figures with --force"
        raise InputError(f"{output}: onnxruntime and PyTorch differ: {'; '.join(problems)}. Not written. {advice}")


def _losses(before: dict, after: dict) -> Iterator[str]:
    shift = after.get("age_shift", 0.0)
    if not abs(shift) <= MAX_AGE_CHANGE:
        yield f"ages move by {shift:+.2f} years on average"
    if not after.get("age_mae", 0.0) - before.get("age_mae", 0.0) <= MAX_AGE_CHANGE:
        yield f"the mean absolute error grows from {before['age_mae']:.2f} to {after['age_mae']:.2f} years"
    for task in ("gender", "race"):
        name = f"{task}_accuracy"
        if name in before and before[name] - after.get(name, 0.0) > MAX_ACCURACY_LOSS + 1e-9:
            yield f"the accuracy of {task} falls from {before[name]:.1%} to {after.get(name, 0.0):.1%}"

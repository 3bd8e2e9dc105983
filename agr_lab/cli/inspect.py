"""``agr data``, ``agr evaluate``, ``agr explain`` and ``agr robustness``: what is there is looked at."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agr_lab.cli import options
from agr_utils.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


def audit(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder, tar, tar.gz or zip of UTKFace or FairFace.")],
    data: Annotated[
        options.RealDataName | None,
        typer.Option(help="Which of them it is. Default: FairFace where its label files are."),
    ] = None,
    service_test: Annotated[
        bool, typer.Option("--service-test", help="FairFace: only the images marked as service_test.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Report malformed names and labels, unreadable images, copies, near-duplicates and label conflicts among twins.

    Example: agr data audit UTKFace.tar.gz
    """
    from agr_utils.data.audit import audit_images

    found, skipped = audit_images(source, data.value if data else None, service_test)
    if as_json:
        typer.echo(json.dumps(found | {"skipped": skipped.to_dict()}, indent=2))
        return
    is_fairface = found["data"] == "fairface"
    parts, listed = ("published parts", "label files") if is_fairface else ("splits", "committed split (unlisted)")
    titles = {
        "num_images": "images",
        "malformed": "malformed lines of label files" if is_fairface else "malformed names",
        "unreadable": "unreadable images",
        "num_identical": "byte-identical copies",
        "num_pairs": "near-duplicate pairs",
        "num_groups_with_twins": "clusters of two or more",
        "num_pairs_across": f"pairs across two {parts}",
        "num_train_copies": "training images copied in the test part",
        **({"age_conflicts": "twins' age bands differ in"} if is_fairface else
           {"age_disagreement": "twins' ages differ by, on average"}),
        "gender_conflicts": "twins' genders differ in",
        "race_conflicts": "twins' races differ in",
        "num_unlisted": f"not in the {listed}",
        **({"num_service_test": "marked as service_test"} if is_fairface else {}),
    }  # fmt: skip
    for name, title in titles.items():
        value = found[name]
        if name == "age_disagreement":
            value = "–" if value is None else f"{value:.1f} years"
        elif name.endswith("_conflicts"):
            value = "–" if value is None else f"{value:.1%}"
        typer.echo(f"{title:>39}  {len(value) if isinstance(value, dict) else value}")
    typer.echo(f"{'seconds':>39}  {found['seconds']['hash']} to hash, {found['seconds']['pairs']} to compare")
    for heading in ("malformed", "unreadable"):
        for path, problem in found[heading].items():
            typer.echo(printable(f"{heading}: {path}: {problem.removeprefix(f'{path}: ')}"))
    options.echo_skipped(skipped)


def prepare(
    data: Annotated[
        options.RealDataName | None, typer.Option(help="Which real data set it is. Default: AGR_DATA, else utkface.")
    ] = None,
    source: options.Source = None,
    image_size: Annotated[int, typer.Option(min=24, max=512, help="Side of the square images, pixels.")] = 64,
    protocol: options.Protocol = "grouped",
    skip_unreadable: options.SkipUnreadable = False,
    as_json: options.Json = False,
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
    options.echo_skipped(loaded.skipped)


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, or a predictions table (Parquet). With --data, or a model."),
    ],
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    data: Annotated[options.RealDataName | None, typer.Option(help="Another data set to try the model on.")] = None,
    source: options.Source = None,
    detect: Annotated[bool, typer.Option(help="With --data: find the face and cut it out as in training.")] = True,
) -> None:
    """Print the metrics of a finished run with 95 % intervals over near-duplicate groups.

    With --data the model answers for that data set: age bands (exact, within one, years outside), gender, and race for
    the faces whose race both data sets have a name for. RUN may then be an ONNX file, the shipped one for instance.

    Example: agr evaluate runs/first --data fairface --source FairFace
    """
    if data is None and (source or not detect or run.suffix.lower() == ".onnx"):
        raise InputError("a model file, --source and --no-detect need a data set to try. Name it with --data")
    if data is not None:
        from agr_lab.reports.outside import evaluate_outside

        table, counts = evaluate_outside(run, data.value, source, split, detect)
        options.echo_summary(f"{data.value} {split}", table)
        typer.echo(f"left out: no face found in {counts['no_face']} of {counts['faces']} images")
        if counts["unreadable"]:
            typer.echo(f"left out: {counts['unreadable']} unreadable images, which agr data audit names")
        return
    from agr_utils.measure.metrics import summarize
    from agr_utils.predictions_table import read_predictions
    from agr_utils.run_files import PREDICTIONS_FILE

    table = read_predictions(run / PREDICTIONS_FILE if run.is_dir() else run)
    chosen = table[table["split"] == split].reset_index(drop=True)
    if chosen.empty:
        known = ", ".join(table["split"].unique())
        raise InputError(f"{run}: no predictions of the split '{split}' (there are: {known}). Choose one of them")
    options.echo_summary(split, summarize(chosen))
    for line in left_out(chosen):
        typer.echo(f"left out: {line}")


def left_out(table: "pd.DataFrame") -> list[str]:
    """In words, which images count for no metric of a task: those without a label, and those without an answer."""
    from agr_utils.measure.metrics import score_rows
    from agr_utils.predictions_table import tasks_of

    scores, lines = score_rows(table), []
    for task in tasks_of(table):
        labelled = int(table[task].notna().sum())
        scored = scores.filter([f"{task}_mae", f"{task}_accuracy"]).count().sum()  # it has one of them, or none
        reasons = {"a label": len(table) - labelled, "an answer": labelled - scored}
        words = [f"{count:,} without {what}" for what, count in reasons.items() if count]
        lines += [f"{task}: {', '.join(words)} of {len(table):,} images"] if words else []
    return lines


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    source: options.Source = None,
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
    from agr_lab.reports.map_report import explain_run_folder, summarize_report
    from agr_utils.run_files import MAPS_FOLDER

    report = explain_run_folder(run, source, split, num_scored, num_mean, other, layer, options.command_line())
    typer.echo(f"{run / MAPS_FOLDER}: layer {report.about['layer']}, {report.about['num_scored']} faces of {split}")
    typer.echo(summarize_report(report).to_string())


def robustness(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    source: options.Source = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    num_images: Annotated[int, typer.Option(min=10, help="Faces, about: whole near-duplicate groups.")] = 2000,
) -> None:
    """Predict changed faces (eleven corruptions, five severities) and write the errors to RUN/robustness.parquet.

    Example: agr robustness runs/first --num-images 200
    """
    from agr_lab.reports.sweep_report import summarize_sweep, sweep_run_folder
    from agr_utils.run_files import SWEEP_FILE

    table = sweep_run_folder(run, source, split, num_images, options.command_line())
    typer.echo(f"{run / SWEEP_FILE}: {table['image_id'].nunique()} faces of {split}")
    typer.echo(summarize_sweep(table).to_string())

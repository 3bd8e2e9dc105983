"""Everything about one model's maps, as tables: what they score, and where they look. Figures need nothing else."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agr_lab.reports.face_maps import cascade, mean_maps, score_faces, with_seeds
from agr_utils.data.load import FaceData
from agr_utils.data.synthetic import SyntheticFaces, draw_faces
from agr_utils.errors import InputError
from agr_utils.files import list_visible, read_json, read_table, replace_folder, write_json, write_table
from agr_utils.inside.explain import METHODS, target_layer
from agr_utils.inside.map_tables import compare_layers, cue_score, score_maps
from agr_utils.machine import current_commit
from agr_utils.models.network import MultiTaskNet
from agr_utils.run_files import CHECKPOINT_FILE, MAPS_FOLDER
from agr_utils.training.config import TrainConfig

ABOUT_FILE, MEAN_FACE_FILE = "about.json", "mean_face.png"
_NUM_CASCADE = 100  # faces, at most, whose maps are drawn again after every part that was made random


@dataclass(frozen=True, eq=False)  # told apart by identity, so that what is computed from it can be kept
class MapReport:
    """Tables about the maps of one model.

    Attributes:
        about: layer, split and numbers of faces.
        tables: by name. ``scores``: a row per face, task and kind of map (or rival), a column per score. ``regions``:
            a row per face, task and kind, the share of energy in each region. ``mean_maps``: a row per task, kind and
            group, with ``count`` and ``map``, MEAN_SIDE² float32 row by row that add up to 1. ``cascade``: a row per
            part that was made random, task and kind. ``layers``: see ``compare_layers``. Those that apply.
        mean_face: (S, S, 3) uint8, the mean of the faces that the mean maps are of.
    """

    about: dict
    tables: dict[str, pd.DataFrame]
    mean_face: np.ndarray | None = None


def report_maps(
    model: MultiTaskNet,
    data: FaceData,
    split: str = "test",
    num_scored: int = 500,
    num_mean: int = 2000,
    other: MultiTaskNet | None = None,
    layer: str | None = None,
    drawn: SyntheticFaces | None = None,
) -> MapReport:
    """Score a model's maps, and say where they look.

    Args:
        model: in evaluation mode.
        data: the faces that it was trained for.
        split: whose faces are taken.
        num_scored: faces for the scores, about; whole near-duplicate groups.
        num_mean: real faces for the mean maps and the regions, about.
        other: the same trained with another seed, to see how far their maps agree.
        layer: see ``explain``.
        drawn: the same faces with the masks of their cues, against which maps of drawn faces are scored.
    """
    layer = layer or target_layer(model, data.pixels.shape[1])
    scored = data.sample(split, num_scored)
    averaged = scored if drawn else data.sample(split, num_mean)
    means, regions = mean_maps(model, data, averaged, layer)
    if drawn:
        score = with_seeds(cue_score(drawn), other, layer)
        tables = {"scores": score_maps(model, data, scored, layer, tuple(METHODS), score)}
        tables["layers"] = compare_layers(model, drawn, data.sample("validation", num_scored))
        tables["mean_maps"] = means[means["grouping"] == "all"]
    else:
        tables = {"mean_maps": means, "regions": regions}
        tables["scores"] = score_faces(model, data, scored, layer, other)
        tables["cascade"] = cascade(model, data, scored[:: math.ceil(len(scored) / _NUM_CASCADE)], layer)
    about = {"layer": layer, "split": split, "num_scored": len(scored), "num_mean": len(averaged)}
    return MapReport(about, tables, data.pixels[averaged].mean(axis=0).round().astype(np.uint8))


def explain_run_folder(
    run_dir: Path,
    source: Path | None = None,
    split: str = "test",
    num_scored: int = 500,
    num_mean: int = 2000,
    other_dir: Path | None = None,
    layer: str | None = None,
    command: str = "",
) -> MapReport:
    """Report on the maps of a finished run, and write it into its folder; see ``report_maps`` and ``load_run``.

    ``command`` is written down for whoever wants to repeat it.
    """
    from agr_utils.training.run import load_model, load_run  # what trains takes seconds to import

    model, data, config = load_run(run_dir, source)
    other, about = load_model(Path(other_dir) / CHECKPOINT_FILE) if other_dir else (None, {})
    theirs = TrainConfig.from_dict(about["config"]) if about else None
    alike = ("data", "backbone", "tasks", "image_size", "age_head")
    if theirs and (config.seed == theirs.seed or any(getattr(config, n) != getattr(theirs, n) for n in alike)):
        raise InputError(f"{other_dir}: not the same kind of run with another seed. Give one that differs by its seed")
    drawn = None
    if config.data == "synthetic":
        drawn = draw_faces(len(data.faces), config.image_size, config.data_seed, config.synthetic, with_masks=True)
    report = report_maps(model, data, split, num_scored, num_mean, other, layer, drawn)
    report.about.update(command=command, commit=current_commit(), other=Path(other_dir).name if other_dir else None)
    write_report(report, Path(run_dir) / MAPS_FOLDER)
    return report


def summarize_report(report: MapReport) -> pd.DataFrame:
    """Mean scores: a row per task and kind of map, a column per score."""
    scores = report.tables["scores"].drop(columns="image_id")
    return scores.groupby(["task", "kind"], sort=False, observed=True).mean().round(3)


def write_report(report: MapReport, folder: Path) -> None:
    """Write a report into a folder that appears only when all of it is written."""
    with replace_folder(folder, ("*.parquet", ABOUT_FILE, MEAN_FACE_FILE)) as partial:
        write_json(partial / ABOUT_FILE, report.about)
        for name, table in report.tables.items():
            write_small(table, partial / f"{name}.parquet")
        if report.mean_face is not None:
            Image.fromarray(report.mean_face).save(partial / MEAN_FACE_FILE)


def write_small(table: pd.DataFrame, path: Path) -> None:
    """Write a table with its numbers in single precision."""
    write_table(table.astype(dict.fromkeys(table.select_dtypes("float").columns, "float32")), path)


def read_report(folder: Path) -> MapReport:
    """Read what ``write_report`` wrote.

    Raises:
        InputError: if there is none, or a table is damaged.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: no maps. Make them with: agr explain {folder.parent}")
    try:
        paths = list_visible(folder, "*.parquet")
        tables = {path.stem: read_table(path, (), "a table of maps", "agr explain") for path in paths}
        face = np.asarray(Image.open(folder / MEAN_FACE_FILE)) if (folder / MEAN_FACE_FILE).exists() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: damaged ({error}). Make it again with: agr explain") from error
    if "scores" not in tables:
        raise InputError(f"{folder}: damaged (no scores.parquet). Make it again with: agr explain")
    return MapReport(read_json(folder / ABOUT_FILE), tables, face)

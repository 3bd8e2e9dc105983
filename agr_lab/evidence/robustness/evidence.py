"""The published sweeps side by side: architectures, multi-task and single-task, groups, augmentation, expression."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data.corruptions import SEVERITIES
from agr_utils.data.synthetic import SyntheticFaces, SyntheticSettings, draw_faces
from agr_utils.inside.sweep import SWEPT_ERRORS, Sweep, group_differences, increase_differences, read_sweep
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.comparisons import add_calls, cache_copies
from agr_utils.measure.fairness import error_rows
from agr_utils.measure.results import Run, read_beside, read_folder, read_labels_from_split, read_runs, read_short_runs
from agr_utils.models.backbones import BACKBONES
from agr_utils.run_files import SWEEP_FILE
from agr_utils.tasks import TASKS, get_scheme

COMPARED = ("mobilenet_v3", "custom_cnn")  # of multi-task against single-task
GROUP_CORRUPTION, GROUP_SEVERITY = "low_light", 3


@dataclass(frozen=True, eq=False)
class RobustnessEvidence:
    """Published sweeps.

    Attributes:
        short: of short runs of seed 0, by (architecture, tasks).
        long: of published multi-task runs, by architecture; those whose weights were still there to be swept.
        augmentation: of the ablation, by what was left out; ``usual`` for the run with all of it.
        drawn: runs on drawn faces, for what varies in them.
    """

    short: dict[tuple[str, tuple[str, ...]], Sweep]
    long: dict[str, Sweep]
    augmentation: dict[str, Sweep]
    drawn: list[Run]

    @property
    def architectures(self) -> dict[str, Sweep]:
        """The short multi-task runs by architecture: all of equal computing time."""
        return {name: self.short[name, TASKS] for name in BACKBONES if (name, TASKS) in self.short}


def read_robustness(results_dir: Path) -> RobustnessEvidence:
    """Every sweep in ``results/``; those that are not there yet are missing."""
    ablation = results_dir / "ablations" / "augmentation"
    short = {
        (run.backbone, run.tasks): swept
        for run, swept in _with_sweeps(results_dir / "claims", read_short_runs(results_dir))
        if run.seed == 0
    }
    augmentation = {left_out(run): swept for run, swept in _with_sweeps(ablation, read_folder(ablation))}
    return RobustnessEvidence(
        short=short,
        long={run.backbone: swept for run, swept in _with_sweeps(results_dir, read_runs(results_dir))},
        augmentation=augmentation,
        drawn=[
            run for run in read_folder(results_dir / "cues") if run.about["config"]["synthetic"]["confounding"] == 0
        ],
    )


def _with_sweeps(folder: Path, runs: list[Run]) -> list[tuple[Run, Sweep]]:
    return read_beside(folder, runs, SWEEP_FILE, lambda path: Sweep(read_sweep(path)))


def left_out(run: Run) -> str:
    """What a run of the augmentation ablation was trained without."""
    zero = [name for name in ("flip", "affine", "colour", "erase") if run.about["config"]["augmentation"][name] == 0]
    if not zero:
        return "usual"
    names = {"colour": "no colour changes", "erase": "no erasing"}
    return names.get(zero[0], f"no {zero[0]}") if len(zero) == 1 else "no augmentation"


def multitask_increases(evidence: RobustnessEvidence, backbone: str) -> pd.DataFrame:
    """Is a multi-task model hurt less than single-task ones? See ``increase_differences``; empty if one is missing."""
    multi = evidence.short.get((backbone, TASKS))
    singles = [evidence.short.get((backbone, (task,))) for task in TASKS]
    if multi is None or None in singles:
        return pd.DataFrame(columns=["corruption", "error", "value", "low", "high", "p", "call"])
    return add_calls(increase_differences([multi], singles))


def augmentation_increases(evidence: RobustnessEvidence) -> dict[str, pd.DataFrame]:
    """How much more a model is hurt that was trained without some augmentation, by what it lacked.

    Rows as of ``increase_differences``; above 0, the usual run is hurt less.
    """
    usual = evidence.augmentation.get("usual")
    others = {name: swept for name, swept in evidence.augmentation.items() if name != "usual"}
    return {name: increase_differences([usual], [swept]) for name, swept in others.items()} if usual else {}


def group_increases(evidence: RobustnessEvidence) -> pd.DataFrame:
    """Are some groups hurt more by low light? See ``group_differences``; empty without MobileNetV3."""
    swept = evidence.long.get("mobilenet_v3")
    if swept is None:
        return pd.DataFrame(columns=["grouping", "group", "count", "error", "value", "low", "high", "call"])
    faces = read_labels_from_split()
    return group_differences(swept, faces, get_scheme("utkface"), GROUP_CORRUPTION, GROUP_SEVERITY)


def answers_in_the_dark(evidence: RobustnessEvidence) -> pd.DataFrame:
    """What the published MobileNetV3 answers the less it sees, from its errors and the labels.

    Returns:
        A row a severity of low light: ``age`` (mean answer, years), ``age_spread`` (its standard deviation), ``male``
        (share so answered), and for each race the share of those labelled so who are answered rightly; empty without
        MobileNetV3.
    """
    swept = evidence.long.get("mobilenet_v3")
    if swept is None:
        return pd.DataFrame()
    labels = read_labels_from_split().set_index("image_id").loc[swept.image_ids]
    age, gender, race = (labels[name].to_numpy(dtype=float, na_value=np.nan) for name in ("age", "gender", "race"))
    rows = {}
    for condition in [("clean", 0), *((GROUP_CORRUPTION, severity) for severity in SEVERITIES)]:
        place = swept.conditions.index(condition)
        wrong = dict(zip(swept.errors, swept.values[:, place].T, strict=True))
        answered = swept.signed_age[:, place] + age
        female = np.where(wrong["gender_error"] == 1, 1 - gender, gender)
        row = {"age": np.nanmean(answered), "age_spread": np.nanstd(answered), "male": 1 - np.nanmean(female)}
        for code, name in enumerate(get_scheme("utkface").race):
            row[name] = 1 - wrong["race_error"][race == code].mean()
        rows[condition[1]] = row
    return pd.DataFrame(rows).T.rename_axis("severity")


@cache_copies(maxsize=16)
def mean_errors(swept: Sweep) -> pd.DataFrame:
    """Errors averaged over the severities: rows ``corruption, error, value, low, high``, the first ones clean."""
    clean = swept.values[:, :1]
    values = np.concatenate([clean, swept.increases() + clean], axis=1)  # (n, 1 + corruptions, errors)
    found = interval(swept.bootstrap().means(values.reshape(len(values), -1))).drop(columns="p")
    labels = [(name, error) for name in ("clean", *swept.corruptions) for error in swept.errors]
    return pd.concat([pd.DataFrame(labels, columns=["corruption", "error"]), found], axis=1)


NUISANCES = {  # of drawn faces -> (title, edges of bins; None for yes or no)
    "expression": ("expression: sad to smiling", (-1, -0.6, -0.2, 0.2, 0.6, 1)),
    "light": ("light from the side", (-0.35, -0.21, -0.07, 0.07, 0.21, 0.35)),
    "angle": ("tilt of the head (radians)", (-0.17, -0.1, -0.03, 0.03, 0.1, 0.17)),
    "glasses": ("glasses", None),
    "covered_mouth": ("covered mouth", None),
}


def nuisance_errors(run: Run, names: tuple[str, ...] = tuple(NUISANCES)) -> pd.DataFrame:
    """Errors on drawn test faces by what varies in them without saying anything about a label.

    Args:
        run: on drawn faces.
        names: keys of NUISANCES.

    Returns:
        Rows ``nuisance, level, count, error, value, low, high``: level is the middle of a bin, or 0 and 1.
    """
    config = run.about["config"]
    drawn = _draw_small(config["num_images"] or 4_000, config["data_seed"], SyntheticSettings(**config["synthetic"]))
    table, _ = run.split("test")
    place = drawn.faces.reset_index().set_index("image_id").loc[table["image_id"], "index"].to_numpy()
    errors = error_rows(table)[list(SWEPT_ERRORS)].to_numpy(dtype=float)
    bootstrap, parts = GroupBootstrap(np.arange(len(table)), 2_000), []
    for name in names:
        values, edges = drawn.nuisances[name].to_numpy(dtype=float)[place], NUISANCES[name][1]
        levels = values if edges is None else _middles(values, edges)
        shown = np.unique(levels)
        members = levels[:, None] == shown  # (n, levels)
        samples = bootstrap.group_means(errors, members)  # (R + 1, errors, levels)
        for number, level in enumerate(shown):
            part = interval(samples[:, :, number]).drop(columns="p")
            counted = int(members[:, number].sum())
            parts.append(part.assign(nuisance=name, level=level, count=counted, error=list(SWEPT_ERRORS)))
    return pd.concat(parts, ignore_index=True)


@lru_cache(maxsize=4)  # architectures are trained on the same faces
def _draw_small(num_images: int, seed: int, settings: SyntheticSettings) -> SyntheticFaces:
    """Small pictures: what varies does not depend on their size."""
    return draw_faces(num_images, 24, seed, settings)


def _middles(values: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Middle of the bin that each value falls into."""
    edges = np.asarray(edges)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return ((edges[:-1] + edges[1:]) / 2)[place]

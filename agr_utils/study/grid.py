"""From a YAML file to the runs of a study.

output_dir: runs                 # settings of the study: all may be left out
splits: [validation]             # predicted at the end of each run; default: validation and test
threads: 1                       # torch threads of a run; default: the cores, shared out among the jobs
source: UTKFace.tar.gz           # of real data; default: AGR_DATA_DIR
skip_unreadable: false
label: short                     # put at the end of each run's id, to tell it from another study's
settings: {num_epochs: 24}       # of every run; those of TrainConfig
grid: {seed: [0, 1], tasks: [all, age]}          # every combination is a run; also a list of such grids
runs: [{backbone: custom_cnn, num_epochs: 30}]   # further runs
"""

import contextlib
import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import yaml

from agr_utils.data.faces import SPLITS
from agr_utils.errors import InputError, name_hint
from agr_utils.tasks import TASKS, check_task
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import check_run_folder

DEFAULTS, TYPES = TrainConfig().to_dict(), get_type_hints(TrainConfig)
# Kinds of the values of a study's own keys.
KEYS = {
    "output_dir": str, "splits": list, "threads": int, "source": str, "skip_unreadable": bool,
    "label": str, "settings": dict, "grid": dict | list, "runs": list,
}  # fmt: skip
KIND_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}


@dataclass(frozen=True)
class RunOptions:
    """What the runs of a study share that is not part of their configs.

    Attributes:
        splits: predicted at the end.
        source: folder or archive of a real data set.
        skip_unreadable: leave out images that cannot be read.
        threads: of torch; None leaves them as they are.
        command: written down for whoever wants to repeat a run.
    """

    splits: tuple[str, ...]
    source: Path | None
    skip_unreadable: bool
    threads: int | None
    command: str


@dataclass(frozen=True)
class Study:
    """A grid of runs.

    Attributes:
        output_dir: holds the run folders.
        runs: run id (name of the run folder) to config, in the order in which they are started.
        options: what they share.
    """

    output_dir: Path
    runs: dict[str, TrainConfig]
    options: RunOptions


def read_study(path: Path) -> Study:
    """Read a grid file and check all of it, and the run folders that are there, before anything starts.

    Raises:
        InputError: naming the file and the key, if the file is no such YAML, a setting is unknown or has a bad value,
            a run is asked for twice, or a folder holds a run of another config.
    """
    content = _read_yaml(path)
    try:
        _check_keys(content, KEYS)
        for key, value in content.items():
            _check_kind(key, value, KEYS[key])
        options = RunOptions(
            splits=_read_splits(content.get("splits", ["validation", "test"])),
            source=Path(content["source"]).expanduser().resolve() if "source" in content else None,
            skip_unreadable=content.get("skip_unreadable", False),
            threads=content.get("threads"),
            command=f"agr study {Path(path).name}",
        )
        if options.threads is not None and options.threads < 1:
            raise InputError(f"threads is {options.threads}; it must be at least 1")
        runs = name_runs([read_config(settings) for settings in expand(content)], content.get("label", ""))
        output_dir = Path(content.get("output_dir", "runs")).expanduser().resolve()
        for run_id, config in runs.items():
            config.refuse_unused()
            check_run_folder(config, output_dir / run_id)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Study(output_dir, runs, options)


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). See docs/grids/example.yaml for a grid") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a grid of runs. See docs/grids/example.yaml for one")
    return content


def _check_keys(given: Collection[str], known: Collection[str], where: str = "") -> None:
    for key in given:
        if key not in known:
            raise InputError(f"unknown key '{where}{key}'. {name_hint(str(key), known)}")


def _check_kind(key: str, value: object, kind: type) -> None:
    is_number_for_bool = isinstance(value, bool) and kind in (int, float)
    if not isinstance(value, int | float if kind is float else kind) or is_number_for_bool:
        raise InputError(f"{key} is {value!r}; it must be {KIND_NAMES.get(kind, 'keys with values')}")


def _read_splits(names: list) -> tuple[str, ...]:
    for name in names:
        if name not in SPLITS:
            raise InputError(f"splits: unknown split '{name}'. Choose from: {', '.join(SPLITS)}")
    if not names:
        raise InputError("splits is empty. Name at least one, or leave it out")
    return tuple(names)


def expand(content: dict) -> list[dict]:
    """Settings of each run: every combination of a grid's values, and the further runs, over the common settings."""
    settings, grids, runs = content.get("settings", {}), content.get("grid", []), content.get("runs", [])
    chosen = []
    for grid in [grids] if isinstance(grids, dict) else grids:
        _check_kind("a grid", grid, dict)
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                raise InputError(f"grid: {key} is {values!r}; write a list of values, as [{values}]")
            if key in settings:
                raise InputError(f"'{key}' stands under settings and under grid. Delete one of them")
        chosen += [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for run in runs:
        _check_kind("a run under runs", run, dict)
    return [settings | own for own in [*chosen, *runs] or [{}]]


def read_config(settings: dict) -> TrainConfig:
    """The config of a run, from settings as they stand in the file."""
    _check_keys(settings, DEFAULTS)
    return TrainConfig.from_dict({key: _read_setting(key, value) for key, value in settings.items()})


def _read_setting(key: str, value: object) -> object:
    """A value in the terms of ``TrainConfig.from_dict``."""
    default, kind = DEFAULTS[key], TYPES[key]
    if key == "tasks":
        return _read_tasks(value)
    if key == "pretrained" and value not in (True, False, "if-available"):
        raise InputError(f"pretrained is {value!r}. Choose one of: false, true, if-available")
    if isinstance(default, dict):  # augmentation, synthetic, task_weights: what is not given keeps its default
        _check_kind(key, value, dict)
        _check_keys(value, default, f"{key}.")
        return default | {name: _read_number(f"{key}.{name}", number) for name, number in value.items()}
    if kind is float:
        return _read_number(key, value)
    if kind == int | None and value is None:
        return None
    if key != "pretrained":
        _check_kind(key, value, str if kind is str else int)
    return value


def _read_number(key: str, value: object) -> float:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML takes 1e-3 for text
    _check_kind(key, value, float)
    return value


def _read_tasks(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    _check_kind("tasks", names, list)
    if "all" in names:
        return TASKS
    for name in names:
        check_task(name)
    if not names:
        raise InputError("tasks is empty. Name at least one, or all")
    return tuple(task for task in TASKS if task in names)


def name_runs(configs: list[TrainConfig], label: str = "") -> dict[str, TrainConfig]:
    """Give each config a run id: ``utkface-mobilenet_v3-64px-s0``, ``utkface-mobilenet_v3-age-64px-s0``.

    Where several would have the same, what tells them apart is added: ``…-s0-learning_rate_0.001``; then the label.

    Raises:
        InputError: if two are the same run.
    """
    names = [_short_name(config) for config in configs]
    settings = [_flatten(config.to_dict()) for config in configs]
    runs: dict[str, TrainConfig] = {}
    for name, own, config in zip(names, settings, configs, strict=True):
        namesakes = [other for other, its_name in zip(settings, names, strict=True) if its_name == name]
        telling = [key for key in own if any(other[key] != own[key] for other in namesakes)]
        parts = [name, *(f"{key.split('.')[-1]}_{own[key]}" for key in telling), *([label] if label else [])]
        run_id = "-".join(parts)
        run_id = re.sub(r"[^\w.+-]+", "_", run_id)  # it is the name of a folder
        if run_id in runs:
            raise InputError(f"the run {run_id} is asked for twice. Delete one, or let a setting tell them apart")
        runs[run_id] = config
    return runs


def _short_name(config: TrainConfig) -> str:
    tasks = [] if config.tasks == TASKS else ["+".join(config.tasks)]
    return "-".join([config.data, config.backbone, *tasks, f"{config.image_size}px", f"s{config.seed}"])


def _flatten(settings: dict) -> dict:
    """Settings with those of ``augmentation``, ``synthetic`` and ``task_weights`` among them."""
    flat = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": entry for name, entry in value.items()}
    return flat

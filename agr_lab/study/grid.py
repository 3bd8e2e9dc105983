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
import math
import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from agr_utils.data.faces import SPLITS
from agr_utils.dials import SyntheticSettings
from agr_utils.errors import DamagedError, InputError
from agr_utils.files import read_bytes
from agr_utils.tasks import OWN_TABLE, TASKS
from agr_utils.training.config import RANGES, TrainConfig, check_kind, check_known, flatten
from agr_utils.training.run import check_run_folder

MAX_VALUES, MAX_RUNS, MAX_THREADS, MAX_NAME = 100_000, 10_000, 1_024, 200  # checked before anything is expanded
# Kinds of the values of a study's own keys.
KEYS = {
    "output_dir": str, "splits": list, "threads": int, "source": str, "skip_unreadable": bool,
    "label": str, "settings": dict, "grid": dict | list, "runs": list,
}  # fmt: skip


@dataclass(frozen=True)
class RunOptions:
    """What the runs of a study share that is not part of their configs; ``threads`` are torch's, None leaves them."""

    splits: tuple[str, ...]
    source: Path | None
    skip_unreadable: bool
    threads: int | None
    command: str


@dataclass(frozen=True)
class Study:
    """A grid of runs: run id (name of the run folder in ``output_dir``) to config, and the options that they share."""

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
        check_known(content, KEYS)
        for key, value in content.items():
            check_kind(key, value, KEYS[key])
        options = RunOptions(
            splits=_read_splits(content.get("splits", ["validation", "test"])),
            source=Path(content["source"]).expanduser().resolve() if "source" in content else None,
            skip_unreadable=content.get("skip_unreadable", False),
            threads=content.get("threads"),
            command=f"agr study {Path(path).name}",
        )
        if options.threads is not None and not 1 <= options.threads <= MAX_THREADS:
            raise InputError(f"threads is {options.threads}; it must be from 1 to {MAX_THREADS}")
        settings = [{key: _read_setting(key, value) for key, value in own.items()} for own in expand(content)]
        runs = name_runs([TrainConfig.from_dict(own) for own in settings], content.get("label", ""))
        output_dir = Path(content.get("output_dir", "runs")).expanduser().resolve()
        for run_id, config in runs.items():
            refuse_unused(config)
            with contextlib.suppress(DamagedError):  # that run will fail and say why; the others train
                check_run_folder(config, output_dir / run_id)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Study(output_dir, runs, options)


def _read_yaml(path: Path) -> dict:
    try:
        text = read_bytes(path).decode()
        tree = yaml.compose(text, yaml.SafeLoader)
        if len(text) > 10 * MAX_VALUES or tree is None or _count_values(tree, {}) > MAX_VALUES:
            raise InputError(f"{path}: empty, or too large for a grid. See docs/grids/example.yaml for one")
        content = yaml.safe_load(text)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of YAML, UTF-8, a date, a number; lists in lists
        raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a grid of runs. See docs/grids/example.yaml for one")
    return content


def _count_values(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Values below a YAML node with each alias written out, counted without writing any out."""
    if node not in known:
        known[node] = MAX_VALUES + 1  # of an alias to what it stands in
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for key, _ in (entry for entry in keys.items() if entry[1] > 1):  # the last would be taken without a word
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key '{key}' stands twice here")
            parts = itertools.chain.from_iterable(parts)
        known[node] = 1 + sum(_count_values(part, known) for part in parts)
    return known[node]


def _read_splits(names: list) -> tuple[str, ...]:
    for name in names:
        if name not in SPLITS:
            raise InputError(f"splits: unknown split '{name}'. Choose from: {', '.join(SPLITS)}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"splits is {names}. Name at least one, and each once, or leave it out")
    return tuple(names)


def expand(content: dict) -> list[dict]:
    """Settings of each run: every combination of a grid's values, and the further runs, over the common settings."""
    settings, grids, runs = content.get("settings", {}), content.get("grid", []), content.get("runs", [])
    grids = [grids] if isinstance(grids, dict) else grids
    for grid in grids:
        check_kind("a grid", grid, dict)
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                raise InputError(f"grid: {key} is {reprlib.repr(values)}; write a list of values, in [ ]")
            if key in settings:
                raise InputError(f"'{key}' stands under settings and under grid. Delete one of them")
    for run in runs:
        check_kind("a run under runs", run, dict)
    number = len(runs) + sum(math.prod(map(len, grid.values())) for grid in grids)
    if number > MAX_RUNS:
        raise InputError(f"{number:,} runs are asked for; a study has at most {MAX_RUNS:,}. Split it up")
    chosen = [dict(zip(grid, values, strict=True)) for grid in grids for values in itertools.product(*grid.values())]
    return [settings | own for own in [*chosen, *runs] or [{}]]


def _read_setting(key: str, value: object) -> object:
    """A value in the terms of ``TrainConfig.from_dict``: tasks may be one or all; YAML takes 1e-3 for text."""
    if key == "tasks":
        return _read_tasks(value)
    if isinstance(value, dict):
        return {name: _read_setting(f"{key}.{name}", number) for name, number in value.items()}
    if isinstance(value, str) and (key in RANGES or "." in key):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _read_tasks(value: object) -> tuple[str, ...]:  # whether the data has them, TrainConfig checks
    names = [value] if isinstance(value, str) else value
    check_kind("tasks", names, list)
    for name in names:
        check_kind("a task", name, str)
    return TASKS if "all" in names else tuple(sorted(dict.fromkeys(names), key=lambda name: (*TASKS, name).index(name)))


def refuse_unused(config: TrainConfig) -> None:
    """Refuse settings that only other data knows: somebody believes that they do something."""
    given = {
        "num_images": config.num_images is not None,
        "noise, relatedness or confounding": config.synthetic != SyntheticSettings(),
    }
    unused = [name for name, is_given in given.items() if is_given]
    if config.data != "synthetic" and unused:
        raise InputError(
            f"{' and '.join(unused)} only change drawn faces, and the data is {config.data}. Leave them out"
        )
    if config.data in ("synthetic", OWN_TABLE) and config.protocol != TrainConfig.protocol:
        raise InputError(f"protocol only splits UTKFace and FairFace, and the data is {config.data}. Leave it out")


def name_runs(configs: list[TrainConfig], label: str = "") -> dict[str, TrainConfig]:
    """Give each config a run id: ``utkface-mobilenet_v3-64px-s0``, ``utkface-mobilenet_v3-age-64px-s0``.

    Where several would have the same, what tells them apart is added: ``…-s0-learning_rate_0.001``; then the label. Two
    that are the same run are refused.
    """
    names = [_short_name(config) for config in configs]
    settings = [flatten(config.to_dict()) for config in configs]
    namesakes: dict[str, list[dict]] = {}
    for name, own in zip(names, settings, strict=True):
        namesakes.setdefault(name, []).append(own)
    telling = {name: [key for key in same[0] if any(other[key] != same[0][key] for other in same)]
               for name, same in namesakes.items()}  # fmt: skip
    runs: dict[str, TrainConfig] = {}
    for name, own, config in zip(names, settings, configs, strict=True):
        parts = [name, *(f"{key.split('.')[-1]}_{own[key]}" for key in telling[name]), *([label] if label else [])]
        run_id = re.sub(r"[^\w.+-]+", "_", "-".join(parts))  # it is the name of a folder
        if run_id in runs:
            raise InputError(f"the run {run_id} is asked for twice. Delete one, or let a setting tell them apart")
        if len(run_id.encode()) > MAX_NAME:
            raise InputError(f"the run {run_id[:80]}… has too long a name for a folder. Shorten the label")
        runs[run_id] = config
    return runs


def _short_name(config: TrainConfig) -> str:
    tasks = [] if config.tasks == TASKS else ["+".join(config.tasks)]
    return "-".join([config.data, config.backbone, *tasks, f"{config.image_size}px", f"s{config.seed}"])

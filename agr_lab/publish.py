"""Published runs: what supports a run's numbers is copied to ``results/``."""

import filecmp
import shutil
from pathlib import Path

from agr_utils.errors import InputError
from agr_utils.files import read_bytes, read_json, replace_folder
from agr_utils.machine import repository_root
from agr_utils.measure.results import PUBLISHED_FILES
from agr_utils.predictions_table import read_predictions
from agr_utils.run_files import CONFIG_FILE, HISTORY_FILE, MAPS_FOLDER, PREDICTIONS_FILE, SWEEP_FILE
from agr_utils.training.config import different_settings, recorded_config

FURTHER_FILES = (MAPS_FOLDER, SWEEP_FILE)  # where somebody made them
_OF_MAPS = ("*.parquet", "about.json", "mean_face.png")  # nothing else of that folder, a photograph least of all
PUBLISHED_CONTENTS = (*PUBLISHED_FILES, *FURTHER_FILES, f"{MAPS_FOLDER}/*")


def publish_run(run_dir: Path, results_dir: Path | None = None) -> Path:
    """Copy what supports a run's numbers to ``results/<run id>/``: no image, no weight.

    Maps and sweeps that were published with the same predictions stay, if the run folder has none.

    Raises:
        InputError: if the run is not finished or damaged, or the folder to be replaced holds another or other files.
    """
    run_dir = Path(run_dir).resolve()  # the name of "." is empty
    for name in PUBLISHED_FILES:
        if not (run_dir / name).is_file():
            raise InputError(f"{run_dir}: no {name}, so the run is not finished. Go on with the same agr train command")
    read_json(run_dir / CONFIG_FILE)
    read_predictions(run_dir / PREDICTIONS_FILE)
    if results_dir is None and not (repository_root() / "pyproject.toml").exists():
        raise InputError("agr is installed without its checkout, so there is no results/. Say --results-dir")
    target = Path(results_dir or repository_root() / "results").resolve() / run_dir.name
    if not run_dir.name or target.resolve() == run_dir:
        raise InputError(f"{run_dir}: cannot be published to {target.parent}. Choose another --results-dir")
    with replace_folder(target, PUBLISHED_CONTENTS) as partial:
        if (target / CONFIG_FILE).exists():
            _refuse_another_run(run_dir, target)
        published = target / PREDICTIONS_FILE
        same = published.exists() and filecmp.cmp(published, run_dir / PREDICTIONS_FILE, shallow=False)
        for name in PUBLISHED_FILES:
            shutil.copyfile(run_dir / name, partial / name)
        for name in FURTHER_FILES:
            path = target / name if same and not (run_dir / name).exists() else run_dir / name
            if path.is_dir():
                (partial / path.name).mkdir()
                for file in (file for pattern in _OF_MAPS for file in path.glob(pattern)):
                    shutil.copyfile(file, partial / path.name / file.name)
            elif path.exists():
                shutil.copyfile(path, partial / path.name)
    return target


def _refuse_another_run(run_dir: Path, target: Path) -> None:
    """Refuse to replace a run of the same name that has another config, or that was trained at another time."""
    path, published = run_dir / CONFIG_FILE, target / CONFIG_FILE
    different = different_settings(read_json(path), path, recorded_config(read_json(published), published))
    # The seconds of each epoch tell a training from its repetition; one that went on begins as it did before.
    earlier, history = (read_bytes(folder / HISTORY_FILE) for folder in (target, run_dir))
    if different or not history.startswith(earlier):
        reason = f"with another {', '.join(different)}" if different else "of the same config, trained another time"
        raise InputError(f"{target}: holds another run of this name, {reason}. Delete it, or choose a --results-dir")

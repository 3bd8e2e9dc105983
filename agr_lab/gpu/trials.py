"""Trainings on an accelerator as one table: what each cost, and what it brought on the validation split.

python -m agr_lab.gpu.trials results/recipe.csv FOLDER_OF_FINISHED_JOBS …
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from agr_lab.gpu.jobs import SUMMARY_FILE, job_from

SETTINGS = (
    "backbone", "tasks", "task_weights", "initial", "start", "image_size", "epochs", "batch_size", "learning_rate",
    "head_factor", "changes", "teachers", "seed",
)  # fmt: skip
SCORES = [f"{split}_{name}" for split in ("validation", "harsh") for name in ("mae", "gender", "race")]
COST = ["seconds", "images_per_second", "device", "torch"]


def trial_row(folder: Path) -> dict:
    """One finished job as a row: settings, errors (years; shares of 1), seconds of training and the device."""
    about = json.loads((folder / SUMMARY_FILE).read_text())
    job = job_from(about["job"])
    settings = {name: getattr(job, name) for name in SETTINGS}
    settings["initial"] = Path(job.initial).stem if job.initial else ""
    settings["teachers"], settings["tasks"] = " ".join(job.teachers), " ".join(job.tasks)
    settings["task_weights"] = " ".join(f"{task}={weight:g}" for task, weight in job.task_weights.items())
    return {"trial": folder.name} | settings | {name: about.get(name) for name in (*SCORES, *COST)}


def main() -> None:
    """Add finished jobs to the table; a trial of the same name is replaced."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    found = [path.parent for folder in options.folders for path in sorted(folder.glob(f"*/{SUMMARY_FILE}"))]
    table = pd.DataFrame([trial_row(folder) for folder in found])
    if options.csv.exists():
        before = pd.read_csv(options.csv)
        table = pd.concat([before[~before["trial"].isin(table["trial"])], table])
    table.to_csv(options.csv, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()

"""A finished job becomes a run: the course's files, predictions by the course's own code on a CPU, or the device's own.

python -m agr_lab.gpu.as_run work/student runs/utkface-lite0-128px-s6 --splits validation test
python -m agr_lab.gpu.as_run work/*-s1 results/protocol_2 --faces pack/faces.parquet
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from agr_lab.gpu.jobs import HISTORY_FILE as JOB_HISTORY
from agr_lab.gpu.jobs import PREDICTIONS_FILE, SUMMARY_FILE, Job, job_from
from agr_lab.gpu.training import build, load_finished
from agr_utils.data.load import load_data
from agr_utils.deploy.calibrate import QUANTILES
from agr_utils.files import atomic_path, write_json, write_table
from agr_utils.machine import current_commit
from agr_utils.models.network import count_macs, count_parameters
from agr_utils.run_files import CONFIG_FILE, HISTORY_FILE
from agr_utils.run_files import PREDICTIONS_FILE as TABLE_FILE
from agr_utils.tasks import TASKS
from agr_utils.training.config import TrainConfig
from agr_utils.training.predictions import predictions_table
from agr_utils.training.run import finish_run


def config_of(job: Job) -> TrainConfig:
    """The course's settings of a job; what they lack stands in the job itself, which is written beside them."""
    return TrainConfig(
        data="utkface", backbone=job.backbone, tasks=job.tasks, seed=job.seed, image_size=job.image_size,
        task_weights=dict.fromkeys(job.tasks, 1.0) | job.task_weights, num_epochs=job.epochs, precision="bf16",
        warmup_epochs=job.epochs / 20, batch_size=job.batch_size, learning_rate=job.learning_rate, ema_decay=job.ema,
        weight_decay=job.weight_decay, dropout=job.dropout, pretrained=bool(job.initial),
    )  # fmt: skip


def write_record(
    folder: Path, output_dir: Path, num_train: int, commit: str, arguments: str = "runs --faces pack/faces.parquet"
) -> dict:
    """Write a run folder's config and history from a finished job, and return what the config says.

    ``arguments``: of this module behind the job's folder, for the command that makes the run again.
    """
    about = json.loads((folder / SUMMARY_FILE).read_text())
    job = job_from(about["job"])
    model, precision = build(job), about.get("precision", "bf16")  # older ones do not say
    output_dir.mkdir(parents=True, exist_ok=True)
    record = {
        "run_id": output_dir.name, "config": config_of(job).to_dict() | {"precision": precision}, "job": asdict(job),
        "commit": commit, "command": "python -m agr_lab.gpu.train jobs.json --pack pack --work work --out out, where "
        f"jobs.json lists the job {job.name}; then python -m agr_lab.gpu.as_run work/{job.name} {arguments}",
        "weights_source": Path(job.initial).stem if job.initial else "from scratch", "precision": precision,
        "parameters": count_parameters(model), "macs": count_macs(model, job.image_size), "num_train": num_train,
        "hardware": {"accelerator": about["device"], "torch": about["torch"], "seconds": about["seconds"]},
    }  # fmt: skip
    write_json(output_dir / CONFIG_FILE, record)
    history = pd.read_csv(folder / JOB_HISTORY)
    history.insert(0, "epoch", (history["step"] / about["steps"] * job.epochs).round(2))
    with atomic_path(output_dir / HISTORY_FILE) as partial:
        history.to_csv(partial, index=False, float_format="%.6g")
    return record


def become_run(folder: Path, output_dir: Path, splits: tuple[str, ...]) -> pd.DataFrame:
    """Write a run folder from a finished job and its weights, and predict the splits; its predictions table.

    The faces lie where ``AGR_DATA_DIR`` says. Leave ``test`` out while choices are still being made.
    """
    config = config_of(job_from(json.loads((folder / SUMMARY_FILE).read_text())["job"]))
    data = load_data(skip_unreadable=True, **config.data_settings())
    model = load_finished(folder.parent, folder.name, torch.device("cpu"))
    arguments = f"runs/{output_dir.name} --splits {' '.join(splits)}"
    record = write_record(folder, output_dir, len(data.rows("train")), current_commit(), arguments)
    return finish_run(model, data, output_dir, record, splits, kept={})


def record_answers(
    folder: Path, output_dir: Path, faces: pd.DataFrame, commit: str, with_quantiles: bool
) -> pd.DataFrame:
    """Write a run folder from a finished job and the answers that it brought back; its predictions table.

    Its weights are not needed. ``faces``: faces table of the pack; ``commit``: of the code that trained it. With
    quantiles it has 20 of the age, too, ``age_q0.025`` to ``age_q0.975``, rounded to a tenth of a year, from which
    intervals can be calibrated; they double the table.
    """
    write_record(folder, output_dir, int((faces["split"] == "train").sum()), commit)
    tables = []
    for path in sorted(folder.glob(f"*_{PREDICTIONS_FILE}")):
        of_split = faces[faces["split"] == path.name.removesuffix(f"_{PREDICTIONS_FILE}")]
        with np.load(path) as answers:
            classes = {task: answers[task] for task in ("gender", "race") if task in answers}
            table = predictions_table(classes, of_split, output_dir.name)
            if "age_mean" in answers:
                table["age_pred"] = answers["age_mean"]
            if with_quantiles and "age_mean" in answers:
                table[[f"age_q{level:.3f}" for level in QUANTILES]] = answers["age_quantiles"].astype("f4").round(1)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    write_table(table, output_dir / TABLE_FILE)
    return table


def main() -> None:
    """One run from its weights, or many from the answers that they brought back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="of finished jobs")
    parser.add_argument("output_dir", type=Path, help="the run folder; with --faces, the folder of run folders")
    parser.add_argument("--splits", nargs="+", default=["validation"], help="to be predicted here")
    parser.add_argument("--faces", type=Path, help="faces table of the pack: take the device's answers as they are")
    parser.add_argument("--commit", help="of the code that trained them; this checkout's where it is left out")
    options = parser.parse_args()
    if options.faces is None:
        become_run(options.folders[0], options.output_dir, tuple(options.splits))
        return
    faces = pd.read_parquet(options.faces)
    for folder in options.folders:
        if list(folder.glob(f"*_{PREDICTIONS_FILE}")):  # a tuning run has none
            job = job_from(json.loads((folder / SUMMARY_FILE).read_text())["job"])
            with_quantiles = job.seed == 1 and job.tasks == TASKS
            commit = options.commit or current_commit()
            record_answers(folder, options.output_dir / folder.name, faces, commit, with_quantiles)


if __name__ == "__main__":
    main()

"""A finished job becomes a run: the course's files, predictions by the course's own code on a CPU.

python -m agr_lab.gpu.as_run work/student runs/utkface-lite0-128px-s6 --splits validation test
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from agr_lab.gpu.jobs import HISTORY_FILE as JOB_HISTORY
from agr_lab.gpu.jobs import SUMMARY_FILE, Job, job_from
from agr_lab.gpu.training import load_finished
from agr_utils.data.load import load_data
from agr_utils.files import atomic_path, write_json
from agr_utils.machine import current_commit
from agr_utils.models.network import count_macs, count_parameters
from agr_utils.run_files import CONFIG_FILE, HISTORY_FILE
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import finish_run


def config_of(job: Job) -> TrainConfig:
    """The course's settings of a job; what they lack stands in the job itself, which is written beside them."""
    return TrainConfig(
        data="utkface", backbone=job.backbone, seed=job.seed, image_size=job.image_size, num_epochs=job.epochs,
        batch_size=job.batch_size, learning_rate=job.learning_rate, weight_decay=job.weight_decay, ema_decay=job.ema,
        dropout=job.dropout, precision="bf16",
    )  # fmt: skip


def become_run(folder: Path, output_dir: Path, splits: tuple[str, ...], source: Path | None = None) -> pd.DataFrame:
    """Write a run folder from a finished job.

    Args:
        folder: of the job, with its weights.
        output_dir: the run folder; its name is the run id.
        splits: predicted; leave ``test`` out while choices are still being made.
        source: folder or archive of the faces; ``AGR_DATA_DIR`` where it is None.

    Returns:
        The predictions table.
    """
    about = json.loads((folder / SUMMARY_FILE).read_text())
    job = job_from(about["job"])
    config = config_of(job)
    data = load_data(source=source, skip_unreadable=True, **config.data_settings())
    model = load_finished(folder.parent, folder.name, torch.device("cpu"))
    output_dir.mkdir(parents=True, exist_ok=True)
    record = {
        "run_id": output_dir.name, "config": config.to_dict(), "job": asdict(job), "commit": current_commit(),
        "command": "python -m agr_lab.gpu.train, then python -m agr_lab.gpu.as_run",
        "weights_source": Path(job.initial).stem if job.initial else "from scratch", "precision": "bf16",
        "parameters": count_parameters(model.requires_grad_(True)), "macs": count_macs(model, job.image_size),
        "num_train": len(data.rows("train")),
        "hardware": {"accelerator": about["device"], "torch": about["torch"], "seconds": about["seconds"]},
    }  # fmt: skip
    write_json(output_dir / CONFIG_FILE, record)
    history = pd.read_csv(folder / JOB_HISTORY)
    history.insert(0, "epoch", (history["step"] / about["steps"] * job.epochs).round(2))
    with atomic_path(output_dir / HISTORY_FILE) as partial:
        history.to_csv(partial, index=False, float_format="%.6g")
    return finish_run(model.eval(), data, output_dir, record, splits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--splits", nargs="+", default=["validation"])
    options = parser.parse_args()
    become_run(options.folder, options.output_dir, tuple(options.splits))

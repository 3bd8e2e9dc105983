"""Train a list of models on an accelerator that is lent for minutes.

The faces lie on the device as bytes and are changed there, so nothing waits for a data loader. Several processes share
the device: while one prepares a step, another computes. A job is finished or not at all: what the time did not allow is
trained at the next chance, and finished jobs are left alone.

    python -m agr_lab.gpu.train jobs.json --pack pack --work work --out out --workers 3 --seconds 420
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from agr_lab.gpu.augment import Changes
from agr_lab.gpu.initial_weights import save_half
from agr_lab.gpu.jobs import (
    FACES_FILE,
    HARSH_FILE,
    HISTORY_FILE,
    PIXELS_FILE,
    PREDICTIONS_FILE,
    SUMMARY_FILE,
    WEIGHTS_FILE,
    Job,
    job_from,
)
from agr_lab.gpu.pack import unpack_faces
from agr_lab.gpu.training import Faces, Training
from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

PART_BYTES = 15 * 2**20


def make_harsh(pixels: np.ndarray) -> np.ndarray:
    """Each face seen by a worse camera: turned, cropped otherwise, and with one corruption; the same every time.

    Args:
        pixels: (N, S, S, 3) uint8.

    Returns:
        As ``pixels``.
    """
    torch.set_num_threads(1)
    changed, names = [], sorted(CORRUPTIONS)
    for index, image in enumerate(pixels):
        generator = torch.Generator().manual_seed(index)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        x = Changes(generator, 1.2).warp(x, x.shape[3])
        name, severity = names[index % len(names)], SEVERITIES[index // len(names) % 4]  # the fifth hides the face
        x = corrupt(x.clamp(0, 1), name, severity, [index])
        changed.append((x[0].permute(1, 2, 0) * 255).round().byte().numpy())
    return np.stack(changed)


def prepare(pack: Path, work: Path) -> None:
    """Decode the pack and make the harsh validation split, once per machine."""
    work.mkdir(parents=True, exist_ok=True)
    if (work / HARSH_FILE).exists():
        return
    pixels, faces = unpack_faces(pack)
    np.save(work / PIXELS_FILE, pixels)
    faces.to_parquet(work / FACES_FILE)
    validation = pixels[np.flatnonzero(faces["split"] == "validation")]
    with ProcessPoolExecutor() as pool:
        harsh = np.concatenate(list(pool.map(make_harsh, np.array_split(validation, min(32, len(validation))))))
    np.save(work / HARSH_FILE, harsh)


def work_off(jobs: list[Job], work: Path, deadline: float, device: torch.device) -> None:
    """Train what is open, one job after the other, until the deadline comes too near."""
    faces = Faces(work, device)
    while True:
        waiting = [job for job in jobs if not (work / job.name / "claimed").exists()]
        ready = [
            job
            for job in waiting
            if all((work / name / SUMMARY_FILE).exists() for name in (*job.teachers, *filter(None, [job.start])))
        ]
        ready = [job for job in ready if time.time() + job.seconds < deadline]
        if not ready:
            if not waiting or time.time() + min(job.seconds for job in waiting) > deadline:
                return
            time.sleep(0.5)
            continue
        job = ready[0]
        (work / job.name).mkdir(exist_ok=True)
        try:
            os.close(os.open(work / job.name / "claimed", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        finish(job, faces, work, device)


def finish(job: Job, faces: Faces, work: Path, device: torch.device) -> None:
    """Train a job and write its folder; the summary comes last and says that the rest is whole."""
    training = Training(job, faces, work, device)
    history = pd.DataFrame(training.run())
    folder = work / job.name
    history.to_csv(folder / HISTORY_FILE, index=False, float_format="%.6g")
    save_half(training.averaged, folder / WEIGHTS_FILE)
    answers = training.predict(faces.pixels[torch.from_numpy(faces.splits["validation"]).to(device)])
    np.savez_compressed(folder / PREDICTIONS_FILE, **{k: v.astype(np.float16) for k, v in answers.items()})
    about = {"job": asdict(job), "torch": torch.__version__, "steps": training.total_steps}
    about["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    about |= history.iloc[-1].to_dict()
    (folder / SUMMARY_FILE).write_text(json.dumps(about, indent=1))
    print(job.name, {k: round(v, 4) for k, v in history.iloc[-1].items()}, flush=True)


def bundle(jobs: list[Job], work: Path, out: Path) -> None:
    """One archive of all finished jobs, cut into parts that may travel: ``cat part.* | tar x``."""
    archive = work / "finished.tar"
    with tarfile.open(archive, "w") as tar:
        for job in jobs:
            folder = work / job.name
            if (folder / SUMMARY_FILE).exists():
                for name in (SUMMARY_FILE, HISTORY_FILE, PREDICTIONS_FILE, *([WEIGHTS_FILE] if job.keep else [])):
                    tar.add(folder / name, f"{job.name}/{name}")
    content = archive.read_bytes()
    for index, start in enumerate(range(0, len(content), PART_BYTES)):
        (out / f"part.{index:02d}").write_bytes(content[start : start + PART_BYTES])


def main() -> None:
    """Prepare once, start the workers, and bring back what is finished."""
    start = time.time()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=Path, help="JSON: a list of jobs")
    parser.add_argument("--pack", type=Path, required=True, help="folder made by agr_lab.gpu.pack")
    parser.add_argument("--work", type=Path, required=True, help="folder that stays on the machine")
    parser.add_argument("--out", type=Path, required=True, help="folder that is brought back")
    parser.add_argument("--workers", type=int, default=3, help="processes that share the device")
    parser.add_argument("--seconds", type=float, default=420, help="until everything must be written")
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)  # of a worker
    options = parser.parse_args()
    jobs = [job_from(content) for content in json.loads(options.jobs.read_text())]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.deadline:
        torch.backends.cudnn.benchmark = True
        work_off(jobs, options.work, options.deadline, device)
        return
    prepare(options.pack, options.work)
    for claimed in options.work.glob("*/claimed"):  # of a machine or a call that ended in mid-job
        if not (claimed.parent / SUMMARY_FILE).exists():
            claimed.unlink()
    print(f"prepared after {time.time() - start:.0f} s", flush=True)
    command = [sys.executable, "-m", "agr_lab.gpu.train", *sys.argv[1:], "--deadline", str(start + options.seconds)]
    workers = [subprocess.Popen(command) for _ in range(options.workers)]
    codes = [worker.wait() for worker in workers]
    bundle(jobs, options.work, options.out)
    print(f"ended after {time.time() - start:.0f} s, exit codes {codes}", flush=True)


if __name__ == "__main__":
    main()

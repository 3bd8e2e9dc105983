"""Train a list of models on an accelerator that is lent for minutes.

The faces lie on the device as bytes and are changed there, so nothing waits for a data loader. Several trainings share
the device. A job is finished or not at all: what the time did not allow is trained at the next chance, and finished
jobs are left alone.

    python -m agr_lab.gpu.train jobs.json --pack pack --work work --out out --slots 6 --seconds 420
    python -m agr_lab.gpu.train protocol --pack pack --work work --out out --finished trials.csv --seconds 420
"""

import argparse
import json
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import torch

from agr_lab.gpu import jobs, protocol
from agr_lab.gpu.augment import Changes
from agr_lab.gpu.jobs import Job
from agr_lab.gpu.pack import save_half, unpack_faces
from agr_lab.gpu.training import Faces, Training
from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from agr_utils.deploy.calibrate import QUANTILES
from agr_utils.machine import describe_hardware
from agr_utils.models.network import age_quantiles

PART_BYTES = 15 * 2**20
Plan = Callable[[dict[str, dict]], list[Job]]


def make_harsh(pixels: np.ndarray) -> np.ndarray:
    """Each face (N, S, S, 3) uint8 seen by a worse camera: turned, cropped, with one corruption; always the same."""
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


def prepare(pack: Path, work: Path, harsh: bool) -> None:
    """Decode the pack and, where it is asked for, make the harsh validation split; once per machine."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / jobs.PIXELS_FILE).exists():
        pixels, faces = unpack_faces(pack)
        faces.to_parquet(work / jobs.FACES_FILE)
        np.save(work / jobs.PIXELS_FILE, pixels)
    if harsh and not (work / jobs.HARSH_FILE).exists():
        pixels, faces = np.load(work / jobs.PIXELS_FILE), pd.read_parquet(work / jobs.FACES_FILE)
        validation = pixels[np.flatnonzero(faces["split"] == "validation")]
        with ProcessPoolExecutor() as pool:
            changed = np.concatenate(list(pool.map(make_harsh, np.array_split(validation, min(32, len(validation))))))
        np.save(work / jobs.HARSH_FILE, changed)


class Shift:
    """One call's work: which job is next, and whether it can still be finished."""

    def __init__(self, plan: Plan, work: Path, deadline: float, before: dict[str, dict]):
        self.plan, self.work, self.deadline = plan, work, deadline
        self.lock, self.running, self.failed, self.paces = Lock(), set(), set(), known_paces(before.values())
        here = {path.parent.name: json.loads(path.read_text()) for path in work.glob(f"*/{jobs.SUMMARY_FILE}")}
        self.finished = before | here
        self.trained: list[Job] = []

    def seconds(self, job: Job) -> float:
        """What a job will take: by the pace of others of its architecture and size, or else by its own estimate."""
        pace = self.paces.get((job.backbone, job.image_size))
        return job.seconds if pace is None else pace * job.epochs * 1.1 + 3

    def next_job(self) -> Job | None:
        """Claim the first open job whose needs are finished and that fits the time; None where no job ever will."""
        while True:
            with self.lock:
                taken = self.finished.keys() | self.running | self.failed
                waiting = [job for job in self.plan(self.finished) if job.name not in taken]
                fitting = [job for job in waiting if time.time() + self.seconds(job) < self.deadline]
                for job in fitting:
                    if all(name in self.finished for name in (*job.teachers, *filter(None, [job.start]))):
                        self.running.add(job.name)
                        return job
                if not self.running or time.time() > self.deadline:
                    return None
            time.sleep(0.2)  # what runs may open other jobs

    def work_off(self, faces: Faces, device: torch.device) -> None:
        """Train what is open, one job after the other."""
        while job := self.next_job():
            start = time.time()
            try:
                about = finish(job, faces, self.work, device, self.deadline)
            except TimeoutError:
                print(f"{job.name}: out of time, left for the next chance", flush=True)
                return
            except Exception:  # noqa: BLE001 - what others reach in these minutes must not be lost with one
                traceback.print_exc()
                with self.lock:
                    self.running.discard(job.name)
                    self.failed.add(job.name)
                continue
            with self.lock:
                self.paces[job.backbone, job.image_size] = (time.time() - start) / job.epochs
                self.running.discard(job.name)
                self.finished[job.name] = about
                self.trained.append(job)


def known_paces(finished: Iterable[Mapping]) -> dict[tuple[str, int], float]:
    """Seconds per epoch of each architecture and image size, from rows of ``agr_lab.gpu.trials``."""
    table = pd.DataFrame(finished, columns=["backbone", "image_size", "epochs", "seconds"])
    sums = table.groupby(["backbone", "image_size"])[["seconds", "epochs"]].sum()
    return (sums["seconds"] / sums["epochs"]).to_dict()


def finish(job: Job, faces: Faces, work: Path, device: torch.device, deadline: float) -> dict:
    """Train a job and write its folder; the summary comes last and says that the rest is whole.

    Raises:
        TimeoutError: where the training does not end before ``deadline``, in seconds since 1970.
    """
    training = Training(job, faces, work, device)
    history = pd.DataFrame(training.run(deadline))
    folder = work / job.name
    folder.mkdir(exist_ok=True)
    history.to_csv(folder / jobs.HISTORY_FILE, index=False, float_format="%.6g")
    save_half(training.averaged, folder / jobs.WEIGHTS_FILE)
    for split in job.predict:
        np.savez_compressed(
            folder / f"{split}_{jobs.PREDICTIONS_FILE}", **short_answers(training.predict(faces.splits[split]))
        )
    about = {"job": asdict(job), "torch": torch.__version__, "steps": training.total_steps}
    about["device"] = torch.cuda.get_device_name() if device.type == "cuda" else describe_hardware()["cpu"]
    about["precision"] = "bf16" if device.type in job.bf16 else "fp32"
    about |= history.iloc[-1].to_dict()
    (folder / jobs.SUMMARY_FILE).write_text(json.dumps(about, indent=1))
    print(job.name, {k: round(v, 4) for k, v in history.iloc[-1].items()}, flush=True)
    return about


def short_answers(answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What measures need of the probabilities: mean age (float32), its quantiles, classes (float16)."""
    short = {task: answers[task].astype(np.float16) for task in answers if task != "age"}
    if "age" in answers:
        belief = torch.from_numpy(answers["age"])
        levels = torch.from_numpy(QUANTILES).float().expand(len(belief), -1)
        short["age_mean"] = (answers["age"] @ np.arange(belief.shape[1])).astype(np.float32)
        short["age_quantiles"] = torch.cat(
            [age_quantiles(*p) for p in zip(belief.split(512), levels.split(512), strict=True)]
        )
        short["age_quantiles"] = short["age_quantiles"].numpy().astype(np.float16)
    return short


def bundle(finished: list[Job], work: Path, out: Path) -> None:
    """One archive of finished jobs, cut into parts that may travel: ``cat part.* | tar x``.

    Weights come last, so that an archive whose end was too much to travel has lost only them.
    """
    archive = work / "finished.tar"
    kept = {job.name for job in finished if job.keep}
    with tarfile.open(archive, "w") as tar:
        paths = [path for job in finished for path in sorted((work / job.name).iterdir())]
        for path in sorted(paths, key=lambda path: path.name == jobs.WEIGHTS_FILE):
            if path.name != jobs.WEIGHTS_FILE or path.parent.name in kept:
                tar.add(path, f"{path.parent.name}/{path.name}")
    content = archive.read_bytes()
    for index, start in enumerate(range(0, len(content), PART_BYTES)):
        (out / f"part.{index:02d}").write_bytes(content[start : start + PART_BYTES])


def main() -> None:
    """Prepare once, train side by side, and bring back what is finished."""
    start = time.time()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", help="JSON file with a list of jobs, or 'protocol' for those of docs/protocol_2.md")
    parser.add_argument("--pack", type=Path, required=True, help="folder made by agr_lab.gpu.pack")
    parser.add_argument("--work", type=Path, required=True, help="folder that stays on the machine")
    parser.add_argument("--out", type=Path, required=True, help="folder that is brought back")
    parser.add_argument("--finished", type=Path, help="table of trainings finished before (agr_lab.gpu.trials)")
    parser.add_argument("--slots", type=int, default=6, help="trainings side by side")
    parser.add_argument("--seconds", type=float, default=420, help="until everything must be written")
    options = parser.parse_args()
    if options.jobs == "protocol":
        plan, harsh = protocol.plan, False
    else:
        listed, harsh = [jobs.job_from(content) for content in json.loads(Path(options.jobs).read_text())], True
        plan = lambda finished: listed  # noqa: E731
    prepare(options.pack, options.work, harsh)
    print(f"prepared after {time.time() - start:.0f} s", flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sys.setswitchinterval(0.0005)  # a thread that has a graph to start does not wait for one that builds a network
    before = pd.read_csv(options.finished, index_col="trial").to_dict("index") if options.finished else {}
    shift, faces = Shift(plan, options.work, start + options.seconds, before), Faces(options.work, device)
    with ThreadPoolExecutor(options.slots) as pool:
        for outcome in [pool.submit(shift.work_off, faces, device) for _ in range(options.slots)]:
            outcome.result()
    bundle(shift.trained, options.work, options.out)
    print(f"{len(shift.trained)} jobs, ended after {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()

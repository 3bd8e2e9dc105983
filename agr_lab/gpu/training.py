"""One training with its faces on the device, whose whole step is recorded once and then replayed.

Small networks keep an accelerator idle: a step is two thousand short kernels, and starting each from Python takes
longer than the kernel. A CUDA graph starts them all at once, and graphs of several trainings fill the chip side by
side. So a step here is nothing but work on the device: faces, learning rate and decay of every step are looked up in
tables by a counter that lies there too. On a CPU the same step runs as it is written.
"""

import copy
import gc
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import RLock

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from agr_lab.gpu.augment import Changes
from agr_lab.gpu.jobs import FACES_FILE, HARSH_FILE, PIXELS_FILE, SUMMARY_FILE, WEIGHTS_FILE, Job, job_from
from agr_utils.data.augment import Augmentation, augment
from agr_utils.models.network import MultiTaskNet, expected_age, normalize
from agr_utils.training.losses import AGE_MEAN_WEIGHT, AGE_SIGMA, LABEL_SMOOTHING, age_target
from agr_utils.training.predictions import predict_probabilities

NUM_AHEAD = 16  # steps that are handed to the device before the oldest is waited for
_BUILDING = RLock()  # initial weights come from torch's global generator
_RECORDER = ThreadPoolExecutor(1)  # one recording at a time, on a thread that does nothing else


class Faces:
    """Pixels and targets of a packed data set, on the device."""

    def __init__(self, folder: Path, device: torch.device):
        self.table = pd.read_parquet(folder / FACES_FILE)
        self.pixels = torch.from_numpy(np.load(folder / PIXELS_FILE)).to(device)
        self.harsh = (
            torch.from_numpy(np.load(folder / HARSH_FILE)).to(device) if (folder / HARSH_FILE).exists() else None
        )
        self.splits = {name: np.flatnonzero(self.table["split"] == name) for name in ("train", "validation", "test")}
        columns = [self.table[name].to_numpy(dtype=np.float32, na_value=np.nan) for name in ("age_min", "age_max")]
        age = age_target(*(torch.from_numpy(column) for column in columns), AGE_SIGMA)
        self.targets = {"age": age.nan_to_num(0)}
        for task, width in (("gender", 2), ("race", int(self.table["race"].max()) + 1)):
            codes = self.table[task].astype("Int64").fillna(-1).to_numpy(dtype=np.int64)
            target = torch.full((len(codes), width), LABEL_SMOOTHING / width)
            target[torch.arange(len(codes)), torch.from_numpy(codes)] += 1 - LABEL_SMOOTHING
            self.targets[task] = target * torch.from_numpy(codes >= 0)[:, None]  # a missing label asks for nothing
        self.targets = {task: target.to(device) for task, target in self.targets.items()}
        self.resized = {self.pixels.shape[1]: self.pixels}

    def at(self, size: int) -> Tensor:
        """(N, size, size, 3) uint8, resized once."""
        with _BUILDING:
            if size not in self.resized:
                self.resized[size] = torch.cat([to_bytes(part, size) for part in self.pixels.split(2048)])
                if self.pixels.is_cuda:
                    torch.cuda.synchronize()  # other streams may read it from now on
        return self.resized[size]


def to_bytes(pixels: Tensor, size: int) -> Tensor:
    """(B, H, W, 3) uint8 to (B, size, size, 3) uint8, smoothed as it shrinks."""
    images = F.interpolate(pixels.permute(0, 3, 1, 2).float(), size=size, mode="bilinear", antialias=True)
    return images.round().byte().permute(0, 2, 3, 1).contiguous()


def to_images(pixels: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 in [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 255


class Dropout(nn.Module):
    """Dropout whose numbers come from the training's own generator, so that trainings side by side stay apart."""

    def __init__(self, share: float, generator: Generator):
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not self.training or not self.share:
            return x
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.share
        return x * kept / (1 - self.share)


def soft_losses(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy to each task's target distribution; for the age also a smooth L1 between the means (DLDL-v2)."""
    losses = {task: F.cross_entropy(values, targets[task]) for task, values in logits.items()}
    if "age" in losses:
        means = expected_age(logits["age"].softmax(dim=1)), expected_age(targets["age"])
        losses["age"] = losses["age"] + AGE_MEAN_WEIGHT * F.smooth_l1_loss(*means)
    return losses


class Training:
    """One job on one device."""

    def __init__(self, job: Job, faces: Faces, work: Path, device: torch.device):
        self.job, self.faces, self.device = job, faces, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with self.on_stream():
            with _BUILDING:
                torch.manual_seed(job.seed)
                model = load_finished(work, job.start, device) if job.start else build(job)
            self.model = model.requires_grad_(True).to(device, memory_format=torch.channels_last)
            self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
            self.generator = Generator(device).manual_seed(job.seed)
            self.model.train().dropout = Dropout(job.dropout, self.generator)
            self.changes = Changes(self.generator, job.changes) if job.changes else None
            self.teachers = [load_finished(work, name, device) for name in job.teachers]
            self.prepare_tables()
            self.pixels = faces.pixels if self.changes else faces.at(job.image_size)
            self.optimizer = torch.optim.AdamW(
                parameter_groups(self.model, job, device), fused=True, capturable=self.stream is not None
            )
            own, averaged = (list(m.state_dict().values()) for m in (self.model, self.averaged))
            pairs = [(a, b) for a, b in zip(averaged, own, strict=True) if a.is_floating_point()]
            self.averaged_tensors, self.own_tensors = ([pair[side] for pair in pairs] for side in (0, 1))

    def on_stream(self) -> torch.cuda.StreamContext | nullcontext:
        """Work of this training, in order, beside that of others."""
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def autocast(self) -> torch.autocast:
        """bfloat16 in the forward pass, where the job says so."""
        kind = self.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind in self.job.bf16, cache_enabled=False)

    def prepare_tables(self) -> None:
        """What differs from step to step, for every step: faces, learning rate, decay of the average."""
        job, rows, random = self.job, self.faces.splits["train"], np.random.default_rng(self.job.seed)
        self.steps_per_epoch = len(rows) // job.batch_size
        self.total_steps = max(1, int(self.steps_per_epoch * job.epochs))
        orders = [random.permutation(rows) for _ in range(math.ceil(self.total_steps / self.steps_per_epoch))]
        order = np.concatenate([o[: self.steps_per_epoch * job.batch_size] for o in orders]).reshape(-1, job.batch_size)
        steps, warmup = np.arange(self.total_steps), max(1, self.total_steps // 20)
        after = (steps - warmup) / max(1, self.total_steps - warmup)
        factor = np.where(steps < warmup, (steps + 1) / warmup, 0.5 * (1 + np.cos(np.pi * after)))
        renewal = 1 - np.minimum(job.ema, (steps + 1) / (steps + 10))
        self.order = torch.from_numpy(order).to(self.device)
        self.table = torch.from_numpy(np.stack([factor, renewal], axis=1).astype(np.float32)).to(self.device)
        self.clock = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(len(self.model.tasks), device=self.device)

    def run(self, deadline: float = math.inf) -> list[dict]:
        """Train to the end, or to a TimeoutError; rows of the averaged weights' errors on the validation split."""
        history, start, evaluated, graph = [], time.perf_counter(), 0.0, None
        count = max(1, self.total_steps // self.job.evaluations)
        with self.on_stream():
            for step in range(self.total_steps):
                if self.stream is None:
                    self.step()
                elif step == 0:
                    graph = _RECORDER.submit(self.record).result()
                else:
                    graph.replay()
                if self.stream and step % NUM_AHEAD == 0:
                    self.stream.synchronize()
                if time.time() > deadline:
                    raise TimeoutError(f"{self.job.name}: step {step} of {self.total_steps}")
                if (step + 1) % count == 0 or step + 1 == self.total_steps:
                    since = step + 1 - (history[-1]["step"] if history else 0)
                    losses = zip((f"train_{task}" for task in self.model.tasks), self.sums.tolist(), strict=True)
                    clock = time.perf_counter()
                    row = {"step": step + 1} | {name: total / since for name, total in losses} | self.evaluate()
                    evaluated += time.perf_counter() - clock
                    seconds = time.perf_counter() - start - evaluated
                    row |= {"seconds": seconds, "images_per_second": (step + 1) * self.job.batch_size / seconds}
                    history.append(row)
                    self.sums.zero_()
        return history

    def record(self) -> "torch.cuda.CUDAGraph":
        """The first step as it is written, which allocates and chooses algorithms, then the graph of all others."""
        free, total = torch.cuda.mem_get_info()
        if free < total / 3:
            torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        gc.disable()  # what it frees in mid-recording would end the recording
        with torch.cuda.stream(self.stream):
            self.step()
            self.stream.synchronize()
            graph.capture_begin(capture_error_mode="thread_local")
            self.step()
            graph.capture_end()
        gc.enable()
        return graph

    def step(self) -> None:
        """One optimizer step, without a word to the host."""
        job, faces = self.job, self.faces
        rows = self.order.index_select(0, self.clock)[0]  # (B,)
        factor, renewal = self.table.index_select(0, self.clock)[0].unbind()
        if self.changes:
            images = self.changes(to_images(self.pixels[rows]), job.image_size)
        else:
            images = augment(to_images(self.pixels[rows]), Augmentation(), self.generator)
        targets = {task: faces.targets[task][rows] for task in self.model.tasks}
        images = normalize(images).contiguous(memory_format=torch.channels_last)
        if self.teachers:
            answers = mean_answer(self.teachers, images)
            targets = {task: torch.lerp(target, answers[task], job.teacher_share) for task, target in targets.items()}
        for group in self.optimizer.param_groups:
            torch.mul(group["peak"], factor, out=group["lr"])
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.model(images)
        losses = soft_losses(logits, targets)
        sum(loss * job.task_weights.get(task, 1.0) for task, loss in losses.items()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        difference = torch._foreach_sub(self.own_tensors, self.averaged_tensors)
        torch._foreach_mul_(difference, renewal)
        torch._foreach_add_(self.averaged_tensors, difference)
        self.sums += torch.stack([loss.detach() for loss in losses.values()])
        self.clock += 1

    def evaluate(self) -> dict[str, float]:
        """Error on the validation split as it is, and on its harsh copy where there is one."""
        rows = self.faces.splits["validation"]
        table = self.faces.table.iloc[rows]
        scores = {f"validation_{k}": v for k, v in score(self.predict(rows), table).items()}
        if self.faces.harsh is not None:
            answers = self.predict_pixels(to_bytes(self.faces.harsh, self.job.image_size))
            scores |= {f"harsh_{k}": v for k, v in score(answers, table).items()}
        return scores

    def predict(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """``predict_pixels`` of some faces."""
        with self.on_stream():
            return self.predict_pixels(self.faces.at(self.job.image_size)[torch.from_numpy(rows).to(self.device)])

    def predict_pixels(self, pixels: Tensor) -> dict[str, np.ndarray]:
        """Probabilities of each task, averaged over a picture and its mirror image."""
        with self.autocast():
            parts = [predict_probabilities(self.averaged, to_images(chunk)) for chunk in pixels.split(512)]
        return {task: torch.cat([part[task] for part in parts]).cpu().numpy() for task in self.model.tasks}


@torch.no_grad()
def mean_answer(models: Sequence[nn.Module], images: Tensor) -> dict[str, Tensor]:
    """Probabilities of each task, averaged over models."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda, cache_enabled=False):
        logits = [model(images) for model in models]
    return {task: sum(one[task].float().softmax(dim=1) for one in logits) / len(logits) for task in logits[0]}


def build(job: Job) -> MultiTaskNet:
    """The job's network, with its initial weights."""
    model = MultiTaskNet(job.backbone, "utkface", job.tasks, dropout=job.dropout)
    if job.initial:
        model.backbone.load_state_dict({k: v.float() for k, v in load_file(job.initial).items()}, strict=False)
    return model


def load_finished(work: Path, name: str, device: torch.device) -> nn.Module:
    """The network of a finished job with its averaged weights, in evaluation mode."""
    job = job_from(json.loads((work / name / SUMMARY_FILE).read_text())["job"])
    model = MultiTaskNet(job.backbone, "utkface", job.tasks, dropout=job.dropout)
    model.load_state_dict({k: v.float() for k, v in load_file(work / name / WEIGHTS_FILE).items()}, strict=False)
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def parameter_groups(model: MultiTaskNet, job: Job, device: torch.device) -> list[dict]:
    """Matrices decay, vectors do not; the heads have their own learning rate."""
    groups = {}
    for name, parameter in model.named_parameters():
        peak = job.learning_rate * (job.head_factor if name.startswith("heads.") else 1)
        decay = job.weight_decay if parameter.ndim > 1 else 0.0
        rates = {"lr": torch.zeros((), device=device), "peak": torch.tensor(peak, device=device)}
        groups.setdefault((peak, decay), {"params": [], "weight_decay": decay} | rates)["params"].append(parameter)
    return list(groups.values())


def score(probabilities: dict[str, np.ndarray], table: pd.DataFrame) -> dict[str, float]:
    """MAE in years, gender and race accuracy, over the faces that have the label: of the tasks that are answered."""
    scores = {}
    if "age" in probabilities:
        age = probabilities["age"] @ np.arange(probabilities["age"].shape[1])
        scores["mae"] = float(np.nanmean(np.abs(age - table["age"].to_numpy(dtype=float, na_value=np.nan))))
    for task in (name for name in probabilities if name != "age"):
        known = table[task].notna().to_numpy()
        right = probabilities[task].argmax(axis=1)[known] == table[task].to_numpy(dtype=float, na_value=np.nan)[known]
        scores[task] = float(right.mean())
    return scores

"""One training with its faces on the device: targets that may be soft, teachers, averaged weights."""

import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from agr_lab.gpu.augment import Changes
from agr_lab.gpu.jobs import FACES_FILE, HARSH_FILE, PIXELS_FILE, SUMMARY_FILE, WEIGHTS_FILE, Job, job_from
from agr_utils.data.augment import Augmentation, augment
from agr_utils.models.network import MultiTaskNet, expected_age, normalize
from agr_utils.training.losses import AGE_MEAN_WEIGHT, AGE_SIGMA, LABEL_SMOOTHING, age_target


class Faces:
    """Pixels and targets of a packed data set, on the device."""

    def __init__(self, folder: Path, device: torch.device):
        self.table = pd.read_parquet(folder / FACES_FILE)
        self.pixels = torch.from_numpy(np.load(folder / PIXELS_FILE)).to(device)
        self.harsh = torch.from_numpy(np.load(folder / HARSH_FILE)).to(device)
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

    def images(self, rows: Tensor) -> Tensor:
        """(B, 3, S, S) float32 in [0, 1]."""
        return self.pixels[rows].permute(0, 3, 1, 2).float() / 255


def soft_losses(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy to each task's target distribution; for the age also a smooth L1 between the means (DLDL-v2)."""
    losses = {task: F.cross_entropy(values, targets[task]) for task, values in logits.items()}
    means = expected_age(logits["age"].softmax(dim=1)), expected_age(targets["age"])
    losses["age"] = losses["age"] + AGE_MEAN_WEIGHT * F.smooth_l1_loss(*means)
    return losses


class Training:
    """One job on one device."""

    def __init__(self, job: Job, faces: Faces, work: Path, device: torch.device):
        self.job, self.faces, self.device = job, faces, device
        torch.manual_seed(job.seed)
        model = load_finished(work, job.start, device) if job.start else build(job)
        self.model = model.requires_grad_(True).to(device, memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.teachers = [load_finished(work, name, device) for name in job.teachers]
        self.generator = torch.Generator(device).manual_seed(job.seed)
        self.cpu_generator = torch.Generator().manual_seed(job.seed)
        self.changes = Changes(self.generator, job.changes)
        self.rows = faces.splits["train"]
        self.steps_per_epoch = len(self.rows) // job.batch_size
        self.total_steps = int(self.steps_per_epoch * job.epochs)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, job), fused=device.type == "cuda")
        self.random = np.random.default_rng(job.seed)
        self.weights = age_weights(faces.table["age"].to_numpy(dtype=float, na_value=np.nan)[self.rows], job.even_ages)

    def run(self) -> list[dict]:
        """Train to the end; one row per quarter of the schedule, of the averaged weights on the validation split."""
        history, start, evaluated = [], time.perf_counter(), 0.0
        sums = torch.zeros(3, device=self.device)
        order = self.epoch_order()
        for step in range(self.total_steps):
            place = step % self.steps_per_epoch
            if step and place == 0:
                order = self.epoch_order()
            rows = order[place * self.job.batch_size : (place + 1) * self.job.batch_size]
            sums += self.step(step, torch.from_numpy(rows).to(self.device))
            if (step + 1) % max(1, self.total_steps // 4) == 0 or step + 1 == self.total_steps:
                losses = (sums / max(1, self.total_steps // 4)).tolist()
                clock = time.perf_counter()
                row = {"step": step + 1, **dict(zip(("train_age", "train_gender", "train_race"), losses, strict=True))}
                row |= {f"{k}": v for k, v in self.evaluate().items()}
                evaluated += time.perf_counter() - clock
                seconds = time.perf_counter() - start - evaluated
                row |= {"seconds": seconds, "images_per_second": (step + 1) * self.job.batch_size / seconds}
                history.append(row)
                sums.zero_()
        return history

    def epoch_order(self) -> np.ndarray:
        """Rows of an epoch: each once, or as often as their age is rare."""
        if self.weights is None:
            return self.random.permutation(self.rows)
        return self.random.choice(self.rows, len(self.rows), p=self.weights)

    def step(self, step: int, rows: Tensor) -> Tensor:
        """One optimizer step; the three losses, detached."""
        job, faces = self.job, self.faces
        images = faces.images(rows)
        if job.changes:
            images = self.changes(images, job.image_size)
        else:
            images = F.interpolate(images, size=job.image_size, mode="bilinear", antialias=True)
            images = augment(images, Augmentation(), self.cpu_generator)
        targets = {task: target[rows] for task, target in faces.targets.items()}
        if self.random.random() < job.mixup:
            share, partner = self.random.beta(0.4, 0.4), torch.roll(torch.arange(len(rows), device=self.device), 1)
            images = torch.lerp(images[partner], images, share)
            targets = {task: torch.lerp(target[partner], target, share) for task, target in targets.items()}
        images = normalize(images).contiguous(memory_format=torch.channels_last)
        if self.teachers:
            answers = mean_answer(self.teachers, images)
            targets = {task: torch.lerp(target, answers[task], job.teacher_share) for task, target in targets.items()}
        self.set_learning_rate(step)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(images)
        losses = soft_losses(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        decay = min(job.ema, (step + 1) / (step + 10))
        own, averaged = (list(m.state_dict().values()) for m in (self.model, self.averaged))
        pairs = [(a, b) for a, b in zip(averaged, own, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - decay)
        return torch.stack([losses[task].detach() for task in ("age", "gender", "race")])

    def set_learning_rate(self, step: int) -> None:
        """Linear warm-up over a twentieth of the schedule, then half a cosine to 0."""
        warmup = max(1, self.total_steps // 20)
        after = (step - warmup) / max(1, self.total_steps - warmup)
        factor = (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * after))
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]

    def evaluate(self) -> dict[str, float]:
        """Error on the validation split as it is, and on its harsh copy."""
        rows = self.faces.splits["validation"]
        table = self.faces.table.iloc[rows]
        plain = score(self.predict(self.faces.pixels[torch.from_numpy(rows).to(self.device)]), table)
        harsh = score(self.predict(self.faces.harsh), table)
        return {f"validation_{k}": v for k, v in plain.items()} | {f"harsh_{k}": v for k, v in harsh.items()}

    def predict(self, pixels: Tensor) -> dict[str, np.ndarray]:
        """Probabilities of each task, averaged over a picture and its mirror image."""
        parts = []
        for images in pixels.split(512):
            images = images.permute(0, 3, 1, 2).float() / 255
            images = F.interpolate(images, size=self.job.image_size, mode="bilinear", antialias=True)
            images = normalize(images).contiguous(memory_format=torch.channels_last)
            parts.append(mean_answer([self.averaged], torch.cat([images, images.flip(3)])))
        halves = {task: [part[task].unflatten(0, (2, -1)).mean(dim=0) for part in parts] for task in parts[0]}
        return {task: torch.cat(values).cpu().numpy() for task, values in halves.items()}


@torch.no_grad()
def mean_answer(models: list[nn.Module], images: Tensor) -> dict[str, Tensor]:
    """Probabilities of each task, averaged over models."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        logits = [model(images) for model in models]
    return {task: sum(one[task].float().softmax(dim=1) for one in logits) / len(logits) for task in logits[0]}


def build(job: Job) -> MultiTaskNet:
    """The job's network, with its initial weights."""
    model = MultiTaskNet(job.backbone, "utkface", dropout=job.dropout)
    if job.initial:
        model.backbone.load_state_dict({k: v.float() for k, v in load_file(job.initial).items()}, strict=False)
    return model


def load_finished(work: Path, name: str, device: torch.device) -> nn.Module:
    """The network of a finished job with its averaged weights, in evaluation mode."""
    job = job_from(json.loads((work / name / SUMMARY_FILE).read_text())["job"])
    model = MultiTaskNet(job.backbone, "utkface", dropout=job.dropout)
    model.load_state_dict({k: v.float() for k, v in load_file(work / name / WEIGHTS_FILE).items()}, strict=False)
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def parameter_groups(model: MultiTaskNet, job: Job) -> list[dict]:
    """Matrices decay, vectors do not; the heads have their own learning rate."""
    groups = {}
    for name, parameter in model.named_parameters():
        peak = job.learning_rate * (job.head_factor if name.startswith("heads.") else 1)
        decay = job.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((peak, decay), {"params": [], "lr": 0.0, "peak": peak, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def age_weights(ages: np.ndarray, exponent: float) -> np.ndarray | None:
    """Probability with which each face is drawn: 1 / (faces within five years) to a power; None for each once."""
    if not exponent:
        return None
    counts = np.bincount(np.nan_to_num(ages, nan=30).astype(int), minlength=117)
    near = np.convolve(counts, np.ones(11), mode="same")
    weights = near[np.nan_to_num(ages, nan=30).astype(int)] ** -exponent
    return weights / weights.sum()


def score(probabilities: dict[str, np.ndarray], table: pd.DataFrame) -> dict[str, float]:
    """MAE in years, gender and race accuracy, over the faces that have the label."""
    age = probabilities["age"] @ np.arange(probabilities["age"].shape[1])
    scores = {"mae": float(np.nanmean(np.abs(age - table["age"].to_numpy(dtype=float, na_value=np.nan))))}
    for task in ("gender", "race"):
        known = table[task].notna().to_numpy()
        right = probabilities[task].argmax(axis=1)[known] == table[task].to_numpy(dtype=float, na_value=np.nan)[known]
        scores[task] = float(right.mean())
    return scores

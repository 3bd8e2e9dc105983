"""The training loop: read it in one sitting.

Every random choice of a step follows from (seed, step): the order of the images, their augmentation, dropout. So a run
that was stopped goes on from its last checkpoint exactly as if it had not been.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Generator, nn
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError
from tqdm import tqdm

from agr_utils.data.augment import augment
from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.models.backbones import get_backbone
from agr_utils.models.multitask import MultiTaskNet, expected_age, normalize
from agr_utils.runtime import atomic_path, seed_everything
from agr_utils.training.batches import Labels, epoch_order, load_pixels, split_batches
from agr_utils.training.checkpoints import flatten_optimizer, load_tensors, restore_optimizer, save_tensors
from agr_utils.training.config import TrainConfig
from agr_utils.training.losses import multitask_loss

STATE_FILE = "state.safetensors"
SAVE_EVERY_SECONDS = 300


class Trainer:
    """A run in progress: model, averaged weights, optimizer, schedule, and how far it has come.

    Args:
        config: what to train.
        data: with the splits ``train`` and ``validation``.
        output_dir: where to save the state and the history; None saves nothing.
    """

    def __init__(self, config: TrainConfig, data: FaceData, output_dir: Path | None = None):
        seed_everything(config.seed)
        self.config, self.data = config, data
        self.output_dir = Path(output_dir) if output_dir else None
        self.labels = Labels(data)
        self.train_rows, self.validation_rows = data.rows("train"), data.rows("validation")
        if len(self.train_rows) < config.batch_size:
            raise InputError(
                f"{len(self.train_rows)} training images are fewer than a batch of {config.batch_size}. "
                "Make the batch smaller or the data larger"
            )
        self.steps_per_epoch = len(self.train_rows) // config.batch_size  # a short last batch is left out
        self.step, self.history = 0, []

        model = MultiTaskNet(
            config.backbone, data.scheme.name, config.tasks, config.pretrained, config.dropout, config.drop_rate
        ).to(memory_format=torch.channels_last)
        self.weights_source = model.weights_source
        AcceleratorState._reset_state()  # a notebook trains several models, each at its own precision
        self.accelerator = Accelerator(mixed_precision=choose_precision(config))
        self.ema = ModelEmaV3(
            model.to(self.accelerator.device), decay=config.ema_decay, use_warmup=True, warmup_power=0.8
        )
        optimizer = torch.optim.AdamW(
            param_groups_weight_decay(model, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        total_steps = config.num_epochs * self.steps_per_epoch
        self.scheduler = CosineLRScheduler(
            optimizer,
            t_initial=total_steps,
            warmup_t=min(int(config.warmup_epochs * self.steps_per_epoch), total_steps // 4),
            warmup_lr_init=config.learning_rate / 25,
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self.scheduler.step_update(0)
        self.sums = {task: 0.0 for task in ("loss", *config.tasks)}  # of this epoch so far
        self.seconds = {"wall": 0.0, "cpu": 0.0}

    def run(self) -> pd.DataFrame:
        """Train from wherever the run stands to its end.

        Returns:
            The history, one row an epoch.
        """
        config, process = self.config, self.accelerator
        with tqdm(
            total=config.num_epochs * self.steps_per_epoch,
            initial=self.step,
            desc=config.backbone,
            unit="step",
            disable=None if process.is_main_process else True,
        ) as progress:
            while self.step < config.num_epochs * self.steps_per_epoch:
                self._run_epoch(progress)
                self._finish_epoch(progress)
        return self.history_table()

    def _run_epoch(self, progress: tqdm) -> None:
        """Train the steps that are left of the current epoch."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order = epoch_order(self.train_rows, self.config.seed, epoch)
        batches = list(split_batches(order, self.config.batch_size))[first : self.steps_per_epoch]
        clock, cpu_clock = time.perf_counter(), time.process_time()
        last_save = clock
        self.model.train()
        for rows in batches:
            losses = self.train_step(rows)
            for name, value in losses.items():
                self.sums[name] += value
            self.step += 1
            progress.update()
            if time.perf_counter() - last_save > SAVE_EVERY_SECONDS:
                self._add_time(clock, cpu_clock)
                clock, cpu_clock = time.perf_counter(), time.process_time()
                self.save()
                last_save = clock
        self._add_time(clock, cpu_clock)

    def _add_time(self, clock: float, cpu_clock: float) -> None:
        self.seconds["wall"] += time.perf_counter() - clock
        self.seconds["cpu"] += time.process_time() - cpu_clock

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step on this process's share of a batch; returns the losses."""
        process = self.accelerator
        seed = int(np.random.SeedSequence([self.config.seed, self.step, process.process_index]).generate_state(1)[0])
        torch.manual_seed(seed)  # dropout and stochastic depth
        rows = np.array_split(rows, process.num_processes)[process.process_index]
        images = load_pixels(self.data, rows, process.device)  # (B, 3, H, W)
        images = normalize(augment(images, self.config.augmentation, Generator().manual_seed(seed)))
        logits = self.model(images)
        loss, task_losses = multitask_loss(logits, self.labels.batch(rows, process.device), self.config.task_weights)
        self.optimizer.zero_grad()
        process.backward(loss)
        process.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self._step_schedules()
        return {"loss": loss.item()} | {task: value.item() for task, value in task_losses.items()}

    def _step_schedules(self) -> None:
        """After a step: move the learning rate and the averaged weights."""
        self.scheduler.step_update(self.step + 1)
        self.ema.update(self.accelerator.unwrap_model(self.model), step=self.step + 1)

    def _finish_epoch(self, progress: tqdm) -> None:
        """Validate the averaged weights, add a row to the history, save."""
        row = {"epoch": self.step // self.steps_per_epoch, "step": self.step}
        row |= {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        row |= {f"train_{name}": value / self.steps_per_epoch for name, value in self.sums.items()}
        row |= validate(self.ema.module, self.data, self.validation_rows, self.config.batch_size)
        row |= {"seconds": self.seconds["wall"], "cpu_seconds": self.seconds["cpu"]}
        row["images_per_second"] = self.steps_per_epoch * self.config.batch_size / self.seconds["wall"]
        self.history.append(row)
        progress.set_postfix({name: f"{row[name]:.3f}" for name in row if name.startswith("validation_")})
        self.sums = dict.fromkeys(self.sums, 0.0)
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self.save()

    def history_table(self) -> pd.DataFrame:
        """One row an epoch: losses in nats, MAE in years, accuracies in 0 to 1, seconds."""
        return pd.DataFrame(self.history)

    def save(self) -> None:
        """Write the whole state to the run folder (main process only)."""
        if self.output_dir is None or not self.accelerator.is_main_process:
            return
        tensors = {
            f"model.{key}": value for key, value in self.accelerator.unwrap_model(self.model).state_dict().items()
        }
        tensors |= {f"ema.{key}": value for key, value in self.ema.module.state_dict().items()}
        tensors |= flatten_optimizer(self.optimizer)
        about = {"step": self.step, "sums": self.sums, "seconds": self.seconds, "history": self.history}
        save_tensors(self.output_dir / STATE_FILE, tensors, about)
        with atomic_path(self.output_dir / "history.csv") as partial:
            self.history_table().to_csv(partial, index=False, float_format="%.6g")

    def resume(self) -> bool:
        """Go on from the state in the run folder; False if there is none."""
        if self.output_dir is None or not (self.output_dir / STATE_FILE).exists():
            return False
        tensors, about = load_tensors(self.output_dir / STATE_FILE)
        for prefix, module in {"model.": self.accelerator.unwrap_model(self.model), "ema.": self.ema.module}.items():
            weights = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            module.load_state_dict(weights)
        restore_optimizer(self.optimizer, tensors)
        self.step, self.sums, self.seconds = about["step"], about["sums"], about["seconds"]
        self.history = about["history"]
        self.scheduler.step_update(self.step)
        return True


def choose_precision(config: TrainConfig) -> str:
    """Precision in accelerate's terms: ``no``, ``bf16`` or ``fp16``."""
    precision = config.precision
    if precision == "auto" and torch.cuda.is_available():
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif precision == "auto":
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = get_backbone(config.backbone).cpu_precision if has_bf16 else "fp32"
    return "no" if precision == "fp32" else precision


@torch.inference_mode()
def validate(model: nn.Module, data: FaceData, rows: np.ndarray, batch_size: int) -> dict[str, float]:
    """MAE in years and accuracies of the labelled images among ``rows``, in float32, without augmentation."""
    model.eval()
    labels, device = Labels(data), next(model.parameters()).device
    metrics: dict[str, MeanAbsoluteError | MulticlassAccuracy] = {}
    for task in model.tasks:
        if task == "age":
            metrics["validation_age_mae"] = MeanAbsoluteError()
        else:
            classes = data.scheme.num_outputs(task)
            metrics[f"validation_{task}_accuracy"] = MulticlassAccuracy(classes, average="micro", ignore_index=-1)
    for batch_rows in split_batches(rows, 4 * batch_size):
        logits = model(normalize(load_pixels(data, batch_rows, device)))
        targets = labels.batch(batch_rows)
        for task in model.tasks:
            if task == "age":
                exact = targets["age_min"] == targets["age_max"]  # False for a band and for a missing label (NaN)
                if exact.any():
                    predicted = expected_age(logits["age"].softmax(dim=1)).cpu()
                    metrics["validation_age_mae"].update(predicted[exact], targets["age_min"][exact])
            else:
                metrics[f"validation_{task}_accuracy"].update(logits[task].cpu(), targets[task])
    return {name: metric.compute().item() for name, metric in metrics.items()}

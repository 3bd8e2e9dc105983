"""The training loop: read it in one sitting.

Every random choice of a step follows from (seed, step): the order of the images, their augmentation, dropout. So a run
that was stopped goes on from its last checkpoint exactly as if it had not been.
"""

import math
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Generator, Tensor
from tqdm import tqdm

from agr_utils.data.augment import augment
from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.machine import seed_everything
from agr_utils.models.backbones import zero_init_residual_
from agr_utils.models.network import MultiTaskNet, normalize
from agr_utils.run_files import STATE_FILE
from agr_utils.training.accelerator import create_accelerator, keep_freed_memory
from agr_utils.training.batches import Labels, digest_data, epoch_batches, load_pixels, steps_per_epoch
from agr_utils.training.config import TrainConfig
from agr_utils.training.guards import StopRequest, describe_bad_batch, explain_out_of_memory
from agr_utils.training.losses import UncertaintyWeights, gradient_cosines, summarize_cosines, task_losses, weighted_sum
from agr_utils.training.state import resume_trainer, save_trainer
from agr_utils.training.validation import check_data, validate


class Trainer:
    """A run in progress: model, averaged weights, optimizer, schedule, and how far it has come.

    Args:
        config: what to train.
        data: with the splits ``train`` and ``validation``.
        output_dir: where to save the state and the history; None saves nothing.
        save_minutes: between two saves within an epoch; at its end the state is always saved.
        tensorboard: also write the history as TensorBoard events into ``output_dir``.
        previous_precision: that the run was begun in, see ``choose_precision``.

    Raises:
        InputError: if the data is not the config's, no training image has the label of a task, there are fewer images
            than a batch holds, or TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: FaceData,
        output_dir: Path | None = None,
        save_minutes: float = 5.0,
        tensorboard: bool = False,
        previous_precision: str | None = None,
    ):
        keep_freed_memory()
        seed_everything(config.seed)
        self.config, self.data, self.save_minutes = config, data, save_minutes
        self.output_dir = Path(output_dir) if output_dir else None
        self.labels = Labels(data)
        self.train_rows, self.validation_rows = data.rows("train"), data.rows("validation")
        check_data(config, data, self.labels, self.train_rows)
        self.steps_per_epoch = steps_per_epoch(len(self.train_rows), config.batch_size)
        self.total_steps = max(1, round(config.num_epochs * self.steps_per_epoch))
        self.step, self.history = 0, []

        has_state = self.output_dir is not None and (self.output_dir / STATE_FILE).exists()
        model = build_model(config, has_weights=has_state)
        self.weights_source = model.weights_source
        self.accelerator = create_accelerator(config, self.output_dir, tensorboard, previous_precision)
        model = model.to(self.accelerator.device)
        self.ema = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True, warmup_power=0.8)
        groups = param_groups_weight_decay(model, config.weight_decay)
        self.balancing = None
        if config.balancing == "uncertainty":
            balancing = UncertaintyWeights(config.tasks).to(self.accelerator.device)
            groups.append({"params": list(balancing.parameters()), "weight_decay": 0.0})
            self.balancing = self.accelerator.prepare(balancing)
        if config.conflict_steps and self.accelerator.num_processes > 1:
            raise InputError("conflict_steps measures within one process. Train without accelerate launch")
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.network = model  # ``self.model`` may be wrapped, for several processes
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.scheduler = schedule(optimizer, config, self.total_steps, self.steps_per_epoch)
        self._start_epoch()

    @cached_property
    def data_digest(self) -> str:
        """Tells the images, pixels and labels that it trains and validates on; a state has it."""
        return digest_data(self.data, self.labels, self.config.tasks, self.train_rows, self.validation_rows)

    def _start_epoch(self) -> None:
        """Empty the sums of the epoch so far."""
        self.sums = {name: 0.0 for name in ("loss", *self.config.tasks, "steps", "images")}
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self.cosines: list[dict[str, float]] = []  # between the tasks' gradients, where they are measured

    def run(self) -> pd.DataFrame:
        """Train from wherever the run stands to its end; the history, one row per epoch.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved.
            InputError: if the loss is no longer finite, memory runs out or the state cannot be written.
        """
        progress = tqdm(
            total=self.total_steps,
            initial=self.step,
            desc=self.config.backbone,
            unit="step",
            disable=None if self.accelerator.is_main_process else True,
        )
        memory = explain_out_of_memory(self.config.batch_size, self.config.image_size)
        with progress, memory, StopRequest() as stop:
            is_end = self.step % self.steps_per_epoch == 0 or self.step == self.total_steps
            if self.sums["steps"] and is_end:  # stopped after its last step, before it was validated
                self._finish_epoch(progress)
            while self.step < self.total_steps:
                self._run_epoch(progress, stop)
                self._finish_epoch(progress)
        return self.history_table()

    def _run_epoch(self, progress: tqdm, stop: StopRequest) -> None:
        """Train the steps that are left of the current epoch."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        batches = epoch_batches(self.train_rows, self.config.seed, epoch, self.config.batch_size)
        last = min(self.steps_per_epoch, first + self.total_steps - self.step)
        self.model.train()
        last_save = time.perf_counter()
        for rows in batches[first:last]:
            clock, cpu_clock = time.perf_counter(), time.process_time()
            losses = self.train_step(rows)
            for name, value in (losses | {"steps": 1, "images": len(rows)}).items():
                self.sums[name] += value
            self.step += 1
            self.seconds["wall"] += time.perf_counter() - clock
            self.seconds["cpu"] += time.process_time() - cpu_clock
            progress.update()
            if self._should_stop(stop):
                self.save()
                go_on = f"saved in {self.output_dir}. Run the same command again to go on"
                saved = go_on if self.output_dir else "nothing saved: this run has no folder"
                raise KeyboardInterrupt(f"stopped after step {self.step} of {self.total_steps}, {saved}")
            if time.perf_counter() - last_save > 60 * self.save_minutes:
                self.save()
                last_save = time.perf_counter()

    def _should_stop(self, stop: StopRequest) -> bool:
        """Whether any process was asked to stop: all must stop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop.requested
        if stop.requested:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step on the rows of a batch, of which each process takes its share.

        Returns:
            The loss and that of each task: this process's part of the batch's mean.

        Raises:
            InputError: if the loss or the gradient is not finite. The batch is written down, the weights are as before.
        """
        images, labels = self.make_batch(rows)
        # Processes average their gradients, whatever their shares: weighed so, that is the mean over the batch.
        weight = len(images) * self.accelerator.num_processes / len(rows)
        try:
            return self.optimize(images, labels, weight)
        except FloatingPointError as error:
            image_ids = self.data.faces["image_id"].iloc[rows].tolist()
            rate = self.optimizer.param_groups[0]["lr"]
            raise InputError(describe_bad_batch(image_ids, self.step, rate, str(error), self.output_dir)) from error

    def make_batch(self, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's share of a batch: augmented, normalised images (b, 3, S, S) float32, and their labels."""
        process, config = self.accelerator, self.config
        seed = [config.seed, self.step]
        torch.manual_seed(_draw_seed(*seed, process.process_index))  # dropout and stochastic depth
        parts = np.array_split(np.arange(len(rows)), process.num_processes)[process.process_index]
        share = slice(parts[0], parts[-1] + 1) if len(parts) else slice(0, 0)
        images = load_pixels(self.data, rows[share], process.device)  # (b, 3, H, W)
        if config.early_size and self.step < config.early_share * self.total_steps:
            images = F.interpolate(images, size=config.early_size, mode="bilinear", antialias=True)
        generator = Generator().manual_seed(_draw_seed(*seed, 0))
        images = normalize(augment(images, config.augmentation, generator, share, len(rows)))
        return images, self.labels.batch(rows[share], process.device)

    def optimize(self, images: Tensor, labels: dict[str, Tensor], weight: float = 1.0) -> dict[str, float]:
        """Forward, backward, and one step of the optimizer, the schedule and the averaged weights.

        Args:
            images: (b, 3, S, S) float32, normalised.
            labels: see ``Labels.batch``.
            weight: of these images in the batch, which the returned loss and that of each task are multiplied by.

        Raises:
            FloatingPointError: before anything changes, if the loss or the gradient is not finite.
        """
        process = self.accelerator
        losses = task_losses(self.model(images), labels, self.config.age_head)
        loss = self.balancing(losses) if self.balancing else weighted_sum(losses, self.config.task_weights)
        values = {name: weight * value.item() for name, value in ({"loss": loss} | losses).items()}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if self.config.conflict_steps and self.step % self.config.conflict_steps == 0:
            self.cosines.append(gradient_cosines(losses, list(self.model.backbone.parameters())))
        self.optimizer.zero_grad()
        process.backward(weight * loss)
        norm = process.clip_grad_norm_(self.model.parameters(), 5.0)
        if process.scaler is None and not torch.isfinite(norm):  # a scaler (fp16) skips such steps by itself
            raise FloatingPointError(f"gradient norm {norm.item():.4g}")
        self.optimizer.step()
        self.scheduler.step_update(self.step + 1)
        self.ema.update(self.network, step=self.step + 1)
        return values

    def _finish_epoch(self, progress: tqdm) -> None:
        """Validate the averaged weights, add a row to the history, save."""
        process, names = self.accelerator, ("loss", *self.config.tasks)
        means = torch.tensor([self.sums[name] for name in names], device=process.device)
        means = process.reduce(means, "mean") / self.sums["steps"]
        epoch = round(self.step / self.steps_per_epoch, 2)  # a fraction where a time budget ends in mid-epoch
        row = {"epoch": epoch, "step": self.step, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        row |= {f"train_{name}": value for name, value in zip(names, means.tolist(), strict=True)}
        row |= self.validate(self.validation_rows)
        if self.balancing:
            weights = process.unwrap_model(self.balancing).weights()
            row |= {f"weight_{task}": value for task, value in weights.items()}
        row |= summarize_cosines(self.cosines)
        row |= {"seconds": self.seconds["wall"], "cpu_seconds": self.seconds["cpu"]}
        row["images_per_second"] = self.sums["images"] / self.seconds["wall"]
        self.history.append(row)
        process.log(row, step=self.step)
        progress.set_postfix({name: f"{row[name]:.3f}" for name in row if name.startswith("validation_")})
        self._start_epoch()
        self.save()

    def validate(self, rows: np.ndarray) -> dict[str, float]:
        """Metrics of the averaged weights on some rows, which the processes share out; see ``validation.validate``."""
        own = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        return validate(self.ema.module, self.data, own, 4 * self.config.batch_size)

    def history_table(self) -> pd.DataFrame:
        """One row per epoch: losses in nats, MAE in years, accuracies in 0 to 1, seconds."""
        return pd.DataFrame(self.history)

    def save(self) -> None:
        """Write the whole state and the history to the run folder; see ``state.save_trainer``."""
        save_trainer(self)

    def resume(self) -> bool:
        """Go on from the state in the run folder; False if there is none. See ``state.resume_trainer``."""
        return resume_trainer(self)


def _draw_seed(*entropy: int) -> int:
    """A 32-bit seed that depends on all the given numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def build_model(config: TrainConfig, has_weights: bool = False) -> MultiTaskNet:
    """The network that a config asks for, on the CPU; without pretrained weights where a state has others."""
    pretrained = False if has_weights else config.pretrained
    sizes = (config.dropout, config.drop_rate, config.age_head)
    model = MultiTaskNet(config.backbone, config.scheme, config.tasks, pretrained, *sizes)
    if config.zero_init_residual and model.weights_source == "from scratch":
        zero_init_residual_(model.backbone)
    return model.to(memory_format=torch.channels_last)


def schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int, steps_per_epoch: int
) -> CosineLRScheduler:
    """Linear warm-up, then cosine decay to 0; at its first step."""
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=total_steps,
        warmup_t=min(int(config.warmup_epochs * steps_per_epoch), total_steps // 4),
        warmup_lr_init=config.learning_rate / 25,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    scheduler.step_update(0)
    return scheduler

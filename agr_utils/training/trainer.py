"""The training loop: read it in one sitting.

Every random choice of a step follows from (seed, step): the order of the images, their augmentation, dropout. So a run
that was stopped goes on from its last checkpoint exactly as if it had not been.
"""

import hashlib
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Generator, Tensor, nn
from tqdm import tqdm

from agr_utils.data.augment import augment
from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.files import atomic_path, write_json
from agr_utils.machine import keep_freed_memory, seed_everything
from agr_utils.models.backbones import zero_init_residual_
from agr_utils.models.network import MultiTaskNet, normalize
from agr_utils.run_files import BAD_BATCH_FILE, HISTORY_FILE, STATE_FILE
from agr_utils.training.accelerator import create_accelerator
from agr_utils.training.balancing import UncertaintyWeights, gradient_cosines, summarize_cosines
from agr_utils.training.batches import Labels, epoch_batches, load_pixels, steps_per_epoch
from agr_utils.training.checkpoints import flatten_optimizer, load_state, restore_optimizer, save_state
from agr_utils.training.config import TrainConfig
from agr_utils.training.guards import StopRequest, explain_out_of_memory
from agr_utils.training.losses import task_losses, weighted_sum
from agr_utils.training.validation import check_training_labels, validate


class Trainer:
    """A run in progress: model, averaged weights, optimizer, schedule, and how far it has come.

    Args:
        config: what to train.
        data: with the splits ``train`` and ``validation``.
        output_dir: where to save the state and the history; None saves nothing.
        save_minutes: between two saves within an epoch; at its end the state is always saved.
        tensorboard: also write the history as TensorBoard events into ``output_dir``.
        begun: precision that the run was begun in, see ``choose_precision``.

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
        begun: str | None = None,
    ):
        keep_freed_memory()
        seed_everything(config.seed)
        self.config, self.data = config, data
        self.output_dir = Path(output_dir) if output_dir else None
        self.save_minutes = save_minutes
        self.labels = Labels(data)
        self.train_rows, self.validation_rows = data.rows("train"), data.rows("validation")
        side, name = data.pixels.shape[1], data.scheme.name
        if (side, name) != (config.image_size, config.data):
            raise InputError(
                f"the config asks for {config.data} at {config.image_size} px, the data is {name} at {side} px. "
                "Load it with load_data(**config.data_settings())"
            )
        check_training_labels(self.labels, self.train_rows, config.tasks, data.scheme)
        self.images_digest = hashlib.sha256(
            "\n".join(data.faces["image_id"].iloc[self.train_rows]).encode()
        ).hexdigest()[:16]
        if len(self.train_rows) < config.batch_size:
            raise InputError(
                f"{len(self.train_rows)} training images are fewer than a batch of {config.batch_size}. "
                "Make the batch smaller or the data larger"
            )
        self.steps_per_epoch = steps_per_epoch(len(self.train_rows), config.batch_size)
        self.total_steps = max(1, round(config.num_epochs * self.steps_per_epoch))
        self.step, self.history = 0, []

        has_state = self.output_dir is not None and (self.output_dir / STATE_FILE).exists()
        model = MultiTaskNet(
            config.backbone,
            data.scheme.name,
            config.tasks,
            False if has_state else config.pretrained,  # the state has the weights
            config.dropout,
            config.drop_rate,
            config.age_head,
        ).to(memory_format=torch.channels_last)
        self.weights_source = model.weights_source
        if config.zero_init_residual and model.weights_source == "from scratch":
            zero_init_residual_(model.backbone)
        self.accelerator = create_accelerator(config, self.output_dir, tensorboard, begun)
        self.ema = ModelEmaV3(
            model.to(self.accelerator.device), decay=config.ema_decay, use_warmup=True, warmup_power=0.8
        )
        groups = param_groups_weight_decay(model, config.weight_decay)
        self.balancing = None
        if config.balancing == "uncertainty":
            balancing = UncertaintyWeights(config.tasks).to(self.accelerator.device)
            groups.append({"params": list(balancing.parameters()), "weight_decay": 0.0})
            self.balancing = self.accelerator.prepare(balancing)
        if config.conflict_steps and self.accelerator.num_processes > 1:
            raise InputError("conflict_steps measures within one process. Train without accelerate launch")
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.scheduler = CosineLRScheduler(
            optimizer,
            t_initial=self.total_steps,
            warmup_t=min(int(config.warmup_epochs * self.steps_per_epoch), self.total_steps // 4),
            warmup_lr_init=config.learning_rate / 25,
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self.scheduler.step_update(0)
        self._start_epoch()

    def _start_epoch(self) -> None:
        """Empty the sums of the epoch so far."""
        self.sums = {name: 0.0 for name in ("loss", *self.config.tasks, "steps", "images")}
        self.seconds = {"wall": 0.0, "cpu": 0.0}
        self.cosines: list[dict[str, float]] = []  # between the tasks' gradients, where they are measured

    def run(self) -> pd.DataFrame:
        """Train from wherever the run stands to its end.

        Returns:
            The history, one row an epoch.

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
            if self.sums["steps"] and self._is_end_of_epoch():  # stopped after its last step, before it was validated
                self._finish_epoch(progress)
            while self.step < self.total_steps:
                self._run_epoch(progress, stop)
                self._finish_epoch(progress)
        return self.history_table()

    def _is_end_of_epoch(self) -> bool:
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

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
                raise KeyboardInterrupt(f"stopped after step {self.step} of {self.total_steps}, {self._saved()}")
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

    def _saved(self) -> str:
        if self.output_dir is None:
            return "nothing saved: this run has no folder"
        return f"saved in {self.output_dir}. Run the same command again to go on"

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step on a batch, of which each process takes its share.

        Args:
            rows: of the whole batch.

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
            raise InputError(self._describe_bad_batch(rows, str(error))) from error

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
            weight: of these images in the batch.

        Returns:
            The loss and that of each task, times ``weight``.

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
        self.ema.update(process.unwrap_model(self.model), step=self.step + 1)
        return values

    def _describe_bad_batch(self, rows: np.ndarray, problem: str) -> str:
        """Write the images of a batch down and say what happened and what to do."""
        image_ids = self.data.faces["image_id"].iloc[rows].tolist()
        rate = self.optimizer.param_groups[0]["lr"]
        place = f"{', '.join(image_ids[:3])} … ({len(image_ids)} images)"
        if self.output_dir is not None:
            about = {"step": self.step, "learning_rate": rate, "problem": problem, "image_ids": image_ids}
            write_json(self.output_dir / BAD_BATCH_FILE, about)
            place = f"listed in {self.output_dir / BAD_BATCH_FILE}"
        return (
            f"training broke down at step {self.step} ({problem}; learning rate {rate:.2g}). The batch: {place}. "
            "Try a smaller --learning-rate or --precision fp32, in another --output-dir"
        )

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
        """One row an epoch: losses in nats, MAE in years, accuracies in 0 to 1, seconds."""
        return pd.DataFrame(self.history)

    def _modules(self) -> dict[str, nn.Module]:
        """Everything with weights in it."""
        modules = {"model": self.accelerator.unwrap_model(self.model), "ema": self.ema.module}
        return modules | ({"balancing": self.accelerator.unwrap_model(self.balancing)} if self.balancing else {})

    def save(self) -> None:
        """Write the whole state to the run folder (main process only)."""
        if self.output_dir is None or not self.accelerator.is_main_process:
            return
        modules = self._modules()
        tensors = {f"{name}.{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
        tensors |= flatten_optimizer(self.optimizer)
        names = ("step", "sums", "seconds", "cosines", "history", "images_digest")
        about = {name: getattr(self, name) for name in names}
        if self.accelerator.scaler is not None:
            about["scaler"] = self.accelerator.scaler.state_dict()
        save_state(self.output_dir, tensors, about)
        self._write_history()

    def _write_history(self) -> None:
        with atomic_path(self.output_dir / HISTORY_FILE) as partial:
            self.history_table().to_csv(partial, index=False, float_format="%.6g")

    def resume(self) -> bool:
        """Go on from the state in the run folder; False if there is none.

        Raises:
            InputError: if no state is whole, or the run was begun on other images.
        """
        state = load_state(self.output_dir) if self.output_dir else None
        if state is None:
            return False
        tensors, about = state
        if about.get("images_digest", self.images_digest) != self.images_digest:
            raise InputError(
                f"{self.output_dir}: was begun on other training images than these {len(self.train_rows)}. Point "
                "AGR_DATA_DIR at those, or choose another --output-dir"
            )
        for name, module in self._modules().items():
            prefix = f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        restore_optimizer(self.optimizer, tensors)
        self.step, self.sums, self.seconds = about["step"], about["sums"], about["seconds"]
        self.cosines, self.history = about.get("cosines", []), about["history"]
        self.scheduler.step_update(self.step)
        if self.accelerator.scaler is not None and "scaler" in about:
            self.accelerator.scaler.load_state_dict(about["scaler"])
        if self.accelerator.is_main_process:
            self._write_history()  # a kill may have come between the state and the history
        return True


def _draw_seed(*entropy: int) -> int:
    """A 32-bit seed that depends on all the given numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])

"""What may go wrong in hours of training: no memory, numbers that are none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agr_utils.data.load import FaceData
from agr_utils.errors import InputError
from agr_utils.run_files import BAD_BATCH_FILE
from agr_utils.training.config import TrainConfig
from agr_utils.training.guards import explain_out_of_memory, run_lock
from agr_utils.training.trainer import Trainer

CONFIG = TrainConfig(
    backbone="test_efficientnet", num_epochs=2, image_size=32, batch_size=16, num_images=160, precision="fp32"
)


def test_a_loss_that_is_no_number_stops_and_writes_the_batch_down(data: FaceData, tmp_path: Path, one_clear_line):
    trainer = Trainer(CONFIG, data, tmp_path)
    rows = trainer.train_rows[:16]
    with torch.no_grad():
        next(trainer.model.parameters())[0] = float("nan")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items() if "running" not in name}
    with one_clear_line("step 0", "nan", BAD_BATCH_FILE, "--learning-rate"):
        trainer.train_step(rows)
    about = json.loads((tmp_path / BAD_BATCH_FILE).read_text())
    assert about["image_ids"] == data.faces["image_id"].iloc[rows].tolist()
    assert about["step"] == 0 and "nan" in about["problem"]
    assert all(
        torch.equal(value.nan_to_num(), trainer.model.state_dict()[name].nan_to_num())
        for name, value in before.items()
        if "num_batches" not in name
    )


def test_a_learning_rate_that_is_far_too_high_ends_in_one_clear_line(data: FaceData, tmp_path: Path, one_clear_line):
    with one_clear_line("training broke down at step", "learning rate 9.9e+29"):
        Trainer(replace(CONFIG, learning_rate=1e30, warmup_epochs=0), data, tmp_path).run()


def test_out_of_memory_names_the_batch_size_and_suggests_one(one_clear_line):
    with one_clear_line("out of memory", "512 images of 96 px", "--batch-size 256"), explain_out_of_memory(512, 96):
        torch.empty(10**15)  # the machine's own allocator refuses
    with one_clear_line("--batch-size 2"), explain_out_of_memory(2, 96):
        raise MemoryError
    with one_clear_line("--batch-size 32"), explain_out_of_memory(64, 96):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    for text in ("could not create a primitive", "std::bad_alloc", "CUDA error: out of memory"):
        with one_clear_line("--batch-size 32"), explain_out_of_memory(64, 96):
            raise RuntimeError(text)
    unknown = "could not create a primitive descriptor for a convolution"
    with pytest.raises(RuntimeError, match="descriptor"), explain_out_of_memory(64, 96):
        raise RuntimeError(unknown)
    with pytest.raises(RuntimeError, match="something else"), explain_out_of_memory(64, 96):
        raise RuntimeError("something else")


def test_a_lock_is_held_once_and_let_go(tmp_path: Path):
    with run_lock(tmp_path / "run"), pytest.raises(InputError, match="another training"), run_lock(tmp_path / "run"):
        pass
    with run_lock(tmp_path / "run"):
        pass

"""Training speed of each architecture on an accelerator: alone, with faces changed on the device, with a DataLoader."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader, TensorDataset

from agr_lab.gpu.augment import Changes
from agr_utils.models.backbones import BACKBONES
from agr_utils.models.network import MultiTaskNet, normalize

NUM_WARMUP = 5


def seconds_per_call(call: Callable[[], object], budget: float) -> float:
    """Mean over as many calls as fit the budget, after a few that are not counted."""
    for _ in range(NUM_WARMUP):
        call()
    torch.cuda.synchronize()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < budget:
        for _ in range(5):
            call()
        torch.cuda.synchronize()
        count += 5
    return (time.perf_counter() - start) / count


def measure(backbone: str, size: int, batch_size: int, budget: float) -> dict:
    """One row: images per second of three ways to feed the same step (bf16, channels last, AdamW)."""
    device = torch.device("cuda")
    model = MultiTaskNet(backbone).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    pixels = torch.randint(0, 256, (4 * batch_size, 3, size, size), dtype=torch.uint8)
    resident, changes = pixels.to(device), Changes(torch.Generator(device).manual_seed(0))
    ready = normalize(resident[:batch_size].float() / 255).contiguous(memory_format=torch.channels_last)

    def step(images: torch.Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = sum(values.float().logsumexp(dim=1).mean() for values in model(images).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def from_device() -> None:
        rows = torch.randint(0, len(resident), (batch_size,), device=device)
        step(normalize(changes(resident[rows].float() / 255, size)).contiguous(memory_format=torch.channels_last))

    loader = DataLoader(TensorDataset(pixels), batch_size, shuffle=True, num_workers=4, pin_memory=True)
    batches = (batch for _ in iter(int, 1) for (batch,) in loader)

    def from_loader() -> None:
        images = next(batches).to(device, non_blocking=True).float() / 255
        step(normalize(changes(images, size)).contiguous(memory_format=torch.channels_last))

    calls = {"step_alone": lambda: step(ready), "resident": from_device, "data_loader": from_loader}
    speeds = {name: round(batch_size / seconds_per_call(call, budget)) for name, call in calls.items()}
    return {"architecture": backbone, "image_size": size, "batch_size": batch_size} | speeds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds per measurement")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    rows = []
    for name in BACKBONES:
        for size in options.sizes:
            rows.append(measure(name, size, options.batch_size, options.budget))
            table = pd.DataFrame(rows).assign(device=torch.cuda.get_device_name(), torch=torch.__version__)
            table["share_of_step"] = (table["resident"] / table["step_alone"]).round(3)
            table.to_csv(options.csv, index=False)  # after each row: the time may end at any moment

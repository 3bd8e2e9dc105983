"""What ``agr bench`` measures, and where it writes it. Run it with nothing else running."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from agr_lab.bench.pipelines import bench_pipelines, open_faces
from agr_lab.bench.processes import bench_budget, bench_memory, bench_processes, bench_startup
from agr_lab.bench.steps import BenchSettings, bench_inside, bench_latency, bench_training
from agr_utils.errors import InputError
from agr_utils.files import atomic_path
from agr_utils.machine import describe_hardware

FULL = BenchSettings()
# Enough to see that everything works; the numbers mean nothing.
QUICK = BenchSettings(
    backbones=("custom_cnn",),
    image_sizes=(32,),
    batch_size=8,
    seconds=0.0,
    min_rounds=1,
    num_faces=200,
    face_size=48,
    num_starts=1,
    cached_images=(100,),
    process_backbones=("test_efficientnet",),
    budget_minutes=0.05,
    inside_backbones=("custom_cnn",),
    num_inside=10,
)
BENCHMARKS: dict[str, Callable[..., pd.DataFrame]] = {
    "training": bench_training,
    "latency": bench_latency,
    "pipelines": bench_pipelines,
    "startup": bench_startup,
    "memory": bench_memory,
    "processes": bench_processes,
    "budget": bench_budget,
    "inside": bench_inside,
}
NEED_FACES = {"pipelines", "startup"}  # the others are given the settings only


def choose_benchmarks(only: str | None) -> list[str]:
    """Names out of a list with commas; all of them where it is None. An InputError for an unknown one."""
    names = list(BENCHMARKS) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(f"--only names '{name}'. Choose from: {', '.join(BENCHMARKS)} (commas between several)")
    return names


def run_benchmarks(
    output_dir: Path, names: list[str], settings: BenchSettings = FULL, source: Path | None = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Measure one thing after another, and write each down before the next begins.

    ``output_dir`` gets ``<name>.csv``: the table, with the hardware and versions in every row. Yields each name and its
    table; an empty one was not written, because this system cannot measure it.
    """
    hardware = describe_hardware()
    with open_faces(source, settings) if NEED_FACES & set(names) else nullcontext() as faces:
        for name in names:
            table = BENCHMARKS[name](*([settings, faces] if name in NEED_FACES else [settings]))
            if len(table):
                # A column of the table's own wins: the threads of each row, say.
                about = {key: value for key, value in hardware.items() if key not in table}
                with atomic_path(output_dir / f"{name}.csv") as partial:
                    table.assign(**about).to_csv(partial, index=False, float_format="%.5g")
            yield name, table

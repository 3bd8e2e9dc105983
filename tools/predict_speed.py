"""How long ``agr predict`` takes for a photograph and for a folder of face crops, and how much memory.

    python tools/predict_speed.py UTKFace me.jpg > results/bench/predict.csv

The photograph is asked about five times, each time by a process of its own, once all files are in memory; the folder
once, as crops. Memory is read once a second from Linux. Run nothing beside it.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from agr_utils.machine import describe_hardware


def ask(*arguments: str) -> tuple[float, list[float], int]:
    """Seconds of one command, its resident memory (MiB) second by second, and the lines that it printed."""
    command = [sys.executable, "-m", "agr_lab.cli", "predict", "--json", *arguments]
    started, sizes = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        lines, due = 0, started
        for _ in process.stdout:
            lines += 1
            if time.perf_counter() >= due:
                status = Path(f"/proc/{process.pid}/status").read_text()
                sizes += [int(size) / 1024 for size in re.findall(r"VmRSS:\s*(\d+)", status)]  # none once it has ended
                due += 1
    if not sizes:
        raise SystemExit(f"agr predict answered nothing. Try it by hand: {' '.join(command)}")
    return time.perf_counter() - started, sizes, lines


def main() -> None:
    """Measure both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path, help="folder of face crops")
    parser.add_argument("photograph", type=Path)
    options = parser.parse_args()
    starts = [ask(str(options.photograph)) for _ in range(6)][1:]  # the first reads from the disk
    taken, sizes, answered = ask("--no-detect", str(options.crops))
    rows = [
        {"measure": "a photograph, the start included", "num_images": 1}
        | {"seconds": statistics.median(seconds for seconds, _, _ in starts), "peak_mib": max(starts[0][1])},
        {"measure": f"a folder of {answered:,} face crops", "num_images": answered, "seconds": taken}
        | {"quarter_mib": max(sizes[: len(sizes) // 4 + 1]), "peak_mib": max(sizes)},
    ]
    table = pd.DataFrame(rows).assign(**describe_hardware())
    table.insert(3, "images_per_second", table["num_images"] / table["seconds"])
    print(table.to_csv(index=False, float_format="%.5g"), end="")


if __name__ == "__main__":
    main()

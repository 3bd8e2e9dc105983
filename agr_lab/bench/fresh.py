"""A function in a process of its own: ``python -m agr_lab.bench.fresh agr_lab.bench.processes.measure_memory '{…}'``.

What it imports counts in what is measured, so this module imports little.
"""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from agr_utils.errors import InputError


def run_fresh(measure: str, **arguments) -> dict:
    """Call a function, by its dotted name, in a new Python process, with arguments that JSON can carry.

    What it returned, and ``import_seconds``, that its module's imports took; an InputError if the process fails.
    """
    command = [sys.executable, "-m", "agr_lab.bench.fresh", measure, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InputError(f"{measure} failed in a process of its own ({reason}). Is there memory and disk space enough?")
    return json.loads(done.stdout.splitlines()[-1])


def read_status(name: str) -> float | None:
    """A line of Linux's account of this process, in MiB; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    values = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(values[name].split()[0]) / 1024


def peak_mib() -> float:
    """Peak resident memory of this process, in MiB."""
    import resource  # not on Windows

    # Linux hands ru_maxrss on to the program that a process starts: here it would be the benchmark's own peak.
    peak = read_status("VmHWM")
    if peak is not None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure_answer(way: str, path: str, size: int) -> dict[str, float]:
    """Answer once about one face of ``size`` pixels, in one of the ways of ``agr bench deploy``."""
    import numpy as np

    face = np.zeros((1, size, size, 3), np.uint8)
    if way == "eager":
        import torch

        from agr_utils.deploy.answer_net import AnswerNet
        from agr_utils.training.run import load_model

        with torch.inference_mode():
            AnswerNet(load_model(path)[0], mirror=False)(torch.from_numpy(face))
    elif way == "openvino":
        import openvino

        openvino.compile_model(path, "CPU")(face)
    else:
        import onnxruntime

        onnxruntime.InferenceSession(path).run(None, {"image": face})
    return {"peak_mib": peak_mib()}


if __name__ == "__main__":
    clock = time.perf_counter()
    module, _, function = sys.argv[1].rpartition(".")
    found = import_module(module)
    import_seconds = time.perf_counter() - clock
    print(json.dumps(getattr(found, function)(**json.loads(sys.argv[2])) | {"import_seconds": import_seconds}))

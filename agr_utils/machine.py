"""The machine, its seeds and the checkout: everything that depends on where the code runs.

PyTorch, timm and accelerate take seconds to import; here and wherever finished runs are only read, that is left to the
functions that need them.
"""

import os
import platform
import subprocess
from pathlib import Path


def repository_root() -> Path:
    """The folder that holds ``results/`` and ``figures/``: the checkout that this package was installed from."""
    return Path(__file__).resolve().parent.parent


def current_commit() -> str:
    """Commit of the checkout, with ``+changes`` if it was not clean; ``unknown`` outside one."""
    if not (repository_root() / ".git").exists():  # git would look for one further up: somebody else's
        return "unknown"
    try:
        git = ["git", "-C", str(repository_root())]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        return commit + ("+changes" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (CPU and every accelerator)."""
    from accelerate.utils import set_seed

    set_seed(seed)


def describe_hardware() -> dict[str, str | int]:
    """CPU name, cores, threads, accelerator and versions: what a timing must be read with."""
    import timm
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        names = {key.strip(): value.strip() for key, value in fields.items()}
        model = f"family {names.get('cpu family', '?')} model {names.get('model', '?')}"
        return f"{names.get('model name', platform.processor())} ({model})"
    return platform.processor() or platform.machine()

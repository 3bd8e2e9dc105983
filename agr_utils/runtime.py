"""Profile, device, seeds, paths and atomic writing: everything that depends on where the code runs.

PyTorch, timm and accelerate take seconds to import; here and wherever finished runs are only read, that is left to the
functions that need them.
"""

import contextlib
import ctypes
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from filelock import FileLock

from agr_utils.errors import InputError

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class Profile:
    """How much work a notebook does.

    Attributes:
        name: ``smoke``, ``quick`` or ``full``.
        num_images: synthetic images drawn; ``None`` means every image of a real data set.
        num_epochs: epochs of one training.
        image_size: side of the square input, in pixels.
        batch_size: images a step.
        augmentation: strength relative to the published settings; a short training has no time to learn past it.
        age_weight: of the age's loss, which starts so large that it would have a short training to itself.
    """

    name: str
    num_images: int | None
    num_epochs: int
    image_size: int
    batch_size: int
    augmentation: float
    age_weight: float


PROFILES = {
    "smoke": Profile(
        "smoke", num_images=320, num_epochs=1, image_size=32, batch_size=32, augmentation=0.2, age_weight=0.3
    ),
    "quick": Profile(
        "quick", num_images=4_000, num_epochs=6, image_size=40, batch_size=64, augmentation=0.2, age_weight=0.3
    ),
    "full": Profile(
        "full", num_images=None, num_epochs=24, image_size=64, batch_size=64, augmentation=1.0, age_weight=1.0
    ),
}


def get_profile() -> Profile:
    """The profile named by ``AGR_PROFILE``; ``quick`` where it is not set."""
    name = os.environ.get("AGR_PROFILE", "quick")
    if name not in PROFILES:
        raise InputError(f"AGR_PROFILE is '{name}'. Set it to one of: {', '.join(PROFILES)}")
    return PROFILES[name]


def get_data_name() -> str:
    """The data set named by ``AGR_DATA``; ``synthetic`` where it is not set."""
    return os.environ.get("AGR_DATA", "synthetic")


def get_data_dir() -> Path | None:
    """The folder or archive named by ``AGR_DATA_DIR``, or None where it is not set."""
    value = os.environ.get("AGR_DATA_DIR")
    return Path(value) if value else None


def get_cache_dir() -> Path:
    """Where pixel caches are kept: ``AGR_CACHE_DIR``, else ``~/.cache/agr_utils``."""
    return Path(os.environ.get("AGR_CACHE_DIR") or Path.home() / ".cache" / "agr_utils")


def repository_root() -> Path:
    """The folder that holds ``results/`` and ``figures/``: the checkout that this package was installed from."""
    return Path(__file__).resolve().parent.parent


def current_commit() -> str:
    """Commit of the checkout, with ``+changes`` if it was not clean; ``unknown`` outside one."""
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


def get_processes() -> "PartialState":
    """This process among those that train together; started by ``accelerate launch``, torchrun or a notebook, or alone.

    Several processes on CPUs need ``ACCELERATE_USE_CPU=true`` (accelerate alone reads it too late for its first state).
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of handing it back to the system.

    A training step on a CPU frees and asks again for the same hundreds of megabytes; fetching them from the system page
    by page costs a small network a tenth of its speed. Peak memory stays the same. Without glibc this does nothing.
    """
    mmap_threshold, trim_threshold = -3, -1  # names of the options in malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows, macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25)  # older versions allow 32 MiB
        mallopt(trim_threshold, 2**31 - 1)


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


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write a file to; it replaces ``target`` only if the block succeeds.

    A reader never sees half of anything, and a second writer waits for the first.

    Raises:
        InputError: if the disk is full or the folder cannot be written; what was there before is kept.
    """
    with _sole_writer(target) as (target, partial):
        yield partial
        partial.replace(target)


@contextlib.contextmanager
def replace_folder(target: Path, contents: Sequence[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` to fill; it takes the place of ``target`` only if the block succeeds.

    A block that writes nothing changes nothing. At any moment there is the whole old folder or the whole new one; only
    where the system cannot exchange two folders in one step does a kill leave the old one beside its place, from where
    the next writer puts it back.

    Args:
        target: the folder.
        contents: patterns of the files in such a folder, ``maps/*.parquet`` say. One with other files is not replaced.

    Raises:
        InputError: see ``atomic_path``; and if the folder that is there holds anything else.
    """
    with _sole_writer(target) as (target, partial):
        put_aside = target.with_name(f".{target.name}.old")
        if put_aside.exists() and not target.exists():
            put_aside.rename(target)
        _remove(put_aside)
        _check_replaceable(target, contents)
        partial.mkdir()
        yield partial
        if not any(partial.iterdir()):
            return
        _check_replaceable(target, contents)
        if not target.exists():
            partial.rename(target)
        elif not _exchange(partial, target):
            target.rename(put_aside)
            partial.rename(target)
            _remove(put_aside)


@contextlib.contextmanager
def _sole_writer(target: Path) -> Iterator[tuple[Path, Path]]:
    """Wait until nobody else writes ``target``; yield it, links followed, and a free path beside it."""
    place = Path(os.path.realpath(target))
    partial, lock = (place.with_name(f".{place.name}.{kind}") for kind in ("partial", "lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            try:
                _remove(partial)  # of a writer that was killed: the living one holds the lock
                yield place, partial
            finally:
                _remove(partial)
                with contextlib.suppress(OSError):  # Windows deletes no open file
                    lock.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {target}: {reason}. Free some space or choose another folder") from error


def _remove(path: Path) -> None:
    """Delete a file or folder, if it is there and can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _check_replaceable(folder: Path, contents: Sequence[str]) -> None:
    """Refuse to replace a file, or a folder that holds anything but files of the given patterns."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: a file stands where a folder is to be written. Move it away")
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and not any(fnmatch(name, pattern) for pattern in contents):
            raise InputError(
                f"{folder}: would be replaced, but holds {name}, which does not belong there. Move it away, or choose "
                "another folder"
            )


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system cannot: Linux can, on most file systems."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # Windows, macOS, an old C library
        return False
    working_folder, exchange = -100, 2  # AT_FDCWD of fcntl.h, RENAME_EXCHANGE of linux/fs.h
    return rename(working_folder, os.fsencode(first), working_folder, os.fsencode(second), exchange) == 0


def list_visible(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern below a folder, by name; nothing in or under a dot name, which somebody still writes."""
    found = sorted(Path(folder).glob(pattern))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def read_table(path: Path, columns: Sequence[str], what: str, command: str) -> pd.DataFrame:
    """Read a Parquet table.

    Args:
        path: of the file.
        columns: that it must have.
        what: it is, for the message.
        command: that makes it.

    Raises:
        InputError: if the file is missing or no such table.
    """
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Make it with: {command}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not {what} ({error}). Make it with: {command}") from error
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"{path}: not {what} (no {' or '.join(missing)}). Make it with: {command}")
    return table


def write_json(path: Path, content: dict) -> None:
    """Write ``content`` as readable JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Read a JSON file; a file that is missing or not JSON is an InputError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a JSON file ({error}). Delete it and make it again") from error

"""What may go wrong in hours of training, and what is done about it: two at once, an interrupt, no memory."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils.memory import should_reduce_batch_size
from filelock import FileLock, Timeout

from agr_utils.errors import InputError
from agr_utils.files import write_json
from agr_utils.run_files import BAD_BATCH_FILE, LOCK_FILE
from agr_utils.training.accelerator import get_processes

# What accelerate does not know: oneDNN, which cannot say it in other words, other devices, the C++ library, Windows.
OUT_OF_MEMORY = (
    "could not create a primitive\n", "out of memory", "ALLOC_FAILED", "bad_alloc", "not enough memory"
)  # fmt: skip


def check_processes() -> None:
    """Refuse to be one of several processes that do not know of each other: for want of a GPU, accelerate sees one."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != get_processes().num_processes:
        raise InputError(
            f"started as {started} processes, but each would train alone: there are not as many GPUs. "
            "To train on CPUs set ACCELERATE_USE_CPU=true (docs/scaling.md)"
        )


@contextmanager
def run_lock(output_dir: Path) -> Iterator[None]:
    """Hold a run folder, or refuse: the operating system lets it go when this process ends, however it ends."""
    lock = FileLock(output_dir / LOCK_FILE)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)  # is_locked may hold it for a moment
    except Timeout:
        raise InputError(
            f"{output_dir}: another training is at work there. Wait for it, or choose another --output-dir"
        ) from None
    except OSError as error:
        raise InputError(f"{output_dir}: cannot be written ({error.strerror}). Choose another --output-dir") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(output_dir: Path) -> bool:
    """Whether a training is at work in a run folder."""
    if not (output_dir / LOCK_FILE).is_file():
        return False
    try:
        with FileLock(output_dir / LOCK_FILE).acquire(timeout=0.1, poll_interval=0.02):  # another may be asking, too
            return False
    except Timeout:
        return True
    except OSError:  # not ours to lock: whoever trains there will be told why
        return False


class StopRequest:
    """Inside its block the first Ctrl-C (or SIGTERM, which clusters send) only asks: the step is finished and saved.

    The same a second time interrupts at once. Outside the main thread signals cannot be caught; there nothing changes.
    """

    def __init__(self):
        self.requested = False
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, _) -> None:
        self.requested = True
        signal.signal(number, self._handlers[number])  # the other stays: a launcher sends its own after Ctrl-C

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


@contextmanager
def explain_out_of_memory(batch_size: int, image_size: int) -> Iterator[None]:
    """Turn out-of-memory errors, of a GPU or of the machine, into advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, MemoryError) or should_reduce_batch_size(error)
        if not is_known and not any(text in f"{error}\n" for text in OUT_OF_MEMORY):
            raise
        raise InputError(
            f"out of memory with batches of {batch_size} images of {image_size} px. "
            f"Try --batch-size {max(2, batch_size // 2)}"
        ) from error


def describe_bad_batch(
    image_ids: list[str], step: int, learning_rate: float, problem: str, output_dir: Path | None
) -> str:
    """Write the images of a batch that training broke down on into the run folder; what happened and what to do."""
    place = f"{', '.join(image_ids[:3])} … ({len(image_ids)} images)"
    if output_dir is not None:
        about = {"step": step, "learning_rate": learning_rate, "problem": problem, "image_ids": image_ids}
        write_json(output_dir / BAD_BATCH_FILE, about)
        place = f"listed in {output_dir / BAD_BATCH_FILE}"
    return (
        f"training broke down at step {step} ({problem}; learning rate {learning_rate:.2g}). The batch: {place}. "
        "Try a smaller --learning-rate or --precision fp32, in another --output-dir"
    )

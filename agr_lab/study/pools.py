"""Who does the runs of a study: processes of this machine, or the workers of a Dask cluster; joblib hands them out."""

import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from urllib.parse import urlsplit

import joblib

from agr_utils.errors import InputError
from agr_utils.training.guards import StopRequest

CONNECT_SECONDS, WORKER_SECONDS = 5, 30

# Does delayed calls (see ``joblib.delayed``) and yields what they return, as it comes in.
Work = Callable[[Iterable], Iterator]


class ProcessDied(Exception):
    """A process ended in the middle of a run: it was killed, ran out of memory or crashed."""


def _hand_out(calls: Iterable) -> Iterator:
    """Do calls by joblib's current backend."""
    return joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")(calls)


class _Interrupt(StopRequest):
    """Inside its block SIGTERM interrupts as Ctrl-C does: left to itself it would leave the workers behind."""

    def _request(self, *_) -> None:
        raise KeyboardInterrupt


@contextmanager
def local_pool(jobs: int, threads: int) -> Iterator[Work]:
    """So many processes at a time, each with so many numeric threads; for one job it is this process."""

    def work(calls: Iterable) -> Iterator:
        try:
            with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads), _Interrupt():
                yield from _hand_out(calls)
        except BrokenProcessPool as error:
            raise ProcessDied from error
        except KeyboardInterrupt as error:  # with several jobs joblib has killed the workers
            kept = "stopped; what runs did since their last save is lost, 5 minutes at most. Run it again to go on"
            raise KeyboardInterrupt(str(error) if jobs == 1 else kept) from None

    yield work


def _knock(address: str) -> None:
    """Raise OSError or ValueError where no Dask scheduler can be: with another server Dask would wait for minutes."""
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
        raise ValueError("write it as tcp://host:8786, or with tls://")
    with socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS) as connection:
        # Over tcp a scheduler speaks first: the number of frames that follow, 8 bytes.
        if parts.scheme == "tcp" and int.from_bytes(connection.recv(8), "little") not in range(1, 2**16):
            raise ValueError("some other server")


@contextmanager
def dask_pool(address: str) -> Iterator[Work]:
    """The workers of a running Dask cluster, those that come later included.

    Raises:
        InputError: if the package is missing, or scheduler or workers do not answer or do not fit.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise InputError('Dask is not installed. Install it with: pip install -e ".[scale]"') from None
    from joblib._dask import DaskDistributedBackend

    class WorkersOnly(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return 2  # all are handed over at once whatever this is, but at 1 joblib would do the runs right here

    def work(calls: Iterable) -> Iterator:
        try:
            with joblib.parallel_config(WorkersOnly(client=client)):
                yield from _hand_out(calls)
        except KilledWorker as error:
            raise ProcessDied from error

    try:
        _knock(address)
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{address}: no Dask scheduler answers there ({reason}). Start one with: dask scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise InputError(
                f"{address}: the scheduler has no workers. Start some with: dask worker {address} --nthreads 1"
            ) from None
        wide = [worker for worker, threads in client.nthreads().items() if threads > 1]
        if wide:
            raise InputError(
                f"{wide[0]}: a worker of several threads; torch can train one reproducible run a process. "
                f"Start workers with: dask worker {address} --nthreads 1"
            )
        yield work

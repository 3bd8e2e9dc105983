"""Train the runs of a study: what is finished is skipped, what was begun goes on, and one failure stops nothing."""

import contextlib
import os
import platform
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import torch
from joblib import delayed

from agr_lab.study.grid import RunOptions, Study
from agr_lab.study.pools import ProcessDied, Work, dask_pool, local_pool
from agr_lab.study.status import run_status
from agr_utils.data.load import FaceData, load_data
from agr_utils.errors import InputError
from agr_utils.files import atomic_path
from agr_utils.profiles import get_data_dir
from agr_utils.run_files import ERROR_FILE, LOG_FILE, STATE_FILE
from agr_utils.training.batches import Labels, digest_data
from agr_utils.training.checkpoints import load_tensors
from agr_utils.training.config import TrainConfig
from agr_utils.training.run import train_run

MAX_DEATHS = 2  # of processes at work on a run, before it is tried by itself

_load_data_once = lru_cache(maxsize=1)(load_data)  # the next run of a process mostly wants the same images
_one_training = threading.Lock()  # torch has one stream of random numbers a process


def run_study(study: Study, jobs: int = 1, scheduler: str | None = None) -> Iterator[tuple[str, str]]:
    """Train every run that is not finished and not at work elsewhere; one whose real data has changed since fails.

    Args:
        study: the runs.
        jobs: runs at a time on this machine, each in a process of its own; a single one is done in this process.
        scheduler: address of a Dask scheduler, whose workers do the runs instead.

    Yields:
        The id of each run as it ends here, and an empty string or why it failed.

    Raises:
        InputError: before anything starts, if real data cannot be loaded or the cluster cannot be used.
    """
    threads = study.options.threads or (None if scheduler else max(1, torch.get_num_threads() // jobs))
    options = replace(study.options, threads=threads, source=study.options.source or get_data_dir())
    _load_data_once.cache_clear()  # files may have changed since an earlier call
    digests = {}  # each reads all pictures, and many runs share one
    for run_id, config in study.runs.items():
        if config.data == "synthetic":
            continue
        data, folder = load_data_of(config, options), study.output_dir / run_id  # before several runs would decode it
        if run_status(folder, options.splits) != "finished":
            continue
        key, rows = (*config.data_settings().values(), config.tasks), (data.rows("train"), data.rows("validation"))
        digests[key] = digests.get(key) or digest_data(data, Labels(data), config.tasks, *rows)
        with contextlib.suppress(InputError):  # of a state that is missing or damaged
            if load_tensors(folder / STATE_FILE)[1].get("data_digest", digests[key]) != digests[key]:
                _write_error(folder, "it was trained on other pictures or labels")  # train_run will say more
    with dask_pool(scheduler) if scheduler else local_pool(jobs, threads) as work:
        yield from finish_runs(study, options, work)


def finish_runs(study: Study, options: RunOptions, work: Work) -> Iterator[tuple[str, str]]:
    """Hand the runs out; again, where processes died, and in the end each by itself, to find the one that kills them.

    A local process that dies takes those beside it with it, and a Dask cluster gives a run up that killed several
    workers. Either way the runs go on from their states.
    """

    def status(run_id: str) -> str:
        return run_status(study.output_dir / run_id, options.splits)

    deaths = Counter()
    left = [run_id for run_id in study.runs if status(run_id) not in ("finished", "running")]
    while left:
        batch = [run_id for run_id in left if deaths[run_id] < MAX_DEATHS] or left[:1]
        left = [run_id for run_id in left if run_id not in batch]
        try:
            calls = (delayed(run_one)(name, study.runs[name], study.output_dir / name, options) for name in batch)
            yield from filter(None, work(calls))
        except ProcessDied:
            while any(status(run_id) == "running" for run_id in batch):
                time.sleep(1)  # Dask lets the others come to their end
            if len(batch) == 1:
                yield batch[0], _write_error(study.output_dir / batch[0], "its process died: killed, or out of memory?")
                continue
            unfinished = [run_id for run_id in batch if status(run_id) in ("waiting", "stopped")]
            deaths.update([run_id for run_id in unfinished if status(run_id) == "stopped"] or unfinished)
            left += unfinished


def run_one(run_id: str, config: TrainConfig, folder: Path, options: RunOptions) -> tuple[str, str] | None:
    """Train one run, or go on with it, in this process: its id, and an empty string or why it failed.

    None if another process has done it meanwhile, or is at work on it. What would be printed goes to ``log.txt``, with
    the traceback of an error; its reason also to ``error.txt``.
    """
    try:
        if run_status(folder, options.splits) in ("finished", "running"):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        log_file = (folder / LOG_FILE).open("a", buffering=1, encoding="utf-8")
        with _one_training, log_file as log, contextlib.redirect_stderr(log):
            log.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} on {platform.node()}, process {os.getpid()}\n")
            try:
                (folder / ERROR_FILE).unlink(missing_ok=True)
                if options.threads:
                    torch.set_num_threads(options.threads)
                train_run(config, load_data_of(config, options), folder, options.command, options.splits)
            except BaseException:  # Ctrl-C, too, is written to the log before it goes on its way
                traceback.print_exc(file=log)
                raise
    except Exception as error:  # noqa: BLE001 - whatever it is, in the folder or in training, the other runs go on
        if run_status(folder, options.splits) == "running":  # begun elsewhere while the data was loaded here
            return None
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return run_id, _write_error(folder, reason)
    return run_id, ""


def _write_error(folder: Path, reason: str) -> str:
    """Write down in one line why a run failed; returns that line."""
    reason = " ".join(reason.split())
    with contextlib.suppress(InputError), atomic_path(folder / ERROR_FILE) as partial:  # it is reported all the same
        partial.write_text(reason + "\n", encoding="utf-8")
    return reason


def load_data_of(config: TrainConfig, options: RunOptions) -> FaceData:
    """The data of a run, kept for the next run of this process."""
    return _load_data_once(source=options.source, skip_unreadable=options.skip_unreadable, **config.data_settings())

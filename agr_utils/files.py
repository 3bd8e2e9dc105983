"""Reading and writing files so that nothing is lost: whole or not at all, whoever is killed, whoever else writes."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
from filelock import FileLock

from agr_utils.errors import DamagedError, InputError


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

    A block that writes nothing changes nothing. A kill between the two renamings at the end leaves the old folder
    beside its place, from where the next writer puts it back.

    Args:
        target: the folder.
        contents: patterns of the files in such a folder, ``maps/*.parquet`` say. One with other files is not replaced.

    Raises:
        InputError: see ``atomic_path``; and if the folder that is there holds anything else.
    """
    with _sole_writer(target) as (target, partial):
        _check_replaceable(target, contents)
        partial.mkdir()
        yield partial
        if not any(partial.iterdir()):
            return
        _check_replaceable(target, contents)
        if target.exists():
            target.rename(_beside(target, "old"))
        partial.rename(target)


@contextlib.contextmanager
def _sole_writer(target: Path, timeout: float = -1) -> Iterator[tuple[Path, Path]]:
    """Wait until nobody else writes ``target``; yield it, links followed, and a free path beside it.

    What a killed writer left is put right first: a living one holds the lock.
    """
    place = Path(os.path.realpath(target))
    partial, old, lock = (_beside(place, kind) for kind in ("partial", "old", "lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout):
            try:
                _put_right(place, old, partial)
                yield place, partial
            finally:
                _put_right(place, old, partial)
                with contextlib.suppress(OSError):  # Windows deletes no open file
                    lock.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {target}: {reason}. Free some space or choose another folder") from error


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}")


def clear_leftovers(folder: Path) -> None:
    """Put right what killed writers left in a folder, gigabytes perhaps; what somebody writes now stays."""
    for lock in Path(folder).glob(".*.lock"):
        target = lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))
        with contextlib.suppress(InputError), _sole_writer(target, timeout=0):  # held by another, or not ours to write
            pass


def _put_right(place: Path, old: Path, partial: Path) -> None:
    """Back to its place with what was moved aside and not replaced; what else lies beside it is deleted."""
    if old.exists() and not place.exists():
        old.rename(place)
    for path in (old, partial):
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


def list_visible(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern below a folder, by name; nothing in or under a dot name, which somebody still writes."""
    found = sorted(Path(folder).glob(pattern))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically, with a checksum of all its bytes in its metadata."""
    import pyarrow as pa  # takes a moment, and much that imports this module reads no table
    from pyarrow import parquet

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata(arrow.schema.metadata | CHECKSUM)
    buffer = io.BytesIO()
    parquet.write_table(arrow, buffer, compression="zstd")
    with atomic_path(path) as partial:
        partial.write_bytes(set_checksum(buffer.getvalue()))


CHECKSUM = {"agr_sha256": "0" * 64}  # an entry for a file's metadata, whose zeros ``set_checksum`` replaces
_CHECKSUM_PLACE = re.compile(rb"agr_sha256.{2,3}?([0-9a-f]{64})", re.DOTALL)  # kind and length in Parquet, ":" in JSON


def set_checksum(content: bytes) -> bytes:
    """A file with the SHA-256 of all its bytes in the place that ``CHECKSUM`` holds free for it."""
    start, end = _CHECKSUM_PLACE.search(content).span(1)
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def check_checksum(content: bytes) -> None:
    """Compare a file with its checksum; one that was written before there were any has none."""
    found = _CHECKSUM_PLACE.search(content)
    if found and set_checksum(content[: found.start(1)] + b"0" * 64 + content[found.end(1) :]) != content:
        raise ValueError("damaged: its checksum is wrong")


def read_table(path: Path, columns: Sequence[str], what: str, command: str) -> pd.DataFrame:
    """Read a Parquet or CSV table; one written by ``write_table`` is checked against its checksum.

    Raises:
        InputError: if the file is missing, or not ``what`` with these columns; it names the command that makes it.
    """
    from pyarrow import ArrowException

    content = read_bytes(path, f"no such file. Make it with: {command}")
    try:
        if str(path).endswith(".csv"):
            table = pd.read_csv(io.BytesIO(content))
        else:
            check_checksum(content)
            table = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError, ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: not {what} ({reason}). Make it with: {command}") from error
    if missing := [name for name in columns if name not in table]:
        raise DamagedError(f"{path}: not {what} (no {' or '.join(missing)}). Make it with: {command}")
    return table


def write_json(path: Path, content: dict) -> None:
    """Write ``content`` as readable JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Read a JSON file of names and values; an InputError naming it if it is missing or no such JSON."""
    content = read_bytes(path)
    try:
        content = json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of thousands of digits, lists in lists
        raise DamagedError(f"{path}: not a JSON file ({error}). Delete it and make it again") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: not the JSON that was written there. Delete it and make it again")
    return content


def read_bytes(path: Path, missing: str = "no such file. Put it back, or choose another folder") -> bytes:
    """Content of a regular file; an InputError if it is ``missing``, cannot be read, or is a pipe that would block."""
    path = Path(path)
    try:
        if not path.exists() or path.is_file():
            return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except (OSError, ValueError, MemoryError) as error:  # of a NUL in the path, of a file larger than the memory
        reason = getattr(error, "strerror", None) or str(error) or "too large for this machine's memory"
        raise InputError(f"{path}: cannot be read now ({reason}). See to the disk and try again") from error
    raise InputError(f"{path}: {'a folder' if path.is_dir() else 'not a regular file'}. Name a file")

"""Read images from where users have them: a folder, a tar, tar.gz or zip. Nothing is unpacked to disk."""

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from agr_utils.data.reading import images
from agr_utils.data.reading.archives import Entry, clear_errors, open_source, walk_folder
from agr_utils.data.reading.skipped import Skipped
from agr_utils.errors import InputError

MAX_BYTES = 4 * images.MAX_PIXELS  # of one file: an uncompressed image of as many pixels as are read
MAX_TABLE_BYTES = 64 * 2**20  # of a label file; FairFace's largest is a twentieth of it
READ_AHEAD_BYTES = 64 * 2**20  # of files that wait for a free core
READ_AHEAD_FILES = 512
Result = TypeVar("Result")


def list_images(source: Path, skipped: Skipped | None = None) -> list[str]:
    """Names of the images in a folder, tar, tar.gz or zip, sorted, with ``/`` between folders.

    ``skipped`` is told what looks like an image, or may hold some, and is left out.

    Raises:
        InputError: if the source does not exist, is no folder or archive, or holds no image.
    """
    return sorted(entry.name for entry in _images(source, Skipped() if skipped is None else skipped))


def find_files(folder: Path, skipped: Skipped) -> list[Path]:
    """Image files below a folder, sorted; ``skipped`` is told of what is left out. Empty where there is none.

    Unlike the names in a source, paths begin with the folder, in ``skipped`` too: there may be several folders.
    """
    folder = Path(folder)
    with clear_errors(folder):
        entries = (replace(entry, name=(folder / entry.name).as_posix()) for entry in walk_folder(folder))
        return sorted(Path(entry.name) for entry in _choose(entries, skipped))


def read_images(source: Path) -> Iterator[tuple[str, bytes | InputError]]:
    """Yield the name of each image with its content, or why it has none, in the order that reads the source fastest."""
    source = Path(source)
    for entry in _images(source, Skipped()):
        with clear_errors(source):
            try:
                content = entry.read(MAX_BYTES)
            except InputError as error:
                content = error
            except OSError as error:
                if not source.is_dir():
                    raise
                content = InputError(f"{entry.name}: cannot be read ({error.strerror or error}). Check its permissions")
        yield entry.name, content


def map_images(source: Path, work: Callable[[str, bytes], Result]) -> Iterator[tuple[str, Result | InputError]]:
    """Yield each image's name and what ``work`` makes of its name and content; an InputError is yielded, not raised.

    Works in a thread a core (Pillow lets others run while it decodes), a bounded number of bytes ahead.
    """

    def attempt(name: str, content: bytes | InputError) -> tuple[str, Result | InputError]:
        try:
            return name, content if isinstance(content, InputError) else work(name, content)
        except InputError as error:
            return name, error

    waiting, ahead = deque(), 0
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for name, content in read_images(source):
            size = 0 if isinstance(content, InputError) else len(content)
            waiting.append((size, pool.submit(attempt, name, content)))
            del content
            ahead += size
            while ahead > READ_AHEAD_BYTES or len(waiting) > READ_AHEAD_FILES:
                size, future = waiting.popleft()
                ahead -= size
                yield future.result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_member(source: Path, file_name: str) -> io.BytesIO:
    """Content of the file of this name, in whatever folder of the source it lies; an InputError if there is none."""
    for entry in open_source(Path(source)):
        if entry.name.rsplit("/", 1)[-1] == file_name and not entry.problem:
            with clear_errors(source):
                return io.BytesIO(entry.read(MAX_TABLE_BYTES))
    raise InputError(f"{source}: no {file_name} in it. Put the file there (docs/data.md)")


def _images(source: Path, skipped: Skipped) -> Iterator[Entry]:
    """The entries that are images, at least one."""
    source, count = Path(source), 0
    for count, entry in enumerate(_choose(open_source(source), skipped), 1):  # noqa: B007 - counted to the end
        if any(
            "\ud800" <= letter <= "\udfff" for letter in entry.name
        ):  # so odd bytes are held; no table can hold them
            raise InputError(f"{source}: the file name {entry.name!r} is not UTF-8. Rename it")
        yield entry
    if count == 0:
        found = f"; {skipped}" if skipped else ""
        raise InputError(
            f"{source}: no image in it (looked for {', '.join(images.SUFFIXES[:6])} and others{found}). "
            "Name the folder that holds them"
        )


def _choose(entries: Iterator[Entry], skipped: Skipped) -> Iterator[Entry]:
    """Images by their suffix, or without one by how they begin; what else a user may miss goes to ``skipped``."""
    for entry in entries:
        leaf = entry.name.rsplit("/", 1)[-1]
        suffix = images.suffix_of(leaf)
        no_suffix = not suffix and not leaf.startswith(".")
        support = "" if leaf.startswith("._") else images.missing_support(suffix)
        if not (images.is_image(leaf) or no_suffix or support or entry.is_folder):
            continue
        if entry.problem or support:
            skipped.add(entry.problem or support, entry.name)
        elif images.is_image(leaf):
            yield entry
        else:
            try:
                with entry.open() as file:
                    header = file.read(images.HEADER_BYTES)
            except OSError as error:
                skipped.add(f"unreadable ({error.strerror or error})", entry.name)
                continue
            if support := images.missing_support(header=header):
                skipped.add(support, entry.name)
            elif images.is_image_header(header):
                yield entry

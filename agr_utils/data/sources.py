"""Read images from where users have them: a folder, a tar, tar.gz or zip. Nothing is unpacked to disk."""

import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import BinaryIO, TypeVar

from agr_utils.data.images import (
    HEADER_BYTES,
    MAX_PIXELS,
    SUFFIXES,
    is_image,
    is_image_header,
    missing_support,
    suffix_of,
)
from agr_utils.data.skipped import Skipped
from agr_utils.errors import InputError

MAX_BYTES = 4 * MAX_PIXELS  # of one file: an uncompressed image of as many pixels as are read
MAX_TABLE_BYTES = 64 * 2**20  # of a label file; FairFace's largest is a twentieth of it
READ_AHEAD_BYTES = 64 * 2**20  # of files that wait for a free core
READ_AHEAD_FILES = 512
# Entries of a tar that describe the next one (its long name, its attributes), which tarfile reads at once.
_TAR_DESCRIPTIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
_MAX_DESCRIPTION_BYTES = 2**20
_FOLDER_LIKE_IMAGE = "a folder named like an image"
_NO_FILE = "not a regular file (a pipe, socket or device)"
_LINKED_FOLDER = "link to a folder (not followed)"
_DEAD_LINK = "link that leads nowhere"
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Entry:
    """One thing in a folder or archive.

    Attributes:
        name: with ``/`` between folders.
        size: of the file's content in bytes.
        open: opens the content.
        problem: why it is no file that can be read; empty for one that can.
        is_folder: the problem is that of a folder, so images may be missing whatever it is called.
    """

    name: str
    size: int = 0
    open: Callable[[], BinaryIO] | None = None
    problem: str = ""
    is_folder: bool = False

    def read(self, limit: int) -> bytes:
        """The content.

        Raises:
            InputError: if it is larger than ``limit`` bytes, which is seen before it is read.
        """
        if self.size > limit:
            raise InputError(
                f"{self.name}: {self.size / 1e6:.0f} MB is too large (limit {limit / 1e6:.0f} MB). Make it smaller"
            )
        with self.open() as file:
            return file.read(self.size)  # no more, if it grows meanwhile


def list_images(source: Path, skipped: Skipped | None = None) -> list[str]:
    """Names of the images in a folder or archive, sorted, with ``/`` between folders.

    Args:
        source: folder, tar, tar.gz or zip.
        skipped: told what looks like an image, or may hold some, and is left out.

    Raises:
        InputError: if the source does not exist, is no folder or archive, or holds no image.
    """
    return sorted(entry.name for entry in _images(source, Skipped() if skipped is None else skipped))


def find_files(folder: Path, skipped: Skipped) -> list[Path]:
    """Image files below a folder, sorted; ``skipped`` is told of what is left out. Empty where there is none."""
    return sorted(Path(folder) / entry.name for entry in _choose(_walk(Path(folder)), skipped))


def read_images(source: Path) -> Iterator[tuple[str, bytes | InputError]]:
    """Yield the name of each image with its content, or why it has none, in the order that reads the source fastest.

    Raises:
        InputError: for a damaged archive, of which nothing can be trusted, and as in ``list_images``.
    """
    source = Path(source)
    for entry in _images(source, Skipped()):
        with _clear_errors(source):
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
    """Content of the file of this name, in whatever folder of the source it lies.

    Raises:
        InputError: if there is none, or it is too large for a table.
    """
    for entry in _open(Path(source)):
        if entry.name.rsplit("/", 1)[-1] == file_name and not entry.problem:
            with _clear_errors(source):
                return io.BytesIO(entry.read(MAX_TABLE_BYTES))
    raise InputError(f"{source}: no {file_name} in it. Put the file there (docs/data.md)")


def _images(source: Path, skipped: Skipped) -> Iterator[_Entry]:
    """The entries that are images, at least one."""
    source, count = Path(source), 0
    for count, entry in enumerate(_choose(_open(source), skipped), 1):  # noqa: B007 - counted to the end
        if any(
            "\ud800" <= letter <= "\udfff" for letter in entry.name
        ):  # so odd bytes are held; no table can hold them
            raise InputError(f"{source}: the file name {entry.name!r} is not UTF-8. Rename it")
        yield entry
    if count == 0:
        found = f"; {skipped}" if skipped else ""
        raise InputError(
            f"{source}: no image in it (looked for {', '.join(SUFFIXES[:6])} and others{found}). "
            "Name the folder that holds them"
        )


def _choose(entries: Iterator[_Entry], skipped: Skipped) -> Iterator[_Entry]:
    """Images by their suffix, or without one by how they begin; what else a user may miss goes to ``skipped``."""
    for entry in entries:
        leaf = entry.name.rsplit("/", 1)[-1]
        suffix = suffix_of(leaf)
        no_suffix = not suffix and not leaf.startswith(".")
        support = "" if leaf.startswith("._") else missing_support(suffix)
        if not (is_image(leaf) or no_suffix or support or entry.is_folder):
            continue
        if entry.problem or support:
            skipped.add(entry.problem or support, entry.name)
        elif is_image(leaf):
            yield entry
        else:
            try:
                with entry.open() as file:
                    header = file.read(HEADER_BYTES)
            except OSError as error:
                skipped.add(f"unreadable ({error.strerror or error})", entry.name)
                continue
            if support := missing_support(header=header):
                skipped.add(support, entry.name)
            elif is_image_header(header):
                yield entry


def _open(source: Path) -> Iterator[_Entry]:
    """Yield everything in a source; names are never used to write anything."""
    no_archive = InputError(f"{source}: neither a folder nor a tar, tar.gz or zip archive. Name the folder of images")
    with _clear_errors(source):
        if not source.exists():
            raise InputError(f"{source}: no such folder or archive. Check the path, or AGR_DATA_DIR")
        if source.is_dir():
            yield from _walk(source)
        elif not source.is_file():  # a pipe would be waited for
            raise no_archive
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for item in archive.infolist():
                    if not item.is_dir() or is_image(item.filename.rstrip("/")):
                        yield _zip_entry(archive, item)
        else:
            try:
                archive = tarfile.open(source, tarinfo=_StrictTarInfo)  # noqa: SIM115 - closed below
            except tarfile.ReadError:
                raise no_archive from None
            with archive:
                for item in archive:
                    if not item.isdir() or is_image(item.name):
                        yield _tar_entry(archive, item)
                while archive.fileobj.read(2**16):  # a compressed archive's checksum is at its very end
                    pass


def _walk(top: Path) -> Iterator[_Entry]:
    """Everything below a folder, with folders that cannot be read and links to folders as entries of their own."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                items = sorted(found, key=lambda item: item.name)
        except OSError as error:
            if folder == top:
                raise
            name = folder.relative_to(top).as_posix()
            yield _Entry(name, problem=f"unreadable folder ({error.strerror or error})", is_folder=True)
            continue
        for item in items:
            path = folder / item.name
            if item.is_dir(follow_symlinks=False):
                waiting.append(path)
                if not is_image(item.name):
                    continue
            yield _file_entry(path, path.relative_to(top).as_posix())


def _file_entry(path: Path, name: str) -> _Entry:
    """A path as an entry; it is not opened, for opening a pipe would wait for whoever writes to it."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return _Entry(name, problem=_DEAD_LINK)
    except OSError as error:
        return _Entry(name, problem=f"unreadable ({error.strerror or error})")
    if stat.S_ISDIR(about.st_mode):
        return _Entry(name, problem=_LINKED_FOLDER if path.is_symlink() else _FOLDER_LIKE_IMAGE, is_folder=True)
    if not stat.S_ISREG(about.st_mode):
        return _Entry(name, problem=_NO_FILE)
    return _Entry(name, about.st_size, lambda: path.open("rb"))


def _zip_entry(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> _Entry:
    if item.is_dir():
        return _Entry(item.filename.rstrip("/"), problem=_FOLDER_LIKE_IMAGE, is_folder=True)
    kind = item.external_attr >> 16  # the Unix mode, where the archive was packed on Unix
    if stat.S_ISLNK(kind):
        return _Entry(item.filename, problem="link in a zip (pack what it leads to)")
    return _Entry(item.filename, item.file_size, lambda: archive.open(item))


def _tar_entry(archive: tarfile.TarFile, item: tarfile.TarInfo) -> _Entry:
    """A link is looked up in the archive only."""
    if item.isdir():
        return _Entry(item.name, problem=_FOLDER_LIKE_IMAGE, is_folder=True)
    if item.islnk() or item.issym():
        try:
            file = archive.extractfile(item)
        except (KeyError, RecursionError):  # to something outside, or in a circle
            return _Entry(item.name, problem=_DEAD_LINK)
        if file is None:
            return _Entry(item.name, problem=_LINKED_FOLDER, is_folder=True)
        return _Entry(item.name, file.seek(0, io.SEEK_END), lambda: archive.extractfile(item))
    if not item.isfile():
        return _Entry(item.name, problem=_NO_FILE)
    return _Entry(item.name, item.size, lambda: archive.extractfile(item))


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a broken header for the end of the archive and drops what follows; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _TAR_DESCRIPTIONS and self.size > _MAX_DESCRIPTION_BYTES:
            raise InputError(f"{archive.name}: damaged archive (the description of an entry takes {self.size} bytes)")
        return super()._proc_member(archive)


@contextmanager
def _clear_errors(source: Path) -> Iterator[None]:
    """Turn what goes wrong while reading a folder or archive into one clear line."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{error.filename or source}: no permission to read it. Change its permissions") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, BadGzipFile, KeyError) as error:
        raise InputError(f"{source}: damaged archive ({error}). Download it again") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's words for a password and for an odd compression
        raise InputError(f"{source}: cannot unpack this archive ({error}). Pack the images without that") from error
    except OSError as error:
        where, reason = error.filename or source, error.strerror or error
        raise InputError(f"{where}: cannot be read ({reason}). Check the disk or get it again") from error

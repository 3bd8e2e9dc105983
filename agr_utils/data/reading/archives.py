"""What lies in a folder, a tar, tar.gz or zip, as entries that can be read. Nothing is unpacked to disk."""

import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import BinaryIO

from agr_utils.data.reading.images import is_image
from agr_utils.errors import InputError

# Entries of a tar that describe the next one (its long name, its attributes), which tarfile reads at once.
_TAR_DESCRIPTIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
_MAX_DESCRIPTION_BYTES = 2**20
_FOLDER_LIKE_IMAGE = "a folder named like an image"
_NO_FILE = "not a regular file (a pipe, socket or device)"
_LINKED_FOLDER = "link to a folder (not followed)"
_DEAD_LINK = "link that leads nowhere"


@dataclass(frozen=True)
class Entry:
    """One thing in a folder or archive."""

    name: str  #: with ``/`` between folders
    size: int = 0  #: of the file's content in bytes
    open: Callable[[], BinaryIO] | None = None
    problem: str = ""  #: why it is no file that can be read; empty for one that can
    is_folder: bool = False  #: the problem is a folder's, so images may be missing whatever it is called

    def read(self, limit: int) -> bytes:
        """The content; an InputError if it is larger than ``limit`` bytes, which is seen before it is read."""
        if self.size > limit:
            raise InputError(
                f"{self.name}: {self.size / 1e6:.0f} MB is too large (limit {limit / 1e6:.0f} MB). Make it smaller"
            )
        with self.open() as file:
            return file.read(self.size)  # no more, if it grows meanwhile


def open_source(source: Path) -> Iterator[Entry]:
    """Yield everything in a source; names are never used to write anything."""
    no_archive = InputError(f"{source}: neither a folder nor a tar, tar.gz or zip archive. Name the folder of images")
    with clear_errors(source):
        if not source.exists():
            raise InputError(f"{source}: no such folder or archive. Check the path, or AGR_DATA_DIR")
        if source.is_dir():
            yield from walk_folder(source)
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
                with source.open("rb") as file:
                    if file.read(2) == b"PK":
                        raise zipfile.BadZipFile("a zip whose end is missing") from None
                raise no_archive from None
            with archive:
                for item in archive:
                    if not item.isdir() or is_image(item.name):
                        yield _tar_entry(archive, item)
                while archive.fileobj.read(2**16):  # a compressed archive's checksum is at its very end
                    pass


def walk_folder(top: Path) -> Iterator[Entry]:
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
            yield Entry(name, problem=f"unreadable folder ({error.strerror or error})", is_folder=True)
            continue
        for item in items:
            path = folder / item.name
            if item.is_dir(follow_symlinks=False):
                waiting.append(path)
                if not is_image(item.name):
                    continue
            yield _file_entry(path, path.relative_to(top).as_posix())


def _file_entry(path: Path, name: str) -> Entry:
    """A path as an entry; it is not opened, for opening a pipe would wait for whoever writes to it."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return Entry(name, problem=_DEAD_LINK)
    except OSError as error:
        return Entry(name, problem=f"unreadable ({error.strerror or error})")
    if stat.S_ISDIR(about.st_mode):
        return Entry(name, problem=_LINKED_FOLDER if path.is_symlink() else _FOLDER_LIKE_IMAGE, is_folder=True)
    if not stat.S_ISREG(about.st_mode):
        return Entry(name, problem=_NO_FILE)
    return Entry(name, about.st_size, lambda: path.open("rb"))


def _zip_entry(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Entry:
    if item.is_dir():
        return Entry(item.filename.rstrip("/"), problem=_FOLDER_LIKE_IMAGE, is_folder=True)
    kind = item.external_attr >> 16  # the Unix mode, where the archive was packed on Unix
    if stat.S_ISLNK(kind):
        return Entry(item.filename, problem="link in a zip (pack what it leads to)")
    return Entry(item.filename, item.file_size, lambda: archive.open(item))


def _tar_entry(archive: tarfile.TarFile, item: tarfile.TarInfo) -> Entry:
    """A link is looked up in the archive only."""
    if item.isdir():
        return Entry(item.name, problem=_FOLDER_LIKE_IMAGE, is_folder=True)
    if item.islnk() or item.issym():
        try:
            file = archive.extractfile(item)
        except (KeyError, RecursionError):  # to something outside, or in a circle
            return Entry(item.name, problem=_DEAD_LINK)
        if file is None:
            return Entry(item.name, problem=_LINKED_FOLDER, is_folder=True)
        return Entry(item.name, file.seek(0, io.SEEK_END), lambda: archive.extractfile(item))
    if not item.isfile():
        return Entry(item.name, problem=_NO_FILE)
    return Entry(item.name, item.size, lambda: archive.extractfile(item))


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
def clear_errors(source: Path) -> Iterator[None]:
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

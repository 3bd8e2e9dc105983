"""Read images from where users have them: a folder, a tar, tar.gz or zip. Nothing is unpacked to disk."""

import io
import lzma
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from agr_utils.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # whatever the suffix says; PIL would start Ghostscript for PostScript
MAX_PIXELS = 100_000_000  # a larger image would need over 300 MB to open, and no face photograph needs it
# EXIF orientation to what puts it right. ImageOps.exif_transpose also writes the EXIF anew, which fails on odd tags.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def list_images(source: Path) -> list[str]:
    """Names of the images in a folder or archive, sorted, with ``/`` between folders.

    Raises:
        InputError: if the source does not exist, is no folder or archive, or holds no image.
    """
    return sorted(name for name, _ in _members(source))


def read_images(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each image, in the order that reads the source fastest."""
    for name, read in _members(source):
        with _clear_errors(source):
            content = read()
        yield name, content


def read_member(source: Path, file_name: str) -> io.BytesIO:
    """Content of the file of this name, in whatever folder of the source it lies.

    Raises:
        InputError: if there is none.
    """
    for name, read in _open(Path(source)):
        if name.rsplit("/", 1)[-1] == file_name:
            with _clear_errors(source):
                return io.BytesIO(read())
    raise InputError(f"{source}: no {file_name} in it. Put the file there (docs/data.md)")


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    leaf = name.rsplit("/", 1)[-1]
    return leaf.lower().endswith(SUFFIXES) and not leaf.startswith("._")  # macOS litters archives with ._ files


def _is_utf8(name: str) -> bool:
    """Whether a name can be written down: odd bytes of a name are surrogates here, which no table can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _members(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield each image's name and a function that reads it."""
    source = Path(source)
    count = 0
    for name, read in _open(source):
        if is_image(name):
            if not _is_utf8(name):
                raise InputError(f"{source}: the file name {name!r} is not UTF-8. Rename it")
            count += 1
            yield name, read
    if count == 0:
        raise InputError(
            f"{source}: no image in it (looked for {', '.join(SUFFIXES)}). Name the folder that holds them"
        )


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


def _open(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield every file's name and a function that reads it; names are never used to write anything."""
    with _clear_errors(source):
        if not source.exists():
            raise InputError(f"{source}: no such folder or archive. Check the path, or AGR_DATA_DIR")
        if source.is_dir():
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    yield path.relative_to(source).as_posix(), path.read_bytes
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for item in archive.infolist():
                    if not item.is_dir():
                        yield item.filename, lambda item=item: archive.read(item)
        elif tarfile.is_tarfile(source):
            with tarfile.open(source, tarinfo=_StrictTarInfo) as archive:
                for item in archive:
                    if item.isfile() or item.islnk() or item.issym():  # a link is looked up in the archive only
                        yield item.name, lambda item=item: archive.extractfile(item).read()
                while archive.fileobj.read(2**16):  # a compressed archive's checksum is at its very end
                    pass
        else:
            raise InputError(f"{source}: neither a folder nor a tar, tar.gz or zip archive. Name the folder of images")


def decode_image(content: bytes, name: str = "image", size: int | None = None) -> Image.Image:
    """Decode one image to 8-bit RGB, turned as its EXIF says.

    Args:
        content: the file's bytes.
        name: used in the error message.
        size: if given, a JPEG may be decoded at the smallest scale that is still at least this large, for speed.

    Raises:
        InputError: if it is empty, truncated, too large, or no image.
    """
    if not content:
        raise InputError(f"{name}: an empty file (0 bytes). Delete it or get it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # replaced by the clear limit below
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{name}: {image.width}x{image.height} pixels is too large "
                    f"(limit {MAX_PIXELS // 10**6} megapixels). Crop the face first"
                )
            if size is not None:
                image.draft("RGB", (size, size))
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
            return _to_rgb(image if turn is None else image.transpose(turn))
    except InputError:
        raise
    except UnidentifiedImageError:
        header = content[:4].hex(" ")
        raise InputError(f"{name}: not an image this can read (begins with bytes {header}). Delete it") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: too large to open safely ({error}). Crop the face first") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes: struct.error, TypeError, ...
        raise InputError(f"{name}: damaged image ({error}). Delete it or get it again") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16-bit grey and wider: PIL's own conversion clips instead of scaling
        values = np.asarray(image, dtype=np.float32)
        scale = 255.0 / max(float(values.max()), 65535.0 if values.max() > 255 else 255.0)
        image = Image.fromarray((values * scale).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def resize_square(image: Image.Image, size: int) -> np.ndarray:
    """Centre crop to a square, then resize with antialiasing: (size, size, 3) uint8."""
    square = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(square, dtype=np.uint8)

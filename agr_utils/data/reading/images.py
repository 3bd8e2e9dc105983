"""Which files are images, and the one way in which each of them is decoded, wherever it comes from."""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from agr_utils.errors import InputError

with contextlib.suppress(ImportError):  # with it, HEIC is read like everything else
    from pillow_heif import register_heif_opener

    register_heif_opener()

# Pillow's remarks on odd files would stand between a command's lines. Set here once: catch_warnings knows no threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.ERROR)

# What Pillow opens without reading it, hands to another program (Ghostscript), unpacks without a limit, or takes nearly
# any bytes for.
_NOT_READ = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IMT", "IPTC", "MPEG", "PDF", "SPIDER", "WMF"}
_BUILT_WITH = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # where Pillow was built without, it cannot
Image.init()
FORMATS = tuple(
    name for name in Image.OPEN if name not in _NOT_READ and features.check(_BUILT_WITH.get(name, "pil")) is not False
)
SUFFIXES = tuple(suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO"))
_HEIC, _AVIF = "HEIC (install pillow-heif)", "AVIF (install Pillow 11.3 or newer)"
_RAW, _VECTOR = "camera RAW (convert it to JPEG)", "vector graphics (convert it to PNG)"
SUPPORT = {  # pictures that cannot be read here, and what would help
    suffix: advice
    for advice, suffixes in {
        _HEIC: ".heic .heif .hif",
        _AVIF: ".avif .avifs",
        "WebP (install a Pillow that was built with it)": ".webp",
        "JPEG 2000 (install a Pillow that was built with it)": ".jp2 .j2k .jpx",
        "JPEG XL (convert it to JPEG)": ".jxl",
        _RAW: ".arw .cr2 .cr3 .dng .nef .orf .raf .rw2",
        _VECTOR: ".ai .eps .ps .svg .emf .wmf",
    }.items()
    for suffix in suffixes.split()
    if suffix not in SUFFIXES
}
Result = TypeVar("Result")
MAX_PIXELS = 100_000_000  # a larger image would need over 800 MB to decode, and no face photograph needs it
HEADER_BYTES = 32  # enough to tell what a file is
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


def suffix_of(name: str) -> str:
    """Lower-case ending of a file name from its last dot on; empty where there is none or only a leading dot."""
    stem, dot, ending = name.rsplit("/", 1)[-1].rpartition(".")
    return dot + ending.lower() if stem else ""


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    leaf = name.rsplit("/", 1)[-1]
    return leaf.lower().endswith(SUFFIXES) and not leaf.startswith("._")  # macOS litters archives with ._ files


def is_image_header(header: bytes) -> bool:
    """Whether a file of no suffix that begins like this is an image; on less than 16 bytes some formats fail."""
    return len(header) >= 16 and any((accept := Image.OPEN[name][1]) and accept(header) for name in FORMATS)


def missing_support(suffix: str = "", header: bytes = b"") -> str:
    """What a picture is that cannot be read here, and in brackets what would help; empty for anything else.

    ``header``, its first bytes, names the kind of AVIF and HEIC containers.
    """
    kind = header[8:12] if header[4:8] == b"ftyp" else b""
    if kind in (b"avif", b"avis") and "AVIF" not in FORMATS:
        return _AVIF
    if kind in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1") and "HEIF" not in FORMATS:
        return _HEIC
    return SUPPORT.get(suffix, "")


class _Room:
    """So many bytes for what is decoded at a time in this process; a picture that needs all of them is alone."""

    def __init__(self, size: int):
        self._size, self._taken, self._change = size, 0, threading.Condition()

    @contextmanager
    def take(self, wanted: int) -> Iterator[None]:
        """Wait until there is room for ``wanted`` bytes, and hold it inside the block."""
        wanted = min(wanted, self._size)
        with self._change:
            self._change.wait_for(lambda: self._taken + wanted <= self._size)
            self._taken += wanted
        try:
            yield
        finally:
            with self._change:
                self._taken -= wanted
                self._change.notify_all()


_BYTES_PER_PIXEL = 8  # Pillow holds a pixel in 4 bytes, and two pictures are held while one is made of the other
_room = _Room(_BYTES_PER_PIXEL * MAX_PIXELS)


def decode_image(content: bytes, name: str = "image") -> Image.Image:
    """Decode one image to 8-bit RGB, turned as its EXIF says, on white where it is transparent.

    Raises:
        InputError: with its name, if it is empty, truncated, too large for the limit or for memory, or no image.
    """
    return _decode(_open_image(content, name), name)


def use_image(content: bytes, name: str, use: Callable[[Image.Image], Result]) -> Result:
    """``use(decode_image(content, name))``, with few large images in memory at a time.

    Threads may call it at once: together they hold as much as one image of MAX_PIXELS.
    """
    image = _open_image(content, name)
    with _room.take(_BYTES_PER_PIXEL * image.width * image.height):
        image = _decode(image, name)
        return use(image)


def decode_square(content: bytes, name: str, size: int) -> np.ndarray:
    """Decode an image and take its middle square, (size, size, 3) uint8; see ``use_image`` and ``resize_square``."""
    return use_image(content, name, lambda image: resize_square(image, size))


def resize_square(image: Image.Image, size: int) -> np.ndarray:
    """Centre crop to a square, then resize with antialiasing: (size, size, 3) uint8."""
    square = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(square, dtype=np.uint8)


def _open_image(content: bytes, name: str) -> Image.Image:
    """Read the header only: no pixel is decoded before the size is known."""
    if not content:
        raise InputError(f"{name}: an empty file (0 bytes). Get it again")
    with _clear_errors(name):
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            if support := missing_support(header=content[:HEADER_BYTES]):
                raise InputError(f"{name}: cannot be read here: {support}") from None
            raise InputError(
                f"{name}: not an image this can read (begins with bytes {content[:4].hex(' ')}). "
                "Get it again, or leave it out"
            ) from None
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{name}: {image.width}x{image.height} pixels is too large "
            f"(limit {MAX_PIXELS // 10**6} megapixels). Crop the face first"
        )
    return image


def _decode(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise InputError(f"{name}: {image.width}x{image.height} pixels, so there is nothing to see. Leave it out")
    with _clear_errors(name):
        image.load()
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))  # after loading: Pillow turns a TIFF itself
        image = _to_rgb(image)
        return image if turn is None else image.transpose(turn)


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong while decoding into one clear line."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{name}: too little memory to decode it. Free some, or make the picture smaller") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: too large to open safely ({error}). Crop the face first") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes: struct.error, TypeError, ...
        raise InputError(f"{name}: damaged image ({error}). Get it again, or leave it out") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; at most two pictures of the full size are held at a time."""
    if image.mode.startswith(("I", "F")):
        image = _to_grey(image)
    if image.has_transparency_data:
        if image.mode not in ("RGBA", "LA"):
            image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_grey(image: Image.Image) -> Image.Image:
    """16-bit grey and wider, scaled to 8 bits (Pillow's own conversion clips), some rows at a time."""
    rows = max(1, 2**22 // image.width)
    tops = range(0, image.height, rows)

    def band(top: int) -> np.ndarray:
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))), dtype=np.float32)
        return np.nan_to_num(values, nan=0, posinf=0, neginf=0).clip(min=0)

    largest = max(float(band(top).max()) for top in tops)
    white = 1.0 if image.mode == "F" and largest <= 1 else 255.0 if largest <= 255 else max(largest, 65535.0)
    grey = Image.new("L", image.size)
    for top in tops:
        grey.paste(Image.fromarray((band(top) * np.float32(255 / white)).astype(np.uint8)), (0, top))
    return grey

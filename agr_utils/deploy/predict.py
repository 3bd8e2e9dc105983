"""Photographs in, answers out, offline: faces are found, cut out as in training, and answered one by one."""

import io
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from agr_utils.data.reading.images import FORMATS, _clear_errors, _decode, resize_square, use_image
from agr_utils.data.reading.sources import MAX_BYTES
from agr_utils.deploy.answers import to_answer
from agr_utils.deploy.detect import Face, cut_out, find_faces, load_detector, place_crop
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
from agr_utils.deploy.quality import warnings_of
from agr_utils.errors import InputError
from agr_utils.tasks import NUM_AGES

DEFAULT_TASKS = ("age", "gender")  # race is only answered when it is asked for


@dataclass(frozen=True)
class Request:
    """What is asked."""

    tasks: tuple[str, ...] = DEFAULT_TASKS  #: some of ``age``, ``gender``, ``race``
    detect: bool = True  #: look for faces; otherwise the image is a crop of one, whose middle square is taken
    faces: str = "all"  #: or ``one`` for the largest only
    quantiles: bool = False  #: also give the age's quantiles
    abstain: bool = False  #: "can't tell" where the model is not sure enough

    def __post_init__(self):
        if not self.tasks:
            raise InputError("no task is asked for. Choose some of age, gender, race")
        if isinstance(self.tasks, str):
            raise InputError(f"tasks is the text '{self.tasks}'. Give several in brackets, or one: ('{self.tasks}',)")
        if self.faces not in ("all", "one"):
            raise InputError(f"faces is '{self.faces}'. Choose all or one")


DEFAULT_REQUEST = Request()


def predict_files(
    files: Iterable[Path], model: FaceModel | Path | str | None = None, request: Request = DEFAULT_REQUEST
) -> Iterator[dict]:
    """Answer for each file, in order. Memory does not grow with their number.

    Args:
        files: photographs, or crops of faces where ``request.detect`` is off; a single path is one file.
        model: or its file; the shipped one where it is None.
        request: what is asked; an InputError if the model does not answer a task.

    Yields:
        ``path``; ``faces``, a list, largest first and empty where none is found, each with ``box`` (left, top, width,
        height, pixels), ``score`` of the detector and the answer of ``agr_utils.deploy.answers.to_answer``, or, without
        detection, that answer itself; ``warnings``; ``model`` and ``model_sha256``. For a file that cannot be read
        ``path`` and ``error``.
    """
    answerer = _Answerer(model, request)  # sessions are made, and libraries imported, before threads start
    waiting: deque = deque()
    pool = ThreadPoolExecutor(num_workers := os.cpu_count() or 1)
    try:
        for path in [files] if isinstance(files, (str, Path)) else files:
            waiting.append(pool.submit(answerer.answer_file, Path(path)))
            if len(waiting) >= 8 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def predict_rgb(
    images: Iterable[Path | str | Image.Image | np.ndarray],
    model: FaceModel | Path | str | None = None,
    request: Request = DEFAULT_REQUEST,
) -> list[dict]:
    """Answers about images: paths, PIL images, and RGB arrays (H, W, 3) in uint8 or in floats from 0 to 1.

    Args:
        images: any mixture; channels in the order red, green, blue (OpenCV's are the other way round).
        model: or its file; the shipped one where it is None.
        request: what is asked.

    Returns:
        As ``predict_files``, with a ``path`` for paths only.

    Raises:
        InputError: for an array of another shape, type or range, a file that cannot be read, or as ``predict_files``.
    """
    single = isinstance(images, (str, bytes, Path, Image.Image)) or not isinstance(images, Iterable)
    if single or getattr(images, "ndim", 0) in (2, 3):
        images = [images]
    answerer = _Answerer(model, request)
    answers = []
    for number, image in enumerate(images):
        if isinstance(image, (str, Path)):
            answer = answerer.answer_file(Path(image))
            if "error" in answer:
                raise InputError(f"{image}: {answer['error']}")
        elif isinstance(image, Image.Image):
            answer = answerer.answer(_decode(image, f"image {number}"))
        else:
            answer = answerer.answer(Image.fromarray(check_rgb(image, f"image {number}")))
        answers.append(answer)
    return answers


def check_rgb(array: np.ndarray, name: str = "image") -> np.ndarray:
    """The array as (H, W, 3) uint8; an InputError unless it is that, or floats that are all within 0 and 1."""
    if not hasattr(array, "__array__"):
        raise InputError(
            f"{name}: a {type(array).__name__} is no image. Give a path, a PIL image or an array (H, W, 3)"
        )
    try:
        array = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor with gradients or on a GPU, say
        raise InputError(f"{name}: a {type(array).__name__} that cannot be read as an array ({error})") from error
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        hint = "Move the channels to the end" if array.ndim == 3 and array.shape[0] in (1, 3) else "Convert it to RGB"
        raise InputError(f"{name}: its shape is {array.shape}, not (height, width, 3). {hint}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: its type is {array.dtype}. Give uint8 from 0 to 255, or floats from 0 to 1")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"{name}: floats from {array.min():g} to {array.max():g}, which should lie between 0 and 1. "
            "Divide 0 to 255 by 255, and undo any normalisation"
        )
    return (array * 255 + 0.5).astype(np.uint8)


class _Answerer:
    """Answers requests about single images, from any thread."""

    def __init__(self, model: FaceModel | Path | str | None, request: Request):
        self.model = model if isinstance(model, FaceModel) else FaceModel(SHIPPED_MODEL if model is None else model)
        self.request = request
        self.tasks = self.model.check_tasks(request.tasks)
        self.limits = self.model.about.get("limits", {})
        self.source = {"model": self.model.run_id, "model_sha256": self.model.sha256[:16]}
        if self.model.about.get("trained_ages"):
            self.source["trained_ages"] = self.model.about["trained_ages"]
        if request.detect:
            load_detector()
        blank = np.zeros((self.model.size, self.model.size, 3), dtype=np.uint8)
        self._answer_pixels(blank, None)  # refuses here, not in a thread, what it cannot do

    def answer_file(self, path: Path) -> dict:
        """See ``predict_files``."""
        try:
            content = _read_file(path)
            answer = use_image(content, path.name, self.answer)
            if _has_more_frames(content):
                answer["warnings"] = [*answer.get("warnings", ()), "only the first picture of the file was looked at"]
            return {"path": str(path)} | answer
        except InputError as error:
            return {"path": str(path), "error": str(error).removeprefix(f"{path.name}: ")}

    def answer(self, image: Image.Image) -> dict:
        """Answer about one image, 8-bit RGB."""
        if not self.request.detect:
            side = min(image.size)
            return self._answer_pixels(resize_square(image, self.model.size), side) | self.source
        found = find_faces(image)
        if self.request.faces == "one":
            found = found[:1]
        return {"faces": [self._answer_face(image, face) for face in found]} | self.source

    def _answer_face(self, image: Image.Image, face: Face) -> dict:
        place = place_crop(face, self.model.about["zoom"])
        where: dict = {"box": [round(value) for value in face.box], "score": round(face.score, 3)}
        if face.turned:
            where["turned"] = face.turned
        answer = self._answer_pixels(cut_out(image, place, self.model.size), place.side)
        left, top, width, height = face.box
        if min(left, top, image.width - left - width, image.height - top - height) < 0.01 * width:
            answer["warnings"] = [*answer.get("warnings", ()), "cut off by the edge of the picture"]
        return where | answer

    def _answer_pixels(self, pixels: np.ndarray, side: float | None) -> dict:
        outputs = self.model.run(pixels, self.tasks)
        answer = to_answer(outputs, self.model.about, self.request.quantiles, self.request.abstain)
        warnings = warnings_of(pixels, side, self.limits)
        low, high = self.model.narrow_ages or (0, NUM_AGES)
        if "age_interval" in answer and (answer["age_interval"][0] < low or answer["age_interval"][1] > high):
            warnings.append(f"at the end of the ages it was trained on ({low} to {high})")
        return answer | ({"warnings": warnings} if warnings else {})


def _read_file(path: Path) -> bytes:
    """Content of a file; an InputError, which does not name it, if it is too large or cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file (a pipe, socket, device or folder). Save the picture to a file")
        if status.st_size > MAX_BYTES:
            megabytes, limit = status.st_size / 1e6, MAX_BYTES / 1e6
            raise InputError(f"{megabytes:.0f} MB is too large (limit {limit:.0f} MB). Make it smaller")
        return path.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # the latter of a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read ({reason}). Check it and try again") from error


def _has_more_frames(content: bytes) -> bool:
    """Whether a file holds several pictures, as an animation; a camera's MPO is one, twice, a PSD's layers are one."""
    with suppress(InputError), _clear_errors("others"):  # damaged ones: the first picture has been answered
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        return image.format not in ("MPO", "PSD") and getattr(image, "is_animated", False)
    return False

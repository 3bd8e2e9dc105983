"""Fixtures that every test may use. Faces are drawn by the package; no photograph is read or kept."""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from agr_utils.data.load import FaceData, load_data
from agr_utils.data.synthetic import SyntheticFaces, draw_faces
from agr_utils.errors import InputError
from agr_utils.training.config import TrainConfig

# The same examples in every run, however slow the machine is.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

# Read before any test runs, because the tests themselves run without it.
_REAL_DATA_DIR = os.environ.get("AGR_DATA_DIR")
_REAL_DATA_NAME = os.environ.get("AGR_DATA", "utkface")


_FORKING = threading.Lock()  # filelock refuses a fork while another thread forks
_LONG = {"test_study", "test_resume", "test_bench", "test_processes", "test_results", "test_bench_deploy"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take a minute and more come first, so that processes side by side end together."""
    items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test depends on the user's settings or writes to the user's cache."""
    for variable in ("AGR_DATA", "AGR_DATA_DIR", "AGR_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AGR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def cache_dir() -> Path:
    """The empty folder in which this test's pixel caches are made."""
    return Path(os.environ["AGR_CACHE_DIR"])


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """UTKFace as the user has it: folder or archive. Skips where there is none."""
    if not _REAL_DATA_DIR or _REAL_DATA_NAME != "utkface":
        pytest.skip("needs UTKFace: AGR_DATA_DIR=/path/to/UTKFace pytest tests/utils/data/test_data_real.py")
    return Path(_REAL_DATA_DIR)


@pytest.fixture(scope="session")
def data() -> FaceData:
    """The 160 drawn faces of 32 px on which the tests train."""
    return load_data("synthetic", 32, num_images=160)


@pytest.fixture(scope="session")
def tiny_run(data: FaceData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of one epoch: its answers are nonsense, their form is not. No test changes it."""
    from agr_utils.training.run import train_run

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train_run(
        TrainConfig(backbone="custom_cnn", num_epochs=1, image_size=32, batch_size=32, num_images=160), data, folder
    )
    return folder


@pytest.fixture(scope="session")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX file of the tiny run, with its report beside it. No test changes it."""
    from agr_lab.export import export_run

    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    export_run(tiny_run, path)
    return path


@pytest.fixture(scope="session")
def drawn_faces() -> SyntheticFaces:
    """A dozen drawn faces of 48 px."""
    return draw_faces(12, image_size=48, seed=3)


@pytest.fixture
def face_folder(tmp_path: Path, drawn_faces: SyntheticFaces) -> Path:
    """A folder of a dozen JPEGs whose names follow UTKFace's pattern."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for row, pixels in zip(drawn_faces.faces.itertuples(), drawn_faces.pixels, strict=True):
        name = f"{int(row.age)}_{row.gender}_{row.race}_{20170112213500000 + row.Index}.jpg.chip.jpg"
        Image.fromarray(pixels).save(folder / name, quality=95)
    return folder


@pytest.fixture
def die_within() -> Callable[[Callable[[], object], int], int]:
    """``die_within(action, 3)`` does something in a new process that kills itself at its third change of the disk.

    Gives the exit status: -9, or 0 if the action came to its end before. Files are opened past this; an action that
    wants to die while it writes one calls ``os.fsync(-1)``, which here does nothing else.
    """

    def run(action: Callable[[], object], death: int) -> int:
        with _FORKING:
            process = os.fork()
        if process:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        try:
            count = itertools.count(1)

            def die_in_time(function: Callable) -> Callable:
                def call(*arguments, **options):
                    if next(count) == death:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **options)

                return call

            for name in ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "open", "write", "truncate"):
                setattr(os, name, die_in_time(getattr(os, name)))
            os.fsync = die_in_time(lambda _: None)
            action()
            os._exit(0)
        finally:
            os._exit(1)

    return run


@pytest.fixture
def agr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """``status, out, err = agr("evaluate", folder)`` runs a command in this process."""
    from agr_lab.cli import main as cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agr", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


@pytest.fixture
def one_clear_line() -> Callable[..., AbstractContextManager]:
    """``with one_clear_line("a.jpg", "empty"):`` expects an InputError of one line that contains these words."""

    @contextmanager
    def expect(*fragments: str) -> Iterator[None]:
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert len(message.splitlines()) == 1, message
        for fragment in fragments:
            assert fragment in message, message

    return expect

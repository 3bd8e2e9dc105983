"""Writing: a file or folder is the whole old or the whole new one, whoever is killed and whoever else writes."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest

from agr_utils import files
from agr_utils.files import atomic_path, replace_folder

EVENTS = ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "open", "write", "fsync")
CONTENTS = ("a", "b", "sub/c")


def start_writer(kind: str, target: Path, death: int, exchange: bool) -> int:
    """Id of a new process that writes ``target`` and kills itself at so many calls that change the file system."""
    process = os.fork()
    if process:
        return process
    try:
        count = itertools.count(1)

        def die_in_time(function):
            def call(*arguments, **options):
                if next(count) == death:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in EVENTS:
            setattr(os, name, die_in_time(getattr(os, name)))
        files._exchange = die_in_time(files._exchange if exchange else lambda *_: False)
        write(kind, target, "new", die_in_time(lambda: None))
        os._exit(0)
    finally:
        os._exit(1)


def write(kind: str, target: Path, content: str, event=lambda: None) -> None:
    with atomic_path(target) if kind == "file" else replace_folder(target, CONTENTS) as partial:
        if kind == "file":
            partial.write_text(content)
            event()
            return
        (partial / "sub").mkdir()
        for name in CONTENTS:
            (partial / name).write_text(content)
            event()


def read(target: Path) -> dict[str, str] | str | None:
    if target.is_file():
        return target.read_text()
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    return found or None


def whole(kind: str, content: str) -> dict[str, str] | str:
    return content if kind == "file" else dict.fromkeys(CONTENTS, content)


@pytest.mark.parametrize(
    ("kind", "exchange"), [("file", False), ("folder", True), ("folder", False)], ids=["file", "folder", "no exchange"]
)
@pytest.mark.parametrize("there", [True, False], ids=["replace", "new"])
def test_killed_at_any_event_the_target_is_whole_and_the_next_writer_clears_up(
    tmp_path: Path, kind: str, exchange: bool, there: bool
):
    old, new, status = whole(kind, "old") if there else None, whole(kind, "new"), -signal.SIGKILL
    for death in itertools.count(1):
        place = tmp_path / str(death)
        target = place / "target"
        place.mkdir()
        if there:
            write(kind, target, "old")
        status = os.waitstatus_to_exitcode(os.waitpid(start_writer(kind, target, death, exchange), 0)[1])
        assert status in (0, -signal.SIGKILL)
        if there and not target.exists():  # only between the two renames, and the old one lies beside
            assert not exchange and read(place / ".target.old") == old
        else:
            assert read(target) in (old, new), death
        if kind == "folder" and there:
            with replace_folder(target, CONTENTS):  # a next writer that fails has put things right all the same
                assert read(target) in (old, new)
        write(kind, target, "next")
        assert read(target) == whole(kind, "next") and list(place.iterdir()) == [target]
        if status == 0:
            break
    assert death > 5


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path: Path, one_clear_line):
    target = tmp_path / "run"
    target.mkdir()
    (target / "a").write_text("mine")
    (target / "notes").mkdir()
    (target / "notes" / "a").write_text("mine, too")
    with one_clear_line(str(target), "holds notes/a", "Move it away"), replace_folder(target, ("a",)) as partial:
        (partial / "a").write_text("new")
    assert read(target) == {"a": "mine", "notes/a": "mine, too"}
    shutil.rmtree(target)
    target.write_text("a file")
    with one_clear_line(str(target), "a file"), replace_folder(target, ("a",)) as partial:
        (partial / "a").write_text("new")
    assert target.read_text() == "a file" and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_link_is_followed_and_kept(tmp_path: Path):
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    with replace_folder(tmp_path / "run", ("a",)) as partial:
        (partial / "a").write_text("new")
    with atomic_path(tmp_path / "run" / "a") as partial:
        partial.write_text("newer")
    assert (tmp_path / "run").is_symlink() and read(tmp_path / "disk" / "run") == {"a": "newer"}


@pytest.mark.parametrize("exchange", [True, False])
def test_writers_at_a_time_wait_for_each_other(tmp_path: Path, exchange: bool):
    target = tmp_path / "target"
    processes = [start_writer("folder", target, 0, exchange) for _ in range(20)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0] * 20
    assert read(target) == whole("folder", "new") and list(tmp_path.iterdir()) == [target]


def test_a_failure_changes_nothing(tmp_path: Path):
    write("folder", tmp_path / "target", "old")
    with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "target", CONTENTS) as partial:
        (partial / "a").write_text("new")
        raise ZeroDivisionError
    with replace_folder(tmp_path / "target", CONTENTS):
        pass  # a block that writes nothing
    assert read(tmp_path / "target") == whole("folder", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]

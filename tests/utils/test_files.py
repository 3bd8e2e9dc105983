"""Writing: a file or folder is the whole old or the whole new one, whoever is killed and whoever else writes."""

import itertools
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agr_utils.errors import InputError
from agr_utils.files import atomic_path, clear_leftovers, read_json, read_table, replace_folder, write_table

CONTENTS = ("a", "b", "sub/c")


def write(kind: str, target: Path, content: str) -> None:
    with atomic_path(target) if kind == "file" else replace_folder(target, CONTENTS) as partial:
        if kind == "file":
            partial.write_text(content)
            os.fsync(-1) if content == "new" else None  # see die_within
            return
        (partial / "sub").mkdir()
        for name in CONTENTS:
            (partial / name).write_text(content)
            os.fsync(-1) if content == "new" else None


def read(target: Path) -> dict[str, str] | str | None:
    if target.is_file():
        return target.read_text()
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    return found or None


def whole(kind: str, content: str) -> dict[str, str] | str:
    return content if kind == "file" else dict.fromkeys(CONTENTS, content)


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("there", [True, False], ids=["replace", "new"])
def test_killed_at_any_event_the_target_is_whole_and_the_next_writer_clears_up(
    tmp_path: Path, kind: str, there: bool, die_within
):
    old, new = whole(kind, "old") if there else None, whole(kind, "new")
    for death in itertools.count(1):
        place = tmp_path / str(death)
        target = place / "target"
        place.mkdir()
        if there:
            write(kind, target, "old")
        status = die_within(lambda target=target: write(kind, target, "new"), death)
        assert status in (0, -signal.SIGKILL)
        if there and not target.exists():  # only between the two renames, and the old one lies beside
            assert read(place / ".target.old") == old
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


def test_writers_at_a_time_wait_for_each_other(tmp_path: Path, die_within):
    target = tmp_path / "target"
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: die_within(lambda: write("folder", target, "new"), 0), range(20)))
    assert statuses == [0] * 20
    assert read(target) == whole("folder", "new") and list(tmp_path.iterdir()) == [target]


def test_leftovers_are_cleared_and_what_is_being_written_stays(tmp_path: Path, die_within):
    def die_while_writing() -> None:
        with atomic_path(tmp_path / "large") as partial:
            partial.write_bytes(bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)

    assert die_within(die_while_writing, 0) == -signal.SIGKILL
    assert (tmp_path / ".large.partial").exists()
    with atomic_path(tmp_path / "other") as partial:
        partial.write_text("half")
        clear_leftovers(tmp_path)
        assert partial.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


TABLE = pd.DataFrame(
    {
        "image_id": [f"{number}.jpg" for number in range(50)],
        "split": pd.Categorical(["test", "validation"] * 25),
        "age_pred": np.linspace(1, 90, 50, dtype=np.float32),
        "gender": pd.array([0, 1, None, 1, 0] * 10, dtype="Int64"),
    }
)


def test_a_table_is_read_as_it_was_written(tmp_path: Path):
    table = TABLE.copy()
    table.attrs["split"] = "test"
    write_table(table, tmp_path / "table.parquet")
    again = read_table(tmp_path / "table.parquet", ("image_id",), "a table", "agr train")
    pd.testing.assert_frame_equal(again, table)
    assert again.attrs == table.attrs


def test_no_flipped_bit_of_a_table_changes_a_value(tmp_path: Path):
    path = tmp_path / "table.parquet"
    write_table(TABLE, path)
    whole_file = path.read_bytes()
    refused = 0
    for place in range(0, len(whole_file), 5):
        flipped = bytearray(whole_file)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            table = read_table(path, ("image_id",), "a table", "agr train")
        except InputError as error:
            assert "table.parquet" in str(error) and len(str(error).splitlines()) == 1
            refused += 1
        else:
            pd.testing.assert_frame_equal(table, TABLE)  # the checksum itself was hit
    assert refused > 0.9 * len(whole_file) / 5


def test_a_table_from_before_there_were_checksums_is_read(tmp_path: Path):
    TABLE.to_parquet(tmp_path / "table.parquet", index=False, compression="zstd")
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.parquet", ("split",), "a table", "agr train"), TABLE)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"\xff{}", b"[" * 100_000, b'{"seed": 1' + b"0" * 5_000 + b"}"]
)
def test_a_json_file_that_is_none_is_one_clear_line(tmp_path: Path, content: bytes, one_clear_line):
    (tmp_path / "config.json").write_bytes(content)
    with one_clear_line("config.json", "Delete it"):
        read_json(tmp_path / "config.json")


def test_a_pipe_or_a_folder_is_refused_and_does_not_block(tmp_path: Path, one_clear_line):
    os.mkfifo(tmp_path / "pipe")
    with one_clear_line("pipe", "not a regular file"):
        read_json(tmp_path / "pipe")
    with one_clear_line("pipe", "not a regular file"):
        read_table(tmp_path / "pipe", (), "a table", "agr train")
    with one_clear_line(tmp_path.name, "a folder"):
        read_json(tmp_path)


def test_a_path_that_no_file_can_have_is_one_clear_line(tmp_path: Path, one_clear_line):
    for name, words in (("a" * 300, "cannot be read now"), ("a\0b", "null")):
        with one_clear_line(words):
            read_json(tmp_path / name)


def test_a_folder_whose_replacement_cannot_be_put_in_its_place_stays(
    tmp_path: Path, one_clear_line, monkeypatch: pytest.MonkeyPatch
):
    write("folder", tmp_path / "target", "old")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise PermissionError(13, "a virus scanner holds a file open")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with one_clear_line("cannot write", "a virus scanner holds a file open"):
        write("folder", tmp_path / "target", "newer")
    assert read(tmp_path / "target") == whole("folder", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_failure_changes_nothing(tmp_path: Path):
    write("folder", tmp_path / "target", "old")
    with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "target", CONTENTS) as partial:
        (partial / "a").write_text("new")
        raise ZeroDivisionError
    with replace_folder(tmp_path / "target", CONTENTS):
        pass  # a block that writes nothing
    assert read(tmp_path / "target") == whole("folder", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]

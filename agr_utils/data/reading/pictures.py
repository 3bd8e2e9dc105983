"""Which pictures the paths of a command line stand for, and how those are counted that could not be read."""

import re
import stat
from collections.abc import Sequence
from pathlib import Path

from agr_utils.data.reading.images import SUFFIXES
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.reading.sources import find_files
from agr_utils.errors import InputError


def find_images(
    patterns: Sequence[str], skipped: Skipped | None = None, problems: list[tuple[str, str]] | None = None
) -> list[Path]:
    """Files that paths, folders and globs stand for, in the order given; a folder's images sorted by name.

    ``skipped`` is told of what is left out of folders, ``problems`` of patterns and what is wrong with them.

    Raises:
        InputError: without ``problems``, if a pattern matches nothing, or cannot be read.
    """
    files: list[Path] = []
    for pattern in patterns:
        try:
            files += _find(pattern, Skipped() if skipped is None else skipped)
        except InputError as error:
            if problems is None:
                raise
            problems.append((pattern, str(error).removeprefix(f"{pattern}: ")))
    return files


def _find(pattern: str, skipped: Skipped) -> list[Path]:
    if not pattern:
        raise InputError("a path is empty. Name a file or folder, or . for this one")
    path = Path(pattern)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except (OSError, ValueError) as error:  # too long, locked; a NUL in it
        raise InputError(f"{pattern}: cannot be read ({getattr(error, 'strerror', error)}). Check the path") from error
    if stat.S_ISDIR(mode):
        left_out = len(skipped)
        try:
            found = find_files(path, skipped)
        except OSError as error:
            raise InputError(f"{pattern}: cannot be read ({error.strerror}). Check its permissions") from error
        if not found and len(skipped) > left_out:
            return []  # there are images, and what is wrong with each is said
    elif stat.S_ISREG(mode):
        found = [path]
    elif mode:
        raise InputError(f"{pattern}: not a regular file (a pipe, socket or device). Save the picture to a file")
    else:
        found = _glob(path)
    if not found:
        raise InputError(f"{pattern}: no image there (looked for {', '.join(SUFFIXES[:4])}, …). Check the path")
    return found


def _glob(pattern: Path) -> list[Path]:
    """Files that a glob matches, sorted; links to folders are not followed, nor hidden names matched unless asked."""
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.parts]  # as a shell reads ***
    parts += ["*"] if parts[-1] == "**" else []
    hidden, root = "/." in f"/{pattern.as_posix()}", pattern.anchor
    return sorted(
        path
        for path in Path(root or ".").glob(str(Path(*parts[bool(root) :])))
        if path.is_file()
        and not any(folder.is_symlink() for folder in {*path.parents}.difference(pattern.parents))
        and (hidden or not any(part.startswith(".") for part in path.parts))
    )


def reason_of(error: str) -> str:
    """What is wrong with a file, without what is particular to it, for counting."""
    if "cannot be read here: " in error:
        return error.split("cannot be read here: ")[1]
    return re.split(r" \(|\. |: ", re.sub(r"^\d+(x\d+ pixels| MB) ", "", error))[0]

"""How much there is to read: what lessons import, modules, folders, and both packages. The lists may only shrink."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agr_utils", "agr_lab")
MAX_CLOSURE = 8_176  # lines; 4,500 is the aim
MAX_LINES = 17_130  # of both packages; 12,000 is the aim. Maps at 128 px took 150 of them in November 2026
MAX_MODULE = 300  # lines
MAX_FOLDER = 12  # modules
LONG_MODULES: list[str] = []
FULL_FOLDERS: list[str] = []


def modules() -> dict[str, Path]:
    """Every module of both packages by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imported(source: str, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a source imports, wherever it does, with the packages they lie in."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)] if is_from(node) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = name.split(".")
            found |= {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)} & known.keys()
    return found


def is_from(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module is not None


def lesson_sources() -> dict[str, str]:
    """Code of every notebook, without the lines that only IPython reads."""
    sources = {}
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        sources[path.relative_to(ROOT / "notebooks").as_posix()] = re.sub(r"^(\s*)[!%].*", r"\1pass", code, flags=re.M)
    return sources


def closure(start: set[str], known: dict[str, Path]) -> set[str]:
    found, waiting = set(), list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imported(known[name].read_text(encoding="utf-8"), known)
    return found


def test_what_lessons_import_is_little():
    known = modules()
    needed = closure(set().union(*(imported(source, known) for source in lesson_sources().values())), known)
    lines = sum(count_lines(known[name]) for name in needed)
    print(f"lessons import {len(needed)} modules of {lines} lines")
    assert lines <= MAX_CLOSURE


def test_lessons_import_the_course_and_not_the_lab():
    known = modules()
    found = {
        name
        for name, source in lesson_sources().items()
        if any(m.startswith("agr_lab") for m in imported(source, known))
    }
    assert not found, "they are to read figures/<name>.csv with read_figure"


def test_no_module_is_long():
    lines = {name: count_lines(path) for name, path in modules().items()}
    assert {name for name, count in lines.items() if count > MAX_MODULE} == set(LONG_MODULES)


def test_no_folder_is_full():
    folders = {path.parent for path in modules().values()}
    counts = {folder.relative_to(ROOT).as_posix(): len({*folder.glob("[!_]*.py")}) for folder in folders}
    assert {name for name, count in counts.items() if count > MAX_FOLDER} == set(FULL_FOLDERS)


def test_both_packages_stay_small():
    lines = {package: sum(count_lines(path) for path in (ROOT / package).rglob("*.py")) for package in PACKAGES}
    print(lines)
    assert sum(lines.values()) <= MAX_LINES

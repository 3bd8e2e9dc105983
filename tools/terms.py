"""Terms of the course, and whether one is used before the cell that introduces it.

``notebooks/terms.json`` lists them: ``term``, ``pattern`` (a regular expression), and the ``notebook`` and
``cell`` (its id) in which the term is introduced. An announcement is no use: a title, the list under "What you will
learn", the map of the course, a self-test, or a cell that links to the notebook which introduces the term.
"""

import json
import re
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
ANNOUNCEMENTS = ("# ", "**What you will learn**", "## The map of the course", "## Test yourself")


def read_terms(path: Path = NOTEBOOKS / "terms.json") -> list[dict[str, str]]:
    """The list, an entry a term."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_texts(folder: Path = NOTEBOOKS) -> dict[tuple[str, str], str]:
    """The text of the lessons in reading order: (notebook, cell id) to source."""
    return {
        (path.stem, cell.id): cell.source
        for path in sorted(folder.glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    }


def lint_terms(terms: list[dict[str, str]], texts: dict[tuple[str, str], str]) -> list[str]:
    """What is wrong, a line each: a cell that does not say its term, and a term that is used before it."""
    problems = []
    for entry in terms:
        term, home, pattern = entry["term"], (entry["notebook"], entry["cell"]), re.compile(entry["pattern"])
        if not pattern.search(texts.get(home, "")):
            problems.append(f"'{term}' is not introduced in {home[0]}, cell {home[1]}. Change notebooks/terms.json")
            continue
        for place, text in texts.items():
            if place == home:
                break
            is_announced = text.startswith(ANNOUNCEMENTS) or f"]({home[0]}.ipynb)" in text
            if pattern.search(text) and not is_announced:
                problems.append(f"'{term}' is used in {place[0]}, cell {place[1]}, before {home[0]} introduces it")
    return problems

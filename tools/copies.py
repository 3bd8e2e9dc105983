"""Copies of the lessons to work in: for learners, and as nbgrader assignments. ``python tools/copies.py --help``."""

import argparse
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from agr_utils.files import atomic_path
from notebooks import ROOT, read_repository

LESSONS = ROOT / "notebooks"
# A check prints this as long as an exercise is untouched. In an assignment that is no pass.
NOT_DONE = "not done yet"
STRICT = f"""import builtins


def print(*values, **options):
    \"\"\"Like the built-in one, but an exercise that is not done fails its check.\"\"\"
    assert not any("{NOT_DONE}" in str(value) for value in values), values
    builtins.print(*values, **options)"""
STUB = "# Your solution: change what stands above"
RECORD = ".written.json"  # digests of the files as they were written; another one is of somebody's work


def find_lessons(number: str | None = None) -> list[Path]:
    """All lessons, or those whose number was given."""
    found = sorted(LESSONS.glob(f"{number or '[0-9][0-9]*'}_*.ipynb"))
    if not found:
        raise SystemExit(f"no notebook {number} in {LESSONS.relative_to(ROOT)}. Numbers are 00, 01, …")
    return found


def empty_copy(path: Path) -> nbformat.NotebookNode:
    """A lesson without outputs, solutions and folded answers, whose links lead out of the folder by the web."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in _tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = _outward(_without_answers(cell.source))
    notebook.cells = [cell for cell in notebook.cells if cell.source]  # some were nothing but an answer
    return notebook


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _without_answers(text: str) -> str:
    """The text without ``<details>``, also those within others."""
    before = None
    while before != text:
        before, text = text, re.sub(r"<details>(?:(?!<details>).)*?</details>\n?", "", text, flags=re.DOTALL)
    return text.rstrip()


def _outward(text: str) -> str:
    repository, branch = read_repository()

    def replace(match: re.Match) -> str:
        kind = "tree" if (ROOT / match[1]).is_dir() else "blob"
        return f"](https://github.com/{repository}/{kind}/{branch}/{match[1]}"

    text = re.sub(r"\]\(\.\./([^)#\s]+)", replace, text)
    return re.sub(
        r"\]\((solutions(?:/[^)#\s]*)?)", rf"](https://github.com/{repository}/tree/{branch}/notebooks/\1", text
    )


def guesses(notebook: nbformat.NotebookNode) -> str:
    """What a learner's copy asks before it shows, by section, with room for an answer: a page to print."""
    texts = [
        re.sub("^> ?", "", cell.source, flags=re.MULTILINE) for cell in notebook.cells if cell.cell_type == "markdown"
    ]
    lines, number, section = [f"{texts[0].splitlines()[0]}\n"], 0, ""
    for block in "\n\n".join(texts).split("\n\n"):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
        if block.startswith("#"):
            section = block.splitlines()[0].lstrip("# ")
        if "**Predict" in block or "**Guess" in block:
            number += 1
            if section:  # above its first question
                lines.append(f"**{section}**\n")
                section = ""
            lines.append(f"{number}. {plain}\n\n   {'_' * 60}\n")
    return "\n".join(lines)


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_unless_changed(contents: dict[Path, str], target: Path) -> list[Path]:
    """Write files into ``target``, but for those that somebody has worked in since; gives these."""
    record, kept = target / RECORD, []
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for path, text in contents.items():
        name = path.relative_to(target).as_posix()
        if path.exists() and digest(path.read_text(encoding="utf-8")) not in (known.get(name), digest(text)):
            kept.append(path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")
        known[name] = digest(text)
    with atomic_path(record) as partial:
        partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return kept


def text_of(notebook: nbformat.NotebookNode) -> str:
    """A notebook as its file holds it."""
    return nbformat.writes(notebook) + "\n"


def tell_where_answers_are(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Begin a learner's copy with where the rest of its lesson is."""
    repository, branch = read_repository()
    first, lesson = notebook.cells[0], path.relative_to(ROOT)
    first.source += (
        "\n\n*This is your copy: it asks before it shows. Answers, outputs and solutions are in "
        f"[the lesson](https://github.com/{repository}/blob/{branch}/{lesson}), or without a network in "
        f"`{lesson}` and `{lesson.parent}/solutions/` in the folder of the course.*"
    )


def write_learner_copies(target: Path) -> list[Path]:
    """Write every lesson to ``target``, the questions of the self-tests beside them, and all guesses on one page.

    Gives the files in which somebody has worked, which are left alone.
    """
    lessons = {path: empty_copy(path) for path in find_lessons()}
    page = "\n".join(map(guesses, lessons.values()))
    for path, notebook in lessons.items():
        tell_where_answers_are(notebook, path)
    contents = {target / path.name: text_of(notebook) for path, notebook in lessons.items()}
    kept = write_unless_changed(contents | {target / "guesses.md": page}, target)
    shutil.copytree(LESSONS / "quizzes", target / "quizzes", dirs_exist_ok=True)
    return kept


def grading(cell: nbformat.NotebookNode, name: str, points: int | None = None) -> None:
    """Say to nbgrader what a cell is: with points a locked check, without them the place of a solution."""
    check = points is not None
    cell.metadata["nbgrader"] = {
        "grade": check,
        "grade_id": name,
        "locked": check,
        "schema_version": 3,
        "solution": not check,
        "task": False,
    } | ({"points": points} if check else {})


def assignment(path: Path, solved: bool) -> nbformat.NotebookNode:
    """A lesson as nbgrader wants it.

    Args:
        path: of the lesson; its solutions lie in ``solutions/`` under the same name.
        solved: with the solutions between nbgrader's markers, for the teacher; otherwise without, for the class.
    """
    notebook = empty_copy(path)
    solutions = nbformat.read(path.parent / "solutions" / path.name, as_version=4).cells
    solutions = [cell.source for cell in solutions if "solution" in _tags(cell)]
    cells, exercise = [], 0
    repository, branch = read_repository()
    lessons = rf"](https://github.com/{repository}/blob/{branch}/notebooks/\1"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # the other lessons do not lie beside it
            cell.source = re.sub(r"\]\((\d\db?_\w+\.ipynb)", lessons, cell.source)
        if "exercise" in _tags(cell):
            solution = f"### BEGIN SOLUTION\n{solutions[exercise]}\n### END SOLUTION" if solved else STUB
            cell.source = f"{cell.source}\n\n{solution}"
            exercise += 1
            grading(cell, f"exercise-{exercise}")
        elif "check" in _tags(cell) and cells and "exercise" in _tags(cells[-1]):
            grading(cell, f"check-{exercise}", points=1)
        cells.append(cell)
        if "imports" in _tags(cell):
            strict = new_code_cell(STRICT, id="strict-checks")
            grading(strict, "strict-checks", points=0)
            cells.append(strict)
    notebook.cells = cells
    return notebook


def write_assignment(number: str, target: Path) -> list[Path]:
    """Write ``source/`` (for the teacher), ``release/`` (for the class) and nbgrader's settings.

    Gives the files in which somebody has worked, which are left alone.
    """
    contents = {}
    for path in find_lessons(number):
        for kind, solved in (("source", True), ("release", False)):
            copy = target / kind / path.stem / path.name
            contents[copy] = text_of(assignment(path, solved))
            shutil.copytree(LESSONS / "quizzes", copy.parent / "quizzes", dirs_exist_ok=True)
    contents[target / "nbgrader_config.py"] = f"""c = get_config()
c.CourseDirectory.course_id = "agr"
c.ClearSolutions.code_stub = {dict(python=STUB)}
# A training cell is silent for longer than nbgrader waits.
c.Execute.timeout = 1800
c.Execute.iopub_timeout = 300
"""
    return write_unless_changed(contents, target)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["learner", "assignment"])
    parser.add_argument("number", nargs="?", help="of the notebook that becomes an assignment, for instance 02")
    arguments = parser.parse_args()
    target = ROOT / "build" / arguments.command
    if arguments.command == "learner":
        kept = write_learner_copies(target)
        further = "Open it with: .venv/bin/jupyter lab build/learner"
    elif arguments.number:
        kept = write_assignment(arguments.number, target)
        further = "source/ is for you, release/ for the class"
    else:
        parser.error("which notebook? For instance: assignment 02")
    for path in kept:
        print(f"left as it is, for somebody has worked in it: {path.relative_to(ROOT)} (move it away to have it anew)")
    print(f"{target.relative_to(ROOT)} is written. {further}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

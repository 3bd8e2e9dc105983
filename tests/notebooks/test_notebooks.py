"""The notebooks keep the rules of the house; and the lint that says so catches what it should."""

import base64
import importlib.util
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
every_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
every_notebook = pytest.mark.parametrize(
    "path", LESSONS + SOLUTIONS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)


def load_tool() -> ModuleType:
    """tools/notebooks.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_cells(path: Path) -> list[NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def exercise_checks(path: Path) -> list[str]:
    """Sources of the check cells that follow an exercise cell."""
    cells = [cell for cell in read_cells(path) if cell.cell_type == "code"]
    checks = []
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if "exercise" in tags(cell):
            assert following is not None and "check" in tags(following), f"no check after: {cell.source[:60]}"
            checks.append(following.source)
    return checks


def test_there_are_lessons():
    numbers = [path.name.split("_")[0] for path in LESSONS]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 10
    listed = (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")
    assert all(f"| {number} | [" in listed for number in numbers)
    guide = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    times = re.findall(r"^\| (\d\db?) .* (\d+) min \| (\d+) min \|$", guide, re.MULTILINE)  # reading, exercises
    assert times == re.findall(r"^\| (\d\db?) \| .* (\d+) \+ (\d+) \|$", listed, re.MULTILINE)
    assert [number for number, *_ in times] == numbers


@every_notebook
def test_lint_has_nothing_to_complain_about(path: Path):
    assert load_tool().lint(path) == []


@every_notebook
def test_notebook_was_run_from_top_to_bottom(path: Path):
    counts = [cell.execution_count for cell in read_cells(path) if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "Run: make notebooks"


@every_notebook
def test_badge_and_set_up_are_those_of_pyproject(path: Path):
    tool = load_tool()
    cells = read_cells(path)
    assert tool.badge(path) in cells[0].source
    assert [cell.source for cell in cells if "setup" in tags(cell)] == [tool.setup_source()]


@every_lesson
def test_exercises_have_a_solution_with_the_same_checks(path: Path):
    checks = exercise_checks(path)
    for source in checks:
        assert "not done yet" in source and "right" in source, f"says neither: {source[:60]}"
    solution = path.parent / "solutions" / path.name
    assert solution.exists() == bool(checks), f"{solution.name}: a solution notebook belongs to exercises"
    if checks:
        in_solution = [cell.source for cell in read_cells(solution) if "check" in tags(cell)]
        assert in_solution == checks
        assert sum("solution" in tags(cell) for cell in read_cells(solution)) == len(checks)


@every_solution
def test_solution_belongs_to_a_lesson_and_was_found_right(path: Path):
    assert (path.parent.parent / path.name).exists()
    for cell in read_cells(path):
        if "check" in tags(cell):
            printed = "".join(output.get("text", "") for output in cell.outputs)
            assert "right" in printed and "not done yet" not in printed, f"printed {printed!r}. Run: make notebooks"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, at work on a course of its own."""
    module = load_tool()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folders = (tmp_path / "notebooks", tmp_path / "notebooks" / "solutions")
    folders[1].mkdir(parents=True)
    (folders[0] / "quizzes").mkdir()
    shutil.copy(ROOT / "notebooks" / "quizzes" / "00_start_here.json", folders[0] / "quizzes" / "00_small.json")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOLDERS", folders)
    return module


@pytest.fixture
def lint(tool: ModuleType) -> Callable[..., list[str]]:
    """``lint(change)``: what the tool says of a flawless small lesson to which ``change(cells)`` was done."""

    def write_and_lint(change: Callable[[list[NotebookNode]], None] = lambda cells: None) -> list[str]:
        path = tool.FOLDERS[0] / "00_small.ipynb"
        cells = small_lesson(tool, path)
        change(cells)
        nbformat.write(new_notebook(cells=cells), path)
        return tool.lint(path)

    return write_and_lint


def small_lesson(tool: ModuleType, path: Path) -> list[NotebookNode]:
    def code(source: str, *names: str, count: int, outputs: tuple = ()) -> NotebookNode:
        return new_code_cell(source, metadata={"tags": list(names)}, execution_count=count, outputs=list(outputs))

    quiz = tool.quiz_cells(path)
    quiz[1].execution_count = 5
    return [
        new_markdown_cell(f"# 00 · Small\n{tool.badge(path)}"),
        code(tool.setup_source(), "setup", count=1),
        new_markdown_cell("Why these."),
        code("import math", "imports", count=2),
        new_markdown_cell("What may be turned."),
        code("RADIUS = 2", "parameters", count=3),
        new_markdown_cell("Why this."),
        code("print(math.pi * RADIUS**2)", count=4, outputs=(new_output("stream", name="stdout", text="12.57\n"),)),
        *quiz,
        code("assert RADIUS > 0", "check", count=6),
    ]


def test_a_flawless_lesson_passes(lint: Callable[..., list[str]]):
    assert lint() == []


def picture(kind: str, content: str) -> NotebookNode:
    return new_output("display_data", data={kind: content})


def put_output(output: NotebookNode) -> Callable[[list[NotebookNode]], None]:
    return lambda cells: cells[7].outputs.append(output)


def put_source(source: str) -> Callable[[list[NotebookNode]], None]:
    return lambda cells: cells[7].update(source=source)


FLAWS = {
    "an error": (put_output(new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])), "ZeroDivision"),
    "a warning": (put_output(new_output("stream", name="stderr", text="UserWarning: old")), "stderr"),
    "another order": (lambda cells: cells[7].update(execution_count=9), "not one clean run"),
    "run twice": (
        lambda cells: [
            cell.update(execution_count=cell.execution_count + 3) for cell in cells[7:] if "outputs" in cell
        ],
        "clean run",
    ),
    "an unknown tag": (lambda cells: cells[7].metadata.tags.append("cheque"), "unknown tag 'cheque'"),
    "a path in the source": (put_source("open('/home/ada/faces.csv')"), "absolute path"),
    "a path in an output": (
        put_output(new_output("stream", name="stdout", text="saved /tmp/x1/a.csv")),
        "absolute path",
    ),
    "a photograph": (put_output(picture("image/jpeg", "abcd")), "photograph"),
    "a huge picture": (put_output(picture("image/png", "a" * 200_000)), "photograph"),
    "a huge notebook": (put_output(new_output("stream", name="stdout", text="a" * 360_000)), "kB; at most 350"),
    "a long cell": (put_source("\n".join(f"a{number} = {number}" for number in range(26))), "26 lines"),
    "a star import": (put_source("from math import *"), "star import"),
    "two functions": (put_source("def first():\n    pass\n\ndef second():\n    pass"), "more than one def"),
    "no title": (lambda cells: cells[0].update(source="Welcome"), "no title"),
    "another badge": (lambda cells: cells[0].update(source=cells[0].source.replace("github/", "github/x")), "badge"),
    "another set-up": (lambda cells: cells[1].update(source="!pip install torch"), "set-up"),
    "no parameters": (lambda cells: cells[5].metadata.update(tags=[]), "in this order"),
    "imports at the end": (lambda cells: cells.append(cells.pop(3)), "in this order"),
    "no text": (lambda cells: cells.pop(6), "no text before"),
    "an exercise without its text": (lambda cells: cells[7].metadata.tags.append("exercise"), "names the exercise"),
    "an exercise of another lesson": (
        lambda cells: (cells[6].update(source="### Exercise 07.1"), cells[7].metadata.tags.append("exercise")),
        "names the exercise",
    ),
    "two exercises under one heading": (
        lambda cells: (
            cells[6].update(source="**Exercise 00.1**"),
            cells[7].metadata.tags.append("exercise"),
            cells[-1].metadata.update(tags=["exercise"]),
        ),
        "names the exercise that begins 'assert",
    ),
    "a section that is missing": (lambda cells: cells[6].update(source="## 2 · The second"), "numbered [2]"),
    "a dead link": (lambda cells: cells[6].update(source="See [that](../nowhere.py)."), "does not exist"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_lint_catches(flaw: str, lint: Callable[..., list[str]]):
    change, expected = FLAWS[flaw]
    problems = lint(change)
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith("00_small.ipynb") for problem in problems)


def test_lint_knows_an_exercise_by_its_heading(lint: Callable[..., list[str]]):
    def change(cells: list[NotebookNode]) -> None:
        cells[6].update(source="## Exercises\n\n### Exercise 00.1 · A circle\n\nHow large is it?")
        cells[7].metadata.tags.append("exercise")

    assert lint(change) == []


def test_lint_wants_an_alternative_text(lint: Callable[..., list[str]]):
    drawn = new_output("display_data", data={"image/png": "aGVsbG8="})

    def put(alt: str | None) -> Callable[[list[NotebookNode]], None]:
        def change(cells: list[NotebookNode]) -> None:
            cells[7].outputs = [drawn]
            if alt is not None:
                cells[7].metadata["mystnb"] = {"image": {"alt": alt}}

        return change

    assert any("alternative text" in problem for problem in lint(put(None)))
    assert any("alternative text" in problem for problem in lint(put("")))
    assert lint(put("A circle.")) == []


def test_lint_allows_what_only_looks_like_a_path(lint: Callable[..., list[str]]):
    assert lint(put_source("print('https://example.org/home/ada', 'notebooks/work/a.csv')")) == []


def test_badges_follow_pyproject(tool: ModuleType):
    path = tool.FOLDERS[0] / "00_small.ipynb"
    nbformat.write(new_notebook(cells=small_lesson(tool, path)), path)
    settings = tool.ROOT / "pyproject.toml"
    text = settings.read_text(encoding="utf-8")
    repository, branch = tool.read_repository()
    settings.write_text(text.replace(repository, "somebody/fork").replace(f'branch = "{branch}"', 'branch = "next"'))
    assert any("badge" in problem for problem in tool.lint(path))
    tool.write_badges()
    assert tool.lint(path) == []
    cells = read_cells(path)
    assert "somebody/fork/blob/next/notebooks/00_small.ipynb" in cells[0].source
    assert cells[0].source.count("somebody/fork/blob/next/notebooks/00_small.ipynb") == 2  # Colab and Kaggle
    assert "-b next https://github.com/somebody/fork" in cells[1].source


def test_set_up_never_touches_torch_and_swallows_nothing():
    source = load_tool().setup_source()
    assert source.count("\n") < 6
    assert "torch " not in source.replace("torchmetrics", "") and "except" not in source and "|| true" not in source


def test_set_up_outside_the_course_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines = load_tool().setup_source().splitlines()
    with pytest.raises(AssertionError, match="git clone https://github.com/.+, then: make learner"):
        exec("\n".join([lines[0], lines[-1]]), {})


def test_shrunk_picture_of_a_chart_is_the_same_picture():
    pixels = np.full((60, 80, 3), 255, np.uint8)
    pixels[10:50, 20:30] = (0, 114, 178)
    pixels[30, :] = (213, 94, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    shrunk = load_tool()._shrink(base64.b64encode(buffer.getvalue()).decode())
    image = Image.open(io.BytesIO(base64.b64decode(shrunk))).convert("RGB")
    assert (np.asarray(image) == pixels).all()

"""Self-tests: five questions per lesson in ``notebooks/quizzes/``, shown by jupyterquiz and, folded, as plain text."""

import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

QUESTIONS = 5
HEADING = "## Test yourself"
INTRODUCTION = (
    "Five questions, to be answered by clicking once the next cell has run. Nothing is recorded. "
    "Where cells do not run, on GitHub and in the book, unfold the same questions as text."
)


def quiz_path(notebook: Path) -> Path:
    """Where the questions of a lesson lie."""
    return notebook.parent / "quizzes" / f"{notebook.stem}.json"


def quiz_cells(notebook: Path) -> list[nbformat.NotebookNode]:
    """The two cells of a lesson's self-test; none where there are no questions."""
    path = quiz_path(notebook)
    if not path.exists():
        return []
    questions = json.loads(path.read_text(encoding="utf-8"))
    lines = [HEADING, "", INTRODUCTION, "", "<details><summary>The questions as text</summary>", ""]
    for number, question in enumerate(questions, 1):
        lines += [f"**{number}.** {question['question']}", ""]
        lines += [f"- {letter}) {answer['answer']}" for letter, answer in _lettered(question)]
        right = next((letter, answer) for letter, answer in _lettered(question) if answer["correct"])
        explanation = right[1]["feedback"].removeprefix("Right. ")
        lines += [
            "",
            f"<details><summary>Answer {number}</summary>",
            "",
            f"{right[0]}) {explanation}",
            "",
            "</details>",
            "",
        ]
    lines += ["</details>"]
    source = f'from jupyterquiz import display_quiz\n\ndisplay_quiz("quizzes/{path.name}")'
    return [
        new_markdown_cell("\n".join(lines), id="quiz-text"),
        new_code_cell(source, id="quiz", metadata={"tags": ["quiz"]}),
    ]


def _lettered(question: dict) -> list[tuple[str, dict]]:
    return list(zip("abcd", question["answers"], strict=True))


def lint_quiz(notebook: Path) -> list[str]:
    """What is wrong with the questions of a lesson, a line each."""
    path = quiz_path(notebook)
    if not path.exists():
        return [f"no self-test: {path.name} is missing"]
    questions = json.loads(path.read_text(encoding="utf-8"))
    problems = (
        [] if len(questions) == QUESTIONS else [f"{len(questions)} questions in the self-test; {QUESTIONS} wanted"]
    )
    for question in questions:
        answers = question["answers"]
        texts = [answer["answer"] for answer in answers]
        fine = (
            len(set(texts)) == len(texts) == 4
            and sum(answer["correct"] for answer in answers) == 1
            and all(answer["feedback"] for answer in answers)
        )
        if not fine:
            problems.append(f"self-test: {question['question'][:40]!r} wants 4 answers, 1 right, a reply to each")
    return problems


def put_quiz(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Put the self-test before what is to be remembered; counts of the cells that follow go up where it is new."""
    wanted = quiz_cells(path)
    old = [cell for cell in notebook.cells if cell.id in {"quiz-text", "quiz"}]
    if old and wanted:
        for cell, new in zip(old, wanted, strict=True):
            cell.source = new.source
        return
    place = next((i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## What to remember")), None)
    if place is None or not wanted:
        return
    counts = [cell.execution_count for cell in notebook.cells[:place] if cell.cell_type == "code"]
    wanted[1].execution_count = counts[-1] + 1 if counts and counts[-1] else None
    for cell in notebook.cells[place:]:
        if cell.cell_type == "code" and cell.execution_count:
            cell.execution_count += 1
    notebook.cells[place:place] = wanted

"""Self-tests, learners' copies, assignments, and the half of the set-up cell that runs in Colab and Kaggle."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

from tests.notebooks.test_notebooks import LESSONS, ROOT, every_lesson, load_tool, tags

sys.path.insert(0, str(ROOT / "tools"))
import copies
import quizzes


@every_lesson
def test_self_test_is_sound_and_in_the_notebook(path: Path):
    assert quizzes.lint_quiz(path) == []
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.source for cell in cells if cell.id in {"quiz-text", "quiz"}] == [
        cell.source for cell in quizzes.quiz_cells(path)
    ]


def test_right_answers_are_spread_over_the_letters():
    places = [
        next(place for place, answer in enumerate(question["answers"]) if answer["correct"])
        for path in LESSONS
        for question in json.loads(quizzes.quiz_path(path).read_text(encoding="utf-8"))
    ]
    assert all(places.count(place) >= len(places) / 8 for place in range(4))


@pytest.mark.parametrize("broken", ["two right", "none right", "no reply", "an answer twice", "four questions"])
def test_a_broken_self_test_is_noticed(broken: str, tmp_path: Path):
    questions = json.loads(quizzes.quiz_path(LESSONS[0]).read_text(encoding="utf-8"))
    answers = questions[0]["answers"]
    if broken == "four questions":
        questions.pop()
    elif broken == "no reply":
        answers[0]["feedback"] = ""
    elif broken == "an answer twice":
        answers[0]["answer"] = answers[1]["answer"]
    else:
        for answer in answers:
            answer["correct"] = broken == "two right" and answer in answers[:2]
    (tmp_path / "quizzes").mkdir()
    (tmp_path / "quizzes" / "00_x.json").write_text(json.dumps(questions), encoding="utf-8")
    assert len(quizzes.lint_quiz(tmp_path / "00_x.ipynb")) == 1


@every_lesson
def test_answers_stand_folded(path: Path):
    text = quizzes.quiz_cells(path)[0].source
    assert text.count("<details>") == text.count("</details>") == 1 + quizzes.QUESTIONS


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learner")
    copies.write_learner_copies(folder)
    return folder


def test_copies_are_written_again_where_nobody_has_worked_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert copies.write_learner_copies(tmp_path) == []
    names = sorted(path.name for path in tmp_path.iterdir())
    worked, printed, untouched = tmp_path / LESSONS[2].name, tmp_path / "guesses.md", tmp_path / LESSONS[3].name
    worked.write_text("my answers")
    printed.write_text("my guesses")
    assert copies.write_learner_copies(tmp_path) == [worked, printed]
    assert (worked.read_text(), printed.read_text()) == ("my answers", "my guesses")
    monkeypatch.setattr(copies, "empty_copy", lambda path: nbformat.v4.new_notebook(cells=[new_markdown_cell("# New")]))
    assert copies.write_learner_copies(tmp_path) == [worked, printed]  # again: the record still holds
    assert worked.read_text() == "my answers" and "# New" in untouched.read_text()
    worked.unlink()
    assert copies.write_learner_copies(tmp_path) == [printed] and "# New" in worked.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_copies_without_a_record_are_taken_for_somebodys(tmp_path: Path):
    """As they were written before there was one."""
    (tmp_path / LESSONS[0].name).write_text("old")
    assert copies.write_learner_copies(tmp_path) == [tmp_path / LESSONS[0].name]


def test_an_assignment_in_which_the_teacher_has_worked_is_kept(tmp_path: Path):
    assert copies.write_assignment("00", tmp_path) == []
    (tmp_path / "nbgrader_config.py").write_text("c.mine = 1")
    assert copies.write_assignment("00", tmp_path) == [tmp_path / "nbgrader_config.py"]


def test_a_copy_says_where_its_answers_are(learner: Path):
    text = nbformat.read(learner / LESSONS[0].name, as_version=4).cells[0].source
    assert f"blob/main/notebooks/{LESSONS[0].name}" in text and "`notebooks/solutions/`" in text


@every_lesson
def test_learners_copy_has_no_output_and_no_answer(path: Path, learner: Path):
    notebook = nbformat.read(learner / path.name, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert "solution" not in tags(cell) and "<details>" not in cell.source and "](../" not in cell.source
        assert cell.source
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    original = nbformat.read(path, as_version=4)
    assert sum("exercise" in tags(cell) for cell in notebook.cells) == sum(
        "exercise" in tags(cell) for cell in original.cells
    )
    assert (learner / "quizzes" / f"{path.stem}.json").exists()


@every_lesson
def test_guesses_stand_on_a_page_to_print(path: Path, learner: Path):
    page = copies.guesses(nbformat.read(learner / path.name, as_version=4))
    asked = sum(
        cell.source.count(word)
        for cell in nbformat.read(learner / path.name, as_version=4).cells
        for word in ("**Predict", "**Guess")
        if cell.cell_type == "markdown"
    )
    assert page.startswith("# ") and "](" not in page
    assert page.count("____\n") == asked
    assert page in (learner / "guesses.md").read_text(encoding="utf-8")


def test_folded_answers_go_even_when_nested():
    text = "a\n<details><summary>x</summary>\n<details>y</details>\nz\n</details>\nb"
    assert copies._without_answers(text) == "a\nb"


def exercise_cells(notebook: nbformat.NotebookNode) -> dict[str, str]:
    return {cell.metadata.nbgrader.grade_id: cell.source for cell in notebook.cells if "nbgrader" in cell.metadata}


@every_lesson
def test_assignment_grades_each_exercise(path: Path):
    source, release = (exercise_cells(copies.assignment(path, solved)) for solved in (True, False))
    assert source.keys() == release.keys() and "strict-checks" in source
    exercises = [name for name in source if name.startswith("exercise-")]
    assert exercises and len(source) == 2 * len(exercises) + 1
    for name in exercises:
        assert "### BEGIN SOLUTION" in source[name] and "### END SOLUTION" in source[name]
        assert "SOLUTION" not in release[name] and release[name].endswith(copies.STUB)


def test_an_untouched_exercise_gets_no_point():
    scope: dict = {}
    exec(copies.STRICT, scope)
    scope["print"]("Exercise 02.1: right")
    with pytest.raises(AssertionError, match="not done yet"):
        scope["print"]("Exercise 02.1: not done yet")


@pytest.fixture(scope="module")
def host() -> dict:
    return runpy.run_path(str(ROOT / "tools" / "hosted" / "set_up.py"), run_name="host")


def test_a_host_gets_what_it_lacks_and_keeps_what_it_has(host: dict):
    has = {"torch": "2.11.0", "numpy": "2.1.3", "pandas": "2.2.3", "scikit-image": "0.25.0"}
    lacking = host["find_lacking"](ROOT, has)
    names = {requirement.split(">=")[0] for requirement in lacking}
    assert "timm" in names and not names & {"torch", "numpy", "pandas", "scikit-image", "ipykernel", "jupyterlab"}
    assert host["find_lacking"](ROOT, {host["_plain"](name): "1" for name in names} | has) == []


def test_a_host_without_a_network_says_what_to_do(host: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host["subprocess"], "call", lambda command: 1)
    monkeypatch.setitem(host["set_up"].__globals__, "find_lacking", lambda *given: ["timm>=1.0.20"])
    with pytest.raises(SystemExit, match="network.+Kaggle.+Colab.+again"):
        host["set_up"](ROOT)


def test_set_up_cell_fetches_the_course_in_colab_and_kaggle_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    source, commands = load_tool().setup_source(), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.system", lambda command: commands.append(command) or 1)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    exec(source, {})
    assert commands == []  # on one's own machine nothing is fetched
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("Colab", "Kaggle"):
        with monkeypatch.context() as patch:
            if name == "Colab":
                patch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
            else:
                patch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
            with pytest.raises(AssertionError, match="No network"):
                exec(source, {})
    assert len(commands) == 2 and all(command.startswith("git clone -q --depth 1") for command in commands)

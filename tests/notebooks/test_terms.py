"""No term is used before the cell that introduces it; and the lint that says so catches what it should."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terms_tool", ROOT / "tools" / "terms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TERM = {"term": "cosine", "pattern": r"\bcosines?\b", "notebook": "02_b", "cell": "home"}
TEXTS = {
    ("01_a", "title"): "# Cosines and sines: the cosine",
    ("01_a", "early"): "Nothing here.",
    ("02_b", "list"): "**What you will learn**\n- the cosine of two gradients",
    ("02_b", "home"): "The *cosine* of two gradients says whether they agree.",
}


def test_no_term_of_the_course_is_used_before_it_is_introduced():
    tool = load_tool()
    terms = tool.read_terms()
    assert len(terms) > 40 and len({entry["term"] for entry in terms}) == len(terms)
    assert tool.lint_terms(terms, tool.read_texts()) == []


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        (("01_a", "early"), "Take the cosine.", "is used in 01_a, cell early"),
        (("02_b", "home"), "Two gradients may agree.", "is not introduced in 02_b, cell home"),
        (("01_a", "early"), "The cosine, of which [02](02_b.ipynb) says more.", ""),
    ],
)
def test_the_lint_catches_an_early_use_and_a_lost_cell(place: tuple[str, str], text: str, said: str):
    problems = load_tool().lint_terms([TERM], TEXTS | {place: text})
    assert [said in problem for problem in problems] == ([True] if said else [])

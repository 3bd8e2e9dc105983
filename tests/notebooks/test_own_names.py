"""Lesson 13 promises that four names in its parameters cell are all that is exchanged for a table of one's own."""

import ast
from pathlib import Path

import nbformat

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "13_your_own_faces.ipynb"
DRAWN = {"badge", "collar", "camera", "webcam", "phone", "disc", "ring", "dark", "light"}  # what drawn people have
DRAWINGS_ONLY = {"own-10", "photograph", "own-35", "own-36"}  # how they are made, and exercise 13.2


class WithoutDrawings(ast.NodeTransformer):
    """What is left of a cell where there is a table."""

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if "TABLE is None" in ast.unparse(node.test) else self.generic_visit(node)


def tied_to_drawings(source: str) -> set[str]:
    """The drawings' words in what a cell does with a table of one's own."""
    tree = WithoutDrawings().visit(ast.parse(source))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {word for text in texts for word in text.lower().replace("_", " ").split()} & DRAWN


def test_only_the_parameters_know_the_drawn_people():
    cells = {cell.id: cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"}
    parameters = next(cell for cell in cells.values() if "parameters" in cell.metadata.get("tags", []))
    assert tied_to_drawings(parameters.source) >= {"badge", "collar", "camera"}
    tied = {name: tied_to_drawings(cell.source) for name, cell in cells.items()}
    assert {name for name, words in tied.items() if words} == DRAWINGS_ONLY | {parameters.id}


def test_a_cell_that_knows_the_drawn_people_is_noticed():
    assert tied_to_drawings('score = scored.loc["badge_accuracy"]') == {"badge"}
    assert tied_to_drawings('if TABLE is None:\n    print(scored.loc["badge_accuracy"])') == set()

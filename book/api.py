"""Pages of the reference: one for each subpackage of ``agr_utils``, one section a module."""

import ast
from pathlib import Path

from agr_utils.files import atomic_path

PACKAGE = Path(__file__).resolve().parent.parent / "agr_utils"


def write_api_pages(folder: Path) -> None:
    """Write ``folder/<subpackage>.md`` where it would differ; modules come in alphabetical order."""
    folder.mkdir(exist_ok=True)
    pages = {"agr_utils": sorted(PACKAGE.glob("*.py"))}
    pages |= {f"agr_utils.{path.name}": sorted(path.glob("*.py")) for path in _subpackages()}
    for name, modules in pages.items():
        lines = [f"# {name}", ""]
        for path in modules:
            if path.stem == "__init__" or not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))):
                continue
            module = f"{name}.{path.stem}"
            lines += [f"## {path.stem}", "", "```{eval-rst}", f".. automodule:: {module}", "   :members:", "```", ""]
        _write(folder / f"{name.rpartition('.')[2]}.md", "\n".join(lines))


def _subpackages() -> list[Path]:
    return sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def _write(path: Path, text: str) -> None:
    """Only what changed: Sphinx reads changed files again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")

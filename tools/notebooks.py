"""Execute, check and re-badge the notebooks. Used by the Makefile: ``python tools/notebooks.py --help``."""

import argparse
import base64
import io
import json
import os
import re
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
from quizzes import lint_quiz, put_quiz, quiz_cells
from terms import lint_terms, read_terms, read_texts

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "notebooks", ROOT / "notebooks" / "solutions")
TAGS = {"setup", "imports", "parameters", "check", "figure", "exercise", "solution", "quiz"}
NBVAL_TAGS = {"nbval-skip", "nbval-ignore-output", "nbval-check-output", "raises-exception"}
REQUIRED_TAGS = ("setup", "imports", "parameters")  # of a lesson, in this order
MAX_LINES = 25
MAX_JOBS = 4  # notebooks at once, with a gigabyte or two each
MAX_BYTES = 350_000
# A photograph in an output compresses badly; a drawn figure of ours stays well below this.
MAX_IMAGE_BYTES = 150_000


def find_notebooks() -> list[Path]:
    """Lessons, then solutions, sorted."""
    return [path for folder in FOLDERS for path in sorted(folder.glob("*.ipynb"))]


def read_repository() -> tuple[str, str]:
    """``owner/name`` and branch from pyproject, the one place where they stand."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["agr"]
    return settings["repository"].removeprefix("https://").removeprefix("github.com/"), settings["branch"]


def badge(path: Path) -> str:
    """The line that opens a notebook in Colab or in Kaggle."""
    repository, branch = read_repository()
    place = f"{repository}/blob/{branch}/{path.relative_to(ROOT).as_posix()}"
    colab = f"https://colab.research.google.com/github/{place}"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://github.com/{place}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]({kaggle})"
    )


def setup_source() -> str:
    """The set-up cell: in Colab and Kaggle a shallow clone and what the host lacks; elsewhere a look for the course."""
    repository, branch = read_repository()
    address = f"https://github.com/{repository}"
    clone = f'os.system("git clone -q --depth 1 -b {branch} {address} course") == 0'
    offline = "The course could not be fetched. No network? In Kaggle: Settings > Internet on. Then run this again"
    kernel = "No course here. Is it the wrong kernel? Start .venv/bin/jupyter lab"
    absent = f"{kernel}. Not installed? git clone {address}, then: make learner"
    return "\n".join(
        [
            "import importlib.util, os, runpy, sys  # on your own machine this only looks for the course",
            'if "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ:',
            f'    fetched = importlib.util.find_spec("agr_utils") or os.path.isdir("course") or {clone}',
            f'    assert fetched, "{offline}"',
            '    os.path.isdir("course") and runpy.run_path("course/tools/hosted/set_up.py")',
            f'assert importlib.util.find_spec("agr_utils"), "{absent}"',
        ]
    )


def write_badges() -> None:
    """Write address and self-tests into every notebook. In a fork, change the address in pyproject first."""
    for path in find_notebooks():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and "colab-badge.svg" in cell.source:
                cell.source = re.sub(r"\[!\[Open in Colab\].*", badge(path), cell.source)
            elif "setup" in cell.metadata.get("tags", []):
                cell.source = setup_source()
        put_quiz(notebook, path)
        write_notebook(notebook, path)


def write_notebook(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write beside, then rename, so that a stopped run leaves the old file."""
    partial = path.with_suffix(".partial")
    nbformat.write(notebook, partial)
    partial.replace(path)


def lint(path: Path) -> list[str]:
    """What is wrong with one notebook, a line each."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, nbformat.reader.NotJSONError) as error:
        return [f"{path}: cannot be read as a notebook ({str(error).splitlines()[0]})"]
    problems = [f"{path.name}: {text}" for text in _lint_structure(notebook, path)]
    for number, cell in enumerate(notebook.cells):
        problems += [f"{path.name}, cell {number}: {text}" for text in _lint_cell(cell)]
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count]
    if counts != list(range(1, len(counts) + 1)):
        problems.append(f"{path.name}: not one clean run from top to bottom. Run: make notebooks")
    return problems


def _lint_structure(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    problems = []
    if path.stat().st_size > MAX_BYTES:
        problems.append(f"{path.stat().st_size // 1000} kB; at most {MAX_BYTES // 1000}")
    if not notebook.cells or not notebook.cells[0].source.startswith("# "):
        problems.append("the first cell is no title")
    elif badge(path) not in notebook.cells[0].source:
        problems.append("the badge is not that of pyproject's repository. Run: make badges")
    tagged = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", []) if tag in REQUIRED_TAGS]
    if path.parent == FOLDERS[0] and tuple(tagged) != REQUIRED_TAGS:
        problems.append(f"cells tagged {', '.join(REQUIRED_TAGS)} must come once each, in this order; found {tagged}")
    if path.parent == FOLDERS[0]:
        problems += lint_quiz(path)
        in_notebook = [cell.source for cell in notebook.cells if cell.id in {"quiz-text", "quiz"}]
        if in_notebook != [cell.source for cell in quiz_cells(path)]:
            problems.append("the self-test is not that of notebooks/quizzes. Run: make badges")
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []) and cell.source != setup_source():
            problems.append("the set-up cell is not the common one. Run: make badges")
        if cell.cell_type == "markdown":
            if re.search(r"!\[\s*\]\(", cell.source):
                problems.append("a picture without an alternative text")
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", cell.source):
                if "://" not in target and not (path.parent / target).exists():
                    problems.append(f"a link to {target}, which does not exist")
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        explained = before.cell_type == "markdown" or "check" in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not explained and path.parent == FOLDERS[0]:
            problems.append(f"no text before the cell that begins '{cell.source[:40]}'")
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = [int(number) for number in re.findall(r"^## (?:Part )?(\d+)", texts, re.MULTILINE)]
    if numbers != list(range(1, len(numbers) + 1)):
        problems.append(f"sections are numbered {numbers}: one is missing, or out of order")
    if path.parent == FOLDERS[0]:
        problems += _lint_questions(texts.split("\n## Exercises")[0])
    return problems + _lint_exercises(notebook, path)


def _lint_questions(texts: str) -> list[str]:
    """A question to think about before the next cell is run has its answer folded, or the learner reads it first."""
    parts = re.split(r"(\*\*(?:Predict|Guess)[^\n]*)", texts)  # text, question, text, …
    return [
        f"the answer to '{question[:50]}…' is not folded: <details> before the next question"
        for question, after in zip(parts[1::2], parts[2::2], strict=True)
        if "<details>" not in question + after
    ]


def _lint_exercises(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """An exercise, or its solution, stands right below a heading of its own; without one nobody knows what is asked."""
    problems, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^(?:#+ |\*\*(?=Exercise)).*", cell.source, re.MULTILINE) or [heading])[-1]
        elif {"exercise", "solution"} & set(cell.metadata.get("tags", [])):
            if not re.search(rf"Exercise {path.name.split('_')[0]}\.\d", heading):
                problems.append(f"no text names the exercise that begins '{cell.source[:40]}'")
            heading = ""  # of this one alone
    return problems


def _lint_cell(cell: nbformat.NotebookNode) -> list[str]:
    problems = [f"unknown tag '{tag}'" for tag in cell.metadata.get("tags", []) if tag not in TAGS | NBVAL_TAGS]
    if cell.cell_type != "code":
        return problems
    if cell.source.count("\n") + 1 > MAX_LINES:
        problems.append(f"{cell.source.count(chr(10)) + 1} lines; at most {MAX_LINES}")
    if re.search(r"^from \S+ import \*", cell.source, re.MULTILINE):
        problems.append("a star import hides where names come from")
    if len(re.findall(r"^(?:def|class) ", cell.source, re.MULTILINE)) > 1:
        problems.append("more than one def or class")
    text = json.dumps(cell.outputs)
    if re.search(r"(?<![\w.:/])/(?:home|root|Users|work|tmp)/", cell.source + text):
        problems.append("an absolute path of somebody's machine")
    for output in cell.outputs:
        if output.output_type == "error":
            problems.append(f"ends in {output.ename}")
        if output.get("name") == "stderr":
            problems.append(f"writes to stderr: {str(output.text)[:60]!r}")
        if "image/png" in output.get("data", {}) and not alternative_text(cell):
            problems.append('no alternative text. Metadata of the cell: {"mystnb": {"image": {"alt": …}}}')
        for kind, content in output.get("data", {}).items():
            if kind == "image/jpeg" or (kind.startswith("image/") and len(content) > MAX_IMAGE_BYTES):
                problems.append(f"a picture of {len(content) // 1000} kB as {kind}: is it a photograph?")
    return problems


def execute(paths: list[Path]) -> bool:
    """Run notebooks from top to bottom and keep their outputs, several at once; True if all went well."""
    os.environ["TQDM_DISABLE"] = "1"  # progress bars do not belong into committed outputs
    cores = os.cpu_count() or 1
    jobs = min(cores, MAX_JOBS, len(paths))
    # Two notebooks with a core each are faster than one after the other with both, and do not get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", str(cores // jobs))
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # large pages: networks train a tenth faster
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(_execute_one, paths)))


def _execute_one(path: Path) -> bool:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    name, clock = os.path.relpath(path, ROOT), time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": path.parent}}
    quiet = ["--log-level=40"]  # of the kernel: that it listens on this machine need not be said for each notebook
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=place, extra_arguments=quiet)
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return False
    _clean(notebook)
    write_notebook(notebook, path)
    print(f"{name}: {time.perf_counter() - clock:.0f} s", flush=True)
    return True


def _clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs between two runs without meaning anything (times, the Python version); shrink pictures."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "quiz" in cell.metadata.get("tags", []):
            cell.outputs = []  # a script of 60 kB, which neither GitHub nor a notebook that is not trusted would run
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _shrink(output.data["image/png"])
                _describe(output, alternative_text(cell))


def alternative_text(cell: nbformat.NotebookNode) -> str:
    """What a cell's picture shows, for those who cannot see it: written once, where the book looks for it."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")


def _describe(output: nbformat.NotebookNode, text: str) -> None:
    """Put the alternative text where JupyterLab looks for it."""
    if text:
        output.metadata["image/png"] = {**output.metadata.get("image/png", {}), "alt": text}


def _shrink(png: str) -> str:
    """The picture (base64) with 256 colours: exact for charts, hardly visible for drawings, a quarter of the size."""
    from PIL import Image

    shrunk = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(shrunk, "PNG", optimize=True)
    return base64.b64encode(shrunk.getvalue()).decode()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["execute", "lint", "badges"])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; all where none is named")
    arguments = parser.parse_args()
    paths = [path.resolve() for path in arguments.paths] or find_notebooks()
    if arguments.command == "badges":
        write_badges()
        return 0
    if arguments.command == "execute":
        return 0 if execute(paths) else 1
    problems = [problem for path in paths for problem in lint(path)] + lint_terms(read_terms(), read_texts())
    print("\n".join(problems) or f"{len(paths)} notebooks: nothing to complain about")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

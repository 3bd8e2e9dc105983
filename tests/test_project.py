"""The project's files agree with each other."""

import inspect
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *extras["course"], *extras["test"]]
    return [Requirement(text) for text in texts]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
            assert match, f"constraints.txt: '{line}' is not name==version"
            pinned[canonical(match[1])] = match[2]
    return pinned


def test_every_requirement_has_one_floor_and_a_tried_version_above_it():
    pinned = constraints()
    for requirement in requirements():
        floors = [spec for spec in requirement.specifier if spec.operator == ">="]
        assert len(floors) == 1, f"{requirement}: one lower bound, please"
        assert canonical(requirement.name) in pinned, f"{requirement.name} is missing in constraints.txt"
        assert requirement.specifier.contains(pinned[canonical(requirement.name)]), f"{requirement} contradicts its pin"
        assert Version(floors[0].version) <= Version(pinned[canonical(requirement.name)])


def test_environment_takes_its_list_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *packages, pip_section = environment["dependencies"]
    assert [package.split()[0] for package in packages] == ["python", "pip"]
    assert packages[0].removeprefix("python ") == PROJECT["project"]["requires-python"]
    assert pip_section == {"pip": ["-e .[course]"]}


def tracked_text_files() -> list[Path]:
    suffixes = {".py", ".md", ".toml", ".yml", ".txt", ".ipynb", ".json", ".csv", ""}
    hidden = {".git", ".venv", ".venv-floors", "node_modules", "runs", ".pytest_cache", ".ruff_cache"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and path.suffix in suffixes and not hidden & set(path.relative_to(ROOT).parts)
    ]


def test_no_address_of_a_package_index_anywhere():
    pattern = re.compile(r"https?://\S*(?:py" + r"pi|pythonhosted|download\.py" + r"torch)")
    for path in tracked_text_files():
        assert not pattern.search(path.read_text(encoding="utf-8", errors="ignore")), path


PAGES = ["README.md", "CHANGELOG.md", *[f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}, which does not exist"


def test_every_documented_command_exists():
    from typer.main import get_command

    from agr_lab.cli.main import app

    known = get_command(app).commands
    for page in PAGES:
        for name in re.findall(r"\bagr ([a-z]+)\b", (ROOT / page).read_text(encoding="utf-8")):
            assert name in known, f"{page} mentions 'agr {name}'"


def test_every_broad_except_says_why():
    broad = re.compile(r"\s*except\b\s*(\(?[^:]*\b(Base)?Exception\b[^:]*)?(:|\Z)")
    silent = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("agr_utils", "agr_lab", "tools")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if broad.match(line) and "#" not in line
    ]
    assert not silent, f"a broad except without a comment that says why: {silent}"


def test_a_source_archive_holds_no_part_of_the_tests(tmp_path: Path):
    pytest.importorskip("setuptools")
    names = ("pyproject.toml", "MANIFEST.in", "README.md", "tests/test_size.py", "agr_utils/__init__.py")
    for name in (*names, *PROJECT["project"]["license-files"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(next((tmp_path / "dist").glob("*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "agr_utils/__init__.py" in names and not [name for name in names if name.startswith("tests")]


TOOLS = [path for path in sorted((ROOT / "tools").rglob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_every_tool_says_what_it_does_and_does_nothing_else_when_asked_for_help(path: Path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr()
    assert not stop.value.code and said.out.startswith(f"usage: {path.name}") and said.err == ""


def test_what_is_used_of_the_insides_of_dependencies_is_still_there():
    """Names with an underscore may go away with any release: found here, and not while a run is trained."""
    import torch
    from accelerate.state import AcceleratorState
    from joblib._dask import DaskDistributedBackend

    assert callable(AcceleratorState._reset_state)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert isinstance(getattr(torch.cpu, name)(), bool)
    assert list(inspect.signature(DaskDistributedBackend.effective_n_jobs).parameters) == ["self", "n_jobs"]
    assert list(inspect.signature(tarfile.TarInfo._proc_member).parameters) == ["self", "tarfile"]

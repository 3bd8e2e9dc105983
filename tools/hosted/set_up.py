"""Second half of a notebook's set-up cell in Colab and Kaggle: install what the host lacks, and nothing that it has."""

import argparse
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

COURSE = Path(__file__).resolve().parents[2]
# The host's notebook server is its own affair.
SERVER = {"ipykernel", "ipywidgets", "jupyterlab", "nbclient", "nbformat"}
OFFLINE = (
    "The packages could not be fetched. Is the network on? Kaggle: Settings > Internet on, which needs a verified "
    "phone number. Colab: Runtime > Restart session. Then run this cell again"
)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def find_lacking(course: Path, installed: dict[str, str]) -> list[str]:
    """Requirements of the course, as pyproject.toml writes them, that are not installed in any version."""
    project = tomllib.loads((course / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["course"]]
    names = {requirement: _plain(re.match(r"[\w.-]+", requirement)[0]) for requirement in wanted}
    return [requirement for requirement, name in names.items() if name not in installed and name not in SERVER]


def set_up(course: Path) -> None:
    """Install what is lacking beside the host's own versions, which all stay; go to the folder of the notebooks."""
    installed = {_plain(found.name): found.version for found in importlib.metadata.distributions()}
    lacking = find_lacking(course, installed)
    if lacking:
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "kept.txt"
            kept.write_text("".join(f"{name}=={version}\n" for name, version in installed.items()), encoding="utf-8")
            command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(kept)]
            if subprocess.call([*command, *lacking]) != 0:
                raise SystemExit(OFFLINE)
        importlib.invalidate_caches()
    sys.path.insert(0, str(course))
    os.chdir(course / "notebooks")


if __name__ == "__main__":  # in a notebook the arguments are the kernel's
    argparse.ArgumentParser(description=__doc__).parse_args()
if __name__ in {"__main__", "<run_path>"}:
    set_up(COURSE)

"""Try notebooks as Colab or Kaggle runs them: alone in an empty folder, with the host's versions (make test-colab)."""

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "matplotlib")


def host_environment(host: str, folder: Path) -> dict[str, str]:
    """Variables of a kernel on the host; the repository's address leads to this clone, as far as it is committed."""
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["agr"]["repository"]
    given = {"AGR_PROFILE": "smoke", "AGR_DATA": "synthetic", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    given |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf"}
    given |= {"GIT_CONFIG_VALUE_0": f"https://{address}"}
    if host == "kaggle":
        given["KAGGLE_KERNEL_RUN_TYPE"] = "Interactive"
    else:  # Colab's kernels have imported google.colab before the first cell
        stand_in = folder / "host" / "google" / "colab"
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").touch()
        (folder / "host" / "sitecustomize.py").write_text("import google.colab\n", encoding="utf-8")
        given["PYTHONPATH"] = str(folder / "host")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGR_", "PYTHON", "JUPYTER"))}
    return kept | given


def try_notebook(path: Path, host: str, branch: str) -> bool:
    """Run one notebook from top to bottom; print how long it took, or the error that it ended in."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        environment = host_environment(host, folder)
        work = folder / "content"
        work.mkdir()
        text = path.read_text(encoding="utf-8").replace("-b main ", f"-b {branch} ")
        (work / path.name).write_text(text, encoding="utf-8")
        run = (
            "import sys, nbformat, nbclient\n"
            "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
            "nbclient.NotebookClient(notebook, timeout=900, kernel_name='python3').execute()\n"
        )
        clock = time.perf_counter()
        command = [sys.executable, "-c", run, path.name]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        outcome = "FAILED" if done.returncode else "passed"
        print(f"{host}, {path.name}: {time.perf_counter() - clock:.0f} s, {outcome}", flush=True)
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
        return not done.returncode


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", choices=["colab", "kaggle"])
    parser.add_argument("numbers", nargs="+", help="of the notebooks, for instance 00 02")
    arguments = parser.parse_args()
    current = ["git", "branch", "--show-current"]
    branch = subprocess.check_output(current, cwd=ROOT, text=True).strip() if shutil.which("git") else ""
    if not branch:
        raise SystemExit("make test-colab fetches a branch: git switch to one first")
    before = {name: importlib.metadata.version(name) for name in KEPT}
    paths = [path for number in arguments.numbers for path in sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))]
    passed = [try_notebook(path, arguments.host, branch) for path in paths]
    importlib.invalidate_caches()
    changed = {name for name in KEPT if importlib.metadata.version(name) != before[name]}
    if changed:
        print(f"the set-up cell changed {', '.join(sorted(changed))}", file=sys.stderr)
    return 0 if passed and all(passed) and not changed else 1


if __name__ == "__main__":
    sys.exit(main())

"""Print every ``name>=version`` of pyproject as ``name==version``: the constraints of ``make test-floors``."""

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print them, a line each."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["course"], *extras["test"], *extras["scale"]]:
        name, floor = re.fullmatch(r"([\w.-]+)>=([\w.]+).*", requirement).groups()
        print(f"{name}=={floor}")


if __name__ == "__main__":
    main()

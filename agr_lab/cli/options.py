"""Options that several commands share, and how they print."""

import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agr_utils.tasks import SCHEMES

if TYPE_CHECKING:
    import pandas as pd

    from agr_utils.data.reading.skipped import Skipped

RealDataName = Enum("RealDataName", {name: name for name in SCHEMES if name != "synthetic"}, type=str)
Source = Annotated[Path | None, typer.Option(help="Folder or archive of the images. Default: AGR_DATA_DIR.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")]
Protocol = Annotated[
    str, typer.Option(help="How real data is split: grouped, ages-21-60, random-5fold-K, cvpr24-K:FILE, service-test.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def echo_summary(split: str, summary: "pd.DataFrame") -> None:
    """Print metrics with their intervals, a line each."""
    for name, row in summary.iterrows():
        typer.echo(
            f"{split:>10}  {name:<21} {row['value']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]  n={row['count']:.0f}"
        )


def echo_skipped(skipped: "Skipped") -> None:
    """Print what was left out, a line each and the counts last; nothing where nothing was."""
    for line in (*skipped.lines(), str(skipped)) if skipped else ():
        typer.echo(line)


def command_line() -> str:
    """The command as it was typed, with what it took from the environment, for the run's record."""
    import shlex

    variable = ["AGR_DATA=" + os.environ["AGR_DATA"]] if os.environ.get("AGR_DATA") else []
    return shlex.join([*variable, "agr", *sys.argv[1:]])

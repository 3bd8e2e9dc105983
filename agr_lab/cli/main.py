"""The command line, ``agr``: each command calls one function of the package, which a notebook can call, too."""

import errno
import os
import sys
from typing import Annotated

import typer

from agr_lab.cli import inspect, lab
from agr_lab.cli.train import study, train
from agr_utils.deploy.command import predict
from agr_utils.errors import COURSE_NEEDED, InputError, printable

app = typer.Typer(
    help="Multi-task face analysis: age, gender and race from one image. Labels are somebody's guesses, not identity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ADVICE = {errno.ENAMETOOLONG: "Choose a shorter name", errno.ELOOP: "Choose another path", errno.ENOSPC: "Make room"}
data_app = typer.Typer(help="Look at a data set and get it ready.", no_args_is_help=True)
app.add_typer(data_app, name="data")
for command in (inspect.audit, inspect.prepare):
    data_app.command()(command)
for command in (predict, train, inspect.evaluate, inspect.explain, inspect.robustness, lab.publish, lab.export):
    app.command()(command)
bench_app = typer.Typer(invoke_without_command=True)
app.add_typer(bench_app, name="bench")
bench_app.callback(invoke_without_command=True)(lab.bench)
bench_app.command("deploy")(lab.bench_deploy)
for command in (lab.figures, study):
    app.command()(command)


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Works anywhere.")] = False,
) -> None:
    """Multi-task face analysis: age, gender and race from one image. Labels are somebody's guesses, not identity."""


def main() -> None:
    """Entry point: errors become one line and exit status 1, unless --debug is given."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: or the next file that is opened would get what is meant for the terminal
            os.open(os.devnull, os.O_RDWR)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # file names that a terminal or a redirected output cannot write
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # it is taken wherever it stands
    try:
        app(arguments)
    except Exception as error:  # the last stop: whatever it is, the user gets one line
        if len(arguments) < len(sys.argv) - 1:
            raise
        typer.echo(f"agr: error: {describe_error(error)}", err=True)
        sys.exit(1)


def describe_error(error: Exception) -> str:
    """One line about what stopped a command."""
    if isinstance(error, InputError):
        return str(error)
    reason = printable(" ".join(str(error).split()))
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("agr_utils"):
        return f"{error.name} is not installed. {COURSE_NEEDED}"
    number = errno.ELOOP if "Symlink loop" in reason else getattr(error, "errno", None)  # a RuntimeError of pathlib
    if number in ADVICE:
        return f"{reason}. {ADVICE[number]}"
    return f"{type(error).__name__}: {reason}. Add --debug to see where"

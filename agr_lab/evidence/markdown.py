"""Tables in Markdown pages."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from agr_utils.errors import InputError
from agr_utils.files import atomic_path
from agr_utils.measure.metrics import METRICS

NOT_YET = "No finished runs yet."


def markdown_table(titles: Iterable[str], rows: Iterable[Iterable[object]], empty: str = NOT_YET) -> str:
    """A table, or ``empty`` where it would have no row."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in rows]
    titles = list(titles)
    return "\n".join(["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *lines]) if lines else empty


def interval_cell(row: pd.Series, scale: float, digits: int, sign: str = "") -> str:
    """A value with its interval in brackets, of a row ``value, low, high``; ``+`` signs positive ones, too."""
    value, low, high = (f"{scale * row[name]:{sign}.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def error_cell(row: pd.Series, years: bool, sign: str = "") -> str:
    """An error with its interval: years with two digits, shares in per cent (or points) with one."""
    return interval_cell(row, 1, 2, sign) if years else interval_cell(row, 100, 1, sign)


def error_number(value: float, years: bool, sign: str = "") -> str:
    """An error without an interval, with the digits of ``error_cell``."""
    return f"{value:{sign}.2f}" if years else f"{100 * value:{sign}.1f}"


def called_cells(rows: pd.DataFrame, metrics: Iterable[str]) -> list[str]:
    """Differences in several metrics (index of the rows), each with its interval and what it is called."""
    cells = {name: error_cell(rows.loc[name], METRICS[name].in_years, "+") for name in metrics}
    return [f"{cell} {rows.loc[name, 'call']}".strip() for name, cell in cells.items()]


def fill_table(page: Path, name: str, table: str) -> None:
    """Replace what stands between ``<!-- table:name -->`` and ``<!-- /table -->``; an InputError without both."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- table:{re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    if not pattern.search(text):
        raise InputError(
            f"{page}: no markers for the table '{name}'. Put <!-- table:{name} --> and <!-- /table --> back"
        )
    with atomic_path(page) as partial:
        partial.write_text(pattern.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text), encoding="utf-8")

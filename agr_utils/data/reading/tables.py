"""CSV files of labels, as people save them."""

import io

import pandas as pd

from agr_utils.errors import InputError


def read_label_csv(content: io.BytesIO, name: object, advice: str) -> pd.DataFrame:
    """A CSV file as text, with tidied names of columns; a row's index is its line. Empty rows are left out.

    Raises:
        InputError: with its name and the advice, if it is none.
    """
    try:
        table = pd.read_csv(content, dtype="string", encoding="utf-8-sig", skip_blank_lines=False)
    except ValueError as error:  # pandas' errors for an empty file, uneven rows or bytes that are no text
        raise InputError(f"{name}: not a CSV file ({' '.join(str(error).split())}). {advice}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too many for names of the rows
        raise InputError(f"{name}: not a CSV file (its rows have more fields than its header). {advice}")
    table.columns = table.columns.str.strip()
    return table.set_axis(range(2, len(table) + 2)).dropna(how="all")

"""What errors about a table name: lines, columns, and what it lacks."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "abridged",
    "and_others",
    "check_columns",
    "check_named",
    "check_names",
    "check_rows",
    "example",
    "first",
    "row_name",
]


def first(column: pd.Series | pd.DataFrame, flags: Any) -> str:
    """Where the first flag is: a line of a file, or the row of that index."""
    return row_name(column.index, int(np.asarray(flags).argmax()))


def row_name(index: pd.Index | None, at: int) -> str:
    """The row at a place: a line of a file, or of a frame by its index; without one its number."""
    if index is None:
        return f"row {at}"
    label = index[at]
    kind = index.name if index.name in ("line", "row") else "row"
    return f"{kind} {label!r}" if isinstance(label, str) else f"{kind} {label}"


def example(column: pd.Series, flags: Any) -> str:
    """The value at the first flag, and where it is."""
    value = column.iloc[int(np.asarray(flags).argmax())]
    return f"{str(value) if not isinstance(value, str) else value!r} in {first(column, flags)}"


def and_others(flags: Any) -> str:
    """How many more than the first."""
    return f" and {flags.sum() - 1} more" if flags.sum() > 1 else ""


def abridged(names: Sequence[Any], most: int = 12) -> str:
    """The first of many names."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def check_rows(table: pd.DataFrame, name: str) -> None:
    """Raise a ValueError if there is none."""
    if not len(table):
        raise ValueError(f"{name} has column names and no rows.")


def check_columns(table: pd.DataFrame, names: Sequence[str], name: str, why: str = "") -> None:
    """Raise a ValueError, with what may have been meant, if the table lacks a column."""
    lacking = [column for column in names if column not in table]
    if not lacking:
        return
    alike = {str(c).lower(): c for c in table.columns}
    close = difflib.get_close_matches(str(lacking[0]).lower(), alike, n=1)
    meant = f" (did you mean {alike[close[0]]!r}?)" if close else ""
    more = f", nor {abridged([repr(c) for c in lacking[1:]])}" if lacking[1:] else ""
    raise ValueError(
        f"{name} has no column {lacking[0]!r}{meant}{more}{why}; it has {abridged(table.columns)}."
    )


def check_names(table: pd.DataFrame, name: str) -> None:
    """Raise a ValueError if two columns have one name."""
    repeated = table.columns[table.columns.duplicated()]
    if not len(repeated):
        return
    if repeated[0] == "":
        raise ValueError(f"{name} has several columns without a name: name them.")
    raise ValueError(
        f"{name} has two columns with the name {repeated[0]!r}: rename one. (The first line holds "
        "the names.)"
    )


def check_named(features: pd.Index, table: pd.DataFrame, name: str) -> None:
    """Raise a ValueError if a feature has no name, as row numbers often have none."""
    if "" in features:
        raise ValueError(
            f"Column {table.columns.get_loc('') + 1} of {name} has no name. Row numbers, as pandas "
            "and R write them, are no feature: leave them out of the file (index=False, row.names "
            "= FALSE), or of the fit (--drop '')."
        )

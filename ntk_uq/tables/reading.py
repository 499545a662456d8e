"""Tables in files, CSV and Parquet.

No more than pandas is imported here and in the files that it takes from, so that mistakes in a
table are said at once.
"""

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ntk_uq._common.warnings import warn_user
from ntk_uq.tables.places import and_others, check_names, check_rows, example, first

__all__ = ["PARQUET", "decimal_points", "no_pyarrow", "read_csv", "read_table"]

PARQUET = (".parquet", ".pq")

# Cells that are gaps: those of pandas.
_GAPS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)  # fmt: skip
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
# The line by which a file tells Excel its separator.
_EXCEL = re.compile(r"sep=(.)(?=[\r\n])")
_OTHER_FORMATS = {
    b"PK\x03\x04": "is a workbook or an archive: save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a workbook: save the sheet as CSV UTF-8",
    b"PAR1": f"is a Parquet file: give it a name that ends in {PARQUET[0]}",
    b"\xff\xfe": "is in UTF-16, not a text file in UTF-8: save it as CSV UTF-8",
    b"\xfe\xff": "is in UTF-16, not a text file in UTF-8: save it as CSV UTF-8",
}


def read_table(
    path: str | Path, *, separator: str | None = None, missing: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a CSV or Parquet file; its name says which (``.parquet``, ``.pq``).

    Parameters
    ----------
    path : path
        The file, or "-" for CSV from standard input. A name that ends in ``.gz`` is of a
        compressed one.
    separator : str, optional
        What stands between the values of a line of CSV. None takes the one of comma, semicolon,
        tab and bar that the header line holds.
    missing : sequence of str
        What else than an empty cell (or NA, NaN, None, null) stands for a missing value.

    Returns
    -------
    DataFrame
        Of a CSV file all values are text, as they were written, and NaN where there is none; the
        index, named "line", holds the line in which the row begins, as an editor counts. Of a
        Parquet file the index, named "row", counts from 1.

    Raises
    ------
    ValueError
        If the file is no table: a header line, at least one row, and as many values in each row as
        there are names.
    OSError
        If it cannot be read.
    ImportError
        For Parquet, if pyarrow is not installed.
    """
    name = "standard input" if path == "-" else str(path)
    if path != "-" and not Path(path).is_file():
        kind = "is a folder" if Path(path).is_dir() else "does not exist"
        raise FileNotFoundError(f"The file {path} {kind}.")
    if path != "-" and Path(path).suffix.lower() in PARQUET:
        if separator is not None:
            raise ValueError(f"{name} is a Parquet file, which has no separator.")
        table = _read_parquet(Path(path))
        if missing:
            table = table.mask(table.isin(list(missing)))
    else:
        table = read_csv(_text_of(path, name), name, separator=separator, missing=missing)
    check_rows(table, name)
    return table


def read_csv(
    text: str, name: str, *, separator: str | None = None, missing: Sequence[str] = ()
) -> pd.DataFrame:
    """The same for the content of a CSV file; `name` is what errors call it."""
    text = text.removeprefix("\ufeff")
    excel = _EXCEL.match(text)
    if separator is None:
        separator = excel[1] if excel else _guess_separator(text, name)
    rows = _rows(text, name, separator)
    if excel and excel[1] == separator:
        next(rows)
    header_line, header = next(((line, row) for line, row in rows if row), (0, []))
    if not header:
        raise ValueError(f"{name} is empty.")
    names = [cell.strip() for cell in header]
    lines, cells, blank = [], [], 0
    for line, row in rows:
        if not row:
            blank = line
            continue
        if len(row) != len(names):
            raise ValueError(
                f"{name} is not a table of {_word(separator)}-separated values: "
                + _misfit(row, line, names, header_line)
            )
        if blank and len(names) == 1:
            raise ValueError(
                f"{name} has one column, {names[0]!r}, and nothing in line {blank}: write NA if a "
                "value is missing there, or delete the line, and what stands above the header."
            )
        lines.append(line)
        cells.append(row)
    table = pd.DataFrame(cells, columns=names, index=pd.Index(lines, name="line"), dtype=object)
    gaps = _GAPS.union(missing)
    for number in range(len(names)):
        column = table.iloc[:, number]
        table.isetitem(number, column.mask(column.str.strip().isin(gaps)))
    empty = table.isna().all(axis=1) if len(names) > 1 else pd.Series(False, index=table.index)
    if empty.any():
        warn_user(
            f"{name} holds nothing but separators in {first(table, empty)}{and_others(empty)}: it "
            "counts as a row.",
        )
    # What a trailing separator makes: no name, and nothing in it.
    nothing = table.columns.isin([""]) & table.isna().all().to_numpy()
    table = table.loc[:, ~nothing] if len(table) else table
    check_names(table, name)
    return table


def _text_of(path: str | Path, name: str) -> str:
    if path == "-":
        content = sys.stdin.buffer.read()
    elif Path(path).suffix.lower() == ".gz":
        import gzip

        with gzip.open(path) as file:
            content = file.read()
    else:
        content = Path(path).read_bytes()
    for start, what in _OTHER_FORMATS.items():
        if content.startswith(start):
            raise ValueError(f"{name} {what}.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name} is not a text file in UTF-8: line {line} holds something else. Save it as CSV "
            "UTF-8 (a choice of Excel's), or convert it (iconv -f WINDOWS-1252 -t UTF-8)."
        ) from error


def _rows(text: str, name: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows, empty where a line is blank, with the line in which each begins."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        skipinitialspace=separator != " ",
        strict=True,
    )
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{name} is not a table of {_word(separator)}-separated values: {error}, in the "
                f"row that begins in line {line}. Is a quotation mark open, or the separator "
                "another (--separator)?"
            ) from error
        if row is None:
            return
        yield line, row if len(row) > 1 or "".join(row).strip() else []


def _guess_separator(text: str, name: str) -> str:
    """The one that splits the header line, and all lines alike if several do."""

    def widths(separator: str) -> Iterator[int]:
        return (len(row) for _, row in _rows(text, name, separator) if row)

    def fits(separator: str) -> bool:
        try:
            return len(set(widths(separator))) == 1
        except ValueError:
            return False

    def splits(separator: str) -> bool:
        try:
            return next(widths(separator), 0) > 1
        except ValueError:
            return separator == ","

    possible = [separator for separator in ",;\t|" if splits(separator)]
    if len(possible) > 1:
        fitting = [separator for separator in possible if fits(separator)]
        if len(fitting) != 1:
            words = " or ".join(f"{_SEPARATORS[s]}s" for s in possible)
            raise ValueError(
                f"{name} may be separated by {words}: say by which (--separator ';', or tab)."
            )
        possible = fitting
    return possible[0] if possible else ","


def _misfit(row: list[str], line: int, names: list[str], header_line: int) -> str:
    """Why a row with too few or too many values may be there."""
    few = len(row) < len(names)
    text = (
        f"line {line} holds {len(row)} value{'s' * (len(row) != 1)}, "
        f"{'fewer' if few else 'more'} values than its header line {header_line} has names "
        f"({len(names)}). "
    )
    if few:
        return text + "Was it cut short? A missing value needs its separator too."
    if not row[-1].strip():
        return text + "The last is empty: leave out the separator at the end."
    if len(row) == len(names) + 1:
        return text + (
            "Is a value with a separator in it not quoted, or has the first column no name, as row "
            "names of R's write.table (row.names = FALSE leaves them out)?"
        )
    return text + "Does the table begin further down?"


def _word(separator: str) -> str:
    return _SEPARATORS.get(separator, repr(separator))


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(no_pyarrow(path)) from error
    except OSError:
        raise
    except Exception as error:  # pyarrow's own errors, which are not imported here
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    if any(level is not None for level in table.index.names):  # columns of the file
        table = table.reset_index()
    table.columns = table.columns.astype(str)
    check_names(table, str(path))
    return table.set_axis(pd.RangeIndex(1, len(table) + 1, name="row"))


def no_pyarrow(path: Any) -> str:
    """What to do without."""
    return (
        f"{path} is a Parquet file, which needs pyarrow: pip install 'ntk_uq[parquet]' (or "
        "pyarrow). CSV needs nothing."
    )


def decimal_points(table: pd.DataFrame, columns: Iterable[str], name: str) -> pd.DataFrame:
    """Write the decimal commas of numbers as points.

    Parameters
    ----------
    table : DataFrame
        As `read_table` gives it, from a file with decimal commas.
    columns : iterable of str
        Columns that may hold numbers; others stay as they are.
    name : str
        Where the table is from, for errors.

    Raises
    ------
    ValueError
        If a number has a point: 1.234 may be a thousand or one.
    """
    table = table.copy()
    for name_ in columns:
        column = table[name_]
        if not pd.api.types.is_object_dtype(column) and not pd.api.types.is_string_dtype(column):
            continue
        text = column.map(lambda cell: cell if isinstance(cell, str) else "", na_action=None)
        pointed = text.str.fullmatch(r"\s*[+-]?(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
        if pointed.any():
            raise ValueError(
                f"Column {name_!r} of {name} holds {example(column, pointed)}, a number with a "
                "point, and --decimal , says that its decimals follow a comma: write it without "
                f"what separates thousands, take its values as categories (--categorical {name_}), "
                f"or leave it out (--drop {name_})."
            )
        swapped = text.str.fullmatch(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
        table[name_] = column.mask(swapped, text.str.replace(",", "."))
    return table

"""Tables in files, and what their columns hold: numbers, categories, a target.

Nothing is guessed that changes a value: what has two readings is refused, by column and line, with
what to do. No more than pandas is imported here, so that mistakes in a table are said at once.
"""

import csv
import difflib
import io
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Task = Literal["classification", "regression"]

PARQUET = (".parquet", ".pq")

# Integers with more distinct values than this are amounts, and text with more is no category,
# unless the user says so.
_MOST_CLASSES = 20
_MOST_CATEGORIES = 50
# In fewer rows, values that are all different are no sign of anything.
_FEW_ROWS = 20

# Cells that are gaps: those of pandas.
_GAPS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)  # fmt: skip
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
# What pandas calls columns of numbers and of text.
_ORDINARY = ("string", "integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")
_TIMES = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")
# The line by which a file tells Excel its separator.
_EXCEL = re.compile(r"sep=(.)(?=[\r\n])")
_OTHER_FORMATS = {
    b"PK\x03\x04": "is a workbook or an archive: save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a workbook: save the sheet as CSV UTF-8",
    b"PAR1": f"is a Parquet file: give it a name that ends in {PARQUET[0]}",
    b"\xff\xfe": "is in UTF-16, not a text file in UTF-8: save it as CSV UTF-8",
    b"\xfe\xff": "is in UTF-16, not a text file in UTF-8: save it as CSV UTF-8",
}

# Dates and times, and numbers as they are written elsewhere: what it is, and what to do.
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = (
    r"(?:jan(?:uary?)?|feb(?:ruary?)?|mar(?:ch)?|märz?|mrz|apr(?:il)?|ma[iy]|jun[ie]?|jul[iy]?|"
    r"aug(?:ust)?|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)\.?"
)
_WEEKDAY = r"(?:(?:mo|tu|we|th|fr|sa|su|di|mi|do|so)[a-z]*\.?,? )?"
_YEAR = r"(?:\d{4}|'?\d{2})"
_TIME = (
    r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[ap]\.?m\.?)?(?: ?(?:z|utc|gmt|[+-]\d{2}:?\d{2}))?"
)
_DATES = (
    rf"\d{{4}}([-/.]){_DAY}\1{_DAY}",
    rf"{_DAY}([-/.]) ?{_DAY}\2 ?{_YEAR}",
    rf"{_WEEKDAY}{_DAY}\.?[-/. ]*{_MONTH}[-/., ]*{_YEAR}",
    rf"{_WEEKDAY}{_MONTH} {_DAY},? \d{{4}}",
    rf"{_MONTH}[-/ ]*{_YEAR}",
    rf"\d{{4}}[-/ ]*{_MONTH}(?:[-/ ]*{_DAY})?",
    r"\d{4}[-/](?:0[1-9]|1[0-2])|(?:0?[1-9]|1[0-2])/\d{4}",
    r"\d{4}[- ]?(?:q[1-4]|w\d{1,2})|q[1-4][-/ ]?\d{4}",
)
_AMOUNT = r"(?:\d[\d.,'\u2019 \u00a0\u202f]*|[.,]\d+)"
_SIGN = r"(?:[$€£¥₹%‰]|EUR|USD|GBP|CHF|JPY|US\$)"
_NOTATIONS = tuple(
    (re.compile(pattern, re.IGNORECASE), what, cure)
    for pattern, what, cure in (
        (
            rf"(?:{'|'.join(_DATES)})(?:(?:[ t]|, ?){_TIME})?|{_TIME}",
            "a date or time",
            "make a number of it, such as days since a date",
        ),
        (
            r"[+-]?\d*,\d+(?:e[+-]?\d+)?",
            "a number with a comma",
            "if that is the decimal point, give --decimal , and if it separates thousands, write "
            "the number without",
        ),
        (
            r"[+-]?\d{1,3}(?:([.,'\u2019 \u00a0\u202f_])\d{2,3})(?:\1\d{2,3})*(?:[.,]\d+)?",
            "a number whose thousands are separated",
            "write it without",
        ),
        (
            rf"[+-]?{_SIGN}\s?[+-]?{_AMOUNT}[km]?|[+-]?{_AMOUNT}[km]?\s?{_SIGN}",
            "a number with a sign of currency or per cent",
            "write the number alone",
        ),
        (
            rf"\({_AMOUNT}\)|{_AMOUNT}-|[−\u2013]{_AMOUNT}",
            "a negative number in another notation",
            "write it with a hyphen before it, as -5",
        ),
        (r"[+-]?[\d.]+d[+-]?\d+", "a number with another exponent than e", "write it as 1.5e3"),
    )
)


# Files.


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
        warnings.warn(
            f"{name} holds nothing but separators in {first(table, empty)}{and_others(empty)}: it "
            "counts as a row.",
            UserWarning,
            stacklevel=3,
        )
    # What a trailing separator makes: no name, and nothing in it.
    nothing = table.columns.isin([""]) & table.isna().all().to_numpy()
    table = table.loc[:, ~nothing] if len(table) else table
    _check_names(table, name)
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
    _check_names(table, str(path))
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
                f"Column {name_!r} of {name} holds {_cell(column, pointed)}, a number with a "
                "point, and --decimal , says that its decimals follow a comma: write it without "
                f"what separates thousands, take its values as categories (--categorical {name_}), "
                f"or leave it out (--drop {name_})."
            )
        swapped = text.str.fullmatch(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
        table[name_] = column.mask(swapped, text.str.replace(",", "."))
    return table


# Columns.


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


def _check_names(table: pd.DataFrame, name: str) -> None:
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


def numbers(column: pd.Series, name: str, *, missing: bool = False) -> Floats:
    """A column as numbers, NaN where a value is missing.

    Parameters
    ----------
    column : Series
        As `read_table` gives it.
    name : str
        Where it is from, for errors.
    missing : bool
        Whether values may be missing.

    Raises
    ------
    ValueError
        If it holds text or infinite values, or misses one; the message names the line.
    """
    _check_type(column, name)
    values, text = _parsed(column)
    where = f"Column {column.name!r} of {name}"
    if text.any():
        raise ValueError(
            f"{where} holds text, {_cell(column, text)}, where numbers belong"
            f"{_advice(column, text)}, or drop the column."
        )
    if np.isinf(values).any():
        raise ValueError(
            f"{where} has an infinite value in {first(column, np.isinf(values))}. Correct it, or "
            "leave it empty if it is not known."
        )
    if not missing and np.isnan(values).any():
        raise ValueError(
            f"{where} has a missing value in {first(column, np.isnan(values))}. Fill in or drop "
            "such rows first."
        )
    return values


def labels(column: pd.Series, name: str) -> NDArray:
    """A column as classes: integers if all of them are, text otherwise.

    Parameters
    ----------
    column : Series
        As `read_table` gives it.
    name : str
        Where it is from, for errors.

    Raises
    ------
    ValueError
        If one is missing, or they are real numbers; the message says where.

    Warns
    -----
    UserWarning
        If some are numbers and some are text, or some differ in their spelling only.
    """
    _check_type(column, name)
    check_present(column, name)
    where = f"The target {column.name!r} of {name}"
    values, text = _parsed(column)
    if _is_boolean(column):
        return as_text(column).to_numpy(dtype=np.str_)
    real = ~text & (values != np.round(values))
    if text.any() and not text.all():
        amounts = len(np.unique(values[~text])) > _MOST_CLASSES
        if real.any() or (amounts and text.mean() < 0.5):
            raise ValueError(
                f"{where} holds numbers, and text in some rows: {_cell(column, text)}"
                f"{_advice(column, text)}."
            )
        fewer = text if text.mean() < 0.5 else ~text
        warnings.warn(
            f"{where} holds both numbers and text ({_cell(column, fewer)}"
            f"{and_others(fewer)}): each is a class.",
            UserWarning,
            stacklevel=3,
        )
    if text.any() or _zeros(column).any():
        classes = as_text(column)
        _warn_of_spellings(classes, where, "classes")
        return classes.to_numpy(dtype=np.str_)
    if real.any():
        raise ValueError(
            f"{where} holds {column.nunique():,} distinct real numbers; classes must be integers "
            "or text."
        )
    if np.abs(values).max() >= 2**53:  # codes, which float64 does not tell apart
        return as_text(column).to_numpy(dtype=np.str_)
    return values.astype(np.int64)


def guess_task(column: pd.Series, name: str) -> tuple[Task, str]:
    """What a target asks for, and why.

    Raises
    ------
    ValueError
        If it has two readings: amounts with text among them, dates, numbers in another notation.
    """
    _check_type(column, name)
    check_present(column, name)
    if _is_boolean(column):
        return "classification", "text"
    text = _parsed(column)[1]
    if text.any():
        if _amounts(column, text).mean() >= 0.5:
            raise ValueError(
                f"The target {column.name!r} of {name} holds "
                f"{'' if text.all() else 'numbers, and text in some rows: '}"
                f"{_cell(column, text)}{_advice(column, text)}, or say that its values are "
                "classes (--task classification)."
            )
        return "classification", "text"
    distinct = column.nunique()
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "classification", f"{distinct} categories"
    if _zeros(column).any():
        return "classification", "codes with leading zeros"
    written_real = column.map(lambda value: "." in str(value)).any()
    if not written_real and distinct <= _MOST_CLASSES:
        return "classification", f"{distinct} distinct integers"
    return "regression", "real numbers" if written_real else f"{distinct} distinct integers"


def is_categorical(column: pd.Series, name: str, chosen: bool = False) -> bool:
    """Whether a feature holds categories, and not numbers.

    Parameters
    ----------
    column : Series
        As `read_table` gives it.
    name : str
        Where it is from, for errors.
    chosen : bool
        Whether the user says that it does.

    Raises
    ------
    ValueError
        If it holds neither, or has two readings; the message names the line, and what to do.

    Warns
    -----
    UserWarning
        If it looks like something else.
    """
    where = f"Column {column.name!r} of {name}"
    drop = f"leave it out (--drop {column.name})"
    _check_type(column, name, f", or {drop}")
    if chosen or _is_boolean(column) or isinstance(column.dtype, pd.CategoricalDtype):
        _warn_of_spellings(as_text(column), where, "categories")
        return True
    column = column.dropna()
    text = _parsed(column)[1]
    choose = f"take every value as a category (--categorical {column.name}), or {drop}"
    if not text.any():
        check_numbers(column, name)
        return False
    amounts = _amounts(column, text)
    plain, other = ~text, as_text(column)[~amounts]
    if amounts.mean() >= 0.5 or (amounts.any() and other.nunique() == 1):
        raise ValueError(
            f"{where} holds {'numbers, and text in some rows: ' if plain.any() else ''}"
            f"{_cell(column, text)}{_advice(column, text)}; or {choose}."
        )
    texts = as_text(column)
    if texts.nunique() > _MOST_CATEGORIES:
        raise ValueError(
            f"{where} holds {texts.nunique()} different texts, {texts.iloc[0]!r} for example: too "
            f"many for categories (at most {_MOST_CATEGORIES}). If they are some all the same, say "
            f"so (--categorical {column.name}); or {drop}."
        )
    if plain.any():
        warnings.warn(
            f"{where} holds text, and numbers in some rows ({_cell(column, plain)}"
            f"{and_others(plain)}): every value is taken as a category.",
            UserWarning,
            stacklevel=3,
        )
    if len(texts) >= _FEW_ROWS and texts.nunique() > len(texts) / 2:
        warnings.warn(
            f"{where} holds {texts.nunique()} different texts in {len(texts)} rows, "
            f"{texts.iloc[0]!r} for example: as categories they say little, and as names of the "
            f"rows nothing. If so, {drop}.",
            UserWarning,
            stacklevel=3,
        )
    _warn_of_spellings(texts, where, "categories")
    return True


def check_numbers(column: pd.Series, name: str) -> None:
    """Find what looks like numbers, and is none.

    Raises
    ------
    ValueError
        If a number has leading zeros, or is an integer that float64 does not hold.

    Warns
    -----
    UserWarning
        If the column looks like row numbers, or like dates in digits.
    """
    where = f"Column {column.name!r} of {name}"
    codes = f"If they are codes, take them as categories (fit --categorical {column.name})"
    zeros = _zeros(column)
    if zeros.any():
        raise ValueError(
            f"{where} holds {_cell(column, zeros)}, a number with leading zeros. {codes}, "
            "otherwise write them without; or drop the column."
        )
    values = _parsed(column)[0]
    large = np.flatnonzero((np.abs(values) >= 2**53) & np.isfinite(values))
    for place in large:
        written = str(column.iloc[place]).strip()
        if re.fullmatch(r"[+-]?\d+", written) and int(written) != int(values[place]):
            flags = np.arange(len(values)) == place
            raise ValueError(
                f"{where} holds {_cell(column, flags)}, an integer of more digits than a "
                f"number keeps (2**53). {codes}, otherwise write them as real numbers; or drop "
                "the column."
            )
    values = values[~np.isnan(values)]
    if len(values) < _FEW_ROWS or not np.array_equal(values, np.round(values)):
        return
    if values.min() >= 1900_00_00 and values.max() < 2100_00_00:
        days = pd.to_datetime(values.astype(int).astype(str), format="%Y%m%d", errors="coerce")
        if days.notna().all() and len(np.unique(values)) > 1:
            warnings.warn(
                f"{where} holds dates in digits, {values[0]:.0f} for example, and they are taken "
                "as numbers: make them days since a date.",
                UserWarning,
                stacklevel=4,
            )
            return
    if len(np.unique(values)) == len(values):
        steps = np.diff(values)
        if (steps > 0).all() or (steps < 0).all() or np.ptp(values) < 2 * len(values):
            warnings.warn(
                f"{where} looks like numbers of the rows ({values[0]:.0f}, {values[1]:.0f}, "
                f"{values[2]:.0f}, …), and is a feature like others: it may tell the answer, where "
                "rows were once sorted by it, and nothing about new rows. If it is none, leave it "
                "out.",
                UserWarning,
                stacklevel=4,
            )


def as_text(column: pd.Series) -> pd.Series:
    """A column as objects: text, and NaN where it is missing."""
    present = column.notna().to_numpy()
    text = pd.Series(np.nan, index=column.index, dtype=object, name=column.name)
    text[present] = [str(value).strip() for value in column[present]]
    return text


def as_known(column: pd.Series, known: Iterable[Any]) -> pd.Series:
    """Categories in the spelling that is known: 2 and 2.0 are one code, True and TRUE one answer.

    Parameters
    ----------
    column : Series
        As `as_text` gives it.
    known : iterable
        Categories, as they are spelled. What is none of them, nor like just one, stays.
    """
    known = [category for category in known if isinstance(category, str)]
    alike: dict[str, list[str]] = {}
    for category in known:
        alike.setdefault(_value(category), []).append(category)
    spelled = {
        text: alike[_value(text)][0]
        for text in set(column.dropna().unique()).difference(known)
        if len(alike.get(_value(text), ())) == 1
    }
    return column.replace(spelled) if spelled else column


def _value(text: str) -> str:
    """What a category says, however programs write it: integers as reals, and truth."""
    integer = re.fullmatch(r"([+-]?\d+)\.0*", text)
    if integer:
        return integer[1]
    return text.lower() if text.lower() in ("true", "false") else text


def _warn_of_spellings(texts: pd.Series, where: str, kind: str) -> None:
    seen: dict[str, str] = {}
    for text in texts.dropna().unique():
        key = unicodedata.normalize("NFKC", " ".join(_value(text).casefold().split()))
        if key in seen:
            warnings.warn(
                f"{where} holds {seen[key]!r} and {text!r}, which count as two {kind}: spell them "
                "alike if they are one.",
                UserWarning,
                stacklevel=4,
            )
            return
        seen[key] = text


def _check_type(column: pd.Series, name: str, otherwise: str = "") -> None:
    """Refuse what is neither numbers nor text, by its type."""
    where = f"Column {column.name!r} of {name}"
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(column.cat.categories, name=column.name)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in _TIMES:
        raise ValueError(f"{where} holds dates or times: make numbers of them{otherwise}.")
    if kind == "complex":
        raise ValueError(f"{where} holds complex numbers: make real ones of them{otherwise}.")
    if kind in _ORDINARY:
        return
    scalars = (str, bool, int, float, Decimal, pd.Interval, np.generic)
    odd = [value for value in column.dropna() if not isinstance(value, scalars)]
    if odd:
        raise ValueError(
            f"{where} holds values of the type {type(odd[0]).__name__}, neither numbers nor text: "
            f"make either of them{otherwise}."
        )


def check_present(column: pd.Series, name: str) -> None:
    """Raise a ValueError if a target is missing; the message says where."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"The target {column.name!r} of {name} is missing in {first(column, missing)}. (NA, "
            "NaN, None and null count as missing.) Leave such rows out."
        )


def _is_boolean(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) == "boolean"


def _parsed(column: pd.Series) -> tuple[Floats, NDArray[np.bool_]]:
    """Numbers where there are some, NaN elsewhere; and where there is text."""
    present = column.notna().to_numpy()
    values = np.full(len(column), np.nan)
    # Without gaps: pandas 3.1 fails on those of Arrow's decimals.
    values[present] = pd.to_numeric(column[present], errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    return values, np.isnan(values) & present


def _amounts(column: pd.Series, text: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a column without gaps has numbers, dates and times, in any notation."""
    other = as_text(column[text])
    noted = {cell for cell in other.unique() if _notation(cell)}
    amounts = ~text
    amounts[text] = other.isin(noted).to_numpy()
    return amounts


def _notation(text: str) -> tuple[str, str] | None:
    """What a text is, if it is a number or a time, and what to do."""
    for pattern, what, cure in _NOTATIONS:
        if pattern.fullmatch(text):
            return what, cure
    return None


def _zeros(column: pd.Series) -> NDArray[np.bool_]:
    """Where numbers are written with leading zeros."""
    if pd.api.types.is_numeric_dtype(column):
        return np.zeros(len(column), bool)
    pattern = re.compile(r"\s*[+-]?0\d")
    return np.array([isinstance(c, str) and bool(pattern.match(c)) for c in column], bool)


def _advice(column: pd.Series, text: NDArray[np.bool_]) -> str:
    """What to do about the first text among numbers, as the rest of a sentence."""
    cell = str(column.iloc[int(text.argmax())]).strip()
    notation = _notation(cell)
    if notation:
        return f", which is {notation[0]}: {notation[1]}"
    said = "" if re.search(r"\d", cell) else f" (--missing {cell!r} if that is what it says)"
    return f". Correct it, or leave empty what is missing{said}"


def first(column: pd.Series | pd.DataFrame, flags: Any) -> str:
    """Where the first flag is: a line of a file, or the row of that index."""
    label = column.index[int(np.asarray(flags).argmax())]
    kind = column.index.name if column.index.name in ("line", "row") else "row"
    return f"{kind} {label!r}" if isinstance(label, str) else f"{kind} {label}"


def _cell(column: pd.Series, flags: Any) -> str:
    value = column.iloc[int(np.asarray(flags).argmax())]
    return f"{str(value) if not isinstance(value, str) else value!r} in {first(column, flags)}"


def and_others(flags: Any) -> str:
    """How many more than the first."""
    return f" and {flags.sum() - 1} more" if flags.sum() > 1 else ""


def abridged(names: Sequence[Any], most: int = 12) -> str:
    """The first of many names."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# What is fitted.


@dataclass(frozen=True, eq=False)
class ModelFrame:
    """Features and target of a table, understood.

    Attributes
    ----------
    features : DataFrame
        Numbers, and text for categories; NaN for gaps.
    y : array of shape [n]
        Classes or numbers.
    task, target, numeric, categorical
        As in `ntk_uq.tables.TableModel`.
    name : str
        What the table is called in errors.
    """

    features: pd.DataFrame
    y: NDArray
    task: Task
    target: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    name: str


def model_frame(
    table: pd.DataFrame,
    target: str,
    task: Task,
    *,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    name: str,
) -> ModelFrame:
    """Features and target of a table, for `ntk_uq.tables.fit_table`, which says what is what."""
    check_rows(table, name)
    _check_names(table, name)
    check_columns(table, (target, *drop, *categorical), name)
    if target in drop or target in categorical:
        raise ValueError(f"{target!r} is the target: it cannot be dropped or encoded.")
    used = table.columns.drop([target, *drop])
    check_named(used, table, name)
    y = _target(table[target], task, name)
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for column in used:
        if table[column].isna().all():
            warnings.warn(
                f"Column {column!r} of {name} is empty: it is left out.", UserWarning, stacklevel=3
            )
            continue
        kinds[is_categorical(table[column], name, column in categorical)].append(column)
    numeric, encoded = tuple(kinds[False]), tuple(kinds[True])
    if not numeric + encoded:
        raise ValueError(f"{name} has no column beside the target {target!r}: features are needed.")
    features = feature_frame(table, numeric, encoded, name)
    return ModelFrame(features, y, task, target, numeric, encoded, name)


def feature_frame(
    table: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str], name: str
) -> pd.DataFrame:
    """Columns of a table as numbers and as text."""
    columns: dict[str, Any] = {c: numbers(table[c], name, missing=True) for c in numeric}
    for column in categorical:
        _check_type(table[column], name)
        columns[column] = as_text(table[column])
    return pd.DataFrame(columns, index=table.index)


def _target(column: pd.Series, task: Task, name: str) -> NDArray:
    check_present(column, name)
    if task == "regression":
        y: NDArray = numbers(column, name)
        if np.ptp(y) == 0:
            raise ValueError(f"The target {column.name!r} of {name} is {y[0]:g} in every row.")
        return y
    y = labels(column, name)
    distinct = np.unique(y)
    if len(distinct) < 2:
        raise ValueError(
            f"The target {column.name!r} of {name} holds one class only ({distinct[0]}): there is "
            "nothing to tell apart."
        )
    if len(distinct) > len(y) / 2:
        amounts = "" if y.dtype.kind == "U" else " If they are amounts, use --task regression."
        raise ValueError(
            f"The target {column.name!r} of {name} holds {len(distinct)} different values in "
            f"{len(y)} rows: too many for classes, which need two rows each on average.{amounts}"
        )
    return y

"""What columns of a table hold: numbers, classes or categories.

Nothing is guessed that changes a value: what has two readings is refused, by column and line, with
what to do.
"""

import re
import unicodedata
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.tables.cells import (
    Floats,
    advice,
    are_amounts,
    as_text,
    have_leading_zeros,
    meaning,
    parsed,
)
from ntk_uq.tables.places import and_others, example, first

__all__ = [
    "Task",
    "check_numbers",
    "check_present",
    "check_type",
    "guess_task",
    "is_boolean",
    "is_categorical",
    "labels",
    "numbers",
]

Task = Literal["classification", "regression"]

# Integers with more distinct values than this are amounts, and text with more is no category,
# unless the user says so.
_MOST_CLASSES = 20
_MOST_CATEGORIES = 50
# In fewer rows, values that are all different are no sign of anything.
_FEW_ROWS = 20
# What pandas calls columns of numbers and of text.
_ORDINARY = ("string", "integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")
_TIMES = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")


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
    check_type(column, name)
    values, text = parsed(column)
    where = f"Column {column.name!r} of {name}"
    if text.any():
        raise ValueError(
            f"{where} holds text, {example(column, text)}, where numbers belong"
            f"{advice(column, text)}, or drop the column."
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
    check_type(column, name)
    check_present(column, name)
    where = f"The target {column.name!r} of {name}"
    values, text = parsed(column)
    if is_boolean(column):
        return as_text(column).to_numpy(dtype=np.str_)
    real = ~text & (values != np.round(values))
    if text.any() and not text.all():
        amounts = len(np.unique(values[~text])) > _MOST_CLASSES
        if real.any() or (amounts and text.mean() < 0.5):
            raise ValueError(
                f"{where} holds numbers, and text in some rows: {example(column, text)}"
                f"{advice(column, text)}."
            )
        fewer = text if text.mean() < 0.5 else ~text
        warn_user(
            f"{where} holds both numbers and text ({example(column, fewer)}"
            f"{and_others(fewer)}): each is a class.",
        )
    if text.any() or have_leading_zeros(column).any():
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
    check_type(column, name)
    check_present(column, name)
    if is_boolean(column):
        return "classification", "truth values"
    text = parsed(column)[1]
    if text.any():
        if are_amounts(column, text).mean() >= 0.5:
            raise ValueError(
                f"The target {column.name!r} of {name} holds "
                f"{'' if text.all() else 'numbers, and text in some rows: '}"
                f"{example(column, text)}{advice(column, text)}, or say that its values are "
                "classes (--task classification)."
            )
        return "classification", "text"
    distinct = column.nunique()
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "classification", f"{distinct} categories"
    if have_leading_zeros(column).any():
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
    check_type(column, name, f", or {drop}")
    if chosen or is_boolean(column) or isinstance(column.dtype, pd.CategoricalDtype):
        _warn_of_spellings(as_text(column), where, "categories")
        return True
    column = column.dropna()
    text = parsed(column)[1]
    choose = f"take every value as a category (--categorical {column.name}), or {drop}"
    if not text.any():
        check_numbers(column, name)
        return False
    amounts = are_amounts(column, text)
    plain, other = ~text, as_text(column)[~amounts]
    if amounts.mean() >= 0.5 or (amounts.any() and other.nunique() == 1):
        raise ValueError(
            f"{where} holds {'numbers, and text in some rows: ' if plain.any() else ''}"
            f"{example(column, text)}{advice(column, text)}; or {choose}."
        )
    texts = as_text(column)
    if texts.nunique() > _MOST_CATEGORIES:
        raise ValueError(
            f"{where} holds {texts.nunique()} different texts, {texts.iloc[0]!r} for example: too "
            f"many for categories (at most {_MOST_CATEGORIES}). If they are some all the same, say "
            f"so (--categorical {column.name}); or {drop}."
        )
    if plain.any():
        warn_user(
            f"{where} holds text, and numbers in some rows ({example(column, plain)}"
            f"{and_others(plain)}): every value is taken as a category.",
        )
    if len(texts) >= _FEW_ROWS and texts.nunique() > len(texts) / 2:
        warn_user(
            f"{where} holds {texts.nunique()} different texts in {len(texts)} rows, "
            f"{texts.iloc[0]!r} for example: as categories they say little, and as names of the "
            f"rows nothing. If so, {drop}.",
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
    zeros = have_leading_zeros(column)
    if zeros.any():
        raise ValueError(
            f"{where} holds {example(column, zeros)}, a number with leading zeros. {codes}, "
            "otherwise write them without; or drop the column."
        )
    values = parsed(column)[0]
    large = np.flatnonzero((np.abs(values) >= 2**53) & np.isfinite(values))
    for place in large:
        written = str(column.iloc[place]).strip()
        if re.fullmatch(r"[+-]?\d+", written) and int(written) != int(values[place]):
            flags = np.arange(len(values)) == place
            raise ValueError(
                f"{where} holds {example(column, flags)}, an integer of more digits than a "
                f"number keeps (2**53). {codes}, otherwise write them as real numbers; or drop "
                "the column."
            )
    values = values[~np.isnan(values)]
    if len(values) < _FEW_ROWS or not np.array_equal(values, np.round(values)):
        return
    if values.min() >= 1900_00_00 and values.max() < 2100_00_00:
        days = pd.to_datetime(values.astype(int).astype(str), format="%Y%m%d", errors="coerce")
        if days.notna().all() and len(np.unique(values)) > 1:
            warn_user(
                f"{where} holds dates in digits, {values[0]:.0f} for example, and they are taken "
                "as numbers: make them days since a date.",
            )
            return
    if len(np.unique(values)) == len(values):
        steps = np.diff(values)
        if (steps > 0).all() or (steps < 0).all() or np.ptp(values) < 2 * len(values):
            warn_user(
                f"{where} looks like numbers of the rows ({values[0]:.0f}, {values[1]:.0f}, "
                f"{values[2]:.0f}, …), and is a feature like others: it may tell the answer, where "
                "rows were once sorted by it, and nothing about new rows. If it is none, leave it "
                "out.",
            )


def _warn_of_spellings(texts: pd.Series, where: str, kind: str) -> None:
    seen: dict[str, str] = {}
    for text in texts.dropna().unique():
        key = unicodedata.normalize("NFKC", " ".join(meaning(text).casefold().split()))
        if key in seen:
            warn_user(
                f"{where} holds {seen[key]!r} and {text!r}, which count as two {kind}: spell them "
                "alike if they are one.",
            )
            return
        seen[key] = text


def check_type(column: pd.Series, name: str, otherwise: str = "") -> None:
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


def is_boolean(column: pd.Series) -> bool:
    """Whether a column holds truth values, and gaps at most."""
    return pd.api.types.infer_dtype(column, skipna=True) == "boolean"

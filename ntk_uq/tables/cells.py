"""What cells of a table say: text, numbers, and what is neither as it stands, such as dates."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "Floats",
    "advice",
    "are_amounts",
    "as_known",
    "as_text",
    "have_leading_zeros",
    "meaning",
    "parsed",
]

Floats = NDArray[np.float64]

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
        alike.setdefault(meaning(category), []).append(category)
    spelled = {
        text: alike[meaning(text)][0]
        for text in set(column.dropna().unique()).difference(known)
        if len(alike.get(meaning(text), ())) == 1
    }
    return column.replace(spelled) if spelled else column


def meaning(text: str) -> str:
    """What a category says, however programs write it: integers as reals, and truth."""
    integer = re.fullmatch(r"([+-]?\d+)\.0*", text)
    if integer:
        return integer[1]
    return text.lower() if text.lower() in ("true", "false") else text


def parsed(column: pd.Series) -> tuple[Floats, NDArray[np.bool_]]:
    """Numbers where there are some, NaN elsewhere; and where there is text."""
    present = column.notna().to_numpy()
    values = np.full(len(column), np.nan)
    # Without gaps: pandas 3.1 fails on those of Arrow's decimals.
    values[present] = pd.to_numeric(column[present], errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    return values, np.isnan(values) & present


def are_amounts(column: pd.Series, text: NDArray[np.bool_]) -> NDArray[np.bool_]:
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


def have_leading_zeros(column: pd.Series) -> NDArray[np.bool_]:
    """Where numbers are written with leading zeros."""
    if pd.api.types.is_numeric_dtype(column):
        return np.zeros(len(column), bool)
    pattern = re.compile(r"\s*[+-]?0\d")
    return np.array([isinstance(c, str) and bool(pattern.match(c)) for c in column], bool)


def advice(column: pd.Series, text: NDArray[np.bool_]) -> str:
    """What to do about the first text among numbers, as the rest of a sentence."""
    cell = str(column.iloc[int(text.argmax())]).strip()
    notation = _notation(cell)
    if notation:
        return f", which is {notation[0]}: {notation[1]}"
    said = "" if re.search(r"\d", cell) else f" (--missing {cell!r} if that is what it says)"
    return f". Correct it, or leave empty what is missing{said}"

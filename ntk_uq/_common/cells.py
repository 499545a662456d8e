"""What features, targets and labels may hold, said by column and row, at the door.

scikit-learn refuses most of what is no number, but does not say where it is; it takes dates for
nanoseconds, and categories for their values.
"""

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from ntk_uq._common.words import shown

__all__ = ["check_labels", "check_numbers"]

_DATES = "Give what matters of them as numbers: days since the first, the month, the hour."
_DURATIONS = "Give them in a unit, as numbers: x / np.timedelta64(1, 's')."
_AS_TEXT = "If each is a class, make it text: y.astype(str)."


def check_numbers(name: str, values: Any, *, missing: bool = False) -> None:
    """Refuse features or targets of which a cell is missing, infinite or no number.

    What is sparse, ragged or no array at all is left to scikit-learn, which says so well.

    Parameters
    ----------
    name : str
        What they are: X or y.
    values : array-like of any number of axes, frame or series
        Features, or targets.
    missing : bool
        Whether cells may be missing.

    Raises
    ------
    ValueError, TypeError
        As NumPy has them, with column and row, counted from 0.
    """
    for column, part, array in _columns(values):
        kind = _kind(part, array)
        place = name if column is None else f"{name}, column {shown(column)},"
        if kind in "mM":
            what, advice = ("dates", _DATES) if kind == "M" else ("durations", _DURATIONS)
            raise ValueError(f"{place} holds {what}, {part.dtype}. {advice}")
        if hasattr(getattr(part, "dtype", None), "categories"):
            advice = f"{_encode(name)} If it is a quantity, say so: astype(float)."
            raise ValueError(f"{place} is categorical. {advice}")
        if not missing:
            _refuse_missing(name, array, column)
        if array.dtype.kind == "f":
            _refuse(name, np.isinf(array), column, "infinity", "Numbers must be finite.")
        elif array.dtype.kind in "OUS":
            _refuse_no_number(name, array, column, missing)


def check_labels(y: Any) -> Any:
    """Refuse labels of which one is missing, or no name of a class.

    Parameters
    ----------
    y : array-like
        Labels.

    Returns
    -------
    array-like
        As it came; but whole numbers and truth values of pandas' nullable types as NumPy's, where
        scikit-learn would make real numbers of them.

    Raises
    ------
    ValueError
        Says which row, counted from 0, and what to do.
    """
    # A list of text and NaN is no array of text.
    values = np.array(y, dtype=object) if isinstance(y, list | tuple) else y
    for column, part, array in _columns(values):
        if _kind(part, array) in "mM":
            raise ValueError(f"y holds dates or durations, {part.dtype}. {_AS_TEXT}")
        _refuse_missing("y", array, column)
        if array.dtype.kind == "O" and array.ndim == 1:
            _refuse_other_labels(array)
    natural = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    return y.to_numpy(natural) if getattr(natural, "kind", "O") in "iub" else y


def _columns(values: Any) -> Iterator[tuple[Any, Any, NDArray]]:
    """Name, values and their array, of each column of a frame, or of the whole without a name."""
    if values is None or issparse(values):
        return
    if hasattr(values, "iloc") and values.ndim == 2:
        parts = [(name, values.iloc[:, j]) for j, name in enumerate(values.columns)]
    else:
        parts = [(None, values)]
    for name, part in parts:
        try:
            array = np.asarray(part)
        except (TypeError, ValueError):  # ragged, or of another library
            return
        if array.ndim:
            yield name, part if hasattr(part, "dtype") else array, array


def _encode(name: str) -> str:
    if name == "y":
        return "Targets are quantities; for classes there are classifiers."
    return (
        "Encode categories as numbers, by ntk_uq.TableEncoder() or scikit-learn's OneHotEncoder in "
        "a pipeline, or fit without an architecture, which takes data frames with columns of "
        "categories (categorical_features)."
    )


def _kind(part: Any, array: NDArray) -> str:
    """NumPy's letter for what cells are; dates with a time zone are objects in an array."""
    return array.dtype.kind if array.dtype.kind != "O" else getattr(part.dtype, "kind", "O")


def _where(index: Any, column: Any) -> str:
    if column is None and len(index) > 2:
        return f"at {[int(i) for i in index]}"
    if column is None and len(index) == 2:
        column = int(index[1])
    return f"in row {index[0]}" if column is None else f"in column {shown(column)}, row {index[0]}"


def _refuse(name: str, bad: NDArray[np.bool_], column: Any, what: str, advice: str) -> None:
    if bad.any():
        first, others = np.argwhere(bad)[0], int(bad.sum()) - 1
        more = f" and {others} more" if others else ""
        raise ValueError(f"{name} contains {what} {_where(first, column)}{more}. {advice}")


def _refuse_missing(name: str, array: NDArray, column: Any) -> None:
    if array.dtype.kind == "f":
        missing = np.isnan(array)
    elif array.dtype.kind == "O":
        import pandas as pd  # half a second, which arrays of numbers need not take

        missing = np.asarray(pd.isna(array))
    else:
        return
    advice = "Leave such rows out."
    if name == "X":
        advice = (
            "Fill in what is missing, by ntk_uq.TableEncoder() or scikit-learn's SimpleImputer in "
            "a pipeline, or leave such rows out."
        )
    _refuse(name, missing, column, "NaN (a missing value)", advice)


def _refuse_no_number(name: str, array: NDArray, column: Any, missing: bool) -> None:
    for index, cell in np.ndenumerate(array.astype(object)):
        try:
            if missing and _is_missing(cell):
                continue
            float(cell)
        except (TypeError, ValueError) as error:
            advice = "Only numbers can be used."
            if isinstance(cell, str):
                advice = _encode(name)
            elif hasattr(cell, "year"):
                advice = _DATES
            raise type(error)(
                f"{name} is no number {_where(index, column)}: {error}. {advice}"
            ) from None


def _is_missing(cell: Any) -> bool:
    import pandas as pd

    return cell is None or cell is pd.NA


def _refuse_other_labels(array: NDArray) -> None:
    """Labels that are objects must all be text, or all numbers or truth values."""
    first: dict[type, int] = {}
    for row, label in enumerate(array):
        kind = next((k for k in (str, bytes, Real) if isinstance(label, k)), None)
        if kind is None:
            raise ValueError(
                f"Unknown label type: y in row {row} is {shown(label)}, of type "
                f"{type(label).__name__}. Labels are text, whole numbers or truth values. "
                f"{_AS_TEXT}"
            )
        first.setdefault(kind, row)
    if len(first) > 1:
        examples = " and ".join(f"{shown(array[row])} in row {row}" for row in first.values())
        raise ValueError(
            f"Unknown label type: y is a mix of text and numbers, {examples}. Make all of it text, "
            "y.astype(str), or see whether a cell is misspelt."
        )

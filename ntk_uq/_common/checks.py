"""What functions and estimators ask of numbers, labels and probabilities, at their doors."""

import math
import os
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.words import shown

__all__ = [
    "class_columns",
    "count",
    "floats",
    "key",
    "labelled_probabilities",
    "level_between",
    "numbers",
    "probabilities",
    "real",
    "storage",
    "tolerance",
    "uncertainty",
]

Floats = NDArray[np.float64]


def probabilities(proba: ArrayLike, *, members: bool = False) -> Floats:
    """Class probabilities [m, C] or, where `members` are allowed, [S, m, C]."""
    if hasattr(proba, "proba"):
        raise ValueError(f"proba takes an array, such as prediction.proba(); got {_name(proba)}.")
    array = np.asarray(proba, dtype=np.float64)
    shapes = "[m, C] or [S, m, C]" if members else "[m, C]"
    if array.ndim not in ((2, 3) if members else (2,)) or array.size == 0 or array.shape[-1] < 2:
        raise ValueError(
            f"proba must have shape {shapes} with m >= 1 and C >= 2, got {array.shape}."
        )
    # Float32 probabilities sum to one within about 1e-6.
    if not (np.all(array >= 0) and np.allclose(array.sum(axis=-1), 1.0, rtol=0, atol=1e-5)):
        raise ValueError(
            "Each row of proba must hold non-negative probabilities that sum to one; logits must "
            "go through softmax first."
        )
    return array


def labelled_probabilities(
    y_true: ArrayLike, proba: ArrayLike, classes: ArrayLike | None, *, members: bool = False
) -> tuple[NDArray[np.intp], Floats, NDArray]:
    """Column of each label [m], probabilities [m, C] or [S, m, C], classes [C]."""
    array = probabilities(proba, members=members)
    labels, names = class_columns(y_true, array.shape[-2:], classes)
    return labels, array, names


def class_columns(
    y_true: ArrayLike, shape: tuple[int, ...], classes: ArrayLike | None
) -> tuple[NDArray[np.intp], NDArray]:
    """Column of each label [m] of predictions of shape [m, C], and the classes [C]."""
    y = np.asarray(y_true)
    m, n_classes = shape
    if y.shape != (m,):
        raise ValueError(
            f"y_true must have shape ({m},) to match predictions of shape {shape}, got {y.shape}."
        )
    names = np.arange(n_classes) if classes is None else np.asarray(classes)
    if names.shape != (n_classes,):
        raise ValueError(
            f"classes must have shape ({n_classes},) to name the columns of proba, "
            f"got {names.shape}."
        )
    if np.any(names[1:] <= names[:-1]):
        raise ValueError("classes must be sorted and distinct, as an estimator's classes_ is.")
    try:
        # NumPy would take the string "1" for the number 1, and sort strings otherwise.
        strings = [array.dtype.kind in "US" for array in (y, names) if array.dtype.kind != "O"]
        unknown = np.setdiff1d(y, names) if len(set(strings)) < 2 else np.unique(y)
    except TypeError as error:
        raise ValueError(f"y_true holds labels that cannot be sorted: {error}.") from error
    if unknown.size:
        raise ValueError(
            f"y_true holds labels that are no class: {unknown[:5].tolist()}; "
            f"the classes are {names.tolist()}."
        )
    return np.searchsorted(names, y), names


def numbers(name: str, values: ArrayLike, *, shape: tuple[int, ...] | None = None) -> Floats:
    """A finite vector, or an array of the given shape where that is known."""
    try:
        array = floats(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}.") from error
    if shape is None and (array.ndim != 1 or array.size == 0):
        raise ValueError(f"{name} must have shape [m] with m >= 1, got {array.shape}.")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN or infinite.")
    return array


def floats(values: ArrayLike) -> Floats:
    """Numbers as float64. NumPy would make nanoseconds of dates."""
    array = np.asarray(values)
    if array.dtype.kind in "mM":
        raise TypeError(f"{array.dtype} is a date or a duration, and no number")
    return array.astype(np.float64, copy=False)


def level_between(name: str, value: float) -> float:
    """A probability strictly between 0 and 1."""
    if not (isinstance(value, Real) and 0 < value < 1):
        raise ValueError(f"{name} must lie between 0 and 1, got {shown(value)}.")
    return float(value)


def _name(value: Any) -> str:
    return type(value).__name__


def uncertainty(value: Any) -> None:
    """Whose spread is meant."""
    if value not in ("initialization", "posterior", "none"):
        raise ValueError(
            f'uncertainty must be "initialization", "posterior" or "none"; got {shown(value)}.'
        )


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be an integer, at least {least}; got {shown(value)}.")
    return int(value)


def real(name: str, value: Any, minimum: float) -> float:
    """A finite number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; got {shown(value)}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum:g}; got {shown(value)}.")
    return float(value)


def key(value: Any) -> None:
    """Refuse what is not one PRNG key of JAX, of the new kind or the old."""
    import jax  # it takes seconds, which a check of a table need not

    dtype, axes = getattr(value, "dtype", None), getattr(value, "ndim", None)
    new = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    if not ((new and axes == 0) or (dtype == np.uint32 and axes == 1)):
        raise ValueError(
            f"key must be one PRNG key, such as jax.random.key(0); got {shown(value)}."
        )


def storage(value: Any) -> None:
    """Refuse what is neither None, nor "processes", nor a directory that exists."""
    known = value is None or value == "processes"
    if not known and not (isinstance(value, str | os.PathLike) and os.path.isdir(value)):
        raise ValueError(
            f'storage must be None, "processes" or a directory that exists; got {shown(value)}.'
        )


def tolerance(value: Any) -> None:
    """Refuse what is neither None nor a share of a posterior standard deviation."""
    if value is None:
        return
    real("tol", value, minimum=0.0)
    if value == 0:
        raise ValueError("tol must be positive: no solution is known to the last bit.")
    if value >= 1:
        raise ValueError(
            "tol must be below 1: what is off by a posterior standard deviation is no solution; "
            f"got {shown(value)}."
        )

"""How much training points count: weights, and repetitions, which are the same."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.blocks import parts
from ntk_uq._common.warnings import warn_user

__all__ = ["counted", "distinct", "warn_of_small_weights"]

Floats = NDArray[np.float64]


def counted(
    X: Floats, targets: Floats, weights: Floats | None
) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
    """Points in an order of their own, equal ones as one of their weight; where each row now is.

    So a fit meets the same problem in whatever order points come, repeated or weighted: rounding
    would otherwise lead relu networks to other minima, and draws of a prior to other functions.
    """
    first, member = _equal_rows(X, targets)
    counts = np.ones(len(X)) if weights is None else weights
    return _taken(X, first), targets[first], np.bincount(member, counts), member


def distinct(
    X: Floats, targets: Floats, weights: Floats | None
) -> tuple[Floats, Floats, Floats | None, NDArray[np.intp]]:
    """The same, but points as they come, and without weights, where each counts once."""
    first, member = _equal_rows(X, targets)
    counts = np.bincount(member, weights)
    if len(counts) == len(X) and np.all(counts == 1):  # else two halves would be ones
        return X, targets, None, np.arange(len(X))
    return X[first], targets[first], counts.astype(float), member


def _equal_rows(X: Floats, targets: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first of the rows that are equal, in the order of their values, and which each row is.

    As `np.unique` has them, which takes four copies of all rows. A column is looked at only where
    those before it are equal: of real numbers that is the first.
    """
    n = len(X)
    order, begins = np.arange(n), np.arange(n) == 0  # of rows by value, and of equal ones in it
    for of, column in _columns(X.reshape(n, -1), targets):
        # Places of rows that another is equal to so far.
        tied = np.flatnonzero(~begins | ~np.append(begins[1:], True))
        if not tied.size:
            break
        values = of(column[order[tied]])
        if np.any((values[1:] != values[:-1]) & ~begins[tied[1:]]):
            groups = np.cumsum(begins)[tied]
            within = np.lexsort((values, groups))  # which is stable
            order[tied], values = order[tied][within], values[within]
            begins[tied[1:]] |= values[1:] != values[:-1]
    member = np.empty(n, np.intp)
    member[order] = np.cumsum(begins) - 1
    return order[begins], member


def _columns(
    features: Floats, targets: Floats
) -> Iterator[tuple[Callable[[NDArray], NDArray], NDArray]]:
    """What rows are compared by, column after column, and what is made of its values.

    Gaps are equal to nothing, also not to one another: whether there is one is compared too.
    """
    for of, table in ((_filled, features), (np.isnan, features), (np.positive, targets)):
        for column in table.T:
            yield of, column


def _filled(values: NDArray) -> NDArray:
    return np.where(np.isnan(values), 0.0, values)


def _taken(X: Floats, rows: NDArray[np.intp]) -> Floats:
    """Rows in double precision, in one copy."""
    taken = np.empty((len(rows), *X.shape[1:]))
    for part in parts(taken):
        taken[part] = X[rows[part]]
    return taken


def warn_of_small_weights(weights: Floats) -> None:
    """Of normalised weights: of n points they make one.

    Weights that count, balance classes or correct for sampling sum to about n. A tenth moves `reg`
    by more than the steps in which it is chosen; two points or more that count as one are
    normalised, however few they are.
    """
    n, total = len(weights), float(np.sum(weights))
    if n > 1 and total < max(n / 10, 1 + 1e-6):
        warn_user(
            f"sample_weight sums to {total:.3g} over {n} points: the data count as {total:.3g} "
            f"points, and reg is {n / total:.3g} times as strong as without weights. Weights that "
            f"were normalised (as AdaBoost's are) must be multiplied by {n / total:.3g}, or reg be "
            "divided by it."
        )

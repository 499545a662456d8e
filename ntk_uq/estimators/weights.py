"""How much training points count: weights, and repetitions, which are the same."""

import numpy as np
from numpy.typing import NDArray

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
    features = X.reshape(len(X), -1)
    gaps = np.isnan(features)
    if gaps.any():  # which are equal to nothing, also not to one another
        features = np.concatenate([np.where(gaps, 0.0, features), gaps], axis=1)
    rows = np.concatenate([features, targets], axis=1)
    _, first, member = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    counts = np.ones(len(X)) if weights is None else weights
    return X[first], targets[first], np.bincount(member.ravel(), counts), member.ravel()


def distinct(
    X: Floats, targets: Floats, weights: Floats | None
) -> tuple[Floats, Floats, Floats | None, NDArray[np.intp]]:
    """The same, but points as they come, and without weights, where each counts once."""
    points, labels, counts, member = counted(X, targets, weights)
    if np.all(counts == 1):
        return X, targets, None, np.arange(len(X))
    return points, labels, counts, member


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

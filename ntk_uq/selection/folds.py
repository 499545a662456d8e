"""Which points are held out together, and which of them can be predicted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.selection.curve import RegCurve

Floats = NDArray[np.float64]

_FOLDS = 5
# Points of which a tenth of the repeated ones have several targets are observed anew, and at most
# ten that come five times on the average.
_OF_OTHER_TARGETS, _FEW, _REPEATED = 0.1, 10, 5
# Where nothing can be held out: the prior N(theta_0, I) of a Bayesian.
_WITHOUT_FOLDS = 1.0


def _rows_and_folds(
    rng: np.random.Generator,
    X: Floats,
    y: Floats,
    most: int,
    weights: Floats | None = None,
    one_by_one: bool = True,
) -> tuple[NDArray[np.integer], list[NDArray[np.integer]], Floats | None]:
    """At most so many points, taken at random by class, and what can be predicted of five folds.

    Equal points share a fold, so that none is predicted from its own copy, unless they are
    observations of their own (`_observed_anew`): then, if `one_by_one`, each is held out by itself,
    and a point that counts w times is w of the rows.
    """
    rows: NDArray[np.integer] = np.arange(len(X))
    groups, counts = _groups(X), _counts(weights, len(X))
    if one_by_one and counts is not None and _observed_anew(groups, y, counts):
        rows = _one_by_one(rng, counts, most)
        each = None if weights is None else weights / counts  # of the rows of a point
        weights = None if each is None or np.all(each == 1) else each
        groups = np.arange(len(rows))
    labels = (np.argmax(y, axis=1) if _one_hot(y) else np.zeros(len(y), int))[rows]
    folds = _folds(rng, labels, groups, max(_FOLDS, -(-_FOLDS * len(rows) // most)))
    kept = np.sort(np.concatenate(folds))
    if len(kept) > most:  # of many equal points
        kept = np.sort(rng.choice(kept, most, replace=False))
    folds = _predictable([np.flatnonzero(np.isin(kept, fold)) for fold in folds], labels[kept])
    return rows[kept], folds, None if weights is None else weights[rows[kept]]


def _nothing_held_out(regs: Sequence[float]) -> RegCurve:
    """The curve that nothing is known of, and a warning."""
    warn_user(
        'reg="cv" predicts points from others, of their class where targets are classes, and '
        "no point has another that differs: reg=1.0, the prior of a Bayesian, is taken. Give "
        "reg, or more points.",
    )
    nothing = np.full((1, len(regs)), np.nan)
    return RegCurve(np.array(regs), nothing, nothing, ("",), "cv", _WITHOUT_FOLDS)


def _one_hot(y: Floats) -> bool:
    """Whether targets are classes."""
    return bool(y.shape[1] > 1 and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))


def _groups(X: Floats) -> NDArray[np.integer]:
    """A number for each point, the same for equal ones, counting in the order of the points."""
    _, first, group = np.unique(
        X.reshape(len(X), -1), axis=0, return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[group.ravel()]


def _counts(weights: Floats | None, n: int) -> NDArray[np.integer] | None:
    """How many rows each point is; None where that is not known.

    A factor that all weights share repeats nothing: as many readings of each point, or a table that
    stands in the file several times over.
    """
    if weights is None:
        return np.ones(n, int)
    if np.any(weights != np.round(weights)):
        return None
    counts = weights.astype(int)
    return counts // np.gcd.reduce(counts)


def _observed_anew(groups: NDArray, y: Floats, counts: NDArray) -> bool:
    """Whether equal points are observations of their own, as of a table with few possible rows.

    Copies of a record have its target: where of the points that are repeated a tenth has several,
    they are no copies. Nor are they where there are too few different ones to predict each from the
    others.
    """
    repeated = np.bincount(groups, counts) > 1
    if not repeated.any():
        return False
    pairs = np.unique(np.column_stack([groups, y]), axis=0)
    several = np.bincount(pairs[:, 0].astype(int)) > 1
    few = len(repeated) <= _FEW and _REPEATED * len(repeated) <= counts.sum()
    return bool(np.mean(several[repeated]) >= _OF_OTHER_TARGETS or few)


def _one_by_one(
    rng: np.random.Generator, counts: NDArray[np.integer], most: int
) -> NDArray[np.integer]:
    """Points as often as they count; where some count several times, at most so many, at random."""
    ends = np.cumsum(counts)
    if ends[-1] == len(counts) or ends[-1] <= most:
        places = np.arange(ends[-1])
    else:
        places = rng.choice(ends[-1], most, replace=False)
    return np.searchsorted(ends, np.sort(places), side="right")


def _folds(
    rng: np.random.Generator, labels: NDArray, groups: NDArray, k: int
) -> list[NDArray[np.integer]]:
    """First folds of k that hold as many of each label, of groups of points at random."""
    _, first = np.unique(groups, return_index=True)
    order = rng.permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    k = min(k, len(first))
    return [np.flatnonzero(np.isin(groups, order[i::k])) for i in range(min(k, _FOLDS))]


def _predictable(folds: list[NDArray], labels: NDArray) -> list[NDArray[np.integer]]:
    """What can be predicted of each fold: points whose class occurs outside it."""
    counts = np.bincount(labels)
    kept = [fold[(np.bincount(labels[fold], minlength=len(counts)) < counts)[labels[fold]]]
            for fold in folds]  # fmt: skip
    return [fold for fold in kept if len(fold)]

"""Which points are held out together, and which of them can be predicted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.selection.curve import RegCurve

Floats = NDArray[np.float64]

_FOLDS = 5
# Points of which a tenth of the repeated ones have several targets are observed anew, and such that
# come five times on the average, where hardly one stands alone.
_OF_OTHER_TARGETS, _REPEATED, _ALONE = 0.1, 5, 0.05
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
    groups = _groups(X)
    if one_by_one and _observed_anew(groups, y, weights):
        rows, weights = _one_by_one(rng, weights, len(X), most), None
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


def _observed_anew(groups: NDArray, y: Floats, weights: Floats | None) -> bool:
    """Whether equal points are observations of their own, as of a table with few possible rows.

    Copies of a record have its target: where of the points that are repeated a tenth has several,
    they are no copies. Nor are they where hardly a point stands alone, and there are few others to
    predict it from. Where points count by parts nothing is known of repetitions.
    """
    counts = np.ones(len(groups)) if weights is None else weights
    if np.any(counts != np.round(counts)):
        return False
    of_groups = np.bincount(groups, counts)
    repeated = of_groups > 1
    if not repeated.any():
        return False
    pairs = np.unique(np.column_stack([groups, y]), axis=0)
    several = np.bincount(pairs[:, 0].astype(int)) > 1
    few = len(of_groups) * _REPEATED <= counts.sum()
    alone = of_groups[~repeated].sum() <= _ALONE * counts.sum()
    return bool(np.mean(several[repeated]) >= _OF_OTHER_TARGETS or (few and alone))


def _one_by_one(
    rng: np.random.Generator, weights: Floats | None, n: int, most: int
) -> NDArray[np.integer]:
    """Points as often as they count; where some count several times, at most so many, at random."""
    if weights is None:
        return np.arange(n)
    ends = np.cumsum(weights.astype(int))
    places = np.arange(ends[-1]) if ends[-1] <= most else rng.choice(ends[-1], most, replace=False)
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

"""Which points are held out together, and which of them can be predicted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.selection.curve import RegCurve

Floats = NDArray[np.float64]

_FOLDS = 5
# Where nothing can be held out: the prior N(theta_0, I) of a Bayesian.
_WITHOUT_FOLDS = 1.0


def _rows_and_folds(
    rng: np.random.Generator, X: Floats, y: Floats, most: int
) -> tuple[NDArray[np.integer], list[NDArray[np.integer]]]:
    """At most so many points, taken at random by class, and what can be predicted of five folds."""
    labels = np.argmax(y, axis=1) if _one_hot(y) else np.zeros(len(y), int)
    folds = _folds(rng, labels, _groups(X), max(_FOLDS, -(-_FOLDS * len(X) // most)))
    rows = np.sort(np.concatenate(folds))
    if len(rows) > most:  # of many equal points
        rows = np.sort(rng.choice(rows, most, replace=False))
    return rows, _predictable([np.flatnonzero(np.isin(rows, fold)) for fold in folds], labels[rows])


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

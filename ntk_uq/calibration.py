"""Probabilities, sets and thresholds that keep what they promise, from held-out data.

Everything here takes data that the model was not fitted to. The guarantees hold when these data
and the future ones are exchangeable; they make no assumption on the model.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk_uq import _checks

__all__ = [
    "conformal_quantile",
    "conformal_threshold",
    "prediction_sets",
]

Floats = NDArray[np.float64]


def conformal_quantile(scores: ArrayLike, level: float = 0.9) -> float:
    r"""The bound that a new score keeps with probability `level`, from n held-out scores.

    It is the k-th smallest score, :math:`k = \lceil (n + 1)\,\mathrm{level} \rceil`. A new score,
    exchangeable with these, is at most this with probability at least `level`; with at most
    ``level + 1/(n + 1)`` where scores have no ties. Both hold on average over held-out sets: with
    one of them, the coverage follows a Beta(k, n + 1 - k) distribution (Vovk 2012).

    Parameters
    ----------
    scores : array of shape [n]
        Nonconformity scores of held-out points, larger where the prediction fits worse: one minus
        the probability of the true class, or :math:`|y - \mu| / \sigma` for regression.
    level : float
        Coverage wanted, between 0 and 1.

    Returns
    -------
    float
        Infinity where n is too small for the level, n < level / (1 - level): nothing short of
        everything would keep it.

    Raises
    ------
    ValueError
        If `scores` is no vector of finite numbers, or `level` is not between 0 and 1.

    References
    ----------
    Vovk, Gammerman, Shafer (2005), Algorithmic Learning in a Random World. Lei, G'Sell, Rinaldo,
    Tibshirani, Wasserman (2018), Distribution-free predictive inference for regression, theorem 2.
    Vovk (2012), Conditional validity of inductive conformal predictors.

    Examples
    --------
    >>> from ntk_uq.calibration import conformal_quantile
    >>> conformal_quantile([0.3, 0.1, 0.2, 0.5, 0.4, 0.7, 0.6, 0.9, 0.8], level=0.8)
    0.8
    >>> conformal_quantile([0.3, 0.1, 0.2], level=0.9)
    inf
    """
    values = _checks.numbers("scores", scores)
    level = _checks.level_between("level", level)
    rank = _conformal_rank(len(values), level)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf


def conformal_threshold(
    y_true: ArrayLike,
    proba: ArrayLike,
    level: float = 0.9,
    *,
    classes: ArrayLike | None = None,
) -> float:
    """The probability from which on a class belongs to a point's prediction set.

    Split conformal prediction with the score ``1 - proba[true class]`` (LAC: of all sets with this
    coverage, the smallest on average if `proba` is right). `prediction_sets` at this threshold
    hold the label of a new point with probability at least `level`.

    Parameters
    ----------
    y_true : array of shape [n]
        Labels of held-out points.
    proba : array of shape [n, C]
        Their class probabilities, by a model that has not seen them.
    level : float
        Coverage wanted, between 0 and 1.
    classes : array of shape [C], optional
        The label of each column of `proba`, sorted as an estimator's ``classes_``. Default: 0 to
        C - 1.

    Returns
    -------
    float
        A probability. Zero, which puts every class into every set, where n is too small for the
        level, n < level / (1 - level).

    Raises
    ------
    ValueError
        If shapes do not fit, rows of `proba` are no probabilities, a label is no class, or `level`
        is not between 0 and 1.

    References
    ----------
    Sadinle, Lei, Wasserman (2019), Least ambiguous set-valued classifiers with bounded error
    levels. MAPIE has other scores (APS, RAPS), and works with this package's estimators.

    Examples
    --------
    >>> from ntk_uq.calibration import conformal_threshold, prediction_sets
    >>> held_out = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
    >>> threshold = conformal_threshold([0, 1, 0, 1], held_out, level=0.8)
    >>> threshold
    0.4
    >>> prediction_sets([[0.95, 0.05], [0.5, 0.5]], threshold)
    array([[ True, False],
           [ True,  True]])
    """
    labels, proba, _ = _checks.labelled_probabilities(y_true, proba, classes)
    # The quantile of 1 - p, without its rounding: a held-out label at the threshold is in its set.
    quantile = conformal_quantile(-proba[np.arange(len(labels)), labels], level)
    return -quantile if math.isfinite(quantile) else 0.0


def prediction_sets(proba: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """The classes whose probability reaches the threshold.

    Parameters
    ----------
    proba : array of shape [m, C]
        Class probabilities.
    threshold : float
        From `conformal_threshold`.

    Returns
    -------
    array of bool, of shape [m, C]
        True for the classes in each point's set. A set may be empty: no label would be as usual
        for this point as the held-out ones were for theirs. A set with several classes says that
        the model cannot tell them apart at this level.

    Raises
    ------
    ValueError
        If rows of `proba` are no probabilities, or the threshold is not in [0, 1].

    Examples
    --------
    >>> from ntk_uq.calibration import prediction_sets
    >>> prediction_sets([[0.6, 0.3, 0.1]], threshold=0.25)
    array([[ True,  True, False]])
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a probability, between 0 and 1; got {threshold}.")
    return _checks.probabilities(proba) >= threshold


def _conformal_rank(n: int, level: float) -> int:
    """Smallest k with k / (n + 1) >= level, where the product is an integer but for rounding."""
    return math.ceil((n + 1) * level * (1 - 1e-12))

"""How good, and how well calibrated, predicted class probabilities are.

Accuracy, log loss and Brier score are scikit-learn's; the expected calibration error, the
reliability curve and the total variation between two predictions are added here. Everything takes
arrays and knows nothing of estimators.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

__all__ = [
    "ReliabilityCurve",
    "expected_calibration_error",
    "pointwise_losses",
    "reliability_curve",
    "scores",
    "total_variation",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Confidence against accuracy, in bins of equal width.

    Attributes
    ----------
    edges : array of shape [n_bins + 1]
        Bins are the intervals (edges[b], edges[b + 1]]; the first holds its left edge too.
    count : array of shape [n_bins]
        Points in each bin.
    confidence, accuracy : array of shape [n_bins]
        Mean probability of the predicted class, and the fraction of these predictions that are
        right. NaN where a bin is empty.
    lower, upper : array of shape [n_bins]
        Wilson interval of the accuracy, from the binomial noise of the bin's count; NaN where a bin
        is empty.
    """

    edges: Floats
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    lower: Floats
    upper: Floats


def scores(
    y_true: ArrayLike, proba: ArrayLike, *, classes: ArrayLike | None = None, n_bins: int = 15
) -> dict[str, float]:
    """Accuracy, log loss, Brier score and expected calibration error.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`, sorted as an estimator's ``classes_``. Default: 0 to
        C - 1.
    n_bins : int
        Bins of the calibration error.

    Returns
    -------
    dict
        ``accuracy``; ``log_loss`` in nats; ``brier``, between 0 and 2, or 0 and 1 for two classes
        as is customary; ``ece``.

    Raises
    ------
    ValueError
        If shapes do not fit, rows of `proba` are no probabilities, or a label is no class.

    Examples
    --------
    >>> from ntk_uq.metrics import scores
    >>> {name: round(value, 3) for name, value in scores([0, 1], [[0.8, 0.2], [0.4, 0.6]]).items()}
    {'accuracy': 1.0, 'log_loss': 0.367, 'brier': 0.1, 'ece': 0.3}
    """
    labels, proba, classes = _validated(y_true, proba, classes)
    y_true = classes[labels]
    return {
        "accuracy": float(accuracy_score(y_true, classes[proba.argmax(axis=1)])),
        "log_loss": float(log_loss(y_true, proba, labels=classes)),
        "brier": float(brier_score_loss(y_true, proba, labels=classes)),
        "ece": expected_calibration_error(y_true, proba, classes=classes, n_bins=n_bins),
    }


def pointwise_losses(
    y_true: ArrayLike, proba: ArrayLike, *, classes: ArrayLike | None = None
) -> dict[str, Floats]:
    """Loss of each point, for paired comparisons of two methods on the same points.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.

    Returns
    -------
    dict of arrays of shape [m]
        ``accuracy`` (one where the prediction is right), ``log_loss`` in nats and ``brier``; their
        means are those of `scores`.

    Examples
    --------
    >>> from ntk_uq.metrics import pointwise_losses
    >>> pointwise_losses([0, 1], [[0.8, 0.2], [0.4, 0.6]])["log_loss"].round(3)
    array([0.223, 0.511])
    """
    labels, proba, _ = _validated(y_true, proba, classes)
    m, n_classes = proba.shape
    truth = np.eye(n_classes)[labels]
    # scikit-learn's conventions: certainty is clipped to the float's precision, and two classes
    # count half.
    p_true = np.clip(proba[np.arange(m), labels], np.finfo(np.float64).eps, 1.0)
    half = 0.5 if n_classes == 2 else 1.0
    return {
        "accuracy": (proba.argmax(axis=1) == labels).astype(np.float64),
        "log_loss": -np.log(p_true),
        "brier": half * ((proba - truth) ** 2).sum(axis=1),
    }


def reliability_curve(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    level: float = 0.95,
) -> ReliabilityCurve:
    """Accuracy of the predicted class against the probability it was given.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.
    n_bins : int
        Bins of equal width between 0 and 1.
    level : float
        Coverage of the intervals.

    Returns
    -------
    ReliabilityCurve

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks. The interval is
    Wilson's: Brown, Cai, DasGupta (2001), Interval estimation for a binomial proportion, eq. 4.

    Examples
    --------
    >>> from ntk_uq.metrics import reliability_curve
    >>> curve = reliability_curve([0, 1, 1], [[0.9, 0.1], [0.3, 0.7], [0.7, 0.3]], n_bins=2)
    >>> curve.count, curve.accuracy.round(2), curve.confidence.round(2)
    (array([0, 3]), array([ nan, 0.67]), array([ nan, 0.77]))
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    labels, proba, _ = _validated(y_true, proba, classes)
    confidence = proba.max(axis=1)
    right = (proba.argmax(axis=1) == labels).astype(np.float64)

    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_confidence = np.bincount(bins, weights=confidence, minlength=n_bins) / count
        accuracy = np.bincount(bins, weights=right, minlength=n_bins) / count
        lower, upper = _wilson_interval(accuracy, count, level)
    return ReliabilityCurve(edges, count, mean_confidence, accuracy, lower, upper)


def expected_calibration_error(
    y_true: ArrayLike, proba: ArrayLike, *, classes: ArrayLike | None = None, n_bins: int = 15
) -> float:
    r"""Mean gap between the confidence and the accuracy of the predicted class.

    .. math:: \mathrm{ECE} = \sum_b \frac{m_b}{m} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    over `n_bins` bins of equal width in the probability of the predicted class. The noise of each
    bin's accuracy adds to it, so a perfectly calibrated prediction has a small positive value.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.
    n_bins : int
        Bins of equal width between 0 and 1.

    Returns
    -------
    float
        Between 0 and 1.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks, eq. 5.

    Examples
    --------
    >>> from ntk_uq.metrics import expected_calibration_error
    >>> round(expected_calibration_error([0, 1], [[0.8, 0.2], [0.4, 0.6]]), 3)
    0.3
    """
    curve = reliability_curve(y_true, proba, classes=classes, n_bins=n_bins)
    filled = curve.count > 0
    gap = np.abs(curve.accuracy - curve.confidence)[filled]
    return float(np.average(gap, weights=curve.count[filled]))


def total_variation(p: ArrayLike, q: ArrayLike) -> Floats:
    r"""Total variation :math:`\tfrac12 \sum_c |p_c - q_c|` between class probabilities.

    The largest difference in probability that the two give to any set of classes.

    Parameters
    ----------
    p, q : array of shape [..., C]
        Class probabilities, of the same shape.

    Returns
    -------
    array of shape [...]
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from ntk_uq.metrics import total_variation
    >>> total_variation([[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.6, 0.4]])
    array([0. , 0.4])
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"p and q must have the same shape, got {p.shape} and {q.shape}.")
    return 0.5 * np.abs(p - q).sum(axis=-1)


def _wilson_interval(
    fraction: Floats, count: NDArray[np.int64], level: float
) -> tuple[Floats, Floats]:
    z = ndtri(0.5 + level / 2)
    centre = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(fraction * (1 - fraction) / count + (z / (2 * count)) ** 2)
    half /= 1 + z**2 / count
    # It holds the fraction and lies in [0, 1], rounding included.
    return np.clip(centre - half, 0.0, fraction), np.clip(centre + half, fraction, 1.0)


def _validated(
    y_true: ArrayLike, proba: ArrayLike, classes: ArrayLike | None
) -> tuple[NDArray[np.intp], Floats, NDArray]:
    """Column of each label [m], probabilities [m, C], classes [C]."""
    y, proba = np.asarray(y_true), np.asarray(proba, dtype=np.float64)
    if proba.ndim != 2 or proba.shape[0] == 0 or proba.shape[1] < 2:
        raise ValueError(f"proba must have shape [m, C] with m >= 1 and C >= 2, got {proba.shape}.")
    # Float32 probabilities sum to one within about 1e-6.
    if not (np.all(proba >= 0) and np.allclose(proba.sum(axis=1), 1.0, rtol=0, atol=1e-5)):
        raise ValueError(
            "Each row of proba must hold non-negative probabilities that sum to one; logits must "
            "go through softmax first."
        )
    if y.shape != proba.shape[:1]:
        raise ValueError(
            f"y_true must have shape ({len(proba)},) to match proba of shape {proba.shape}, "
            f"got {y.shape}."
        )
    classes = np.arange(proba.shape[1]) if classes is None else np.asarray(classes)
    if classes.shape != proba.shape[1:]:
        raise ValueError(
            f"classes must have shape ({proba.shape[1]},) to name the columns of proba, "
            f"got {classes.shape}."
        )
    if np.any(classes[1:] <= classes[:-1]):
        raise ValueError("classes must be sorted and distinct, as an estimator's classes_ is.")
    unknown = np.setdiff1d(y, classes)
    if unknown.size:
        raise ValueError(
            f"y_true holds labels that are no class: {unknown[:5].tolist()}; "
            f"the classes are {classes.tolist()}."
        )
    return np.searchsorted(classes, y), proba, classes

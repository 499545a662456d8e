"""How good, and how well calibrated, predictions are.

Accuracy, log loss and Brier score are scikit-learn's, and so are the curves of detection; what it
lacks is added here: calibration errors, the Brier score's decomposition, curves of rejection,
total variation; for regression the continuous ranked probability score, the interval score, PIT and
coverage. Everything takes arrays and knows nothing of estimators. A score over points is a number,
or an array [S] where `proba` holds S members, [S, m, C].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import erf, ndtr, ndtri
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ntk_uq._common import checks
from ntk_uq._common.checks import labelled_probabilities, level_between, numbers
from ntk_uq._common.words import in_a_line

__all__ = [
    "BrierDecomposition",
    "CalibrationCheck",
    "CoverageCurve",
    "Detection",
    "Interval",
    "RejectionCurve",
    "ReliabilityCurve",
    "bootstrap_interval",
    "brier_decomposition",
    "calibration_check",
    "coverage_curve",
    "crps_gaussian",
    "crps_samples",
    "detect_errors",
    "detect_outliers",
    "expected_calibration_error",
    "interval_score",
    "pit_gaussian",
    "pit_samples",
    "pointwise_losses",
    "regression_scores",
    "rejection_curve",
    "reliability_curve",
    "scores",
    "total_variation",
]

Floats = NDArray[np.float64]
Binning = Literal["width", "mass"]
Verdict = Literal["calibrated", "too cautious", "too confident", "uneven", "too few points"]

# Calibrated forecasts that are simulated for a check, and points of them at a time.
_N_SIMULATED, _POINTS_SIMULATED = 2000, 4096
# A calibrated forecast is taken for another in about one case of a hundred, by either test.
_CHECK_LEVEL = 0.01
# Where the accuracy is known less well than this, the points are too few for a verdict.
_WIDEST_MARGIN = 0.05


@in_a_line
@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Confidence against accuracy, in bins.

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

    Examples
    --------
    >>> from ntk_uq.metrics import reliability_curve
    >>> curve = reliability_curve([0, 0, 0, 1], [[0.75, 0.25]] * 4, n_bins=1)
    >>> curve.accuracy, curve.confidence
    (array([0.75]), array([0.75]))
    """

    edges: Floats
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    lower: Floats
    upper: Floats


class Interval(NamedTuple):
    """An estimate between two bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.metrics import bootstrap_interval
    >>> interval = bootstrap_interval(np.mean, np.arange(100.0), rng=0)
    >>> interval.lower < interval.estimate < interval.upper
    True
    """

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class CalibrationCheck:
    """What a forecast's calibration is, and what that of a calibrated one would seem to be.

    A calibrated forecast of the same confidences is right at each point with the probability that
    it gives: its figures here are those of simulations.

    Attributes
    ----------
    n_points : int
        Test points m.
    confidence, accuracy : float
        Mean probability of the predicted class, and the fraction of predictions that are right.
    accuracy_lower, accuracy_upper : float
        Wilson's 99% interval of the accuracy.
    ece, ece_se : float
        Expected calibration error, and its standard error from the scatter of the points.
    ece_by_chance, ece_limit : float
        The calibration error of a calibrated forecast: on average, and in 99 of 100 cases at most.
    p_gap, p_ece : float
        Share of calibrated forecasts whose accuracy is as far from the confidence as this one's,
        on either side, and whose calibration error is as large.

    Examples
    --------
    >>> from ntk_uq.metrics import calibration_check
    >>> check = calibration_check([0] * 90 + [1] * 110, [[0.9, 0.1]] * 200)
    >>> check.verdict, round(check.ece, 2)
    ('too confident', 0.45)
    """

    n_points: int
    confidence: float
    accuracy: float
    accuracy_lower: float
    accuracy_upper: float
    ece: float
    ece_se: float
    ece_by_chance: float
    ece_limit: float
    p_gap: float
    p_ece: float

    @property
    def verdict(self) -> Verdict:
        """Whether the probabilities are right, as far as these points can tell.

        "too cautious" or "too confident" where accuracy and mean confidence differ by more than
        chance explains; "uneven" where they do not, but the calibration error is beyond chance;
        "too few points" where neither is and the interval of the accuracy is wider than 0.05 to
        either side; else "calibrated".
        """
        if self.p_gap < _CHECK_LEVEL:
            return "too cautious" if self.accuracy > self.confidence else "too confident"
        if self.p_ece < _CHECK_LEVEL:
            return "uneven"
        margin = (self.accuracy_upper - self.accuracy_lower) / 2
        return "too few points" if margin > _WIDEST_MARGIN else "calibrated"


class BrierDecomposition(NamedTuple):
    """The Brier score in parts: see `brier_decomposition`.

    Attributes
    ----------
    reliability : float
        What miscalibration adds. Zero for a calibrated prediction.
    resolution : float
        What telling the bins apart takes off.
    uncertainty : float
        The Brier score of the class frequencies, whatever the prediction.
    within_bin_variance, within_bin_covariance : float
        What binning hides: the forecasts' variance within a bin, and twice their covariance with
        the outcomes.

    Examples
    --------
    >>> from ntk_uq.metrics import brier_decomposition
    >>> parts = brier_decomposition([0, 1], [[0.5, 0.5], [0.5, 0.5]])
    >>> parts.reliability, parts.uncertainty  # calibrated, and of no use
    (0.0, 0.25)
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin_variance: float
    within_bin_covariance: float

    @property
    def brier(self) -> float:
        """The Brier score: the sum of the parts, with their signs."""
        return (
            self.reliability
            - self.resolution
            + self.uncertainty
            + self.within_bin_variance
            - self.within_bin_covariance
        )


@in_a_line
@dataclass(frozen=True, eq=False)
class RejectionCurve:
    """Error among the points that are kept when the least certain are rejected.

    Attributes
    ----------
    coverage : array of shape [m]
        Fraction of the points kept: 1/m, 2/m, ..., 1.
    error : array of shape [m]
        Fraction of these whose predicted class is wrong. Among points with equal uncertainty, the
        mean over the orders in which they may be kept.
    best_error : array of shape [m]
        The same if the wrong ones were rejected first.

    Examples
    --------
    >>> from ntk_uq.metrics import rejection_curve
    >>> curve = rejection_curve([0, 1], [[0.9, 0.1], [0.6, 0.4]])
    >>> curve.coverage, curve.error  # the less certain point is the wrong one
    (array([0.5, 1. ]), array([0. , 0.5]))
    """

    coverage: Floats
    error: Floats
    best_error: Floats

    @property
    def accuracy(self) -> Floats:
        """One minus the error: [m]."""
        return 1.0 - self.error

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: the mean error over all coverages."""
        return float(self.error.mean())

    @property
    def excess_aurc(self) -> float:
        """What the area exceeds that of the best order by: 0 if the wrong come last."""
        return float((self.error - self.best_error).mean())


@dataclass(frozen=True, eq=False)
class Detection:
    """How well a score tells positive points (wrong, or out of distribution) from the others.

    Attributes
    ----------
    auroc : float
        Area under the receiver operating characteristic: the probability that a positive point has
        the higher score (ties count half). 0.5 for a score that knows nothing.
    aupr : float
        Average precision; the prevalence for a score that knows nothing.
    fpr95 : float
        Fraction of the others that are taken for positive at the highest threshold which finds at
        least 95% of the positive.
    prevalence : float
        Fraction of points that are positive.
    fpr, tpr : array of shape [k]
        The receiver operating characteristic, from (0, 0) to (1, 1).
    precision, recall : array of shape [l]
        The precision-recall curve, from full recall to none.

    Examples
    --------
    >>> from ntk_uq.metrics import detect_outliers
    >>> detect_outliers(inside=[0.1, 0.2], outside=[0.8, 0.9]).auroc
    1.0
    """

    auroc: float
    aupr: float
    fpr95: float
    prevalence: float
    fpr: Floats
    tpr: Floats
    precision: Floats
    recall: Floats


@in_a_line
@dataclass(frozen=True, eq=False)
class CoverageCurve:
    """How often central predictive intervals hold the target, against how often they say.

    Attributes
    ----------
    level : array of shape [k]
        Nominal coverage.
    coverage : array of shape [k]
        Fraction of targets in the central interval of this level.
    lower, upper : array of shape [k]
        Wilson interval of that fraction.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.metrics import coverage_curve
    >>> curve = coverage_curve(np.linspace(0.005, 0.995, 100), n_levels=3)  # a uniform PIT
    >>> bool(np.allclose(curve.coverage, curve.level, atol=0.02))
    True
    """

    level: Floats
    coverage: Floats
    lower: Floats
    upper: Floats

    @property
    def error(self) -> float:
        """Mean distance between nominal and actual coverage."""
        return float(np.abs(self.coverage - self.level).mean())


def scores(
    y_true: ArrayLike, proba: ArrayLike, *, classes: ArrayLike | None = None, n_bins: int = 15
) -> dict[str, Any]:
    """Accuracy, log loss, Brier score and expected calibration error.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C] or [S, m, C]
        Class probabilities; rows sum to one. With S members, each is scored.
    classes : array of shape [C], optional
        The label of each column of `proba`, sorted as an estimator's ``classes_``. Default: 0 to
        C - 1.
    n_bins : int
        Bins of the calibration error.

    Returns
    -------
    dict of float, or of arrays of shape [S]
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
    labels, proba, classes = labelled_probabilities(y_true, proba, classes, members=True)
    y_true = classes[labels]
    functions: dict[str, Callable[[Floats], float]] = {
        "accuracy": lambda p: accuracy_score(y_true, classes[p.argmax(axis=1)]),
        "log_loss": lambda p: log_loss(y_true, p, labels=classes),
        "brier": lambda p: brier_score_loss(y_true, p, labels=classes),
        "ece": lambda p: expected_calibration_error(y_true, p, classes=classes, n_bins=n_bins),
    }
    return {name: _each_member(function, proba) for name, function in functions.items()}


def pointwise_losses(
    y_true: ArrayLike, proba: ArrayLike, *, classes: ArrayLike | None = None
) -> dict[str, Floats]:
    """Loss of each point, for paired comparisons of two methods on the same points.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C] or [S, m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.

    Returns
    -------
    dict of arrays of shape [m] or [S, m]
        ``accuracy`` (one where the prediction is right), ``log_loss`` in nats and ``brier``; their
        means are those of `scores`.

    Examples
    --------
    >>> from ntk_uq.metrics import pointwise_losses
    >>> pointwise_losses([0, 1], [[0.8, 0.2], [0.4, 0.6]])["log_loss"].round(3)
    array([0.223, 0.511])
    """
    labels, proba, _ = labelled_probabilities(y_true, proba, classes, members=True)
    m, n_classes = proba.shape[-2:]
    truth = np.eye(n_classes)[labels]
    # scikit-learn's conventions: certainty is clipped to the float's precision, and two classes
    # count half.
    p_true = np.clip(proba[..., np.arange(m), labels], np.finfo(np.float64).eps, 1.0)
    return {
        "accuracy": (proba.argmax(axis=-1) == labels).astype(np.float64),
        "log_loss": -np.log(p_true),
        "brier": _brier_scale(n_classes) * ((proba - truth) ** 2).sum(axis=-1),
    }


def brier_decomposition(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int | None = 15,
) -> BrierDecomposition:
    r"""The Brier score as reliability, resolution and uncertainty.

    For each class, forecasts p of the event "it is this class", o = 1 or 0, go into bins, with
    means :math:`\bar p_b, \bar o_b` in bin b and :math:`\bar o` over all:

    .. math:: \mathrm{Brier} = \underbrace{\sum_b w_b (\bar p_b - \bar o_b)^2}_{\text{reliability}}
        - \underbrace{\sum_b w_b (\bar o_b - \bar o)^2}_{\text{resolution}}
        + \underbrace{\bar o (1 - \bar o)}_{\text{uncertainty}}
        + \mathrm{E}[(p - \bar p_b)^2] - 2\,\mathrm{E}[(p - \bar p_b)(o - \bar o_b)],

    summed over classes. The last two terms are what happens within bins, so that the sum is exact.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.
    n_bins : int or None
        Bins of equal width between 0 and 1; None gives each forecast that occurs its own bin, and
        the terms within bins are zero (Murphy's decomposition).

    Returns
    -------
    BrierDecomposition
        Its ``brier`` is that of `scores`, between 0 and 2, or 0 and 1 for two classes.

    References
    ----------
    Murphy (1973), A new vector partition of the probability score. Stephenson, Coelho, Jolliffe
    (2008), Two extra components in the Brier score decomposition.

    Examples
    --------
    >>> from ntk_uq.metrics import brier_decomposition
    >>> parts = brier_decomposition([0, 1, 1], [[0.8, 0.2], [0.8, 0.2], [0.1, 0.9]], n_bins=10)
    >>> round(parts.reliability, 3), round(parts.resolution, 3), round(parts.uncertainty, 3)
    (0.063, 0.056, 0.222)
    >>> round(parts.brier, 3)
    0.23
    """
    labels, proba, _ = labelled_probabilities(y_true, proba, classes)
    if n_bins is not None:
        checks.count("n_bins", n_bins)
    n_classes = proba.shape[1]
    parts = np.zeros(5)
    for c in range(n_classes):
        p, o = proba[:, c], (labels == c).astype(np.float64)
        if n_bins is None:
            bins = np.unique(p, return_inverse=True)[1]
        else:
            bins = _bins(p, np.linspace(0.0, 1.0, n_bins + 1))
        count = np.maximum(np.bincount(bins), 1)
        mean_p = (np.bincount(bins, weights=p) / count)[bins]
        mean_o = (np.bincount(bins, weights=o) / count)[bins]
        base = o.mean()
        parts += [
            np.mean((mean_p - mean_o) ** 2),
            np.mean((mean_o - base) ** 2),
            base * (1 - base),
            np.mean((p - mean_p) ** 2),
            2 * np.mean((p - mean_p) * (o - mean_o)),
        ]
    return BrierDecomposition(*map(float, _brier_scale(n_classes) * parts))


def reliability_curve(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    binning: Binning = "width",
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
        Number of bins.
    binning : {"width", "mass"}
        Bins of equal width between 0 and 1, or with equal numbers of points (but for equal
        confidences, which share a bin).
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
    level = level_between("level", level)
    labels, proba, _ = labelled_probabilities(y_true, proba, classes)
    confidence = proba.max(axis=1)
    right = (proba.argmax(axis=1) == labels).astype(np.float64)
    edges = _edges(confidence, n_bins, binning)
    count, mean_confidence, accuracy = _bin_means(confidence, right, edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        lower, upper = _wilson_interval(accuracy, count, level)
    return ReliabilityCurve(edges, count, mean_confidence, accuracy, lower, upper)


def expected_calibration_error(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    binning: Binning = "width",
    per_class: bool = False,
    norm: Literal[1, 2] = 1,
    debiased: bool = False,
) -> Any:
    r"""Mean gap between confidence and accuracy.

    .. math:: \mathrm{ECE} = \sum_b \frac{m_b}{m} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    over bins in the probability of the predicted class. The noise of each bin's accuracy adds to
    it, so a calibrated prediction has a positive value, the larger the fewer points a bin has:
    `debiased` takes that off.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C] or [S, m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.
    n_bins : int
        Number of bins.
    binning : {"width", "mass"}
        Bins of equal width between 0 and 1, or with equal numbers of points.
    per_class : bool
        False looks at the predicted class; True at the probability of every class against how often
        it occurs, and takes the mean over classes, of squares with `norm` 2.
    norm : {1, 2}
        Mean absolute gap, or root mean square gap.
    debiased : bool
        Take off what noise adds. With `norm` 2, :math:`o_b (1 - o_b) / (m_b - 1)` from each squared
        gap, :math:`o_b` being the bin's accuracy: its unbiased estimate, for bins set beforehand
        (bins of one point have none and are left out; a negative sum counts as zero). With `norm`
        1, the bias of each gap under Gaussian noise of variance :math:`o_b (1 - o_b) / m_b`, taken
        at the gap seen: where the true gap is much smaller than the noise, :math:`2 - \sqrt2`,
        about six tenths, of the bias stays. So prefer `norm` 2 where calibration is nearly right.

    Returns
    -------
    float, or array of shape [S]
        At most 1; not negative unless `debiased` with `norm` 1.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks, eq. 5. Kumar,
    Liang, Ma (2019), Verified uncertainty calibration, section 5: the debiased estimators.
    Kull et al. (2019), Beyond temperature scaling: the error per class. Roelofs, Cain, Shlens,
    Mozer (2022), Mitigating bias in calibration error estimation: equal mass has less bias.

    Examples
    --------
    >>> from ntk_uq.metrics import expected_calibration_error
    >>> round(expected_calibration_error([0, 1], [[0.8, 0.2], [0.4, 0.6]]), 3)
    0.3
    """
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}.")
    labels, proba, _ = labelled_probabilities(y_true, proba, classes, members=True)

    def error(p: Floats) -> float:
        if per_class:
            events = np.eye(p.shape[1])[labels]
            pairs = [(p[:, c], events[:, c]) for c in range(p.shape[1])]
        else:
            pairs = [(p.max(axis=1), (p.argmax(axis=1) == labels).astype(np.float64))]
        gaps = [
            _mean_gap(
                *_bin_means(forecast, event, _edges(forecast, n_bins, binning)), norm, debiased
            )
            for forecast, event in pairs
        ]
        # Squares of all classes are summed before the root is taken, and what noise adds with them:
        # class by class, those below zero would count as zero, and the mean be too large.
        mean = float(np.mean(gaps))
        return math.sqrt(max(mean, 0.0)) if norm == 2 else mean

    return _each_member(error, proba)


def calibration_check(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
) -> CalibrationCheck:
    r"""Whether the confidences of a forecast are right, or wrong by more than chance explains.

    With confidence :math:`c_i` and :math:`a_i` one where the prediction is right, the calibration
    error over bins of equal width is the mean of :math:`s_i (a_i - c_i)`, where :math:`s_i` is the
    sign of the gap of the point's bin: its standard error is that of a mean. A calibrated forecast
    has :math:`a_i \sim \mathrm{Bernoulli}(c_i)`, which 2000 simulations from a fixed seed follow;
    they are right for few points and for confidences near one, where normal laws are not.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.
    n_bins : int
        Bins of the calibration error.

    Returns
    -------
    CalibrationCheck

    Raises
    ------
    ValueError
        If shapes do not fit, rows of `proba` are no probabilities, or a label is no class.

    References
    ----------
    Bröcker, Smith (2007), Increasing the reliability of reliability diagrams: consistency
    resampling.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.metrics import calibration_check
    >>> proba = np.repeat([[0.8, 0.2], [0.4, 0.6]], 500, axis=0)
    >>> y = np.repeat([0, 1, 0, 1], [398, 102, 203, 297])
    >>> calibration_check(y, proba).verdict
    'calibrated'
    """
    labels, proba, _ = labelled_probabilities(y_true, proba, classes)
    confidence = proba.max(axis=1)
    right = (proba.argmax(axis=1) == labels).astype(np.float64)
    bins = _bins(confidence, _edges(confidence, n_bins, "width"))
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    simulated = _simulated_gaps(confidence, bins, n_bins)

    m, accuracy = len(right), float(right.mean())
    ece = float(np.abs(gaps).sum() / m)
    errors = np.abs(simulated).sum(axis=1) / m
    shifts, shift = simulated.sum(axis=1) / m, float(gaps.sum() / m)
    # Sums of the same numbers in another order differ by rounding, and ties count.
    tie = 1e-9
    tails = np.mean(shifts >= shift - tie), np.mean(shifts <= shift + tie)
    signed = np.sign(gaps)[bins] * (right - confidence)
    lower, upper = _wilson_interval(np.array([accuracy]), np.array([m]), 1 - _CHECK_LEVEL)
    return CalibrationCheck(
        n_points=m,
        confidence=float(confidence.mean()),
        accuracy=accuracy,
        accuracy_lower=float(lower[0]),
        accuracy_upper=float(upper[0]),
        ece=ece,
        ece_se=float(signed.std(ddof=1) / np.sqrt(m)) if m > 1 else np.nan,
        ece_by_chance=float(errors.mean()),
        ece_limit=float(np.quantile(errors, 1 - _CHECK_LEVEL)),
        p_gap=float(min(2 * min(tails), 1.0)),
        p_ece=float(np.mean(errors >= ece - tie)),
    )


def _simulated_gaps(confidence: Floats, bins: NDArray[np.intp], n_bins: int) -> Floats:
    """Right predictions less those expected, by bin, of calibrated forecasts: [R, n_bins]."""
    rng = np.random.default_rng(0)
    gaps = np.zeros((_N_SIMULATED, n_bins))
    for start in range(0, len(confidence), _POINTS_SIMULATED):
        c = confidence[start : start + _POINTS_SIMULATED]
        right = rng.random((_N_SIMULATED, len(c)), dtype=np.float32) < c
        gaps += (right - c) @ np.eye(n_bins)[bins[start : start + _POINTS_SIMULATED]]
    return gaps


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: ArrayLike,
    level: float = 0.95,
    n_resamples: int = 1000,
    method: Literal["percentile", "basic", "BCa"] = "percentile",
    rng: np.random.Generator | int | None = None,
) -> Interval:
    """A metric with its bootstrap interval: points are resampled, with replacement.

    Parameters
    ----------
    metric : callable
        ``metric(*arrays)`` returns a number; any of this module or of scikit-learn.
    *arrays : arrays of shape [m, ...]
        Labels, probabilities, uncertainties: whatever the metric takes, one row a point.
    level : float
        Coverage of the interval.
    n_resamples : int
        Number of resamples.
    method : {"percentile", "basic", "BCa"}
        SciPy's methods. The expected calibration error is biased by noise, and each resample adds
        the bias again: only with ``norm=2, debiased=True`` did its 95% percentile interval hold
        the truth in about that share of simulations (0.90 to 0.97; 300 points, 3 classes), where
        that of the plain error held it in none for a calibrated prediction.
    rng : numpy Generator or int, optional
        Random numbers.

    Returns
    -------
    Interval
        ``estimate``, ``lower``, ``upper``.

    Raises
    ------
    ValueError
        If the arrays have different numbers of rows.

    References
    ----------
    Efron, Tibshirani (1993), An Introduction to the Bootstrap.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.metrics import bootstrap_interval
    >>> right = np.repeat([0.0, 1.0], [20, 80])
    >>> interval = bootstrap_interval(np.mean, right, rng=0)
    >>> round(interval.estimate, 2), round(interval.lower, 2), round(interval.upper, 2)
    (0.8, 0.72, 0.88)
    """
    columns = [np.asarray(array) for array in arrays]
    sizes = {len(column) if column.ndim else 0 for column in columns}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            "bootstrap_interval needs arrays with one row for each of at least 2 points, got the "
            f"shapes {[column.shape for column in columns]}."
        )
    level = level_between("level", level)

    def of_rows(rows: NDArray[np.intp]) -> float:
        return float(metric(*(column[rows] for column in columns)))

    rows = np.arange(sizes.pop())
    interval = stats.bootstrap(
        (rows,),
        of_rows,
        n_resamples=n_resamples,
        vectorized=False,
        confidence_level=level,
        method=method,
        rng=rng,
    ).confidence_interval
    return Interval(of_rows(rows), float(interval.low), float(interval.high))


def rejection_curve(
    y_true: ArrayLike,
    proba: ArrayLike,
    uncertainty: ArrayLike | None = None,
    *,
    classes: ArrayLike | None = None,
) -> RejectionCurve:
    """Error among the most certain points, at every coverage: an uncertainty's use for abstaining.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    uncertainty : array of shape [m], optional
        Any measure, larger where less sure: a prediction's ``total_uncertainty``, ``epistemic``.
        Default: one minus the probability of the predicted class.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.

    Returns
    -------
    RejectionCurve
        With ``aurc`` and ``excess_aurc``.

    References
    ----------
    Geifman, Uziel, El-Yaniv (2019), Bias-reduced uncertainty estimation for deep neural
    classifiers: the area and its excess over that of the best order.

    Examples
    --------
    >>> from ntk_uq.metrics import rejection_curve
    >>> curve = rejection_curve([0, 1, 1], [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    >>> curve.error.round(2), round(curve.aurc, 3), curve.excess_aurc
    (array([0.  , 0.  , 0.33]), 0.111, 0.0)
    """
    wrong, uncertainty = _errors(y_true, proba, uncertainty, classes)
    m = len(wrong)
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    # Equal uncertainties may come in any order: each of these points is wrong with the same chance.
    rate = np.bincount(group, weights=wrong) / size
    kept = np.arange(1, m + 1)
    n_wrong = int(wrong.sum())
    return RejectionCurve(
        coverage=kept / m,
        error=np.cumsum(np.repeat(rate, size)) / kept,
        best_error=np.maximum(kept - (m - n_wrong), 0) / kept,
    )


def detect_errors(
    y_true: ArrayLike,
    proba: ArrayLike,
    uncertainty: ArrayLike | None = None,
    *,
    classes: ArrayLike | None = None,
) -> Detection:
    """How well an uncertainty tells wrong predictions from right ones.

    Parameters
    ----------
    y_true : array of shape [m]
        True labels.
    proba : array of shape [m, C]
        Class probabilities; rows sum to one.
    uncertainty : array of shape [m], optional
        Any measure, larger where less sure. Default: one minus the probability of the predicted
        class.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.

    Returns
    -------
    Detection
        The positive points are those whose predicted class is wrong.

    Raises
    ------
    ValueError
        If shapes do not fit, or all predictions are right, or all wrong.

    References
    ----------
    Hendrycks, Gimpel (2017), A baseline for detecting misclassified and out-of-distribution
    examples in neural networks.

    Examples
    --------
    >>> from ntk_uq.metrics import detect_errors
    >>> proba = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]
    >>> found = detect_errors([0, 1, 1, 1], proba)
    >>> found.auroc, found.prevalence
    (1.0, 0.25)
    """
    wrong, uncertainty = _errors(y_true, proba, uncertainty, classes)
    if wrong.min() == wrong.max():
        raise ValueError(
            f"All {len(wrong)} predictions are {'wrong' if wrong[0] else 'right'}: detection needs "
            "both kinds. Take more points."
        )
    return _detection(wrong, uncertainty)


def detect_outliers(inside: ArrayLike, outside: ArrayLike) -> Detection:
    """How well an uncertainty tells inputs out of the training distribution.

    Parameters
    ----------
    inside : array of shape [m]
        Uncertainty of points from the training distribution, which the model was not fitted to.
    outside : array of shape [k]
        The same measure at points from elsewhere.

    Returns
    -------
    Detection
        The positive points are those outside.

    Raises
    ------
    ValueError
        If either is no vector of finite numbers.

    References
    ----------
    Hendrycks, Gimpel (2017). False positive rates are often quoted with the inside positive; here,
    as in Hendrycks, Mazeika, Dietterich (2019), Deep anomaly detection with outlier exposure, the
    outside is.

    Examples
    --------
    >>> from ntk_uq.metrics import detect_outliers
    >>> found = detect_outliers(inside=[0.1, 0.2, 0.4], outside=[0.3, 0.9])
    >>> round(found.auroc, 3), round(found.fpr95, 3)
    (0.833, 0.333)
    """
    inside, outside = numbers("inside", inside), numbers("outside", outside)
    positive = np.repeat([0.0, 1.0], [len(inside), len(outside)])
    return _detection(positive, np.concatenate([inside, outside]))


def regression_scores(
    y_true: ArrayLike, mean: ArrayLike, std: ArrayLike, *, level: float = 0.9
) -> dict[str, float]:
    """Scores of Gaussian predictions of a real target.

    Parameters
    ----------
    y_true : array of shape [m]
        Targets.
    mean, std : array of shape [m]
        Mean and standard deviation of the predictive distribution of the *target*: noise included.
    level : float
        Nominal coverage of the central intervals that are scored.

    Returns
    -------
    dict of float
        ``rmse`` and ``crps`` in the target's unit; ``nlpd``, the mean negative log predictive
        density, in nats; ``interval_score`` in the target's unit and ``coverage`` (a fraction) of
        the central intervals.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or a standard deviation is not positive.

    Examples
    --------
    >>> from ntk_uq.metrics import regression_scores
    >>> result = regression_scores([0.0, 1.0], mean=[0.0, 0.0], std=[1.0, 1.0])
    >>> {name: round(value, 3) for name, value in result.items()}
    {'rmse': 0.707, 'crps': 0.418, 'nlpd': 1.169, 'interval_score': 3.29, 'coverage': 1.0}
    """
    y, mean, std = _gaussian_arguments(y_true, mean, std)
    half = ndtri(0.5 + level_between("level", level) / 2) * std
    return {
        "rmse": float(np.sqrt(np.mean((y - mean) ** 2))),
        "crps": float(crps_gaussian(y, mean, std).mean()),
        "nlpd": float(-stats.norm.logpdf(y, mean, std).mean()),
        "interval_score": float(interval_score(y, mean - half, mean + half, level).mean()),
        "coverage": float(np.mean(np.abs(y - mean) <= half)),
    }


def crps_gaussian(y_true: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Floats:
    r"""Continuous ranked probability score of Gaussian predictions, in closed form.

    .. math:: \mathrm{CRPS}(F, y) = \int (F(x) - 1[x \ge y])^2 \, dx
        = \sigma \big( z (2 \Phi(z) - 1) + 2 \phi(z) - 1/\sqrt{\pi} \big),
        \quad z = (y - \mu)/\sigma

    Parameters
    ----------
    y_true : array of shape [m]
        Targets.
    mean, std : array of shape [m]
        Mean and standard deviation of the predictive distribution of the target, noise included.

    Returns
    -------
    array of shape [m]
        In the target's unit; lower is better. The absolute error for a prediction without spread.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or a standard deviation is not positive.

    References
    ----------
    Gneiting, Raftery (2007), Strictly proper scoring rules, prediction, and estimation, eq. 21.

    Examples
    --------
    >>> from ntk_uq.metrics import crps_gaussian
    >>> crps_gaussian([0.0, 2.0], mean=[0.0, 0.0], std=[1.0, 1.0]).round(3)
    array([0.234, 1.453])
    """
    y, mean, std = _gaussian_arguments(y_true, mean, std)
    z = (y - mean) / std
    # 2 Φ(z) − 1 without cancellation.
    return std * (z * erf(z / np.sqrt(2)) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))


def crps_samples(y_true: ArrayLike, samples: ArrayLike, *, fair: bool = True) -> Floats:
    r"""Continuous ranked probability score of predictions given as draws.

    .. math:: \mathrm{CRPS}(F, y) = \mathrm{E}|x - y| - \tfrac12 \mathrm{E}|x - x'|

    Parameters
    ----------
    y_true : array of shape [m]
        Targets.
    samples : array of shape [S, m]
        Draws of the target, noise included.
    fair : bool
        True estimates the score of the distribution that the draws come from, without bias: pairs
        of different draws only. False gives the score of the draws' own distribution, which is
        larger by :math:`\mathrm{E}|x - x'| / 2S` in expectation.

    Returns
    -------
    array of shape [m]
        In the target's unit.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or `fair` and there is one draw.

    References
    ----------
    Ferro (2014), Fair scores for ensemble forecasts. Gneiting, Raftery (2007), eq. 20.

    Examples
    --------
    >>> from ntk_uq.metrics import crps_samples
    >>> crps_samples([0.0], [[-1.0], [1.0]]), crps_samples([0.0], [[-1.0], [1.0]], fair=False)
    (array([0.]), array([0.5]))
    """
    y, samples = _sample_arguments(y_true, samples)
    n_draws = len(samples)
    if fair and n_draws < 2:
        raise ValueError("The fair score needs at least 2 draws; fair=False scores the one.")
    ordered = np.sort(samples, axis=0)
    # sum over pairs of |x_i - x_j| = 2 sum_i (2i - S - 1) x_(i)
    weights = 2 * np.arange(1, n_draws + 1) - n_draws - 1
    distance = 2 * weights @ (ordered - ordered.mean(axis=0))
    n_pairs = n_draws * (n_draws - 1) if fair else n_draws**2
    return np.abs(samples - y).mean(axis=0) - 0.5 * distance / n_pairs


def interval_score(
    y_true: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: float = 0.9
) -> Floats:
    r"""Score of central intervals: their width, and a price for each target that they miss.

    .. math:: (u - l) + \tfrac{2}{\alpha}(l - y)_+ + \tfrac{2}{\alpha}(y - u)_+,
        \qquad \alpha = 1 - \mathrm{level}

    Lowest in expectation for the quantiles at α/2 and 1 − α/2. It is 2/α times the sum of
    scikit-learn's pinball losses at these.

    Parameters
    ----------
    y_true : array of shape [m]
        Targets.
    lower, upper : array of shape [m]
        Ends of the intervals.
    level : float
        Nominal coverage.

    Returns
    -------
    array of shape [m]
        In the target's unit.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or an interval ends before it begins.

    References
    ----------
    Gneiting, Raftery (2007), eq. 43.

    Examples
    --------
    >>> from ntk_uq.metrics import interval_score
    >>> interval_score([0.0, 3.0], [-1.0, -1.0], [1.0, 1.0], level=0.8).round(3)
    array([ 2., 22.])
    """
    y = numbers("y_true", y_true)
    lower = numbers("lower", lower, shape=y.shape)
    upper = numbers("upper", upper, shape=y.shape)
    if np.any(lower > upper):
        raise ValueError("lower must not exceed upper; are the two swapped?")
    price = 2 / (1 - level_between("level", level))
    return upper - lower + price * (np.maximum(lower - y, 0) + np.maximum(y - upper, 0))


def pit_gaussian(y_true: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Floats:
    """Probability integral transform F(y) of Gaussian predictions: uniform where F is right.

    Parameters
    ----------
    y_true : array of shape [m]
        Targets.
    mean, std : array of shape [m]
        Mean and standard deviation of the predictive distribution of the target, noise included.

    Returns
    -------
    array of shape [m]
        Between 0 and 1. In a histogram, a hump says that predictions are too wide, a trough too
        narrow, a slope biased.

    References
    ----------
    Dawid (1984), Statistical theory: the prequential approach. Gneiting, Balabdaoui, Raftery
    (2007), Probabilistic forecasts, calibration and sharpness.

    Examples
    --------
    >>> from ntk_uq.metrics import pit_gaussian
    >>> pit_gaussian([0.0, 1.96], mean=[0.0, 0.0], std=[1.0, 1.0]).round(3)
    array([0.5  , 0.975])
    """
    y, mean, std = _gaussian_arguments(y_true, mean, std)
    return ndtr((y - mean) / std)


def pit_samples(rng: np.random.Generator, y_true: ArrayLike, samples: ArrayLike) -> Floats:
    """Probability integral transform of predictions given as draws, randomised.

    The rank of the target among the draws, moved to a random place between it and the next, so that
    it is exactly uniform where target and draws come from one distribution, ties included.

    Parameters
    ----------
    rng : numpy Generator
        Random numbers.
    y_true : array of shape [m]
        Targets.
    samples : array of shape [S, m]
        Draws of the target, noise included.

    Returns
    -------
    array of shape [m]
        Between 0 and 1.

    References
    ----------
    Gneiting, Ranjan (2013), Combining predictive distributions, definition 2.5. Talts et al.
    (2018), Validating Bayesian inference algorithms with simulation-based calibration: ranks.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.metrics import pit_samples
    >>> draws = np.arange(9.0)[:, None]
    >>> bool(0.5 <= pit_samples(np.random.default_rng(0), [4.5], draws)[0] <= 0.6)
    True
    """
    y, samples = _sample_arguments(y_true, samples)
    below, equal = np.sum(samples < y, axis=0), np.sum(samples == y, axis=0)
    return (below + (equal + 1) * rng.random(len(y))) / (len(samples) + 1)


def coverage_curve(
    pit: ArrayLike, *, n_levels: int = 19, interval_level: float = 0.95
) -> CoverageCurve:
    """Coverage of central predictive intervals at every level, from the targets' PIT.

    The central interval of level L holds the target where its PIT is within L/2 of 1/2.

    Parameters
    ----------
    pit : array of shape [m]
        From `pit_gaussian` or `pit_samples`.
    n_levels : int
        Levels, evenly spaced between 0 and 1 without these.
    interval_level : float
        Level of the Wilson intervals of the fractions.

    Returns
    -------
    CoverageCurve

    Raises
    ------
    ValueError
        If `pit` is not between 0 and 1.

    References
    ----------
    Kuleshov, Fenner, Ermon (2018), Accurate uncertainties for deep learning using calibrated
    regression.

    Examples
    --------
    >>> from ntk_uq.metrics import coverage_curve
    >>> curve = coverage_curve([0.1, 0.4, 0.6, 0.9], n_levels=3)
    >>> curve.level, curve.coverage
    (array([0.25, 0.5 , 0.75]), array([0.5, 0.5, 0.5]))
    """
    pit = numbers("pit", pit)
    if pit.min() < 0 or pit.max() > 1:
        raise ValueError("pit must hold values between 0 and 1, from pit_gaussian or pit_samples.")
    n_levels = checks.count("n_levels", n_levels)
    level = np.arange(1, n_levels + 1) / (n_levels + 1)
    coverage = np.mean(np.abs(2 * pit[:, None] - 1) <= level, axis=0)
    lower, upper = _wilson_interval(
        coverage, np.full(n_levels, len(pit)), level_between("interval_level", interval_level)
    )
    return CoverageCurve(level, coverage, lower, upper)


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


def _each_member(function: Callable[[Floats], float], proba: Floats) -> Any:
    if proba.ndim == 2:
        return float(function(proba))
    return np.array([function(member) for member in proba])


def _brier_scale(n_classes: int) -> float:
    """Two classes count half, as is customary."""
    return 0.5 if n_classes == 2 else 1.0


def _edges(values: Floats, n_bins: int, binning: Binning) -> Floats:
    """Edges of bins between 0 and 1."""
    n_bins = checks.count("n_bins", n_bins)
    if binning == "width":
        return np.linspace(0.0, 1.0, n_bins + 1)
    if binning != "mass":
        raise ValueError(f'binning must be "width" or "mass", got {binning!r}.')
    # Bins are closed on the right: a bin ends at the last of its values.
    ends = np.linspace(0, len(values), n_bins + 1).round().astype(int)[1:-1]
    inner = np.sort(values)[np.maximum(ends, 1) - 1]
    return np.concatenate([[0.0], inner, [1.0]])


def _bins(values: Floats, edges: Floats) -> NDArray[np.intp]:
    """The bin (edges[b], edges[b + 1]] of each value; the first holds its left edge too."""
    return np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)


def _bin_means(
    forecast: Floats, event: Floats, edges: Floats
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Count, mean forecast and frequency of the event in each bin; NaN where it is empty."""
    n_bins = len(edges) - 1
    bins = _bins(forecast, edges)
    count = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_forecast = np.bincount(bins, weights=forecast, minlength=n_bins) / count
        frequency = np.bincount(bins, weights=event, minlength=n_bins) / count
    return count, mean_forecast, frequency


def _mean_gap(
    count: NDArray[np.int64], forecast: Floats, frequency: Floats, norm: int, debiased: bool
) -> float:
    """Mean over points of the gap of their bins, or of its square."""
    used = count > (1 if debiased and norm == 2 else 0)
    if not used.any():
        raise ValueError(
            "Every bin holds one point, and the debiased estimate needs two: take fewer bins."
        )
    count, forecast, frequency = count[used], forecast[used], frequency[used]
    gap = np.abs(frequency - forecast)
    noise = frequency * (1 - frequency)
    if norm == 2:
        square = gap**2 - (noise / (count - 1) if debiased else 0.0)
        return float(np.average(square, weights=count))
    if debiased:
        gap = 2 * gap - _folded_normal_mean(gap, np.sqrt(noise / count))
    return float(np.average(gap, weights=count))


def _folded_normal_mean(mean: Floats, std: Floats) -> Floats:
    """E|x| for x ~ N(mean, std²), mean >= 0."""
    safe = np.where(std > 0, std, 1.0)
    z = mean / (safe * np.sqrt(2))
    folded = safe * np.sqrt(2 / np.pi) * np.exp(-(z**2)) + mean * erf(z)
    return np.where(std > 0, folded, mean)


def _errors(
    y_true: ArrayLike, proba: ArrayLike, uncertainty: ArrayLike | None, classes: ArrayLike | None
) -> tuple[Floats, Floats]:
    """One where the predicted class is wrong [m], and the uncertainty [m]."""
    labels, proba, _ = labelled_probabilities(y_true, proba, classes)
    wrong = (proba.argmax(axis=1) != labels).astype(np.float64)
    if uncertainty is None:
        return wrong, 1.0 - proba.max(axis=1)
    return wrong, numbers("uncertainty", uncertainty, shape=labels.shape)


def _detection(positive: Floats, score: Floats) -> Detection:
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(positive, score)
    return Detection(
        auroc=float(roc_auc_score(positive, score)),
        aupr=float(average_precision_score(positive, score)),
        # Thresholds fall along the curve, so the first that finds enough is the highest.
        fpr95=float(fpr[np.argmax(tpr >= 0.95)]),
        prevalence=float(positive.mean()),
        fpr=fpr,
        tpr=tpr,
        precision=precision,
        recall=recall,
    )


def _gaussian_arguments(
    y_true: ArrayLike, mean: ArrayLike, std: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    y = numbers("y_true", y_true)
    mean, std = numbers("mean", mean, shape=y.shape), numbers("std", std, shape=y.shape)
    if np.any(std <= 0):
        raise ValueError(
            "std must be positive: the standard deviation of the target, noise included."
        )
    return y, mean, std


def _sample_arguments(y_true: ArrayLike, samples: ArrayLike) -> tuple[Floats, Floats]:
    y = numbers("y_true", y_true)
    if np.ndim(samples) != 2 or len(np.asarray(samples)) < 1:
        raise ValueError(f"samples must have shape [S, m], got {np.shape(samples)}.")
    return y, numbers("samples", samples, shape=(len(np.asarray(samples)), len(y)))


def _wilson_interval(
    fraction: Floats, count: NDArray[np.int64], level: float
) -> tuple[Floats, Floats]:
    z = ndtri(0.5 + level / 2)
    centre = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(fraction * (1 - fraction) / count + (z / (2 * count)) ** 2)
    half /= 1 + z**2 / count
    # It holds the fraction and lies in [0, 1], rounding included.
    return np.clip(centre - half, 0.0, fraction), np.clip(centre + half, fraction, 1.0)

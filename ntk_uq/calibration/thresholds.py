"""Decisions from probabilities: by what they cost, and by thresholds that keep a promise."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntk_uq._common import checks
from ntk_uq.calibration.decisions import most_accepting

__all__ = [
    "Threshold",
    "cost_threshold",
    "least_cost",
    "precision_threshold",
    "recall_threshold",
    "rejection_threshold",
]

Floats = NDArray[np.float64]
Kind = Literal["precision", "recall", "rejection"]


@dataclass(frozen=True)
class Threshold:
    """A threshold, and what it promises: see `precision_threshold` and its neighbours.

    Attributes
    ----------
    value : float
        Points with a score of at least this are positive; of a rejection, those with an uncertainty
        above it are rejected. Infinite where no threshold keeps the promise.
    kind : {"precision", "recall", "rejection"}
        Which share is promised.
    promised : float
        The least precision or recall, or the largest share of rejected points.
    confidence : float
        Probability over the held-out points with which the promise is kept.
    held_out : float
        The same share, of the held-out points.
    share : float
        Share of the held-out points that are positive by the threshold, or rejected.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import recall_threshold
    >>> p = np.linspace(0, 1, 200)
    >>> found = recall_threshold(p > 0.5, p, at_least=0.9)
    >>> found.held_out >= 0.9, found.guarantee
    (True, 'with confidence 0.95, at least 0.9 of the positive rows are found')
    """

    value: float
    kind: Kind
    promised: float
    confidence: float
    held_out: float
    share: float

    @property
    def guarantee(self) -> str:
        """The promise, in words."""
        what = {
            "precision": f"at least {self.promised:g} of the rows taken for positive are so",
            "recall": f"at least {self.promised:g} of the positive rows are found",
            "rejection": f"at most {self.promised:g} of the rows are rejected",
        }[self.kind]
        return f"with confidence {self.confidence:g}, {what}"


def least_cost(proba: ArrayLike, cost: ArrayLike) -> tuple[NDArray[np.intp], Floats]:
    r"""The decision with the least expected cost at each point.

    Decision k costs :math:`\sum_c p_c\,\mathrm{cost}_{ck}`; the least is Bayes' decision. It is the
    best there is if the probabilities are right, which held-out points can show
    (`metrics.calibration_check`), and no promise otherwise.

    Parameters
    ----------
    proba : array of shape [m, C]
        Class probabilities.
    cost : array of shape [C, K]
        What decision k costs where the class is c. With K = C decisions are classes; a further
        column is the cost of leaving the point to someone else.

    Returns
    -------
    decision : array of int, of shape [m]
    expected : array of shape [m]
        Its expected cost.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    Elkan (2001), The foundations of cost-sensitive learning. Chow (1970), On optimum recognition
    error and reject tradeoff: the further column.

    Examples
    --------
    >>> from ntk_uq.calibration import least_cost
    >>> missed = [[0.0, 1.0], [5.0, 0.0]]  # a positive that is missed costs five false alarms
    >>> least_cost([[0.9, 0.1], [0.8, 0.2]], missed)
    (array([0, 1]), array([0.5, 0.8]))
    """
    proba = checks.probabilities(proba)
    costs = check_cost(cost, proba.shape[1])
    expected = proba @ costs
    decision = expected.argmin(axis=1)
    return decision, expected[np.arange(len(proba)), decision]


def check_cost(cost: ArrayLike, n_classes: int) -> Floats:
    """A matrix of costs, for as many classes."""
    costs = checks.floats(cost)
    if costs.ndim != 2 or costs.shape[0] != n_classes or costs.shape[1] < 2:
        raise ValueError(
            f"cost must have a row for each of the {n_classes} classes and a column for each "
            f"decision, got shape {costs.shape}."
        )
    if not np.isfinite(costs).all():
        raise ValueError("cost holds values that are NaN or infinite.")
    return costs


def cost_threshold(cost: ArrayLike) -> float:
    r"""The probability of class 1 from which on it is the decision that costs less.

    With costs :math:`c_{jk}` of decision k where the class is j it is
    :math:`(c_{01} - c_{00}) / (c_{01} - c_{00} + c_{10} - c_{11})`.

    Parameters
    ----------
    cost : array of shape [2, 2]
        As in `least_cost`. A wrong decision must cost more than the right one.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If one decision is never worse than the other.

    Examples
    --------
    >>> from ntk_uq.calibration import cost_threshold
    >>> round(cost_threshold([[0.0, 1.0], [5.0, 0.0]]), 3)
    0.167
    """
    costs = check_cost(cost, 2)
    if costs.shape != (2, 2):
        raise ValueError(f"cost must have shape [2, 2], got {costs.shape}: use least_cost.")
    alarm, miss = costs[0, 1] - costs[0, 0], costs[1, 0] - costs[1, 1]
    if not (alarm > 0 and miss > 0):
        raise ValueError(
            "A wrong decision must cost more than the right one, in either row of cost; otherwise "
            "one decision is always as good, and there is no threshold."
        )
    return float(alarm / (alarm + miss))


def precision_threshold(
    positive: ArrayLike,
    score: ArrayLike,
    at_least: float,
    *,
    confidence: float = 0.95,
    n_thresholds: int = 20,
) -> Threshold:
    """The threshold that takes most points for positive, of which at least a share are.

    **Guarantee.** With probability at least `confidence` over the held-out points, at least the
    share `at_least` of the future points with a score of at least the threshold are positive.
    Points are independent draws from one distribution. As in `rejection_rule`: Clopper-Pearson
    bounds at `n_thresholds` ranks, which hold at once.

    Parameters
    ----------
    positive : array of bool, of shape [n]
        Which held-out points are positive.
    score : array of shape [n]
        Larger for what is likelier positive: the probability.
    at_least : float
        Least precision, between 0 and 1.
    confidence : float
        Probability with which the promise is kept.
    n_thresholds : int
        Thresholds tried.

    Returns
    -------
    Threshold
        Infinite where no threshold keeps the promise.

    Raises
    ------
    ValueError
        If shapes do not fit, or a share is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import precision_threshold
    >>> p = np.linspace(0, 1, 400)
    >>> y = np.where(p > 0.6, True, np.arange(400) % 2 == 0)
    >>> found = precision_threshold(y, p, at_least=0.9)
    >>> bool(0.3 < found.value < 0.7), found.held_out > 0.9
    (True, True)
    """
    for name, value in (("at_least", at_least), ("confidence", confidence)):
        checks.level_between(name, value)
    n_thresholds = checks.count("n_thresholds", n_thresholds)
    scores, hits = _scored(positive, score)
    found = most_accepting(~hits, -scores, 1 - at_least, confidence, n_thresholds)
    if found is None:
        return Threshold(math.inf, "precision", at_least, confidence, math.nan, 0.0)
    # The promise is of scores above minus the bound, and of this one on are just those.
    value = float(np.nextafter(-found.threshold, math.inf))
    taken = scores >= value
    return Threshold(
        value, "precision", at_least, confidence, float(hits[taken].mean()), float(taken.mean())
    )


def recall_threshold(
    positive: ArrayLike, score: ArrayLike, at_least: float, *, confidence: float = 0.95
) -> Threshold:
    r"""The largest threshold above which at least a share of the positive points lie.

    **Guarantee.** With probability at least `confidence` over the held-out points, at least the
    share `at_least` of the future positive points have a score of at least the threshold. It is an
    order statistic of the P held-out positive scores, a tolerance limit: above the k-th smallest
    lies a share with the law :math:`\mathrm{Beta}(P - k + 1, k)`, or more where scores tie.

    Parameters
    ----------
    positive : array of bool, of shape [n]
        Which held-out points are positive.
    score : array of shape [n]
        Larger for what is likelier positive: the probability.
    at_least : float
        Least recall, between 0 and 1.
    confidence : float
        Probability with which the promise is kept.

    Returns
    -------
    Threshold
        Minus infinity, which takes every point for positive, where too few are positive: it takes
        ln(1 - confidence) / ln(at_least) of them, 29 for 0.9.

    Raises
    ------
    ValueError
        If shapes do not fit, or a share is not between 0 and 1.

    References
    ----------
    Wilks (1941), Determination of sample sizes for setting tolerance limits.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import recall_threshold
    >>> found = recall_threshold(np.ones(100, bool), np.arange(100) / 100, at_least=0.9)
    >>> found.value, found.held_out
    (0.04, 0.96)
    """
    for name, value in (("at_least", at_least), ("confidence", confidence)):
        checks.level_between(name, value)
    scores, hits = _scored(positive, score)
    value = _tolerance_limit(scores[hits], at_least, confidence)
    taken = scores >= value
    recall = float(taken[hits].mean()) if hits.any() else math.nan
    return Threshold(value, "recall", at_least, confidence, recall, float(taken.mean()))


def rejection_threshold(
    uncertainty: ArrayLike, at_most: float, *, confidence: float = 0.95
) -> Threshold:
    """The least uncertainty above which at most a share of the points lie.

    **Guarantee.** With probability at least `confidence` over the held-out points, at most the
    share `at_most` of future points have an uncertainty above the threshold: a tolerance limit, as
    in `recall_threshold`. Nothing is promised of the others' errors: that is `rejection_rule`'s.

    Parameters
    ----------
    uncertainty : array of shape [n]
        Of held-out points, which need no labels.
    at_most : float
        Largest share that is rejected, between 0 and 1.
    confidence : float
        Probability with which the promise is kept.

    Returns
    -------
    Threshold
        Infinite, which rejects nothing, where too few points are held out.

    Raises
    ------
    ValueError
        If `uncertainty` is no vector of numbers, or a share is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import rejection_threshold
    >>> found = rejection_threshold(np.arange(100) / 100, at_most=0.1)
    >>> found.value, found.share
    (0.95, 0.04)
    """
    for name, value in (("at_most", at_most), ("confidence", confidence)):
        checks.level_between(name, value)
    values = checks.numbers("uncertainty", uncertainty)
    value = -_tolerance_limit(-values, 1 - at_most, confidence)
    share = float(np.mean(values > value))
    return Threshold(value, "rejection", at_most, confidence, share, share)


def _scored(positive: ArrayLike, score: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    scores = checks.numbers("score", score)
    hits = np.asarray(positive)
    if hits.shape != scores.shape or hits.dtype != bool:
        raise ValueError(
            f"positive must be a truth value for each of {scores.shape} scores: y == 1, for "
            f"example; got {hits.dtype} of shape {hits.shape}."
        )
    return scores, hits


def _tolerance_limit(values: Floats, share: float, confidence: float) -> float:
    """Largest order statistic with this share of the distribution above it, or at it."""
    n = len(values)
    ranks = np.arange(1, n + 1)
    keeps = stats.beta.sf(share, n - ranks + 1, ranks) >= confidence
    return float(np.sort(values)[keeps.sum() - 1]) if keeps.any() else -math.inf

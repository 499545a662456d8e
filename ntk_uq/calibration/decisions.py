"""Sets and thresholds that keep a promise: conformal prediction, and when to reject."""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntk_uq._common import checks
from ntk_uq._common.words import shown


@dataclass(frozen=True)
class RejectionRule:
    """Which points to predict and which to leave to someone else: see `rejection_rule`.

    Attributes
    ----------
    threshold : float
        Points with an uncertainty below it are accepted. Infinite: all; minus infinity: none, since
        no threshold keeps the promise.
    coverage : float
        Fraction of the held-out points that are accepted.
    error : float
        Fraction of these that are predicted wrong; NaN where none is accepted.
    error_bound : float
        Upper bound of the error rate of future accepted points.
    max_error, confidence : float
        What was asked for: the bound is at most `max_error`, and holds with this confidence.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import rejection_rule
    >>> sure = np.full((400, 2), [0.99, 0.01])  # and always right
    >>> rule = rejection_rule(np.zeros(400, int), sure, max_error=0.05)
    >>> rule.coverage, rule.error
    (1.0, 0.0)
    """

    threshold: float
    coverage: float
    error: float
    error_bound: float
    max_error: float
    confidence: float

    def accepts(self, uncertainty: ArrayLike) -> NDArray[np.bool_]:
        """Whether each point is accepted, from its uncertainty [m]."""
        return checks.numbers("uncertainty", uncertainty) < self.threshold


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
    values = checks.numbers("scores", scores)
    level = checks.level_between("level", level)
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
    labels, proba, _ = checks.labelled_probabilities(y_true, proba, classes)
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
    if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise ValueError(f"threshold is a probability, between 0 and 1; got {shown(threshold)}.")
    return checks.probabilities(proba) >= threshold


def rejection_rule(
    y_true: ArrayLike,
    proba: ArrayLike,
    max_error: float,
    uncertainty: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    n_thresholds: int = 20,
    classes: ArrayLike | None = None,
) -> RejectionRule:
    r"""The threshold of uncertainty below which at most a share `max_error` is predicted wrong.

    **Guarantee.** With probability at least `confidence` over the held-out points, the error rate
    of future points that the rule accepts is at most `max_error`. Held-out and future points are
    independent draws from one distribution; nothing is assumed of model or uncertainty.

    The thresholds tried are order statistics of the held-out uncertainties, at ranks that depend on
    the number of points alone. Given the k-th smallest uncertainty, the points below it are
    independent draws from the distribution below it, so the number e of wrong ones among these j
    is binomial, and the Clopper-Pearson bound, the :math:`1 - \delta / K` quantile of
    :math:`\mathrm{Beta}(e + 1, j - e)`, holds for each of K thresholds; with
    :math:`\delta = 1 - \mathrm{confidence}`, for all at once. The rule is the threshold that
    accepts most points among those with a bound of at most `max_error`.

    Parameters
    ----------
    y_true : array of shape [n]
        Labels of points that the model was not fitted to.
    proba : array of shape [n, C]
        Their class probabilities; rows sum to one.
    max_error : float
        Largest error rate among accepted points, between 0 and 1.
    uncertainty : array of shape [n], optional
        Any measure, larger where less sure. Default: one minus the probability of the predicted
        class.
    confidence : float
        Probability with which the promise is kept.
    n_thresholds : int
        Thresholds tried, from the fewest points that could keep the promise to all. More find a
        finer threshold, and make each bound wider.
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.

    Returns
    -------
    RejectionRule
        Accepts nothing where no threshold keeps the promise: even without an error it takes
        :math:`\ln(K / \delta) / \mathrm{max\_error}` points, 120 for 5% with the defaults.

    Raises
    ------
    ValueError
        If shapes do not fit, rows of `proba` are no probabilities, or an option is out of range.

    References
    ----------
    Geifman, El-Yaniv (2017), Selective classification for deep neural networks: the bound for one
    threshold; their search takes fewer tests, but chooses each by the last. Angelopoulos, Bates,
    Candes, Jordan, Lei (2021), Learn then test: the correction for many.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import rejection_rule
    >>> p = np.linspace(0.5, 1.0, 400)
    >>> y_true = np.where(p < 0.6, np.arange(400) % 2, 0)  # unsure points are wrong half the time
    >>> rule = rejection_rule(y_true, np.c_[p, 1 - p], max_error=0.05)
    >>> round(rule.coverage, 2), round(rule.error, 3), round(rule.error_bound, 3)
    (0.81, 0.009, 0.036)
    >>> rule.accepts([0.05, 0.45])
    array([ True, False])
    """
    for name, value in (("max_error", max_error), ("confidence", confidence)):
        checks.level_between(name, value)
    n_thresholds = checks.count("n_thresholds", n_thresholds)
    labels, proba, _ = checks.labelled_probabilities(y_true, proba, classes)
    wrong = proba.argmax(axis=1) != labels
    if uncertainty is None:
        uncertainty = 1.0 - proba.max(axis=1)
    uncertainty = checks.numbers("uncertainty", uncertainty, shape=labels.shape)

    found = most_accepting(wrong, uncertainty, max_error, confidence, n_thresholds)
    nothing = RejectionRule(-math.inf, 0.0, math.nan, 0.0, max_error, confidence)
    return nothing if found is None else found


def most_accepting(
    wrong: NDArray[np.bool_],
    uncertainty: NDArray[np.float64],
    max_error: float,
    confidence: float,
    n_thresholds: int,
) -> RejectionRule | None:
    """The threshold that accepts most, of those whose bound keeps the promise; None if none does.

    As `rejection_rule` says.
    """
    n, delta = len(wrong), (1 - confidence) / n_thresholds
    fewest = math.ceil(math.log(delta) / math.log1p(-max_error))
    best = None
    if fewest > n:
        return best
    order = np.sort(uncertainty)
    for rank in np.unique(np.linspace(fewest, n, n_thresholds).round().astype(int)):
        threshold = order[rank] if rank < n else math.inf
        below = uncertainty < threshold  # fewer than `rank` where uncertainties are equal
        n_below, n_wrong = int(below.sum()), int(wrong[below].sum())
        if n_wrong == n_below:
            continue
        bound = stats.beta.ppf(1 - delta, n_wrong + 1, n_below - n_wrong)
        if bound <= max_error:
            best = RejectionRule(
                float(threshold),
                n_below / n,
                n_wrong / n_below,
                float(bound),
                max_error,
                confidence,
            )
    return best


def _conformal_rank(n: int, level: float) -> int:
    """Smallest k with k / (n + 1) >= level, where the product is an integer but for rounding."""
    return math.ceil((n + 1) * level * (1 - 1e-12))

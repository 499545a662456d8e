"""Probabilities, sets and thresholds that keep what they promise, from held-out data.

Everything here takes data that the model was not fitted to. The guarantees hold when these data
and the future ones are exchangeable; they make no assumption on the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, indexable

from ntk_uq._common import checks
from ntk_uq.likelihoods import Categorical
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

__all__ = [
    "RejectionRule",
    "TemperatureFit",
    "TemperatureScaled",
    "conformal_quantile",
    "conformal_threshold",
    "fit_temperature",
    "prediction_sets",
    "rejection_rule",
    "temper",
]

Floats = NDArray[np.float64]
Prediction = GaussianPrediction | SamplePrediction

# Temperatures tried before the best is refined: beyond a factor of 32 a model is not miscalibrated,
# but right everywhere or useless.
_TEMPERATURES = 2.0 ** np.arange(-5, 6)


@dataclass(frozen=True, eq=False)
class TemperatureFit:
    """The best temperature for held-out labels, and the curve that it was found on.

    Attributes
    ----------
    temperature : float
        Above one makes predictions less sure, below one more. Between 1/32 and 32: near an end, the
        held-out labels do not bound it: all are predicted right, or no better than by chance, or
        it is best that each draw gives one vote, which is what cold draws do.
    log_loss : float
        Held-out log loss at `temperature`, in nats a point.
    log_loss_before : float
        The same at temperature one.
    temperatures, losses : array of shape [k]
        All temperatures that were tried, in order, and their log losses.

    Examples
    --------
    >>> from ntk_uq.calibration import fit_temperature
    >>> fit = fit_temperature([0] * 7 + [1] * 3, [[0.9, 0.1]] * 10)
    >>> bool(fit.log_loss < fit.log_loss_before)
    True
    """

    temperature: float
    log_loss: float
    log_loss_before: float
    temperatures: Floats
    losses: Floats


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


@overload
def temper(prediction: GaussianPrediction, temperature: float) -> GaussianPrediction: ...
@overload
def temper(prediction: SamplePrediction, temperature: float) -> SamplePrediction: ...
@overload
def temper(prediction: ArrayLike, temperature: float) -> Floats: ...
def temper(prediction: Any, temperature: float) -> Any:
    r"""A prediction at another temperature T.

    Of a prediction, the latents of each draw are divided by T, before class probabilities are
    averaged: :math:`\mathrm{E}\,\mathrm{softmax}(f / T)`. Mean and spread of the latents scale
    together, so a spread that is too wide for the mean stays so. Of an array of class
    probabilities, the logarithms are divided by T: :math:`p_c^{1/T} / \sum_d p_d^{1/T}`.

    Parameters
    ----------
    prediction : GaussianPrediction, SamplePrediction or array of shape [..., C]
        Predicted latents, or class probabilities.
    temperature : float
        Positive. Above one makes predictions less sure.

    Returns
    -------
    GaussianPrediction, SamplePrediction or array of shape [..., C]
        As it came.

    Raises
    ------
    ValueError
        If the temperature is not positive and finite, or there are no class probabilities.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks, section 4.
    Rahaman, Thiery (2021), Uncertainty quantification and deep ensembles: members before or after
    averaging.

    Examples
    --------
    >>> from ntk_uq.calibration import temper
    >>> temper([[0.8, 0.2]], temperature=2.0).round(3)
    array([[0.667, 0.333]])
    >>> import numpy as np
    >>> from ntk_uq import SamplePrediction
    >>> temper(SamplePrediction(np.array([[[4.0, 0.0]]])), 2.0).samples
    array([[[2., 0.]]])
    """
    if not (isinstance(temperature, Real) and 0 < temperature < math.inf):
        raise ValueError(f"temperature must be positive and finite, got {temperature!r}.")
    if not isinstance(prediction, Prediction):
        array = np.asarray(prediction, dtype=np.float64)
        checks.probabilities(array.reshape(-1, *array.shape[-1:]))
        with np.errstate(divide="ignore"):
            return softmax(np.log(array) / temperature, axis=-1)
    if not isinstance(prediction.likelihood, Categorical):
        raise ValueError(
            "A temperature scales the logits of classes, but the likelihood is "
            f"{type(prediction.likelihood).__name__}."
        )
    if isinstance(prediction, SamplePrediction):
        return replace(prediction, samples=prediction.samples / temperature)
    joint_cov = prediction.joint_cov
    return replace(
        prediction,
        mean=prediction.mean / temperature,
        cov=prediction.cov / temperature**2,
        joint_cov=None if joint_cov is None else joint_cov / temperature**2,
    )


def fit_temperature(
    y_true: ArrayLike,
    prediction: Prediction | ArrayLike,
    *,
    classes: ArrayLike | None = None,
    prior_std: float = 1.0,
) -> TemperatureFit:
    r"""The temperature with the lowest log loss on held-out points, and a weak prior.

    It minimises :math:`\sum_i \ell_i(T) + \tfrac12 (\log T / \mathrm{prior\_std})^2`. Few held-out
    points may all be predicted right: their loss alone is then lowest for a model that is certain,
    and the first wrong prediction costs without bound. The prior asks for half a nat, once, at a
    factor of e, which is nothing among many points.

    Parameters
    ----------
    y_true : array of shape [m]
        Labels of points that the model was not fitted to.
    prediction : GaussianPrediction, SamplePrediction or array of shape [m, C]
        Predicted latents of these points, to scale each draw before averaging; or mean class
        probabilities, to scale these, as scikit-learn's
        ``CalibratedClassifierCV(method="temperature")`` does.
    classes : array of shape [C], optional
        The label of each column, sorted as an estimator's ``classes_``. Default: 0 to C - 1.
    prior_std : float
        Standard deviation of :math:`\log T` in the prior; ``math.inf`` takes the log loss alone, as
        scikit-learn does.

    Returns
    -------
    TemperatureFit
        Give its `temperature` to `temper`.

    Raises
    ------
    ValueError
        If shapes do not fit, probabilities are none, a label is no class, or `prior_std` is not
        positive.

    References
    ----------
    As for `temper`.

    Examples
    --------
    >>> from ntk_uq.calibration import fit_temperature
    >>> proba = [[0.9, 0.1]] * 10
    >>> fit = fit_temperature([0] * 7 + [1] * 3, proba)  # nine tenths promised, seven kept
    >>> round(fit.temperature, 2), round(fit.log_loss_before, 3), round(fit.log_loss, 3)
    (1.93, 0.765, 0.619)
    """
    return _fit(_log_loss(y_true, prediction, classes), prior_std)


class TemperatureScaled(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier whose latents are divided by a temperature, fitted to held-out labels.

    scikit-learn's ``CalibratedClassifierCV(clf, method="temperature")`` scales the mean class
    probabilities, and works on this package's classifiers too. Here the latents of each draw are
    scaled before they are averaged, so that `predict_distribution` stays, with its uncertainties.

    The temperature is the best for the predictions of clones, each fitted without the fold that it
    predicts; then the estimator is fitted to everything.

    Parameters
    ----------
    estimator : classifier with `predict_distribution`
        Such as `NTKClassifier`. A fitted one in scikit-learn's ``FrozenEstimator`` stays as it is,
        and all the data, which it must not have been fitted to, go to the temperature.
    cv : int, cross-validation generator or iterable
        Folds, stratified where it is a number. Each must be fitted with every class.
    prior_std : float
        As in `fit_temperature`.

    Attributes
    ----------
    estimator_ : classifier
        Fitted to all the data.
    temperature_ : float
        Its latents are divided by it.
    temperature_fit_ : TemperatureFit
        The curve of the held-out log loss, for `plots.plot_temperature`.
    classes_ : array of shape [C]
        Labels, sorted.
    n_features_in_, feature_names_in_
        Those of `estimator_`.

    Examples
    --------
    >>> import ntk_uq as nuq
    >>> from ntk_uq.calibration import TemperatureScaled
    >>> X, y = [[0.0], [0.2], [0.4], [0.6], [0.8], [1.0]], [0, 0, 1, 0, 1, 1]
    >>> clf = nuq.NTKClassifier(nuq.MLP(width=16), reg=1.0, method="gaussian", random_state=0)
    >>> scaled = TemperatureScaled(clf, cv=3).fit(X, y)
    >>> bool(scaled.temperature_fit_.log_loss <= scaled.temperature_fit_.log_loss_before)
    True
    >>> scaled.predict_proba(X).shape, scaled.predict_distribution(X).epistemic.shape
    ((6, 2), (6,))
    """

    def __init__(self, estimator: Any, *, cv: Any = 5, prior_std: float = 1.0) -> None:
        self.estimator = estimator
        self.cv = cv
        self.prior_std = prior_std

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit the temperature and then the estimator.

        Parameters
        ----------
        X : array of shape [n, d]
            Features.
        y : array of shape [n]
            Labels.

        Returns
        -------
        TemperatureScaled

        Raises
        ------
        ValueError
            If a fold is fitted without a class, or the estimator has no `predict_distribution`.
        """
        if not hasattr(self.estimator, "predict_distribution"):
            raise ValueError(
                "TemperatureScaled takes a classifier with predict_distribution, got "
                f"{type(self.estimator).__name__}. In a pipeline, make it the last step; for other "
                'classifiers scikit-learn has CalibratedClassifierCV(method="temperature").'
            )
        if isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator
            losses = [_log_loss(y, self.estimator.predict_distribution(X), self.estimator.classes_)]
        else:
            # First: it says what is wrong with the data.
            self.estimator_ = clone(self.estimator).fit(X, y)
            losses = self._held_out_losses(*indexable(X, y))
        self.classes_ = self.estimator_.classes_
        self.temperature_fit_ = _fit(
            lambda t: np.concatenate([loss(t) for loss in losses]), self.prior_std
        )
        self.temperature_ = self.temperature_fit_.temperature
        return self

    def _held_out_losses(self, X: Any, y: Any) -> list[Callable[[float], Floats]]:
        y = np.ravel(y)
        check_classification_targets(y)
        losses, folds = [], list(check_cv(self.cv, y, classifier=True).split(X, y))
        for train, _ in folds:
            _require_all_classes(y, train)
        for train, test in folds:
            part = clone(self.estimator).fit(_safe_indexing(X, train), y[train])
            distribution = part.predict_distribution(_safe_indexing(X, test))
            losses.append(_log_loss(y[test], distribution, part.classes_))
        return losses

    def predict_distribution(self, X: ArrayLike, **options: Any) -> Prediction:
        """Distribution of the latents over the temperature.

        Parameters
        ----------
        X : array of shape [m, d]
            Features.
        **options
            What the estimator's `predict_distribution` takes besides.

        Returns
        -------
        GaussianPrediction or SamplePrediction
        """
        check_is_fitted(self)
        return temper(self.estimator_.predict_distribution(X, **options), self.temperature_)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Class probabilities [m, C] of each point."""
        return self.predict_distribution(X).proba()

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class [m] of each point."""
        columns = self.predict_proba(X).argmax(axis=1)
        return self.classes_[columns]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "temperature_")

    @property
    def n_features_in_(self) -> int:
        """Number of features in `fit`."""
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> NDArray:
        """Names of the features in `fit`, where it was given a table."""
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.non_deterministic = inner.non_deterministic
        return tags


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
        raise ValueError(f"threshold is a probability, between 0 and 1; got {threshold!r}.")
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

    n, delta = len(wrong), (1 - confidence) / n_thresholds
    fewest = math.ceil(math.log(delta) / math.log1p(-max_error))
    best = RejectionRule(-math.inf, 0.0, math.nan, 0.0, max_error, confidence)
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


def _require_all_classes(y: NDArray, train: NDArray[np.integer]) -> None:
    absent = np.setdiff1d(y, y[train]).tolist()
    if not absent:
        return
    count = int(np.sum(y == absent[0]))
    if count == 1:
        raise ValueError(
            f"Class {absent[0]!r} has one point only: the fold that holds it out is fitted without "
            "this class, however many folds there are. Give the class more points, leave it out, "
            "or fit the temperature to other data: "
            "TemperatureScaled(FrozenEstimator(fitted)).fit(X_held_out, y_held_out)."
        )
    raise ValueError(
        f"A fold holds out all {count} points of class {absent[0]!r}, and is fitted without it. "
        "Take folds that are stratified: cv=2 or another number, or StratifiedKFold."
    )


def _log_loss(
    y_true: ArrayLike, prediction: Any, classes: ArrayLike | None
) -> Callable[[float], Floats]:
    """Log loss of each point [m], in nats, as a function of the temperature."""
    if isinstance(prediction, Prediction):
        columns, names = checks.class_columns(y_true, prediction.mean.shape, classes)
        targets = np.eye(len(names))[columns]
        return lambda t: -temper(prediction, t).log_density(targets)
    columns, proba, _ = checks.labelled_probabilities(y_true, prediction, classes)
    # As scikit-learn's log loss: certainty is clipped to the float's precision.
    proba = np.clip(proba, np.finfo(np.float64).eps, 1.0)
    proba /= proba.sum(axis=1, keepdims=True)
    return lambda t: -np.log(temper(proba, t)[np.arange(len(columns)), columns])


def _fit(losses: Callable[[float], Floats], prior_std: float) -> TemperatureFit:
    """Minimise the sum of the losses at a temperature and the prior's, a point's share of both."""
    if not (isinstance(prior_std, Real) and prior_std > 0):
        raise ValueError(f"prior_std must be positive, or math.inf; got {prior_std!r}.")
    tried: dict[float, tuple[float, float]] = {}

    def objective(log_temperature: float) -> float:
        each = losses(math.exp(log_temperature))
        prior = 0.5 * (log_temperature / prior_std) ** 2 / len(each)
        tried[math.exp(log_temperature)] = float(each.mean()), prior
        return float(each.mean()) + prior

    logs = np.log(_TEMPERATURES)
    curve = [objective(log_t) for log_t in logs]
    # Averaged over draws it need not be convex: refine between the neighbours of the best.
    best = int(np.argmin(curve))
    minimize_scalar(
        objective,
        bounds=(logs[max(best - 1, 0)], logs[min(best + 1, len(logs) - 1)]),
        method="bounded",
        options={"xatol": 1e-4},
    )
    temperatures = np.array(sorted(tried))
    values, priors = np.array([tried[t] for t in temperatures]).T
    lowest = (values + priors).argmin()
    return TemperatureFit(
        temperature=float(temperatures[lowest]),
        log_loss=float(values[lowest]),
        log_loss_before=float(curve[len(curve) // 2]),  # the prior's share is zero at one
        temperatures=temperatures,
        losses=values,
    )


def _conformal_rank(n: int, level: float) -> int:
    """Smallest k with k / (n + 1) >= level, where the product is an integer but for rounding."""
    return math.ceil((n + 1) * level * (1 - 1e-12))

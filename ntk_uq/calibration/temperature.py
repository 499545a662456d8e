"""Temperatures that make probabilities right."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, indexable

from ntk_uq._common import checks
from ntk_uq._common.warnings import UnseenWarning, unsaid, warn_once
from ntk_uq._common.words import in_a_line, shown
from ntk_uq.likelihoods import Categorical
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

Floats = NDArray[np.float64]
Prediction = GaussianPrediction | SamplePrediction

# Temperatures tried before the best is refined: beyond a factor of 32 a model is not miscalibrated,
# but right everywhere or useless.
_TEMPERATURES = 2.0 ** np.arange(-5, 6)


@in_a_line
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
        raise ValueError(f"temperature must be positive and finite, got {shown(temperature)}.")
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

    @warn_once()
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
            If a fold is fitted without a class, or the estimator has no `predict_distribution`, or
            one that is frozen was fitted to these data.

        Warns
        -----
        UserWarning
            If rows have the features of training points that a frozen estimator holds.
        """
        if not hasattr(self.estimator, "predict_distribution"):
            raise ValueError(
                "TemperatureScaled takes a classifier with predict_distribution, got "
                f"{type(self.estimator).__name__}. In a pipeline, make it the last step; for other "
                'classifiers scikit-learn has CalibratedClassifierCV(method="temperature").'
            )
        if isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator
            if hasattr(self.estimator, "_check_held_out"):
                self.estimator._check_held_out(X, y)
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
            with unsaid(UnseenWarning):  # of what the others of these rows have
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
        raise ValueError(f"prior_std must be positive, or math.inf; got {shown(prior_std)}.")
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

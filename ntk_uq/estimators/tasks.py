"""The two tasks of the estimators: what targets are, and what users are told of predictions.

`Classifier` and `Regressor` validate data as scikit-learn asks, make a `Problem` of them, and put
what a producer's result says into the units of the target. To fit, and to choose what to fit, is
each estimator's own (docs/contributing, "Where things are").
"""

import operator
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, cast

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ntk_uq._common import checks
from ntk_uq._common.cells import check_labels, check_numbers
from ntk_uq._common.warnings import warn_user
from ntk_uq._common.words import shown
from ntk_uq.estimators.functions import Answers, as_function
from ntk_uq.estimators.held_out import check_held_out
from ntk_uq.estimators.parameters import with_params
from ntk_uq.estimators.training import training_summary
from ntk_uq.estimators.weights import warn_of_small_weights
from ntk_uq.likelihoods import Categorical, Gaussian, Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.function_prior import FunctionPrior
from ntk_uq.networks.linearized import Linearized
from ntk_uq.networks.mlp import MLP
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction
from ntk_uq.selection.noise import estimate_noise
from ntk_uq.tables.encoder import Categorical as CategoricalFeatures
from ntk_uq.tables.encoder import TableEncoder, check_order, rows_of
from ntk_uq.tables.tails import CompressedTails

__all__ = [
    "Classifier",
    "Estimator",
    "Prediction",
    "Regressor",
    "SmoothedClassifier",
    "check_reg",
    "of_fitted",
]

Floats = NDArray[np.float64]
# Targets so many prior standard deviations large are a surprise; points at which these are taken.
_SURPRISING, _EXPECTED_AT = 10, 100
Prediction = GaussianPrediction | SamplePrediction
# Points by which a noise is estimated.
_MOST_FOR_NOISE = 3000


def of_fitted(path: str) -> Any:
    """An attribute of an estimator that its producer's result has; there is none before `fit`."""
    get = operator.attrgetter(path)

    def of(self: Any) -> Any:
        if "_fitted" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {path} before fit.")
        return get(self._fitted)

    return property(of)


def check_reg(reg: Any) -> None:
    """Refuse what is no regularisation."""
    if reg is None or isinstance(reg, str):
        raise ValueError(
            f"reg must be a finite number; got {shown(reg)}. The NTK estimators choose it from "
            'the data: give the reg_ of one that was fitted with reg="cv" or "evidence".'
        )
    checks.real("reg", reg, minimum=0.0)


class Estimator(BaseEstimator):
    """What every estimator shares: arguments, features, random state.

    It holds what its producer has fitted, `_fitted`, whose latents are in the network's units.
    """

    architecture: BaseArchitecture | None
    reg: Any
    random_state: Any
    progress: bool | None
    architecture_ = of_fitted("architecture")
    _fitted: Any
    categorical_features: CategoricalFeatures = "from_dtype"  # earlier files have none
    encoder_: TableEncoder | None = None
    _trained_on: dict[str, Any] | None = None  # earlier files have none
    # What the card of its file says of points that were held out, until it is fitted again.
    _held_out: list[dict[str, Any]] | None = None
    # Of earlier files.
    _scaler: StandardScaler | None = None
    _tails: CompressedTails | None = None
    # Squares of such features, summed, come near the largest double.
    _too_large = 1e150
    _takes_linearized = False
    # Whether what is fitted holds the training points.
    _keeps_points = True

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, those of the network as ``architecture__width``.

        An architecture never changes: the estimator then holds another, and whoever holds the old
        one keeps it.

        Parameters
        ----------
        **params
            Names and values.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter, or the architecture refuses the value.
        """
        prefix = "architecture__"
        inner = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        network = params.get("architecture", self.architecture)
        if inner:
            network = with_params(network, inner)
        super().set_params(**{k: v for k, v in params.items() if not k.startswith(prefix)})
        self.architecture = network
        return self

    @abstractmethod
    def predict_distribution(self, X: ArrayLike) -> Prediction:
        """Distribution of the latents at each test point."""

    # What a task says.

    @abstractmethod
    def _check_task(self) -> None:
        """Refuse arguments of the task."""

    @abstractmethod
    def _check_cells(self, X: Any, y: Any) -> Any:
        """Refuse what is missing or of another kind, before rows move; the targets."""

    @abstractmethod
    def _validated_data(self, X: Any, y: Any) -> tuple[Floats, Floats]:
        """Points, and targets [n, C] in the units that they came in."""

    @abstractmethod
    def _known_targets(self, y: ArrayLike) -> Floats:
        """Targets [m, C] of a fitted estimator's labels or values, as those of the fit."""

    @abstractmethod
    def _problem(
        self, X: Floats, targets: Floats, reg: float, weights: Floats | None = None
    ) -> Problem:
        """What a producer is asked, in the network's units and without a key."""

    @abstractmethod
    def _outcomes(self, targets: Floats) -> Floats:
        """What was observed, of targets that may be smoothed."""

    @abstractmethod
    def _in_units(self, latents: Any) -> Any:
        """Latents in units of the target."""

    @abstractmethod
    def _prediction_in_units(self, prediction: Any) -> Any:
        """A prediction in units of the target."""

    @property
    @abstractmethod
    def _observation_model(self) -> Likelihood:
        """The likelihood in units of the target."""

    @property
    @abstractmethod
    def _output_names(self) -> list[Any]:
        """A name for each output of the network."""

    # What all do alike.

    def _weighted_data(
        self, X: Any, y: Any, sample_weight: ArrayLike | None
    ) -> tuple[Floats, Floats, Floats | None]:
        """Validated points that count, targets, and how much they count; None if all alike."""
        self._scaler = self._tails = self.encoder_ = None
        if self._given is None:
            self.encoder_ = TableEncoder(self.categorical_features)
            X = self.encoder_.learn_categories(X)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
            y = self._check_cells(X, y)
            rows = np.flatnonzero(weights)
            weights = weights[rows]
            X, y = (_safe_indexing(values, rows) for values in indexable(X, y))
        points, targets = self._validated_data(X, y)
        labels, names = (vars(self).get(name) for name in ("classes_", "feature_names_in_"))
        self.__dict__.pop("_held_out", None)
        self._trained_on = training_summary(points, targets, labels, names, self.encoder_)
        weights = self._task_weights(targets, weights)
        if weights is not None:
            warn_of_small_weights(weights)
        return points, targets, weights

    def _task_weights(self, targets: Floats, weights: Floats | None) -> Floats | None:
        """The points' weights, times what the task has of its own."""
        return weights

    def __sklearn_is_fitted__(self) -> bool:
        return "_fitted" in vars(self)

    def _check_shared(self) -> None:
        if not (self.architecture is None or isinstance(self.architecture, BaseArchitecture)):
            raise ValueError(
                "architecture takes an ntk_uq architecture such as MLP(width=512), or None; got "
                f"{shown(self.architecture)}."
            )
        if isinstance(self.architecture, Linearized) and not self._takes_linearized:
            raise ValueError(
                f"{type(self).__name__} takes an architecture, to draw and train networks of it or "
                "for its kernel, and Linearized is of one trained network: it is for NTKClassifier "
                'and NTKRegressor, uncertainty="posterior" or "none".'
            )
        if self.progress not in (None, True, False):
            raise ValueError(f"progress must be True, False or None; got {shown(self.progress)}.")
        check_random_state(self.random_state)
        chosen = self.categorical_features
        if self._given is not None and not (
            chosen is None or (isinstance(chosen, str) and chosen == "from_dtype")
        ):
            raise ValueError(
                "categorical_features is for architecture=None, which encodes a table by itself. "
                "For an architecture of your own put TableEncoder(categorical_features=...) before "
                "the estimator in a pipeline."
            )

    @property
    def _stop(self) -> float | None:
        """Time at which training stops; None is its end."""
        time = getattr(self, "time", None)
        return None if time is None or time == np.inf else float(time)

    def _check_axes(self, X: Any) -> None:
        axes = getattr(X, "ndim", 2)
        if axes > 2 and not self._takes_images:
            raise ValueError(
                f"Found array with dim {axes}, where {type(self._network).__name__} takes tables, "
                "[points, features]. For images use ConvNet, or X.reshape(len(X), -1)."
            )

    @property
    def _network(self) -> BaseArchitecture:
        """The network that the arguments name."""
        return MLP() if self._given is None else self._given

    @property
    def _given(self) -> BaseArchitecture | None:
        """The network that the user gave; without one, features and targets are standardised."""
        return self.architecture

    def _learnt_inputs(self, X: Any, weights: Floats | None) -> Floats:
        """Features as the network sees them, and from now on will."""
        self._check_range("Features", X, Estimator._too_large)
        if self.encoder_ is not None:
            self.encoder_.learn_scales(X, weights)
        self._point_shape = X.shape[1:]
        return self._inputs(X)

    def _inputs(self, X: Floats, rows: Any = None) -> Floats:
        if self.encoder_ is not None:
            X = self.encoder_.features(X, rows)
        X = X if self._scaler is None else self._scaler.transform(X)
        X = X if self._tails is None else self._tails.transform(X)
        self._check_range("Features", X)
        return X

    def _traced_inputs(self, X: jax.Array) -> jax.Array:
        """Features as the network sees them, of arrays that may be traced and are not checked."""
        if self.encoder_ is not None:
            return self.encoder_.traced(X)
        # Of earlier files.
        if self._scaler is not None:
            X = (X - self._scaler.mean_.astype(X.dtype)) / self._scaler.scale_.astype(X.dtype)
        return X if self._tails is None else self._tails.traced(X)

    def _check_range(self, name: str, values: Floats, limit: float | None = None) -> None:
        values = np.asarray(values)  # of which np.abs would be another, and they may be large
        largest = max(np.nanmax(values, initial=0.0), -np.nanmin(values, initial=0.0))
        if not largest < (self._too_large if limit is None else limit):
            raise ValueError(
                f"{name} reach {largest:.1g}, and their products the end of the range of "
                "floating-point numbers. Scale them, to about 1 each."
            )

    def _validated(self, X: ArrayLike) -> Floats:
        return self._inputs(self._checked(X), rows_of(X))

    def _checked(self, X: ArrayLike) -> Floats:
        """Points as they were given, categories as codes."""
        check_is_fitted(self)
        if self.encoder_ is not None:
            check_order(self, X)
            X = self.encoder_.coded(X)
        check_numbers("X", X, missing=self.encoder_ is not None)
        if self._takes_images and np.ndim(X) != 1 + len(self._point_shape):
            shape = ", ".join(map(str, self._point_shape))
            raise ValueError(
                f"Points have the shape [m, {shape}], as those of fit; got {np.shape(X)}. Flat "
                f"images are X.reshape(-1, {shape})."
            )
        X = np.asarray(validate_data(self, X, reset=False, **self._accepted))
        if X.shape[1:] != self._point_shape:
            raise ValueError(
                f"Points have the shape {X.shape[1:]}; those of fit had {self._point_shape}."
            )
        return X

    def _check_held_out(self, X: Any, y: ArrayLike) -> None:
        check_held_out(self, X, y)

    @property
    def _accepted(self) -> dict[str, Any]:
        """How scikit-learn shall validate points."""
        finite: Any = True if self.encoder_ is None else "allow-nan"
        return {"dtype": np.float64, "ensure_all_finite": finite, "allow_nd": self._takes_images}

    @property
    def _accepted_by_fit(self) -> dict[str, Any]:
        """The same of `fit`, which copies points that it would keep, for they are the user's."""
        copies = self._keeps_points and self._given is not None
        return self._accepted | {"ensure_min_samples": 2, "copy": copies}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = self._given is None
        return tags

    @property
    def _takes_images(self) -> bool:
        return self._given is not None and self._given.ndim != 2

    def _key(self) -> jax.Array:
        return jax.random.key(int(check_random_state(self.random_state).randint(2**31 - 1)))


def _rows_for_noise(n: int) -> Any:
    """All of some thousand points, and of more a part at random: eigenvalues take n^3 operations.

    The same in every run.
    """
    if n <= _MOST_FOR_NOISE:
        return slice(None)
    return np.sort(np.random.default_rng(0).choice(n, _MOST_FOR_NOISE, replace=False))


class Classifier(ClassifierMixin, Estimator):
    """Class labels in, labels and probabilities out."""

    class_weight: Any = None  # earlier files have none
    # Of data that nobody has smoothed, and without a noise.
    _is_smoothed = False
    _seeks_noise = False

    def _validated_data(self, X: Any, y: Any) -> tuple[Floats, Floats]:
        y = self._check_cells(X, y)
        X, y = validate_data(self, X, y, **self._accepted_by_fit)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes in y; the data have 1 class "
                f"only, {shown(self.classes_[0])}."
            )
        return X, np.eye(len(self.classes_))[labels]

    def _known_targets(self, y: ArrayLike) -> Floats:
        classes = len(self.classes_)
        columns, _ = checks.class_columns(y, (len(np.asarray(y)), classes), self.classes_)
        return np.eye(classes)[columns]

    def _task_weights(self, targets: Floats, weights: Floats | None) -> Floats | None:
        if self.class_weight is None:
            return weights
        labels = np.argmax(targets, axis=1)
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            # scikit-learn's does not count weights before its version 1.7.
            sums = np.bincount(labels, weights)
            of_classes = sums.sum() / (len(sums) * sums)
        else:
            of_classes = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_[labels]
            )
        if not (np.all(of_classes > 0) and np.all(np.isfinite(of_classes))):
            raise ValueError(
                "class_weight must be positive and finite; got "
                f"{dict(zip(self.classes_.tolist(), of_classes.tolist(), strict=True))}. A class "
                "that shall not count is left out of X and y, or has sample_weight=0 at its points."
            )
        return of_classes[labels] * (1.0 if weights is None else weights)

    def _problem(
        self, X: Floats, targets: Floats, reg: float, weights: Floats | None = None
    ) -> Problem:
        points = self._learnt_inputs(X, weights)
        targets = self._smoothed(targets)
        return Problem(points, targets, Categorical(), reg, None, self._network, weights)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Class probabilities, averaged over the distribution of the predictor.

        Those of a point do not depend on which other points are asked for.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.

        Returns
        -------
        array of shape [m, C]
            Columns in the order of `classes_`; rows sum to one.
        """
        return self.predict_distribution(X).proba()

    def as_function(self) -> Callable[[Any], Answers]:
        """The fitted classifier as one jitted function, for programs in JAX.

        Everything that was fitted is a constant inside, the standardising of features included. It
        can be transformed like any other: ``jax.grad``, ``jax.vmap``, ``jax.export``. It computes
        in the precision of its points; with JAX's default, float32, probabilities differ from those
        of `predict_proba`, which computes in float64, by thousandths, or by some hundredths where
        a deep network is smooth or points are nearly equal.

        Returns
        -------
        callable
            ``function(X)`` of points [m, d] gives ``.proba`` [m, C], ``.total_uncertainty``,
            ``.aleatoric`` and ``.epistemic`` [m] in nats.

        Raises
        ------
        ValueError
            If predictions at new points take random numbers, as those of a `BayesianClassifier` do,
            or the table of fit had categories.
        """
        check_is_fitted(self)
        return as_function(self)

    def predict(self, X: ArrayLike) -> NDArray:
        """Most probable class of each point.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.

        Returns
        -------
        array of shape [m]
        """
        proba = self.predict_proba(X)
        return self.classes_[np.argmax(proba, axis=1)]

    @property
    def _output_names(self) -> list[Any]:
        return list(self.classes_)

    @property
    def _observation_model(self) -> Likelihood:
        return self._fitted.likelihood

    def _check_task(self) -> None:
        pass

    def _check_cells(self, X: Any, y: Any) -> Any:
        self._check_axes(X)
        check_numbers("X", X, missing=self.encoder_ is not None)
        return check_labels(y)

    def _smoothed(self, one_hot: Floats) -> Floats:
        return one_hot

    def _in_units(self, latents: Any) -> Any:
        return latents

    def _prediction_in_units(self, prediction: Any) -> Any:
        return prediction

    def _outcomes(self, targets: Floats) -> Floats:
        """One-hot labels of the targets."""
        return np.eye(targets.shape[1])[np.argmax(targets, axis=1)]


class SmoothedClassifier(Classifier):
    """A classifier that may smooth its labels, and so may do without regularisation."""

    label_smoothing: float

    @property
    def _is_smoothed(self) -> bool:  # type: ignore[override]
        return self.label_smoothing > 0

    def _check_task(self) -> None:
        checks.real("label_smoothing", self.label_smoothing, minimum=0.0)
        if not self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be below 1; got {shown(self.label_smoothing)}.")
        if self.reg == 0 and self.label_smoothing == 0 and self._stop is None:
            raise ValueError(
                "reg=0 with one-hot targets has no solution: the cross-entropy falls for ever as "
                "the logits grow, training leaves the lazy regime, and no kernel describes it. "
                "Set reg > 0 (reg=1.0 is the prior of a Bayesian), or make every class probability "
                "positive with label_smoothing, 0.1 for example, or stop at a time of training."
            )

    def _smoothed(self, one_hot: Floats) -> Floats:
        return (1 - self.label_smoothing) * one_hot + self.label_smoothing / one_hot.shape[1]


class Regressor(MultiOutputMixin, RegressorMixin, Estimator):
    """Real targets in, means and standard deviations out."""

    noise: float | None
    _is_smoothed = False
    # Latents in units of the target are shift + scale * the network's.
    _target_shift: Floats
    _target_scale: Floats

    @property
    def noise_(self) -> Floats:  # noqa: D102  (each class says what it is)
        # The network sees other units of it.
        if "_fitted" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no noise_ before fit.")
        return np.asarray(self._fitted.likelihood.noise) * self._target_scale

    def _validated_data(self, X: Any, y: Any) -> tuple[Floats, Floats]:
        y = self._check_cells(X, y)
        options = self._accepted_by_fit | {"y_numeric": True, "multi_output": True}
        X, y = validate_data(self, X, y, **options)
        self._single_output = np.ndim(y) == 1
        y = np.array(y, np.float64)
        return X, y[:, None] if self._single_output else y

    def _known_targets(self, y: ArrayLike) -> Floats:
        values = np.asarray(y, np.float64)
        return values.reshape(len(values), -1)

    def _problem(
        self, X: Floats, targets: Floats, reg: float, weights: Floats | None = None
    ) -> Problem:
        points = self._learnt_inputs(X, weights)
        self._check_range("Targets", targets, Estimator._too_large)
        targets = self._standardised(targets, weights)
        self._check_range("Targets", targets)
        self._warn_of_size(targets, points, reg)
        noise: Any
        if self.noise is None:
            self._warn_of_constant(targets)
            rows = _rows_for_noise(len(points))
            covariance = self._noise_prior(reg).covariance(points[rows])
            of_rows = None if weights is None else weights[rows]
            noise = estimate_noise(covariance, targets[rows], 1.0, of_rows)
        else:
            noise = self.noise / self._target_scale
        return Problem(points, targets, Gaussian(noise), reg, None, self._network, weights)

    def _standardised(self, y: Floats, weights: Floats | None) -> Floats:
        """Targets in the network's units: as they are for an architecture that the user gave.

        Those that are constant, up to rounding, have no standard deviation: their size is the unit.
        """
        self._target_shift, self._target_scale = np.zeros(y.shape[1]), np.ones(y.shape[1])
        if self._given is not None:
            return y
        scaler = StandardScaler().fit(y, sample_weight=weights)
        # The scaler finds what is constant up to rounding, and gives it the scale 1.
        constant = scaler.scale_ != np.sqrt(scaler.var_)
        size = np.where(scaler.mean_ == 0, 1.0, np.abs(scaler.mean_))
        self._target_shift = scaler.mean_
        self._target_scale = np.where(constant, size, scaler.scale_)
        return np.where(constant, 0.0, (y - self._target_shift) / self._target_scale)

    def _surprise(
        self, targets: Floats, points: Floats, reg: float
    ) -> tuple[np.floating, np.floating] | None:
        """Sizes of raw targets, and of what a network that is given expects, if far beyond it."""
        if self._given is None or isinstance(self.reg, str):
            return None
        try:
            variance = np.max(self._noise_prior(reg).variance(points[:_EXPECTED_AT]))
        except ValueError:  # it has no kernel, and what it expects is not known
            return None
        size, expected = np.max(np.sqrt(np.mean(targets**2, axis=0))), np.sqrt(variance)
        return (size, expected) if size > _SURPRISING * expected else None

    def _warn_of_size(self, targets: Floats, points: Floats, reg: float) -> None:
        found = self._surprise(targets, points, reg)
        if found is not None:
            warn_user(
                f"Targets are of size {found[0]:.3g}, and the prior of the network expects "
                f"{found[1]:.3g}: an architecture that you give sees targets as they are, "
                "and predictions stay near its prior's. Standardise them, (y - y.mean()) / "
                "y.std(), choose reg='evidence' with an NTKRegressor, or leave the architecture "
                "out, which standardises."
            )

    def _warn_of_constant(self, targets: Floats) -> None:
        constant = np.flatnonzero(np.all(targets == 0, axis=0))
        if constant.size:
            which = "" if self._single_output else f" in output {', '.join(map(str, constant))}"
            warn_user(
                f"All targets are equal{which}: they say nothing of noise and regularisation. "
                "noise_ is a hundredth of the prior's standard deviation, whose unit is the "
                "targets' size. Give the noise if you know it."
            )

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Mean of the predictor at each point.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.
        return_std : bool, default False
            Whether to return the standard deviation too.

        Returns
        -------
        mean : array of shape [m] or [m, C]
            As `y` was given.
        std : array of the same shape
            Standard deviation of the latent function, observation noise (`noise_`) not included.
            Only with `return_std`.
        """
        prediction = self.predict_distribution(X)
        columns = 0 if self._single_output else slice(None)
        mean = prediction.mean[:, columns]
        return (mean, prediction.std[:, columns]) if return_std else mean

    def _check_cells(self, X: Any, y: Any) -> Any:
        self._check_axes(X)
        check_numbers("X", X, missing=self.encoder_ is not None)
        check_numbers("y", y)
        return y

    def _noise_prior(self, reg: float) -> FunctionPrior:
        """The prior of the latents under which the noise is estimated."""
        return FunctionPrior(self._network, "ntk", reg)

    @property
    def _seeks_noise(self) -> bool:
        return self.noise is None

    def _outcomes(self, targets: Floats) -> Floats:
        return targets

    def _in_units(self, latents: Any) -> Any:
        return self._target_shift + self._target_scale * np.asarray(latents)

    def _prediction_in_units(self, prediction: Any) -> Any:
        model = self._observation_model
        if isinstance(prediction, SamplePrediction):
            return replace(prediction, samples=self._in_units(prediction.samples), likelihood=model)
        scale, joint_cov = self._target_scale, prediction.joint_cov
        if joint_cov is not None:
            joint_cov = scale[:, None, None] * joint_cov * scale
        cov = prediction.cov * np.outer(scale, scale)
        return GaussianPrediction(self._in_units(prediction.mean), cov, model, joint_cov)

    @property
    def _output_names(self) -> list[Any]:
        return list(range(len(self.noise_)))

    @property
    def _observation_model(self) -> Likelihood:
        return Gaussian(cast(Any, self.noise_))

    def _check_task(self) -> None:
        if self.noise is not None:
            Gaussian(checks.real("noise", self.noise, minimum=0.0))  # which refuses zero
        elif self.reg == 0:
            raise ValueError(
                "noise=None is estimated under the prior GP(0, Theta / reg), which reg=0 leaves "
                "without a scale. Set reg > 0, or give the noise."
            )

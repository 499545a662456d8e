"""The two tasks of the estimators: what targets are, and what users are told of predictions.

`Classifier` and `Regressor` validate data as scikit-learn asks, make a `Problem` of them, and put
what a producer's result says into the units of the target. To fit, and to choose what to fit, is
each estimator's own (docs/contributing, "Where things are").
"""

import operator
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self, cast

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ntk_uq._common import checks
from ntk_uq._common.warnings import warn_user
from ntk_uq.estimators.cells import check_labels, check_numbers
from ntk_uq.estimators.tails import CompressedTails
from ntk_uq.likelihoods import Categorical, Gaussian, Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.function_prior import FunctionPrior
from ntk_uq.networks.mlp import MLP
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction
from ntk_uq.selection.noise import estimate_noise

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
            f"reg must be a finite number; got {reg!r}. The NTK estimators choose it from "
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
    _scaler: StandardScaler | None
    _tails: CompressedTails | None = None  # earlier files have none
    # Squares of such features, summed, come near the largest double.
    _too_large = 1e150

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
            network = _with_params(network, inner)
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

    def __sklearn_is_fitted__(self) -> bool:
        return "_fitted" in vars(self)

    def _check_shared(self) -> None:
        if not (self.architecture is None or isinstance(self.architecture, BaseArchitecture)):
            raise ValueError(
                "architecture takes an ntk_uq architecture such as MLP(width=512), or None; got "
                f"{self.architecture!r}."
            )
        if self.progress not in (None, True, False):
            raise ValueError(f"progress must be True, False or None; got {self.progress!r}.")
        check_random_state(self.random_state)

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
        return MLP() if self.architecture is None else self.architecture

    def _learnt_inputs(self, X: Any, weights: Floats | None) -> Floats:
        """Features as the network sees them, and from now on will."""
        self._check_range("Features", X, Estimator._too_large)
        self._scaler = self._tails = None
        if self.architecture is None:
            self._scaler = StandardScaler().fit(X, sample_weight=weights)
            self._tails = CompressedTails.of(self._scaler.transform(X), weights)
        self._point_shape = X.shape[1:]
        return self._inputs(X)

    def _inputs(self, X: Floats) -> Floats:
        X = X if self._scaler is None else self._scaler.transform(X)
        X = X if self._tails is None else self._tails.transform(X)
        self._check_range("Features", X)
        return X

    def _check_range(self, name: str, values: Floats, limit: float | None = None) -> None:
        largest = np.max(np.abs(values))
        if not largest < (self._too_large if limit is None else limit):
            raise ValueError(
                f"{name} reach {largest:.1g}, and their products the end of the range of "
                "floating-point numbers. Scale them, to about 1 each."
            )

    def _validated(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        check_numbers("X", X)
        X = np.asarray(
            validate_data(self, X, dtype=np.float64, reset=False, allow_nd=self._takes_images)
        )
        if X.shape[1:] != self._point_shape:
            raise ValueError(
                f"Points have the shape {X.shape[1:]}; those of fit had {self._point_shape}."
            )
        return self._inputs(X)

    @property
    def _takes_images(self) -> bool:
        return self.architecture is not None and self.architecture.ndim != 2

    def _key(self) -> jax.Array:
        return jax.random.key(int(check_random_state(self.random_state).randint(2**31 - 1)))


def _with_params(network: Any, params: dict[str, Any]) -> Any:
    """Another architecture, with some parameters of its own."""
    if network is None:
        name, value = next(iter(params.items()))
        raise ValueError(
            f"architecture__{name} needs an architecture to change; architecture=None is MLP() on "
            f"standardised features. Give one, architecture=MLP({name}={value!r}) for example, in "
            "a pipeline behind StandardScaler() if the features are to be standardised still."
        )
    known = network.get_params() if isinstance(network, BaseArchitecture) else {}
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ValueError(
            f"Invalid parameter {unknown[0]!r} for architecture {network!r}. "
            f"Valid parameters are: {list(known)!r}."
        )
    return replace(network, **params)


def _rows_for_noise(n: int) -> Any:
    """All of some thousand points, and of more a part at random: eigenvalues take n^3 operations.

    The same in every run.
    """
    if n <= _MOST_FOR_NOISE:
        return slice(None)
    return np.sort(np.random.default_rng(0).choice(n, _MOST_FOR_NOISE, replace=False))


class Classifier(ClassifierMixin, Estimator):
    """Class labels in, labels and probabilities out."""

    # Of data that nobody has smoothed, and without a noise.
    _is_smoothed = False
    _seeks_noise = False

    def _validated_data(self, X: Any, y: Any) -> tuple[Floats, Floats]:
        y = self._check_cells(X, y)
        X, y = validate_data(
            self, X, y, dtype=np.float64, ensure_min_samples=2, allow_nd=self._takes_images
        )
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes in y; the data have 1 class "
                f"only, {self.classes_[0]!r}."
            )
        return X, np.eye(len(self.classes_))[labels]

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
        check_numbers("X", X)
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
            raise ValueError(f"label_smoothing must be below 1; got {self.label_smoothing!r}.")
        if self.reg == 0 and self.label_smoothing == 0:
            raise ValueError(
                "reg=0 with one-hot targets has no solution: the cross-entropy falls for ever as "
                "the logits grow, training leaves the lazy regime, and no kernel describes it. "
                "Set reg > 0 (reg=1.0 is the prior of a Bayesian), or make every class probability "
                "positive with label_smoothing, 0.1 for example."
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
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float64,
            y_numeric=True,
            multi_output=True,
            ensure_min_samples=2,
            allow_nd=self._takes_images,
        )
        self._single_output = np.ndim(y) == 1
        y = np.asarray(y, np.float64)
        return X, y[:, None] if self._single_output else y

    def _problem(
        self, X: Floats, targets: Floats, reg: float, weights: Floats | None = None
    ) -> Problem:
        points = self._learnt_inputs(X, weights)
        self._check_range("Targets", targets, Estimator._too_large)
        targets = self._standardised(targets, weights)
        self._check_range("Targets", targets)
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
        if self.architecture is not None:
            return y
        scaler = StandardScaler().fit(y, sample_weight=weights)
        # The scaler finds what is constant up to rounding, and gives it the scale 1.
        constant = scaler.scale_ != np.sqrt(scaler.var_)
        size = np.where(scaler.mean_ == 0, 1.0, np.abs(scaler.mean_))
        self._target_shift = scaler.mean_
        self._target_scale = np.where(constant, size, scaler.scale_)
        return np.where(constant, 0.0, (y - self._target_shift) / self._target_scale)

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
        check_numbers("X", X)
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
            checks.real("noise", self.noise, minimum=0.0)
            if self.noise == 0:
                raise ValueError(
                    "noise must be positive: it is the standard deviation of the observation noise."
                    " A small one, a thousandth of the targets' standard deviation for example, "
                    "nearly interpolates."
                )
        elif self.reg == 0:
            raise ValueError(
                "noise=None is estimated under the prior GP(0, Theta / reg), which reg=0 leaves "
                "without a scale. Set reg > 0, or give the noise."
            )

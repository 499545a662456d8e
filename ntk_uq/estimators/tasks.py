"""The two tasks of the estimators: what targets are, and what users are told of predictions.

`Classifier` and `Regressor` validate data and arguments as scikit-learn asks, turn labels or
targets into what a network is trained on, and leave `_fit` and `predict_distribution` to a producer
(docs/contributing, "Where things are").
"""

import numbers
import time
import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ntk_uq._common import checks
from ntk_uq._common.rules import own_rules
from ntk_uq.estimators.cells import check_labels, check_numbers
from ntk_uq.likelihoods import Categorical, Gaussian, Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.mlp import MLP
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction
from ntk_uq.selection.noise import estimate_noise

__all__ = ["Classifier", "Estimator", "Regressor", "SmoothedClassifier"]

Floats = NDArray[np.float64]


class Estimator(BaseEstimator):
    """What every estimator shares: arguments, features, random state."""

    architecture: BaseArchitecture | None
    reg: Any
    random_state: Any
    progress: bool | None
    _likelihood: Likelihood
    # Squares of such features, summed, come near the largest double.
    _too_large = 1e150
    # How much each training point counts, where points are weighted.
    _weights: Floats | None = None
    # Latents in units of the target are shift + scale * the network's.
    _target_shift: Floats | float = 0.0
    _target_scale: Floats | float = 1.0

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
    def predict_distribution(self, X: ArrayLike) -> GaussianPrediction | SamplePrediction:
        """Distribution of the latents at each test point."""

    @abstractmethod
    def _check_cells(self, X: Any, y: Any) -> Any:
        """Refuse what is missing or of another kind, before rows move; the targets."""

    @abstractmethod
    def _set_likelihood(self, likelihood: Likelihood) -> None: ...

    @abstractmethod
    def _outcomes(self, targets: Floats) -> Floats:
        """What was observed, of targets that may be smoothed."""

    @abstractmethod
    def _fit(self, X: Floats, targets: Floats) -> None:
        """Fit the producer to features and targets as the network sees them."""

    @property
    @abstractmethod
    def _output_names(self) -> list[Any]:
        """A name for each output of the network."""

    def _counted(self, X: Any, targets: Floats) -> tuple[Any, Floats]:
        """Points and targets as `_weights` counts them."""
        return X, targets

    def _check_arguments(self) -> None:
        if not (self.architecture is None or isinstance(self.architecture, BaseArchitecture)):
            raise ValueError(
                "architecture takes an ntk_uq architecture such as MLP(width=512), or None; got "
                f"{self.architecture!r}."
            )
        if self.progress not in (None, True, False):
            raise ValueError(f"progress must be True, False or None; got {self.progress!r}.")
        check_random_state(self.random_state)
        self._check_reg()

    def _check_axes(self, X: Any) -> None:
        axes = getattr(X, "ndim", 2)
        if axes > 2 and not self._takes_images:
            network = MLP() if self.architecture is None else self.architecture
            raise ValueError(
                f"Found array with dim {axes}, where {type(network).__name__} takes tables, "
                "[points, features]. For images use ConvNet, or X.reshape(len(X), -1)."
            )

    def _check_reg(self) -> None:
        if self.reg is None or isinstance(self.reg, str):
            raise ValueError(
                f"reg must be a finite number; got {self.reg!r}. The NTK estimators choose it from "
                'the data: give the reg_ of one that was fitted with reg="cv" or "evidence".'
            )
        checks.real("reg", self.reg, minimum=0.0)

    def _start_fit(self, X: Any) -> Floats:
        """Settle the network; the features as it sees them."""
        self.architecture_ = MLP() if self.architecture is None else self.architecture
        self._check_range("Features", X, Estimator._too_large)
        self._scaler = None
        if self.architecture is None:
            self._scaler = StandardScaler().fit(X, sample_weight=self._weights)
        self._point_shape = X.shape[1:]
        return self._inputs(X)

    def _inputs(self, X: Floats) -> Floats:
        X = X if self._scaler is None else self._scaler.transform(X)
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

    def _gaussian_prediction(
        self, mean: Any, cov: Any, joint_cov: Any = None
    ) -> GaussianPrediction:
        """The producer's moments, in units of the target."""
        scale = np.broadcast_to(self._target_scale, np.shape(mean)[-1:])
        if joint_cov is not None:
            joint_cov = scale[:, None, None] * np.asarray(joint_cov) * scale
        return GaussianPrediction(
            self._target_shift + self._target_scale * np.asarray(mean),
            np.asarray(cov) * np.outer(scale, scale),
            self._observation_model,
            joint_cov,
        )

    def _sample_prediction(self, samples: Any, **kwargs: Any) -> SamplePrediction:
        """The producer's draws, in units of the target."""
        samples = self._target_shift + self._target_scale * np.asarray(samples)
        return SamplePrediction(samples, self._observation_model, **kwargs)

    @property
    def _observation_model(self) -> Likelihood:
        """The likelihood in units of the target."""
        return self._likelihood


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


class Classifier(ClassifierMixin, Estimator):
    """Class labels in, labels and probabilities out."""

    _likelihood: Likelihood = Categorical()

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite.
        y : array-like of shape [n]
            Class labels, integers or strings, of at least two classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or an argument cannot be used; the message says why and what to do.
        """
        self._check_arguments()
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
        start = time.perf_counter()
        X, one_hot = self._counted(X, np.eye(len(self.classes_))[labels])
        with own_rules():
            self._fit(self._start_fit(X), self._targets(one_hot))
        self.fit_seconds_ = time.perf_counter() - start
        return self

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

    def _check_cells(self, X: Any, y: Any) -> Any:
        self._check_axes(X)
        check_numbers("X", X)
        return check_labels(y)

    def _targets(self, one_hot: Floats) -> Floats:
        return one_hot

    def _outcomes(self, targets: Floats) -> Floats:
        """One-hot labels of the targets."""
        return np.eye(targets.shape[1])[np.argmax(targets, axis=1)]

    def _set_likelihood(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood


class SmoothedClassifier(Classifier):
    """A classifier that may smooth its labels, and so may do without regularisation."""

    label_smoothing: float

    def _check_arguments(self) -> None:
        super()._check_arguments()
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

    def _targets(self, one_hot: Floats) -> Floats:
        return (1 - self.label_smoothing) * one_hot + self.label_smoothing / one_hot.shape[1]


class Regressor(MultiOutputMixin, RegressorMixin, Estimator):
    """Real targets in, means and standard deviations out."""

    noise: float | None
    noise_: Any

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite.
        y : array-like of shape [n] or [n, C]
            Targets, one column an output.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or an argument cannot be used; the message says why and what to do.
        """
        self._check_arguments()
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
        start = time.perf_counter()
        self._single_output = np.ndim(y) == 1
        y = np.asarray(y, np.float64)
        y = y[:, None] if self._single_output else y
        X, y = self._counted(X, y)
        X = self._start_fit(X)
        self._check_range("Targets", y, Estimator._too_large)
        targets = self._standardised(y)
        self._check_range("Targets", targets)
        noise: Any
        if self.noise is None:
            self._warn_of_constant(targets)
            noise = estimate_noise(self._prior_covariance(X), targets, 1.0, self._weights)
        else:
            noise = self.noise / self._target_scale
        self._set_likelihood(Gaussian(noise))
        with own_rules():
            self._fit(X, targets)
        self.fit_seconds_ = time.perf_counter() - start
        return self

    def _standardised(self, y: Floats) -> Floats:
        """Targets in the network's units: as they are for an architecture that the user gave.

        Those that are constant, up to rounding, have no standard deviation: their size is the unit.
        """
        self._target_shift, self._target_scale = np.zeros(y.shape[1]), np.ones(y.shape[1])
        if self.architecture is not None:
            return y
        scaler = StandardScaler().fit(y, sample_weight=self._weights)
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
            warnings.warn(
                f"All targets are equal{which}: they say nothing of noise and regularisation. "
                "noise_ is a hundredth of the prior's standard deviation, whose unit is the "
                "targets' size. Give the noise if you know it.",
                UserWarning,
                stacklevel=3,
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

    def _prior_covariance(self, X: Floats) -> Floats:
        """Covariance of the latents under which the noise is estimated."""
        reg = float(self.reg) if isinstance(self.reg, numbers.Real) else 1.0
        return self.architecture_.kernels(X).ntk / reg

    def _set_likelihood(self, likelihood: Any) -> None:
        self._likelihood = likelihood
        self.noise_ = np.asarray(likelihood.noise) * self._target_scale

    def _outcomes(self, targets: Floats) -> Floats:
        return targets

    @property
    def _output_names(self) -> list[Any]:
        return list(range(len(self.noise_)))

    @property
    def _observation_model(self) -> Likelihood:
        return Gaussian(self.noise_)

    def _check_arguments(self) -> None:
        super()._check_arguments()
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

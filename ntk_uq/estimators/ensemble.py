"""The finite ensemble as scikit-learn estimators."""

import os
import time
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ntk_uq import ensemble
from ntk_uq._common import checks
from ntk_uq._common.checkpoint import check_directory
from ntk_uq._common.rules import own_rules
from ntk_uq._common.warnings import LazinessWarning, warn_user
from ntk_uq.estimators.strength import warn_of_strong_reg
from ntk_uq.estimators.tasks import (
    Estimator,
    Regressor,
    SmoothedClassifier,
    check_reg,
    of_fitted,
)
from ntk_uq.estimators.weights import counted
from ntk_uq.lazy import kernel_change
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import SamplePrediction

__all__ = ["EnsembleClassifier", "EnsembleRegressor"]


# Where the kernel is compared, and the change from which on nobody would call training lazy.
_PROBES, _LARGEST_CHANGE = 8, 1.0


class _Ensemble(Estimator):
    """What both have of the finite ensemble: networks to train."""

    _too_large = 1e18  # of single precision
    n_members: int
    uncertainty: ensemble.Uncertainty
    tol: float
    max_iter: int
    optimizer: Any
    batch_size: int | None
    time: float | None
    memory: int | None
    warm_start: bool
    checkpoint: str | os.PathLike | None
    _fitted: ensemble.FittedEnsemble
    _keeps_points = False  # which may be a file far larger than memory

    ensemble_ = of_fitted("trained")
    n_iter_ = of_fitted("trained.n_iter")
    converged_ = of_fitted("trained.converged")
    objective_ = of_fitted("trained.objective")
    grad_norm_ = of_fitted("trained.grad_norm")

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite; without an architecture a table with columns of
            categories and gaps too, as a data frame holds them.
        y : array-like of shape [n], or [n, C] for regression on C outputs
            Class labels, or real targets.
        sample_weight : array-like of shape [n], optional
            Weights of the points' losses: 2 counts a point twice, 0 leaves it out. Their sum is
            how many points there are, against which `reg` stands: weights k times as large are
            `reg` k times as small. Weights that sum to one, as AdaBoost's, make `reg` n times too
            strong: multiply them by n, or divide `reg` by n where they are not yours to change.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or an argument cannot be used; the message says why and what to do.

        Warns
        -----
        UserWarning
            If the weights' sum is below a tenth of the number of points: `reg` is then ten times
            as strong as without weights, or more.
            If predictions at training points hardly differ from one another, as a `reg` that was
            given holds them where they start.
        """
        self._check_arguments()
        points, targets, weights, rows = counted(*self._weighted_data(X, y, sample_weight))
        start = time.perf_counter()
        with own_rules():
            problem = self._problem(points, targets, self.reg, weights)
            problem = replace(problem, key=self._key())
            earlier = vars(self).get("_fitted") if self.warm_start else None
            self._fitted = self._solved(problem, n_rows=len(rows), earlier=earlier)
            self._warn_of_movement(problem.points)
        self.fit_seconds_ = time.perf_counter() - start
        warn_of_strong_reg(self, problem)
        return self

    def predict_distribution(self, X: ArrayLike) -> SamplePrediction:
        """Latents (logits) of every member at each test point.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.

        Returns
        -------
        SamplePrediction
            Its draws are functions, jointly over the test points.
        """
        points = self._validated(X)
        return self._prediction_in_units(self._fitted.latents(points))

    def _warn_of_movement(self, points: Any) -> None:
        """Of a network of the user's own, whose parameterisation may not be that of the theory."""
        network = self.architecture_
        if not network.holds_functions:
            return
        before, after = self.ensemble_.member(0)
        change = kernel_change(network, before, after, points[:_PROBES])
        if not change < _LARGEST_CHANGE:
            own = getattr(network, "parameterization", None) == "own"
            scaled = "weights of size one with their scale in the forward pass"
            cure = 'parameterization="ntk"' if own else scaled
            warn_user(
                f"The tangent kernel of {type(network).__name__} changed by {change:.3g} times its "
                f"norm in training (the first member, at {min(len(points), _PROBES)} training "
                "points): it is not lazy, and neither kernels nor the theory of reg and "
                "uncertainty describe it. The ensemble is one of networks that learn features. "
                f"For the lazy regime take a wider network, a larger reg, or {cure} (docs, "
                "Your own network).",
                LazinessWarning,
            )

    def _solved(
        self,
        problem: Problem,
        scales: float = 1.0,
        *,
        n_rows: int | None = None,
        earlier: ensemble.FittedEnsemble | None = None,
    ) -> ensemble.FittedEnsemble:
        """Train on the problem of so many rows, or all that are left; features have no scales."""
        producer, n = self._producer(), len(problem.points)
        if self.batch_size is not None and (n_rows is None or self.batch_size <= n_rows):
            # All of them, where fewer are distinct.
            producer = replace(producer, batch_size=min(self.batch_size, n))
        return producer.fit(problem, progress=self.progress, warm_start=earlier)

    @property
    def _accepted_by_fit(self) -> dict[str, Any]:
        """Single precision too, which may be a file: `counted` makes the one copy in double."""
        accepted = super()._accepted_by_fit
        return accepted if self._given is None else accepted | {"dtype": (np.float64, np.float32)}

    def _producer(self) -> ensemble.FiniteEnsemble:
        return ensemble.FiniteEnsemble(
            n_members=self.n_members,
            uncertainty=self.uncertainty,
            tol=self.tol,
            max_iter=self.max_iter,
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            time=self._stop,
            memory=self.memory,
            checkpoint=self.checkpoint,
        )

    def _check_arguments(self) -> None:
        self._check_shared()
        check_reg(self.reg)
        self._check_task()
        checks.uncertainty(self.uncertainty)
        if self.time is not None and self.time != np.inf:
            checks.real("time", self.time, minimum=0.0)
        for name in ("n_members", "max_iter"):
            checks.count(name, getattr(self, name))
        checks.real("tol", self.tol, minimum=0.0)
        check_directory(self.checkpoint)
        for name in ("batch_size", "memory"):
            if getattr(self, name) is not None:
                checks.count(name, getattr(self, name))
        if self.optimizer is not None and not hasattr(self.optimizer, "update"):
            raise ValueError(
                "optimizer takes an optax optimizer, optax.adam(0.01) for example, or None; got "
                f"{self.optimizer!r}."
            )


class EnsembleClassifier(_Ensemble, SmoothedClassifier):
    r"""Finite ensemble: wide networks trained from independent random initialisations.

    Each minimises the softmax cross-entropy plus :math:`\tfrac{reg}{2}\|\theta - \theta_0\|^2` to
    convergence; all are trained side by side, in single precision.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network. None takes ``MLP()`` on features that are standardised by the training data,
        extreme values being compressed (docs, "The defaults"); a network that you give sees the
        features as they are.
    n_members : int, default 32
        Number of networks.
    reg : float, default 1.0
        As in `NTKClassifier`.
    uncertainty : {"initialization", "posterior", "none"}, default "initialization"
        Whose spread. "initialization": that of networks over their random initialisation.
        "posterior": approximate posterior samples, members start from functions of the tangent
        kernel's prior, and their labels carry noise. "none": shifted networks f - f0, each the
        posterior mode.
    label_smoothing : float, default 0.0
        As in `NTKClassifier`.
    tol, max_iter : float, int, default 1e-4, 1000
        Criterion of convergence, and the limit of iterations: `ensemble.train_ensemble` says what
        they promise.
    optimizer : optax.GradientTransformation, optional
        Takes the place of conjugate gradients, which need no learning rate.
    batch_size : int, optional
        Points in a mini-batch of `optimizer`.
    time : float, optional
        Where training stops, as in `NTKClassifier`; `max_iter` limits the steps of gradient flow.
    memory : int, optional
        Bytes that training may take on each device. None takes half of what is free.
    warm_start : bool, default False
        Whether `fit` keeps the members of the last `fit`, on the same data, and trains only those
        that `n_members` has more.
    checkpoint : path, optional
        Directory of the results so far: a `fit` that was killed goes on from there.
    class_weight : "balanced", dict or None, default None
        Weight of each class, times those of the points: "balanced" gives all classes the same sum,
        the number of points over that of classes; a dict gives each label's, 1 where it has none.
    categorical_features : "from_dtype", sequence or None, default "from_dtype"
        Which columns hold categories, without an architecture: as in `TableEncoder`, which also
        fills gaps. A network that you give takes numbers only; put the encoder before it.
    random_state : int, RandomState or None, default 0
        Decides the initialisations. A larger ensemble keeps the members of a smaller one.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    classes_ : array of shape [C]
        Class labels.
    ensemble_ : ensemble.TrainedEnsemble
        The trained networks.
    n_iter_, converged_, objective_, grad_norm_ : arrays of shape [n_members]
        Iterations taken, whether the criterion of `ensemble.train_ensemble` was met, objective in
        nats, and norm of its gradient.
    encoder_ : TableEncoder or None
        What makes features of a table, without an architecture.
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    ConvergenceWarning
        Names members that did not converge. In mini-batches training ends after `max_iter` passes,
        and only members that diverged are named.
    LazinessWarning
        If a network of your own has left the lazy regime: its tangent kernel changed by more than
        its norm (`lazy.kernel_change`).

    References
    ----------
    docs/theory, "Objective", "Relation to Bayes" and "Training finite networks".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ntk_uq import MLP, EnsembleClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = EnsembleClassifier(MLP(width=64), n_members=4).fit(X[::2], y[::2])
    >>> clf.predict_distribution(X[1::2]).samples.shape
    (4, 75, 3)
    """

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        n_members: int = 32,
        reg: float = 1.0,
        uncertainty: ensemble.Uncertainty = "initialization",
        label_smoothing: float = 0.0,
        tol: float = 1e-4,
        max_iter: int = 1000,
        optimizer: Any = None,
        batch_size: int | None = None,
        time: float | None = None,
        memory: int | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike | None = None,
        class_weight: Any = None,
        categorical_features: Any = "from_dtype",
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.n_members = n_members
        self.reg = reg
        self.uncertainty = uncertainty
        self.label_smoothing = label_smoothing
        self.tol = tol
        self.max_iter = max_iter
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.time = time
        self.memory = memory
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.class_weight = class_weight
        self.categorical_features = categorical_features
        self.random_state = random_state
        self.progress = progress


class EnsembleRegressor(_Ensemble, Regressor):
    r"""Finite ensemble for regression: wide networks trained from random initialisations.

    Each minimises squared error / (2 noise^2) plus :math:`\tfrac{reg}{2}\|\theta - \theta_0\|^2`
    to convergence; all are trained side by side, in single precision.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network. None takes ``MLP()``, on features and targets that are standardised by the
        training data, extreme values of features being compressed (docs, "The defaults"); a
        network that you give sees both as they are.
    n_members : int, default 32
        Number of networks.
    reg : float, default 1.0
        As in `NTKRegressor`.
    uncertainty : {"initialization", "posterior", "none"}, default "initialization"
        As in `EnsembleClassifier`.
    noise : float, optional
        As in `NTKRegressor`; None needs an architecture with a kernel.
    tol, max_iter, optimizer, batch_size, time, memory, warm_start, checkpoint
        As in `EnsembleClassifier`.
    categorical_features, random_state, progress
        As in `EnsembleClassifier`.

    Attributes
    ----------
    noise_ : array of shape [C]
        Standard deviation of the observation noise of each output, in the units of the target.
    ensemble_, n_iter_, converged_, objective_, grad_norm_
        As in `EnsembleClassifier`.
    encoder_, n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    ConvergenceWarning
        Names members that did not converge.

    References
    ----------
    docs/theory, "Gaussian likelihood".

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ntk_uq import MLP, EnsembleRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = EnsembleRegressor(n_members=4, noise=50.0).fit(X[::4], y[::4])
    >>> mean, std = reg.predict(X[1::4], return_std=True)
    >>> mean.shape, std.shape
    ((111,), (111,))
    """

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        n_members: int = 32,
        reg: float = 1.0,
        uncertainty: ensemble.Uncertainty = "initialization",
        noise: float | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        optimizer: Any = None,
        batch_size: int | None = None,
        time: float | None = None,
        memory: int | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike | None = None,
        categorical_features: Any = "from_dtype",
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.n_members = n_members
        self.reg = reg
        self.uncertainty = uncertainty
        self.noise = noise
        self.tol = tol
        self.max_iter = max_iter
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.time = time
        self.memory = memory
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.categorical_features = categorical_features
        self.random_state = random_state
        self.progress = progress

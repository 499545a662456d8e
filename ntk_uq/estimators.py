"""The scikit-learn face: estimators that answer one question by three routes.

An estimator is a task (`_tasks`: what targets are, what users are told) and a producer (`_NTK`,
`_Ensemble`, `_Bayesian`: how the distribution of the latents comes about), which knows of the task
only the targets and the likelihood. Validation happens there, once; below are arrays only. Kernels
and posteriors run in float64 and networks train in float32, whatever the user's JAX configuration,
which is not touched.
"""

import numbers
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ntk_uq import _checks, analytic, ensemble, selection
from ntk_uq._machine import memory_limit
from ntk_uq._progress import progress_bar
from ntk_uq._rules import own_rules
from ntk_uq._tasks import Classifier, Estimator, Regressor, SmoothedClassifier
from ntk_uq.architectures import MLP, BaseArchitecture, Kernels
from ntk_uq.likelihoods import Gaussian, Weighted
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

__all__ = [
    "BayesianClassifier",
    "BayesianRegressor",
    "EnsembleClassifier",
    "EnsembleRegressor",
    "NTKClassifier",
    "NTKRegressor",
]

Floats = NDArray[np.float64]

# Above this distance to the optimum, in nats, latents may be off by a hundredth of a posterior
# standard deviation, and the user is told.
_LARGEST_GAP = 5e-5
# Above this one they may be off by a standard deviation: that is no solution.
_USELESS_GAP = 0.5
# Above this total variation of class probabilities, in the mean over training points, the closed
# form is no approximation: docs, "Closed form or draws".
_LARGEST_ERROR = 0.1
# Test points whose kernels with the training points are held at once.
_POINTS_AT_ONCE = 1024
# And numbers in an array over test points, training points and outputs: 2**23 doubles are 64 MiB.
_ENTRIES_AT_ONCE = 2**23


class _NTK(Estimator):
    """The infinite ensemble as a producer."""

    uncertainty: analytic.Uncertainty
    method: Literal["exact", "gaussian"]
    n_draws: int
    tune: Sequence[str]
    predictor_: Any
    # How reg is chosen when nothing is said, and what else may be.
    _criterion: Literal["evidence", "cv"]
    _tunable = ("depth", "w_std", "b_std", "scales")

    @own_rules()
    def predict_distribution(
        self, X: ArrayLike, *, joint: bool = False
    ) -> GaussianPrediction | SamplePrediction:
        """Distribution of the latents (logits) at each test point.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.
        joint : bool, default False
            Whether the prediction is of functions, jointly over the test points: draws of
            method="exact", and `joint_cov` of method="gaussian". By default it is right at each
            point, and a function of that point alone.

        Returns
        -------
        GaussianPrediction or SamplePrediction
            By `method`; of uncertainty="none" the former, without spread.
        """
        X = self._validated(X)
        if joint:
            return self._joint_prediction(X)
        entries = len(self._X) * self.predictor_.alpha.shape[-1]
        size = min(_POINTS_AT_ONCE, max(1, _ENTRIES_AT_ONCE // entries))
        blocks = [X[start : start + size] for start in range(0, len(X), size)]
        with jax.enable_x64(True):
            if self.method == "gaussian":
                parts = [self.predictor_.moments(*self._kernels_at(block)) for block in blocks]
                means, covs = zip(*parts, strict=True)
                return self._gaussian_prediction(np.concatenate(means), np.concatenate(covs))
            draws = [self.predictor_.latents(*self._kernels_at(block)) for block in blocks]
            return self._of_draws(np.concatenate(draws, axis=1), joint=False)

    def _of_draws(self, latents: Any, *, joint: bool) -> GaussianPrediction | SamplePrediction:
        """The one solution of "none" is known to have no spread, as a single draw is not."""
        if self.uncertainty != "none":
            return self._sample_prediction(latents, joint=joint)
        mean = np.asarray(latents)[0]
        return self._gaussian_prediction(mean, np.zeros((*mean.shape, mean.shape[1])))

    @own_rules()
    def sample_functions(self) -> Any:
        """Draws of the predictor as functions, to be evaluated anywhere, later, and consistently.

        Returns
        -------
        callable
            ``functions(X)`` gives the latents (logits) of every draw at m points, [S, m, C]. The
            functions remember where they were evaluated: points of different calls are jointly
            distributed as points of one. Needs method="exact". See `analytic.FunctionDraws`.
        """
        check_is_fitted(self)
        if self.method != "exact":
            raise ValueError(f'Functions are drawn by method="exact"; this is {self.method!r}.')

        def kernels(x1: Any, x2: Any) -> Kernels:
            return self.architecture_.kernels(x1, x2)

        with jax.enable_x64(True):
            key = jax.random.fold_in(self._draw_key, 1)
            draws = analytic.FunctionDraws(key, kernels, self._X, self.predictor_)

        def functions(X: ArrayLike) -> Floats:
            inputs = self._validated(X) * self.feature_scales_
            with jax.enable_x64(True):
                return self._sample_prediction(draws(inputs)).samples

        return functions

    def _kernels_at(self, X: Floats) -> tuple[Kernels, Kernels]:
        """Kernels of test points with the training points, and of each with itself."""
        X = X * self.feature_scales_
        return self.architecture_.kernels(X, self._X), self.architecture_.kernel_diag(X)

    def _joint_prediction(self, X: Floats) -> GaussianPrediction | SamplePrediction:
        X = X * self.feature_scales_
        kernels = self.architecture_.kernels(X, self._X), self.architecture_.kernels(X)
        with jax.enable_x64(True):
            if self.method == "gaussian":
                mean, joint = self.predictor_.joint_moments(*kernels)
                cov = np.einsum("mcmd->mcd", joint)
                return self._gaussian_prediction(mean, cov, joint)
            key = jax.random.fold_in(self._draw_key, 1)
            latents = self.predictor_.joint_latents(key, *kernels)
            return self._of_draws(latents, joint=True)

    def _fit(self, X: Floats, targets: Floats) -> None:
        self._refuse_too_large(*targets.shape)
        self._choose(X, targets)
        self._X = X * self.feature_scales_
        self.discrepancy_ = None
        with progress_bar("kernels", 1, self.progress) as progress:
            kernels = self.architecture_.kernels(self._X, progress=progress)
        with jax.enable_x64(True):
            problem = (kernels, jnp.asarray(targets), self.reg_, self._likelihood, self.uncertainty)
            if self.method == "gaussian":
                self.predictor_ = _numpy_leaves(analytic.gaussian_predictor(*problem))
                self.jitter_ = 0.0
                self._check_solution(self.predictor_.gap[None])
                self.discrepancy_ = self.predictor_.discrepancy
                _warn_of_first_order(self.discrepancy_, 'Use method="exact"', self.reg_)
                return
            self._draw_key = self._key()
            with progress_bar("infinite ensemble", self.n_draws, self.progress) as progress:
                predictor = analytic.exact_predictor(
                    jax.random.fold_in(self._draw_key, 0), *problem, self.n_draws, progress=progress
                )
            if self._n_corrections:
                correction_key = jax.random.fold_in(self._draw_key, 2)
                predictor = analytic.correct_draws(
                    correction_key, predictor, targets, self._likelihood, self._n_corrections
                )
            self.predictor_ = _numpy_leaves(predictor)
            self.jitter_ = self.predictor_.jitter
            self._check_solution(self.predictor_.gap)

    def _check_solution(self, gap: Floats) -> None:
        """Right or refused: no silent half-solution where a kernel is too wide for its reg."""
        leaves = jax.tree.leaves(self.predictor_)
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            raise ValueError(
                f"reg={self.reg_:.3g} is too small for kernels this large: their range exceeds "
                "double precision. Raise reg, or scale the features (about 1 each)."
            )
        unsolved = gap > _LARGEST_GAP
        if np.any(unsolved):
            message = (
                f"{np.sum(unsolved)} of {len(gap)} solutions are up to {np.max(gap):.1g} nats from "
                f"their optimum: with reg={self.reg_:.3g} the problem is too ill-conditioned for "
                "the solver. Raise reg, or scale the features (about 1 each), or see whether equal "
                "rows contradict each other."
            )
            if np.max(gap) > _USELESS_GAP:
                raise ValueError(message)
            warnings.warn(message, ensemble.ConvergenceWarning, stacklevel=4)

    def _refuse_too_large(self, n: int, outputs: int) -> None:
        needed = analytic.estimate_memory(n, outputs, self.n_draws, self.method, self.uncertainty)
        present = memory_limit()
        if needed > present:
            raise MemoryError(
                f"{n} training points with {outputs} outputs take {needed / 2**30:.1f} GiB by "
                f"method={self.method!r}, and this machine has {present / 2**30:.1f} GiB. Fit a "
                "part of the points (memory grows with their square), "
                + (
                    "fewer draws, or train a finite ensemble."
                    if self.method == "exact"
                    else 'or use method="exact", or train a finite ensemble.'
                )
            )

    def _choose(self, X: Floats, targets: Floats) -> None:
        """Settle reg, and the parameters of the kernel where asked."""
        self.feature_scales_: Any = 1.0
        automatic = self.reg is None and self.architecture is None
        criterion = self._criterion if automatic else self.reg
        told = np.any(targets != 0, axis=0)  # an output that never moves has no say
        if criterion is None or isinstance(criterion, numbers.Real) or not told.any():
            self.reg_ = float(criterion) if isinstance(criterion, numbers.Real) else 1.0
            return
        likelihood: Any = self._likelihood
        if not told.all():
            targets, likelihood = targets[:, told], Gaussian(likelihood.noise[told])
        tune = ("depth",) if automatic else tuple(self.tune)
        if criterion == "evidence" and getattr(self, "noise", 1.0) is None:
            tune = (*tune, "noise")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with jax.enable_x64(True), progress_bar("choosing reg", 1, self.progress) as progress:
            choice = selection.choose(
                np.random.default_rng(seed),
                self.architecture_,
                X,
                self._outcomes(targets),
                likelihood,
                criterion,
                uncertainty=self.uncertainty,
                tune=tune,
                targets=targets,
                progress=progress,
            )
        self.architecture_, self.reg_, self.reg_curve_ = (
            choice.architecture,
            choice.reg,
            choice.curve,
        )
        self.feature_scales_ = choice.scales
        likelihood = choice.likelihood
        if not told.all():
            noise = np.array(cast(Gaussian, self._likelihood).noise)
            noise[told] = cast(Gaussian, likelihood).noise
            likelihood = Gaussian(cast(Any, noise))
        self._set_likelihood(likelihood)

    def _check_reg(self) -> None:
        if isinstance(self.tune, str) or not isinstance(self.tune, Sequence):
            raise ValueError(
                f'tune takes a tuple of names, ("depth",) for example; got {self.tune!r}.'
            )
        tune = tuple(self.tune)
        unknown = [name for name in tune if name not in self._tunable]
        if unknown:
            raise ValueError(f"tune takes names among {self._tunable}; got {unknown[0]!r}.")
        if self.reg is None and self.architecture is None and not tune:
            return
        if not isinstance(self.reg, str):
            if tune:
                raise ValueError(
                    f'tune={tune} needs a criterion: reg="evidence", or reg="cv" for the depth; '
                    f"got reg={self.reg!r}."
                )
            if self.reg is not None:
                super()._check_reg()
            return
        if self.reg not in ("evidence", "cv"):
            raise ValueError(f'reg must be a number, "evidence" or "cv"; got {self.reg!r}.')
        if self.reg == "cv" and set(tune) - {"depth"}:
            raise ValueError(
                f'reg="cv" can tune the depth only, by trying each; got tune={tune}. The others '
                'are found by a gradient, that of reg="evidence".'
            )
        self._check_tunable(MLP() if self.architecture is None else self.architecture, tune)
        if self.reg == "evidence" and getattr(self, "label_smoothing", 0) > 0:
            raise ValueError(
                'reg="evidence" needs labels as they are: of smoothed ones there is no probability '
                'of the data. Use reg="cv", or label_smoothing=0.'
            )

    def _check_tunable(self, network: Any, tune: tuple[str, ...]) -> None:
        missing = [name for name in tune if name != "scales" and not hasattr(network, name)]
        fixed = {"w_std", "b_std"} & set(tune) if not isinstance(network, MLP) else set()
        if missing or fixed:
            raise ValueError(
                f"{type(network).__name__} has no {(missing or sorted(fixed))[0]} to tune; an MLP "
                "has depth, w_std and b_std, and any architecture can have scales tuned."
            )
        if "b_std" in tune and network.b_std == 0:
            raise ValueError("b_std=0 stays 0 on a logarithmic scale: start from 0.1, or so.")

    def _check_arguments(self) -> None:
        super()._check_arguments()
        _checks.uncertainty(self.uncertainty)
        if self.uncertainty == "posterior" and self.reg == 0:
            raise ValueError(
                'uncertainty="posterior" belongs to the prior GP(0, Theta / reg), whose variance '
                "is infinite at reg=0. Set reg > 0."
            )
        if self.method not in ("exact", "gaussian"):
            raise ValueError(f'method must be "exact" or "gaussian"; got {self.method!r}.')
        _checks.count("n_draws", self.n_draws)
        if self._n_corrections:
            _checks.count("n_trajectories", self._n_corrections)
            if (self.uncertainty, self.method) != ("posterior", "exact"):
                raise ValueError(
                    'n_trajectories is for uncertainty="posterior" and method="exact", whose draws '
                    "they bring nearer to the posterior; set it to 0."
                )

    @property
    def _n_corrections(self) -> int:
        return getattr(self, "n_trajectories", 0)  # a regressor's draws are exact


class NTKClassifier(_NTK, SmoothedClassifier):
    r"""Infinite ensemble of wide networks, from the NTK and the NNGP kernel.

    The distribution, over random initialisations, of a network of infinite width trained on
    softmax cross-entropy with :math:`\tfrac{reg}{2}\|\theta - \theta_0\|^2`, without training one.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network. None takes ``MLP()`` on features that are standardised by the mean and
        standard deviation of the training data; a network that you give sees the features as
        they are.
    reg : float, "evidence", "cv" or None, default None
        Strength of the pull towards the initialisation, against a sum over data of the loss in
        nats; 1 is the Bayesian prior N(theta_0, I). Zero needs `label_smoothing` > 0.
        "evidence" maximises Laplace's approximation of the evidence, "cv" the log probability of
        held-out labels in 5 folds; both use at most 600 points, taken at random. None is 1.0 for
        an architecture that you give; without one it is "cv", the depth being chosen too.
    uncertainty : {"initialization", "posterior", "none"}, default "initialization"
        Whose spread: "initialization" is that of networks over their random initialisation;
        "posterior" that of the Bayesian posterior, to first order; "none" has none, and is the
        posterior's mode. See docs/theory, "Relation to Bayes".
    method : {"exact", "gaussian"}, default "exact"
        "exact" solves the convex problem for each of `n_draws` prior functions; "gaussian" is the
        closed form, exact for reg=0 and to first order in the prior function otherwise.
    n_draws : int, default 256
        Number of draws of method="exact".
    n_trajectories : int, default 0
        Hamiltonian trajectories that bring each draw of uncertainty="posterior" nearer to the
        posterior, beyond first order: see `analytic.correct_draws`. One removes most of what first
        order leaves, for a sixth more time to as much again; for reg far below 1 take 16.
    label_smoothing : float, default 0.0
        Targets are (1 - label_smoothing) one-hot + label_smoothing / C.
    tune : sequence of {"depth", "w_std", "b_std", "scales"}, default ()
        What to choose together with `reg`: the depth by either criterion; by the evidence, whose
        gradient finds them, the scales of weights and biases of an `MLP`, and a scale for each
        feature (automatic relevance determination).
    random_state : int, RandomState or None, default 0
        Decides the draws of method="exact".
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    classes_ : array of shape [C]
        Class labels.
    reg_ : float
        Regularisation.
    architecture_ : architecture
        The network, with what was chosen of it.
    feature_scales_ : array of shape [d], or 1.0
        Factor of each feature.
    reg_curve_ : selection.RegCurve
        Where `reg` was chosen: the criterion along it, for `plots.plot_reg_curve`.
    predictor_ : analytic.ExactPredictor or analytic.GaussianPredictor
        The functional layer's predictor, which takes kernels.
    jitter_ : float
        What was added to the diagonal of the training points' NNGP kernel to draw from it; zero
        unless it was singular, as with duplicate rows.
    discrepancy_ : analytic.Discrepancy or None
        With method="gaussian": how far the closed form is from exact solutions, measured at the
        training points on 32 draws. None with method="exact".
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    FirstOrderWarning
        If the closed form's class probabilities are far from those of exact solutions: by more
        than 0.1 in total variation, in the mean over training points.

    References
    ----------
    docs/theory, "The Gaussian predictor" and "Exact push-forward".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ntk_uq import NTKClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = NTKClassifier().fit(X[::2], y[::2])
    >>> bool(clf.score(X[1::2], y[1::2]) > 0.9)
    True
    >>> pred = clf.predict_distribution(X[1::2])
    >>> pred.mean.shape, pred.epistemic.shape
    ((75, 3), (75,))
    """

    _criterion = "cv"

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float | Literal["evidence", "cv"] | None = None,
        uncertainty: analytic.Uncertainty = "initialization",
        method: Literal["exact", "gaussian"] = "exact",
        n_draws: int = 256,
        n_trajectories: int = 0,
        label_smoothing: float = 0.0,
        tune: Sequence[str] = (),
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.reg = reg
        self.uncertainty = uncertainty
        self.method = method
        self.n_draws = n_draws
        self.n_trajectories = n_trajectories
        self.tune = tune
        self.label_smoothing = label_smoothing
        self.random_state = random_state
        self.progress = progress


class NTKRegressor(_NTK, Regressor):
    r"""Infinite ensemble of wide networks for regression, from the NTK and the NNGP kernel.

    The posterior of a Gaussian process with the kernel Theta / reg; with
    ``uncertainty="initialization"``, the distribution over random initialisations of a network of
    infinite width trained on squared error / (2 noise^2) with
    :math:`\tfrac{reg}{2}\|\theta - \theta_0\|^2`. Both are exactly Gaussian.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network. None takes ``MLP()``, on features and targets that are standardised by the
        mean and standard deviation of the training data; a network that you give sees both as
        they are.
    reg : float, "evidence", "cv" or None, default None
        As in `NTKClassifier`, but that it is "evidence" when neither `reg` nor `architecture` is
        given.
    uncertainty : {"posterior", "initialization", "none"}, default "posterior"
        As in `NTKClassifier`. The posterior's is the default: its intervals are calibrated where
        `reg` and noise are chosen by the evidence, those over initialisations are too narrow.
    noise : float, optional
        Standard deviation of the observation noise, in the units of the target. None estimates it
        by the evidence, for each output.
    method : {"gaussian", "exact"}, default "gaussian"
        The closed form, or `n_draws` draws from it.
    n_draws : int, default 256
        Number of draws of method="exact".
    tune : sequence of str, default ()
        As in `NTKClassifier`.
    random_state : int, RandomState or None, default 0
        Decides the draws of method="exact".
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    noise_ : array of shape [C]
        Standard deviation of the observation noise of each output, in the units of the target.
    architecture_, reg_, reg_curve_, feature_scales_, predictor_, jitter_, discrepancy_
        As in `NTKClassifier`; the closed form is exact here, and its discrepancy zero.
    n_features_in_, feature_names_in_, fit_seconds_
        As in `NTKClassifier`.

    References
    ----------
    docs/theory, "Gaussian likelihood".

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ntk_uq import NTKRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = NTKRegressor().fit(X[::2], y[::2])
    >>> mean, std = reg.predict(X[1::2], return_std=True)
    >>> mean.shape, std.shape
    ((221,), (221,))
    """

    _criterion = "evidence"

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float | Literal["evidence", "cv"] | None = None,
        uncertainty: analytic.Uncertainty = "posterior",
        noise: float | None = None,
        method: Literal["exact", "gaussian"] = "gaussian",
        n_draws: int = 256,
        tune: Sequence[str] = (),
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.reg = reg
        self.uncertainty = uncertainty
        self.noise = noise
        self.method = method
        self.n_draws = n_draws
        self.tune = tune
        self.random_state = random_state
        self.progress = progress


class _Ensemble(Estimator):
    """The finite ensemble as a producer."""

    _too_large = 1e18  # of single precision
    n_members: int
    uncertainty: ensemble.Uncertainty
    tol: float
    max_iter: int
    optimizer: Any
    batch_size: int | None
    memory: int | None
    warm_start: bool
    checkpoint: str | os.PathLike | None
    ensemble_: ensemble.TrainedEnsemble

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite.
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
        """
        self._weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
            y = self._check_cells(X, y)
            counted = np.flatnonzero(weights)
            self._weights = weights[counted]
            _warn_of_small_weights(self._weights)
            X, y = (_safe_indexing(values, counted) for values in indexable(X, y))
        return super().fit(X, y)

    def _counted(self, X: Floats, targets: Floats) -> tuple[Floats, Floats]:
        """Points in an order of their own, equal ones as one of their weight.

        So a fit meets the same problem in whatever order points come, repeated or weighted:
        rounding would otherwise lead relu networks to other minima.
        """
        rows = np.concatenate([X.reshape(len(X), -1), targets], axis=1)
        _, first, member = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        counts = np.ones(len(X)) if self._weights is None else self._weights
        self._weights = np.bincount(member, counts)
        return X[first], targets[first]

    @own_rules()
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
        X = self._validated(X)
        # Trained in single, evaluated in double precision: a point's logits are then the same to
        # all digits that matter, whatever the batch that it comes in.
        with jax.enable_x64(True):
            latents = self.ensemble_.latents(jnp.asarray(X))
        return self._sample_prediction(latents, joint=True)

    def _fit(self, X: Floats, targets: Floats) -> None:
        likelihood = self._likelihood
        if np.any(self._weights != 1):
            likelihood = Weighted(likelihood, jnp.asarray(self._weights, jnp.float32))
        with (
            jax.enable_x64(False),
            progress_bar("finite ensemble", self.n_members, self.progress) as progress,
        ):
            self.ensemble_ = ensemble.train_ensemble(
                self._key(),
                self.architecture_,
                jnp.asarray(X, jnp.float32),
                jnp.asarray(targets, jnp.float32),
                likelihood,
                reg=self.reg,
                n_members=self.n_members,
                uncertainty=self.uncertainty,
                tol=self.tol,
                max_iter=self.max_iter,
                optimizer=self.optimizer,
                batch_size=self.batch_size,
                memory=self.memory,
                warm_start=getattr(self, "ensemble_", None) if self.warm_start else None,
                checkpoint=self.checkpoint,
                progress=progress,
            )
        self.n_iter_ = self.ensemble_.n_iter
        self.converged_ = self.ensemble_.converged
        self.objective_ = self.ensemble_.objective
        self.grad_norm_ = self.ensemble_.grad_norm

    def _check_arguments(self) -> None:
        super()._check_arguments()
        _checks.uncertainty(self.uncertainty)
        for name in ("n_members", "max_iter"):
            _checks.count(name, getattr(self, name))
        _checks.real("tol", self.tol, minimum=0.0)
        for name in ("batch_size", "memory"):
            if getattr(self, name) is not None:
                _checks.count(name, getattr(self, name))
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
        The network. None takes ``MLP()`` on features that are standardised by the mean and
        standard deviation of the training data; a network that you give sees the features as
        they are.
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
    memory : int, optional
        Bytes that training may take on each device. None takes half of what is free.
    warm_start : bool, default False
        Whether `fit` keeps the members of the last `fit`, on the same data, and trains only those
        that `n_members` has more.
    checkpoint : path, optional
        Directory of the results so far: a `fit` that was killed goes on from there.
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
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    ConvergenceWarning
        Names members that did not converge.

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
        memory: int | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike | None = None,
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
        self.memory = memory
        self.warm_start = warm_start
        self.checkpoint = checkpoint
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
        mean and standard deviation of the training data; a network that you give sees both as
        they are.
    n_members : int, default 32
        Number of networks.
    reg : float, default 1.0
        As in `NTKRegressor`.
    uncertainty : {"initialization", "posterior", "none"}, default "initialization"
        As in `EnsembleClassifier`.
    noise : float, optional
        As in `NTKRegressor`; None needs an architecture with a kernel.
    tol, max_iter, optimizer, batch_size, memory, warm_start, checkpoint, random_state, progress
        As in `EnsembleClassifier`.

    Attributes
    ----------
    noise_ : array of shape [C]
        Standard deviation of the observation noise of each output, in the units of the target.
    ensemble_, n_iter_, converged_, objective_, grad_norm_
        As in `EnsembleClassifier`.
    n_features_in_, feature_names_in_, fit_seconds_
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
        memory: int | None = None,
        warm_start: bool = False,
        checkpoint: str | os.PathLike | None = None,
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
        self.memory = memory
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.progress = progress


class _Bayesian(Estimator):
    """The posterior as a producer: Markov chains, or an approximation in their place."""

    prior: Literal["ntk", "nngp", "weights"]
    sampler: Literal["nuts", "ess", "vi", "laplace"]
    num_warmup: int
    num_samples: int
    num_chains: int
    laplace_: Any
    # Whose uncertainty="posterior" is the alternative where sampling takes too long.
    _without_sampling: str
    _output_dim: str

    @own_rules()
    def predict_distribution(
        self, X: ArrayLike, *, joint: bool = False
    ) -> GaussianPrediction | SamplePrediction:
        """Posterior of the latents (logits) at each test point.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.
        joint : bool, default False
            Whether a draw is one function, jointly over the test points. By default it is right
            at each point, and a function of that point alone. Draws of prior="weights" are
            functions either way.

        Returns
        -------
        SamplePrediction or GaussianPrediction
            The latter for sampler="laplace".
        """
        X = self._validated(X)
        with jax.enable_x64(True):
            if self.sampler == "laplace":
                return self._laplace_prediction(X, joint)
            latents = self._latents(X, joint)
        n_chains = self.num_chains if self.sampler in ("nuts", "ess") else None
        joint = joint or self.prior == "weights"
        return self._sample_prediction(latents, n_chains=n_chains, joint=joint)

    def _latents(self, X: Floats, joint: bool) -> Any:
        """Draws of the latents at test points: [S, m, C]."""
        from ntk_uq import bayes

        if self.prior == "weights":
            return bayes.predict_network(self.draws_, X)
        cross, test = (self._covariance(kernels) for kernels in self._kernels_at(X, joint))
        return bayes.predict_latents(self._predict_key, self.draws_, cross, test, joint=joint)

    def _laplace_prediction(self, X: Floats, joint: bool) -> GaussianPrediction:
        if self.prior == "weights":
            mean, cov = self.laplace_.moments(X, joint=joint)
        else:
            # To the closed form the prior's covariance is a tangent kernel with reg = 1.
            kernels = [Kernels(k, k) for k in map(self._covariance, self._kernels_at(X, joint))]
            moments = self.laplace_.joint_moments if joint else self.laplace_.moments
            mean, cov = moments(*kernels)
        if not joint:
            return self._gaussian_prediction(mean, cov)
        return self._gaussian_prediction(mean, np.einsum("mcmd->mcd", cov), cov)

    def _kernels_at(self, X: Floats, joint: bool) -> tuple[Kernels, Kernels]:
        """Kernels of test points with the training points, and among themselves."""
        net = self.architecture_
        return net.kernels(X, self._X), net.kernels(X) if joint else net.kernel_diag(X)

    def _covariance(self, kernels: Any) -> Floats:
        return kernels.ntk / self.reg if self.prior == "ntk" else kernels.nngp

    def _fit(self, X: Floats, targets: Floats) -> None:
        from ntk_uq import bayes

        self._X, self._y = X, targets
        for name in ("posterior_", "draws_", "laplace_"):
            self.__dict__.pop(name, None)
        self.diagnostics_ = self.discrepancy_ = None
        with jax.enable_x64(True):
            key, self._predict_key = jax.random.split(self._key())
            prior: Any
            n, outputs = targets.shape
            if self.prior == "weights":
                prior = bayes.NetworkPrior(jnp.asarray(X), self.architecture_, outputs)
                self._refuse_too_long(n, outputs, prior.n_parameters)
            else:
                self._refuse_too_long(n, outputs, None)
                prior = self._covariance(self.architecture_.kernels(X))
            if self.sampler == "laplace":
                self._fit_laplace(key, prior, targets)
            else:
                self.draws_ = self._draw(key, prior, targets)
        if self.sampler in ("nuts", "ess"):
            self.diagnostics_ = bayes.diagnostics(self.draws_)
            if self.diagnostics_.warnings:
                warnings.warn(
                    "The posterior draws need care. " + " ".join(self.diagnostics_.warnings),
                    bayes.SamplingWarning,
                    stacklevel=3,
                )

    def _draw(self, key: jax.Array, prior: Any, targets: Floats) -> Any:
        from ntk_uq import bayes

        problem = (key, prior, targets, self._likelihood)
        size: dict[str, Any] = {"num_samples": self.num_samples, "num_chains": self.num_chains}
        draw: Any = bayes.variational_latents
        if self.sampler != "vi":
            chains: dict[str, Any] = {"sampler": self.sampler, "num_warmup": self.num_warmup}
            draw = partial(bayes.sample_latents, **chains)
        total = self.num_chains * (self.num_warmup + self.num_samples)
        label = {"nuts": "NUTS", "ess": "elliptical slices", "vi": "variational inference"}
        with progress_bar(label[self.sampler], total, self.progress) as progress:
            return draw(*problem, **size, progress=progress)

    def _fit_laplace(self, key: jax.Array, prior: Any, targets: Floats) -> None:
        from ntk_uq import bayes

        if self.prior == "weights":
            self.laplace_ = bayes.laplace_network(key, prior, targets, self._likelihood)
            found = self.laplace_.converged
        else:
            kernels = Kernels(prior, prior)
            self.laplace_ = _numpy_leaves(
                analytic.gaussian_predictor(kernels, targets, 1.0, self._likelihood, "posterior")
            )
            found = self.laplace_.gap <= _LARGEST_GAP
        self.discrepancy_ = self.laplace_.discrepancy
        if not found:
            warnings.warn(
                "The mode of the posterior was not found to the precision that the Gaussian about "
                "it needs. Raise reg, or scale the features (about 1 each).",
                ensemble.ConvergenceWarning,
                stacklevel=4,
            )
        instead = 'Use sampler="nuts"'
        if self.prior == "ntk":
            instead += f', or the draws of {self._without_sampling}(uncertainty="posterior")'
        _warn_of_first_order(
            self.discrepancy_, instead, self.reg if self.prior == "ntk" else None, stacklevel=5
        )

    @cached_property
    def posterior_(self) -> Any:
        """The draws with names for ArviZ, made of `draws_` when they are first asked for."""
        from ntk_uq import bayes

        check_is_fitted(self)
        if self.sampler == "laplace":
            raise AttributeError(
                'sampler="laplace" draws nothing: its posterior is a Gaussian, in closed form. '
                "Use predict_distribution, or another sampler."
            )
        # In units of the target, as everything that users see.
        return bayes.to_datatree(
            jax.random.fold_in(self._predict_key, 1),
            replace(
                self.draws_, latents=self._target_shift + self._target_scale * self.draws_.latents
            ),
            self._target_shift + self._target_scale * self._y,
            self._observation_model,
            output_names=self._output_names,
            output_dim=self._output_dim,
        )

    def _refuse_too_long(self, n: int, outputs: int, parameters: int | None) -> None:
        from ntk_uq import bayes

        if self.sampler == "laplace":
            self._refuse_large_laplace(n, outputs, parameters)
            return
        cost = bayes.estimate_cost(
            n,
            outputs,
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            sampler=self.sampler,
            n_parameters=parameters,
        )
        if not cost.is_excessive:
            return
        name = "NUTS" if self.sampler == "nuts" else f"sampler={self.sampler!r}"
        if parameters is None:
            raise ValueError(
                f"{name} on {n} points and {outputs} outputs would take {cost}. Sample a subset of "
                "the training points, fewer draws or chains, or use "
                f'{self._without_sampling}(uncertainty="posterior"), which needs no sampling.'
            )
        raise ValueError(
            f"{name} on {n} points and the {parameters} parameters of {self.architecture_!r} would "
            f"take {cost}. Give a narrower network, MLP(width=32) for example, a subset of the "
            'training points, fewer draws or chains, or use prior="nngp", the limit at infinite '
            "width."
        )

    def _refuse_large_laplace(self, n: int, outputs: int, parameters: int | None) -> None:
        if parameters is None:
            needed = analytic.estimate_memory(n, outputs, 1, "gaussian", "posterior")
        else:
            # The Jacobian of all outputs, twice scaled, and a matrix over all outputs, thrice.
            needed = 8 * (3 * n * outputs * parameters + 3 * (n * outputs) ** 2)
        present = memory_limit()
        if needed > present:
            raise MemoryError(
                f'sampler="laplace" on {n} points and {outputs} outputs takes '
                f"{needed / 2**30:.1f} GiB, and this machine has {present / 2**30:.1f} GiB. Fit a "
                "part of the points" + ("." if parameters is None else ", or a narrower network.")
            )

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.prior not in ("ntk", "nngp", "weights"):
            raise ValueError(f'prior must be "ntk", "nngp" or "weights"; got {self.prior!r}.')
        if self.sampler not in ("nuts", "ess", "vi", "laplace"):
            raise ValueError(
                f'sampler must be "nuts", "ess", "vi" or "laplace"; got {self.sampler!r}.'
            )
        if self.prior == "ntk" and self.reg == 0:
            raise ValueError(
                "reg=0 leaves no prior: GP(0, Theta / reg) has infinite variance. Set reg > 0."
            )
        if self.prior != "ntk" and self.reg != 1:
            which = "GP(0, K)" if self.prior == "nngp" else "N(0, I) over all parameters"
            warnings.warn(
                f"prior={self.prior!r} is {which}, in which reg does not occur: reg={self.reg!r} "
                'has no effect. Use prior="ntk", or scale the network by w_std and b_std.',
                UserWarning,
                stacklevel=3,
            )
        for name in ("num_warmup", "num_samples", "num_chains"):
            _checks.count(name, getattr(self, name))
        if self.num_samples < 4:
            raise ValueError(f"num_samples must be at least 4; got {self.num_samples}.")


class BayesianClassifier(_Bayesian, Classifier):
    r"""Bayesian posterior of a network's class probabilities, sampled or approximated.

    Softmax likelihood, and for the logits independent Gaussian processes whose covariance is that
    of an infinitely wide network, or a finite network with a normal prior over its parameters.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network, or the one whose kernel is the prior's. None as in `NTKClassifier`.
    reg : float, default 1.0
        Precision of the prior "ntk", > 0. The others have none, and warn of a value other than 1.
    prior : {"ntk", "nngp", "weights"}, default "ntk"
        "ntk": f ~ GP(0, Theta / reg), of which the regularised network's solution is the mode.
        "nngp": f ~ GP(0, K), the infinitely wide Bayesian network. "weights": the finite network,
        all of its parameters N(0, 1); of a width that a sampler can carry, a few thousand
        parameters.
    sampler : {"nuts", "ess", "vi", "laplace"}, default "nuts"
        "nuts": the No-U-Turn sampler. "ess": elliptical slice sampling, slower but on the smallest
        data sets. Both are right in the limit of many draws. Approximations: "vi", independent
        draws from the nearest Gaussian with independent whitened variables; "laplace", the Gaussian
        at the mode in closed form, of a finite network linearised there.
    num_warmup, num_samples, num_chains : int, default 500, 500, 2
        Draws of each chain that adapt the sampler and are dropped, draws that are kept, chains.
        "vi" has no warm-up, and "laplace" no draws.
    random_state : int, RandomState or None, default 0
        Decides the chains.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    classes_ : array of shape [C]
        Class labels.
    posterior_ : xarray.DataTree
        For ArviZ: draws of the latents at the training points, sample statistics, log likelihood,
        predicted and observed data. ``posterior_.to_netcdf(path)`` saves it. Not with "laplace".
    diagnostics_ : bayes.Diagnostics or None
        R-hat, effective sample sizes and divergences, and what they mean in words. None for the
        approximations, which have no chains to judge.
    draws_ : bayes.PosteriorDraws
        The functional layer's result. Not with "laplace".
    laplace_ : analytic.GaussianPredictor or bayes.NetworkLaplace
        The functional layer's result with "laplace".
    discrepancy_ : analytic.Discrepancy or None
        How far "laplace" is from the posterior, measured at the training points on 32 draws that
        are solved exactly: `analytic.GaussianPredictor` or, for a finite network, within its
        linearisation `bayes.NetworkLaplace`. None with the other samplers.
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    SamplingWarning
        If the diagnostics say that the draws cannot be trusted.
    FirstOrderWarning
        If the Gaussian of "laplace" is far from the posterior, as `NTKClassifier` warns.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ntk_uq import BayesianClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = BayesianClassifier(num_warmup=300, num_samples=1000).fit(X[::5], y[::5])
    >>> clf.predict_distribution(X[1::5]).samples.shape
    (2000, 30, 3)
    """

    _without_sampling = "NTKClassifier"
    _output_dim = "class"

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float = 1.0,
        prior: Literal["ntk", "nngp", "weights"] = "ntk",
        sampler: Literal["nuts", "ess", "vi", "laplace"] = "nuts",
        num_warmup: int = 500,
        num_samples: int = 500,
        num_chains: int = 2,
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.reg = reg
        self.prior = prior
        self.sampler = sampler
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.random_state = random_state
        self.progress = progress


class BayesianRegressor(_Bayesian, Regressor):
    r"""Bayesian posterior of a network for regression, sampled or approximated.

    Gaussian noise, and for the outputs independent Gaussian processes whose covariance is that of
    an infinitely wide network, or a finite network with a normal prior over its parameters. With
    the prior "ntk" the posterior is ``NTKRegressor(uncertainty="posterior")`` in closed form, and
    sampler="laplace" gives it.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network, or the one whose kernel is the prior's. None as in `NTKRegressor`.
    reg : float, default 1.0
        As in `BayesianClassifier`.
    prior : {"ntk", "nngp", "weights"}, default "ntk"
        As in `BayesianClassifier`.
    sampler : {"nuts", "ess", "vi", "laplace"}, default "nuts"
        As in `BayesianClassifier`.
    noise : float, optional
        Standard deviation of the observation noise, in the units of the target. None estimates it
        by the evidence under the prior, for each output; for a finite network under its limit at
        infinite width.
    num_warmup, num_samples, num_chains : int, default 500, 500, 2
        As in `BayesianClassifier`.
    random_state : int, RandomState or None, default 0
        Decides the chains.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    noise_ : array of shape [C]
        Standard deviation of the observation noise of each output, in the units of the target.
    posterior_, diagnostics_, draws_, laplace_, discrepancy_
        As in `BayesianClassifier`; `posterior_` is in the units of the target, and `draws_` in
        those of the network.
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    SamplingWarning
        If the diagnostics say that the draws cannot be trusted.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ntk_uq import BayesianRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = BayesianRegressor(noise=50.0, num_samples=1000).fit(X[::8], y[::8])
    >>> mean, std = reg.predict(X[1::8], return_std=True)
    >>> mean.shape, std.shape
    ((56,), (56,))
    """

    _without_sampling = "NTKRegressor"
    _output_dim = "output"

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float = 1.0,
        prior: Literal["ntk", "nngp", "weights"] = "ntk",
        sampler: Literal["nuts", "ess", "vi", "laplace"] = "nuts",
        noise: float | None = None,
        num_warmup: int = 500,
        num_samples: int = 500,
        num_chains: int = 2,
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.reg = reg
        self.prior = prior
        self.sampler = sampler
        self.noise = noise
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.random_state = random_state
        self.progress = progress

    def _prior_covariance(self, X: Floats) -> Floats:
        return self._covariance(self.architecture_.kernels(X))


def _warn_of_small_weights(weights: Floats) -> None:
    """Of normalised weights: of n points they make one.

    Weights that count, balance classes or correct for sampling sum to about n. A tenth moves `reg`
    by more than the steps in which it is chosen; two points or more that count as one are
    normalised, however few they are.
    """
    n, total = len(weights), float(np.sum(weights))
    if n > 1 and total < max(n / 10, 1 + 1e-6):
        warnings.warn(
            f"sample_weight sums to {total:.3g} over {n} points: the data count as {total:.3g} "
            f"points, and reg is {n / total:.3g} times as strong as without weights. Weights that "
            f"were normalised (as AdaBoost's are) must be multiplied by {n / total:.3g}, or reg be "
            "divided by it.",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_first_order(found: Any, instead: str, reg: float | None, stacklevel: int = 4) -> None:
    """Name the cure where the Gaussian at the mode is far from what it approximates."""
    error = float(np.mean(found.total_variation))
    if error <= _LARGEST_ERROR:
        return
    wider = "" if reg is None else f"raise reg ({reg:.3g} here), "
    warnings.warn(
        "The Gaussian about the mode is a poor approximation: at the training points its class "
        f"probabilities are {error:.2f} from those of exact solutions (mean total variation; "
        f"first order is good for {_LARGEST_ERROR:g}). {instead}, {wider}or scale the "
        "features (about 1 each). `discrepancy_` has the figures.",
        analytic.FirstOrderWarning,
        stacklevel=stacklevel,
    )


def _numpy_leaves(tree: Any) -> Any:
    """JAX arrays as NumPy's: unpickled without x64, JAX would round them to single precision."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree
    )

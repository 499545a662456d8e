"""The infinite ensemble as scikit-learn estimators."""

import numbers
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, cast

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ntk_uq import analytic, selection
from ntk_uq._common import checks
from ntk_uq._common.machine import memory_limit
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq.estimators.first_order import warn_of_first_order
from ntk_uq.estimators.tasks import (
    Classifier,
    Estimator,
    Prediction,
    Regressor,
    SmoothedClassifier,
    check_reg,
    of_fitted,
)
from ntk_uq.likelihoods import Gaussian
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.kernel_function import KernelFunction
from ntk_uq.networks.linearized import Linearized
from ntk_uq.networks.problem import Problem

__all__ = ["NTKClassifier", "NTKRegressor"]

Floats = NDArray[np.float64]


class _NTK(Estimator):
    """What both have of the infinite ensemble: what is chosen, fitted and drawn."""

    kernel: Callable[..., Any] | None
    uncertainty: analytic.Uncertainty
    method: Literal["exact", "gaussian"]
    n_draws: int
    tune: Sequence[str]
    time: float | None
    _fitted: analytic.FittedInfiniteEnsemble | analytic.FittedLinearized
    # How reg is chosen when nothing is said, and what else may be.
    _criterion: Literal["evidence", "cv"]
    _automatic: tuple[str, ...]
    _tunable = ("depth", "embedding", "w_std", "b_std", "scales")
    _n_corrections = 0  # a regressor's draws are exact
    _takes_linearized = True

    predictor_ = of_fitted("predictor")
    reg_ = of_fitted("reg")
    jitter_ = of_fitted("jitter")
    discrepancy_ = of_fitted("discrepancy")

    @property
    def feature_scales_(self) -> Floats | float:
        if "_fitted" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no feature_scales_ before fit.")
        embedded = getattr(self._fitted.architecture, "scales", None)
        return self._fitted.feature_scales if embedded is None else np.array(embedded)

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite.
        y : array-like of shape [n], or [n, C] for regression on C outputs
            Class labels, integers or strings, of at least two classes; or real targets.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or an argument cannot be used; the message says why and what to do.
        """
        self._check_arguments()
        points, targets = self._validated_data(X, y)
        start = time.perf_counter()
        self.__dict__.pop("reg_curve_", None)
        with own_rules():
            problem = self._problem(points, targets, self._given_reg)
            self._refuse_too_large(*problem.targets.shape)
            problem, scales = self._chosen(problem)
            if self.method == "exact":
                problem = replace(problem, key=self._key())
            self._fitted = self._producer(scales).fit(problem, progress=self.progress)
        if self.discrepancy_ is not None:
            warn_of_first_order(self.discrepancy_, 'Use method="exact"', self.reg_)
        self.fit_seconds_ = time.perf_counter() - start
        return self

    def predict_distribution(self, X: ArrayLike, *, joint: bool = False) -> Prediction:
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
        points = self._validated(X)
        return self._prediction_in_units(self._fitted.latents(points, joint))

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
        draws = self._fitted.functions()

        def functions(X: ArrayLike) -> Floats:
            return self._in_units(draws(self._validated(X)))

        return functions

    @property
    def _given(self) -> BaseArchitecture | None:
        return self.architecture if self.kernel is None else KernelFunction(self.kernel)

    def _producer(
        self, scales: Floats | float
    ) -> analytic.InfiniteEnsemble | analytic.LinearizedEnsemble:
        if isinstance(self._network, Linearized):
            return analytic.LinearizedEnsemble(
                self.uncertainty, self.method, self.n_draws, self._stop
            )
        return analytic.InfiniteEnsemble(
            uncertainty=self.uncertainty,
            method=self.method,
            n_draws=self.n_draws,
            n_trajectories=self._n_corrections,
            feature_scales=scales,
            time=self._stop,
        )

    @property
    def _given_reg(self) -> float:
        """What stands where nothing is chosen."""
        return float(self.reg) if isinstance(self.reg, numbers.Real) else 1.0

    def _refuse_too_large(self, n: int, outputs: int) -> None:
        if isinstance(self._network, Linearized):
            return  # which takes the form of its kernel that fits
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

    def _chosen(self, problem: Problem) -> tuple[Problem, Floats | float]:
        """The problem with what the data choose, and a scale for each feature."""
        automatic = self.reg is None and self._given is None
        criterion = self._criterion if automatic else self.reg
        told = np.any(problem.targets != 0, axis=0)  # an output that never moves has no say
        if criterion is None or isinstance(criterion, numbers.Real) or not told.any():
            return problem, 1.0
        targets, likelihood = problem.targets, cast(Any, problem.likelihood)
        if not told.all():
            targets, likelihood = targets[:, told], Gaussian(likelihood.noise[told])
        tune = self._automatic if automatic else tuple(self.tune)
        if criterion == "evidence" and self._seeks_noise:
            tune = (*tune, "noise")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with jax.enable_x64(True), progress_bar("choosing reg", 1, self.progress) as progress:
            choice = selection.choose(
                np.random.default_rng(seed),
                problem.architecture,
                problem.points,
                self._outcomes(targets),
                likelihood,
                criterion,
                uncertainty=self.uncertainty,
                tune=tune,
                targets=targets,
                progress=progress,
            )
        self.reg_curve_ = choice.curve
        likelihood = choice.likelihood
        if not told.all():
            noise = np.array(cast(Gaussian, problem.likelihood).noise)
            noise[told] = cast(Gaussian, likelihood).noise
            likelihood = Gaussian(cast(Any, noise))
        chosen = replace(
            problem, architecture=choice.architecture, reg=choice.reg, likelihood=likelihood
        )
        return chosen, choice.scales

    def _check_arguments(self) -> None:
        self._check_shared()
        if self.kernel is not None and self.architecture is not None:
            raise ValueError(
                "Give an architecture, whose kernels are known, or a kernel: both were given."
            )
        if isinstance(self._network, Linearized):
            self._check_linearized()
        self._check_criterion()
        self._check_task()
        checks.uncertainty(self.uncertainty)
        self._check_time()
        if self.uncertainty == "posterior" and self.reg == 0:
            raise ValueError(
                'uncertainty="posterior" belongs to the prior GP(0, Theta / reg), whose variance '
                "is infinite at reg=0. Set reg > 0."
            )
        if self.method not in ("exact", "gaussian"):
            raise ValueError(f'method must be "exact" or "gaussian"; got {self.method!r}.')
        checks.count("n_draws", self.n_draws)
        if self._n_corrections:
            checks.count("n_trajectories", self._n_corrections)
            if (self.uncertainty, self.method) != ("posterior", "exact"):
                raise ValueError(
                    'n_trajectories is for uncertainty="posterior" and method="exact", whose draws '
                    "they bring nearer to the posterior; set it to 0."
                )

    def _check_time(self) -> None:
        analytic.check_time(self.time, self.uncertainty)
        if self.time is not None and not isinstance(self.reg, numbers.Real):
            raise ValueError(
                f"time={self.time!r} needs a number for reg, 0 for early stopping in its place; "
                f"got {self.reg!r}."
            )
        if self._stop is not None and self.method == "gaussian" and isinstance(self, Classifier):
            raise ValueError(
                "Of classes there is no closed form at a time of training: use "
                'method="exact", or time=None.'
            )

    def _check_linearized(self) -> None:
        analytic.check_time(self.time, self.uncertainty)
        analytic.check_linearized(self.uncertainty, self.reg, self._stop)
        for name, value in (("tune", self.tune), ("n_trajectories", self._n_corrections)):
            if value:
                raise ValueError(
                    f"{name} is for networks of infinite width; Linearized is of one network as it "
                    f"is. Leave {name} out."
                )
        # Both are chosen by the marginal likelihood or held-out points of a kernel that outputs
        # share.
        if not isinstance(self.reg, numbers.Real):
            raise ValueError(
                f"Linearized needs a number for reg; got {self.reg!r}. With "
                'prior_mean="zero" it is the weight decay of the summed loss; for data that the '
                "network has not seen, compare a few by scikit-learn's "
                'GridSearchCV(estimator, {"reg": [0.1, 1.0, 10.0]}).'
            )
        if getattr(self, "noise", 1.0) is None:
            raise ValueError(
                "Linearized needs the noise: its standard deviation is not chosen by the data. "
                "That of the network's errors at points it has not seen is a first value."
            )

    def _check_criterion(self) -> None:
        if isinstance(self.tune, str) or not isinstance(self.tune, Sequence):
            raise ValueError(
                f'tune takes a tuple of names, ("depth",) for example; got {self.tune!r}.'
            )
        tune = tuple(self.tune)
        unknown = [name for name in tune if name not in self._tunable]
        if unknown:
            raise ValueError(f"tune takes names among {self._tunable}; got {unknown[0]!r}.")
        if self.reg is None and self._given is None and not tune:
            return
        if not isinstance(self.reg, str):
            if tune:
                raise ValueError(
                    f'tune={tune} needs a criterion: reg="cv", or reg="evidence"; got '
                    f"reg={self.reg!r}."
                )
            if self.reg is not None:
                check_reg(self.reg)
            return
        if self.reg not in ("evidence", "cv"):
            raise ValueError(f'reg must be a number, "evidence" or "cv"; got {self.reg!r}.')
        climbed = [name for name in tune if name in ("w_std", "b_std")]
        if self.reg == "cv" and climbed:
            raise ValueError(
                f'reg="cv" does not tune {climbed[0]}: it is found by a gradient, that of '
                'reg="evidence".'
            )
        if "embedding" in tune and climbed:
            raise ValueError(
                f'tune takes no {climbed[0]} with "embedding"; got {tune}. Choose the embedding '
                "first, and tune the rest of the architecture_ that it finds."
            )
        self._check_tunable(self._network, tune)
        if self.reg == "evidence" and self._is_smoothed:
            raise ValueError(
                'reg="evidence" needs labels as they are: of smoothed ones there is no probability '
                'of the data. Use reg="cv", or label_smoothing=0.'
            )

    def _check_tunable(self, network: Any, tune: tuple[str, ...]) -> None:
        of_any: tuple[str, ...] = ("scales", "embedding") if network.ndim == 2 else ("scales",)
        if isinstance(network, KernelFunction):  # nothing is known of its derivatives
            of_any = ()
        missing = [name for name in tune if name not in (*of_any, *network.tunable)]
        if missing:
            raise ValueError(
                f"{type(network).__name__} has no {missing[0]} to tune; an MLP "
                "has depth, w_std and b_std, any architecture can have scales tuned, and one for "
                "tables an embedding of its features."
            )
        if "b_std" in tune and network.b_std == 0:
            raise ValueError("b_std=0 stays 0 on a logarithmic scale: start from 0.1, or so.")


class NTKClassifier(_NTK, SmoothedClassifier):
    r"""Infinite ensemble of wide networks, from the NTK and the NNGP kernel.

    The distribution, over random initialisations, of a network of infinite width trained on
    softmax cross-entropy with :math:`\tfrac{reg}{2}\|\theta - \theta_0\|^2`, without training one.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network. None takes ``MLP()`` on features that are standardised by the training data,
        extreme values being compressed (docs, "The defaults"); a network that you give sees the
        features as they are.
    reg : float, "evidence", "cv" or None, default None
        Strength of the pull towards the initialisation, against a sum over data of the loss in
        nats; 1 is the Bayesian prior N(theta_0, I). Zero needs `label_smoothing` > 0.
        "evidence" maximises Laplace's approximation of the evidence, "cv" the log probability of
        held-out labels in 5 folds; both use at most 600 points, taken at random. Where "cv" can
        hold nothing out, as with one point a class, it is 1.0, with a warning. None is 1.0 for
        an architecture that you give; without one it is "cv", depth and embedding chosen too.
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
        posterior, beyond first order: see `analytic.correct_draws`. One mends most of the spread
        and of the class probabilities, and little or nothing of the latents' means, which take 3 to
        16; it costs a sixth more time to as much again. For reg far below 1 take 16.
    label_smoothing : float, default 0.0
        Targets are (1 - label_smoothing) one-hot + label_smoothing / C.
    tune : sequence of {"depth", "embedding", "w_std", "b_std", "scales"}, default ()
        What to choose together with `reg`: the depth, and whether the network sees each feature by
        itself, in a `FeatureEmbedding`, by either criterion; by the evidence, whose gradient finds
        them, the scales of weights and biases of an `MLP`, and a scale for each feature (automatic
        relevance determination).
    time : float, optional
        Where training stops: a time of gradient flow on the sum of losses, learning rate times
        steps; 0 is the prior function, None or infinity the end. In the place of `reg`, which may
        then be 0 for labels as they are, or beside it. Not for "posterior", which is of the end,
        nor for method="gaussian".
    random_state : int, RandomState or None, default 0
        Decides the draws of method="exact".
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.
    kernel : callable, optional
        A covariance function in the place of an architecture, ``RBF()`` of scikit-learn for
        example: see `KernelFunction`. With uncertainty="posterior" this is a Gaussian process with
        the covariance kernel / reg.

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
    _automatic = ("depth", "embedding", "scales")

    @property
    def _n_corrections(self) -> int:  # type: ignore[override]
        return self.n_trajectories

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
        time: float | None = None,
        random_state: Any = 0,
        progress: bool | None = None,
        kernel: Callable[..., Any] | None = None,
    ):
        self.architecture = architecture
        self.kernel = kernel
        self.reg = reg
        self.uncertainty = uncertainty
        self.method = method
        self.n_draws = n_draws
        self.n_trajectories = n_trajectories
        self.tune = tune
        self.time = time
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
        training data, extreme values of features being compressed (docs, "The defaults"); a
        network that you give sees both as they are.
    reg : float, "evidence", "cv" or None, default None
        As in `NTKClassifier`, but that it is "evidence" when neither `reg` nor `architecture` is
        given.
    uncertainty : {"posterior", "initialization", "none"}, default "posterior"
        As in `NTKClassifier`. The posterior's is the default: its intervals are calibrated where
        `reg` and noise are chosen by the evidence, those over initialisations are too narrow.
    noise : float, optional
        Standard deviation of the observation noise, in the units of the target. None estimates it
        by the evidence, for each output. An output that never varies has nothing to estimate it
        from: a hundredth of the prior's standard deviation is taken, in units of the target's size,
        with a warning.
    method : {"gaussian", "exact"}, default "gaussian"
        The closed form, or `n_draws` draws from it.
    n_draws : int, default 256
        Number of draws of method="exact".
    tune : sequence of str, default ()
        As in `NTKClassifier`.
    time : float, optional
        As in `NTKClassifier`; the closed form has it too.
    random_state : int, RandomState or None, default 0
        Decides the draws of method="exact".
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.
    kernel : callable, optional
        A covariance function in the place of an architecture, ``RBF()`` of scikit-learn for
        example: see `KernelFunction`. With uncertainty="posterior" this is a Gaussian process with
        the covariance kernel / reg.

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
    # Scales that predict part of the points best mislead where many real targets are known.
    _automatic = ("depth", "embedding")

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float | Literal["evidence", "cv"] | None = None,
        uncertainty: analytic.Uncertainty = "posterior",
        noise: float | None = None,
        method: Literal["exact", "gaussian"] = "gaussian",
        n_draws: int = 256,
        tune: Sequence[str] = (),
        time: float | None = None,
        random_state: Any = 0,
        progress: bool | None = None,
        kernel: Callable[..., Any] | None = None,
    ):
        self.architecture = architecture
        self.kernel = kernel
        self.reg = reg
        self.uncertainty = uncertainty
        self.noise = noise
        self.method = method
        self.n_draws = n_draws
        self.tune = tune
        self.time = time
        self.random_state = random_state
        self.progress = progress

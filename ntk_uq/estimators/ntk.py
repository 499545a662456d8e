"""The infinite ensemble as scikit-learn estimators."""

import numbers
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self, cast

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ntk_uq import analytic, selection
from ntk_uq._common import checks
from ntk_uq._common.checkpoint import check_directory, warn_of_none
from ntk_uq._common.divided_tiles import found_by_first
from ntk_uq._common.machine import blas_threads_for
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import Products
from ntk_uq._common.words import shown
from ntk_uq.estimators.criterion import check_criterion
from ntk_uq.estimators.first_order import warn_of_first_order
from ntk_uq.estimators.linearized import check_linearized
from ntk_uq.estimators.size import problem_of_size, refuse_too_large
from ntk_uq.estimators.strength import warn_of_strong_reg
from ntk_uq.estimators.tasks import (
    Classifier,
    Estimator,
    Prediction,
    Regressor,
    SmoothedClassifier,
    of_fitted,
)
from ntk_uq.estimators.weights import distinct
from ntk_uq.likelihoods import Gaussian
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.kernel_function import KernelFunction
from ntk_uq.networks.linearized import Linearized
from ntk_uq.networks.problem import Problem
from ntk_uq.selection.choice import _MOST_POINTS

__all__ = ["NTKClassifier", "NTKRegressor"]

Floats = NDArray[np.float64]

# Of more points one network is chosen: each of a mixture takes a factor of its kernel.
_MOST_MIXED = 3000


class _NTK(Estimator):
    """What both have of the infinite ensemble: what is chosen, fitted and drawn."""

    kernel: Callable[..., Any] | None
    uncertainty: analytic.Uncertainty
    method: Literal["exact", "gaussian", "nystrom"]
    n_draws: int
    prior_functions: Literal["auto", "exact", "networks"]
    tol: float | None
    storage: str | os.PathLike | None
    checkpoint: str | os.PathLike | None
    n_inducing: int
    tune: Sequence[str]
    time: float | None
    _fitted: analytic.FittedInfiniteEnsemble | analytic.FittedLinearized | analytic.FittedMixture
    # How reg is chosen when nothing is said, and what else may be.
    _criterion: Literal["evidence", "cv"]
    _automatic: tuple[str, ...]
    _n_corrections = 0  # a regressor's draws are exact
    _takes_linearized = True
    mixture_: selection.Mixture | None = None

    predictor_ = of_fitted("predictor")
    reg_ = of_fitted("reg")
    jitter_ = of_fitted("jitter")
    discrepancy_ = of_fitted("discrepancy")

    @property
    def feature_scales_(self) -> Floats | float:
        if "_fitted" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no feature_scales_ before fit.")
        own = getattr(self._fitted.architecture, "scales", None)  # of an embedding, or of scores
        return np.multiply(self._fitted.feature_scales, 1.0 if own is None else own)

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite; without an architecture a table with columns of
            categories and gaps too, as a data frame holds them.
        y : array-like of shape [n], or [n, C] for regression on C outputs
            Class labels, integers or strings, of at least two classes; or real targets.
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
        points, targets, weights, _ = distinct(*self._weighted_data(X, y, sample_weight))
        start = time.perf_counter()
        self.__dict__.pop("reg_curve_", None)
        self.mixture_ = None
        with own_rules(), blas_threads_for(len(points)):
            problem = self._problem(points, targets, self._given_reg, weights)
            del points  # which may be large, and are not what an encoder has made of them
            if not isinstance(self._network, Linearized):  # which takes the form that fits
                refuse_too_large(self._producer(1.0), problem)
            problem, scales = self._chosen(problem)
            if self.method != "gaussian":
                problem = replace(problem, key=self._key())
            self._fitted = self._solved(problem, scales)
        if self.discrepancy_ is not None:
            warn_of_first_order(self.discrepancy_, 'Use method="exact"', self.reg_)
        self.fit_seconds_ = time.perf_counter() - start
        if "reg_curve_" not in vars(self):  # the data have not chosen it
            warn_of_strong_reg(self, problem)
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
        if self.method == "gaussian":
            raise ValueError(f'Functions are drawn by method="exact"; this is {self.method!r}.')
        draws = self._fitted.functions()

        def functions(X: ArrayLike) -> Floats:
            return self._in_units(draws(self._validated(X)))

        return functions

    @property
    def _given(self) -> BaseArchitecture | None:
        return self.architecture if self.kernel is None else KernelFunction(self.kernel)

    def _solved(
        self, problem: Problem, scales: Floats | float
    ) -> analytic.FittedInfiniteEnsemble | analytic.FittedLinearized | analytic.FittedMixture:
        """What the producer makes of the problem."""
        if isinstance(self._network, Linearized):
            warn_of_none(self.checkpoint)
            method = cast(Literal["exact", "gaussian"], self.method)
            of_tangent = analytic.LinearizedEnsemble(
                self.uncertainty, method, self.n_draws, self._stop
            )
            return of_tangent.fit(problem, progress=self.progress)
        producer, kernel = self._producer(scales), None
        if self.mixture_ is not None:
            components = self.mixture_.components
            return analytic.fit_mixture(producer, components, problem, progress=self.progress)
        if producer.takes_networks(problem):
            kernel = producer.kernel_products(problem, progress=self.progress)
            problem = self._corrected(problem, kernel.ntk)
        return producer.fit(problem, kernel=kernel, progress=self.progress)

    def _producer(self, scales: Floats | float) -> analytic.InfiniteEnsemble:
        return analytic.InfiniteEnsemble(
            uncertainty=self.uncertainty,
            method=self.method,
            n_draws=self.n_draws,
            n_trajectories=self._n_corrections,
            feature_scales=scales,
            copy=False,  # validated points are the estimator's own
            time=self._stop,
            prior_functions=self.prior_functions,
            tol=self.tol,
            storage=self.storage,
            checkpoint=self.checkpoint,
            n_inducing=self.n_inducing,
        )

    def memory(self, n: int, outputs: int = 1, n_features: int | tuple[int, ...] = 0) -> int:
        """Memory that fitting takes at its peak, known before.

        Parameters
        ----------
        n : int
            Training points.
        outputs : int, default 1
            Classes, or targets of a regression.
        n_features : int or tuple of ints, default 0
            Numbers of a point, or an image's shape.

        Returns
        -------
        int
            Bytes.

        Examples
        --------
        >>> from ntk_uq import NTKClassifier
        >>> f"{NTKClassifier().memory(20_000, outputs=10, n_features=20) / 2**30:.1f} GiB"
        '1.6 GiB'
        """
        of_fit = problem_of_size(self._network, self._given_reg, n, outputs, n_features)
        return self._producer(1.0).memory(of_fit)

    @property
    def label_weight_(self) -> float:
        check_is_fitted(self)
        return 1.0 if self.mixture_ is None else self.mixture_.components[0].label_weight

    @property
    def _given_reg(self) -> float:
        """What stands where nothing is chosen."""
        return float(self.reg) if isinstance(self.reg, numbers.Real) else 1.0

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
        label = f"choosing reg with {min(len(targets), _MOST_POINTS)} points"
        with jax.enable_x64(True), progress_bar(label, 1, self.progress) as progress:
            choice = selection.choose(
                np.random.default_rng(seed),
                problem.architecture,
                problem.points,
                self._outcomes(targets),
                likelihood,
                criterion,
                uncertainty=self.uncertainty,
                tune=tune,
                mix=automatic and self._mixes(problem),
                further=automatic,
                targets=targets,
                weights=problem.weights,
                progress=progress,
            )
        self.reg_curve_, self.mixture_ = choice.curve, choice.mixture
        likelihood = choice.likelihood
        if not told.all():
            noise = np.array(cast(Gaussian, problem.likelihood).noise)
            noise[told] = cast(Gaussian, likelihood).noise
            likelihood = Gaussian(cast(Any, noise))
        chosen = replace(
            problem, architecture=choice.architecture, reg=choice.reg, likelihood=likelihood
        )
        return chosen, choice.scales

    def _mixes(self, problem: Problem) -> bool:
        """Whether several networks predict together: draws of each, of points that are not many."""
        draws = self.method == "exact" and self.uncertainty != "none" and self._stop is None
        few = len(problem.points) <= _MOST_MIXED and not self._producer(1.0).takes_networks(problem)
        return self._criterion == "cv" and draws and few

    def _corrected(self, problem: Problem, ntk: Products) -> Problem:
        """The problem with the regularisation that all points choose, near what few have chosen."""
        curve = getattr(self, "reg_curve_", None)
        by_modes = self.uncertainty in ("initialization", "none")
        if curve is None or curve.criterion != "cv" or not by_modes:
            return problem
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        n = len(problem.targets)
        if n <= cast(int, curve.n_points):
            return problem
        label = f"choosing reg with {n} points"
        with jax.enable_x64(True), progress_bar(label, 3, self.progress) as progress:
            seek = partial(
                selection.reg_of_all_points, rng, ntk, problem.points,
                self._outcomes(problem.targets), problem.likelihood, problem.reg,
                targets=problem.targets, weights=problem.weights, progress=progress,
            )  # fmt: skip
            self.reg_curve_ = found_by_first(ntk, seek, label)
        return replace(problem, reg=self.reg_curve_.reg)

    def _check_arguments(self) -> None:
        self._check_shared()
        if self.kernel is not None and self.architecture is not None:
            raise ValueError(
                "Give an architecture, whose kernels are known, or a kernel: both were given."
            )
        if isinstance(self._network, Linearized):
            check_linearized(self)
        check_criterion(self.reg, self.tune, self._network, self._given is not None)
        if self.reg == "evidence" and self._is_smoothed:
            raise ValueError(
                'reg="evidence" needs labels as they are: of smoothed ones there is no probability '
                'of the data. Use reg="cv", or label_smoothing=0.'
            )
        self._check_task()
        checks.uncertainty(self.uncertainty)
        self._check_time()
        if self.uncertainty == "posterior" and self.reg == 0:
            raise ValueError(
                'uncertainty="posterior" belongs to the prior GP(0, Theta / reg), whose variance '
                "is infinite at reg=0. Set reg > 0."
            )
        if self.method not in ("exact", "gaussian", "nystrom"):
            raise ValueError(
                f'method must be "exact", "gaussian" or "nystrom"; got {self.method!r}.'
            )
        checks.count("n_inducing", self.n_inducing)
        checks.count("n_draws", self.n_draws)
        checks.storage(self.storage)
        check_directory(self.checkpoint)
        if self.prior_functions not in ("auto", "exact", "networks"):
            raise ValueError(
                'prior_functions must be "auto", "exact" or "networks"; got '
                f"{self.prior_functions!r}."
            )
        checks.tolerance(self.tol)
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
                f"time={shown(self.time)} needs a number for reg, 0 for early stopping in its "
                f"place; got {shown(self.reg)}."
            )
        if self._stop is not None and self.method == "gaussian" and isinstance(self, Classifier):
            raise ValueError(
                "Of classes there is no closed form at a time of training: use "
                'method="exact", or time=None.'
            )


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
        held-out labels in 5 folds; both use at most 600 points, taken at random. Of more than 3,000
        points all then correct what "cv" has found for "initialization" and "none", by folds of
        theirs. Where "cv" can hold nothing out, as with one point a class, it is 1.0, with a
        warning. None is 1.0 for an architecture that you give; without one it is "cv", depth,
        embedding and scales chosen too, and of at most 3,000 points draws of method="exact" are
        shared out among up to four networks: `mixture_`.
    uncertainty : {"initialization", "posterior", "none"}, default "initialization"
        Whose spread: "initialization" is that of networks over their random initialisation;
        "posterior" that of the Bayesian posterior, to first order; "none" has none, and is the
        posterior's mode. See docs/theory, "Relation to Bayes", and, of labels that may count more
        than once, "Sure labels".
    method : {"exact", "gaussian", "nystrom"}, default "exact"
        "exact" solves the convex problem for each of `n_draws` prior functions; "gaussian" is the
        closed form, exact for reg=0 and to first order in the prior function otherwise. "nystrom"
        is an approximation, for points whose kernel fits nowhere: draws with prior functions of
        networks learn with the kernel functions of `n_inducing` of the points alone, in memory and
        time that grow with n times n_inducing.
    n_draws : int, default 256
        Number of draws of method="exact" and "nystrom".
    n_trajectories : int, default 0
        Hamiltonian trajectories that bring each draw of uncertainty="posterior" nearer to the
        posterior, beyond first order: see `analytic.correct_draws`. One mends most of the spread
        and of the class probabilities, and little or nothing of the latents' means, which take 3 to
        16; it costs a sixth more time to as much again. For reg far below 1 take 16.
    label_smoothing : float, default 0.0
        Targets are (1 - label_smoothing) one-hot + label_smoothing / C.
    tune : sequence of {"depth", "embedding", "w_std", "b_std", "scales"}, default ()
        What to choose together with `reg`: the depth, and whether the network sees each feature by
        itself, in a `FeatureEmbedding`, or little but distances, by either criterion; a scale for
        each feature, learnt from the gradients of the mode (docs/theory, "A metric for the
        features"), or, by the evidence with a given embedding, from its gradient (automatic
        relevance determination), which finds the scales of weights and biases of an `MLP` too.
    prior_functions : {"auto", "exact", "networks"}, default "auto"
        Where the draws of method="exact" begin. "exact": at draws of the prior itself, which takes
        a factor of the kernel. "networks": at the functions of random networks of width 512 or the
        architecture's, if that is more, whose covariance is nearly the same; the kernel then stands
        in tiles of single precision, and draws are functions for any points. "auto" takes the
        latter above 3,000 points, of an architecture that says how it is widened. See docs,
        "Size".
    tol : float, optional
        How far draws of method="exact" may be from their solution: the latents' distance, in
        posterior standard deviations, below 1. None takes a millionth with exact prior functions
        and 0.005 with those of networks, which no statistic of a thousand draws can see.
    storage : path or "processes", optional
        Where the kernel stands with prior functions of networks, if it does not fit into memory:
        a directory for a file, or "processes", a part of it in each process of `jax.distributed`
        (docs, "Many processes, many machines"). None keeps it in memory.
    checkpoint : path, optional
        Directory in which draws with prior functions of networks are kept as they are solved, and
        the mode before them: the same fit, after it was killed, goes on from there. Of other fits,
        as those of at most 3,000 points are by default, nothing is kept, and a warning says so.
    n_inducing : int, default 4096
        Points, taken at random, of method="nystrom". With more it comes nearer to "exact".
    time : float, optional
        Where training stops: a time of gradient flow on the sum of losses, learning rate times
        steps; 0 is the prior function, None or infinity the end. In the place of `reg`, which may
        then be 0 for labels as they are, or beside it. Not for "posterior", which is of the end,
        nor for method="gaussian".
    class_weight : "balanced", dict or None, default None
        Weight of each class, times those of the points: "balanced" gives all classes the same sum,
        the number of points over that of classes; a dict gives each label's, 1 where it has none.
    categorical_features : "from_dtype", sequence or None, default "from_dtype"
        Which columns hold categories, without an architecture: as in `TableEncoder`, which also
        fills gaps. A network that you give takes numbers only; put the encoder before it.
    random_state : int, RandomState or None, default 0
        Decides the draws of method="exact" and "nystrom", the points that the latter takes, and,
        with the order of rows, the folds of "cv".
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
        Factor of each feature that the network sees, a copy: without an architecture those of
        ``encoder_.get_feature_names_out()``.
    mixture_ : selection.Mixture or None
        The networks that predict together, with weights and held-out scores, which are of modes;
        the other attributes are of the first, the best candidate. Its twin may have a higher score.
    label_weight_ : float
        How often each label counts: of uncertainty="posterior" with a `mixture_` it is chosen from
        the data, and `reg_` is then the prior's precision under it; else 1. A fit of the same
        network with ``sample_weight`` of that has the same posterior.
    reg_curve_ : selection.RegCurve
        Where `reg` was chosen: the criterion along it, for `plots.plot_reg_curve`. With a
        `mixture_` it is of modes, and its `reg` is ``reg_ / label_weight_``.
    predictor_ : analytic.ExactPredictor, analytic.NetworkDraws or analytic.GaussianPredictor
        The functional layer's predictor, which takes kernels with the training points: as they were
        given, or where some count more or less than once the distinct ones, sorted.
    jitter_ : float
        What was added to the diagonal of the training points' NNGP kernel to draw from it; zero
        unless it was singular, as with duplicate rows.
    discrepancy_ : analytic.Discrepancy or None
        With method="gaussian": how far the closed form is from exact solutions, measured at the
        training points on 32 draws. None with method="exact".
    encoder_ : TableEncoder or None
        What makes features of a table, without an architecture.
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    ConvergenceWarning
        If a solution is a rough one, or `tol` was given and not reached.
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
        method: Literal["exact", "gaussian", "nystrom"] = "exact",
        n_draws: int = 256,
        n_trajectories: int = 0,
        label_smoothing: float = 0.0,
        tune: Sequence[str] = (),
        prior_functions: Literal["auto", "exact", "networks"] = "auto",
        tol: float | None = None,
        storage: str | os.PathLike | None = None,
        checkpoint: str | os.PathLike | None = None,
        n_inducing: int = 4096,
        time: float | None = None,
        class_weight: Any = None,
        categorical_features: Any = "from_dtype",
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
        self.prior_functions = prior_functions
        self.tol = tol
        self.storage = storage
        self.checkpoint = checkpoint
        self.n_inducing = n_inducing
        self.time = time
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.categorical_features = categorical_features
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
        given; depth, embedding and scales are chosen too, of one network, whether it sees powers of
        the features in their place, or their normal scores beside them or, with smooth units, in
        their place.
    uncertainty : {"posterior", "initialization", "none"}, default "posterior"
        As in `NTKClassifier`. The posterior's is the default: its intervals are calibrated where
        `reg` and noise are chosen by the evidence, those over initialisations are too narrow.
    noise : float, optional
        Standard deviation of the observation noise, in the units of the target. None estimates it
        by the evidence, for each output, with at most 3,000 points, taken at random. An output that
        never varies has nothing to estimate it from: a hundredth of the prior's standard deviation
        is taken, in units of the target's size, with a warning.
    method : {"gaussian", "exact", "nystrom"}, default "gaussian"
        The closed form, `n_draws` draws from it, or an approximation of these for many points: as
        in `NTKClassifier`.
    n_draws : int, default 256
        Number of draws of method="exact".
    tune : sequence of str, default ()
        As in `NTKClassifier`.
    prior_functions, tol, storage, checkpoint, n_inducing
        As in `NTKClassifier`, of method="exact".
    time : float, optional
        As in `NTKClassifier`; the closed form has it too.
    categorical_features : "from_dtype", sequence or None, default "from_dtype"
        As in `NTKClassifier`.
    random_state : int, RandomState or None, default 0
        As in `NTKClassifier`.
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
    encoder_, n_features_in_, feature_names_in_, fit_seconds_
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
    _automatic = ("depth", "embedding", "scales")

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float | Literal["evidence", "cv"] | None = None,
        uncertainty: analytic.Uncertainty = "posterior",
        noise: float | None = None,
        method: Literal["exact", "gaussian", "nystrom"] = "gaussian",
        n_draws: int = 256,
        tune: Sequence[str] = (),
        prior_functions: Literal["auto", "exact", "networks"] = "auto",
        tol: float | None = None,
        storage: str | os.PathLike | None = None,
        checkpoint: str | os.PathLike | None = None,
        n_inducing: int = 4096,
        time: float | None = None,
        categorical_features: Any = "from_dtype",
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
        self.prior_functions = prior_functions
        self.tol = tol
        self.storage = storage
        self.checkpoint = checkpoint
        self.n_inducing = n_inducing
        self.time = time
        self.categorical_features = categorical_features
        self.random_state = random_state
        self.progress = progress

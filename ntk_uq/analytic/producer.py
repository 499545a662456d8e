"""The infinite ensemble as a producer: a problem in, a distribution of latents anywhere out."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from ntk_uq._common import checks, processes
from ntk_uq._common.blocks import enlarged, in_blocks, placed
from ntk_uq._common.checkpoint import check_directory, warn_of_none
from ntk_uq._common.leaves import as_numpy
from ntk_uq._common.low_rank import LowRank
from ntk_uq._common.machine import blas_threads_for, memory_limit
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import Products
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import in_a_line
from ntk_uq.analytic.at_one import DrawsAtOne, Seen, draws_at_one
from ntk_uq.analytic.budget import estimate_memory
from ntk_uq.analytic.exact import ExactPredictor, FlatDraws, exact_predictor
from ntk_uq.analytic.flow import check_time, exact_predictor_until
from ntk_uq.analytic.functions import FunctionDraws
from ntk_uq.analytic.gaussian import GaussianPredictor, gaussian_predictor
from ntk_uq.analytic.gradient_flow import gaussian_until
from ntk_uq.analytic.network_draws import (
    NetworkDraws,
    inducing_ntk,
    network_draws,
    prior_memory,
    tiled_ntk,
)
from ntk_uq.analytic.solutions import check_range, check_solution, refuse_unsolved
from ntk_uq.analytic.trajectories import correct_draws
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture, Kernels
from ntk_uq.networks.function_prior import FunctionPrior
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import (
    GaussianPrediction,
    SamplePrediction,
    gaussian_nodes,
)
from ntk_uq.predictions.first_order import Discrepancy

__all__ = [
    "FittedInfiniteEnsemble",
    "FittedProcess",
    "InfiniteEnsemble",
    "LaplaceProcess",
]

Floats = NDArray[np.float64]

# Test points whose kernels with the training points are held at once.
_POINTS_AT_ONCE = 1024
# And numbers in an array over test points, training points and outputs: 2**23 doubles are 64 MiB.
_ENTRIES_AT_ONCE = 2**23
_KERNEL_ENTRIES_AT_ONCE = 2**24
# Above so many points prior functions are those of networks, unless the user says otherwise.
_NETWORKS_ABOVE = 3000
# How far latents may be off, in posterior standard deviations: 1e-12 nats, and what no statistic of
# a thousand draws can see.
_TOLERANCE, _TOLERANCE_OF_NETWORKS = 2**0.5 * 1e-6, 0.005
# Where prior functions are of this size, in nats, so many draws are solved before the others.
_WIDE, _PILOTS = 1e5, 2


@dataclass(frozen=True, eq=False)
class InfiniteEnsemble:
    """Infinitely many networks of infinite width, trained from random initialisations.

    Attributes
    ----------
    uncertainty : {"initialization", "posterior", "none"}
        Which prior functions: see the module.
    method : {"exact", "gaussian", "nystrom"}
        Draws, `exact_predictor`; the closed form, `gaussian_predictor`; or draws with prior
        functions of networks, which learn what `n_inducing` of the points can tell them.
    n_draws : int
        Number of draws.
    n_trajectories : int
        Trajectories that bring each draw of the posterior nearer to it: `correct_draws`.
    feature_scales : array of shape [d], or 1.0
        Factor of each feature.
    time : float, optional
        Time of gradient flow at which training stops; None is its end.
    prior_functions : {"auto", "exact", "networks"}
        Prior functions of method "exact": drawn from a factor of their covariance, or functions of
        wide random networks, `network_draws`, for which Theta stands in tiles. "auto" takes the
        latter of more than 3,000 points where the architecture can be widened.
    tol : float, optional
        How far latents may be from the solution, in posterior standard deviations: below 1, and a
        warning says where precision does not reach it. None takes a millionth with exact prior
        functions and 0.005 with those of networks: the means of a thousand draws are known to a
        thirtieth.
    storage : path or "processes", optional
        Directory of a file for Theta, of prior functions of networks; None keeps it in memory,
        "processes" a part of it in the memory of each process of `jax.distributed`.
    checkpoint : path, optional
        Directory for the mode and solved draws, of prior functions of networks: a run that was
        killed goes on from there. Of others nothing is kept, and a warning says so.
    n_inducing : int
        Points, taken at random by the problem's key, whose kernel functions method "nystrom" learns
        with.
    copy : bool
        Whether points are copied, which may be large; if not, nobody may write to them later.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, None, MLP())
    >>> InfiniteEnsemble(method="gaussian").fit(problem).latents(X).cov.shape
    (2, 2, 2)
    """

    uncertainty: Uncertainty = "initialization"
    method: Literal["exact", "gaussian", "nystrom"] = "exact"
    n_draws: int = 256
    n_trajectories: int = 0
    feature_scales: Floats | float = 1.0
    time: float | None = None
    prior_functions: Literal["auto", "exact", "networks"] = "auto"
    tol: float | None = None
    storage: str | os.PathLike | None = None
    checkpoint: str | os.PathLike | None = None
    n_inducing: int = 4096
    copy: bool = True

    def fit(
        self,
        problem: Problem,
        *,
        kernel: "KernelProducts | None" = None,
        progress: bool | None = False,
    ) -> "FittedInfiniteEnsemble":
        """Solve the problem.

        Parameters
        ----------
        problem : Problem
            Data, likelihood, regularisation and network.
        kernel : KernelProducts, optional
            What `kernel_products` gives, where it is known; of prior functions of networks.
        progress : bool or None
            Progress bars; None shows them at a terminal only.

        Returns
        -------
        FittedInfiniteEnsemble

        Raises
        ------
        ValueError
            If double precision cannot solve it, or an argument is out of its range.

        Warns
        -----
        ConvergenceWarning
            If a solution is a rough one, or `tol` was given and not reached.
        """
        checks.tolerance(self.tol)
        check_directory(self.checkpoint)
        if self.takes_networks(problem):
            kernel = self.kernel_products(problem, progress=progress) if kernel is None else kernel
            return self._fit_networks(problem, kernel, progress)
        warn_of_none(self.checkpoint)
        points = self._kept(problem)
        with progress_bar("kernels", 1, progress) as told:
            kernels = problem.architecture.kernels(points, progress=told)
        widest = check_range(kernels, problem.targets, problem.reg, self.uncertainty)
        solve = self._closed_form if self.method == "gaussian" else self._draws
        with own_rules(), jax.enable_x64(True):
            predictor = as_numpy(solve(problem, kernels, widest, progress))
        to_tol = self.method == "exact" and self.time is None and problem.reg > 0
        check_solution(predictor, problem.reg, self.tol if to_tol else None)
        return self._fitted(problem, points, predictor)

    def takes_networks(self, problem: Problem) -> bool:
        """Whether prior functions of the problem will be those of networks.

        Raises
        ------
        ValueError
            If they are asked for and cannot be.
        """
        able = self.method != "gaussian" and problem.reg > 0 and self.time is None
        able = able and not self.n_trajectories
        known = problem.architecture.widened(1) is not None
        if self.method != "nystrom" and self.prior_functions != "networks":
            many = len(problem.points) > _NETWORKS_ABOVE
            return self.prior_functions == "auto" and many and able and known
        if self.method == "nystrom" and self.storage == "processes":
            raise ValueError(
                'storage="processes" divides the kernel of method="exact". Of method="nystrom" '
                "every process has all features: give a directory, or None."
            )
        if not able:
            raise ValueError(
                'method="nystrom" and prior_functions="networks", which is for method="exact", '
                "take reg > 0, n_trajectories=0 and no time."
            )
        if not known:
            raise ValueError(
                f"{type(problem.architecture).__name__} does not say how it is widened, and prior "
                'functions of networks need wide ones: set method="exact" and '
                'prior_functions="exact", which take memory and time for a factor of the kernel, '
                "or use an architecture that does, as MLP."
            )
        return True

    def memory(self, problem: Problem) -> int:
        """Bytes that fitting takes at its peak: `estimate_memory`."""
        n, outputs = problem.targets.shape
        shape = problem.points.shape[1:]
        prior: Literal["exact", "networks"] = "exact"
        of_a_prior = 0
        if self.takes_networks(problem):
            prior = "networks"
            if math.prod(shape):
                features = shape if len(shape) > 1 else shape[0]
                network, which = problem.architecture, self.uncertainty
                of_a_prior = prior_memory(network, which, features, outputs)
        divided = self.storage == "processes"
        in_memory = divided or self.storage is None
        copies = 1 if self._scales_nothing else 2
        n_features = copies * math.prod(shape)
        return estimate_memory(
            n, outputs, self.n_draws, self.method, self.uncertainty, prior, in_memory,
            self.n_inducing, n_features, processes.count() if divided else 1, of_a_prior,
        )  # fmt: skip

    def kernel_products(
        self, problem: Problem, *, progress: bool | None = False
    ) -> "KernelProducts":
        """What draws with prior functions of networks take of Theta, in memory or `storage`."""
        points, network = self._kept(problem), problem.architecture
        diagonal = network.kernel_diag(points)
        single = self._in_single_precision(problem)
        check_range(diagonal, problem.targets, problem.reg, self.uncertainty, single)
        with progress_bar("kernel", 1, progress) as told:
            if self.method != "nystrom":
                return KernelProducts(tiled_ntk(network, points, self.storage, told), points)
            inducing = points[_inducing(problem.key, len(points), self.n_inducing)]
            ntk, factor = inducing_ntk(network, points, inducing, self.storage, told)
            return KernelProducts(ntk, inducing, factor)

    def _fit_networks(
        self, problem: Problem, kernel: "KernelProducts", progress: bool | None
    ) -> "FittedInfiniteEnsemble":
        approximate = kernel.factor is not None
        points = self._kept(problem) if approximate else kernel.points
        tol = _TOLERANCE_OF_NETWORKS if self.tol is None else self.tol
        with own_rules(), jax.enable_x64(True):
            draws = network_draws(
                problem, points, self.uncertainty, self.n_draws, tol, ntk=kernel.ntk,
                coefficients=kernel.coefficients, checkpoint=self.checkpoint, progress=progress,
            )  # fmt: skip
        check_solution(draws, problem.reg, self.tol, self._in_single_precision(problem))
        return self._fitted(problem, kernel.points, draws)

    def _in_single_precision(self, problem: Problem) -> str:
        """What to say of a solution for prior functions of networks that is not good enough."""
        said = " Prior functions of networks are solved for in single precision"
        needed = replace(self, prior_functions="exact").memory(problem)
        if self.method == "nystrom" or needed > memory_limit():
            return f"{said}."
        return (
            f'{said}: prior_functions="exact" solves in double precision, in {needed / 2**30:.1f} '
            "GiB of memory and a time that grows with the cube of the points."
        )

    def _kept(self, problem: Problem) -> Floats:
        """Training points, features scaled, as a fitted model keeps them."""
        if self._scales_nothing and not self.copy:
            return problem.points
        return problem.points * self.feature_scales

    @property
    def _scales_nothing(self) -> bool:
        return bool(np.all(np.asarray(self.feature_scales) == 1))

    def _fitted(self, problem: Problem, points: Floats, predictor: Any) -> "FittedInfiniteEnsemble":
        key = None if self.method == "gaussian" else problem.key
        settings = (problem.architecture, self.feature_scales, problem.likelihood)
        return FittedInfiniteEnsemble(predictor, points, *settings, key)

    def _closed_form(
        self, problem: Problem, kernels: Kernels, widest: float, progress: bool | None
    ) -> GaussianPredictor:
        targets = placed(problem.targets)
        if self.time is not None:
            check_time(self.time, self.uncertainty)
            return gaussian_until(
                kernels, targets, problem.reg, problem.loss, self.uncertainty, self.time
            )
        return gaussian_predictor(kernels, targets, problem.reg, problem.loss, self.uncertainty)

    def _draws(
        self, problem: Problem, kernels: Kernels, widest: float, progress: bool | None
    ) -> ExactPredictor:
        if problem.key is None:
            raise ValueError('method="exact" draws: give the problem a key.')
        targets, likelihood = placed(problem.targets), problem.loss
        asked = (kernels, targets, problem.reg, likelihood, self.uncertainty)
        key = jax.random.fold_in(problem.key, 0)
        if self.time is not None:
            with progress_bar("gradient flow", self.n_draws, progress) as told:
                return exact_predictor_until(key, *asked, self.n_draws, self.time, progress=told)
        if widest > _WIDE and self.n_draws > _PILOTS and problem.reg > 0:
            # Draws this far out may take the solver all its iterations, and in vain.
            refuse_unsolved(exact_predictor(key, *asked, _PILOTS), problem.reg)
        with progress_bar("infinite ensemble", self.n_draws, progress) as told:
            tol = _TOLERANCE if self.tol is None else self.tol
            predictor = exact_predictor(key, *asked, self.n_draws, tol=0.5 * tol**2, progress=told)
        if not self.n_trajectories:
            return predictor
        key = jax.random.fold_in(problem.key, 2)
        return correct_draws(key, predictor, problem.targets, likelihood, self.n_trajectories)


def _inducing(key: Array | None, n: int, n_inducing: int) -> NDArray[np.intp]:
    """Rows of inducing points, sorted: at random by the key, or always the same without one."""
    seed = [0] if key is None else np.asarray(jax.random.key_data(jax.random.fold_in(key, 4)))
    return np.sort(np.random.default_rng(seed).permutation(n)[:n_inducing])


class KernelProducts(NamedTuple):
    """Products with Theta at the training points, and the points whose kernel functions learn.

    Attributes
    ----------
    ntk : SymmetricTiles or LowRank
        Theta, or what inducing points see of it.
    points : array of shape [n, d] or [m, d]
        Training points, or inducing ones.
    factor : array of shape [m, m], optional
        Of the latter's Theta.
    """

    ntk: Products
    points: Floats
    factor: Floats | None = None

    def coefficients(self, alpha: NDArray) -> NDArray:
        """Coefficients of the kernel functions of `points`, of dual ones [S, n, C]."""
        if self.factor is None:
            return alpha
        features = cast(LowRank, self.ntk)
        columns = alpha.swapaxes(0, 1).reshape(len(features), -1).astype(np.float64)
        found = solve_triangular(self.factor, features.project(columns), lower=True, trans="T")
        return found.reshape(len(found), len(alpha), -1).swapaxes(0, 1)


@in_a_line
@dataclass(frozen=True, eq=False)
class FittedInfiniteEnsemble:
    """A solved problem of the infinite ensemble, ready for any points.

    Attributes
    ----------
    predictor : ExactPredictor, NetworkDraws or GaussianPredictor
        Takes kernels.
    points : array of shape [n, d]
        Training points, features scaled.
    architecture : BaseArchitecture
        Whose kernels.
    feature_scales : array of shape [d], or 1.0
        Factor of each feature.
    likelihood : Likelihood
        Of a new point.
    key : Array or None
        PRNG key of joint draws and functions; None for the closed form.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    >>> fitted = InfiniteEnsemble(n_draws=4).fit(problem)
    >>> fitted.latents(X, joint=True).joint, fitted.functions()(X).shape
    (True, (4, 2, 2))
    """

    predictor: ExactPredictor | NetworkDraws | GaussianPredictor
    points: Floats
    architecture: BaseArchitecture
    feature_scales: Floats | float
    likelihood: Likelihood
    key: Array | None

    @property
    def reg(self) -> float:
        """Regularisation."""
        return self.predictor.reg

    @property
    def jitter(self) -> float:
        """What the diagonal of the prior's kernel needed; nothing is drawn from a closed form."""
        return self.predictor.jitter if isinstance(self.predictor, ExactPredictor) else 0.0

    @property
    def discrepancy(self) -> Discrepancy | None:
        """How far the closed form is from exact solutions; None of these."""
        gaussian = isinstance(self.predictor, GaussianPredictor)
        return self.predictor.discrepancy if gaussian else None  # type: ignore[union-attr]

    def latents(self, X: ArrayLike, joint: bool = False) -> GaussianPrediction | SamplePrediction:
        """Distribution of the latents at m points.

        Parameters
        ----------
        X : array of shape [m, d]
            Points.
        joint : bool
            Whether it is of functions, jointly over the points; else it is right at each.

        Returns
        -------
        GaussianPrediction or SamplePrediction
            The former too of "none", which is known to have no spread, as a single draw is not.
        """
        X = np.asarray(X)
        if len(X) == 1 and not joint:
            at_one = draws_at_one([self], X)
            if at_one is not None:
                return self._prediction(at_one, joint)
        with blas_threads_for(max(len(self.points), len(X) if joint else 0)):
            return self._latents(X * self.feature_scales, joint)

    def _latents(self, X: Floats, joint: bool) -> GaussianPrediction | SamplePrediction:
        if isinstance(self.predictor, GaussianPredictor):
            return _gaussian(self._on_device, self._kernels, X, joint, self.likelihood)
        if isinstance(self.predictor, NetworkDraws):
            draws = self._draws_of_networks(self.predictor, X)
        else:
            draws = self._joint_draws(X) if joint else self._draws(self.predictor, X)
        return self._prediction(draws, joint)

    def _prediction(self, draws: Floats, joint: bool) -> GaussianPrediction | SamplePrediction:
        if self.predictor.uncertainty == "none":
            mean = draws[0]
            return GaussianPrediction(mean, np.zeros((*mean.shape, mean.shape[1])), self.likelihood)
        return SamplePrediction(draws, self.likelihood, joint=joint)

    def traced_latents(self, X: Array) -> Array:
        """Draws, or nodes of the closed form, at points that may be traced: [S, m, C].

        Parameters
        ----------
        X : Array of shape [m, d]
            Points; all is computed in their precision.

        Returns
        -------
        Array of shape [S, m, C]
            Of equal weight.
        """
        if isinstance(self.predictor, NetworkDraws):
            raise ValueError(
                "Draws whose prior functions are networks are made anew for each point, and are no "
                'constant of a function: fit with prior_functions="exact".'
            )
        predictor, kernels = self._traced(X)
        if isinstance(predictor, FlatDraws):
            return predictor.latents(*kernels)
        mean, cov = predictor.moments(*kernels)
        values, vectors = jnp.linalg.eigh(cov)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[:, None]
        nodes = jnp.asarray(gaussian_nodes(mean.shape[1]), X.dtype)
        # The symmetric root: where eigenvalues coincide it turns no node.
        return mean + jnp.einsum("mcd,med,se->smc", root, vectors, nodes)

    def traced_moments(self, X: Array) -> tuple[Array, Array] | None:
        """Means and variances [m, C] of the closed form at points that may be traced."""
        if not isinstance(self.predictor, GaussianPredictor):
            return None
        predictor, kernels = self._traced(X)
        mean, cov = predictor.moments(*kernels)
        return mean, jnp.einsum("mcc->mc", cov)

    def _traced(self, X: Array) -> tuple[Any, tuple[Kernels, Kernels]]:
        """The predictor, and what it takes at points, in their precision."""
        X, points = X * jnp.asarray(self.feature_scales, X.dtype), jnp.asarray(self.points, X.dtype)
        kernels = self.architecture.kernel_block(X, points), self.architecture.kernel_diag_block(X)
        predictor: Any = self.predictor
        if isinstance(predictor, ExactPredictor):
            predictor = predictor.flat() if X.dtype == np.float64 else self._for_single_precision
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, X.dtype), predictor), kernels

    def functions(self) -> Callable[[ArrayLike], Floats]:
        """Draws as functions, to be evaluated anywhere, later, and consistently: `FunctionDraws`.

        Returns
        -------
        callable
            ``functions(X)`` gives the latents of every draw at m points: [S, m, C].
        """
        predictor = self.predictor
        if isinstance(predictor, NetworkDraws):
            of_networks = predictor
            return lambda X: self._draws_of_networks(
                of_networks, np.asarray(X) * self.feature_scales
            )
        if not isinstance(predictor, ExactPredictor):
            raise ValueError('Functions are drawn by method="exact".')

        def kernels(x1: Any, x2: Any) -> Kernels:
            return self.architecture.kernels(x1, x2)

        with own_rules(), jax.enable_x64(True):
            draws = FunctionDraws(self._fresh_key, kernels, jnp.asarray(self.points), predictor)

        def functions(X: ArrayLike) -> Floats:
            with own_rules(), jax.enable_x64(True):
                return np.asarray(draws(jnp.asarray(np.asarray(X) * self.feature_scales)))

        return functions

    @property
    def _fresh_key(self) -> Array:
        """Key of what is new at other points."""
        return jax.random.fold_in(cast(Array, self.key), 1)

    def _kernels(self, X: Floats, joint: bool) -> tuple[Kernels, Kernels]:
        """Kernels of points with the training points, and among themselves, or of each alone."""
        net = self.architecture
        return net.kernels(X, self.points), net.kernels(X) if joint else net.kernel_diag(X)

    @cached_property
    def _on_device(self) -> Any:
        """What latents at each point are computed from, moved once."""
        with jax.enable_x64(True):
            if isinstance(self.predictor, ExactPredictor):
                return self.predictor.flat().on_device()
            return jax.device_put(self.predictor)

    @cached_property
    def _for_single_precision(self) -> FlatDraws:
        """Draws with a factor of their own, made once for any number of points that is traced."""
        return cast(ExactPredictor, self.predictor).flat().in_single_precision()

    @cached_property
    def at_one(self) -> tuple[BaseArchitecture, Seen, DrawsAtOne] | None:
        """What draws at one point are computed from; None if not by formulas."""
        network, shown = self.architecture.behind
        if not (isinstance(self.predictor, ExactPredictor) and network.has_closed_form):
            return None
        with jax.enable_x64(True):
            seen = Seen(shown, shown(self.points), self.feature_scales)
            return network, jax.device_put(seen), DrawsAtOne.of(self.predictor.flat())

    def __getstate__(self) -> dict[str, Any]:
        # Not what is on a device: unpickled without x64, JAX would round it.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _draws(self, predictor: ExactPredictor, X: Floats) -> Floats:
        def draws(block: Floats) -> Array:
            cross, own = self._kernels(block, False)
            return self._on_device.latents(Kernels(*(enlarged(k, 1) for k in cross)), own)

        with own_rules(), jax.enable_x64(True):
            return in_blocks(draws, X, _points_at_once(predictor), axis=1)

    def _draws_of_networks(self, predictor: NetworkDraws, X: Floats) -> Floats:
        def draws(block: Floats) -> Floats:
            return predictor.latents(self.architecture.kernels(block, self.points).ntk, block)

        most = max(1, min(_POINTS_AT_ONCE, _KERNEL_ENTRIES_AT_ONCE // len(self.points)))
        with own_rules():
            return in_blocks(draws, X, most, axis=1)

    def _joint_draws(self, X: Floats) -> Floats:
        kernels = self._kernels(X, True)
        with own_rules(), jax.enable_x64(True):
            return np.asarray(self.predictor.joint_latents(self._fresh_key, *kernels))  # type: ignore[union-attr]


@dataclass(frozen=True)
class LaplaceProcess:
    """Laplace's approximation of the posterior of a Gaussian process, in closed form.

    Attributes
    ----------
    kernel : {"ntk", "nngp"}
        Of its prior: `FunctionPrior`.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, None, MLP())
    >>> LaplaceProcess("nngp").fit(problem).latents(X).cov.shape
    (2, 2, 2)
    """

    kernel: Literal["ntk", "nngp"] = "ntk"

    def fit(self, problem: Problem, *, progress: bool | None = False) -> "FittedProcess":
        """Solve the problem: as `InfiniteEnsemble.fit`."""
        prior = FunctionPrior(problem.architecture, self.kernel, problem.reg)
        covariance = prior.covariance(problem.points)
        with own_rules(), jax.enable_x64(True):
            laplace = as_numpy(
                # To the closed form the prior's covariance is a tangent kernel with reg = 1.
                gaussian_predictor(
                    Kernels(covariance, covariance), problem.targets, 1.0, problem.loss, "posterior"
                )
            )
        check_solution(laplace, problem.reg)
        return FittedProcess(laplace, problem.points, prior, problem.likelihood)


@in_a_line
@dataclass(frozen=True, eq=False)
class FittedProcess:
    """A Gaussian process given data, or the Gaussian about its mode.

    Attributes
    ----------
    laplace : GaussianPredictor
        Takes the prior's covariance for both kernels.
    points : array of shape [n, d]
        Training points.
    prior : FunctionPrior
        The process before the data.
    likelihood : Likelihood
        Of a new point.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> from ntk_uq.networks import Problem
    >>> X, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]])
    >>> fitted = LaplaceProcess().fit(Problem(X, y, Gaussian(0.1), 1.0, None, MLP()))
    >>> fitted.latents(X, joint=True).joint_cov.shape
    (2, 1, 2, 1)
    """

    laplace: GaussianPredictor
    points: Floats
    prior: FunctionPrior
    likelihood: Likelihood

    @property
    def architecture(self) -> BaseArchitecture:
        """The network whose kernel the prior has."""
        return self.prior.architecture

    def latents(self, X: ArrayLike, joint: bool = False) -> GaussianPrediction:
        """Distribution of the latents at m points, [m, d]; `joint_cov` too if joint."""
        return _gaussian(self.laplace, self._kernels, np.asarray(X), joint, self.likelihood)

    def _kernels(self, X: Floats, joint: bool) -> tuple[Kernels, Kernels]:
        cross = self.prior.covariance(X, self.points)
        own = self.prior.covariance(X) if joint else self.prior.variance(X)
        return Kernels(cross, cross), Kernels(own, own)


def _gaussian(
    predictor: GaussianPredictor,
    kernels: Callable[[Floats, bool], tuple[Kernels, Kernels]],
    X: Floats,
    joint: bool,
    likelihood: Likelihood,
) -> GaussianPrediction:
    """The closed form at points, jointly or block by block."""
    with own_rules(), jax.enable_x64(True):
        if joint:
            mean, joint_cov = map(np.asarray, predictor.joint_moments(*kernels(X, True)))
            cov = np.einsum("mcmd->mcd", joint_cov)
            return GaussianPrediction(mean, cov, likelihood, joint_cov)
        mean, cov = in_blocks(
            lambda block: predictor.moments(*kernels(block, False)), X, _points_at_once(predictor)
        )
    return GaussianPrediction(mean, cov, likelihood)


def _points_at_once(predictor: ExactPredictor | GaussianPredictor) -> int:
    """Points whose kernels are held at once."""
    n, outputs = predictor.alpha.shape[-2:]
    return min(_POINTS_AT_ONCE, max(1, _ENTRIES_AT_ONCE // (n * outputs)))

r"""The infinite ensemble: distribution of the trained predictor at infinite width.

Kernels in, predictions out. A trained predictor is
:math:`f^*(x) = f_0(x) + \Theta(x, X)\,\alpha(f_0)` with a prior function :math:`f_0`, and the
ensemble's spread is that of :math:`f_0`. Two ways to push it forward:

- `gaussian_predictor`: to first order in f0 about the mode, exact where the solution is linear
  in f0 (Gaussian likelihood; reg = 0). docs/theory: "The Gaussian predictor".
- `exact_predictor`: draws of f0, each with its convex problem solved. docs/theory: "Exact
  push-forward".

Both hold for three kinds of prior function (`uncertainty`): "initialization", f0 ~ GP(0, K);
"posterior", f0 ~ GP(0, Theta / reg) with label noise; "none", f0 = 0. Everything follows the dtype
of the kernels.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array, lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import log_ndtr, ndtr
from numpy.typing import ArrayLike, NDArray

from ntk_uq import _checks
from ntk_uq._coordinates import Preconditioned
from ntk_uq._first_order import (
    CHECK_ITERATIONS,
    CHECK_TOLERANCE,
    CHECKED,
    Discrepancy,
    FirstOrderWarning,
    compare_draws,
    discrepancy,
    is_exact,
    no_discrepancy,
)
from ntk_uq._linalg import cholesky, interpolation_factor
from ntk_uq._machine import cores
from ntk_uq._progress import Progress
from ntk_uq._rules import own_rules
from ntk_uq._solver import DualSolution, deflate_at_mode, solve_dual
from ntk_uq.architectures import Kernels
from ntk_uq.likelihoods import Curvature, Likelihood, require_condition

__all__ = [
    "Discrepancy",
    "ExactPredictor",
    "FirstOrderWarning",
    "FunctionDraws",
    "GaussianPredictor",
    "Uncertainty",
    "correct_draws",
    "discrepancy",
    "estimate_memory",
    "estimate_noise",
    "exact_predictor",
    "gaussian_predictor",
]

Uncertainty = Literal["initialization", "posterior", "none"]

# Draws solved together, and the numbers in one array over points, outputs and draws: 2**22 doubles
# are 32 MiB. More only cost memory: a few hundred columns already make products with Theta run at
# the machine's rate, and progress is seen between chunks.
_DRAWS_AT_ONCE = 128
_NUMBERS_AT_ONCE = 2**22
# Of these, what a core of a CPU solves together: arrays stay in its cache.
_DRAWS_A_CORE = 32
# From this many points on a deflation saves more products with Theta than it costs.
_DEFLATE_FROM = 1000
# Iterations of the solver: so many at least, and more, for hard problems, where they cost little:
# up to so many, and products with Theta of so many operations.
_ITERATIONS, _MOST_ITERATIONS, _MOST_OPERATIONS = 5000, 50_000, 2e12
# Leapfrog steps of Hamiltonian trajectories, times d^(1/4) in d = nC dimensions. They are halved,
# so many times at most, until this share of trials is accepted, one from each of as many draws.
_HAMILTONIAN_STEP = 0.8
_HALVINGS, _ACCEPTED, _TRIALS = 6, 0.65, 32
# What predictions take besides, a block of test points after the other: 5 arrays of 64 MiB.
_WORK_SPACE = 5 * 2**26
# The least noise that is estimated, relative to the targets: less explains no more, and costs the
# solvers their precision. And what is taken, relative to the prior, where targets are all zero and
# so say nothing: small, and yet networks can be trained and chains drawn.
_LEAST_NOISE, _UNKNOWN_NOISE = 1e-4, 1e-2


@own_rules()
def gaussian_predictor(
    kernels: Kernels,
    y: ArrayLike,
    reg: float,
    likelihood: Likelihood,
    uncertainty: Uncertainty,
    *,
    start: Array | None = None,
    tol: float = 1e-12,
    n_checked: int = CHECKED,
) -> "GaussianPredictor":
    r"""Derive the Gaussian distribution of the trained predictor.

    About the solution :math:`\bar\alpha` from f0 = 0, with W the curvature there,

    .. math::
        f^*(x) \approx \Theta_{xX} \bar\alpha + f_0(x) - \Theta_{xX} G f_0(X), \qquad
        G = (\Theta + reg\,W^{-1})^{-1},

    and :math:`G = \Theta^{-1} P` for reg = 0. docs/theory: "The Gaussian predictor".

    Parameters
    ----------
    kernels : Kernels
        NNGP kernel and NTK of the training points, [n, n].
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    reg : float
        Regularisation, >= 0. Zero needs targets that are not degenerate.
    likelihood : Likelihood
        Observation model.
    uncertainty : {"initialization", "posterior", "none"}
        Which prior functions: see the module.
    start : Array of shape [n, C], optional
        Dual coefficients near the mode's, to search from.
    tol : float
        Bound of the distance of the mode's objective to its minimum, in nats.
    n_checked : int
        Prior functions that are solved for exactly, to measure how far first order holds: the
        predictor's `discrepancy`. They are the same in every run. 0 measures nothing.

    Returns
    -------
    GaussianPredictor

    Raises
    ------
    ValueError
        If reg = 0, and the NTK of the training points is singular or targets are degenerate.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import MLP
    >>> from ntk_uq.analytic import gaussian_predictor
    >>> from ntk_uq.likelihoods import Categorical
    >>> net, X = MLP(), jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> predictor = gaussian_predictor(
    ...     net.kernel_block(X), jnp.eye(2), 1.0, Categorical(), "initialization"
    ... )
    >>> x = jnp.array([[2.0, 0.0]])
    >>> mean, cov = predictor.moments(net.kernel_block(x, X), net.kernel_diag_block(x))
    >>> mean.shape, cov.shape
    ((1, 2), (1, 2, 2))
    """
    _checks.uncertainty(uncertainty)
    kernels, y = _arrays(kernels, y)
    require_condition(likelihood, y, reg)
    ntk = kernels.ntk
    nngp = kernels.nngp if uncertainty == "initialization" else None
    resolvent: _Shared | _PerOutput | None = None
    if reg > 0:
        start = None if start is None else start[None]
        zero = jnp.zeros_like(y)[None]
        most = _max_iter(*y.shape)
        solution = solve_dual(ntk, reg, y, zero, likelihood, start=start, tol=tol, max_iter=most)
        alpha, gap = solution.alpha[0], solution.gap[0]
        if uncertainty != "none":
            resolvent = _resolvent(ntk, reg, likelihood.curvature(solution.latents[0], y), nngp)
    else:
        factor = interpolation_factor(ntk)
        alpha, gap = cho_solve((factor, True), likelihood.optimum(y)), jnp.zeros((), ntk.dtype)
        if uncertainty != "none":
            inverse = cho_solve((factor, True), jnp.eye(len(ntk), dtype=ntk.dtype))
            resolvent = _Shared(inverse, likelihood.identified(jnp.eye(y.shape[1])))
    predictor = GaussianPredictor(alpha, resolvent, nngp, reg, uncertainty, gap)
    if reg == 0 or uncertainty == "none" or is_exact(likelihood):
        return replace(predictor, discrepancy=no_discrepancy(y.shape))
    if n_checked > 0:
        draws = _coupled_draws(predictor, kernels, y, likelihood, n_checked)
        predictor = replace(predictor, discrepancy=compare_draws(*draws, likelihood))
    return predictor


def _coupled_draws(
    predictor: "GaussianPredictor", kernels: Kernels, y: Array, likelihood: Likelihood, n_draws: int
) -> tuple[Array, Array]:
    r"""The same draws at the training points, to first order and exactly: [S, n, C] each.

    To first order a draw is
    :math:`\bar f + f_0 - \Theta\,(reg\,I + W\Theta)^{-1}(W f_0 + \varepsilon)`, and
    :math:`\varepsilon = R z` with :math:`R R^\top = W` is W times z over the root of W's diagonal
    part. docs/theory: "The Gaussian predictor".
    """
    key = jax.random.key(0, impl="threefry2x32")  # the same in every run
    draws = _exact_predictor(
        key, kernels, y, predictor.reg, likelihood, predictor.uncertainty, n_draws,
        mode=predictor.alpha, tol=CHECK_TOLERANCE, max_iter=CHECK_ITERATIONS,
    )  # fmt: skip
    mode = kernels.ntk @ predictor.alpha
    f0 = jnp.einsum("ij,sjc->sic", draws.factor, draws.whitened)
    seen = f0
    if predictor.uncertainty == "posterior":
        *_, label_noise = _random_variables(key, range(n_draws), y, predictor.uncertainty)
        d = likelihood.curvature(mode, y).diagonal
        seen = f0 + jnp.where(d > 0, label_noise / jnp.sqrt(jnp.where(d > 0, d, 1.0)), 0.0)
    resolvent: Any = predictor.resolvent
    change = jax.vmap(resolvent.apply)(seen)
    first_order = mode + f0 - jnp.einsum("ij,sjc->sic", kernels.ntk, change)
    exact = f0 + jnp.einsum("ij,sjc->sic", kernels.ntk, draws.alpha)
    return first_order, exact


@own_rules()
def shared_predictor(
    response: ArrayLike, kernels: Kernels, y: ArrayLike, reg: float
) -> "GaussianPredictor":
    """Distribution over initialisations where the dual coefficients are linear in the outputs.

    Parameters
    ----------
    response : array of shape [n, n]
        alpha = response (y - f0(X)), for every output.
    kernels : Kernels
        NNGP kernel and NTK of the training points, [n, n].
    y : array of shape [n, C]
        Targets.
    reg : float
        Regularisation.
    """
    kernels, y = _arrays(kernels, y)
    response = jnp.asarray(response, y.dtype)
    resolvent = _Shared(response, jnp.eye(y.shape[1], dtype=y.dtype))
    gap = jnp.zeros((), y.dtype)
    predictor = GaussianPredictor(response @ y, resolvent, kernels.nngp, reg, "initialization", gap)
    return replace(predictor, discrepancy=no_discrepancy(y.shape))


# G in two structured forms. Of each: `reduction`, what training takes from the prior covariance at
# each point, Theta_xX G Theta_Xx for the prior kernel Theta and V^T K_Xx + K_xX V - V^T K V with
# V = G Theta_Xx for a prior kernel K, [m, C, C]; `columns`, V itself, [n, C, m, C]; `apply`, G u.


class _Shared(NamedTuple):
    """G = E x Q, where every output has the same curvature."""

    inverse: Array  # E, [n, n]
    outputs: Array  # Q, a projection, [C, C]

    def reduction(self, cross: Kernels, nngp: Array | None) -> Array:
        a = cross.ntk @ self.inverse
        if nngp is None:
            per_point = jnp.sum(a * cross.ntk, axis=1)
        else:
            per_point = jnp.sum(a * (2 * cross.nngp - a @ nngp), axis=1)
        return per_point[:, None, None] * self.outputs

    def columns(self, ntk: Array) -> Array:
        return jnp.einsum("ij,mj,cd->icmd", self.inverse, ntk, self.outputs)

    def apply(self, u: Array) -> Array:
        return self.inverse @ u @ self.outputs


class _PerOutput(NamedTuple):
    """G = blockdiag(E_c) - [E_c q_c M^-1 q_d E_d]_{cd}, with M = sum_c q_c E_c q_c.

    Rasmussen & Williams (2006), eq. 3.45 f., where q = 1. There is no second term where the
    likelihood factorises over outputs.
    """

    inverses: Array  # E_c, [C, n, n]
    direction: Array | None = None  # q, [n, C]
    whitening: Array | None = None  # R with R^T R = M^-1, [n, n]
    mixing: Array | None = None  # R (sum_c q_c E_c K E_c q_c) R^T, [n, n]

    # Below, points come before training points: rows are contiguous where they are summed over.

    def reduction(self, cross: Kernels, nngp: Array | None) -> Array:
        a = cross.ntk @ self.inverses  # [C, m, n]
        change = cross.ntk if nngp is None else 2 * cross.nngp - a @ nngp
        reduction = _diagonal(jnp.sum(a * change, axis=-1).T)
        if self.direction is None or self.whitening is None:
            return reduction
        q = self.direction.T[:, None, :]
        h = (q * a) @ self.whitening.T
        if nngp is None:
            return reduction - _pairs(h, h)
        # With V = G Theta_Xx, output by output: V_dc = [d = c] a_c - E_d q_d M^-1 q_c a_c.
        mixed = (q * ((a @ nngp - cross.nngp) @ self.inverses)) @ self.whitening.T
        half = _pairs(mixed - 0.5 * h @ self.mixing, h)
        return reduction + half + half.swapaxes(1, 2)

    def columns(self, ntk: Array) -> Array:
        a = ntk @ self.inverses
        columns = jnp.einsum("cmi,cd->icmd", a, jnp.eye(len(a), dtype=a.dtype))
        if self.direction is None or self.whitening is None:
            return columns
        q = self.direction.T[:, None, :]
        h = (q * a) @ self.whitening.T @ self.whitening
        return columns - jnp.einsum("cij,jc,dmj->icmd", self.inverses, self.direction, h)

    def apply(self, u: Array) -> Array:
        a = jnp.einsum("cij,jc->ic", self.inverses, u)
        if self.direction is None or self.whitening is None:
            return a
        h = self.whitening.T @ (self.whitening @ jnp.sum(self.direction * a, axis=1))
        return a - jnp.einsum("cij,jc->ic", self.inverses, self.direction * h[:, None])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianPredictor:
    """Gaussian predictor, ready for any test point.

    Attributes
    ----------
    alpha : Array of shape [n, C]
        Dual coefficients of the mean.
    resolvent : pytree or None
        G in a structured form, [n, n] for likelihoods that treat all outputs alike and [C, n, n]
        otherwise; None for "none".
    nngp : Array of shape [n, n] or None
        NNGP kernel of the training points, for "initialization".
    reg : float
        Regularisation.
    uncertainty : str
        Which prior functions.
    gap : Array of shape []
        Upper bound of the distance of the mode's objective to its minimum, in nats.
    discrepancy : Discrepancy or None
        How far the predictor is from the distribution that it is the first order of, at the n
        training points: a few of its draws, each against the exact solution for the same prior
        function (and label noise). Zero where first order is exact: for a Gaussian likelihood,
        reg = 0 and "none". None where it was not measured.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import MLP, Gaussian
    >>> net, X, x = MLP(), jnp.array([[-1.0], [1.0]]), jnp.array([[0.0], [2.0], [3.0]])
    >>> y = jnp.array([[-1.0], [1.0]])
    >>> predictor = gaussian_predictor(net.kernel_block(X), y, 1.0, Gaussian(0.1), "posterior")
    >>> mean, cov = predictor.joint_moments(net.kernel_block(x, X), net.kernel_block(x))
    >>> mean.shape, cov.shape
    ((3, 1), (3, 1, 3, 1))
    """

    alpha: Array
    resolvent: _Shared | _PerOutput | None
    nngp: Array | None
    reg: float
    uncertainty: Uncertainty = field(metadata={"static": True})
    gap: Array
    discrepancy: "Discrepancy | None" = None

    @own_rules()
    @jax.jit
    def moments(self, cross: Kernels, diagonal: Kernels) -> tuple[Array, Array]:
        """Mean and covariance of the predictor at each of m test points.

        Parameters
        ----------
        cross : Kernels
            Kernels between test and training points, [m, n].
        diagonal : Kernels
            Kernels of each test point with itself, [m].

        Returns
        -------
        mean : Array of shape [m, C]
        cov : Array of shape [m, C, C]
        """
        mean = cross.ntk @ self.alpha
        if self.resolvent is None:
            return mean, jnp.zeros((*mean.shape, mean.shape[1]), mean.dtype)
        reduction = self.resolvent.reduction(cross, self.nngp)
        if self.uncertainty == "posterior":
            return mean, _covariance(diagonal.ntk, reduction) / self.reg
        return mean, _covariance(diagonal.nngp, reduction)

    @own_rules()
    @jax.jit
    def joint_moments(self, cross: Kernels, test: Kernels) -> tuple[Array, Array]:
        """Mean and covariance of the predictor, jointly over m test points.

        Parameters
        ----------
        cross : Kernels
            Kernels between test and training points, [m, n].
        test : Kernels
            Kernels of the test points, [m, m].

        Returns
        -------
        mean : Array of shape [m, C]
        cov : Array of shape [m, C, m, C]
        """
        mean = cross.ntk @ self.alpha
        if self.resolvent is None:
            return mean, jnp.zeros(mean.shape * 2, mean.dtype)
        identity = jnp.eye(mean.shape[1], dtype=mean.dtype)
        columns = self.resolvent.columns(cross.ntk)  # G Theta_Xx
        if self.nngp is None:
            prior = jnp.einsum("mp,cd->mcpd", test.ntk, identity)
            cov = (prior - jnp.einsum("mi,icpd->mcpd", cross.ntk, columns)) / self.reg
        else:
            prior = jnp.einsum("mp,cd->mcpd", test.nngp, identity)
            # B K B^T with B = [-V^T, I]: half of the quadratic part goes with either cross term.
            rows = 0.5 * jnp.einsum("ij,jcmd->icmd", self.nngp, columns)
            half = jnp.einsum("icmd,icpe->mdpe", rows, columns)
            half = half - jnp.einsum("mi,icpd->mcpd", cross.nngp, columns)
            cov = prior + half + half.transpose(2, 3, 0, 1)
        return mean, 0.5 * (cov + cov.transpose(2, 3, 0, 1))


@own_rules()
def exact_predictor(
    key: Array,
    kernels: Kernels,
    y: ArrayLike,
    reg: float,
    likelihood: Likelihood,
    uncertainty: Uncertainty,
    n_draws: int,
    *,
    progress: Progress | None = None,
) -> "ExactPredictor":
    """Draw prior functions and solve the convex problem of each.

    docs/theory: "Exact push-forward". Draw i has a random stream of its own, so more draws keep the
    earlier ones.

    Parameters
    ----------
    key : Array
        PRNG key.
    kernels, y, reg, likelihood, uncertainty
        As in `gaussian_predictor`.
    n_draws : int
        Number of draws S. "none" has one solution, whatever is asked for.
    progress : callable, optional
        ``progress(done, total)`` is told the draws solved.

    Returns
    -------
    ExactPredictor

    Raises
    ------
    ValueError
        If reg = 0, and the NTK of the training points is singular or targets are degenerate.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> kernels, y = MLP().kernel_block(jnp.array([[-1.0], [1.0]])), jnp.eye(2)
    >>> key = jax.random.key(0)
    >>> draws = exact_predictor(key, kernels, y, 1.0, Categorical(), "initialization", 4)
    >>> draws.alpha.shape, bool(draws.converged.all())
    ((4, 2, 2), True)
    """
    _checks.count("n_draws", n_draws)
    _checks.uncertainty(uncertainty)
    problem = (*_arrays(kernels, y), reg, likelihood, uncertainty)
    return _exact_predictor(key, *problem, n_draws, progress=progress)


def _exact_predictor(
    key: Array,
    kernels: Kernels,
    y: Array,
    reg: float,
    likelihood: Likelihood,
    uncertainty: Uncertainty,
    n_draws: int,
    *,
    mode: Array | None = None,
    progress: Progress | None = None,
    tol: float = 1e-12,
    max_iter: int | None = None,
) -> "ExactPredictor":
    """`exact_predictor`, to any tolerance; the mode's dual coefficients, where known, to start."""
    require_condition(likelihood, y, reg)
    n, outputs = y.shape
    if uncertainty == "none":
        factor, jitter, n_draws = jnp.zeros_like(kernels.nngp), 0.0, 1
    else:
        prior = kernels.nngp if uncertainty == "initialization" else kernels.ntk / reg
        factor, jitter = cholesky(prior)

    whitened, noise, *label_noise = _random_variables(key, range(n_draws), y, uncertainty)
    f0 = jnp.einsum("ij,sjc->sic", factor, whitened)
    if reg > 0:
        deflation, near = None, None if mode is None else mode[None]
        if uncertainty != "none" and n >= _DEFLATE_FROM:
            deflation, found = deflate_at_mode(kernels.ntk, reg, y, likelihood)
            near = found if near is None else near
        solve = partial(
            solve_dual,
            kernels.ntk,
            reg,
            y,
            likelihood=likelihood,
            deflation=deflation,
            tol=tol,
            max_iter=_max_iter(n, outputs) if max_iter is None else max_iter,
        )
        of_draws = {}
        if uncertainty == "posterior":
            centre = solve(jnp.zeros_like(y)[None], start=near)
            curvature = likelihood.curvature(centre.latents[0], y)
            # A wide prior's f0 = L w may be where rates overflow: start where f is the mode, as
            # Theta = reg L L^T.
            undo = jax.vmap(partial(solve_triangular, factor, lower=True, trans=1))(whitened)
            of_draws["linear"] = curvature.sqrt_matvec(label_noise[0])
            of_draws["start"] = centre.alpha - undo / reg
        alpha, gap, converged = _solve_draws(solve, f0, of_draws, progress)
    else:
        ntk_factor = interpolation_factor(kernels.ntk)
        target = likelihood.optimum(y) - likelihood.identified(f0)
        alpha = jax.vmap(lambda t: cho_solve((ntk_factor, True), t))(target)
        gap, converged = jnp.zeros(n_draws, y.dtype), jnp.ones(n_draws, bool)
    return ExactPredictor(alpha, whitened, noise, factor, jitter, reg, uncertainty, gap, converged)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExactPredictor:
    """Draws of the trained predictor, ready for any test point.

    Attributes
    ----------
    alpha : Array of shape [S, n, C]
        Dual coefficients of each draw.
    whitened : Array of shape [S, n, C]
        Standard normal variables of the prior function at the training points.
    noise : Array of shape [S, C]
        Standard normal variables of the prior function at a test point, given the training points:
        the same at every point, so that a draw's latent is a function of the point alone.
    factor : Array of shape [n, n]
        Cholesky factor of the prior covariance, plus `jitter` on its diagonal.
    jitter : float
        See `factor`; zero unless the covariance was singular.
    reg : float
        Regularisation.
    uncertainty : str
        Which prior functions.
    gap : Array of shape [S]
        Upper bound of each objective's distance to its minimum, in nats.
    converged : Array of shape [S]
        Whether each draw's problem was solved to the tolerance.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> net, X, x = MLP(), jnp.array([[-1.0], [1.0]]), jnp.array([[0.0], [2.0], [3.0]])
    >>> problem = net.kernel_block(X), jnp.eye(2), 1.0, Categorical(), "initialization"
    >>> draws = exact_predictor(jax.random.key(0), *problem, 4)
    >>> cross = net.kernel_block(x, X)
    >>> draws.latents(cross, net.kernel_diag_block(x)).shape  # right at each point
    (4, 3, 2)
    >>> draws.joint_latents(jax.random.key(1), cross, net.kernel_block(x)).shape  # functions
    (4, 3, 2)
    """

    alpha: Array
    whitened: Array
    noise: Array
    factor: Array
    jitter: float
    reg: float
    uncertainty: Uncertainty = field(metadata={"static": True})
    gap: Array
    converged: Array

    @own_rules()
    @jax.jit
    def latents(self, cross: Kernels, diagonal: Kernels) -> Array:
        """Draws of the latents at m test points: [S, m, C].

        The distribution at each point is right; over several points the draws share their random
        numbers, and are not draws of functions. `joint_latents` gives these.

        Parameters
        ----------
        cross : Kernels
            Kernels between test and training points, [m, n].
        diagonal : Kernels
            Kernels of each test point with itself, [m].
        """
        if self.uncertainty == "none":
            return self._trained(cross)
        prior_cross, prior_diagonal = self._prior(cross), self._prior(diagonal)
        weights = solve_triangular(self.factor, prior_cross.T, lower=True)  # L^-1 k_Xx, [n, m]
        variance = prior_diagonal - jnp.sum(weights**2, axis=0)
        scale = jnp.sqrt(jnp.maximum(variance, 0.0))
        prior = jnp.einsum("im,sic->smc", weights, self.whitened)
        return prior + scale[:, None] * self.noise[:, None, :] + self._trained(cross)

    @own_rules()
    def joint_latents(self, key: Array, cross: Kernels, test: Kernels) -> Array:
        """Draws of functions, jointly over m test points: [S, m, C].

        Parameters
        ----------
        key : Array
            PRNG key for the prior functions at the test points, given those at the training points.
        cross : Kernels
            Kernels between test and training points, [m, n].
        test : Kernels
            Kernels of the test points, [m, m].
        """
        if self.uncertainty == "none":
            return self._trained(cross)
        weights = solve_triangular(self.factor, self._prior(cross).T, lower=True)
        conditional, _ = _conditional_factor(self._prior(test), weights)
        shape = (len(conditional), self.alpha.shape[-1])
        (fresh,) = _standard_normal(key, range(len(self.alpha)), shape, dtype=conditional.dtype)
        prior = jnp.einsum("im,sic->smc", weights, self.whitened)
        return prior + jnp.einsum("mk,skc->smc", conditional, fresh) + self._trained(cross)

    def _trained(self, cross: Kernels) -> Array:
        return jnp.einsum("mi,sic->smc", cross.ntk, self.alpha)

    def _prior(self, kernels: Kernels) -> Array:
        return kernels.nngp if self.uncertainty == "initialization" else kernels.ntk / self.reg


@own_rules()
def correct_draws(
    key: Array,
    predictor: ExactPredictor,
    y: ArrayLike,
    likelihood: Likelihood,
    n_trajectories: int = 1,
) -> ExactPredictor:
    r"""Bring draws of "posterior" nearer to the posterior, by Hamiltonian Monte Carlo.

    Draws are right to first order. A step of a Markov chain that leaves the posterior invariant
    takes their distribution no further from it, and each draw makes a few: trajectories of a
    quarter of a period in coordinates in which the posterior is nearly N(0, I), accepted or not
    by Metropolis' rule. The first draws are tried for a step that is mostly accepted. docs:
    "Ensembles as posterior samples".

    Parameters
    ----------
    key : Array
        PRNG key, another than that of the draws. Draw i has a random stream of its own.
    predictor : ExactPredictor
        Draws of uncertainty "posterior".
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    likelihood : Likelihood
        Observation model, of which the draws are.
    n_trajectories : int
        Trajectories of each draw. One serves for reg near 1; where the prior is wide, for small
        reg, draws start farther away, and 16 are safe.

    Returns
    -------
    ExactPredictor
        Its `alpha` is zero: all is in the values at the training points.

    Raises
    ------
    ValueError
        If the draws are of another uncertainty.

    References
    ----------
    Neal 2011, "MCMC using Hamiltonian dynamics".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> net, X, y = MLP(), jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> problem = net.kernel_block(X), y, 1.0, Categorical(), "posterior"
    >>> draws = exact_predictor(jax.random.key(0), *problem, 4)
    >>> correct_draws(jax.random.key(1), draws, y, Categorical()).alpha.shape
    (4, 2, 2)
    """
    if predictor.uncertainty != "posterior":
        raise ValueError(
            'correct_draws takes draws of uncertainty "posterior": there is no posterior that '
            f'those of "{predictor.uncertainty}" would be near.'
        )
    factor = jnp.asarray(predictor.factor)
    y = jnp.asarray(y, factor.dtype)
    coordinates = Preconditioned.create(factor, y, likelihood)

    def whitened(draws: range) -> Array:
        # f = L w + Theta alpha = L z, with Theta = reg L L^T.
        chunk = slice(draws.start, draws.stop)
        pull = jnp.einsum("ji,sjc->sic", factor, jnp.asarray(predictor.alpha)[chunk])
        return jnp.asarray(predictor.whitened)[chunk] + predictor.reg * pull

    n_draws, at_once = len(predictor.alpha), _draws_at_once(*y.shape)
    trials = whitened(range(min(n_draws, at_once, _TRIALS)))
    step = _accepted_step(jax.random.fold_in(key, 0), coordinates, trials)
    parts = []
    for start in range(0, n_draws, at_once):
        draws = range(start, min(start + at_once, n_draws))
        z = whitened(draws)
        momenta, levels = _standard_normal(
            key, draws, (n_trajectories, *y.shape), (n_trajectories, 2), dtype=z.dtype
        )
        parts.append(_corrected(coordinates, z, momenta, levels, step)[0])
    return replace(
        predictor, whitened=jnp.concatenate(parts), alpha=jnp.zeros_like(predictor.alpha)
    )


def _accepted_step(key: Array, coordinates: Preconditioned, z: Array) -> float:
    """The step of leapfrog integration that most trial trajectories from some draws survive."""
    momenta, levels = _standard_normal(key, range(len(z)), (1, *z.shape[1:]), (1, 2), dtype=z.dtype)
    for halvings in range(_HALVINGS + 1):
        step = _HAMILTONIAN_STEP * coordinates.targets.size**-0.25 * 0.5**halvings
        _, accepted = _corrected(coordinates, z, momenta, levels, step)
        if float(jnp.mean(accepted)) >= _ACCEPTED:
            break
    return step


@jax.jit
def _corrected(
    coordinates: Preconditioned, z: Array, momenta: Array, levels: Array, step: float
) -> tuple[Array, Array]:
    """Whitened variables [S, n, C] after T trajectories of each draw, and which were accepted."""

    def one(z: Array, momenta: Array, levels: Array) -> tuple[Array, Array]:
        u, accepted = _trajectories(coordinates, step, coordinates.position(z), momenta, levels)
        return coordinates.outcome(u)[0], accepted

    return jax.vmap(one)(z, momenta, levels)


def _trajectories(
    coordinates: Preconditioned, step: float, u: Array, momenta: Array, levels: Array
) -> tuple[Array, Array]:
    """Where T trajectories end, one after the other, and which of them were accepted, [T]."""
    n_leaps = jnp.ceil(0.5 * jnp.pi / step).astype(int)

    def energy(u: Array, momentum: Array) -> Array:
        return coordinates.potential(u) + 0.5 * jnp.sum(momentum**2)

    def force(u: Array) -> Array:
        return -jax.grad(coordinates.potential)(u)

    def trajectory(u: Array, noise: tuple[Array, Array]) -> tuple[Array, Array]:
        momentum, (for_size, for_level) = noise
        # A step of one length could be a fraction of a period of some direction.
        size = step * (0.8 + 0.4 * ndtr(for_size))

        def leap(_, state):
            u, momentum, pull = state
            momentum = momentum + 0.5 * size * pull
            u = u + size * momentum
            pull = force(u)
            return u, momentum + 0.5 * size * pull, pull

        new, end, _ = lax.fori_loop(0, n_leaps, leap, (u, momentum, force(u)))
        accepted = log_ndtr(for_level) < energy(u, momentum) - energy(new, end)
        return jnp.where(accepted, new, u), accepted

    return lax.scan(trajectory, u, (momenta, levels))


def estimate_memory(
    n: int, outputs: int, n_draws: int, method: str, uncertainty: Uncertainty
) -> int:
    """Memory that fitting takes at its peak, in bytes, in double precision.

    Parameters
    ----------
    n, outputs : int
        Training points and outputs C.
    n_draws : int
        Draws of method "exact".
    method : {"exact", "gaussian"}
        Which predictor.
    uncertainty : str
        As in `gaussian_predictor`.

    Returns
    -------
    int

    Examples
    --------
    >>> f"{estimate_memory(10_000, 10, 256, 'exact', 'initialization') / 2**30:.1f} GiB"
    '7.2 GiB'
    """
    # Counted in n x n matrices and in latents [n, C]; measured in benchmarks/size.py.
    if method == "exact":
        matrices, latents = 7, 24 * min(n_draws, _draws_at_once(n, outputs)) + 5 * n_draws
    else:
        matrices, latents = 4, 24
        if uncertainty != "none":
            matrices += outputs + 9
    return 8 * (matrices * n * n + latents * n * outputs) + _WORK_SPACE


def estimate_noise(
    ntk: ArrayLike, y: ArrayLike, reg: float, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    r"""Noise of a Gaussian likelihood that maximises the evidence, for each output.

    With the eigenvalues :math:`s_i` of :math:`S = \Theta / reg` and targets :math:`z` in its
    eigenbasis, :math:`\log p(y) = -\tfrac12 \sum_i z_i^2 / (s_i + \sigma^2)
    + \log(s_i + \sigma^2) + const`. A point that occurs w times is one observation with the noise
    :math:`\sigma / \sqrt w`, and w - 1 repetitions, which say of the noise that it is small:
    :math:`s_i` and :math:`z` are then those of :math:`\sqrt w S \sqrt w` and :math:`\sqrt w y`, and
    :math:`\sum_i (w_i - 1) \log \sigma^2` is added.

    Parameters
    ----------
    ntk : array of shape [n, n]
        NTK of the training points.
    y : array of shape [n, C]
        Targets.
    reg : float
        Regularisation, > 0.
    weights : array of shape [n], optional
        How often each point counts, > 0.

    Returns
    -------
    array of shape [C]
        Standard deviations in units of the target, between 1e-4 and 2 times the root mean square
        of the output's targets. Targets that are all zero have the highest evidence without noise,
        which no solver can take: 1e-2 of the prior's root mean square.

    References
    ----------
    Rasmussen & Williams (2006), eq. 5.8.

    Examples
    --------
    >>> import numpy as np
    >>> estimate_noise(np.zeros((3, 3)), np.array([[2.0], [-2.0], [2.0]]), 1.0).round(3)
    array([2.])
    """
    y = np.asarray(y, np.float64)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    roots = np.sqrt(weights)
    prior = np.asarray(ntk) / reg
    eigenvalues, vectors = scipy.linalg.eigh(roots[:, None] * prior * roots)
    squares = (vectors.T @ (roots[:, None] * y)) ** 2
    scales = np.sqrt(np.average(np.square(y), axis=0, weights=weights))
    repetitions = np.sum(weights - 1)

    def deficit(log_noise: float, squares: NDArray) -> float:
        variances = np.maximum(eigenvalues, 0.0) + np.exp(2 * log_noise)
        fit = np.sum(squares / variances + np.log(variances))
        return float(fit + 2 * repetitions * log_noise)

    def best(squares: NDArray, scale: float) -> float:
        # The evidence may have two maxima, one explaining by noise and one by signal: scan first.
        grid = np.log(scale) + np.linspace(np.log(_LEAST_NOISE), np.log(2), 60)
        centre = int(np.argmin([deficit(g, squares) for g in grid]))
        bounds = grid[max(centre - 1, 0)], grid[min(centre + 1, len(grid) - 1)]
        fit = scipy.optimize.minimize_scalar(deficit, bounds=bounds, args=(squares,))
        return float(np.exp(fit.x))

    unknown = _UNKNOWN_NOISE * (np.sqrt(np.mean(np.diag(prior))) or 1.0)
    return np.array(
        [best(q, s) if s > 0 else unknown for q, s in zip(squares.T, scales, strict=True)]
    )


class FunctionDraws:
    """Draws of the trained predictor as functions: evaluated anywhere, later, and consistently.

    A call returns the S functions at new points, drawn given all values that earlier calls have
    seen; the law is exact, jointly over all calls. What it costs is memory of these points: a
    call takes time and space proportional to the square of their number. A point that is asked for
    again has the same values up to the jitter of its factorisation, about 1e-6.

    Parameters
    ----------
    key : Array
        PRNG key for the prior functions at new points.
    kernels : callable
        ``kernels(x1, x2)`` gives the `Kernels` of two sets of points, [n1, n2].
    X : Array of shape [n, d]
        Training points.
    predictor : ExactPredictor
        The draws.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> net, X, key = MLP(), jnp.array([[-1.0], [1.0]]), jax.random.key(0)
    >>> predictor = exact_predictor(
    ...     key, net.kernel_block(X), jnp.eye(2), 1.0, Categorical(), "initialization", 4
    ... )
    >>> functions = FunctionDraws(key, net.kernel_block, X, predictor)
    >>> functions(jnp.array([[0.0], [0.5], [2.0]])).shape
    (4, 3, 2)
    """

    def __init__(
        self,
        key: Array,
        kernels: Callable[[Array, Array], Kernels],
        X: Array,
        predictor: ExactPredictor,
    ):
        self._key = key
        self._kernels = kernels
        self._predictor = predictor
        self._n_train = len(X)
        self._points = jnp.asarray(X)
        self._factor = jnp.asarray(predictor.factor)
        self._whitened = jnp.asarray(predictor.whitened)

    @own_rules()
    def __call__(self, x: Array) -> Array:
        """Evaluate every function at m points: [S, m, C]."""
        x = jnp.asarray(x)
        cross = Kernels(*map(jnp.asarray, self._kernels(x, self._points)))
        trained = self._predictor._trained(Kernels(*(k[:, : self._n_train] for k in cross)))
        if self._predictor.uncertainty == "none":
            return trained
        weights = solve_triangular(self._factor, self._predictor._prior(cross).T, lower=True)
        own = self._predictor._prior(Kernels(*map(jnp.asarray, self._kernels(x, x))))
        new_factor, _ = _conditional_factor(own, weights)
        fresh = self._fresh(len(x))
        prior = jnp.einsum("im,sic->smc", weights, self._whitened)
        prior = prior + jnp.einsum("mk,skc->smc", new_factor, fresh)
        corner = jnp.zeros((len(self._factor), len(x)), weights.dtype)
        self._factor = jnp.block([[self._factor, corner], [weights.T, new_factor]])
        self._whitened = jnp.concatenate([self._whitened, fresh], axis=1)
        self._points = jnp.concatenate([self._points, x])
        return prior + trained

    def _fresh(self, m: int) -> Array:
        """Standard normal variables of the next m points: [S, m, C], the same however they come."""
        draws, seen, outputs = self._whitened.shape
        points = range(seen, seen + m)
        (noise,) = _standard_normal(self._key, points, (draws, outputs), dtype=self._whitened.dtype)
        return noise.swapaxes(0, 1)


def _conditional_factor(own: Array, weights: Array) -> tuple[Array, float]:
    """Cholesky factor of a conditional covariance, relative to the rounding of the prior's."""
    covariance = own - weights.T @ weights
    # Where points coincide with known ones nothing is left but rounding, of the size of the prior.
    rounding = 100 * float(jnp.finfo(own.dtype).eps) * float(jnp.trace(own))
    return cholesky(covariance + rounding * jnp.eye(len(own), dtype=own.dtype))


def _arrays(kernels: Kernels, y: ArrayLike) -> tuple[Kernels, Array]:
    """As JAX arrays, in the precision of the kernels."""
    if not (isinstance(kernels, tuple | list) and len(kernels) == 2):
        raise ValueError(
            "kernels takes Kernels(nngp, ntk), as architecture.kernels(X) gives them; got "
            f"{type(kernels).__name__}."
        )
    nngp, ntk = (jnp.asarray(kernel) for kernel in kernels)
    n, shapes = len(ntk), [nngp.shape, ntk.shape]
    if np.ndim(y) != 2 or shapes != [(n, n), (n, n)] or np.shape(y)[0] != n:
        raise ValueError(
            "Kernels of n points are [n, n] and their targets [n, C], for classes one-hot rows; "
            f"got {nngp.shape}, {ntk.shape} and {np.shape(y)}."
        )
    return Kernels(nngp, ntk), jnp.asarray(y, ntk.dtype)


def _standard_normal(key: Array, items: range, *shapes: tuple[int, ...], dtype: Any) -> list[Array]:
    """Standard normal arrays [len(items), *shape], one for each shape.

    Those of item i depend on the key and i only. By NumPy's counter-based generator: to compile
    JAX's takes a CPU longer than to solve for the draws.
    """
    seed = np.asarray(jax.random.key_data(key), np.uint64).tolist()
    arrays = [np.empty((len(items), *shape), dtype) for shape in shapes]
    for row, i in enumerate(items):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([*seed, i])))
        for array in arrays:
            rng.standard_normal(out=array[row], dtype=array.dtype)
    return [jnp.asarray(array) for array in arrays]


def _random_variables(key: Array, draws: range, y: Array, uncertainty: Uncertainty) -> list[Array]:
    """Of each draw: prior function at the training points and elsewhere, and any label noise."""
    shapes = [y.shape, y.shape[1:]] + [y.shape] * (uncertainty == "posterior")
    return _standard_normal(key, draws, *shapes, dtype=y.dtype)


def _draws_at_once(n: int, outputs: int) -> int:
    return max(1, min(_DRAWS_AT_ONCE, _NUMBERS_AT_ONCE // (n * outputs)))


def _max_iter(n: int, outputs: int) -> int:
    """Iterations that the solver may take."""
    affordable = _MOST_OPERATIONS / (2 * n**2 * outputs * _DRAWS_A_CORE)
    return int(np.clip(affordable, _ITERATIONS, _MOST_ITERATIONS))


def _solve_draws(
    solve: Callable[..., DualSolution],
    f0: Array,
    of_draws: dict[str, Array],
    progress: Progress | None,
) -> tuple[Array, Array, Array]:
    """Solve chunk by chunk, so that progress is seen and an interrupt is heard.

    Prior functions f0, and what else the problems take, are of shape [S, n, C].

    On a CPU the chunks run side by side: what is not a matrix product keeps one core busy only.
    """
    n_draws, at_once, threads = len(f0), _draws_at_once(*f0.shape[1:]), 1
    if jax.default_backend() == "cpu":
        threads = min(cores(), n_draws, at_once)
        at_once = min(at_once // threads, _DRAWS_A_CORE)
    size = min(n_draws, at_once)  # one for all, whatever n_draws: draws keep their values
    double = f0.dtype == jnp.float64
    done = 0

    def solve_chunk(start: int) -> tuple[Array, Array, Array]:
        chunk = slice(start, start + size)
        missing = start + size - min(start + size, n_draws)
        fill = ((0, missing), (0, 0), (0, 0))
        with own_rules(), jax.enable_x64(double):  # settings of each thread
            s = solve(
                jnp.pad(f0[chunk], fill),
                **{name: jnp.pad(array[chunk], fill) for name, array in of_draws.items()},
            )
            return jax.block_until_ready((s.alpha, s.gap, s.converged))

    starts = range(0, n_draws, size)
    with ThreadPoolExecutor(threads) as pool:
        try:
            parts = []
            for part in pool.map(solve_chunk, starts) if threads > 1 else map(solve_chunk, starts):
                parts.append(part)
                done = min(done + size, n_draws)
                if progress is not None:
                    progress(done, n_draws)
        finally:
            pool.shutdown(cancel_futures=True)
    alpha, gap, converged = (jnp.concatenate(part)[:n_draws] for part in zip(*parts, strict=True))
    return alpha, gap, converged


def _resolvent(ntk: Array, reg: float, curvature: Curvature, nngp: Array | None) -> Any:
    """`curvature_resolvent`, for one output only where all outputs have the same curvature."""
    d = curvature.diagonal
    if curvature.direction is None and bool(jnp.all(d == d[:, :1])):
        one = curvature_resolvent(ntk, reg, Curvature(d[:, :1], None))
        return _Shared(one.inverses[0], jnp.eye(d.shape[1], dtype=d.dtype))
    return curvature_resolvent(ntk, reg, curvature, nngp)


@jax.jit
def curvature_resolvent(
    ntk: Array, reg: Array | float, curvature: Curvature, nngp: Array | None = None
) -> _PerOutput:
    """G = (reg I + W Theta)^-1 W, and for a prior covariance K what its use takes."""

    def inverse(d: Array) -> Array:
        """(Theta + reg diag(d)^-1)^-1, safe where d underflows."""
        root = jnp.sqrt(d)
        inner = root[:, None] * ntk * root + reg * jnp.eye(len(ntk), dtype=ntk.dtype)
        half = solve_triangular(jnp.linalg.cholesky(inner), jnp.diag(root), lower=True)
        return half.T @ half

    # One output after another: work space is that of one.
    inverses = lax.map(inverse, curvature.diagonal.T)
    if curvature.direction is None:
        return _PerOutput(inverses)

    def add(total: tuple[Array, Array], output: tuple[Array, Array]) -> tuple[Any, None]:
        e, q = output
        e_q = e * q
        mixing = total[1] if nngp is None else total[1] + e_q.T @ (nngp @ e_q)
        return (total[0] + q[:, None] * e_q, mixing), None

    zero = jnp.zeros_like(ntk)
    (m, total), _ = lax.scan(add, (zero, zero), (inverses, curvature.direction.T))
    identity = jnp.eye(len(ntk), dtype=ntk.dtype)
    whitening = solve_triangular(jnp.linalg.cholesky(m), identity, lower=True)
    mixing = None if nngp is None else whitening @ total @ whitening.T
    return _PerOutput(inverses, curvature.direction, whitening, mixing)


def _pairs(u: Array, v: Array) -> Array:
    """Inner products of every two outputs: [C, m, n], [C, m, n] -> [m, C, C]."""
    return jnp.einsum("cmi,dmi->mcd", u, v)


def _diagonal(values: Array) -> Array:
    """[m, C] -> [m, C, C]."""
    return values[..., None] * jnp.eye(values.shape[-1], dtype=values.dtype)


def _covariance(prior: Array, reduction: Array) -> Array:
    """Prior times I less reduction, symmetric to the last bit: [m, C, C]."""
    cov = _diagonal(jnp.broadcast_to(prior[:, None], reduction.shape[:2])) - reduction
    return 0.5 * (cov + cov.swapaxes(1, 2))

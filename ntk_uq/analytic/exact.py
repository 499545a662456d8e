"""Exact push-forward: draws of the prior function, each with its convex problem solved.

docs/theory: "Exact push-forward".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.experimental.layout import Format, Layout
from jax.scipy.linalg import cho_solve, solve_triangular
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common import checks
from ntk_uq._common.blocks import enlarged, placed
from ntk_uq._common.checkpoint import digest
from ntk_uq._common.linalg import cholesky, interpolation_factor
from ntk_uq._common.machine import cores
from ntk_uq._common.processes import divided, gather
from ntk_uq._common.progress import Progress, by_gaps
from ntk_uq._common.rules import own_rules
from ntk_uq._common.side_by_side import side_by_side
from ntk_uq._common.solver import DualSolution, deflate_at_mode, solve_dual
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import in_a_line
from ntk_uq.analytic.budget import (
    _DRAWS_A_CORE,
    _draws_at_once,
    _draws_at_once_of_tiles,
    _max_iter,
)
from ntk_uq.analytic.inputs import _arrays, objective_gap
from ntk_uq.likelihoods import Likelihood, require_condition
from ntk_uq.likelihoods.interface import of_many
from ntk_uq.networks.architecture import Kernels

__all__ = ["ExactPredictor", "FlatDraws", "exact_predictor"]
# Share of reg that is added to Theta where a prior function is undone.
_RIDGE = 0.01
# From this many points on a deflation saves more products with Theta than it costs.
_DEFLATE_FROM = 100


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
    tol: float = 1e-12,
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
    tol : float
        Wanted distance of each objective to its minimum, in nats; t^2 / 2 leaves latents within t
        posterior standard deviations.
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
    >>> with jax.enable_x64(True):  # in single precision nothing is known to 1e-12 nats
    ...     kernels, y = MLP().kernel_block(jnp.array([[-1.0], [1.0]])), jnp.eye(2)
    ...     key = jax.random.key(0)
    ...     draws = exact_predictor(key, kernels, y, 1.0, Categorical(), "initialization", 4)
    >>> draws.alpha.shape, bool(draws.converged.all())
    ((4, 2, 2), True)
    """
    checks.count("n_draws", n_draws)
    checks.uncertainty(uncertainty)
    problem = (*_arrays(kernels, y), reg, likelihood, uncertainty)
    return _exact_predictor(key, *problem, n_draws, tol=tol, progress=progress)


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
        factor, jitter, n_draws = placed(np.zeros((n, n), y.dtype)), 0.0, 1
    else:
        initial = uncertainty == "initialization"
        factor, jitter = cholesky(kernels.nngp if initial else np.asarray(kernels.ntk) / reg)

    whitened, noise, *label_noise = _random_variables(key, range(n_draws), y, uncertainty)
    f0 = placed(np.einsum("ij,sjc->sic", factor, whitened, optimize=True))
    if reg > 0:
        deflation, near = None, None if mode is None else mode[None]
        if uncertainty != "none" and n >= _DEFLATE_FROM:
            deflation, found = deflate_at_mode(kernels.ntk, reg, y, likelihood)
            near = found.alpha if near is None else near
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
        of_draws: dict[str, ArrayLike] = {}
        if uncertainty == "posterior":
            centre = solve(placed(np.zeros((1, *y.shape), y.dtype)), start=near)
            latents = np.asarray(centre.latents)[0]
            of_draws["linear"] = _of_curvature(likelihood, latents, y, label_noise[0])
            of_draws["start"] = np.asarray(centre.alpha) - _undoing(f0, kernels.ntk, reg)
        task = f"draws of {digest((jax.random.key_data(key), y))}"
        alpha, gap, converged = _solve_draws(solve, f0, of_draws, progress, task)
    else:
        ntk_factor = interpolation_factor(kernels.ntk)
        target = likelihood.optimum(y) - likelihood.identified(f0)
        alpha = jax.vmap(lambda t: cho_solve((ntk_factor, True), t))(target)
        gap, converged = objective_gap(kernels.ntk, y, reg, f0, alpha, likelihood)
    return ExactPredictor(alpha, whitened, noise, factor, jitter, reg, uncertainty, gap, converged)


def _of_curvature(likelihood: Likelihood, latents: ArrayLike, y: Array, noise: Array) -> NDArray:
    """Noise [S, n, C] as labels have it: times a root of the curvature at latents [n, C]."""
    n = len(y)
    rows, likelihood = of_many(likelihood, n)
    at = jax.device_put([np.asarray(array)[..., rows, :] for array in (latents, y, noise)])
    return np.asarray(_times_root(likelihood, *at))[:, :n]


@jax.jit
def _times_root(likelihood: Likelihood, latents: Array, y: Array, noise: Array) -> Array:
    return likelihood.curvature(latents, y).sqrt_matvec(noise)


def _undoing(f0: ArrayLike, ntk: ArrayLike, reg: float) -> NDArray:
    """Coefficients alpha with Theta alpha near f0: of a wide prior, where rates may overflow.

    Theta^-1 f0 would have coefficients without bound, where Theta has hardly anything, and drown
    all others in their rounding. With the ridge f0 is met to a twentieth, and they are below
    5 / reg, for each standard deviation of the prior.
    """
    f0, ntk = np.asarray(f0), np.asarray(ntk)
    n_draws, n, outputs = f0.shape
    ridged = np.array(ntk)
    ridged[np.diag_indices(n)] += _RIDGE * reg
    factor, _ = cholesky(ridged)
    columns = np.moveaxis(f0, 0, 1).reshape(n, -1)
    found = scipy.linalg.cho_solve((np.asarray(factor), True), columns)
    return np.moveaxis(found.reshape(n, n_draws, outputs), 1, 0)


@in_a_line
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
        Upper bound of each objective's distance to its minimum, in nats, rounding included.
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
        return self.flat().latents(cross, diagonal)

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
        weights, covariance = self._given_training(cross, test)
        conditional, _ = cholesky(covariance)
        shape = (len(conditional), self.alpha.shape[-1])
        (fresh,) = _standard_normal(key, range(len(self.alpha)), shape, dtype=conditional.dtype)
        return self._functions(weights, conditional, fresh, cross)

    @jax.jit
    def _given_training(self, cross: Kernels, test: Kernels) -> tuple[Array, Array]:
        """Weights of the whitened variables, and the prior's covariance given these."""
        weights = solve_triangular(self.factor, self._prior(cross).T, lower=True)
        return weights, _conditional_covariance(self._prior(test), weights)

    @jax.jit
    def _functions(self, weights: Array, conditional: Array, fresh: Array, cross: Kernels) -> Array:
        prior = jnp.einsum("im,sic->smc", weights, self.whitened)
        return prior + jnp.einsum("mk,skc->smc", conditional, fresh) + self._trained(cross)

    def flat(self) -> "FlatDraws":
        """The same as matrices, in the order in which `latents` reads them."""
        n = len(self.factor)
        trained, whitened = (
            draws.transpose(1, 0, 2).reshape(n, -1) for draws in (self.alpha, self.whitened)
        )
        return FlatDraws(trained, whitened, self.noise, self.factor, self.reg, self.uncertainty)

    def _trained(self, cross: Kernels) -> Array:
        return jnp.einsum("mi,sic->smc", cross.ntk, self.alpha)

    def _prior(self, kernels: Kernels) -> Array:
        return _prior_kernel(kernels, self.reg, self.uncertainty)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FlatDraws:
    """What latents at each point are computed from.

    Products with few points take as long as a matrix is read: none is turned at each call, and of
    all draws a point's coefficients lie together.

    Attributes
    ----------
    trained : Array of shape [n, S C]
        Dual coefficients.
    whitened : Array of shape [n, S C]
    noise : Array of shape [S, C]
    factor : Array of shape [n, n]
    reg : float
    uncertainty : str
        As of `ExactPredictor`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> net, X = MLP(), jnp.array([[-1.0], [1.0]])
    >>> problem = net.kernel_block(X), jnp.eye(2), 1.0, Categorical(), "initialization"
    >>> draws = exact_predictor(jax.random.key(0), *problem, 4).flat()
    >>> draws.latents(net.kernel_block(X[:1], X), net.kernel_diag_block(X[:1])).shape
    (4, 1, 2)
    """

    trained: Array
    whitened: Array
    noise: Array
    factor: Array
    reg: float
    uncertainty: Uncertainty = field(metadata={"static": True})

    @own_rules()
    @jax.jit
    def latents(self, cross: Kernels, diagonal: Kernels) -> Array:
        """Draws at each of m points, as `ExactPredictor.latents`: [S, m, C]."""
        latents = cross.ntk @ self.trained
        if self.uncertainty != "none":
            # L^-1 k_Xx, [n, m]
            weights = solve_triangular(self.factor, self.prior(cross).T, lower=True)
            variance = self.prior(diagonal) - jnp.sum(weights**2, axis=0)
            scale = jnp.sqrt(jnp.maximum(variance, 0.0))
            latents += weights.T @ self.whitened + scale[:, None] * self.noise.reshape(-1)
        return jnp.moveaxis(latents.reshape(-1, *self.noise.shape), 1, 0)

    def prior(self, kernels: Kernels) -> Array:
        """The one of two kernels that is the prior's covariance."""
        return _prior_kernel(kernels, self.reg, self.uncertainty)

    def in_single_precision(self) -> "FlatDraws":
        """The same draws for programs in single precision, with a factor that these can go through.

        Points that are close make the prior's covariance nearly singular, and its factor blows up
        the rounding of kernels. With a part sqrt(n) eps of the variance on the diagonal this comes
        to about the root of that, in standard deviations of the prior, and what the diagonal takes
        away from the draws to no more.
        """
        if self.uncertainty == "none":
            return self
        factor = np.asarray(self.factor, np.float64)
        covariance, values = factor @ factor.T, factor @ np.asarray(self.whitened)
        part = np.sqrt(len(factor)) * np.finfo(np.float32).eps
        covariance[np.diag_indices_from(covariance)] += part * np.mean(np.diagonal(covariance))
        lower = np.linalg.cholesky(covariance)
        found: dict[str, Any] = {
            "factor": lower,
            "whitened": scipy.linalg.solve_triangular(lower, values, lower=True),
        }
        return replace(self, **found)

    def on_device(self) -> "FlatDraws":
        """The same on JAX's device, enlarged; of the factor LAPACK wants columns."""
        n, factor = len(self.factor), enlarged(self.factor, 0, 1)
        if len(factor) == n:
            factor = np.array(factor)  # a copy, as in `NormalScores.behind`
        rest = range(n, len(factor))
        factor[rest, rest] = 1
        larger: dict[str, Any] = {
            "factor": factor,
            "trained": enlarged(self.trained, 0),
            "whitened": enlarged(self.whitened, 0),
        }
        found = jax.device_put(replace(self, **larger))
        columns = Format(Layout((1, 0)), found.factor.sharding)
        return replace(found, factor=jax.device_put(found.factor, columns))


def _prior_kernel(kernels: Kernels, reg: float, uncertainty: Uncertainty) -> Array:
    return kernels.nngp if uncertainty == "initialization" else kernels.ntk / reg


@jax.jit
def _conditional_covariance(own: Array, weights: Array) -> Array:
    """A conditional covariance, with a jitter of the size of the prior's rounding.

    Where points coincide with known ones nothing is left but that.
    """
    rounding = 100 * jnp.finfo(own.dtype).eps * jnp.trace(own)
    return own - weights.T @ weights + rounding * jnp.eye(len(own), dtype=own.dtype)


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
    return jax.device_put(arrays)


def _random_variables(key: Array, draws: range, y: Array, uncertainty: Uncertainty) -> list[Array]:
    """Of each draw: prior function at the training points and elsewhere, and any label noise."""
    shapes = [y.shape, y.shape[1:]] + [y.shape] * (uncertainty == "posterior")
    return _standard_normal(key, draws, *shapes, dtype=y.dtype)


def _solve_draws(
    solve: Callable[..., DualSolution],
    f0: Array,
    of_draws: Mapping[str, ArrayLike],
    progress: Progress | None,
    task: str,
    *,
    by_tiles: bool = False,
    tol: float = 1e-12,
) -> tuple[Array, Array, Array]:
    """Solve chunk by chunk, so that progress is seen and an interrupt is heard.

    Prior functions f0, and what else the problems take, are of shape [S, n, C].

    On a CPU the chunks run side by side: what is not a matrix product keeps one core busy only.
    Products with tiles take all cores, and are shared by as many draws as fit, whose way to the
    tolerance is told. Processes divide the chunks.
    """
    n_draws, n, outputs = f0.shape
    at_once, threads = _draws_at_once(n, outputs), 1
    if by_tiles:
        at_once = _draws_at_once_of_tiles(n, outputs, n_draws)
    elif jax.default_backend() == "cpu":
        threads = min(cores(), n_draws, at_once)
        at_once = min(at_once // threads, _DRAWS_A_CORE)
    # One for all, whatever n_draws: draws keep their values.
    size = min(gather(min(n_draws, at_once), task))
    double = bool(jax.config.jax_enable_x64)
    given = {name: np.asarray(array) for name, array in {**of_draws, "f0": f0}.items()}

    def solve_chunk(start: int, **telling: Any) -> tuple[Array, Array, Array]:
        chunk = slice(start, start + size)
        missing = start + size - min(start + size, n_draws)
        fill = ((0, missing), (0, 0), (0, 0))
        with own_rules(), jax.enable_x64(double):  # settings of each thread
            problems = {name: np.pad(array[chunk], fill) for name, array in given.items()}
            s = solve(**problems, **telling)
            return jax.block_until_ready((s.alpha, s.gap, s.converged))

    def solve_chunks(starts: Sequence[int]) -> list[tuple[Array, Array, Array]]:
        def end(start: int) -> int:
            return min(start + size, n_draws) - starts[0]

        def told(chunks: int) -> None:
            if progress is not None:
                progress(end(starts[chunks - 1]), end(starts[-1]))

        def solve_tiled(start: int) -> tuple[Array, Array, Array]:
            draws = range(start - starts[0], end(start))
            return solve_chunk(start, told=by_gaps(progress, tol, draws, end(starts[-1])))

        return side_by_side(solve_tiled if by_tiles else solve_chunk, starts, threads, told)

    parts = divided(solve_chunks, range(0, n_draws, size), task)
    alpha, gap, converged = (np.concatenate(part)[:n_draws] for part in zip(*parts, strict=True))
    return jax.device_put((alpha, gap, converged))

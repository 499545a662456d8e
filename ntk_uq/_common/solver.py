r"""The convex problem of the linearised network, solved in the dual for many draws at once.

Each draw has its own prior function f0 and perhaps its own linear term e, and asks for the
minimiser of the convex

.. math::
    \Phi(\alpha) = -\log p(y \mid f) + \langle e, f \rangle
                   + \tfrac{reg}{2} \alpha^\top \Theta \alpha,
    \qquad f = f_0 + \Theta \alpha .

In the inner product :math:`\langle u, v \rangle_\Theta = u^\top \Theta v` its negative gradient is
:math:`r = \nabla \log p(y|f) - e - reg\,\alpha`, which costs no solve, and :math:`\Phi` is
reg-strongly convex, so :math:`\langle r, r \rangle_\Theta / (2\,reg)` bounds the distance to the
minimum, in nats. Nonlinear conjugate gradients (Polak-Ribiere, restarted when negative) in this
inner product need one product with Theta an iteration, shared by all draws and outputs. Where
there are many points, a `Deflation` takes the few large eigenvalues of the Hessian out of their
way. See docs/theory: "Solving many draws at once".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk_uq._common.blocks import MOST_ENLARGED, enlarged, placed, repeated
from ntk_uq._common.deflation import (
    DEFLATED,
    DIRECTIONS,
    SHARE,
    CoupledDeflation,
    Deflation,
    deflate,
    deflation_basis,
)
from ntk_uq._common.dual_steps import REPETITIONS, DualProblem, Iterate, Steps
from ntk_uq._common.low_rank import LowRank
from ntk_uq._common.machine import give_back
from ntk_uq._common.operators import Operator, as_operator
from ntk_uq._common.support import SHARED_STEPS, Support
from ntk_uq._common.tiles import SymmetricTiles

# What is held outside of any program.
Products = SymmetricTiles | LowRank

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Likelihood

__all__ = [
    "LARGEST_GAP",
    "MODE_TOLERANCE",
    "USELESS_GAP",
    "DualSolution",
    "Products",
    "deflate_at_mode",
    "interpolation_gap",
    "large_directions",
    "n_directions",
    "solve_dual",
]

# Above this distance to the optimum, in nats, latents may be off by a hundredth of a posterior
# standard deviation, and users are told.
LARGEST_GAP = 5e-5
# Above this one they may be off by a standard deviation: that is no solution.
USELESS_GAP = 0.5

# Iterations between fresh products Theta alpha, and the share of the squared norm that a round of
# iterations from a fresh residual may leave if another is to follow.
_REFRESH, _LEFT = 250, 0.25
# A round ends after so many iterations by which no draw has gained: what is left is rounding, of
# which a fresh residual is free. Of tiles each costs much, and single precision ends soon.
_STALLED, _STALLED_OF_TILES = 1000, 200
# The mode is where a deflation takes the curvature; any point near it will do. Nats for each point.
MODE_TOLERANCE = 1e-3
# Of tiles products are what costs: more directions pay, and a deflation nearer to the mode's own
# curvature.
_DIRECTIONS_OF_TILES, _SHARE_OF_TILES = 128, 0.05


def deflate_at_mode(
    ntk: Array | Products,
    reg: Array | float,
    y: Array,
    likelihood: "Likelihood",
    *,
    basis: tuple[Array, Array] | None = None,
    told: Callable[[Array], None] | None = None,
) -> tuple[Deflation, "DualSolution"]:
    """Deflate draws' problems by a share of the curvature at the mode, the solution of f0 = 0.

    Parameters
    ----------
    ntk : Array of shape [n, n] or SymmetricTiles
        Theta.
    reg, y, likelihood, told
        As in `solve_dual`.
    basis : pair of Arrays of shape [n, k], optional
        What `large_directions` found; sought if it is not given.

    Returns
    -------
    Deflation
    DualSolution
        Near the mode, to start from.
    """
    # Not deflated itself: of classes far apart at a small `reg` nothing is curved at the mode that
    # was at the beginning, and what it takes out then costs ten times what it saves elsewhere.
    zero = placed(np.zeros((1, *y.shape), y.dtype))
    mode = solve_dual(ntk, reg, y, zero, likelihood, tol=MODE_TOLERANCE * len(y), told=told)
    problem = DualProblem(reg, y, mode.latents, likelihood)
    few = len(y) < DIRECTIONS  # who have as many directions
    if isinstance(ntk, Products) or few or not _can_be_enlarged(ntk, problem):
        share = _SHARE_OF_TILES if isinstance(ntk, Products) else SHARE
        basis = large_directions(ntk, y) if basis is None else basis
        give_back()
        return deflate(basis, reg, likelihood.curvature(mode.latents[0], y), share), mode
    # By points that no direction reaches.
    problem = _enlarged(problem)
    curvature = problem.likelihood.curvature(np.asarray(problem.f0)[0], problem.y)
    if basis is None:
        larger = large_directions(placed(enlarged(ntk, 0, 1)), problem.y)
    else:
        larger = placed(enlarged(basis[0], 0)), placed(enlarged(basis[1], 0))
    found = deflate(larger, reg, curvature)
    v, ntk_v = (placed(np.asarray(part)[: len(y)]) for part in larger)
    return found._replace(basis=v, ntk_basis=ntk_v), mode


def large_directions(
    ntk: Array | Operator | Products, y: Array, *, most: int | None = None
) -> tuple[Array, Array]:
    """Directions V that Theta makes large, and Theta V, for targets [n, C].

    Of shape [n, k] each, or [n C, k] where Theta couples the outputs; at most so many.
    """
    tiled = isinstance(ntk, Products)
    operator: Any = _Tiled(ntk, len(y), None) if isinstance(ntk, Products) else _Dense(ntk)
    coupled = operator.root.shape[1] > 1
    rows = y.size if coupled else len(y)
    count = n_directions(rows, y.shape[1], tiled) if most is None else min(most, rows)
    # Any start that has something of every direction does; the same in every run.
    numbers = np.random.default_rng(0).standard_normal((rows, count))
    start = jnp.asarray(numbers, float if tiled else y.dtype)
    shape = (len(y), rows // len(y), -1)

    def apply(v: Array) -> Array:
        return operator.apply_precisely(v.reshape(shape)).reshape(v.shape)

    return deflation_basis(apply, start, y.dtype)


def n_directions(rows: int, outputs: int, tiled: bool) -> int:
    """How many directions `large_directions` seeks by itself."""
    most = int(np.clip(rows // 64, DIRECTIONS, _DIRECTIONS_OF_TILES)) if tiled else DIRECTIONS
    return min(most, max(1, DEFLATED // outputs), rows)


class DualSolution(NamedTuple):
    """Solutions of the S problems, and how good they are.

    Attributes
    ----------
    alpha : Array of shape [S, n, C]
        Dual coefficients: the predictor is f0(x) + Theta(x, X) alpha.
    latents : Array of shape [S, n, C]
        The predictor at the training points.
    gap : Array of shape [S]
        Upper bound of the objective's distance to its minimum, in nats, computed from `alpha` as it
        is returned, with what rounding may hide. Its square root, times sqrt(2), bounds the
        distance of the latents in posterior standard deviations.
    residual : Array of shape [S]
        Largest entry of abs(grad log p - e - reg alpha), in units of the likelihood's gradient.
    converged : Array of shape [S]
        Whether the gap is below the tolerance. Where rounding alone exceeds it, it is not.
    n_products : Array of shape []
        Products with Theta.
    """

    alpha: Array
    latents: Array
    gap: Array
    residual: Array
    converged: Array
    n_products: Array


class _Dense:
    """Products with a matrix, in one program with all that is around them."""

    loops: Any = lax
    patience = _STALLED
    rounding = 0.0  # of the entries: the matrix is what it is

    def __init__(self, ntk: Array | Operator):
        operator = as_operator(ntk)
        self.apply = self.apply_precisely = operator.product
        self.apply_where = lambda v, _: operator.product(v)
        self.root = jnp.sqrt(operator.diagonal())[..., None]


class _Tiled:
    """Products with tiles, outside of any program: tiles may be a file."""

    patience = _STALLED_OF_TILES

    def __init__(self, tiles: Products, n: int, told: Callable[[Array], None] | None):
        self.tiles, self.told = tiles, told
        # A row for each of the n points, or for each of their outputs.
        self.root = jnp.sqrt(jnp.asarray(tiles.diagonal())).reshape(n, -1, 1)
        self.rounding = tiles.rounding

    def apply(self, v: Array) -> Array:
        return self._product(v, v.dtype)

    def apply_where(self, v: Array, draws: Array) -> Array:
        """Of some draws: products are what costs, and those that are solved wait for the others."""
        some = np.flatnonzero(draws)
        if len(some) == v.shape[-1]:
            return self.apply(v)
        out = np.zeros(v.shape, v.dtype)
        out[..., some] = self.apply(jnp.asarray(np.asarray(v)[..., some]))
        return jnp.asarray(out)

    def apply_precisely(self, v: Array) -> Array:
        return self._product(v, np.float64)

    def _product(self, v: Array, dtype: Any) -> Array:
        # Programs between two products leave arrays of many sizes, beside which new ones are made.
        give_back()
        columns = np.asarray(v, dtype).reshape(len(self.tiles), -1)
        return jnp.asarray(self.tiles.product(columns)).reshape(v.shape)

    @property
    def loops(self) -> Any:
        return self

    def while_loop(self, unfinished: Any, body: Any, state: Any) -> Any:
        """`lax.while_loop` that can be interrupted, and tells of iterates."""
        while unfinished(state):
            state = body(state)
            if isinstance(state, Iterate) and self.told is not None:
                self.told(state.norm)
        return state

    @staticmethod
    def cond(which: Any, of_true: Any, of_false: Any) -> Any:
        """`lax.cond`."""
        return of_true() if which else of_false()


def solve_dual(
    ntk: Array | Operator | Products,
    reg: Array | float,
    y: Array,
    f0: Array,
    likelihood: "Likelihood",
    *,
    linear: Array | float = 0.0,
    weights: Array | float = 1.0,
    start: Array | None = None,
    ntk_start: Array | None = None,
    deflation: Deflation | CoupledDeflation | Support | None = None,
    tol: Array | float = 1e-12,
    max_iter: int = 5000,
    told: Callable[[Array], None] | None = None,
) -> DualSolution:
    """Solve the regularised problem for every prior function at once.

    Parameters
    ----------
    ntk : Array of shape [n, n] or [n, C, n, C], or Operator, or SymmetricTiles or LowRank
        Theta, symmetric positive semi-definite; a finite network's couples the outputs. An operator
        has its products alone. With tiles the iterations are in the precision of `f0`; where they
        begin and what they have reached is judged in double precision.
    reg : float
        Regularisation, positive.
    y : Array of shape [n, C]
        Targets.
    f0 : Array of shape [S, n, C]
        Prior functions at the training points.
    likelihood : Likelihood
        Log-concave in f.
    linear : Array of shape [S, n, C], or 0
        The linear term e of each draw.
    weights : Array of shape [S, n], or 1
        Factor of each point's log density, draw by draw; zero leaves a point out, and its latent
        is then a prediction.
    start : Array of shape [S, n, C], optional
        Dual coefficients to start from, those of a neighbouring problem for example.
    ntk_start : Array of shape [S, n, C], optional
        Theta times `start`, where it is known: only tiles gain by it.
    deflation : Deflation or CoupledDeflation, or Support, optional
        Preconditioner for these problems; `Support` of the same tiles. Changes the way there, and
        not the solution.
    tol : float
        Wanted gap, in nats. The default leaves the latents within about a millionth of a
        posterior standard deviation; single precision reaches about 1e-6.
    max_iter : int
        At most this many iterations.
    told : callable, optional
        With tiles, ``told(gap)`` is called after each iteration with the distances to the optimum,
        [S] in nats, without what rounding hides.

    Returns
    -------
    DualSolution
    """
    problem = DualProblem(
        reg, y, f0, likelihood, linear, weights, start, ntk_start, deflation, tol, max_iter
    )
    if isinstance(ntk, Products):
        report = None if told is None else lambda norm: told(norm / (2 * float(reg)))
        return _solve(_Tiled(ntk, len(y), report), problem)
    problem = _of_one_kind(problem)._replace(ntk_start=None)
    if not _can_be_enlarged(ntk, problem):
        return _dense_program()(ntk, problem)
    found = _dense_program()(enlarged(np.asarray(ntk), 0, 1), _enlarged(problem))
    alpha, latents = (placed(np.asarray(a)[:, : len(y)]) for a in (found.alpha, found.latents))
    return found._replace(alpha=alpha, latents=latents)


def _solve_dense(ntk: Any, problem: DualProblem) -> DualSolution:
    return _solve(_Dense(ntk), problem)


# On a CPU sums over points would go to a library of XLA which keeps a few kilobytes for each of
# them until the program ends, gigabytes in a long one, and takes longer (findings/).
_PLAIN = jax.jit(_solve_dense)
_OF_A_CPU = jax.jit(_solve_dense, compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""})


def _dense_program() -> Any:
    """How a matrix's problem is solved; part of another program where this is traced."""
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)
    return _PLAIN if traced or jax.default_backend() != "cpu" else _OF_A_CPU


def _of_one_kind(problem: DualProblem) -> DualProblem:
    """Its numbers as arrays: Python's, NumPy's and JAX's would each be another program."""
    dtypes = dict.fromkeys(("reg", "linear", "weights", "tol"), problem.f0.dtype)

    def of_one_kind(value: Any, dtype: Any) -> Any:
        traced = isinstance(value, jax.core.Tracer)
        return value if traced or np.ndim(value) else np.asarray(value, dtype)

    return problem._replace(
        max_iter=of_one_kind(problem.max_iter, np.int32),
        **{name: of_one_kind(getattr(problem, name), dtype) for name, dtype in dtypes.items()},
    )


def _can_be_enlarged(ntk: Any, problem: DualProblem) -> bool:
    """Whether points of weight zero can be added, and are worth it."""
    if isinstance(ntk, Operator) or np.ndim(ntk) != 2 or len(ntk) > MOST_ENLARGED:
        return False
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((ntk, problem))):
        return False  # of a program that is compiled for so many points anyway
    y, likelihood = problem.y, problem.likelihood
    of_points = any(np.shape(leaf)[:1] == (len(y),) for leaf in jax.tree.leaves(likelihood))
    known = problem.deflation is None or isinstance(problem.deflation, Deflation)
    return known and (hasattr(likelihood, "take") or not of_points)


def _enlarged(problem: DualProblem) -> DualProblem:
    """The problem with points of weight zero, so that one program serves many numbers of points.

    Their kernel is zero and their coefficients stay so: the solution is the same. In NumPy, which
    compiles nothing.
    """
    _, y, f0, likelihood, linear, weights, start, _, deflation, *_ = problem
    rows = repeated(len(y))  # targets that the likelihood knows

    def fill(array: Any, shape: tuple[int, ...]) -> Any:
        return enlarged(np.broadcast_to(np.asarray(array, f0.dtype), shape), 1)

    if isinstance(deflation, Deflation):
        v, ntk_v = (placed(enlarged(part, 0)) for part in deflation[:2])
        deflation = deflation._replace(basis=v, ntk_basis=ntk_v)
    return problem._replace(
        y=np.asarray(y)[rows],
        f0=fill(f0, f0.shape),
        likelihood=likelihood.take(rows) if hasattr(likelihood, "take") else likelihood,
        linear=linear if np.ndim(linear) == 0 else fill(linear, f0.shape),
        weights=fill(weights, f0.shape[:2]),
        start=fill(0.0 if start is None else start, f0.shape),  # one program, with or without
        deflation=deflation,
    )


class _Round(NamedTuple):
    """Where a round of iterations ended, judged afresh, and how the one before it did."""

    it: Iterate
    last: Array  # the norm before, [S]
    done: Array

    @staticmethod
    def zero(it: Iterate) -> "_Round":
        return _Round(it, jnp.full_like(it.norm, jnp.inf), jnp.int32(0))


@dataclass(frozen=True)
class _Iterations:
    """One algorithm for products of every kind."""

    operator: Any
    steps: Steps
    dtype: Any
    max_iter: Any
    support: Support | None = None

    def latents_afresh(self, alpha: Array) -> Array:
        return self.steps.prior + self.operator.apply_precisely(alpha)

    def begin(self, alpha: Array, latents: Array, iteration: Array) -> Iterate:
        if isinstance(self.operator, _Tiled):
            # Rounded to single, those of tens of thousands of points move latents together.
            alpha = alpha.astype(float)
        descent = self.steps.descent(alpha, latents).astype(self.dtype)
        ntk_descent = self.operator.apply(descent)
        preconditioned = self.preconditioned(iteration, latents, descent, ntk_descent)
        latents = latents.astype(self.dtype)
        return self.steps.first(alpha, latents, descent, ntk_descent, iteration, preconditioned)

    def preconditioned(
        self, iteration: Array, latents: Array, descent: Array, ntk_descent: Array
    ) -> tuple[Array, Array] | None:
        """B r and Theta B r of an iteration, where they are not left to the steps."""
        if self.support is None or iteration < SHARED_STEPS:
            return None
        # Of classes that are nearly sure single precision would not know the curvature.
        latents = latents.astype(jnp.result_type(float))
        curvature, active = self.steps.open_draws(latents, descent, ntk_descent)
        return self.support.apply(curvature, active, descent, ntk_descent)

    def beginning(self, start: Array | None, ntk_start: Array | None) -> Iterate:
        """At coefficients [S, n, C] and Theta times these, which are zero where not given."""
        prior, none = self.steps.prior, jnp.int32(0)
        if start is None:
            return self.begin(jnp.zeros_like(prior), prior, none)
        alpha = jnp.moveaxis(start, 0, -1)
        if ntk_start is None:
            return self.begin(alpha, self.latents_afresh(alpha), none)
        return self.begin(alpha, prior + jnp.moveaxis(ntk_start, 0, -1), none)

    def refreshed(self, alpha: Array) -> tuple[Array, Array]:
        """Latents and r; the sum of steps Theta d collects rounding that Theta alpha has not."""
        latents = self.latents_afresh(alpha)
        return latents.astype(self.dtype), self.steps.descent(alpha, latents).astype(self.dtype)

    def step(self, it: Iterate) -> Iterate:
        alpha, latents, descent = self.steps.move(it)
        latents, descent = self.operator.loops.cond(
            (it.iteration + 1) % _REFRESH == 0,
            lambda: self.refreshed(alpha),
            lambda: (latents, descent),
        )
        ntk_descent = self.operator.apply_where(descent, self.steps.active(it))
        following = it.iteration + 1
        preconditioned = self.preconditioned(following, latents, descent, ntk_descent)
        return self.steps.turn(it, alpha, latents, descent, ntk_descent, preconditioned)

    def unfinished(self, it: Iterate) -> Array:
        within = it.iteration < jnp.minimum(self.max_iter, it.gained + self.operator.patience)
        return jnp.any(self.steps.active(it)) & within

    def improving(self, at: _Round) -> Array:
        useful = self.steps.active(at.it) & (at.it.norm <= _LEFT * at.last)
        return jnp.any(useful) & (at.it.iteration < self.max_iter)

    def once_more(self, at: _Round) -> _Round:
        """Iterate to the end, and judge that afresh: it is where the next round starts."""
        before = at.it
        end = self.operator.loops.while_loop(self.unfinished, self.step, before)
        after = self.begin(end.alpha, self.latents_afresh(end.alpha), end.iteration)
        # At the limit of precision a round may do harm, even the first.
        keep = ((at.done > 0) & ~(after.norm <= before.norm)) | ~jnp.isfinite(after.norm)
        best = [jnp.where(keep, b, a) for b, a in zip(before, after, strict=True)]
        it = Iterate._make(best)._replace(gained=after.gained, iteration=after.iteration)
        return _Round(it, before.norm, at.done + 1)


def _solve(operator: Any, problem: DualProblem) -> DualSolution:
    start, ntk_start = problem.start, problem.ntk_start
    steps = Steps.of(problem)
    support = problem.deflation if isinstance(problem.deflation, Support) else None
    iterations = _Iterations(operator, steps, problem.f0.dtype, problem.max_iter, support)
    first = _Round.zero(iterations.beginning(start, ntk_start))
    end, _, rounds = operator.loops.while_loop(iterations.improving, iterations.once_more, first)
    gap = _certified(operator, steps, end, problem.deflation is not None)
    # At the start f and Theta r; at the end as much again, and what a deflation has not kept.
    around = (1 if start is None or ntk_start is not None else 2) + (
        2 if problem.deflation is None else 3
    )
    # Steps of preconditioners of their own take two, but the first ones, which share one.
    twice = 0 if support is None else jnp.maximum(end.iteration - SHARED_STEPS, 0)
    return DualSolution(
        alpha=jnp.moveaxis(end.alpha, -1, 0),
        latents=jnp.moveaxis(end.latents, -1, 0),
        gap=gap,
        residual=jnp.max(jnp.abs(end.descent), axis=(0, 1)),
        converged=gap <= steps.tol,  # not where it is not a number
        n_products=end.iteration + twice + end.iteration // _REFRESH + 2 * rounds + around,
    )


def _certified(operator: Any, steps: Steps, it: Iterate, preconditioned: bool) -> Array:
    """The gap of an iterate, with what rounding hides: of 3 alpha and 3 r all errors are others."""
    alpha, r = (lax.optimization_barrier(3 * v) for v in (it.alpha, it.descent))
    ntk_alpha = lax.optimization_barrier(operator.apply_precisely(alpha)) / 3
    ntk_r = lax.optimization_barrier(operator.apply(r)) / 3
    known = operator.apply(it.descent) if preconditioned else it.ntk_steepest
    return steps.gap(it, operator.root, alpha / 3, ntk_alpha, ntk_r, known, operator.rounding)


def interpolation_gap(
    ntk: Array | Operator, y: Array, f0: Array, alpha: Array, likelihood: "Likelihood"
) -> tuple[Array, Array]:
    """Distance of the loss to its minimum where reg = 0, and the latents.

    Parameters
    ----------
    ntk, y, f0, likelihood
        As in `solve_dual`.
    alpha : Array of shape [S, n, C]
        Dual coefficients.

    Returns
    -------
    gap : Array of shape [S]
        Nats, with what rounding of Theta alpha may hide; infinite where targets are degenerate.
    latents : Array of shape [S, n, C]
    """
    operator = as_operator(ntk)

    def apply_ntk(v: Array) -> Array:
        return jnp.moveaxis(operator.product(jnp.moveaxis(v, 0, -1)), -1, 0)

    latents, again = f0 + apply_ntk(alpha), f0 + apply_ntk(3 * alpha) / 3
    least = likelihood.log_density(likelihood.optimum(y), y)
    above = jnp.maximum(jnp.sum(least - likelihood.log_density(latents, y), axis=-1), 0.0)
    change = likelihood.identified(again - latents)
    bend = jnp.sum(change * likelihood.curvature(latents, y).matvec(change), axis=(1, 2))
    gap = (jnp.sqrt(above) + REPETITIONS * jnp.sqrt(0.5 * jnp.maximum(bend, 0.0))) ** 2
    return jnp.where(jnp.any(likelihood.degenerate(y)), jnp.inf, gap), latents

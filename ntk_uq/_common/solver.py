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

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk_uq._common.deflation import (
    DEFLATED,
    DIRECTIONS,
    CoupledDeflation,
    Deflation,
    deflate,
)
from ntk_uq._common.operators import Operator, as_operator

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Likelihood

__all__ = [
    "LARGEST_GAP",
    "USELESS_GAP",
    "DualSolution",
    "deflate_at_mode",
    "interpolation_gap",
    "solve_dual",
]

# Above this distance to the optimum, in nats, latents may be off by a hundredth of a posterior
# standard deviation, and users are told.
LARGEST_GAP = 5e-5
# Above this one they may be off by a standard deviation: that is no solution.
USELESS_GAP = 0.5

# Line searches stop once the slope has fallen to this fraction. Conjugacy needs them fairly
# exact: 0.5 costs more products with Theta than it saves evaluations, 0.01 the reverse.
_CURVATURE_CONDITION = 0.1
_MAX_LINE_SEARCH = 60
# Iterations between fresh products Theta alpha, and the share of the squared norm that a round of
# iterations from a fresh residual may leave if another is to follow.
_REFRESH, _LEFT = 250, 0.25
# Iterations end at this share of the tolerance: what rounding may hide comes on top.
_AIM = 0.25
# Rounding of the residual is taken for this many times what one repetition shows of it: repetitions
# differ by a little more than either is off, and points that are equal are off together.
_REPETITIONS = 4
# The mode is where a deflation takes the curvature; any point near it will do. Nats.
_MODE_TOLERANCE = 0.1


def deflate_at_mode(
    ntk: Array, reg: Array | float, y: Array, likelihood: "Likelihood"
) -> tuple[Deflation, Array]:
    """Deflate draws' problems by a share of the curvature at the mode, the solution of f0 = 0.

    Parameters
    ----------
    ntk : Array of shape [n, n]
        Theta.
    reg, y, likelihood
        As in `solve_dual`.

    Returns
    -------
    Deflation
    alpha : Array of shape [1, n, C]
        Dual coefficients near the mode's, to start from.
    """
    size = min(DIRECTIONS, max(1, DEFLATED // y.shape[1]), len(ntk))
    # Any start that has something of every direction does; the same in every run.
    start = np.random.default_rng(0).standard_normal((len(ntk), size))
    mode = solve_dual(ntk, reg, y, jnp.zeros_like(y)[None], likelihood, tol=_MODE_TOLERANCE)
    curvature = likelihood.curvature(mode.latents[0], y)
    return deflate(ntk, reg, jnp.asarray(start, ntk.dtype), curvature), mode.alpha


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


class _Iterate(NamedTuple):
    alpha: Array
    latents: Array
    descent: Array  # r
    direction: Array
    ntk_direction: Array
    ntk_steepest: Array  # Theta B r, with B the deflation
    norm: Array  # <r, r>_Theta, [S]
    slope: Array  # <r, B r>_Theta, [S]
    iteration: Array


@partial(jax.jit, static_argnames="max_iter")
def solve_dual(
    ntk: Array | Operator,
    reg: Array | float,
    y: Array,
    f0: Array,
    likelihood: "Likelihood",
    *,
    linear: Array | float = 0.0,
    weights: Array | float = 1.0,
    start: Array | None = None,
    deflation: Deflation | CoupledDeflation | None = None,
    tol: float = 1e-12,
    max_iter: int = 5000,
) -> DualSolution:
    """Solve the regularised problem for every prior function at once.

    Parameters
    ----------
    ntk : Array of shape [n, n], or [n, C, n, C], or Operator
        Theta, symmetric positive semi-definite; a finite network's couples the outputs. An operator
        has its products alone.
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
    deflation : Deflation or CoupledDeflation, optional
        Preconditioner for these problems. Changes the way there, and not the solution.
    tol : float
        Wanted gap, in nats. The default leaves the latents within about a millionth of a
        posterior standard deviation; single precision reaches about 1e-6.
    max_iter : int
        At most this many iterations.

    Returns
    -------
    DualSolution
    """

    # Draws last, [n, C, S]: Theta v is one matrix product without transposes, and sums over
    # outputs run over whole rows of draws.
    def per_draw(function):
        return jax.vmap(function, in_axes=(-1, None), out_axes=-1)

    weights = jnp.broadcast_to(weights, f0.shape[:2]).T[:, None, :].astype(f0.dtype)

    def likelihood_gradient(latents, y):
        return weights * per_draw(likelihood.gradient)(latents, y)

    def curvature_matvec(latents, v):
        curvature = per_draw(likelihood.curvature)(latents, y)
        return weights * jax.vmap(lambda w, v: w.matvec(v), in_axes=-1, out_axes=-1)(curvature, v)

    def evaluated(latents):
        return latents, likelihood_gradient(latents, y)

    prior = jnp.moveaxis(f0, 0, -1)
    linear = jnp.moveaxis(jnp.broadcast_to(linear, f0.shape), 0, -1).astype(f0.dtype)
    reg = jnp.asarray(reg, f0.dtype)

    operator = as_operator(ntk)
    apply_ntk, root = operator.product, jnp.sqrt(operator.diagonal())[..., None]

    def measure(descent):
        """Direction B r, and what else is known of r."""
        ntk_descent = apply_ntk(descent)
        norm = jnp.maximum(_dot(descent, ntk_descent), 0.0)
        if deflation is None:
            return descent, ntk_descent, norm, norm
        steepest, ntk_steepest = deflation.apply(descent, ntk_descent)
        return steepest, ntk_steepest, norm, jnp.maximum(_dot(descent, ntk_steepest), 0.0)

    def active(iterate):
        return iterate.norm > 2 * reg * _AIM * tol

    def line_search(it: _Iterate):
        """Root t of the slope along the direction, and grad log p there."""
        # slope(t) = reg <alpha + t d, d>_Theta - <grad log p(f + t Theta d) - e, Theta d>
        offset = reg * _dot(it.alpha, it.ntk_direction) + _dot(linear, it.ntk_direction)
        stretch = reg * _dot(it.direction, it.ntk_direction)
        initial = -_dot(it.descent, it.ntk_direction)
        on = active(it)

        def evaluate(t):
            latents = it.latents + t * it.ntk_direction
            gradient = likelihood_gradient(latents, y)
            slope = offset + t * stretch - _dot(gradient, it.ntk_direction)
            bend = _dot(it.ntk_direction, curvature_matvec(latents, it.ntk_direction))
            return gradient, slope, bend + stretch

        def pending(slope):
            return on & ~(jnp.abs(slope) <= _CURVATURE_CONDITION * jnp.abs(initial))

        def body(state):
            t, low, high, last, _, slope, bend, count = state
            beyond = ~(slope <= 0)  # not a number where rates overflow
            low, high = jnp.where(beyond, low, t), jnp.where(beyond, t, high)
            newton = t - slope / bend
            middle = jnp.where(jnp.isinf(high), 4 * t, 0.5 * (low + high))
            # The slope is monotone: a Newton step outside the bracket is replaced by its middle.
            # So is one that is not half the last: up a wall of rates each would take one nat.
            inside = (newton > low) & (newton < high)
            useful = inside & (jnp.isinf(high) | (jnp.abs(newton - t) <= 0.5 * last))
            new = jnp.where(pending(slope), jnp.where(useful, newton, middle), t)
            return new, low, high, jnp.abs(new - t), *evaluate(new), count + 1

        def unfinished(state):
            return jnp.any(pending(state[5])) & (state[7] < _MAX_LINE_SEARCH)

        bend = stretch + _dot(it.ntk_direction, curvature_matvec(it.latents, it.ntk_direction))
        t = jnp.where(on, -initial / bend, 0.0)
        state = (t, jnp.zeros_like(t), jnp.full_like(t, jnp.inf), t, *evaluate(t), jnp.int32(0))
        t, low, _, _, gradient, slope, *_ = lax.while_loop(unfinished, body, state)
        # What was not found is at rounding's mercy: the objective still falls up to `low`.
        failed = pending(slope)
        t = jnp.where(failed, low, t)
        return t, lax.cond(
            jnp.any(failed),
            lambda: likelihood_gradient(it.latents + t * it.ntk_direction, y),
            lambda: gradient,
        )

    def step(it: _Iterate) -> _Iterate:
        on = active(it)
        t, gradient = line_search(it)
        alpha = it.alpha + t * it.direction
        # The sum of steps Theta d collects rounding that Theta alpha has not.
        latents, gradient = lax.cond(
            (it.iteration + 1) % _REFRESH == 0,
            lambda: evaluated(prior + apply_ntk(alpha)),
            lambda: (it.latents + t * it.ntk_direction, gradient),
        )
        descent = gradient - linear - reg * alpha
        steepest, ntk_steepest, norm, slope = measure(descent)
        # A draw that is solved to the last bit waits for the others with a norm of zero.
        last = jnp.where(on, it.slope, 1.0)
        beta = jnp.maximum((slope - _dot(descent, it.ntk_steepest)) / last, 0.0)
        direction = steepest + beta * it.direction
        ntk_direction = ntk_steepest + beta * it.ntk_direction
        uphill = _dot(descent, ntk_direction) <= 0
        return _Iterate(
            alpha,
            latents,
            descent,
            jnp.where(uphill, steepest, direction),
            jnp.where(uphill, ntk_steepest, ntk_direction),
            ntk_steepest,
            jnp.where(on, norm, it.norm),
            jnp.where(on, slope, it.slope),
            it.iteration + 1,
        )

    def unfinished(it: _Iterate):
        return jnp.any(active(it)) & (it.iteration < max_iter)

    def certify(it: _Iterate):
        """Gap of a fresh iterate, with what rounding hides of it.

        Rounding is measured: of 3 alpha and 3 r all errors are others.
        """
        both = jnp.concatenate([it.alpha, it.descent], axis=-1)
        tripled = lax.optimization_barrier(3 * both)
        again = lax.optimization_barrier(apply_ntk(tripled)) / 3
        ntk_alpha, ntk_r = jnp.split(again, 2, axis=-1)
        latents, alpha = prior + ntk_alpha, tripled[..., : ntk_r.shape[-1]] / 3
        change = likelihood_gradient(latents, y) - linear - reg * alpha - it.descent
        hidden = _REPETITIONS * jnp.sqrt(jnp.sum((root * change) ** 2, axis=(0, 1)))
        # <r, r>_Theta cancels where points are nearly equal.
        known = it.ntk_steepest if deflation is None else apply_ntk(it.descent)
        lost = it.descent * (ntk_r - known)
        lost = _REPETITIONS * jnp.sqrt(jnp.sum(lost**2, axis=(0, 1)))
        gap = (jnp.sqrt(it.norm + lost) + hidden) ** 2 / (2 * reg)
        # Of a likelihood that does not say the curvature is taken for changing.
        if not getattr(likelihood, "constant_curvature", False):
            return gap
        # The Hessian is no less than W Theta either. Where W is the same everywhere that is a
        # bound too, and by far the better one where noise is small.
        bend = weights * per_draw(likelihood.curvature)(latents, y).diagonal
        largest = jnp.abs(it.descent) + _REPETITIONS * jnp.abs(change)
        return jnp.fmin(gap, 0.5 * jnp.sum(largest**2 / bend, axis=(0, 1)))

    def begin(alpha, latents, iteration) -> _Iterate:
        descent = likelihood_gradient(latents, y) - linear - reg * alpha
        steepest, ntk_steepest, norm, slope = measure(descent)
        return _Iterate(
            alpha,
            latents,
            descent,
            steepest,
            ntk_steepest,
            ntk_steepest,
            norm,
            slope,
            iteration,
        )

    def improving(state):
        it, last, _ = state
        useful = active(it) & (it.norm <= _LEFT * last)
        return jnp.any(useful) & (it.iteration < max_iter)

    def once_more(state):
        """Iterate to the end, and judge that afresh: it is where the next round starts."""
        before, _, rounds = state
        end = lax.while_loop(unfinished, step, before)
        after = begin(end.alpha, prior + apply_ntk(end.alpha), end.iteration)
        # At the limit of precision a round may do harm.
        keep = (rounds > 0) & ~(after.norm <= before.norm)
        best = [jnp.where(keep, b, a) for b, a in zip(before[:-1], after[:-1], strict=True)]
        return _Iterate._make((*best, after.iteration)), before.norm, rounds + 1

    alpha = jnp.zeros_like(prior) if start is None else jnp.moveaxis(start, 0, -1)
    latents = prior if start is None else prior + apply_ntk(alpha)
    first = begin(alpha, latents, jnp.int32(0))
    state = (first, jnp.full_like(first.norm, jnp.inf), jnp.int32(0))
    end, _, rounds = lax.while_loop(improving, once_more, state)
    gap = certify(end)
    # At the start f and Theta r; at the end as much again, and what a deflation has not kept.
    around = (1 if start is None else 2) + (2 if deflation is None else 3)
    return DualSolution(
        alpha=jnp.moveaxis(end.alpha, -1, 0),
        latents=jnp.moveaxis(end.latents, -1, 0),
        gap=gap,
        residual=jnp.max(jnp.abs(end.descent), axis=(0, 1)),
        converged=gap <= tol,  # not where it is not a number
        n_products=end.iteration + end.iteration // _REFRESH + 2 * rounds + around,
    )


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
    gap = (jnp.sqrt(above) + _REPETITIONS * jnp.sqrt(0.5 * jnp.maximum(bend, 0.0))) ** 2
    return jnp.where(jnp.any(likelihood.degenerate(y)), jnp.inf, gap), latents


def _dot(u: Array, v: Array) -> Array:
    """Inner product of each draw: [n, C, S], [n, C, S] -> [S]."""
    return jnp.sum(u * v, axis=(0, 1))

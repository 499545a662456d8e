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
inner product need one product with Theta an iteration, shared by all draws and outputs. See
docs/theory: "Solving many draws at once".
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk_uq.likelihoods import Likelihood

__all__ = ["DualSolution", "solve_dual"]

# Line searches stop once the slope has fallen to this fraction. Conjugacy needs them fairly
# exact: 0.5 costs more products with Theta than it saves evaluations, 0.01 the reverse.
_CURVATURE_CONDITION = 0.1
_MAX_LINE_SEARCH = 60


class DualSolution(NamedTuple):
    """Solutions of the S problems, and how good they are.

    Attributes
    ----------
    alpha : Array of shape [S, n, C]
        Dual coefficients: the predictor is f0(x) + Theta(x, X) alpha.
    latents : Array of shape [S, n, C]
        The predictor at the training points.
    gap : Array of shape [S]
        Upper bound of the objective's distance to its minimum, in nats. Its square root, times
        sqrt(2), bounds the distance of the latents in posterior standard deviations.
    residual : Array of shape [S]
        Largest entry of abs(grad log p - e - reg alpha), in units of the likelihood's gradient.
    converged : Array of shape [S]
        Whether the gap came below the tolerance.
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
    ntk_descent: Array  # Theta r
    direction: Array
    ntk_direction: Array
    norm: Array  # <r, r>_Theta, [S]
    iteration: Array


@partial(jax.jit, static_argnames="max_iter")
def solve_dual(
    ntk: Array,
    reg: Array | float,
    y: Array,
    f0: Array,
    likelihood: Likelihood,
    *,
    linear: Array | float = 0.0,
    weights: Array | float = 1.0,
    start: Array | None = None,
    tol: float = 1e-12,
    max_iter: int = 5000,
) -> DualSolution:
    """Solve the regularised problem for every prior function at once.

    Parameters
    ----------
    ntk : Array of shape [n, n], or [n, C, n, C]
        Theta, symmetric positive semi-definite; a finite network's couples the outputs.
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
    tol : float
        Stop at this gap, in nats. The default leaves the latents within about a millionth of a
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

    prior = jnp.moveaxis(f0, 0, -1)
    linear = jnp.moveaxis(jnp.broadcast_to(linear, f0.shape), 0, -1).astype(f0.dtype)
    reg = jnp.asarray(reg, f0.dtype)

    # [n, n], or [nC, nC] where outputs have kernels of their own.
    operator = ntk.reshape(math.prod(ntk.shape[: ntk.ndim // 2]), -1)

    def apply_ntk(v):
        return (operator @ v.reshape(len(operator), -1)).reshape(v.shape)

    def active(iterate):
        return iterate.norm > 2 * reg * tol

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
            return on & (jnp.abs(slope) > _CURVATURE_CONDITION * jnp.abs(initial))

        def body(state):
            t, low, high, _, slope, bend, count = state
            low, high = jnp.where(slope < 0, t, low), jnp.where(slope > 0, t, high)
            newton = t - slope / bend
            middle = jnp.where(jnp.isinf(high), 4 * t, 0.5 * (low + high))
            inside = (newton > low) & (newton < high)
            # The slope is monotone: a Newton step outside the bracket is replaced by its middle.
            t = jnp.where(pending(slope), jnp.where(inside, newton, middle), t)
            return t, low, high, *evaluate(t), count + 1

        def unfinished(state):
            return jnp.any(pending(state[4])) & (state[6] < _MAX_LINE_SEARCH)

        bend = stretch + _dot(it.ntk_direction, curvature_matvec(it.latents, it.ntk_direction))
        t = jnp.where(on, -initial / bend, 0.0)
        state = (t, jnp.zeros_like(t), jnp.full_like(t, jnp.inf), *evaluate(t), jnp.int32(0))
        t, _, _, gradient, *_ = lax.while_loop(unfinished, body, state)
        return t, gradient

    def step(it: _Iterate) -> _Iterate:
        on = active(it)
        t, gradient = line_search(it)
        alpha = it.alpha + t * it.direction
        latents = it.latents + t * it.ntk_direction
        descent = gradient - linear - reg * alpha
        ntk_descent = apply_ntk(descent)
        norm = jnp.maximum(_dot(descent, ntk_descent), 0.0)
        # A draw that is solved to the last bit waits for the others with a norm of zero.
        last = jnp.where(on, it.norm, 1.0)
        beta = jnp.maximum((norm - _dot(descent, it.ntk_descent)) / last, 0.0)
        direction = descent + beta * it.direction
        ntk_direction = ntk_descent + beta * it.ntk_direction
        uphill = _dot(descent, ntk_direction) <= 0
        return _Iterate(
            alpha,
            latents,
            descent,
            ntk_descent,
            jnp.where(uphill, descent, direction),
            jnp.where(uphill, ntk_descent, ntk_direction),
            jnp.where(on, norm, it.norm),
            it.iteration + 1,
        )

    def unfinished(it: _Iterate):
        return jnp.any(active(it)) & (it.iteration < max_iter)

    alpha = jnp.zeros_like(prior) if start is None else jnp.moveaxis(start, 0, -1)
    latents = prior if start is None else prior + apply_ntk(alpha)
    descent = likelihood_gradient(latents, y) - linear - reg * alpha
    ntk_descent = apply_ntk(descent)
    first = _Iterate(
        alpha,
        latents,
        descent,
        ntk_descent,
        descent,
        ntk_descent,
        jnp.maximum(_dot(descent, ntk_descent), 0.0),
        jnp.int32(0),
    )
    end = lax.while_loop(unfinished, step, first)
    # Summing Theta alpha over the iterations has collected rounding: judge the solution afresh.
    latents = prior + apply_ntk(end.alpha)
    residual = likelihood_gradient(latents, y) - linear - reg * end.alpha
    return DualSolution(
        alpha=jnp.moveaxis(end.alpha, -1, 0),
        latents=jnp.moveaxis(latents, -1, 0),
        gap=end.norm / (2 * reg),
        residual=jnp.max(jnp.abs(residual), axis=(0, 1)),
        converged=end.norm <= 2 * reg * tol,  # not where it is not a number
        n_products=end.iteration + (2 if start is None else 3),
    )


def _dot(u: Array, v: Array) -> Array:
    """Inner product of each draw: [n, C, S], [n, C, S] -> [S]."""
    return jnp.sum(u * v, axis=(0, 1))

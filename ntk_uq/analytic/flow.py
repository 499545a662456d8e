r"""Gradient flow of many draws until a time, by implicit steps that the dual solver takes.

The flow :math:`\dot\alpha = \nabla \log p(y \mid f_0 + \Theta\alpha) - reg\,\alpha` is stiff: its
rates run from `reg` to the largest eigenvalue of W Theta. A stage of a diagonally implicit
Runge-Kutta method, :math:`\alpha = a + h\gamma F(\alpha)`, is the solution of a regularised
problem, with :math:`reg + 1 / (h\gamma)` in the place of `reg` and the prior function
:math:`f_0 + \Theta a / (1 + h\gamma\,reg)`: all draws share its products with Theta. docs/theory:
"Training time".
"""

import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntk_uq._common.linalg import cholesky
from ntk_uq._common.operators import Operator, as_operator
from ntk_uq._common.progress import Progress
from ntk_uq._common.solver import solve_dual
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import shown
from ntk_uq.analytic.budget import _draws_at_once
from ntk_uq.analytic.exact import ExactPredictor, _random_variables
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import Kernels

__all__ = ["check_time", "exact_predictor_until", "follow_flow"]

# Alexander's method of two stages, L-stable and of order 2.
_GAMMA = 1 - 0.5**0.5
# Error of a step that is allowed, in nats as the solver measures distances: of latents about a
# hundredth of the likelihood's own scale over a whole run.
_STEP_ERROR = 1e-6
# Steps grow and shrink within these factors, and start so far below the flow's fastest rate.
_GROWTH, _SHRINK, _SAFETY, _FIRST = 4.0, 0.2, 0.8, 0.1
_MOST_STEPS = 2000


def follow_flow(
    theta: Array | Operator,
    y: Array,
    f0: Array,
    reg: float,
    likelihood: Likelihood,
    times: Sequence[float],
    *,
    weights: Array | float = 1.0,
    step_error: float = _STEP_ERROR,
) -> Iterator[tuple[Array, Array]]:
    """Dual coefficients and latents of every draw at increasing times, one after the other.

    Parameters
    ----------
    theta, y, f0, reg, likelihood, weights
        As in `solve_dual`, but that `reg` may be zero.
    times : sequence of floats
        Increasing, finite and at least 0.
    step_error : float
        Error of a step, in nats: half the squared distance of the latents of one of second and one
        of first order, weighted by the curvature that the step adds.

    Returns
    -------
    iterator of (Array of shape [S, n, C], Array of shape [S, n, C])

    Raises
    ------
    ValueError
        If steps become too small to reach the times.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import Gaussian
    >>> theta, y = 2.0 * jnp.eye(1), jnp.ones((1, 1))
    >>> flow = follow_flow(theta, y, jnp.zeros((1, 1, 1)), 0.0, Gaussian(1.0), [0.5, 1.0])
    >>> [round(float(f[0, 0, 0]), 2) for _, f in flow]  # 1 - exp(-2 t)
    [0.63, 0.86]
    """
    operator = as_operator(theta)
    alpha = jnp.zeros_like(f0)
    # The fastest rate is of the size of the diagonal of W Theta, times at most n C.
    size = float(jnp.max(operator.diagonal()))
    bend = float(jnp.max(likelihood.curvature(f0, y).diagonal))
    h, now, steps = _FIRST / (size * max(bend, 1e-3) + reg), 0.0, 0
    for time in times:
        while now < time:
            steps += 1
            if steps > _MOST_STEPS or h < 1e-14 * time:
                raise ValueError(
                    f"Gradient flow was followed to t={now:.3g} of {time:.3g} in {steps} steps: it "
                    "is too stiff. Ask for an earlier time, or scale the features (about 1 each)."
                )
            trial = min(h, time - now)
            moved, error = _step(operator, reg, y, alpha, f0, likelihood, weights, trial)
            worst = float(jnp.max(error))
            # Errors of a first-order comparison grow with the square of the step, nats with its
            # fourth power.
            factor = _SAFETY * (step_error / max(worst, 1e-300)) ** 0.25
            if worst <= step_error:
                now, alpha = now + trial, moved
                if trial == h:
                    h *= min(_GROWTH, max(1.0, factor))
            else:
                h = trial * min(_SAFETY, max(_SHRINK, factor))
            if time - now < 1e-12 * time:
                now = time
        yield alpha, f0 + _apply(operator, alpha)


@jax.jit
def _apply(operator: Operator, alpha: Array) -> Array:
    return jnp.moveaxis(operator.product(jnp.moveaxis(alpha, 0, -1)), -1, 0)


@jax.jit
def _step(
    operator: Any,
    reg: Any,
    y: Array,
    alpha: Array,
    f0: Array,
    likelihood: Likelihood,
    weights: Any,
    h: Any,
) -> tuple[Array, Array]:
    """Coefficients after a step, and the error of each draw in nats."""
    scale = 1 + h * _GAMMA * reg
    implicit = scale / (h * _GAMMA)

    def stage(base: Array, start: Array) -> Array:
        """The alpha with alpha = base + h gamma F(alpha)."""
        known = base / scale
        solution = solve_dual(
            operator, implicit, y, f0 + _apply(operator, known), likelihood, weights=weights,
            start=start - known, tol=1e-3 * _STEP_ERROR,
        )  # fmt: skip
        return known + solution.alpha

    first = stage(alpha, alpha)
    slope1 = (first - alpha) / (h * _GAMMA)
    base = alpha + h * (1 - _GAMMA) * slope1
    second = stage(base, base + h * _GAMMA * slope1)
    slope2 = (second - base) / (h * _GAMMA)
    difference = h * 0.5 * (slope2 - slope1)  # to what is of first order
    norm = jnp.sum(difference * _apply(operator, difference), axis=(1, 2))
    return second, 0.5 * jnp.maximum(norm, 0.0) * implicit * _GAMMA


def exact_predictor_until(
    key: Array,
    kernels: Kernels,
    y: Array,
    reg: float,
    likelihood: Likelihood,
    uncertainty: Uncertainty,
    n_draws: int,
    time: float,
    *,
    progress: Progress | None = None,
) -> ExactPredictor:
    """`exact_predictor`, trained until a time of gradient flow.

    Draws are of the same prior functions. A likelihood needs no regularisation and no soft targets:
    at a finite time all is finite.

    Parameters
    ----------
    key, kernels, y, reg, likelihood, uncertainty, n_draws, progress
        As in `exact_predictor`, "posterior" excepted, which has no time.
    time : float
        Finite.

    Returns
    -------
    ExactPredictor
        Its `gap` is zero: there is no minimum to be near to.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> net, X = MLP(depth=1), jnp.array([[-1.0], [1.0]])
    >>> problem = net.kernel_block(X), jnp.eye(2), 0.0, Categorical(), "none", 1
    >>> exact_predictor_until(jax.random.key(0), *problem, time=0.5).alpha.shape
    (1, 2, 2)
    """
    check_time(time, uncertainty)
    if uncertainty == "none":
        factor, jitter, n_draws = jnp.zeros_like(kernels.nngp), 0.0, 1
    else:
        factor, jitter = cholesky(jnp.asarray(kernels.nngp))
    whitened, noise = _random_variables(key, range(n_draws), y, uncertainty)
    f0 = jnp.einsum("ij,sjc->sic", factor, whitened)
    size = min(n_draws, _draws_at_once(*y.shape))
    parts: list[Array] = []
    for start in range(0, n_draws, size):
        chunk = f0[start : start + size]
        parts.extend(a for a, _ in follow_flow(kernels.ntk, y, chunk, reg, likelihood, [time]))
        if progress is not None:
            progress(min(start + size, n_draws), n_draws)
    alpha, zero = jnp.concatenate(parts), jnp.zeros(n_draws, y.dtype)
    return ExactPredictor(
        alpha, whitened, noise, factor, jitter, reg, uncertainty, zero, zero == zero
    )


def check_time(time: Any, uncertainty: str) -> None:
    """Refuse what is no time, and a time of a posterior.

    Parameters
    ----------
    time, uncertainty
        As the estimators take them.

    Raises
    ------
    ValueError
        Says what to do.

    Examples
    --------
    >>> check_time(0.5, "initialization")  # says nothing
    """
    if time is not None and (
        isinstance(time, bool) or not isinstance(time, numbers.Real) or not float(time) >= 0
    ):
        raise ValueError(
            "time must be at least 0, in units of gradient flow on the sum of losses (learning "
            f"rate times steps), or None for the end of training; got {shown(time)}. "
            'Several are compared by scikit-learn: GridSearchCV(estimator, {"time": [0.1, 1.0]}).'
        )
    if time is not None and uncertainty == "posterior":
        raise ValueError(
            'uncertainty="posterior" describes the end of training: a posterior has no time. Use '
            '"initialization" or "none", or time=None.'
        )

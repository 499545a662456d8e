"""The log evidence by Laplace, and the climb to its maximum."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from numpy.typing import NDArray

from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import solve_dual
from ntk_uq.analytic.resolvent import curvature_resolvent
from ntk_uq.likelihoods import Curvature, Likelihood

__all__ = ["Optimum", "log_evidence", "maximise_evidence"]

Floats = NDArray[np.float64]
# An evidence is off by no more than its mode's gap: nats.
_EVIDENCE_GAP = 1e-2
# Parameters are fitted on a logarithmic scale, at most this far from where they start: a factor of
# exp(7), about 1000. A scale that the data would send to zero or infinity stops here.
_FURTHEST = 7.0
# Nats that an iteration has to gain, and derivatives by the logarithm of a parameter that are as
# good as zero, or certainly not: a hundredth of a nat decides nothing.
_LEAST_RISE, _FLAT, _STEEP = 1e-4, 1e-3, 0.1


@own_rules()
@jax.jit
def log_evidence(ntk: Array, y: Array, reg: Array | float, likelihood: Likelihood) -> Array:
    r"""Laplace's approximation of the log evidence.

    .. math::
        \log p(Y \mid \hat f) - \tfrac{reg}{2} \mathrm{tr}\,\alpha^\top \Theta \alpha
        - \tfrac12 \log\det(I + W^{1/2} \Theta W^{1/2} / reg)

    at the mode :math:`\hat f = \Theta\alpha`. Exact for a Gaussian likelihood. Derivatives with
    respect to the kernel, `reg` and the likelihood's parameters are right: they count that the
    mode moves, by the implicit function theorem.

    Parameters
    ----------
    ntk : Array of shape [n, n]
        NTK of the training points.
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    reg : float
        Regularisation, > 0.
    likelihood : Likelihood
        Observation model.

    Returns
    -------
    Array of shape []
        Nats. Not a number where the mode is not found to a hundredth of a nat.

    References
    ----------
    Rasmussen & Williams (2006), eq. 3.44 and section 5.5.1; docs/theory, "Choosing `reg`".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Categorical
    >>> ntk, y = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2)
    >>> value, slope = jax.value_and_grad(log_evidence, 2)(ntk, y, 1.0, Categorical())
    >>> value.shape, slope.shape
    ((), ())
    """
    mode, moving = _mode(ntk, y, reg, likelihood)
    # At the mode the fit is stationary: of it only what depends on the parameters directly counts.
    f = ntk @ mode
    fit = jnp.sum(likelihood.log_density(f, y)) - 0.5 * reg * jnp.sum(mode * f)
    return fit - 0.5 * _log_det(ntk / reg, likelihood.curvature(ntk @ moving, y))


def _mode(ntk: Array, y: Array, reg: Array | float, likelihood: Likelihood) -> tuple[Array, Array]:
    """Dual coefficients of the mode, [n, C], as constants and with their derivatives.

    Not a number where they are not found.
    """
    fixed_ntk, fixed_reg, fixed_likelihood = lax.stop_gradient(
        (ntk, jnp.asarray(reg, ntk.dtype), likelihood)
    )
    solution = solve_dual(fixed_ntk, fixed_reg, y, jnp.zeros_like(y)[None], fixed_likelihood)
    start = lax.stop_gradient(solution.alpha[0])
    curvature = fixed_likelihood.curvature(lax.stop_gradient(solution.latents[0]), y)
    resolvent = curvature_resolvent(fixed_ntk, fixed_reg, curvature)

    def newton(r: Array) -> Array:
        """(reg I + W Theta)^-1 r = (r - G Theta r) / reg."""
        return (r - resolvent.apply(fixed_ntk @ r)) / fixed_reg

    def residual(alpha: Array) -> Array:
        return fixed_likelihood.gradient(fixed_ntk @ alpha, y) - fixed_reg * alpha

    # One step more, unless rounding spoils it.
    r = residual(start)
    alpha = start + newton(r)
    after = residual(alpha)
    better = jnp.sum(after * (fixed_ntk @ after)) < jnp.sum(r * (fixed_ntk @ r))
    alpha = jnp.where(better, alpha, start)
    alpha = jnp.where(solution.gap[0] <= _EVIDENCE_GAP, alpha, jnp.nan)
    # A step from there has the derivative of the exact mode. Itself it is nothing but rounding.
    r = likelihood.gradient(ntk @ alpha, y) - reg * alpha
    return alpha, alpha + newton(r - lax.stop_gradient(r))


def _log_det(s: Array, curvature: Curvature) -> Array:
    r"""Log det(I + W^1/2 S W^1/2), by factors of size n.

    With W = D - D q q^T D it is :math:`\sum_c \log\det(I + D_c^{1/2} S D_c^{1/2})
    + \log\det \sum_c q_c (S + D_c^{-1})^{-1} q_c`.
    """

    def one_output(d: Array) -> tuple[Array, Array]:
        root = jnp.sqrt(jnp.maximum(d, jnp.finfo(d.dtype).tiny))  # no derivative at zero
        factor = jnp.linalg.cholesky(root[:, None] * s * root + jnp.eye(len(s), dtype=s.dtype))
        half = solve_triangular(factor, jnp.diag(root), lower=True)
        return 2 * jnp.sum(jnp.log(jnp.diag(factor))), half.T @ half

    log_dets, inverses = lax.map(one_output, curvature.diagonal.T)
    if curvature.direction is None:
        return jnp.sum(log_dets)
    q = curvature.direction
    factor = jnp.linalg.cholesky(jnp.einsum("ic,cij,jc->ij", q, inverses, q))
    return jnp.sum(log_dets) + 2 * jnp.sum(jnp.log(jnp.diag(factor)))


class Optimum(NamedTuple):
    """Where `maximise_evidence` arrived.

    Attributes
    ----------
    parameters : pytree
        As `start`, at the maximum.
    value : float
        Log evidence there, in nats.
    converged : bool
        Whether L-BFGS-B met its own criteria.
    moved : bool
        False where nothing was gained, though the evidence rises from the start: no maximum, then.
    n_evaluations : int
        Evaluations of evidence and gradient.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> best = maximise_evidence(lambda p: -((jnp.log(p["reg"]) - 1) ** 2), {"reg": 1.0})
    >>> round(float(best.parameters["reg"]), 2), best.converged
    (2.72, True)
    """

    parameters: Any
    value: float
    converged: bool
    moved: bool
    n_evaluations: int


@own_rules()
def maximise_evidence(
    evidence: Callable[[Any], Array],
    start: Any,
    *,
    lower: Any = None,
    max_iter: int = 50,
    progress: Progress | None = None,
) -> Optimum:
    """Maximise an evidence over positive parameters, by L-BFGS-B in their logarithms.

    Each stays within a factor of exp(7), about 1000, of where it starts.

    Parameters
    ----------
    evidence : callable
        ``evidence(parameters)``, traceable: `log_evidence` of a kernel that depends on them.
    start : pytree
        Positive parameters to start from: ``{"reg": 1.0, "scales": jnp.ones(d)}`` for example.
    lower : pytree, optional
        As `start`: what the parameters may not fall below.
    max_iter : int
        At most this many iterations.
    progress : callable, optional
        ``progress(done, total)`` is told iterations.

    Returns
    -------
    Optimum

    Raises
    ------
    ValueError
        If the evidence at the start is not finite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import Gaussian
    >>> ntk, y = jnp.eye(3), jnp.array([[3.0], [-3.0], [3.0]])
    >>> best = maximise_evidence(
    ...     lambda p: log_evidence(ntk, y, p["reg"], Gaussian(1.0)), {"reg": 1.0}
    ... )
    >>> round(float(best.parameters["reg"]), 3)  # 1 / reg + 1 = 3^2
    0.125
    """
    dtype = jnp.result_type(float)
    first, unravel = _raveled(start, dtype)

    @jax.jit
    def deficit(logs: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda v: -evidence(jax.tree.map(jnp.exp, unravel(v))))(logs)

    def evaluate(logs: Floats) -> tuple[float, Floats]:
        value, gradient = deficit(np.asarray(logs, dtype))
        return float(value), np.asarray(gradient, np.float64)

    value, gradient = evaluate(first)
    if not np.isfinite(value):
        raise ValueError(
            f"The evidence is {-value} where the search starts: its mode was not found, or the "
            "kernel is too wide for this reg and noise to be factorised. Start from larger ones."
        )
    if not np.all(np.isfinite(gradient)):
        return Optimum(start, -value, False, False, 1)
    low, high = first - _FURTHEST, first + _FURTHEST
    if lower is not None:
        low = np.clip(_raveled(lower, dtype)[0], low, first)

    def slope(logs: Floats, gradient: Floats) -> float:
        """Length of the gradient within the bounds."""
        outward = np.where(gradient > 0, logs <= low, logs >= high)
        return float(np.linalg.norm(gradient[~outward]))

    # L-BFGS-B's first step is as long as the gradient: in this unit a factor of e.
    unit = max(slope(first, gradient), _FLAT)
    best = first, value, gradient

    def objective(logs: Floats) -> tuple[float, Floats]:
        nonlocal best
        value, gradient = evaluate(logs)
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            # Out of what can be computed: a slope that leads back.
            away = logs - best[0]
            return best[1] / unit + float(away @ away), 2 * away
        if value < best[1]:
            best = logs.copy(), value, gradient
        return value / unit, gradient / unit

    done = 0

    def callback(_: Any) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, max_iter), max_iter)

    fit = scipy.optimize.minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        callback=callback,
        options={
            "maxiter": max_iter,
            "ftol": _LEAST_RISE / max(unit, abs(value)),
            "gtol": _FLAT / unit,
        },
    )
    moved = value - best[1] >= _LEAST_RISE or slope(best[0], best[2]) <= _STEEP
    parameters = jax.tree.map(np.exp, unravel(best[0].astype(dtype)))
    return Optimum(parameters, -best[1], bool(fit.success), moved, int(fit.nfev) + 1)


def _raveled(parameters: Any, dtype: Any) -> tuple[Floats, Callable[[Any], Any]]:
    """Logarithms of parameters as one vector, and what makes a pytree of one again.

    In NumPy: `jax.flatten_util.ravel_pytree` compiles programs for it.
    """
    leaves, structure = jax.tree.flatten(parameters)
    shapes = [np.shape(leaf) for leaf in leaves]
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
    starts = [0, *ends[:-1]]

    def unravel(vector: Any) -> Any:
        parts = zip(starts, ends, shapes, strict=True)
        return jax.tree.unflatten(structure, [vector[i:j].reshape(shape) for i, j, shape in parts])

    with np.errstate(divide="ignore"):  # a bound of zero
        logs = [np.log(np.asarray(leaf, dtype)).ravel() for leaf in leaves]
    return np.concatenate(logs).astype(np.float64), unravel

r"""Choosing the regularisation, and the kernel, from the training data alone.

- `log_evidence`: Laplace's approximation of :math:`\log p(Y)`, differentiable in everything that
  it depends on, and `maximise_evidence`, which climbs it. docs/theory: "Choosing `reg`".
- `cross_validate`: log predictive density of held-out points, along a path of regularisations.

Everything follows the dtype of the kernels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from numpy.typing import ArrayLike, NDArray

from ntk_uq._progress import Progress
from ntk_uq._solver import solve_dual
from ntk_uq.analytic import Uncertainty, curvature_resolvent, gaussian_predictor
from ntk_uq.architectures import Kernels
from ntk_uq.likelihoods import Curvature, Likelihood
from ntk_uq.predictions import GaussianPrediction

__all__ = ["Optimum", "cross_validate", "log_evidence", "maximise_evidence"]

Floats = NDArray[np.float64]

# Parameters are fitted on a logarithmic scale, at most this far from where they start: a factor of
# exp(7), about 1000. A scale that the data would send to zero or infinity stops here.
_FURTHEST = 7.0


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
        Nats.

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
    alpha = _mode(ntk, y, reg, likelihood)
    f = ntk @ alpha
    fit = jnp.sum(likelihood.log_density(f, y)) - 0.5 * reg * jnp.sum(alpha * f)
    return fit - 0.5 * _log_det(ntk / reg, likelihood.curvature(f, y))


def _mode(ntk: Array, y: Array, reg: Array | float, likelihood: Likelihood) -> Array:
    """Dual coefficients of the mode, [n, C], with their derivatives."""
    fixed_ntk, fixed_reg, fixed_likelihood = lax.stop_gradient(
        (ntk, jnp.asarray(reg, ntk.dtype), likelihood)
    )
    solution = solve_dual(fixed_ntk, fixed_reg, y, jnp.zeros_like(y)[None], fixed_likelihood)
    alpha, latents = lax.stop_gradient((solution.alpha[0], solution.latents[0]))
    # One more Newton step hardly moves the solution, and has the derivative of the exact mode:
    # (reg I + W Theta)^-1 r = (r - G Theta r) / reg.
    curvature = fixed_likelihood.curvature(latents, y)
    resolvent = curvature_resolvent(fixed_ntk, fixed_reg, curvature)
    r = likelihood.gradient(ntk @ alpha, y) - reg * alpha
    return alpha + (r - resolvent.apply(fixed_ntk @ r)) / fixed_reg


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
    n_evaluations : int
        Evaluations of evidence and gradient.
    """

    parameters: Any
    value: float
    converged: bool
    n_evaluations: int


def maximise_evidence(
    evidence: Callable[[Any], Array],
    start: Any,
    *,
    max_iter: int = 50,
    progress: Progress | None = None,
) -> Optimum:
    """Maximise an evidence over positive parameters, by L-BFGS-B in their logarithms.

    Parameters
    ----------
    evidence : callable
        ``evidence(parameters)``, traceable: `log_evidence` of a kernel that depends on them.
    start : pytree
        Positive parameters to start from: ``{"reg": 1.0, "scales": jnp.ones(d)}`` for example.
    max_iter : int
        At most this many iterations.
    progress : callable, optional
        ``progress(done, total)`` is told iterations.

    Returns
    -------
    Optimum

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
    logs, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.log(jnp.asarray(x, float)), start))

    @jax.jit
    def deficit(logs: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda v: -evidence(jax.tree.map(jnp.exp, unravel(v))))(logs)

    def objective(logs: Floats) -> tuple[float, Floats]:
        value, gradient = deficit(jnp.asarray(logs))
        # A kernel too wide to be factorised: turn back.
        if not np.isfinite(value):
            return np.inf, np.zeros_like(logs)
        return float(value), np.asarray(gradient, np.float64)

    done = 0

    def callback(_: Any) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, max_iter), max_iter)

    first = np.asarray(logs, np.float64)
    fit = scipy.optimize.minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(first - _FURTHEST, first + _FURTHEST, strict=True)),
        callback=callback,
        # A hundredth of a nat decides nothing.
        options={"maxiter": max_iter, "ftol": 1e-7, "gtol": 1e-3},
    )
    parameters = jax.tree.map(jnp.exp, unravel(jnp.asarray(fit.x, logs.dtype)))
    return Optimum(parameters, -float(fit.fun), bool(fit.success), int(fit.nfev))


def cross_validate(
    kernels: Kernels,
    y: ArrayLike,
    regs: Sequence[float],
    likelihood: Likelihood,
    uncertainties: Sequence[Uncertainty],
    folds: Sequence[NDArray[np.integer]],
    *,
    targets: ArrayLike | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Log predictive density of held-out points, for every regularisation and uncertainty.

    Kernels of the folds are blocks of the whole. Regularisations are visited from the strongest,
    each mode starting from the last; its curvature then serves every uncertainty, by the Gaussian
    predictor.

    Parameters
    ----------
    kernels : Kernels
        NNGP kernel and NTK of the points, [n, n].
    y : array of shape [n, C]
        Targets to predict.
    regs : sequence of R floats
        Regularisations, > 0.
    likelihood : Likelihood
        Observation model.
    uncertainties : sequence of U strings
        As in `analytic.gaussian_predictor`.
    folds : sequence of integer arrays
        Points that are held out, fold by fold.
    targets : array of shape [n, C], optional
        Targets to train on, where these differ, as smoothed labels do.
    progress : callable, optional
        ``progress(done, total)`` is told solutions.

    Returns
    -------
    array of shape [R, U, n]
        Log predictive density of each point when it was held out, in nats; NaN where a point is in
        no fold.
    """
    y = np.asarray(y)
    targets = y if targets is None else np.asarray(targets)
    scores = np.full((len(regs), len(uncertainties), len(y)), np.nan)
    order = np.argsort(regs)[::-1]
    done, total = 0, len(regs) * len(folds)
    for train, held_out in _of_one_size(len(y), folds):
        inner = Kernels(*(jnp.asarray(k[np.ix_(train, train)]) for k in kernels))
        cross = Kernels(*(jnp.asarray(k[np.ix_(held_out, train)]) for k in kernels))
        diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernels))
        start = None
        for r in order:
            predictor = gaussian_predictor(
                inner, targets[train], regs[r], likelihood, _widest(uncertainties), start=start
            )
            start = predictor.alpha
            for u, uncertainty in enumerate(uncertainties):
                mean, cov = _moments(predictor, uncertainty, cross, diagonal)
                prediction = GaussianPrediction(np.asarray(mean), np.asarray(cov), likelihood)
                scores[r, u, held_out] = prediction.log_density(y[held_out])
            done += 1
            if progress is not None:
                progress(done, total)
    return scores


def _widest(uncertainties: Sequence[Uncertainty]) -> Uncertainty:
    """The uncertainty whose predictor holds what all of them need."""
    order: tuple[Uncertainty, ...] = ("initialization", "posterior", "none")
    return next(u for u in order if u in uncertainties)


def _moments(predictor, uncertainty: Uncertainty, cross: Kernels, diagonal: Kernels):
    """Moments for another uncertainty of the same fit."""
    if uncertainty == "posterior":
        predictor = replace(predictor, nngp=None)
    elif uncertainty == "none":
        predictor = replace(predictor, nngp=None, resolvent=None)
    return replace(predictor, uncertainty=uncertainty).moments(cross, diagonal)


def _of_one_size(
    n: int, folds: Sequence[NDArray[np.integer]]
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
    """Training and held-out points of each fold, as many in each, so that programs compile once.

    Folds may differ by a point: it is then left out of training, or asked for twice.
    """
    largest = max(len(fold) for fold in folds)
    for fold in folds:
        train = np.setdiff1d(np.arange(n), fold)[: n - largest]
        yield train, np.resize(fold, largest)

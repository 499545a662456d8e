"""The Gaussian predictor: closed form to first order in the prior function.

docs/theory: "The Gaussian predictor".
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.linalg import interpolation_factor
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import solve_dual
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import in_a_line
from ntk_uq.analytic.budget import _max_iter
from ntk_uq.analytic.exact import _exact_predictor, _random_variables
from ntk_uq.analytic.inputs import _arrays, objective_gap
from ntk_uq.analytic.resolvent import _diagonal, _PerOutput, _resolvent, _Shared
from ntk_uq.likelihoods import Likelihood, require_condition
from ntk_uq.networks.architecture import Kernels
from ntk_uq.predictions.first_order import (
    CHECK_ITERATIONS,
    CHECK_TOLERANCE,
    CHECKED,
    Discrepancy,
    compare_draws,
    is_exact,
    no_discrepancy,
)

__all__ = ["GaussianPredictor", "gaussian_predictor"]

# Each adds the digits that the factorisation has: of the worst that double precision takes, three.
_REFINEMENTS = 4


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
    checks.uncertainty(uncertainty)
    kernels, y = _arrays(kernels, y)
    require_condition(likelihood, y, reg)
    ntk = kernels.ntk
    nngp = kernels.nngp if uncertainty == "initialization" else None
    resolvent: _Shared | _PerOutput | None = None
    if reg > 0:
        if is_exact(likelihood) and uncertainty != "none":
            # What the covariance takes gives the mode too, where iterations would be many.
            curvature = likelihood.curvature(jnp.zeros_like(y), y)
            resolvent = _resolvent(ntk, reg, curvature, nngp)
            start = _quadratic_mode(ntk, reg, y, curvature, resolvent)
        start = None if start is None else start[None]
        zero = jnp.zeros_like(y)[None]
        most = _max_iter(*y.shape)
        solution = solve_dual(ntk, reg, y, zero, likelihood, start=start, tol=tol, max_iter=most)
        alpha, gap = solution.alpha[0], solution.gap[0]
        if uncertainty != "none" and resolvent is None:
            resolvent = _resolvent(ntk, reg, likelihood.curvature(solution.latents[0], y), nngp)
    else:
        factor = interpolation_factor(ntk)
        alpha = cho_solve((factor, True), likelihood.optimum(y))
        gap = objective_gap(ntk, y, reg, jnp.zeros_like(y)[None], alpha[None], likelihood)[0][0]
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


@jax.jit
def _quadratic_mode(ntk: Array, reg: float, y: Array, curvature: Any, resolvent: Any) -> Array:
    """Dual coefficients G y of a Gaussian likelihood, refined: G is known to rounding only."""
    alpha = jnp.zeros_like(y)
    for _ in range(_REFINEMENTS):
        alpha = alpha + resolvent.apply(y - ntk @ alpha - reg * alpha / curvature.diagonal)
    return alpha


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
    response: ArrayLike, kernels: Kernels, y: ArrayLike, reg: float, likelihood: Likelihood
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
    likelihood : Likelihood
        Whose objective the gap is of.
    """
    kernels, y = _arrays(kernels, y)
    response = jnp.asarray(response, y.dtype)
    resolvent = _Shared(response, jnp.eye(y.shape[1], dtype=y.dtype))
    alpha = response @ y
    gap, _ = objective_gap(kernels.ntk, y, reg, jnp.zeros_like(y)[None], alpha[None], likelihood)
    predictor = GaussianPredictor(alpha, resolvent, kernels.nngp, reg, "initialization", gap[0])
    return replace(predictor, discrepancy=no_discrepancy(y.shape))


@in_a_line
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
        Upper bound of the distance of the mode's objective to its minimum, in nats, rounding
        included.
    discrepancy : Discrepancy or None
        How far the predictor is from the distribution that it is the first order of, at the n
        training points: a few of its draws, each against the exact solution for the same prior
        function (and label noise). Where it is large these are solved roughly, and only its total
        variation is to be trusted. Zero where first order is exact: for a Gaussian likelihood,
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


def _covariance(prior: Array, reduction: Array) -> Array:
    """Prior times I less reduction, symmetric to the last bit: [m, C, C]."""
    cov = _diagonal(jnp.broadcast_to(prior[:, None], reduction.shape[:2])) - reduction
    return 0.5 * (cov + cov.swapaxes(1, 2))

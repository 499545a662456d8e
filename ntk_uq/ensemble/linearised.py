"""Linearised networks of an ensemble, solved exactly in the dual."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.linalg import interpolation_factor
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import LARGEST_GAP, DualSolution, interpolation_gap, solve_dual
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.warnings import ConvergenceWarning, warn_user
from ntk_uq.ensemble.members import check_problem, draw, in_features, label_noise, prior_function
from ntk_uq.ensemble.objective import Problem, certificate, norm, scale_of, vdot
from ntk_uq.ensemble.train import _MODE_MEMBERS, _TOL
from ntk_uq.ensemble.trained import TrainedEnsemble
from ntk_uq.ensemble.trainer import _Results
from ntk_uq.likelihoods import Likelihood, require_condition
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.empirical import empirical_ntk

__all__ = ["solve_linearised"]


@own_rules()
def solve_linearised(
    key: Array,
    architecture: BaseArchitecture,
    X: ArrayLike,
    y: ArrayLike,
    likelihood: Likelihood,
    *,
    reg: float,
    n_members: int,
    uncertainty: Uncertainty = "initialization",
    progress: Progress | None = None,
) -> TrainedEnsemble:
    r"""Train the linearised networks of an ensemble, exactly.

    The network :math:`f_0 + J (\theta - \theta_0)` has a convex objective; its minimum is
    :math:`\theta_0 + J^\top \alpha` with n C dual coefficients, for which the empirical tangent
    kernel is all that is needed. The members are those of `train_ensemble` with the same key, so
    that each network can be compared with its linearisation.

    Parameters
    ----------
    key, architecture, X, y, likelihood, reg, n_members, uncertainty
        As in `train_ensemble`; n C is limited by the kernel's (n C)^2 numbers. Precision is that of
        X: use double precision for small reg, and for none.
    progress : callable, optional
        ``progress(done, total)`` is told members done.

    Returns
    -------
    TrainedEnsemble
        Linearised. ``n_iter`` counts products with the kernel.

    Raises
    ------
    ValueError
        If arguments do not fit together; or if reg = 0 and targets are degenerate, or the kernel
        is singular.

    References
    ----------
    docs/theory, "Linearised solution" and "Softmax without regularisation".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.ensemble import solve_linearised
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> net = MLP(width=64, depth=1)
    >>> solved = solve_linearised(jax.random.key(0), net, X, y, Categorical(), reg=1.0, n_members=2)
    >>> solved.latents(X).shape
    (2, 2, 2)
    """
    checks.count("n_members", n_members)
    X, y = check_problem(architecture, X, y, likelihood, reg, uncertainty)
    require_condition(likelihood, y, reg)
    mode = None
    if uncertainty == "posterior":
        shifted = [
            _solve_member(architecture, "none", key, i, X, y, likelihood, reg, None)
            for i in _MODE_MEMBERS
        ]
        mode = np.mean([np.asarray(member.latents) for member in shifted], axis=0)
    members = []
    for i in range(n_members):
        solved = _solve_member(architecture, uncertainty, key, i, X, y, likelihood, reg, mode)
        members.append(jax.tree.map(np.asarray, solved))
        if progress is not None:
            progress(i + 1, n_members)
    results = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    unsolved = np.flatnonzero(~results.converged)
    if unsolved.size:
        warn_user(
            f"{len(unsolved)} of {n_members} linearised networks were not solved to within "
            f"{_TOL:g} of their objective: the problem is too ill-conditioned for {X.dtype}. Use "
            "double precision, scale the features (about 1 each), or raise reg.",
            ConvergenceWarning,
        )
    return TrainedEnsemble(
        architecture=architecture,
        params=results.params,
        n_iter=results.n_iter,
        converged=results.converged,
        objective=results.objective.astype(np.float64),
        grad_norm=results.grad_norm.astype(np.float64),
        key=key,
        in_features=in_features(X),
        out_features=y.shape[1],
        reg=float(reg),
        uncertainty=uncertainty,
        mode=mode,
        linearised=True,
    )


def _solve_member(
    architecture: BaseArchitecture,
    uncertainty: Uncertainty,
    key: Array,
    i: int,
    X: Array,
    y: Array,
    likelihood: Likelihood,
    reg: float,
    mode: Any,
) -> "_Results":
    """Exact solution of one linearised network."""
    initial, tangent = draw(architecture, key, i, in_features(X), y.shape[1])
    prior = architecture.apply(initial, X) + prior_function(
        architecture, uncertainty, initial, tangent, reg, X
    )
    noise = label_noise(uncertainty, key, i, likelihood, mode, y)
    tol = 1e-12 if X.dtype == jnp.float64 else 1e-6  # nats, what the precision allows
    ntk = empirical_ntk(architecture, initial, X)
    if reg > 0:
        solution = solve_dual(ntk, reg, y, prior[None], likelihood, linear=noise[None], tol=tol)
    else:
        solution = _interpolate(ntk, y, prior, likelihood)
    alpha, latents = solution.alpha[0], solution.latents[0]
    _, pull_back = jax.vjp(lambda params: architecture.apply(params, X), initial)
    (displacement,) = pull_back(alpha)
    loss = jnp.sum(noise * latents) - jnp.sum(likelihood.log_density(latents, y))
    value = loss + 0.5 * reg * vdot(displacement, displacement)
    (gradient,) = pull_back(noise - likelihood.gradient(latents, y) + reg * alpha)
    settings = jnp.asarray(reg, X.dtype), jnp.asarray(_TOL, X.dtype)
    problem = Problem(architecture.apply, X, y, likelihood, *settings)
    gap = certificate(problem, value, vdot(gradient, gradient)) / scale_of(problem, value)
    return _Results(
        params=jax.tree.map(jnp.add, initial, displacement),
        n_iter=solution.n_products,
        converged=gap < problem.tol,
        objective=value,
        grad_norm=norm(gradient),
        latents=latents,
    )


def _interpolate(ntk: Array, y: Array, prior: Array, likelihood: Likelihood) -> DualSolution:
    """End of gradient flow without regularisation: it moves what the likelihood sees, no more."""
    n, outputs = y.shape
    eye = jnp.eye(outputs, dtype=ntk.dtype)
    seen = likelihood.identified(eye)
    kernel = jnp.einsum("ab,ibjc,cd->iajd", seen, ntk, seen).reshape(n * outputs, -1)
    # Directions that are not seen need no move: any positive kernel there leaves them alone.
    unseen = jnp.kron(jnp.eye(n, dtype=ntk.dtype), eye - seen)
    factor = interpolation_factor(kernel + jnp.trace(kernel) / len(kernel) * unseen)
    gap = likelihood.optimum(y) - likelihood.identified(prior)
    alpha = cho_solve((factor, True), gap.ravel()).reshape(n, outputs)
    found, latents = interpolation_gap(ntk, y, prior[None], alpha[None], likelihood)
    residual = jnp.max(jnp.abs(likelihood.gradient(latents, y)), axis=(1, 2))
    converged = found <= LARGEST_GAP
    return DualSolution(alpha[None], latents, found, residual, converged, jnp.asarray(2))

"""Laplace's approximation, and that of a finite network, linearised at the mode."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common import checks
from ntk_uq._common.blocks import in_blocks
from ntk_uq._common.leaves import as_numpy
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import solve_dual
from ntk_uq.bayes.posterior import Floats, Whitened, posterior_of
from ntk_uq.bayes.priors import NetworkPrior, dtype_of
from ntk_uq.bayes.samplers.interface import Sampler
from ntk_uq.likelihoods import Likelihood
from ntk_uq.predictions.first_order import (
    CHECK_ITERATIONS,
    CHECK_TOLERANCE,
    CHECKED,
    Discrepancy,
    compare_draws,
    is_exact,
    no_discrepancy,
)

__all__ = ["Laplace", "NetworkLaplace", "laplace_network"]

# The mode of a network is found when no derivative of U is larger, or it falls no further: where
# relu networks have a kink derivatives jump, and stay large.
_GRADIENT_TOLERANCE, _MODE_ITERATIONS = 1e-5, 10_000
# A search that falls no further may be stuck: where a Newton step promises more than this share of
# U. Modes on kinks have up to 0.01.
_STUCK = 0.05
# Entries of the Jacobian of one block of points in a prediction: 2**22 doubles are 32 MiB.
_CHUNK = 2**22


class Laplace(Sampler):
    """The Gaussian at the mode, with the curvature there: in closed form, without draws.

    Of a Gaussian process it is `analytic.gaussian_predictor`, of a network `laplace_network`.
    """

    name: ClassVar[str] = "laplace"
    title: ClassVar[str] = "Laplace's approximation"


@own_rules()
def laplace_network(
    key: Array, prior: NetworkPrior, targets: ArrayLike, likelihood: Likelihood
) -> "NetworkLaplace":
    r"""Linearised Laplace approximation of a finite network's posterior, in Gaussian-process form.

    At a mode of U(z) the network is replaced by its tangent: a Gaussian process with the empirical
    tangent kernel :math:`\hat\Theta = J J^\top` there, whose covariance given the data is

    .. math:: \hat\Theta_{xx} - \hat\Theta_{xX} (\hat\Theta_{XX} + W^{-1})^{-1} \hat\Theta_{Xx}.

    Parameters
    ----------
    key : Array
        PRNG key, for the draw from the prior at which the search starts. It decides which mode is
        found.
    prior : NetworkPrior
        The network.
    targets : Array of shape [n, C]
        As the likelihood takes them.
    likelihood : Likelihood
        Observation model.

    Returns
    -------
    NetworkLaplace

    References
    ----------
    Khan, Immer, Abedi and Korzepa 2019, "Approximate inference turns deep networks into Gaussian
    processes"; Immer, Korzepa and Bauer 2021, "Improving predictions of Bayesian neural nets via
    local linearization".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical, bayes
    >>> prior = bayes.NetworkPrior(jnp.array([[-1.0], [1.0]]), MLP(width=4, depth=1), 2)
    >>> fit = bayes.laplace_network(jax.random.key(0), prior, jnp.eye(2), Categorical())
    >>> mean, cov = fit.moments(jnp.zeros((3, 1)))
    >>> mean.shape, cov.shape
    ((3, 2), (3, 2, 2))
    """
    checks.key(key)
    posterior = posterior_of("laplace_network", prior, targets, likelihood)
    dtype = dtype_of(prior)

    def objective(z: NDArray) -> tuple[float, NDArray]:
        value, gradient = _potential_and_gradient(jnp.asarray(z, dtype), posterior)
        return float(value), np.asarray(gradient, np.float64)

    start = np.asarray(posterior.start(key), np.float64)
    fit = scipy.optimize.minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": _MODE_ITERATIONS,
            "maxfun": 2 * _MODE_ITERATIONS,
            "gtol": _GRADIENT_TOLERANCE,
            "ftol": 0.0,
        },
    )
    mode = jnp.asarray(fit.x, dtype)
    basis = _laplace_basis(mode, posterior)
    # Half of g^T (I + J^T W J)^-1 g, the decrease that a Newton step predicts.
    decrease = 0.5 * (np.sum(fit.jac**2) - np.sum((np.asarray(basis) @ fit.jac) ** 2))
    stuck = not decrease <= _STUCK * max(1.0, abs(fit.fun))
    return NetworkLaplace(
        as_numpy(prior),
        np.asarray(mode),
        np.asarray(basis),
        float(np.max(np.abs(fit.jac))),
        fit.status != 1 and not stuck,  # 1: the iterations, or evaluations, ran out
        _first_order_error(mode, posterior),
    )


def _first_order_error(mode: Array, posterior: Whitened) -> Discrepancy:
    """The Gaussian against the posterior of the network's tangent, on draws of both."""
    _, targets, likelihood = posterior
    if is_exact(likelihood):
        return no_discrepancy(targets.shape)
    rng = np.random.default_rng(0)  # the same in every run
    parameters, noise = (
        jnp.asarray(rng.standard_normal((CHECKED, *shape)), mode.dtype)
        for shape in (mode.shape, targets.shape)
    )
    prior, kernel, label_noise, start, first_order = _tangent_draws(
        mode, posterior, parameters, noise
    )
    targets = jnp.asarray(targets, mode.dtype)
    problem = (kernel, 1.0, targets, prior, likelihood)
    solution = solve_dual(
        *problem, linear=label_noise, start=start, tol=CHECK_TOLERANCE, max_iter=CHECK_ITERATIONS
    )
    return compare_draws(first_order, solution.latents, likelihood)


@jax.jit
def _potential_and_gradient(z: Array, posterior: Whitened) -> tuple[Array, Array]:
    return jax.value_and_grad(posterior.potential)(z)


@jax.jit
def _laplace_basis(mode: Array, posterior: Whitened) -> Array:
    """V with V^T V = J^T (J J^T + W^-1)^-1 J: [nC, P]."""
    _, _, _, scaled, factor = _tangent(mode, posterior)
    return jax.scipy.linalg.solve_triangular(factor, scaled, lower=True)


def _tangent(mode: Array, posterior: Whitened) -> tuple[Array, Array, Array, Array, Array]:
    """Latents, J, R by its columns with R R^T = W, R^T J, and the factor of I + R^T J J^T R."""
    latents = posterior.prior.latents(mode)
    jacobian = jax.jacrev(posterior.prior.latents)(mode)
    curvature = posterior.likelihood.curvature(latents, posterior.targets)
    unit = jnp.eye(latents.shape[1], dtype=latents.dtype)
    roots = jax.vmap(lambda e: curvature.sqrt_matvec(jnp.broadcast_to(e, latents.shape)))(unit)
    scaled = jnp.einsum("knc,ncp->nkp", roots, jacobian).reshape(-1, len(mode))
    inner = jnp.eye(len(scaled), dtype=scaled.dtype) + scaled @ scaled.T
    return latents, jacobian, roots, scaled, jnp.linalg.cholesky(inner)


@jax.jit
def _tangent_draws(
    mode: Array, posterior: Whitened, parameters: Array, noise: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Problems of the tangent's posterior draws, and these to first order.

    Prior functions [S, n, C], the tangent kernel [n, C, n, C] and label noise [S, n, C]; to first
    order, dual coefficients alpha = g - R (I + R^T J J^T R)^-1 (R^T J z + xi), with g the gradient
    of the log density at the mode, and latents: [S, n, C].
    """
    latents, jacobian, roots, scaled, factor = _tangent(mode, posterior)
    kernel = jnp.einsum("ncp,mdp->ncmd", jacobian, jacobian)
    change = jnp.einsum("ncp,sp->snc", jacobian, parameters)
    pull = (parameters @ scaled.T).reshape(noise.shape) + noise
    solved = jax.scipy.linalg.cho_solve((factor, True), pull.reshape(len(pull), -1).T).T
    moved = jnp.einsum("knc,snk->snc", roots, solved.reshape(noise.shape))
    first_order = latents + change - jnp.einsum("ncmd,smd->snc", kernel, moved)
    alpha = posterior.likelihood.gradient(latents, posterior.targets) - moved
    prior = latents - jnp.einsum("ncp,p->nc", jacobian, mode) + change
    label_noise = jnp.einsum("knc,snk->snc", roots, noise)
    return prior, kernel, label_noise, alpha, first_order


@dataclass(frozen=True)
class NetworkLaplace:
    """A Gaussian about a mode of a finite network's posterior.

    Attributes
    ----------
    prior : NetworkPrior
        The network.
    mode : array of shape [P]
        Its parameters at the mode.
    basis : array of shape [nC, P]
        V, with V^T V what the data take from the prior covariance I of the parameters.
    gradient : float
        Largest derivative of the potential at the mode; zero at an exact one that is smooth.
    converged : bool
        False where the search was ended before the potential had stopped to fall, or where it no
        longer falls and a Newton step says that it should.
    discrepancy : analytic.Discrepancy or None
        How far the Gaussian is from the posterior of the network's tangent at the mode, at the n
        training points: a few of its draws, each against the exact solution for the same prior
        parameters and label noise. How the network departs from its tangent, and other modes, are
        not in it. None where it was not measured.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Gaussian, bayes
    >>> prior = bayes.NetworkPrior(jnp.array([[-1.0], [1.0]]), MLP(depth=0), 1)
    >>> fit = bayes.laplace_network(jax.random.key(0), prior, jnp.zeros((2, 1)), Gaussian(1.0))
    >>> mean, cov = fit.moments(jnp.zeros((3, 1)), joint=True)
    >>> mean.shape, cov.shape
    ((3, 1), (3, 1, 3, 1))
    """

    prior: NetworkPrior
    mode: Floats
    basis: Floats
    gradient: float
    converged: bool
    discrepancy: Discrepancy | None = None

    @own_rules()
    def moments(self, points: ArrayLike, *, joint: bool = False) -> tuple[Floats, Floats]:
        """Mean and covariance of the latents at m points.

        Parameters
        ----------
        points : Array of shape [m, d], or images [m, h, w, c]
            Points.
        joint : bool
            Whether the covariance is joint over the points.

        Returns
        -------
        mean : array of shape [m, C]
        cov : array of shape [m, C, C], or [m, C, m, C] if joint
        """
        points, dtype = np.asarray(points), dtype_of(self.prior)

        def moments(block: NDArray) -> tuple[Array, Array]:
            at = jnp.asarray(block, dtype)
            return _laplace_moments(self.prior, self.mode, self.basis, at, joint)

        if joint:
            mean, cov = moments(points)
            return np.asarray(mean), np.asarray(cov)
        most = max(1, _CHUNK // (self.prior.n_outputs * len(self.mode)))
        return in_blocks(moments, points, most)


@partial(jax.jit, static_argnames="joint")
def _laplace_moments(
    prior: NetworkPrior, mode: Any, basis: Any, points: Array, joint: bool
) -> tuple[Array, Array]:
    def outputs(z: Array) -> Array:
        return prior.evaluate(z, points)

    jacobian = jax.jacrev(outputs)(mode)
    known = jnp.einsum("mcp,kp->mck", jacobian, basis)
    pattern = "mcp,ndp->mcnd" if joint else "mcp,mdp->mcd"
    cov = jnp.einsum(pattern, jacobian, jacobian) - jnp.einsum(pattern, known, known)
    return outputs(mode), cov

"""Coordinates in which a Gaussian-process posterior is nearly a standard normal."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from ntk_uq._common.factors import apply_factor
from ntk_uq._common.solver import solve_dual

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Likelihood

__all__ = ["Preconditioned"]

# The mode is where the curvature is taken; any point near it will do. Nats, and iterations.
_MODE_TOLERANCE, _MODE_ITERATIONS = 1e-4, 500


class Preconditioned(NamedTuple):
    r"""A Gaussian-process posterior in coordinates u in which it is nearly N(0, I).

    With the mode :math:`\hat f = S \alpha` and a diagonal D near the curvature there, let
    :math:`z = L^\top \alpha + A u` with :math:`A A^\top = (I + L^\top D L)^{-1}`, so that
    :math:`f = \hat f + g` with g = L A u. As :math:`|z|^2` contains
    :math:`|A u|^2 = |u|^2 - g^\top D g`, the potential is

    .. math:: U = \tfrac12 |u|^2 - \log p(y \mid \hat f + g) + \alpha^\top g - \tfrac12 g^\top D g

    up to a constant, and costs one product with L A, as U(z) does with L. It is exactly
    :math:`\tfrac12 |u|^2` for a Gaussian likelihood.
    """

    targets: Array
    likelihood: "Likelihood"
    mode: Array  # f hat, [n, C]
    alpha: Array  # [n, C]
    curvature: Array  # D, [n, C]
    prior_factor: Array  # L, [n, n]
    unwhiten: Array  # A, upper triangular: [n, n], or [C, n, n]
    factor: Array  # L A

    @classmethod
    def create(cls, factor: Array, targets: Array, likelihood: "Likelihood") -> "Preconditioned":
        """Find the mode, and factorise the curvature there.

        Parameters
        ----------
        factor : Array of shape [n, n]
            L, the Cholesky factor of the prior covariance.
        targets : Array of shape [n, C]
            Targets.
        likelihood : Likelihood
            Observation model.
        """
        targets = targets.astype(factor.dtype)
        zero = jnp.zeros((1, *targets.shape), factor.dtype)
        solution = solve_dual(
            factor @ factor.T,
            1.0,
            targets,
            zero,
            likelihood,
            tol=_MODE_TOLERANCE,
            max_iter=_MODE_ITERATIONS,
        )
        alpha, mode = solution.alpha[0], solution.latents[0]
        diagonal, direction = likelihood.curvature(mode, targets)
        if direction is not None:
            # W couples the outputs. The mean over outputs of its diagonal serves all of them, by
            # one factor; one for each output fits no better.
            diagonal = diagonal - (diagonal * direction) ** 2
            diagonal = jnp.broadcast_to(jnp.mean(diagonal, axis=1, keepdims=True), targets.shape)
        shared = bool(jnp.all(diagonal == diagonal[:, :1]))
        unwhiten = _inverse_roots(factor, diagonal[:, :1] if shared else diagonal)
        unwhiten = unwhiten[0] if shared else unwhiten
        return cls(targets, likelihood, mode, alpha, diagonal, factor, unwhiten, factor @ unwhiten)

    def start(self, key: Array) -> Array:
        """A draw from the prior, which is wider than the posterior."""
        return self.position(jax.random.normal(key, self.targets.shape, self.factor.dtype))

    def position(self, whitened: Array) -> Array:
        """The u of whitened variables z [n, C]."""
        z = whitened - self.prior_factor.T @ self.alpha
        if self.unwhiten.ndim == 2:
            return solve_triangular(self.unwhiten, z)
        return jax.vmap(solve_triangular, (0, 1), 1)(self.unwhiten, z)

    def potential(self, u: Array) -> Array:
        """Half the squared norm less what the log likelihood is above its quadratic part."""
        g = apply_factor(self.factor, u)
        log_density = jnp.sum(self.likelihood.log_density(self.mode + g, self.targets))
        return 0.5 * jnp.sum(u**2 - g * (self.curvature * g - 2 * self.alpha)) - log_density

    def outcome(self, u: Array) -> tuple[Array, Array]:
        """Whitened variables and latents at a position."""
        whitened = self.prior_factor.T @ self.alpha + apply_factor(self.unwhiten, u)
        return whitened, apply_factor(self.prior_factor, whitened)

    def log_joint(self, potential: Array) -> Array:
        """Log density of z and y, less the constant of the prior."""
        return -potential - 0.5 * jnp.sum(self.alpha * self.mode)


@jax.jit
def _inverse_roots(factor: Array, curvature: Array) -> Array:
    """A with A A^T = (I + L^T diag(d) L)^-1, for each column d of the curvature: [C, n, n]."""

    def root(d: Array) -> Array:
        identity = jnp.eye(len(factor), dtype=factor.dtype)
        precision = identity + factor.T @ (d[:, None] * factor)
        return solve_triangular(jnp.linalg.cholesky(precision), identity, lower=True).T

    return lax.map(root, curvature.T)

"""A likelihood with a weight for each training point."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from ntk_uq.likelihoods.interface import Curvature, Likelihood, likelihood_class

__all__ = ["Weighted"]


@likelihood_class
class Weighted:
    r"""A likelihood with a weight for each training point: :math:`w_i \log p(y_i | f_i)`.

    A weight of 2 counts a point twice. It describes the training points, in their order; their
    outputs have the shape [..., n, C].

    Attributes
    ----------
    likelihood : Likelihood
        What is weighted.
    weights : Array of shape [n]
        Positive. Leave points of weight zero out.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Gaussian, Weighted
    >>> twice = Weighted(Gaussian(noise=1.0), jnp.array([2.0]))
    >>> twice.gradient(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    Array([[2.]], dtype=float32)
    """

    likelihood: Likelihood
    weights: Array

    @property
    def constant_curvature(self) -> bool:
        """Whether the curvature is the same at all latents."""
        return getattr(self.likelihood, "constant_curvature", False)

    def take(self, rows: Array) -> "Weighted":
        """The likelihood of some of the training points."""
        return Weighted(self.likelihood, self.weights[rows])

    def log_density(self, f: Array, y: Array) -> Array:
        """Log density, w_i log p(y_i | f_i): [..., n] nats."""
        return self.weights * self.likelihood.log_density(f, y)

    def gradient(self, f: Array, y: Array) -> Array:
        """Gradient, times w_i: [..., n, C]."""
        return self.weights[:, None] * self.likelihood.gradient(f, y)

    def curvature(self, f: Array, y: Array) -> Curvature:
        """Curvature, times w_i."""
        diagonal, direction = self.likelihood.curvature(f, y)
        weights = self.weights[:, None]
        return Curvature(
            weights * diagonal, None if direction is None else direction / jnp.sqrt(weights)
        )

    def response(self, f: Array) -> Array:
        """Expected target E[y | f]: [..., n, C]."""
        return self.likelihood.response(f)

    def sample(self, key: Array, f: Array) -> Array:
        """One target drawn for each latent: [..., n, C]."""
        return self.likelihood.sample(key, f)

    def degenerate(self, y: Array) -> Array:
        """As without weights."""
        return self.likelihood.degenerate(y)

    def optimum(self, y: Array) -> Array:
        """As without weights."""
        return self.likelihood.optimum(y)

    def identified(self, f: Array) -> Array:
        """As without weights."""
        return self.likelihood.identified(f)

    def check_targets(self, y: np.ndarray) -> None:
        """As without weights."""
        self.likelihood.check_targets(y)

"""Counts with a log-linear rate."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln

from ntk_uq.likelihoods.interface import Curvature, check_between, likelihood_class

__all__ = ["Poisson"]


@likelihood_class
class Poisson:
    r"""Counts with the rate exp(f), independent over outputs.

    :math:`\log p(y|f) = \sum_c y_c f_c - e^{f_c} - \log y_c!`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Poisson
    >>> Poisson().response(jnp.zeros((1, 2)))
    Array([[1., 1.]], dtype=float32)
    """

    @jax.jit
    def log_density(self, f: Array, y: Array) -> Array:
        """Log p(y | f): [..., n] nats."""
        return jnp.sum(y * f - jnp.exp(f) - gammaln(y + 1), axis=-1)

    def gradient(self, f: Array, y: Array) -> Array:
        """Y - exp(f): [..., n, C]."""
        return y - jnp.exp(f)

    @jax.jit
    def curvature(self, f: Array, y: Array) -> Curvature:
        """W = diag(exp(f))."""
        return Curvature(jnp.exp(f), None)

    def response(self, f: Array) -> Array:
        """Expected count: [..., n, C]."""
        return jnp.exp(f)

    def sample(self, key: Array, f: Array) -> Array:
        """Counts drawn with rate exp(f)."""
        return jax.random.poisson(key, jnp.exp(f)).astype(f.dtype)

    def degenerate(self, y: Array) -> Array:
        """A count of zero, whose optimum is f = -infinity."""
        return jnp.any(y <= 0, axis=-1)

    def optimum(self, y: Array) -> Array:
        """Log y."""
        return jnp.log(y)

    def identified(self, f: Array) -> Array:
        """All of f."""
        return f

    def check_targets(self, y: np.ndarray) -> None:
        """Counts."""
        check_between(y, 0, np.inf, "counts")
        if np.any(y != np.round(y)):
            raise ValueError(
                f"Poisson targets are counts, whole numbers; got {y[y != np.round(y)][0]:.6g}. "
                "For rates over unequal exposures, use whole counts and give weights."
            )

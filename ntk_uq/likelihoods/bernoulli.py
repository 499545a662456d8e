"""Logistic probabilities, independent over outputs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntk_uq.likelihoods.interface import Curvature, check_between, likelihood_class

__all__ = ["Bernoulli"]


@likelihood_class
class Bernoulli:
    r"""Logistic cross-entropy, independent over outputs.

    :math:`\log p(y|f) = \sum_c y_c f_c - \log(1 + e^{f_c})`, with targets in [0, 1].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Bernoulli
    >>> Bernoulli().response(jnp.zeros((1, 2)))
    Array([[0.5, 0.5]], dtype=float32)
    """

    @jax.jit
    def log_density(self, f: Array, y: Array) -> Array:
        """Log p(y | f): [..., n] nats."""
        return jnp.sum(y * f - jax.nn.softplus(f), axis=-1)

    def gradient(self, f: Array, y: Array) -> Array:
        """Y - sigmoid(f): [..., n, C]."""
        return y - jax.nn.sigmoid(f)

    @jax.jit
    def curvature(self, f: Array, y: Array) -> Curvature:
        """W = diag(p (1 - p))."""
        return Curvature(jax.nn.sigmoid(f) * jax.nn.sigmoid(-f), None)

    def response(self, f: Array) -> Array:
        """Probability of a one: [..., n, C]."""
        return jax.nn.sigmoid(f)

    def sample(self, key: Array, f: Array) -> Array:
        """Zeros and ones drawn with probability sigmoid(f)."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(f)).astype(f.dtype)

    def degenerate(self, y: Array) -> Array:
        """A probability of zero or one."""
        return jnp.any((y <= 0) | (y >= 1), axis=-1)

    def optimum(self, y: Array) -> Array:
        """Logit of y."""
        return jax.scipy.special.logit(y)

    def identified(self, f: Array) -> Array:
        """All of f."""
        return f

    def check_targets(self, y: np.ndarray) -> None:
        """Probabilities of a one."""
        check_between(y, 0, 1, "probabilities of a one (0 and 1 for labels)")

"""Softmax over classes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntk_uq.likelihoods.interface import Curvature, check_between, likelihood_class

__all__ = ["Categorical"]

# Single-precision probabilities over thousands of classes sum to one within this.
_SIMPLEX_TOLERANCE = 1e-4


@likelihood_class
class Categorical:
    r"""Softmax cross-entropy over C classes.

    :math:`\log p(y|f) = \sum_c y_c \log \mathrm{softmax}(f)_c`, with targets y on the simplex:
    one-hot rows, or soft ones (then it is the negative cross-entropy).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Categorical
    >>> Categorical().response(jnp.zeros((1, 4)))
    Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    @jax.jit
    def log_density(self, f: Array, y: Array) -> Array:
        """Log p(y | f): [..., n] nats."""
        return jnp.sum(y * jax.nn.log_softmax(f, axis=-1), axis=-1)

    def gradient(self, f: Array, y: Array) -> Array:
        """Y - softmax(f), for targets that sum to one: [..., n, C]."""
        return y - jax.nn.softmax(f, axis=-1)

    @jax.jit
    def curvature(self, f: Array, y: Array) -> Curvature:
        """W = diag(p) - p p^T."""
        p = jax.nn.softmax(f, axis=-1)
        return Curvature(p, jnp.ones_like(p))

    def response(self, f: Array) -> Array:
        """Class probabilities: [..., n, C]."""
        return jax.nn.softmax(f, axis=-1)

    def sample(self, key: Array, f: Array) -> Array:
        """One-hot classes drawn from softmax(f)."""
        return jax.nn.one_hot(jax.random.categorical(key, f, axis=-1), f.shape[-1], dtype=f.dtype)

    def degenerate(self, y: Array) -> Array:
        """A class of probability zero."""
        return jnp.any(y <= 0, axis=-1)

    def optimum(self, y: Array) -> Array:
        """Log y, centred over classes."""
        return self.identified(jnp.log(y))

    def identified(self, f: Array) -> Array:
        """P f: softmax does not see a constant added to all classes."""
        return f - jnp.mean(f, axis=-1, keepdims=True)

    def check_targets(self, y: np.ndarray) -> None:
        """Rows are probabilities that sum to one."""
        check_between(y, 0, 1, "class probabilities")
        sums = np.sum(y, axis=-1)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > _SIMPLEX_TOLERANCE:
            raise ValueError(
                f"Targets must sum to one over the classes; row {worst} sums to {sums[worst]:.6g}. "
                "One-hot rows, or soft ones such as y / y.sum(axis=1, keepdims=True), are needed."
            )

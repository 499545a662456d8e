"""Tails of a feature, compressed: a few extreme values should not set the scale of the others."""

from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

__all__ = ["CompressedTails"]

Floats = NDArray[np.float64]

# Between the quartiles of a standard normal distribution.
_QUARTILES_APART = 1.3489795003921634


@dataclass(frozen=True, eq=False)
class CompressedTails:
    """Features in the middle of their values nearly as they are, far out by their logarithm.

    The inverse hyperbolic sine of the distance from the median, in units of the distance between
    the quartiles, standardised. Increasing and unbounded: what is far from the training data stays
    far from them.

    Attributes
    ----------
    centre, spread : arrays of shape [d]
        Median, and standard deviation of the normal distribution with the same quartiles; 1 where
        these coincide, as the features come with a standard deviation of 1.
    mean, scale : arrays of shape [d]
        Of what is compressed.
    """

    centre: Floats
    spread: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, X: Floats, weights: Floats | None = None) -> Self:
        """Learn them from standardised features [n, d], which count as their weights say."""
        # Of the methods the one that counts a weight of two as a repetition.
        low, centre, high = np.quantile(
            X, [0.25, 0.5, 0.75], axis=0, weights=weights, method="inverted_cdf"
        )
        apart = (high - low) / _QUARTILES_APART
        spread = np.where(apart > 0, apart, 1.0)
        compressed = np.arcsinh((X - centre) / spread)
        mean = np.average(compressed, axis=0, weights=weights)
        scale = np.sqrt(np.average((compressed - mean) ** 2, axis=0, weights=weights))
        # A feature that never varies is constant but for rounding.
        varies = scale > 100 * np.finfo(float).eps * (1 + np.abs(mean))
        return cls(centre, spread, mean, np.where(varies, scale, 1.0))

    def transform(self, X: Floats) -> Floats:
        """Standardised features [m, d] with their tails compressed."""
        return (np.arcsinh((X - self.centre) / self.spread) - self.mean) / self.scale

    def traced(self, X: jax.Array) -> jax.Array:
        """The same of an array of JAX, in its precision."""
        centre, spread, mean, scale = (
            value.astype(X.dtype) for value in (self.centre, self.spread, self.mean, self.scale)
        )
        return (jnp.arcsinh((X - centre) / spread) - mean) / scale

"""Gaussian noise, squared error."""

from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntk_uq._common.words import shown
from ntk_uq.likelihoods.interface import Curvature, likelihood_class

__all__ = ["Gaussian"]


@likelihood_class
class Gaussian:
    r"""Gaussian noise, independent over outputs; the loss is squared error / (2 noise^2).

    Attributes
    ----------
    noise : float
        Standard deviation of the observation noise, in the units of the target: positive.

    Raises
    ------
    ValueError
        If the noise is a number that is none: zero, negative or not finite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Gaussian
    >>> Gaussian(noise=0.5).gradient(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    Array([[4.]], dtype=float32)
    """

    noise: float | Array = field(default=1.0)
    constant_curvature: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # What JAX holds is not looked at: it may be traced, or still in the making.
        if isinstance(self.noise, int | float | np.ndarray | np.generic):
            noise = np.asarray(self.noise)
            if noise.dtype.kind in "iuf" and not np.all((noise > 0) & np.isfinite(noise)):
                raise ValueError(
                    "noise must be positive and finite: it is the standard deviation of the "
                    f"observation noise; got {shown(self.noise)}. A small one, a thousandth of the "
                    "targets' standard deviation for example, nearly interpolates."
                )

    @jax.jit
    def log_density(self, f: Array, y: Array) -> Array:
        """Log p(y | f): [..., n] nats."""
        z = (y - f) / self.noise
        return jnp.sum(-0.5 * z**2 - jnp.log(self.noise) - 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def gradient(self, f: Array, y: Array) -> Array:
        """(Y - f) / noise^2: [..., n, C]."""
        return (y - f) / self.noise**2

    @jax.jit
    def curvature(self, f: Array, y: Array) -> Curvature:
        """W = I / noise^2."""
        return Curvature(jnp.full_like(f, 1.0) / self.noise**2, None)

    def response(self, f: Array) -> Array:
        """Mean of the target, the latent itself: [..., n, C]."""
        return f

    def sample(self, key: Array, f: Array) -> Array:
        """Targets with observation noise added."""
        return f + self.noise * jax.random.normal(key, f.shape, f.dtype)

    def degenerate(self, y: Array) -> Array:
        """Never: every finite target has a finite optimum."""
        return jnp.zeros(y.shape[:-1], bool)

    def optimum(self, y: Array) -> Array:
        """The target."""
        return y

    def identified(self, f: Array) -> Array:
        """All of f."""
        return f

    def check_targets(self, y: np.ndarray) -> None:
        """Any finite number is a target."""

"""Activation functions, and what each does to a pair of Gaussian variables at infinite width."""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Infinite width, closed forms. The recursion over layers carries, for two centred Gaussian
# variables (a unit's inputs at two points), their standard deviations s1 [n1, 1] and s2 [1, n2],
# and the complement h = 1 - correlation: not the correlation, because an angle taken from that is
# wrong by the square root of machine epsilon where two points nearly coincide.


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with value and derivative 0 at 0 and below."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _ratio(x: jax.Array | float, y: jax.Array) -> jax.Array:
    """Quotient x / y, 0 where y is 0."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def _fit_arc() -> list[float]:
    """Coefficients, in powers of 2h - 1, of angle / sqrt(2h) for 0 <= h = 1 - cos(angle) <= 1.

    The function is analytic up to h = 2, so that degree 18 reaches rounding (4e-16): an arc cosine
    that vectorises, at a tenth of the time of the library's.
    """
    h = (1 - np.cos(np.pi * (np.arange(200) + 0.5) / 200)) / 2
    root = np.sqrt(h / 2)
    fit = np.polynomial.Chebyshev.fit(h, np.arcsin(root) / root, 18, domain=[0, 1])
    return np.polynomial.chebyshev.cheb2poly(fit.coef).tolist()


_ARC = _fit_arc()


@jax.custom_jvp
def _angle_and_loss(h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Angle t with 1 - cos(t) = h, and sin(t) - t cos(t)."""
    acute = jnp.minimum(h, 2 - h)
    series = jnp.full_like(h, _ARC[-1])
    for coefficient in reversed(_ARC[:-1]):
        series = series * (2 * acute - 1) + coefficient
    arc = _safe_sqrt(2 * acute) * series
    # Computed once: without the barrier XLA fuses the series into everything that uses it.
    angle = lax.optimization_barrier(jnp.where(h > 1, jnp.pi - arc, arc))
    return angle, _safe_sqrt(h * (2 - h)) - angle * (1 - h)


@_angle_and_loss.defjvp
def _angle_and_loss_jvp(primals: Any, tangents: Any) -> Any:
    (h,), (dh,) = primals, tangents
    angle, loss = _angle_and_loss(h)
    return (angle, loss), (_ratio(dh, _safe_sqrt(h * (2 - h))), angle * dh)


class _Dual(NamedTuple):
    """What an activation a does to a pair (u1, u2) of centred Gaussian variables.

    spread : s -> root mean square of a(u) for u of standard deviation s.
    pair : (s1, s2, h) -> the complement for a(u1), a(u2); and E[a'(u1) a'(u2)].
    """

    spread: Callable[[jax.Array], jax.Array]
    pair: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _relu_pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arc-cosine kernels of order 1 and 0 (Cho & Saul 2009)."""
    angle, loss = _angle_and_loss(h)
    return h - loss / jnp.pi, (1 - angle / jnp.pi) / 2


def _smooth(
    product: Callable[..., jax.Array], derivative_product: Callable[..., jax.Array]
) -> _Dual:
    """Dual of an activation whose moments are smooth in (v1, v2, c, d).

    These are the variances, the covariance, and the determinant v1 v2 - c^2.
    """

    def spread(s: jax.Array) -> jax.Array:
        v = s * s
        return _safe_sqrt(product(v, v, v, jnp.zeros_like(v)))

    def pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        moments = s1 * s1, s2 * s2, s1 * s2 * (1 - h), (s1 * s2) ** 2 * h * (2 - h)
        correlation = product(*moments) * _ratio(1, spread(s1)) * _ratio(1, spread(s2))
        return 1 - correlation, derivative_product(*moments)

    return _Dual(spread, pair)


def _arcsine(x: jax.Array) -> jax.Array:
    angle, _ = _angle_and_loss(1 - x)
    return jnp.pi / 2 - angle


def _erf_product(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Arcsine kernel (Williams 1997)."""
    return 2 / jnp.pi * _arcsine(2 * c / jnp.sqrt((1 + 2 * v1) * (1 + 2 * v2)))


def _erf_derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * (v1 + v2) + 4 * d)


def _gelu_product(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Tsuchida et al. 2020, for u Phi(u) with the normal distribution function Phi."""
    both, det = (1 + v1) * (1 + v2), 1 + v1 + v2 + d
    smooth_part = (c * c + v1 * v2 * det) / (both * jnp.sqrt(det))
    return c / 4 + (c * _arcsine(c / jnp.sqrt(both)) + smooth_part) / (2 * jnp.pi)


def _gelu_derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    both, det = (1 + v1) * (1 + v2), 1 + v1 + v2 + d
    smooth_part = c / jnp.sqrt(det) * (1 + 1 / det + (1 - v1 * v2) / both)
    return 1 / 4 + (_arcsine(c / jnp.sqrt(both)) + smooth_part) / (2 * jnp.pi)


class _Activation(NamedTuple):
    function: Callable[[jax.Array], jax.Array]
    dual: _Dual


_ACTIVATIONS = {
    "relu": _Activation(jax.nn.relu, _Dual(lambda s: s / math.sqrt(2), _relu_pair)),
    "erf": _Activation(lax.erf, _smooth(_erf_product, _erf_derivative)),
    "gelu": _Activation(
        functools.partial(jax.nn.gelu, approximate=False), _smooth(_gelu_product, _gelu_derivative)
    ),
}


def _check_layers(activation: str, w_std: float, b_std: float) -> None:
    if activation not in list(_ACTIVATIONS):
        raise ValueError(
            f"Unknown activation {activation!r}: choose one of {', '.join(_ACTIVATIONS)}, whose "
            "kernels are known. Any other can be trained in a Flax module of your own: "
            "Architecture(module)."
        )
    if not (isinstance(w_std, numbers.Real) and 0 < w_std < math.inf):
        raise ValueError(f"w_std must be a positive number; got {w_std!r}.")
    if not (isinstance(b_std, numbers.Real) and 0 <= b_std < math.inf):
        raise ValueError(f"b_std must be a number, at least 0; got {b_std!r}.")

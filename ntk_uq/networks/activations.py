"""Activation functions, and what each does to a pair of Gaussian variables at infinite width."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special

from ntk_uq.networks import hermite

__all__ = [
    "ACTIVATIONS",
    "NAMED",
    "Activation",
    "activation_of",
    "dual_of",
    "function_of",
    "ratio",
    "safe_sqrt",
]

# Infinite width, closed forms. The recursion over layers carries, for two centred Gaussian
# variables (a unit's inputs at two points), their standard deviations s1 [n1, 1] and s2 [1, n2],
# and the complement h = 1 - correlation: not the correlation, because an angle taken from that is
# wrong by the square root of machine epsilon where two points nearly coincide.


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with value and derivative 0 at 0 and below."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def ratio(x: jax.Array | float, y: jax.Array) -> jax.Array:
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
    arc = safe_sqrt(2 * acute) * series
    # Computed once: without the barrier XLA fuses the series into everything that uses it.
    angle = lax.optimization_barrier(jnp.where(h > 1, jnp.pi - arc, arc))
    return angle, safe_sqrt(h * (2 - h)) - angle * (1 - h)


@_angle_and_loss.defjvp
def _angle_and_loss_jvp(primals: Any, tangents: Any) -> Any:
    (h,), (dh,) = primals, tangents
    angle, loss = _angle_and_loss(h)
    return (angle, loss), (ratio(dh, safe_sqrt(h * (2 - h))), angle * dh)


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
        return safe_sqrt(product(v, v, v, jnp.zeros_like(v)))

    def pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        moments = s1 * s1, s2 * s2, s1 * s2 * (1 - h), (s1 * s2) ** 2 * h * (2 - h)
        correlation = product(*moments) * ratio(1, spread(s1)) * ratio(1, spread(s2))
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


def _broken_line(right: float, left: float) -> _Dual:
    """Dual of right * u for u > 0 and left * u below: relu, leaky relu, the absolute value.

    It is a line and a multiple of the absolute value, whose moments with each other vanish.
    """
    line, kink = ((right + left) / 2) ** 2, ((right - left) / 2) ** 2

    def pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        angle, loss = _angle_and_loss(h)
        share = kink / (line + kink)
        return h - share * (2 / math.pi) * loss, line + kink * (1 - 2 * angle / math.pi)

    return _Dual(lambda s: math.sqrt(line + kink) * s, pair)


def _wave(size: float, frequency: float, phase: float) -> _Dual:
    """Dual of size * sin(frequency u + phase)."""

    def parts(v1: jax.Array, v2: jax.Array, c: jax.Array, sign: float) -> jax.Array:
        f2 = frequency**2
        falling = jnp.exp(-f2 * (v1 + v2 - 2 * c) / 2)
        rising = jnp.exp(-f2 * (v1 + v2 + 2 * c) / 2)
        return size**2 * (falling - sign * math.cos(2 * phase) * rising) / 2

    def product(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
        return parts(v1, v2, c, 1.0)

    def derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
        return frequency**2 * parts(v1, v2, c, -1.0)

    return _smooth(product, derivative)


def _exponential(size: float, rate: float) -> _Dual:
    """Dual of size * exp(rate u)."""

    def product(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
        return size**2 * jnp.exp(rate**2 * (v1 + v2 + 2 * c) / 2)

    return _smooth(product, lambda *moments: rate**2 * product(*moments))


def _scaled(dual: _Dual, outer: float, inner: float) -> _Dual:
    """Dual of outer * a(inner u), from that of a."""

    def pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        complement, derivative = dual.pair(abs(inner) * s1, abs(inner) * s2, h)
        return complement, (outer * inner) ** 2 * derivative

    return _Dual(lambda s: abs(outer) * dual.spread(abs(inner) * s), pair)


def _by_series(function: Callable[[jax.Array], jax.Array]) -> _Dual:
    """Dual of any function, by its expansion in Hermite polynomials."""

    def spread(s: jax.Array) -> jax.Array:
        return safe_sqrt(hermite.mean_square(function, s))

    def pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, b = hermite.expansion(function, s1), hermite.expansion(function, s2)
        value, derivative = hermite.pair_moments(a, b, 1 - h, True)
        return 1 - value * ratio(1, safe_sqrt(a.square)) * ratio(1, safe_sqrt(b.square)), derivative

    return _Dual(spread, pair)


def _one_by_one(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The function of each number alone."""
    return jax.vmap(lambda u: jnp.broadcast_to(function(u[None]), (1,))[0])


@functools.lru_cache(maxsize=256)
def dual_of(function: Callable[[jax.Array], jax.Array]) -> _Dual:
    """What a function does to a pair of centred Gaussian variables.

    In closed form where its values are those of a function that has one, whatever operations it is
    composed of; else by its expansion in Hermite polynomials.
    """
    away = np.geomspace(1e-3, 8.0, 60)
    u = np.concatenate([-away[::-1], [0.0], away])
    slope = hermite.derivative(function)
    bend = hermite.derivative(slope)
    f, alone, *slopes = hermite.values_at(
        u, function, _one_by_one(function), slope, bend, hermite.derivative(bend)
    )
    if not np.allclose(f, alone, rtol=1e-5, atol=1e-6, equal_nan=True):
        raise ValueError(
            "An activation is a function of one unit at a time, and this is not: its values at "
            "several numbers together are not those at each (softmax and normalisations are such)."
        )
    size = np.abs(f).max()
    if not (np.isfinite(f).all() and size > 0):
        return _by_series(function)

    def equal(other: np.ndarray) -> bool:
        # Numbers in modules may be of float32.
        return bool(np.abs(f - other).max() <= 1e-6 * size)

    right, left = (float(f[i] / u[i]) for i in (-1, 0))
    if equal(np.where(u > 0, right, left) * u):
        return _broken_line(right, left)
    at_zero, first, second, third = (float(values[len(away)]) for values in (f, *slopes))
    if first * third < 0:
        inner = math.sqrt(-third / (2 * first))
        top = first * math.sqrt(math.pi) / (2 * inner)
        if equal(top * special.erf(inner * u)):
            return _scaled(ACTIVATIONS["erf"].dual, top, inner)
    if first * second > 0:
        inner = second * math.sqrt(math.pi / 2) / (2 * first)
        if equal(2 * first * u * special.ndtr(inner * u)):
            return _scaled(ACTIVATIONS["gelu"].dual, 2 * first / inner, inner)
    if at_zero and equal(at_zero * np.exp(first / at_zero * u)):
        return _exponential(at_zero, first / at_zero)
    for square in ((-second / at_zero,) if at_zero else ()) + ((-third / first,) if first else ()):
        if square > 0:
            frequency = math.sqrt(square)
            size_, phase = (
                math.hypot(at_zero, first / frequency),
                math.atan2(at_zero, first / frequency),
            )
            if equal(size_ * np.sin(frequency * u + phase)):
                return _wave(size_, frequency, phase)
    return _by_series(function)


class Activation(NamedTuple):
    """An activation: the function, its dual, and the name of its layer in `ntk_uq.stax`."""

    function: Callable[[jax.Array], jax.Array]
    dual: _Dual
    stax_layer: str | None = None


ACTIVATIONS = {
    "relu": Activation(jax.nn.relu, _Dual(lambda s: s / math.sqrt(2), _relu_pair), "Relu"),
    "erf": Activation(lax.erf, _smooth(_erf_product, _erf_derivative), "Erf"),
    "gelu": Activation(
        functools.partial(jax.nn.gelu, approximate=False),
        _smooth(_gelu_product, _gelu_derivative),
        "Gelu",
    ),
}

# Others by name; their duals are found when they are first used.
NAMED = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "sin": jnp.sin,
    "cos": jnp.cos,
}


def function_of(
    activation: str | Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array], jax.Array]:
    """The function of a name, or the function itself."""
    if not isinstance(activation, str):
        return activation
    return ACTIVATIONS[activation].function if activation in ACTIVATIONS else NAMED[activation]


def activation_of(activation: str | Callable[[jax.Array], jax.Array]) -> Activation:
    """The activation of a name, or of a function."""
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    function = function_of(activation)
    return Activation(function, dual_of(function))

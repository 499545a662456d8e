r"""Any activation at infinite width, by expansion in Hermite polynomials.

For standard normal x and y of correlation c, and normalised Hermite polynomials H_k,

.. math::
    E[\phi(s_1 x)\,\psi(s_2 y)] = \sum_k a_k(s_1)\,b_k(s_2)\,c^k, \qquad
    a_k(s) = E[\phi(s x)\,H_k(x)]

(Mehler). The coefficients belong to a point each and are computed by Gauss-Hermite quadrature; a
pair of points costs a polynomial in its correlation. What the terms leave of the mean square,
:math:`r(s)^2 = E[\phi(s x)^2] - \sum_k a_k(s)^2`, is the coefficient of one more power: so the
kernel is exact where two points coincide, and positive semidefinite as it stands. Elsewhere the
error is at most r(s_1) r(s_2): nothing for smooth functions, small for those with a kink.

See docs/theory: "Any activation".
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "MOST_TERMS",
    "Coefficients",
    "coefficients",
    "derivative",
    "expected",
    "is_odd",
    "series",
    "values_at",
]

Function = Callable[[jax.Array], jax.Array]

# Terms for a function with a kink, of which no number is enough; smooth ones stop where rounding
# is reached at standard deviations up to _WIDEST.
MOST_TERMS = 128
_TERMS = (16, 32, 48, 64, 96)
_WIDEST = 1.5
_ROUNDING = 1e-10
# Functions of unit standard deviation that leave more than this have a kink.
_KINK = 1e-8


class Coefficients(NamedTuple):
    """Expansion of a function at each of some standard deviations, of shape [...].

    values : array [..., K], of the powers in `powers_of`.
    rest : array [...], what they leave of the root mean square.
    square : array [...], the mean square.
    """

    values: jax.Array
    rest: jax.Array
    square: jax.Array


class _Rule(NamedTuple):
    """Powers k with a coefficient, and the quadrature for them: nodes [Q], weights [Q] and [Q, K].

    `smooth` says whether the powers reach rounding.
    """

    powers: tuple[int, ...]
    nodes: np.ndarray
    weights: np.ndarray
    basis: np.ndarray
    smooth: bool


@functools.lru_cache
def _quadrature(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite rule for the standard normal distribution."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    kept = w > 0  # the outermost weights underflow
    return z[kept], w[kept] / w.sum()


@functools.lru_cache
def _dense_quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre on short intervals, 0 a border of two: for functions with a kink."""
    x, w = np.polynomial.legendre.leggauss(16)
    borders = np.linspace(-30, 30, 121)
    half = np.diff(borders)[:, None] / 2
    z = (borders[:-1, None] + half * (1 + x)).ravel()
    weights = (half * w).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    kept = weights > 1e-300
    return z[kept], weights[kept]


def _polynomials(z: np.ndarray, count: int) -> np.ndarray:
    """Normalised Hermite polynomials of degree 0 to count - 1: [Q, count]."""
    out = np.empty((len(z), count))
    out[:, 0] = 1
    if count > 1:
        out[:, 1] = z
    for k in range(1, count - 1):
        out[:, k + 1] = (z * out[:, k] - np.sqrt(k) * out[:, k - 1]) / np.sqrt(k + 1)
    return out


def is_odd(function: Function) -> bool:
    """Whether the mean over any centred Gaussian variable is 0."""
    return all(k % 2 for k in _rule(function).powers)


def values_at(u: np.ndarray, *functions: Function) -> list[np.ndarray]:
    """Values of functions in float64, as numbers also where JAX is tracing."""
    with jax.enable_x64(True):
        like = jax.ShapeDtypeStruct(u.shape, jnp.float64)
        together = jax.jit(lambda u: [jnp.broadcast_to(f(u), u.shape) for f in functions])
        program = together.lower(like).compile()
        with jax.ensure_compile_time_eval():
            return [np.asarray(values, np.float64) for values in program(u)]


@functools.lru_cache(maxsize=256)
def _rule(function: Function) -> _Rule:
    """The shortest rule that is exact to rounding for a function, or the longest there is."""
    z, w = _dense_quadrature()
    basis = _polynomials(z, MOST_TERMS) * w[:, None]
    scales = np.array([1.0, 0.3, _WIDEST])
    with np.errstate(all="ignore"):
        (values,) = values_at(scales[:, None] * z, function)
    usable = np.isfinite(values)
    values = np.where(usable, values, 0.0)
    a = values @ basis
    square = (values**2) @ w
    slopes = np.arange(MOST_TERMS) * a**2
    terms = MOST_TERMS
    smooth = bool(slopes[0, 96:].sum() <= _KINK * square[0])
    for count in reversed(_TERMS) if smooth else ():
        rest = square - np.sum(a[:, :count] ** 2, axis=1)
        left = np.maximum(rest, slopes[:, count:].sum(axis=1))
        if np.all(left <= _ROUNDING * square):
            terms = count
    size = np.sqrt(np.max(square))
    negligible = np.all(np.abs(a[:, :terms]) <= 1e-15 * size, axis=0)
    # Even and odd functions have every other coefficient; single zeros are chance.
    powers = [k for k in range(terms) if not negligible[k % 2 :: 2].all()] or [0]
    nodes, weights = _quadrature(2 * terms + 32) if smooth else (z, w)
    matrix = _polynomials(nodes, terms)[:, powers] * weights[:, None]
    return _Rule(tuple(powers), nodes, weights, matrix, smooth)


def _shared_powers(first: Function, second: Function) -> tuple[int, ...]:
    return tuple(k for k in _rule(first).powers if k in _rule(second).powers)


@functools.lru_cache(maxsize=256)
def derivative(function: Function) -> Function:
    """The derivative of an elementwise function, as another."""

    def slope(u: jax.Array) -> jax.Array:
        return jax.jvp(function, (u,), (jnp.ones_like(u),))[1]

    return slope


def coefficients(function: Function, s: jax.Array, mean: jax.Array | float = 0.0) -> Coefficients:
    """Expansion of ``function(mean + s x)`` for standard normal x, at each s."""
    rule = _rule(function)
    nodes, weights, basis = (jnp.asarray(part, s.dtype) for part in rule[1:4])
    values = function(jnp.asarray(mean)[..., None] + s[..., None] * nodes)
    a = jnp.matmul(values, basis, precision=jax.lax.Precision.HIGHEST)
    square = jnp.matmul(values**2, weights, precision=jax.lax.Precision.HIGHEST)
    left = square - jnp.sum(a**2, axis=-1)
    positive = left > 4 * jnp.finfo(s.dtype).eps * square
    rest = jnp.where(positive, jnp.sqrt(jnp.where(positive, left, 1)), 0)
    return Coefficients(a, rest, square)


def expected(function: Function, s: jax.Array, mean: jax.Array | float = 0.0) -> jax.Array:
    """Mean of ``function(mean + s x)`` for standard normal x, at each s."""
    rule = _rule(function)
    nodes, weights = (jnp.asarray(part, s.dtype) for part in rule[1:3])
    values = function(jnp.asarray(mean)[..., None] + s[..., None] * nodes)
    return jnp.matmul(values, weights, precision=jax.lax.Precision.HIGHEST)


def series(
    first: Function,
    second: Function,
    a: Coefficients,
    b: Coefficients,
    c: jax.Array,
) -> jax.Array:
    """E[first second] of Gaussian variables of correlation c, from both expansions.

    The shapes of the coefficients, without their last axis, and of c are broadcast together.
    """
    ours, theirs = _rule(first).powers, _rule(second).powers
    terms = [
        (k, a.values[..., ours.index(k)] * b.values[..., theirs.index(k)])
        for k in _shared_powers(first, second)
    ]
    if first is second:
        # The next power that a function of this parity has.
        terms.append((ours[-1] + (1 if len(ours) > 1 and ours[-1] - ours[-2] == 1 else 2),
                      a.rest * b.rest))  # fmt: skip
    total, above, squared = jnp.zeros_like(c), None, c * c
    for k, product in reversed(terms):
        step = 0 if above is None else above - k
        power: Any = {0: 1.0, 1: c, 2: squared}.get(step)
        total = total * (c**step if power is None else power) + product
        above = k
    return total * c**above if above else total

r"""Any activation at infinite width, by expansion in Hermite polynomials.

For standard normal x and y of correlation c, and normalised Hermite polynomials H_k,

.. math::
    E[\phi(s_1 x)\,\psi(s_2 y)] = \sum_k a_k(s_1)\,b_k(s_2)\,c^k, \qquad
    a_k(s) = E[\phi(s x)\,H_k(x)]

(Mehler). The coefficients belong to a point each and are computed by quadrature; a pair of points
costs a polynomial in its correlation. The derivative's are :math:`\sqrt{k+1}\,a_{k+1}(s) / s`. What
the terms leave of the mean square, :math:`r(s)^2 = E[\phi(s x)^2] - \sum_k a_k(s)^2`, is the
coefficient of one more power: so the kernel is exact where two points coincide, and positive
semidefinite as it stands. Elsewhere the error is at most r(s_1) r(s_2): nothing for smooth
functions, small for those with a kink.

See docs/theory: "Any activation".
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "MOST_TERMS",
    "Expansion",
    "NoMomentError",
    "derivative",
    "expansion",
    "expected",
    "is_odd",
    "mean_square",
    "pair_moments",
    "values_at",
]

Function = Callable[[jax.Array], jax.Array]

# Terms for a function with a kink, of which no number is enough; smooth ones stop where what is
# left of the mean square, and of the derivative's, is _ROUNDING at standard deviations up to
# _WIDEST.
MOST_TERMS = 128
_WIDEST = 1.5
_ROUNDING = 1e-10
# Functions of unit standard deviation that leave more than this after 96 terms have a kink.
_KINK = 1e-8
# Standard deviations at which functions are looked at, the last for the quadrature's sake alone.
_SCALES = np.array([1.0, 0.3, _WIDEST, 2.0])
# Ranges and numbers of nodes of the trapezoidal rule, which converges geometrically for functions
# that are smooth; sorted by their number.
_GRIDS = [(reach, nodes) for nodes in (40, 56, 80, 112, 160, 224, 320) for reach in (8.0, 9.5, 11)]

# Chains of a polynomial: a processor has as many products under way at once, and more.
_CHAINS = 4


class NoMomentError(ValueError):
    """A function of a Gaussian variable that has no finite mean square, or is not a number."""


@dataclass(frozen=True, eq=False)
class Expansion:
    """Expansions of a function and of its derivative at each of some Gaussian variables [...].

    powers : those with a coefficient.
    values : array [K, ...], of the powers.
    rest : array [...], what they leave of the root mean square.
    square : array [...], the mean square.
    slopes, slope_rest, slope_square : of the derivative, whose powers are less by one.
    """

    powers: tuple[int, ...]
    values: jax.Array
    rest: jax.Array
    square: jax.Array
    slopes: jax.Array
    slope_rest: jax.Array
    slope_square: jax.Array

    def placed(self, place: Callable[[jax.Array], jax.Array]) -> "Expansion":
        """The same with other axes for the variables."""
        return replace(
            self,
            values=jax.vmap(place)(self.values),
            rest=place(self.rest),
            square=place(self.square),
            slopes=jax.vmap(place)(self.slopes),
            slope_rest=place(self.slope_rest),
            slope_square=place(self.slope_square),
        )


class _Rule(NamedTuple):
    """Powers k with a coefficient, and the quadrature for them: nodes [Q], weights [Q] and [Q, K].

    Without powers that only a mean other than 0 brings, `centred` rules use half of the nodes.
    """

    powers: tuple[int, ...]
    nodes: np.ndarray
    weights: np.ndarray
    basis: np.ndarray
    slope_basis: np.ndarray | None = None  # where jumps make slopes no coefficients of the function


def _gaussian(z: np.ndarray, lengths: np.ndarray | float) -> np.ndarray:
    return lengths * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@functools.lru_cache
def _dense_quadrature(intervals: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre on short intervals, 0 a border of two: for functions with a kink."""
    x, w = np.polynomial.legendre.leggauss(16)
    borders = np.linspace(-30, 30, intervals + 1)
    half = np.diff(borders)[:, None] / 2
    z = (borders[:-1, None] + half * (1 + x)).ravel()
    return z, _gaussian(z, (half * w).ravel())


def _trapezoidal(reach: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The trapezoidal rule, without a node at 0."""
    step = 2 * reach / nodes
    z = (np.arange(nodes) + 0.5) * step - reach
    return z, _gaussian(z, step)


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
    return all(k % 2 for k in _rule(function, True).powers)


def values_at(u: np.ndarray, *functions: Function) -> list[np.ndarray]:
    """Values of functions in float64, as numbers also where JAX is tracing."""
    with jax.enable_x64(True):
        like = jax.ShapeDtypeStruct(u.shape, jnp.float64)
        together = jax.jit(lambda u: [jnp.broadcast_to(f(u), u.shape) for f in functions])
        try:
            program = together.lower(like).compile()
        except jax.errors.TracerArrayConversionError:
            raise ValueError(
                "An activation must be written in jax.numpy, so that it can be compiled and "
                "differentiated: jnp.sin in place of np.sin."
            ) from None
        with jax.ensure_compile_time_eval():
            return [np.asarray(values, np.float64) for values in program(u)]


def _finite_values(function: Function, z: np.ndarray) -> np.ndarray:
    """Values at each of the scales times z, 0 where they overflow far out."""
    u = _SCALES[:, None] * z
    with np.errstate(all="ignore"):
        (values,) = values_at(u, function)
    wrong = ~np.isfinite(values) & (np.abs(u) < 8)
    if wrong.any():
        raise NoMomentError(
            "An elementwise function has no moments over a layer's values, which are Gaussian in "
            f"the limit: at {u[wrong][0]:.3g} it, or its derivative, is {values[wrong][0]}."
        )
    return np.where(np.isfinite(values), values, 0.0)


def _on_grids(function: Function) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Nodes and weights of each grid, and the function's values at each of the scales."""
    nodes, weights = zip(*(_trapezoidal(*grid) for grid in _GRIDS), strict=True)
    # By one program for all, which takes longer to compile than to run.
    values = _finite_values(function, np.concatenate(nodes))
    found = np.split(values, np.cumsum([len(z) for z in nodes])[:-1], axis=1)
    return list(zip(nodes, weights, found, strict=True))


@functools.lru_cache(maxsize=256)
@np.errstate(over="ignore", invalid="ignore")  # of functions without moments at larger scales
def _rule(function: Function, centred: bool) -> _Rule:
    """The shortest rule that is exact to rounding for a function, or the longest there is."""
    z, w = _dense_quadrature()
    values = _finite_values(function, z)
    square = (values**2) @ w
    _check_mean_square(function, square)
    a = values @ (_polynomials(z, MOST_TERMS) * w[:, None])
    slopes = np.arange(MOST_TERMS) * a**2
    looked_at = _SCALES <= _WIDEST
    count = MOST_TERMS
    smooth = bool(slopes[0, 96:].sum() <= _KINK * square[0])
    if smooth:
        rest = square[:, None] - np.cumsum(a**2, axis=1)
        left = np.cumsum(slopes[:, ::-1], axis=1)[:, ::-1]
        left = np.maximum(rest, np.pad(left[:, 1:], [(0, 0), (0, 1)]))
        enough = np.all((left <= _ROUNDING * square[:, None])[looked_at], axis=0)
        count = int(np.argmax(enough)) + 1 if enough.any() else MOST_TERMS
    powers = list(range(count))
    if centred:
        # Even and odd functions have every other coefficient, and most of these one line more.
        small = (np.abs(a) <= 1e-14 * np.sqrt(square)[:, None]).all(axis=0)
        powers = [k for k in powers if not small[k]] or [0]
    parities = {k % 2 for k in powers}
    basis = _polynomials(z, count)[:, powers] * w[:, None]
    rule = _Rule(tuple(powers), z, w, basis)
    for x, weights, found in _on_grids(function) if smooth else ():
        other = found @ (_polynomials(x, count)[:, powers] * weights[:, None])
        exact = a[:, powers]
        error = (np.array(powers) + 1) * np.abs(other - exact) * (np.abs(exact) + np.abs(other))
        error = np.maximum(error.sum(axis=1), np.abs(found**2 @ weights - square)) / square
        if (error <= np.where(looked_at, _ROUNDING / 100, _ROUNDING)).all():
            basis = _polynomials(x, count)[:, powers] * weights[:, None]
            rule = _Rule(tuple(powers), x, weights, basis)
            break
    else:
        # Beyond, Gaussian weights times any polynomial in use are nothing.
        kept = np.abs(z) < 11
        lower = [k - 1 for k in powers if k]
        of_slopes = (_polynomials(z, count)[:, lower] * w[:, None])[kept]
        rule = _Rule(tuple(powers), z[kept], w[kept], basis[kept], of_slopes)
    if centred and len(parities) == 1:
        half = rule.nodes > 0
        rule = rule._replace(
            nodes=rule.nodes[half],
            weights=2 * rule.weights[half],
            basis=2 * rule.basis[half],
            slope_basis=None if rule.slope_basis is None else 2 * rule.slope_basis[half],
        )
    return rule


def _check_mean_square(function: Function, square: np.ndarray) -> None:
    """Refuse what has none: the finer the quadrature, the larger it comes out."""
    finer, w = _dense_quadrature(480)
    z, weights = _dense_quadrature()
    slope = derivative(function)
    of_slope = _finite_values(slope, z) ** 2 @ weights
    for f, coarse in ((function, square), (slope, of_slope)):
        fine = _finite_values(f, finer)[0] ** 2 @ w
        # At unit scale; what is no number is not close to another either.
        if not np.abs(fine - coarse[0]) <= 0.05 * fine:
            raise NoMomentError(
                "An elementwise function has no moments over a layer's values, which are Gaussian "
                "in the limit: its mean square, or its derivative's, is infinite."
            )


@functools.lru_cache(maxsize=256)
def derivative(function: Function) -> Function:
    """The derivative of an elementwise function, as another."""

    def slope(u: jax.Array) -> jax.Array:
        return jax.jvp(function, (u,), (jnp.ones_like(u),))[1]

    return slope


def _root(x: jax.Array, of: jax.Array) -> jax.Array:
    """Square root of what is left of a number, 0 where that is rounding."""
    positive = x > 4 * jnp.finfo(x.dtype).eps * of
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _arguments(
    function: Function, s: jax.Array, mean: jax.Array | None
) -> tuple[_Rule, jax.Array, jax.Array, jax.Array]:
    rule = _rule(function, mean is None)
    nodes, weights, basis = (jnp.asarray(part, s.dtype) for part in rule[1:4])
    u = s[..., None] * nodes
    return rule, u if mean is None else mean[..., None] + u, weights, basis


def _sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.matmul(values, weights, precision=lax.Precision.HIGHEST)


def expansion(function: Function, s: jax.Array, mean: jax.Array | None = None) -> Expansion:
    """Expansion of ``function(mean + s x)`` for standard normal x, at each s."""
    rule, u, weights, basis = _arguments(function, s, mean)
    f, df = jax.jvp(function, (u,), (jnp.ones_like(u),))
    values = jnp.tensordot(basis.T, f, (1, -1), precision=lax.Precision.HIGHEST)
    square, slope_square = _sum(f**2, weights), _sum(df**2, weights)
    if rule.slope_basis is None:
        slopes = _slopes(rule, values, s, _sum(df, weights))
    else:
        of_slopes = jnp.asarray(rule.slope_basis.T, s.dtype)
        slopes = jnp.tensordot(of_slopes, df, (1, -1), precision=lax.Precision.HIGHEST)
    rest = _root(square - jnp.sum(values**2, axis=0), square)
    slope_rest = _root(slope_square - jnp.sum(slopes**2, axis=0), slope_square)
    # Loops over pairs read a row of coefficients each: without the barriers XLA computes whatever
    # these need afresh for each pair, and in each of several loops.
    return Expansion(
        rule.powers,
        *lax.optimization_barrier((values, rest, square, slopes, slope_rest, slope_square)),
    )


def _slopes(rule: _Rule, values: jax.Array, s: jax.Array, mean_slope: jax.Array) -> jax.Array:
    """Coefficients of the derivative, from those of the function."""
    # Near 0 the function is a line, whose slope is its derivative's mean.
    tiny = s < float(jnp.finfo(s.dtype).eps) ** (1 / 3)
    inverse = jnp.where(tiny, 0, 1 / jnp.where(tiny, 1, s))
    first = next((i for i, k in enumerate(rule.powers) if k > 0), len(rule.powers))
    roots = np.sqrt(rule.powers[first:]).astype(s.dtype)
    slopes = jnp.reshape(roots, (-1,) + (1,) * s.ndim) * values[first:] * inverse
    if 1 in rule.powers:
        slopes = slopes.at[0].set(jnp.where(tiny, mean_slope, slopes[0]))
    return slopes


def mean_square(function: Function, s: jax.Array, mean: jax.Array | None = None) -> jax.Array:
    """Mean of the square of ``function(mean + s x)`` for standard normal x, at each s."""
    _, u, weights, _ = _arguments(function, s, mean)
    return lax.optimization_barrier(_sum(function(u) ** 2, weights))


def expected(function: Function, s: jax.Array, mean: jax.Array | None = None) -> jax.Array:
    """Mean of ``function(mean + s x)`` for standard normal x, at each s."""
    rule, u, _, basis = _arguments(function, s, mean)
    if rule.powers[0]:
        return jnp.zeros_like(s)
    return _sum(function(u), basis[:, 0])


def pair_moments(
    a: Expansion, b: Expansion, c: jax.Array, same: bool
) -> tuple[jax.Array, jax.Array]:
    """E[f g] and E[f' g'] of Gaussian variables of correlation c, from their expansions.

    Parameters
    ----------
    a, b : Expansion
        Their shapes and that of c are broadcast together.
    c : array
        Correlations.
    same : bool
        Whether f and g are the same function, so that what both expansions leave has a sign.
    """
    c = lax.optimization_barrier(c)
    shared = [k for k in a.powers if k in b.powers]
    ours, theirs = a.powers.index, b.powers.index
    terms = [(k, a.values[ours(k)] * b.values[theirs(k)]) for k in shared]
    first, other = (sum(k == 0 for k in e.powers) for e in (a, b))
    slopes = [(k - 1, a.slopes[ours(k) - first] * b.slopes[theirs(k) - other]) for k in shared if k]
    if same:
        # The next power that a function of this parity has.
        top = a.powers[-1]
        above = top + (1 if len(a.powers) > 1 and a.powers[-2] == top - 1 else 2)
        terms.append((above, a.rest * b.rest))
        slopes.append((above - 1, a.slope_rest * b.slope_rest))
    return lax.optimization_barrier((_polynomial(terms, c), _polynomial(slopes, c)))


def _polynomial(terms: list[tuple[int, jax.Array]], c: jax.Array) -> jax.Array:
    """Sum of coefficients times powers of c, by Horner's rule.

    Many terms are dealt out to a few chains: in a single one every product waits for the last.
    """
    chains = min(len(terms), _CHAINS)
    return sum((_horner(terms[i::chains], c) for i in range(chains)), jnp.zeros_like(c))


def _horner(terms: list[tuple[int, jax.Array]], c: jax.Array) -> jax.Array:
    (above, total), *lower = reversed(terms)
    for k, product in lower:
        total, above = total * c ** (above - k) + product, k
    return total * c**above if above else total

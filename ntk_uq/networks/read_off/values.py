"""What a module's operations are carried out on: given numbers, parameters, random layers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_uq.networks.read_off.fields import (
    Coefficient,
    Combination,
    Elementwise,
    Field,
    Hidden,
    Linear,
    Parameter,
    PositionMap,
    Scaled,
    Share,
    Term,
    roots,
)
from ntk_uq.networks.read_off.functions import IDENTITY, Function, affine, composed
from ntk_uq.networks.read_off.large_numbers import combined, joined

__all__ = [
    "Axis",
    "Given",
    "Layer",
    "NoLimitError",
    "Weights",
    "added",
    "applied",
    "as_field",
    "combination",
    "gaussian_of",
    "mapped",
    "moved",
    "multiplied",
    "parameter_field",
    "reciprocal",
    "scaled",
    "settled",
    "share",
    "single",
    "size_of",
]


class NoLimitError(Exception):
    """Why an operation has no rule; the reader adds which one and where."""


@dataclass(frozen=True, eq=False)
class Given:
    """Numbers that follow from the inputs alone: [n, *shape] for either points, or constants.

    Constants have 1 in the place of n.
    """

    left: Any
    right: Any
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape at one point."""
        return tuple(self.left.shape[1:])

    @property
    def number(self) -> float | None:
        """The number that all entries are, where that is known."""
        if not self.constant or isinstance(self.left, jax.core.Tracer):
            return None
        values = np.asarray(self.left)
        if values.size and np.all(values == values.flat[0]):
            return values.flat[0].item()
        return None


@dataclass(frozen=True)
class Axis:
    """A part of an array's axis: positions, or units."""

    size: int
    units: bool


@dataclass(frozen=True, eq=False)
class Weights:
    """A parameter, its axes perhaps permuted or joined, times a number.

    axes : for each axis of the array the axes of the parameter that it is made of.
    """

    path: str
    mean: float
    scale: float
    rate: float
    axes: tuple[tuple[tuple[Any, int], ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(math.prod(size for _, size in axis) for axis in self.axes)

    def times(self, factor: float) -> "Weights":
        """A multiple."""
        return replace(
            self,
            mean=factor * self.mean,
            scale=factor * self.scale,
            rate=factor * self.rate,
        )


@dataclass(frozen=True, eq=False)
class Layer:
    """A random array: which of its axes are positions and which units, and a unit's law.

    dims : for each axis of the array its parts, none for an axis of length 1.
    parts : how many units, and what they are; several after a concatenation.
    """

    dims: tuple[tuple[Axis, ...], ...]
    parts: tuple[tuple[int, Elementwise], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(math.prod(axis.size for axis in dim) for dim in self.dims)

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the axes that are positions."""
        return tuple(axis.size for dim in self.dims for axis in dim if not axis.units)

    @property
    def units(self) -> int:
        """Number of units."""
        return math.prod(axis.size for dim in self.dims for axis in dim if axis.units)

    def with_values(self, function: Callable[[Elementwise], Elementwise]) -> "Layer":
        """The same array of other values."""
        return replace(self, parts=tuple((units, function(value)) for units, value in self.parts))


def single(field: Field, function: Function = IDENTITY) -> Elementwise:
    """A function of one field."""
    return Elementwise((Term(((field, function),)),))


def size_of(value: Elementwise) -> float:
    """What the module has multiplied a layer by."""
    return max(
        (math.prod(f.factor * _size_of_field(u) for u, f in term.factors) for term in value.terms),
        default=1.0,
    )


def _size_of_field(u: Field) -> float:
    match u:
        case Combination(terms=terms):
            return max(abs(a) * _size_of_field(one) for a, one in terms)
        case Linear(map=map_, source=source):
            return map_.most * _size_of_field(source)
        case Scaled(source=source) | Share(source=source):
            return _size_of_field(source)
        case Hidden(value=value):
            return size_of(value)
    return 1.0


# --- Elementwise arithmetic -----------------------------------------------------------------------


def _lone(value: Elementwise) -> Any:
    """The one field that a value is a function of, and the function, its constant included."""
    if isinstance(value.constant, Coefficient) or len(value.terms) > 1:
        return None
    if not value.terms:
        return None, affine(0.0, value.constant)
    if len(value.terms[0].factors) > 1:
        return None
    u, f = value.terms[0].factors[0]
    if value.constant == 0:
        return u, f
    if f.affine:
        return u, affine(f.affine[0], f.affine[1] + value.constant)
    return u, composed(jnp.add, f, value.constant)


def gaussian_of(value: Elementwise) -> tuple[Field, float, Any] | None:
    """(u, a, b) where the value is a u + b of a Gaussian field."""
    if len(value.terms) != 1 or len(value.terms[0].factors) != 1:
        return None
    u, f = value.terms[0].factors[0]
    if not (u.gaussian and f.affine):
        return None
    a, b = f.affine
    if isinstance(value.constant, Coefficient):
        return u, a, value.constant.map(lambda c: c + b)
    return u, a, b + value.constant


def _is_zero(number: Any) -> bool:
    return not isinstance(number, Coefficient) and number == 0


def settled(number: Any, beside: float = 1.0) -> Any:
    """A number that meets a layer, of such size: a sum over units must be a number by then."""
    if not isinstance(number, Coefficient) or number.sum is None:
        return number
    if reason := number.sum.why_random(beside):
        raise NoLimitError(reason)
    return 0.0 if number.sum.nought else number.of(None)


def _plus(a: Any, b: Any) -> Any:
    if not isinstance(a, Coefficient):
        a, b = b, a
    if _is_zero(b):
        return a
    if not isinstance(a, Coefficient):
        return a + b
    return a.map(jnp.add, b).of(joined(a.sum, b.sum if isinstance(b, Coefficient) else None))


def _times(a: Any, b: Any) -> Any:
    if not isinstance(a, Coefficient):
        a, b = b, a
    if not isinstance(a, Coefficient):
        return a * b
    product = a.map(jnp.multiply, b)
    if isinstance(b, Coefficient):
        return product.of(combined(a.sum, b.sum))
    return product.of(a.sum.multiple(b)) if a.sum else product


def reciprocal(number: Any) -> Any:
    """One over a number."""
    if not isinstance(number, Coefficient):
        return 1 / number
    return _of_numbers(jnp.reciprocal, [number], -1)


def added(one: Elementwise, other: Elementwise) -> Elementwise:
    """Sum: of functions of the same field a function of it, of Gaussian fields one."""
    terms: dict[Any, Term] = {}
    for term in (*one.terms, *other.terms):
        key = term.factors[0][0] if len(term.factors) == 1 else term
        terms[key] = _joined(terms[key], term) if key in terms else term
    constant = _plus(one.constant, other.constant)
    if terms:
        constant = settled(constant, max(size_of(v) for v in (one, other) if v.terms))
    result = Elementwise(tuple(terms.values()), constant)
    gaussians: list[Any] = [gaussian_of(Elementwise((term,))) for term in result.terms]
    if len(gaussians) > 1 and all(gaussians):
        parts = tuple((a, u) for u, a, _ in gaussians)
        for _, _, b in gaussians:
            constant = _plus(constant, b)
        return single(combination(parts, constant))
    if len(gaussians) == 1 and gaussians[0] and isinstance(constant, Coefficient):
        u, a, b = gaussians[0]
        return single(combination(((a, u),), _plus(constant, b)))
    return result


def combination(parts: tuple[tuple[float, Field], ...], constant: Any) -> Field:
    """A sum of multiples of Gaussian fields."""
    positions = parts[0][1].positions
    if isinstance(constant, Coefficient):
        return Combination(positions, True, parts, constant)
    # In one order: the sum is the same field whichever of them came first.
    parts = tuple(sorted(parts, key=lambda part: id(part[1])))
    return parts[0][1].once(
        ("sum", parts, constant), lambda: Combination(positions, True, parts, constant)
    )


def _joined(one: Term, other: Term) -> Term:
    """Sum of two functions of the same field."""
    (u, f), (_, g) = one.factors[0], other.factors[0]
    if f.affine and g.affine:
        return Term(((u, affine(f.affine[0] + g.affine[0], f.affine[1] + g.affine[1])),))
    if not u.gaussian:
        raise NoLimitError("adds different functions of a field that is not Gaussian")
    sum_ = composed(jnp.add, f, g)
    return Term(((u, replace(sum_, factor=max(f.factor, g.factor))),))


def scaled(value: Elementwise, by: float | Coefficient) -> Elementwise:
    """A multiple, by one number or by one for each point and position."""
    if not isinstance(by, Coefficient):
        terms = []
        for term in value.terms:
            (u, f), *rest = term.factors
            if f.affine:
                f = affine(by * f.affine[0], by * f.affine[1])
            else:
                f = replace(composed(jnp.multiply, f, by), factor=f.factor * abs(by))
            terms.append(Term(((u, f), *rest)))
        return Elementwise(tuple(terms), _times(value.constant, by))
    if not value.terms:
        return Elementwise((), _times(by, value.constant))
    if by.sum and by.sum.nought:
        raise NoLimitError(
            f"multiplies a layer by a sum over {by.sum.units} units whose mean is 0: it is random, "
            "however it is scaled"
        )
    # A mean of large units is a number beside its own size.
    number: Any = settled(by, max(by.sum.size, 1.0) if by.sum else 1.0)
    gaussian = gaussian_of(value)
    if gaussian and _is_zero(gaussian[2]):
        u, a, _ = gaussian
        return single(Scaled(u.positions, True, number, u), affine(a, 0.0))
    source = as_field(value)
    return single(Scaled(source.positions, source.gaussian, number, source))


def as_field(value: Elementwise) -> Field:
    """A value as a field of its own, which enters linearly from here on."""
    gaussian = gaussian_of(value)
    if gaussian:
        u, a, b = gaussian
        if a == 1 and _is_zero(b):
            return u
        return combination(((a, u),), b)
    if value.alone and value.alone[1] is IDENTITY:
        return value.alone[0]
    positions = value.terms[0].factors[0][0].positions
    return Hidden(positions, False, value)


def multiplied(one: Elementwise, other: Elementwise) -> Elementwise:
    """Product: of functions of the same field a function of it, else of independent ones."""
    for value, factor in ((one, other), (other, one)):
        if not factor.terms:
            return scaled(value, factor.constant)
    lone, lone_other = _lone(one), _lone(other)
    if lone and lone_other and lone[0] is lone_other[0] and lone[0].gaussian:
        product = composed(jnp.multiply, lone[1], lone_other[1])
        return single(lone[0], replace(product, factor=lone[1].factor * lone_other[1].factor))
    result = Elementwise((), 0.0)
    pairs = [(s, t) for s in _all_terms(one) for t in _all_terms(other)]
    for s, t in pairs:
        result = added(result, _product(s, t))
    return result


def _all_terms(value: Elementwise) -> list[Any]:
    constant = [] if _is_zero(value.constant) else [value.constant]
    return [*value.terms, *constant]


def _product(s: Any, t: Any) -> Elementwise:
    if not isinstance(s, Term):
        s, t = t, s
    if not isinstance(s, Term):
        return Elementwise((), _times(s, t))
    if not isinstance(t, Term):
        return scaled(Elementwise((s,)), t)
    factors = dict(s.factors)
    for u, f in t.factors:
        if u in factors:
            if not u.gaussian:
                raise NoLimitError("multiplies a field that is not Gaussian by itself")
            factors[u] = composed(jnp.multiply, factors[u], f)
        elif any(roots(u) & roots(v) for v in factors):
            raise NoLimitError("multiplies two random layers that depend on each other")
        else:
            factors[u] = f
    return Elementwise((Term(tuple(factors.items())),))


def _of_numbers(function: Callable[..., Any], numbers: Sequence[Any], degree: float | None) -> Any:
    """A function of numbers alone, which takes multiples to multiples if it has a degree."""
    found = [c for c in numbers if isinstance(c, Coefficient)]
    if not found:
        with jax.ensure_compile_time_eval():
            return float(function(*map(jnp.asarray, numbers)))
    sums = [c.sum for c in found if c.sum is not None]
    fails = any(s.nought for s in sums) or (degree == 0 and len(sums) > 1)
    if fails and degree is not None and degree <= 0:
        what = "divides by" if degree else "jumps with"
        raise NoLimitError(f"{what} a sum over units whose mean is 0, or is another's: random")
    for sum_ in sums if degree is None else []:
        if reason := sum_.why_random():
            raise NoLimitError(reason)
    left, right = (
        function(*(c.at(side) if isinstance(c, Coefficient) else jnp.asarray(c) for c in numbers))
        for side in (1, 2)
    )
    total = joined(*sums, *([None] if degree is None or len(found) < len(numbers) else []))
    if total:
        total = total.of_units() if degree is None else total.power(degree)
    return Coefficient(left, right, total)


def applied(
    function: Callable[..., Any], values: Sequence[Any], degree: float | None = None
) -> Elementwise:
    """An elementwise function of values that are functions of one Gaussian field, or numbers.

    degree : p where the function takes c u to c^p times its value, 0 where it jumps.
    """
    base: Any = None
    inner: list[Any] = []
    if all(not isinstance(v, Elementwise) or not v.terms for v in values):
        constants = [v.constant if isinstance(v, Elementwise) else v for v in values]
        return Elementwise((), _of_numbers(function, constants, degree))
    for value in values:
        if not isinstance(value, Elementwise):
            inner.append(value)
            continue
        if not value.terms:
            value = Elementwise((), settled(value.constant))
        lone = _lone(value)
        if lone is None:
            raise NoLimitError(
                "is a nonlinear function of several random layers, or of one that is multiplied "
                "by something that depends on the point"
            )
        u, f = lone
        if u is None:
            inner.append(f.affine[1])
            continue
        if not u.gaussian:
            raise NoLimitError(
                "is a nonlinear function of a layer that is not Gaussian: of a mean over "
                "positions, or a normalisation, of activations"
            )
        if base is not None and u is not base:
            raise NoLimitError("is a nonlinear function of several random layers")
        base = u
        inner.append(f)
    result = composed(function, *inner)
    if degree and degree > 0:
        sizes = [f.factor**degree for f in inner if isinstance(f, Function)]
        result = replace(result, factor=max(sizes))
    return single(base, result)


# --- Positions ------------------------------------------------------------------------------------


def mapped(value: Elementwise, map_: PositionMap) -> Elementwise:
    """A linear map of positions."""
    if isinstance(value.constant, Coefficient):
        constant: Any = value.constant.map(
            lambda c: map_(jnp.broadcast_to(c, (len(c), *map_.before)), 1)
        )
        if constant.sum:
            constant = constant.of(constant.sum.multiple(map_.most))
    elif value.constant == 0 or map_.picks:
        constant = value.constant
    else:
        ones = map_(jnp.full((1, *map_.before), value.constant), 1)
        constant = Coefficient(ones, ones)
    if map_.picks:
        return Elementwise(
            tuple(
                Term(tuple((moved(u, map_), f) for u, f in term.factors)) for term in value.terms
            ),
            constant,
        )
    result = Elementwise((), constant)
    rest = []
    for term in value.terms:
        gaussian = gaussian_of(Elementwise((term,)))
        if gaussian and _is_zero(gaussian[2]):
            u, a, _ = gaussian
            result = added(result, single(moved(u, map_), affine(a, 0.0)))
        else:
            rest.append(term)
    if rest:
        hidden = as_field(Elementwise(tuple(rest)))
        result = added(result, single(moved(hidden, map_)))
    return result


def moved(u: Field, map_: PositionMap) -> Field:
    """A linear map of a field's positions."""
    return u.once((map_.key, map_.after), lambda: Linear(map_.after, u.gaussian, map_, u))


def share(value: Elementwise, start: int) -> Elementwise:
    """Some of the units, from `start` on."""

    def part(u: Field) -> Field:
        if isinstance(u, Share):  # a part of a part
            first, whole = u.start + start, u.source
        else:
            first, whole = start, u
        return whole.once(
            ("share", first), lambda: Share(whole.positions, whole.gaussian, first, whole)
        )

    terms = tuple(Term(tuple((part(u), f) for u, f in t.factors)) for t in value.terms)
    return Elementwise(terms, value.constant)


def parameter_field(
    weights: Weights, positions: tuple[int, ...], apart: bool, known: dict[Any, Any]
) -> Elementwise:
    """A parameter as units of a layer; `known` has those of other layers."""
    if weights.rate == 0:
        return Elementwise((), weights.mean)
    key = weights.path, weights.mean, weights.scale, positions, apart
    if key not in known:
        known[key] = Parameter(
            positions, True, weights.path, weights.mean, weights.scale, weights.rate, apart
        )
    return single(known[key])

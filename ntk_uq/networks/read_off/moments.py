"""Second moments, tangent kernels and distances of random fields, on demand."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from ntk_uq.networks import hermite
from ntk_uq.networks.activations import dual_of, ratio, safe_sqrt
from ntk_uq.networks.read_off.fields import (
    Coefficient,
    Combination,
    Contraction,
    Data,
    Elementwise,
    Field,
    Hidden,
    Linear,
    Parameter,
    Scaled,
    Share,
    Term,
    roots,
)
from ntk_uq.networks.read_off.functions import IDENTITY, Function

__all__ = ["DependentError", "Moments", "Pairs"]

Array = jax.Array
# Pairs of points: one of the first with one of the second, or each with itself.
Pairs = Literal["12", "11", "22"]
Kind = Literal["second", "tangent"]


class DependentError(Exception):
    """Moments of a product of fields that depend on one another: there is no rule for them."""


def _add(a: Array | None, b: Array | None) -> Array | None:
    if a is None:
        return b
    return a if b is None else a + b


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of fields between two sets of points, each computed once.

    `same` says that the second points are the first.
    """

    same: bool
    _known: dict[Any, Any] = field(default_factory=dict)

    # Moments are methods, in two layers: what is asked for, and how it is computed.

    def second(self, u: Field, v: Field, pairs: Pairs, full: bool) -> Array | None:
        """E[u v'], None where it is 0 for what the fields are."""
        return self._once("second", u, v, pairs, full)

    def tangent(self, u: Field, v: Field, pairs: Pairs, full: bool) -> Array | None:
        """Inner product of the gradients of u and v', None where it is 0."""
        return self._once("tangent", u, v, pairs, full)

    def _once(self, kind: Kind, u: Field, v: Field, pairs: Pairs, full: bool) -> Array | None:
        if pairs == "22" and self.same:
            pairs = "11"
        key = kind, id(u), id(v), pairs, full
        if key not in self._known:
            # The fields are kept, so that no other takes their place in memory.
            self._known[key] = self._computed(kind, u, v, pairs, full), u, v
        return self._known[key][0]

    def _computed(self, kind: Kind, u: Field, v: Field, pairs: Pairs, full: bool) -> Array | None:
        lead = 2 if pairs == "12" else 1
        if isinstance(u, Combination) or isinstance(v, Combination):
            return self._of_combinations(kind, u, v, pairs, full)
        if isinstance(u, Linear) or isinstance(v, Linear):
            return self._of_linear(kind, u, v, pairs, full)
        if isinstance(u, Scaled):
            inner = self._once(kind, u.source, v, pairs, full)
            by = self.placed(u.by.at(1 if pairs != "22" else 2), 1, u, v, pairs, full)
            return None if inner is None else by * inner
        if isinstance(v, Scaled):
            inner = self._once(kind, u, v.source, pairs, full)
            by = self.placed(v.by.at(1 if pairs == "11" else 2), 2, u, v, pairs, full)
            return None if inner is None else by * inner
        if isinstance(u, Hidden) or isinstance(v, Hidden):
            return self.of_values(kind, _value(u), _value(v), pairs, full)
        if isinstance(u, Share) and isinstance(v, Share):
            if u.start == v.start:
                return self._once(kind, u.source, v.source, pairs, full)
            return self._product_of_means(kind, u, v, pairs, full)
        if isinstance(u, Parameter) and isinstance(v, Parameter):
            return (
                self._of_parameters(kind, u, v, lead, full)
                if u.name == v.name
                else (self._product_of_means(kind, u, v, pairs, full))
            )
        if isinstance(u, Contraction) and isinstance(v, Contraction):
            return self._of_contractions(kind, u, v, pairs, full) if u.key == v.key else None
        if isinstance(u, Data) and isinstance(v, Data):
            return _of_data(u, v, pairs, full) if kind == "second" else None
        return self._product_of_means(kind, u, v, pairs, full)

    def _product_of_means(
        self, kind: Kind, u: Field, v: Field, pairs: Pairs, full: bool
    ) -> Array | None:
        """Second moment of independent fields."""
        if kind == "tangent":
            return None
        left = self.mean(u, 1 if pairs != "22" else 2)
        right = self.mean(v, 1 if pairs == "11" else 2)
        if left is None or right is None:
            return None
        return self.placed(left, 1, u, v, pairs, full) * self.placed(right, 2, u, v, pairs, full)

    def _of_parameters(
        self, kind: Kind, u: Parameter, v: Parameter, lead: int, full: bool
    ) -> Array | None:
        value = u.rate * v.rate if kind == "tangent" else u.scale * v.scale
        shape = (1,) * lead
        if not full or not u.apart:
            constant = jnp.full(shape + (1,) * len(u.positions) * (1 + full), value)
            sizes = u.positions + (v.positions if full else ())
            out = jnp.broadcast_to(constant, (*shape, *sizes))
        else:
            size = math.prod(u.positions)
            out = (value * jnp.eye(size)).reshape(*shape, *u.positions, *v.positions)
        return out + u.mean * v.mean if kind == "second" and u.mean else out

    def _of_contractions(
        self, kind: Kind, u: Contraction, v: Contraction, pairs: Pairs, full: bool
    ) -> Array | None:
        """Sum over units, and the tangent kernel of the parameters and of what they multiply."""
        total = None
        for (units, one), (_, other) in zip(u.sources, v.sources, strict=True):
            moment = self._of_sources(kind, one, other, pairs, full)
            if moment is not None:
                total = _add(total, units * moment)
        reduced = None
        if total is not None:
            reduced = u.scale * v.scale * (u.reduce.full if full else u.reduce.same)(total)
        if kind == "tangent":
            direct = self.second(u, v, pairs, full)
            if direct is not None:
                reduced = _add(u.rate * v.rate / (u.scale * v.scale) * direct, reduced)
        return reduced

    def _of_sources(self, kind: Kind, one: Any, other: Any, pairs: Pairs, full: bool) -> Any:
        if isinstance(one, Data) and isinstance(other, Data):
            return self._once(kind, one, other, pairs, full)
        if isinstance(one, Data) or isinstance(other, Data):
            return None  # a deterministic and a random part at the same units: never made
        return self.of_values(kind, one, other, pairs, full)

    def _of_combinations(
        self, kind: Kind, u: Field, v: Field, pairs: Pairs, full: bool
    ) -> Array | None:
        ours = u.terms if isinstance(u, Combination) else ((1.0, u),)
        theirs = v.terms if isinstance(v, Combination) else ((1.0, v),)
        total = None
        for a, one in ours:
            for b, other in theirs:
                moment = self._once(kind, one, other, pairs, full)
                if moment is not None:
                    total = _add(total, a * b * moment)
        if kind == "second":
            total = _add(total, self._constants(u, v, pairs, full))
        return total

    def _constants(self, u: Field, v: Field, pairs: Pairs, full: bool) -> Array | None:
        """What constants of sums add to a second moment."""
        sides = (1 if pairs != "22" else 2), (1 if pairs == "11" else 2)
        total = None
        constant_u, random_u = self._parts(u, sides[0])
        constant_v, random_v = self._parts(v, sides[1])
        for left, right in (
            (constant_u, constant_v), (constant_u, random_v), (random_u, constant_v),
        ):  # fmt: skip
            if left is not None and right is not None:
                product = self.placed(left, 1, u, v, pairs, full) * self.placed(
                    right, 2, u, v, pairs, full
                )
                total = _add(total, product)
        return total

    def _parts(self, u: Field, side: int) -> tuple[Array | None, Array | None]:
        """Constant of a sum, and mean of what it is added to."""
        if not isinstance(u, Combination):
            return None, self.mean(u, side)
        random = None
        for a, one in u.terms:
            mean = self.mean(one, side)
            random = _add(random, None if mean is None else a * mean)
        return _constant(u.constant, u.positions, side), random

    def _of_linear(self, kind: Kind, u: Field, v: Field, pairs: Pairs, full: bool) -> Array | None:
        lead = 2 if pairs == "12" else 1
        if not full:
            if (
                isinstance(u, Linear)
                and isinstance(v, Linear)
                and u.map.picks
                and u.map.key == v.map.key
                and u.source.positions == v.source.positions
            ):
                inner = self._once(kind, u.source, v.source, pairs, False)
                return None if inner is None else u.map(inner, lead)
            return _diagonal(self._once(kind, u, v, pairs, True), lead, len(u.positions))
        source_u = u.source if isinstance(u, Linear) else u
        source_v = v.source if isinstance(v, Linear) else v
        inner = self._once(kind, source_u, source_v, pairs, True)
        if inner is None:
            return None
        if isinstance(v, Linear):
            inner = v.map(inner, lead + len(source_u.positions))
        return u.map(inner, lead) if isinstance(u, Linear) else inner

    # --- Values: sums of products of functions ----------------------------------------------------

    def of_values(
        self, kind: Kind, one: Elementwise, other: Elementwise, pairs: Pairs, full: bool
    ) -> Array | None:
        """A moment of two elementwise functions of fields."""
        key = kind, "values", id(one), id(other), pairs, full
        if key not in self._known:
            total = None
            for s in one.terms:
                for t in other.terms:
                    total = _add(total, self._of_terms(kind, s, t, pairs, full))
            if kind == "second":
                total = _add(total, self._constants_of_values(one, other, pairs, full))
            self._known[key] = total, one, other
        return self._known[key][0]

    def _constants_of_values(
        self, one: Elementwise, other: Elementwise, pairs: Pairs, full: bool
    ) -> Array | None:
        u, v = Hidden(_positions(one), False, one), Hidden(_positions(other), False, other)
        sides = (1 if pairs != "22" else 2), (1 if pairs == "11" else 2)
        constant_u = _constant(one.constant, u.positions, sides[0])
        constant_v = _constant(other.constant, v.positions, sides[1])
        random_u = self._mean_of_terms(one, sides[0])
        random_v = self._mean_of_terms(other, sides[1])
        total = None
        for left, right in (
            (constant_u, constant_v), (constant_u, random_v), (random_u, constant_v),
        ):  # fmt: skip
            if left is not None and right is not None:
                product = self.placed(left, 1, u, v, pairs, full) * self.placed(
                    right, 2, u, v, pairs, full
                )
                total = _add(total, product)
        return total

    def _of_terms(self, kind: Kind, s: Term, t: Term, pairs: Pairs, full: bool) -> Array | None:
        """Pairs of dependent factors multiply their moments, the others their means."""
        matched, left_alone, right_alone = self._matched(s, t, pairs)
        if kind == "second":
            factors = [self._of_factors("second", a, b, pairs, full) for a, b in matched]
            return self._times_means(factors, left_alone, right_alone, pairs, full)
        total = None
        for i in range(len(matched)):
            factors = [
                self._of_factors("tangent" if i == j else "second", a, b, pairs, full)
                for j, (a, b) in enumerate(matched)
            ]
            total = _add(total, self._times_means(factors, left_alone, right_alone, pairs, full))
        return total

    def _matched(self, s: Term, t: Term, pairs: Pairs) -> Any:
        """Factors of two terms that depend on each other, in pairs, and those that do not."""
        related = [[self._related(u, v, pairs) for v, _ in t.factors] for u, _ in s.factors]
        if any(sum(row) > 1 for row in related) or any(
            sum(column) > 1 for column in zip(*related, strict=True)
        ):
            raise DependentError
        matched = [
            (s.factors[i], t.factors[row.index(True)]) for i, row in enumerate(related) if any(row)
        ]
        left = [f for f, row in zip(s.factors, related, strict=True) if not any(row)]
        columns = zip(*related, strict=True)
        right = [f for f, column in zip(t.factors, columns, strict=True) if not any(column)]
        return matched, left, right

    def _related(self, u: Field, v: Field, pairs: Pairs) -> bool:
        return u is v or bool(roots(u) & roots(v))

    def _times_means(
        self, factors: list[Any], left: list[Any], right: list[Any], pairs: Pairs, full: bool
    ) -> Array | None:
        for side, alone in ((1, left), (2, right)):
            at = 1 if pairs == "11" or (pairs == "12" and side == 1) else 2
            for u, function in alone:
                mean = self._mean_of_factor(u, function, at)
                if mean is None:
                    return None
                factors.append(self.placed(mean, side, u, u, pairs, full))
        if any(factor is None for factor in factors):
            return None
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product

    def _of_factors(self, kind: Kind, a: Any, b: Any, pairs: Pairs, full: bool) -> Array | None:
        (u, f), (v, g) = a, b
        if f.affine and g.affine:
            (a1, b1), (a2, b2) = f.affine, g.affine
            moment = self._once(kind, u, v, pairs, full)
            out = None if moment is None else a1 * a2 * moment
            if kind == "second" and (b1 or b2):
                one, other = (
                    Combination(u.positions, u.gaussian, ((a1, u),), b1),
                    Combination(v.positions, v.gaussian, ((a2, v),), b2),
                )
                out = _add(out, self._constants(one, other, pairs, full))
            return out
        if not (u.gaussian and v.gaussian):
            return self._of_opaque(kind, a, b, pairs, full)
        if kind == "tangent":
            moment = self.tangent(u, v, pairs, full)
            return None if moment is None else self._expectation(a, b, pairs, full, True) * moment
        return self._expectation(a, b, pairs, full, False)

    def _of_opaque(self, kind: Kind, a: Any, b: Any, pairs: Pairs, full: bool) -> Array | None:
        """A field that is not Gaussian enters as a u + b; what it is made of decides the rest."""
        (u, f), (v, g) = a, b
        one = (
            Combination(u.positions, False, ((f.affine[0], u),), f.affine[1])
            if f.affine
            else (Hidden(u.positions, False, Elementwise((Term((a,)),))))
        )
        other = (
            Combination(v.positions, False, ((g.affine[0], v),), g.affine[1])
            if g.affine
            else (Hidden(v.positions, False, Elementwise((Term((b,)),))))
        )
        return self._once(kind, one, other, pairs, full)

    # --- Gaussian expectations --------------------------------------------------------------------

    def deviation(self, u: Field, side: int) -> Array:
        """Standard deviation of a Gaussian field at each point and position: [n, *positions]."""
        pairs: Pairs = "11" if side == 1 or self.same else "22"
        key = "deviation", id(u), pairs
        if key not in self._known:
            second = self.second(u, u, pairs, False)
            mean = self.mean(u, side)
            if second is None:
                second = jnp.zeros((1, *u.positions))
            if mean is not None:
                second = second - mean**2
            self._known[key] = safe_sqrt(second), u
        return self._known[key][0]

    def complement(self, u: Field, v: Field, pairs: Pairs, full: bool) -> Array:
        """One minus the correlation of two Gaussian fields."""
        key = "complement", id(u), id(v), pairs, full
        if key not in self._known:
            s1, s2 = self._deviations(u, v, pairs, full)
            if u is v:
                apart = self.distance(u, pairs, full) - (s1 - s2) ** 2
                out = jnp.maximum(ratio(apart, 2 * s1 * s2), 0.0)
            else:
                covariance = self.second(u, v, pairs, full)
                means = self._product_of_means("second", u, v, pairs, full)
                if covariance is None:
                    covariance = jnp.zeros_like(s1 * s2)
                if means is not None:
                    covariance = covariance - means
                out = 1 - jnp.clip(ratio(covariance, s1 * s2), -1, 1)
            self._known[key] = jnp.clip(out, 0, 2), u, v
        return self._known[key][0]

    def _deviations(self, u: Field, v: Field, pairs: Pairs, full: bool) -> tuple[Array, Array]:
        left = self.deviation(u, 1 if pairs != "22" else 2)
        right = self.deviation(v, 1 if pairs == "11" else 2)
        return self.placed(left, 1, u, v, pairs, full), self.placed(right, 2, u, v, pairs, full)

    def _expectation(self, a: Any, b: Any, pairs: Pairs, full: bool, slope: bool) -> Array:
        """E[f(u) g(v')], with `slope` of the derivatives, for Gaussian u and v'."""
        (u, f), (v, g) = a, b
        key = "expectation", id(u), id(f), id(v), id(g), pairs, full, slope
        if key in self._known:
            return self._known[key][0]
        one_point = u is v and pairs != "12" and not full
        dual = dual_of(f.call) if f is g and self._is_centred(u) and self._is_centred(v) else None
        if dual is not None:
            s1, s2 = self._deviations(u, v, pairs, full)
            h = jnp.zeros_like(s1) if one_point else self.complement(u, v, pairs, full)
            complement, derivative = dual.pair(s1, s2, h)
            if slope:
                out = derivative
            else:
                r1, r2 = dual.spread(s1), dual.spread(s2)
                out = r1 * r2 if one_point else r1 * r2 * (1 - complement)
        else:
            out = self._by_series(a, b, pairs, full, one_point)[slope]
        self._known[key] = out, u, f, v, g
        return out

    def _by_series(
        self, a: Any, b: Any, pairs: Pairs, full: bool, one_point: bool
    ) -> tuple[Array, Array]:
        (u, f), (v, g) = a, b
        left = self.expansion(u, f.call, 1 if pairs != "22" else 2)
        right = self.expansion(v, g.call, 1 if pairs == "11" else 2)
        if one_point and f is g:
            return left.square, left.slope_square
        left = left.placed(lambda values: self.placed(values, 1, u, v, pairs, full))
        right = right.placed(lambda values: self.placed(values, 2, u, v, pairs, full))
        c = 1 - (0.0 if one_point else self.complement(u, v, pairs, full))
        shape = jnp.broadcast_shapes(left.rest.shape, right.rest.shape)
        return hermite.pair_moments(left, right, jnp.broadcast_to(c, shape), f is g)

    def expansion(self, u: Field, function: Any, side: int) -> hermite.Expansion:
        """Hermite coefficients of a function of a Gaussian field, at each point and position."""
        at = 1 if self.same else side
        key = "expansion", id(u), id(function), at
        if key not in self._known:
            s, mean = self._law(u, at)
            self._known[key] = hermite.expansion(function, s, mean), u, function
        return self._known[key][0]

    def _law(self, u: Field, side: int) -> tuple[Array, Array | None]:
        """Standard deviation and mean of a Gaussian field, in one shape."""
        mean = self.mean(u, side)
        s = self.deviation(u, side)
        if mean is not None:
            s, mean = jnp.broadcast_arrays(s, mean)
        return s, mean

    def _is_centred(self, u: Field) -> bool:
        return self.mean(u, 1) is None

    # --- Means ------------------------------------------------------------------------------------

    def mean(self, u: Field, side: int) -> Array | None:
        """E[u] at each point and position, [n or 1, *positions]; None where it is 0."""
        side = 1 if self.same else side
        key = "mean", id(u), side
        if key not in self._known:
            self._known[key] = self._mean(u, side), u
        return self._known[key][0]

    def _mean(self, u: Field, side: int) -> Array | None:
        match u:
            case Parameter(mean=mean):
                return jnp.full((1, *u.positions), mean) if mean else None
            case Linear(map=map_, source=source):
                inner = self.mean(source, side)
                if inner is None:
                    return None
                inner = jnp.broadcast_to(inner, (inner.shape[0], *source.positions))
                return map_(inner, 1)
            case Scaled(by=by, source=source):
                inner = self.mean(source, side)
                return None if inner is None else by.at(side) * inner
            case Combination():
                constant, random = self._parts(u, side)
                return _add(constant, random)
            case Hidden(value=value):
                constant = _constant(value.constant, u.positions, side)
                return _add(constant, self._mean_of_terms(value, side))
            case Share(source=source):
                return self.mean(source, side)
        return None

    def mean_of_value(self, value: Elementwise, side: int) -> Array | None:
        """Mean over units of an elementwise function of fields."""
        constant = _constant(value.constant, _positions(value), side)
        return _add(constant, self._mean_of_terms(value, side))

    def _mean_of_terms(self, value: Elementwise, side: int) -> Array | None:
        total = None
        for term in value.terms:
            product: Any = 1.0
            for u, function in term.factors:
                mean = self._mean_of_factor(u, function, side)
                product = None if mean is None or product is None else product * mean
            total = _add(total, product)
        return total

    def _mean_of_factor(self, u: Field, function: Function, side: int) -> Array | None:
        if function.affine:
            a, b = function.affine
            mean = self.mean(u, side)
            random = None if mean is None else a * mean
            return _add(random, jnp.full((1, *u.positions), b) if b else None)
        side = 1 if self.same else side
        key = "mean of", id(u), id(function), side
        if key not in self._known:
            s, mean = self._law(u, side)
            values = hermite.expected(function.call, s, mean)
            odd = hermite.is_odd(function.call) and mean is None
            self._known[key] = (None if odd else values), u, function
        return self._known[key][0]

    # --- Distances --------------------------------------------------------------------------------

    def distance(self, u: Field, pairs: Pairs, full: bool) -> Array:
        """E[(u - u')^2], as precise as the points allow where they nearly coincide."""
        key = "distance", id(u), pairs, full
        if key not in self._known:
            found = self._distance(u, pairs, full)
            if found is None:
                found = self._subtracted(u, pairs, full)
            self._known[key] = found, u
        return self._known[key][0]

    def _distance(self, u: Field, pairs: Pairs, full: bool) -> Array | None:
        lead = 2 if pairs == "12" else 1
        match u:
            case Parameter(apart=apart) if not (apart and full):
                sizes = u.positions * (1 + full)
                return jnp.zeros((1,) * lead + sizes)
            case Data():
                return _distance_of_data(self, u, pairs, full)
            case Contraction() if u.reduce.keeps_distances(full):
                total: Any = None
                for units, source in u.sources:
                    part = self._distance_of_source(source, pairs, full)
                    total = _add(total, units * part)
                return u.scale**2 * (u.reduce.full if full else u.reduce.same)(total)
            case Combination(terms=terms, constant=constant):
                alone = all(
                    not self._related(one, other, pairs)
                    for i, (_, one) in enumerate(terms)
                    for _, other in terms[:i]
                )
                if not alone or isinstance(constant, Coefficient):
                    return None
                if any(self.mean(one, 1) is not None for _, one in terms):
                    return None
                total = None
                for a, one in terms:
                    total = _add(total, a * a * self.distance(one, pairs, full))
                return total
            case Linear(map=map_, source=source) if map_.picks and not full:
                return map_(self.distance(source, pairs, False), lead)
            case Share(source=source):
                return self.distance(source, pairs, full)
        return None

    def _distance_of_source(self, source: Any, pairs: Pairs, full: bool) -> Array:
        if isinstance(source, Data):
            return self.distance(source, pairs, full)
        if source.alone is not None:
            u, function = source.alone
            if function.affine:
                return function.affine[0] ** 2 * self.distance(u, pairs, full)
            dual = dual_of(function.call) if u.gaussian and self._is_centred(u) else None
            if dual is not None:
                s1, s2 = self._deviations(u, u, pairs, full)
                h, _ = dual.pair(s1, s2, self.complement(u, u, pairs, full))
                r1, r2 = dual.spread(s1), dual.spread(s2)
                return 2 * r1 * r2 * h + (r1 - r2) ** 2
        positions = _positions(source)
        return self._subtracted(Hidden(positions, False, source), pairs, full)

    def _subtracted(self, u: Field, pairs: Pairs, full: bool) -> Array:
        left = self.second(u, u, "11" if pairs != "22" else "22", False)
        right = self.second(u, u, "11" if pairs == "11" else "22", False)
        both = self.second(u, u, pairs, full)
        if left is None or right is None or both is None:
            return jnp.zeros((1,) * (2 if pairs == "12" else 1) + u.positions * (1 + full))
        out = self.placed(left, 1, u, u, pairs, full) + self.placed(right, 2, u, u, pairs, full)
        return self.zero_where_same(jnp.maximum(out - 2 * both, 0.0), u, pairs, full)

    def zero_where_same(self, values: Array, u: Field, pairs: Pairs, full: bool) -> Array:
        """Distances of points and positions from themselves are 0, whatever rounding says."""
        n = values.shape[0]
        same = None
        if pairs == "12":
            if not self.same or values.shape[1] != n:
                return values
            same = jnp.eye(n, dtype=bool).reshape(n, n, *(1,) * (values.ndim - 2))
        if full and u.positions:
            size = math.prod(u.positions)
            places = jnp.eye(size, dtype=bool).reshape(*u.positions, *u.positions)
            same = places if same is None else same & places
        return values if same is None else jnp.where(same, 0, values)

    # --- Shapes -----------------------------------------------------------------------------------

    def placed(
        self, values: Array, side: int, u: Field, v: Field, pairs: Pairs, full: bool
    ) -> Array:
        """Values [n, *positions] of one side, with the axes of moments of u and v'."""
        lead, positions = values.shape[:1], values.shape[1:]
        if pairs == "12":
            lead = (*lead, 1) if side == 1 else (1, *lead)
        if not full:
            return values.reshape(*lead, *positions)
        if side == 1:
            return values.reshape(*lead, *positions, *(1,) * len(v.positions))
        return values.reshape(*lead, *(1,) * len(u.positions), *positions)


def _value(u: Field) -> Elementwise:
    return u.value if isinstance(u, Hidden) else Elementwise((Term(((u, IDENTITY),)),))


def _positions(value: Elementwise) -> tuple[int, ...]:
    for term in value.terms:
        return term.factors[0][0].positions
    return value.constant.left.shape[1:] if isinstance(value.constant, Coefficient) else ()


def _constant(constant: float | Coefficient, positions: Any, side: int) -> Array | None:
    if isinstance(constant, Coefficient):
        return constant.at(side)
    return jnp.full((1,) * (1 + len(positions)), constant) if constant else None


def _diagonal(values: Array | None, lead: int, axes: int) -> Array | None:
    """Entries [*points, *positions, *positions'] where the positions are the same."""
    if values is None or axes == 0:
        return values
    sizes = values.shape[lead : lead + axes]
    flat = values.reshape(*values.shape[:lead], math.prod(sizes), -1)
    return jnp.diagonal(flat, axis1=-2, axis2=-1).reshape(*values.shape[:lead], *sizes)


def _of_data(u: Data, v: Data, pairs: Pairs, full: bool) -> Array:
    """Products of features, summed."""
    a = u.left if pairs != "22" else u.right
    b = v.left if pairs == "11" else v.right
    count = len(u.positions)
    if not full:
        if pairs == "12":
            p = "abcdefg"[:count]
            return jnp.einsum(f"i{p}z,j{p}z->ij{p}", a, b, precision=lax.Precision.HIGHEST)
        return jnp.sum(a * b, axis=-1)
    p, q = "abcdefg"[:count], "ABCDEFG"[:count]
    i, j = ("i", "j") if pairs == "12" else ("i", "i")
    out = i if i == j else i + j
    return jnp.einsum(f"{i}{p}z,{j}{q}z->{out}{p}{q}", a, b, precision=lax.Precision.HIGHEST)


def _distance_of_data(moments: Moments, u: Data, pairs: Pairs, full: bool) -> Array:
    """Squared distances of features: from differences where subtraction would lose digits."""
    far = moments._subtracted(u, pairs, full)
    if u.positions or pairs != "12":
        return far
    a, b = u.left, u.right
    left, right = jnp.sum(a * a, axis=-1)[:, None], jnp.sum(b * b, axis=-1)[None]
    close = far < math.sqrt(jnp.finfo(far.dtype).eps) * (left + right)
    if moments.same:
        close &= ~jnp.eye(len(a), dtype=bool)
    exact = lax.cond(
        jnp.any(close),
        lambda: jnp.where(close, jnp.sum((a[:, None] - b[None]) ** 2, axis=-1), far),
        lambda: far,
    )
    return far + lax.stop_gradient(exact - far)

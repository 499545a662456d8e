r"""Random fields of an infinitely wide network, and their covariances.

A layer's values at a point are random: over positions (of an image) and units (channels), of which
there are infinitely many, alike and independent. So a field is known by what any one unit does over
positions and points: its second moments E[u u'] and its tangent kernel, the inner product of the
gradients with respect to all parameters. Both are bilinear in (u, u'). A field is made of others by
a few operations, and its moments follow from theirs, on demand:

- `Parameter`: units of a parameter vector;
- `Contraction`: a product with a parameter, sum over all units and some positions;
- `Linear`: a linear map of positions, as their mean;
- `Scaled`, `Combination`: multiples and sums;
- `Hidden`: an `Elementwise` function of other fields.

Moments of the same name at two points x, x' are arrays [*points, *positions] where the positions
are the same, or [*points, *positions, *positions'] in `full`. See docs/theory: "Kernels read off a
module".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from ntk_uq.networks.read_off.functions import Function
from ntk_uq.networks.read_off.large_numbers import Sum

__all__ = [
    "Coefficient",
    "Combination",
    "Contraction",
    "Data",
    "Elementwise",
    "Field",
    "Hidden",
    "Linear",
    "Parameter",
    "PositionMap",
    "Reduction",
    "Scaled",
    "Share",
    "Term",
    "roots",
]

Array = jax.Array


@dataclass(frozen=True, eq=False)
class Coefficient:
    """A number for each point and position, the same for all units: [n or 1, *positions].

    sum : what it is a sum over units of, if it is one.
    """

    left: Array
    right: Array
    sum: Sum | None = None

    def at(self, side: int) -> Array:
        """Values at the first points (1), or at the second (2)."""
        return self.left if side == 1 else self.right

    def map(self, function: Callable[..., Array], *others: "Coefficient | float") -> "Coefficient":
        """An elementwise function of this and of others; of which sum it is stays as it was."""
        left, right = (
            function(
                self.at(side),
                *(o.at(side) if isinstance(o, Coefficient) else o for o in others),
            )
            for side in (1, 2)
        )
        return Coefficient(left, right, self.sum)

    def of(self, sum_: Sum | None) -> "Coefficient":
        """The same numbers, of this sum."""
        return replace(self, sum=sum_)


@dataclass(frozen=True, eq=False)
class PositionMap:
    """A linear map of positions, from shape `before` to shape `after`.

    `picks` says that each new position is one of the old ones; `key` tells maps apart; `most` is
    the largest that becomes of numbers of size 1.
    """

    key: Any
    function: Callable[[Array], Array]
    before: tuple[int, ...]
    after: tuple[int, ...]
    picks: bool
    most: float = 1.0

    def __call__(self, values: Array, start: int) -> Array:
        """Map the axes of `values` from `start` on."""
        lead, rest = values.shape[:start], values.shape[start + len(self.before) :]
        flat = values.reshape(math.prod(lead), *self.before, math.prod(rest))
        mapped = jax.vmap(jax.vmap(self.function, -1, -1))(flat)
        return mapped.reshape(*lead, *self.after, *rest)


# --- Fields ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Field:
    """A random field over `positions`; `gaussian` with all others that are.

    `made` has the fields that were made of it, so that the same is made once.
    """

    positions: tuple[int, ...]
    gaussian: bool
    made: dict[Any, "Field"] = field(default_factory=dict, kw_only=True, repr=False)

    def once(self, key: Any, make: "Callable[[], Field]") -> "Field":
        """The field that was made of this one under a key; made now if there is none."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


@dataclass(frozen=True, eq=False)
class Parameter(Field):
    """Units of a parameter: independent, mean + scale N(0, 1), derivative `rate`.

    With `apart` those of different positions are independent too; else they are the same.
    """

    name: str
    mean: float
    scale: float
    rate: float
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Data(Field):
    """What the network is given, as if its features were units: [n, *positions, features]."""

    left: Array
    right: Array


@dataclass(frozen=True, eq=False)
class Contraction(Field):
    """Sum over units of `sources` times a parameter's entries, N(0, scale^2).

    sources : units of each, and the field.
    reduce : what the sum over positions does to second moments.
    key : the parameter and its axes; contractions with the same one are correlated.
    """

    key: Any
    scale: float
    rate: float
    sources: "tuple[tuple[int, Elementwise | Data], ...]"
    reduce: "Reduction"


@dataclass(frozen=True, eq=False)
class Linear(Field):
    """A linear map of the positions of another field."""

    map: PositionMap
    source: Field


@dataclass(frozen=True, eq=False)
class Scaled(Field):
    """Another field times a number for each point and position."""

    by: Coefficient
    source: Field


@dataclass(frozen=True, eq=False)
class Combination(Field):
    """Sum of multiples of fields, and a constant."""

    terms: tuple[tuple[float, Field], ...]
    constant: float | Coefficient


@dataclass(frozen=True, eq=False)
class Hidden(Field):
    """An elementwise function of other fields."""

    value: "Elementwise"


@dataclass(frozen=True, eq=False)
class Share(Field):
    """Some of the units of another field, from `start` on: independent of the others."""

    start: int
    source: Field


@dataclass(frozen=True, eq=False)
class Term:
    """Product of functions of independent fields."""

    factors: tuple[tuple[Field, Function], ...]


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Sum of terms, and a constant: what one unit of a layer is made of."""

    terms: tuple[Term, ...]
    constant: float | Coefficient = 0.0

    @property
    def alone(self) -> tuple[Field, Function] | None:
        """The only field and function, where there is one and no constant."""
        if len(self.terms) == 1 and len(self.terms[0].factors) == 1 and self.has_no_constant:
            return self.terms[0].factors[0]
        return None

    @property
    def has_no_constant(self) -> bool:
        """Whether the constant is the number 0."""
        return not isinstance(self.constant, Coefficient) and self.constant == 0


@dataclass(frozen=True, eq=False)
class Reduction:
    """Sums over positions that a product with a parameter takes, as they act on second moments.

    same, full : maps of moments [*points, *positions] and [*points, *positions, *positions'].
    keeps_distances : whether they hold for mean squared differences too.
    """

    key: Any
    same: Callable[[Array], Array]
    full: Callable[[Array], Array]
    keeps_distances: Callable[[bool], bool]


def roots(u: Field) -> frozenset[Any]:
    """The parameters, each with what it is contracted over, that a field is a sum of."""
    match u:
        case Parameter(name=name):
            return frozenset([name])
        case Contraction(key=key):
            return frozenset([key])
        case Linear(source=source) | Scaled(source=source):
            return roots(source)
        case Share(start=start, source=source):
            return frozenset((start, root) for root in roots(source))
        case Combination(terms=terms):
            return frozenset().union(*(roots(one) for _, one in terms))
        case Hidden(value=value):
            return frozenset().union(*(roots(g) for t in value.terms for g, _ in t.factors))
    return frozenset([id(u)])

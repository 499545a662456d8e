"""Rules of elementwise operations: functions of one field, sums, products."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_uq.networks.read_off.fields import (
    Coefficient,
    Data,
    Elementwise,
    PositionMap,
)
from ntk_uq.networks.read_off.rules import RULES, Operation, Value, rule
from ntk_uq.networks.read_off.values import (
    Axis,
    Given,
    Layer,
    NoLimitError,
    Weights,
    added,
    applied,
    mapped,
    multiplied,
    parameter_field,
    reciprocal,
    scaled,
    share,
)

__all__ = [
    "aligned",
    "constant_over",
    "data_of",
    "elementwise",
    "expansion",
    "is_random",
    "known_part",
    "layer_dims",
    "tidy",
]


def layer_dims(value: Value) -> tuple[tuple[Axis, ...], ...]:
    """The axes of an array, all units in a parameter."""
    if isinstance(value, Layer):
        return value.dims
    if isinstance(value, Weights):
        return tuple(tidy([Axis(size, True) for _, size in axis]) for axis in value.axes)
    return ((),) * len(value.shape)


def tidy(dim: Sequence[Axis]) -> tuple[Axis, ...]:
    """Neighbouring units as one."""
    out: list[Axis] = []
    for axis in dim:
        if out and out[-1].units and axis.units:
            out[-1] = Axis(out[-1].size * axis.size, True)
        else:
            out.append(axis)
    return tuple(out)


def is_random(value: Value) -> bool:
    """Whether it is more than numbers for each point."""
    if isinstance(value, Layer):
        return any(not isinstance(part, Elementwise) or part.terms for _, part in value.parts)
    return isinstance(value, Weights)


def aligned(operation: Operation, *operands: Value) -> tuple[Any, list[list[Elementwise]]]:
    """Operands of one shape as values over the same positions and units.

    Returns
    -------
    dims, parts
        The axes of the result; and for each part of its units the operands' values there.
    """
    rank = len(operation.shapes[0])
    operands = tuple(_with_rank(o, rank) for o in operands)
    dims = []
    for k in range(rank):
        seen = [layer_dims(o)[k] for o in sorted(operands, key=_order) if is_random(o)]
        seen += [layer_dims(o)[k] for o in operands if isinstance(o, Layer)]
        dims.append(next((dim for dim in seen if dim), ()))
        if not dims[-1] and operation.shapes[0][k] > 1:
            dims[-1] = (Axis(operation.shapes[0][k], False),)
    splits = [
        [units for units, _ in o.parts]
        for o in operands
        if isinstance(o, Layer) and len(o.parts) > 1
    ]
    if any(split != splits[0] for split in splits):
        raise NoLimitError("combines layers that are concatenated of different numbers of units")
    units = math.prod(axis.size for dim in dims for axis in dim if axis.units)
    split = splits[0] if splits else [units]
    values = [_over(operation, o, tuple(dims), split) for o in operands]
    return tuple(dims), [list(part) for part in zip(*values, strict=True)]


def _order(value: Value) -> int:
    return 0 if isinstance(value, Layer) else 1


def _with_rank(value: Value, rank: int) -> Value:
    """Scalars take any shape."""
    if len(value.shape) == rank:
        return value
    if isinstance(value, Given):
        shape = (1,) * rank
        return Given(
            jnp.reshape(value.left, (-1, *shape)), jnp.reshape(value.right, (-1, *shape)),
            value.constant,
        ) if value.number is None else Given(
            np.reshape(np.asarray(value.left), (-1, *shape)),
            np.reshape(np.asarray(value.right), (-1, *shape)), True,
        )  # fmt: skip
    raise NoLimitError("combines a random number, the same for all units, with a layer")


def _over(
    operation: Operation, value: Value, dims: tuple[tuple[Axis, ...], ...], split: list[int]
) -> list[Elementwise]:
    """A value over these axes: one for each part of the units."""
    positions = tuple(axis.size for dim in dims for axis in dim if not axis.units)
    has_units = any(axis.units and axis.size > 1 for dim in dims for axis in dim)
    if isinstance(value, Given):
        return [Elementwise((), _coefficient(value, dims))] * len(split)
    if isinstance(value, Weights):
        return _parameter_over(operation, value, dims, positions, split)
    if not is_random(value):
        ((_, only),) = value.parts
        return [constant_over(only, value.dims, dims)] * len(split)
    for ours, target in zip(value.dims, dims, strict=True):
        if ours != target and ours:
            raise NoLimitError(
                "combines positions of one layer with units of another, or units of different "
                "numbers"
            )
    if has_units and not any(axis.units for dim in value.dims for axis in dim):
        raise NoLimitError("combines a random number, the same for all units, with a layer")
    parts = value.parts
    if len(parts) == 1 and len(split) > 1:
        starts = itertools.accumulate([0, *split[:-1]])
        parts = tuple(
            (units, share(parts[0][1], start)) for units, start in zip(split, starts, strict=True)
        )
    if value.positions != positions:
        kept = [bool(ours) for ours in value.dims for _ in (0,)]
        map_ = expansion(value.dims, dims, kept)
        parts = tuple((units, mapped(part, map_)) for units, part in parts)
    return [known_part(part) for _, part in parts]


def known_part(part: Any) -> Elementwise:
    """A part of a layer that is no input."""
    if not isinstance(part, Elementwise):
        raise NoLimitError("takes inputs that were concatenated with a layer: contract them first")
    return part


def expansion(ours: Any, target: Any, kept: list[bool]) -> PositionMap:
    """Broadcast positions to more of them."""
    before = tuple(a.size for dim in ours for a in dim if not a.units)
    after = tuple(a.size for dim in target for a in dim if not a.units)
    ones: list[int] = []
    for dim, goal in zip(ours, target, strict=True):
        ones += [a.size if dim else 1 for a in goal if not a.units]

    def expand(values: jax.Array) -> jax.Array:
        return jnp.broadcast_to(values.reshape(ones), after)

    return PositionMap(("expand", tuple(ones), after), expand, before, after, True)


def _coefficient(value: Given, dims: Any) -> float | Coefficient:
    """Given numbers, which must be the same for all units."""
    number = value.number
    if number is not None:
        return number
    shape: list[int] = []
    for size, dim in zip(value.shape, dims, strict=True):
        if any(axis.units for axis in dim):
            if size != 1:
                raise NoLimitError(
                    "combines a layer with numbers that differ from unit to unit (inputs that "
                    "skip a layer, or constants), so that its units are not alike"
                )
            shape += [1 for axis in dim if not axis.units]
        else:
            shape += [1] * len(dim) if size == 1 else [axis.size for axis in dim]
    return Coefficient(
        jnp.reshape(value.left, (value.left.shape[0], *shape)),
        jnp.reshape(value.right, (value.right.shape[0], *shape)),
    )


def constant_over(value: Elementwise, ours: Any, dims: Any) -> Elementwise:
    """A statistic of a layer, over the axes of another."""
    constant = value.constant
    if not isinstance(constant, Coefficient):
        return value
    shape, i = [], 0
    sizes = constant.left.shape[1:]
    for dim, goal in zip(ours, dims, strict=True):
        here = [sizes[i + j] for j in range(sum(not axis.units for axis in dim))]
        i += len(here)
        wanted = [axis.size for axis in goal if not axis.units]
        if len(here) == len(wanted) and all(a in (1, b) for a, b in zip(here, wanted, strict=True)):
            shape += here
        elif math.prod(here) == 1:
            shape += [1] * len(wanted)
        else:
            raise NoLimitError("combines positions of one layer with units of another")

    def shaped(values: jax.Array) -> jax.Array:
        return values.reshape(values.shape[0], *shape)

    return Elementwise((), constant.map(shaped))


def _parameter_over(
    operation: Operation, value: Weights, dims: Any, positions: Any, split: list[int]
) -> list[Elementwise]:
    own = layer_dims(value)
    has_units = any(axis.units and axis.size > 1 for dim in dims for axis in dim)
    ours_units, apart = False, []
    for dim, goal in zip(own, dims, strict=True):
        if not dim or goal == dim:
            ours_units |= bool(dim)
            apart.append(False)
        elif all(not axis.units for axis in goal):
            apart.append(True)
        else:
            raise NoLimitError("combines a parameter and a layer of different numbers of units")
    if has_units and not ours_units:
        raise NoLimitError("combines a random number, the same for all units, with a layer")
    if any(apart):
        own = tuple(goal if here else () for goal, here in zip(dims, apart, strict=True))
        inner = tuple(a.size for dim in own for a in dim)
        field_ = parameter_field(value, inner, True, operation.known)
        if inner != positions:
            field_ = mapped(field_, expansion(own, dims, apart))
    else:
        field_ = parameter_field(value, positions, False, operation.known)
    if len(split) == 1:
        return [field_]
    starts = itertools.accumulate([0, *split[:-1]])
    return [share(field_, start) for start in starts]


def elementwise(operation: Operation, *operands: Value) -> Layer:
    """An elementwise function, whatever it is, of functions of one Gaussian field."""

    def run(*arrays: Any) -> Any:
        return operation.bind(*jnp.broadcast_arrays(*map(jnp.asarray, arrays)))

    degree = _degree(operation, operands)
    return _combined(operation, lambda *values: applied(run, values, degree), *operands)


_DEGREES = {"abs": 1.0, "max": 1.0, "min": 1.0, "sqrt": 0.5, "rsqrt": -0.5, "cbrt": 1 / 3} | {
    name: 0.0 for name in "ceil eq floor ge gt is_finite le lt ne round sign".split()
}


def _degree(operation: Operation, operands: Sequence[Value]) -> float | None:
    """Degree of a homogeneous function, 0 of one that jumps."""
    if operation.name == "square":
        return 2.0
    if operation.name == "integer_pow":
        return float(operation.params["y"])
    if operation.name == "pow":
        exponent = operands[1]
        return exponent.number if isinstance(exponent, Given) else None
    return _DEGREES.get(operation.name)


def _combined(operation: Operation, combine: Callable[..., Elementwise], *operands: Value) -> Layer:
    dims, parts = aligned(operation, *operands)
    sizes = _sizes(operands, dims, len(parts))
    return Layer(dims, tuple(zip(sizes, (combine(*part) for part in parts), strict=True)))


def _sizes(operands: Sequence[Value], dims: Any, count: int) -> list[int]:
    if count > 1:
        several = next(o for o in operands if isinstance(o, Layer) and len(o.parts) > 1)
        return [units for units, _ in several.parts]
    return [math.prod(axis.size for dim in dims for axis in dim if axis.units)]


for _name in (
    "abs acos acosh asin asinh atan atan2 atanh and cbrt ceil clamp cos cosh digamma eq erf "
    "erf_inv erfc exp exp2 expm1 floor ge gt is_finite le lgamma log log1p logistic lt max min ne "
    "nextafter not or pow rem round rsqrt sign sin sinh sqrt tan tanh xor"
).split():
    RULES[_name] = elementwise


@rule("square")
def _square(operation: Operation, x: Value) -> Any:
    return _power(operation, x, 2)


@rule("integer_pow")
def _integer_pow(operation: Operation, x: Value) -> Any:
    return _power(operation, x, operation.params["y"])


def _power(operation: Operation, x: Value, y: int) -> Any:
    try:
        return elementwise(operation, x)
    except NoLimitError:
        if y < 2:
            raise
    dims, parts = aligned(operation, x)

    def power(value: Elementwise) -> Elementwise:
        result = value
        for _ in range(y - 1):
            result = multiplied(result, value)
        return result

    sizes = _sizes([x], dims, len(parts))
    return Layer(dims, tuple(zip(sizes, (power(*part) for part in parts), strict=True)))


@rule("add", "add_any")
def _add(operation: Operation, x: Value, y: Value) -> Any:
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Weights) and isinstance(other, Given) and other.number is not None:
            return replace(one, mean=one.mean + other.number)
    return _combined(operation, added, x, y)


@rule("sub")
def _sub(operation: Operation, x: Value, y: Value) -> Any:
    return _combined(operation, lambda a, b: added(a, scaled(b, -1.0)), x, y)


@rule("neg")
def _neg(operation: Operation, x: Any) -> Any:
    if isinstance(x, Weights):
        return x.times(-1.0)
    return x.with_values(lambda value: scaled(value, -1.0))


@rule("mul")
def _mul(operation: Operation, x: Value, y: Value) -> Any:
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Weights) and isinstance(other, Given) and other.number is not None:
            return one.times(other.number)
    return _combined(operation, multiplied, x, y)


@rule("div")
def _div(operation: Operation, x: Any, y: Value) -> Any:
    number = y.number if isinstance(y, Given) else None
    if number is not None:
        by = 1 / number
        return x.times(by) if isinstance(x, Weights) else x.with_values(lambda v: scaled(v, by))

    def divided(a: Elementwise, b: Elementwise) -> Elementwise:
        if b.terms:
            return applied(jnp.divide, (a, b))
        return scaled(a, reciprocal(b.constant))

    return _combined(operation, divided, x, y)


@rule("select_n")
def _select_n(operation: Operation, which: Value, *cases: Value) -> Any:
    if isinstance(which, Given) and which.number is not None:
        chosen = cases[int(which.number)]
        return chosen if chosen.shape == operation.shapes[0] else elementwise(operation, chosen)
    if len(cases) != 2:
        raise NoLimitError("chooses among more than two")

    def select(p: Elementwise, a: Elementwise, b: Elementwise) -> Elementwise:
        if not p.terms and isinstance(p.constant, Coefficient):
            mask = p.constant.map(lambda m: m.astype(float))
            rest = mask.map(lambda m: 1 - m)
            return added(scaled(a, rest), scaled(b, mask))
        return applied(lambda p, a, b: jnp.where(p, b, a), (p, a, b))

    return _combined(operation, select, which, *cases)


@rule("copy", "copy_p", "reduce_precision", "optimization_barrier", "sharding_constraint")
def _same(operation: Operation, *operands: Value) -> Any:
    return operands[0] if len(operands) == 1 else list(operands)


@rule("convert_element_type")
def _convert(operation: Operation, x: Any) -> Any:
    dtype = operation.params["new_dtype"]
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, bool)):
        if isinstance(x, Weights):
            raise NoLimitError("rounds a parameter")
        return elementwise(operation, x)
    if isinstance(x, Weights):
        return x

    def convert(value: Elementwise) -> Elementwise:
        # Comparisons become numbers; the precision of numbers is that of the kernels.
        if value.alone is None or value.alone[1].affine:
            return value
        return applied(lambda v: v.astype(float) if v.dtype == bool else v, (value,))

    return x.with_values(convert)


def data_of(x: Given, features: Sequence[int], dims: Any) -> Data:
    """Given numbers as a field whose units are these axes, over the positions of `dims`."""
    others = [k for k in range(len(x.shape)) if k not in features]
    positions = tuple(axis.size for k in others for axis in dims[k] if not axis.units)

    def arranged(values: Any) -> jax.Array:
        order = (0, *[k + 1 for k in others], *[k + 1 for k in features])
        return jnp.transpose(values, order).reshape(values.shape[0], *positions, -1)

    return Data(positions, False, arranged(x.left), arranged(x.right))

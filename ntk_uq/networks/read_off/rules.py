"""What each of JAX's operations does to given numbers, parameters and random layers.

A rule is a function of an `Operation` and of its operands, each a `Given`, a `Weights` or a
`Layer`; it returns what the operation makes of them. `RULES` has them by the operation's name in a
jaxpr, and takes more::

    from ntk_uq.networks.read_off import RULES, rule

    @rule("cbrt")
    def _(operation, x):
        return elementwise(operation, x)

It raises `NoLimitError` where there is no limit, or none that is known.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ntk_uq.networks.read_off.fields import (
    Coefficient,
    Contraction,
    Data,
    Elementwise,
    Moments,
    PositionMap,
    Reduction,
)
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
    scaled,
    share,
    single,
)

__all__ = ["RULES", "Operation", "aligned", "elementwise", "rule"]

Value = Given | Weights | Layer


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a jaxpr.

    Attributes
    ----------
    name : str
        Of its primitive.
    params : dict
        Of the equation.
    shapes : tuple of tuples
        Of what it returns.
    bind : callable
        The operation itself, on arrays.
    moments : Moments
        Of the fields that layers are made of.
    known : dict
        Fields made so far, so that the same is made once; and how parameters were used.
    """

    name: str
    params: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    bind: Callable[..., Any]
    moments: Moments
    known: dict[Any, Any] = field(default_factory=dict)


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of operations with these names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def on_given(operation: Operation, *operands: Given) -> Any:
    """The operation itself, point by point."""
    constant = all(o.constant for o in operands)

    def run(*sides: Any) -> Any:
        if constant:
            with jax.ensure_compile_time_eval():
                out = operation.bind(*(side[0] for side in sides))
                return jax.tree.map(lambda a: a[None], out)
        axes = tuple(None if o.constant else 0 for o in operands)
        sides = tuple(s[0] if o.constant else s for s, o in zip(sides, operands, strict=True))
        return jax.vmap(operation.bind, axes)(*sides)

    left = run(*(o.left for o in operands))
    right = left if constant else run(*(o.right for o in operands))
    if isinstance(left, (list, tuple)):
        return [Given(a, b, constant) for a, b in zip(left, right, strict=True)]
    return Given(left, right, constant)


# --- Elementwise ----------------------------------------------------------------------------------


def _layer_dims(value: Value) -> tuple[tuple[Axis, ...], ...]:
    if isinstance(value, Layer):
        return value.dims
    if isinstance(value, Weights):
        return tuple(_tidy([Axis(size, True) for _, size in axis]) for axis in value.axes)
    return ((),) * len(value.shape)


def _tidy(dim: Sequence[Axis]) -> tuple[Axis, ...]:
    """Neighbouring units as one."""
    out: list[Axis] = []
    for axis in dim:
        if out and out[-1].units and axis.units:
            out[-1] = Axis(out[-1].size * axis.size, True)
        else:
            out.append(axis)
    return tuple(out)


def _is_random(value: Value) -> bool:
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
        seen = [_layer_dims(o)[k] for o in sorted(operands, key=_order) if _is_random(o)]
        seen += [_layer_dims(o)[k] for o in operands if isinstance(o, Layer)]
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
    has_units = any(axis.units for dim in dims for axis in dim)
    if isinstance(value, Given):
        return [Elementwise((), _coefficient(value, dims))] * len(split)
    if isinstance(value, Weights):
        return _parameter_over(operation, value, dims, positions, split)
    if not _is_random(value):
        ((_, only),) = value.parts
        return [_constant_over(only, value.dims, dims)] * len(split)
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
            (units, share(parts[0][1], start, operation.known))
            for units, start in zip(split, starts, strict=True)
        )
    if value.positions != positions:
        kept = [bool(ours) for ours in value.dims for _ in (0,)]
        map_ = _expansion(value.dims, dims, kept)
        parts = tuple((units, mapped(part, map_, operation.known)) for units, part in parts)
    return [_known_part(part) for _, part in parts]


def _known_part(part: Any) -> Elementwise:
    if not isinstance(part, Elementwise):
        raise NoLimitError("takes inputs that were concatenated with a layer: contract them first")
    return part


def _expansion(ours: Any, target: Any, kept: list[bool]) -> PositionMap:
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


def _constant_over(value: Elementwise, ours: Any, dims: Any) -> Elementwise:
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
    own = _layer_dims(value)
    has_units = any(axis.units for dim in dims for axis in dim)
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
        field_ = parameter_field(value, inner, True)
        if inner != positions:
            field_ = mapped(field_, _expansion(own, dims, apart), operation.known)
    else:
        field_ = parameter_field(value, positions, False)
    if len(split) == 1:
        return [field_]
    starts = itertools.accumulate([0, *split[:-1]])
    return [share(field_, start, operation.known) for start in starts]


def elementwise(operation: Operation, *operands: Value) -> Layer:
    """An elementwise function, whatever it is, of functions of one Gaussian field."""

    def run(*arrays: Any) -> Any:
        return operation.bind(*jnp.broadcast_arrays(*map(jnp.asarray, arrays)))

    return _combined(operation, lambda *values: applied(run, values), *operands)


def _combined(
    operation: Operation, combine: Callable[..., Elementwise], *operands: Value
) -> Layer:
    dims, parts = aligned(operation, *operands)
    sizes = _sizes(operands, dims, len(parts))
    return Layer(dims, tuple(zip(sizes, (combine(*part) for part in parts), strict=True)))


def _sizes(operands: Sequence[Value], dims: Any, count: int) -> list[int]:
    if count > 1:
        several = next(o for o in operands if isinstance(o, Layer) and len(o.parts) > 1)
        return [units for units, _ in several.parts]
    return [math.prod(axis.size for dim in dims for axis in dim if axis.units)]


for _name in (
    "abs acos acosh asin asinh atan atan2 atanh and cbrt ceil clamp cos cosh digamma eq erf erf_inv "
    "erfc exp exp2 expm1 floor ge gt is_finite le lgamma log log1p logistic lt max min ne nextafter "
    "not or pow rem round rsqrt sign sin sinh sqrt tan tanh xor square"
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
    return _combined(operation, added, x, y)


@rule("sub")
def _sub(operation: Operation, x: Value, y: Value) -> Any:
    return _combined(operation, lambda a, b: added(a, scaled(b, -1.0)), x, y)


@rule("neg")
def _neg(operation: Operation, x: Value) -> Any:
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
def _div(operation: Operation, x: Value, y: Value) -> Any:
    if isinstance(y, Given) and y.number is not None:
        if isinstance(x, Weights):
            return x.times(1 / y.number)
        return x.with_values(lambda value: scaled(value, 1 / y.number))

    def divided(a: Elementwise, b: Elementwise) -> Elementwise:
        if b.terms:
            return applied(jnp.divide, (a, b))
        by = b.constant
        return scaled(a, by.map(jnp.reciprocal) if isinstance(by, Coefficient) else 1 / by)

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
def _convert(operation: Operation, x: Value) -> Any:
    if isinstance(x, Weights):
        return x

    def convert(value: Elementwise) -> Elementwise:
        # Comparisons become numbers; the precision of numbers is that of the kernels.
        if value.alone is None or value.alone[1].affine:
            return value
        return applied(lambda v: v.astype(float) if v.dtype == bool else v, (value,))

    return x.with_values(convert)


# --- Shapes ---------------------------------------------------------------------------------------


@rule("reshape")
def _reshape(operation: Operation, x: Value) -> Any:
    return reshaped(operation, x, operation.shapes[0])


@rule("squeeze", "expand_dims")
def _squeeze(operation: Operation, x: Value) -> Any:
    return reshaped(operation, x, operation.shapes[0])


def reshaped(operation: Operation, x: Any, shape: tuple[int, ...]) -> Any:
    """The same entries in another shape: axes joined, or split."""
    if isinstance(x, Weights):
        parts = [(label, size) for axis in x.axes for label, size in axis]
        return replace(x, axes=tuple(map(tuple, _regrouped(parts, shape, _split_label))))
    before = [axis for dim in x.dims for axis in dim]
    dims = _regrouped([(axis.units, axis.size) for axis in before], shape, lambda u, _: u)
    new = tuple(_tidy([Axis(size, units) for units, size in dim]) for dim in dims)
    if len(x.parts) > 1 and sum(axis.units for dim in new for axis in dim) != 1:
        raise NoLimitError("splits the units of concatenated layers")
    return _with_dims(operation, x, new, tuple(range(len(x.positions))))


def _split_label(label: Any, part: int) -> Any:
    return (label, part)


def _regrouped(parts: list[Any], shape: tuple[int, ...], split: Callable[..., Any]) -> list[Any]:
    """Parts of axes dealt out to axes of a new shape."""
    queue = [part for part in parts if part[1] != 1]
    # A unit of length 1 stays one: it is placed at an axis of length 1, or dropped with it.
    out: list[list[Any]] = []
    for size in shape:
        dim: list[Any] = []
        left = size
        while left > 1:
            if not queue:
                raise NoLimitError("reshapes in a way that mixes positions and units")
            label, have = queue.pop(0)
            if left % have == 0:
                dim.append((label, have))
                left //= have
            elif have % left == 0:
                dim.append((split(label, 0), left))
                queue.insert(0, (split(label, 1), have // left))
                left = 1
            else:
                raise NoLimitError("reshapes in a way that mixes positions and units")
        out.append(dim)
    return out


def _with_dims(operation: Operation, x: Layer, dims: Any, order: tuple[int, ...]) -> Layer:
    """The same layer with its positions in this order, and then in the shape of `dims`."""
    before = x.positions
    after = tuple(axis.size for dim in dims for axis in dim if not axis.units)
    identity = order == tuple(range(len(before)))
    if identity and before == after:
        return replace(x, dims=dims)

    def move(values: jax.Array) -> jax.Array:
        return jnp.transpose(values, order).reshape(after)

    map_ = PositionMap(("move", order, after), move, before, after, True)
    return replace(x.with_values(lambda v: mapped(v, map_, operation.known)), dims=dims)


@rule("transpose")
def _transpose(operation: Operation, x: Any) -> Any:
    return transposed(operation, x, operation.params["permutation"])


def transposed(operation: Operation, x: Any, permutation: Sequence[int]) -> Any:
    """Axes in another order."""
    if isinstance(x, Weights):
        return replace(x, axes=tuple(x.axes[k] for k in permutation))
    numbers = itertools.count()
    numbered = [[next(numbers) for axis in dim if not axis.units] for dim in x.dims]
    order = tuple(i for k in permutation for i in numbered[k])
    return _with_dims(operation, x, tuple(x.dims[k] for k in permutation), order)


@rule("broadcast_in_dim")
def _broadcast(operation: Operation, x: Any) -> Any:
    shape, where = operation.shapes[0], operation.params["broadcast_dimensions"]
    own = _layer_dims(x)
    if isinstance(x, Weights):
        if math.prod(shape) == math.prod(x.shape):
            axes = [x.axes[where.index(k)] if k in where else () for k in range(len(shape))]
            return replace(x, axes=tuple(axes))
        layer = Layer(own, ((math.prod(x.shape), parameter_field(x, (), False)),))
        x = layer
    random = _is_random(x)
    dims = []
    placed = []
    for k, size in enumerate(shape):
        dim = own[where.index(k)] if k in where else ()
        placed.append(dim)
        if math.prod(axis.size for axis in dim) != size:
            dim = (Axis(size, not random),)
        dims.append(dim)
    if not random:
        ((units, value),) = x.parts
        units = math.prod(axis.size for dim in dims for axis in dim if axis.units)
        return Layer(tuple(dims), ((units, _constant_over(value, placed, dims)),))
    if tuple(axis.size for dim in dims for axis in dim if not axis.units) == x.positions:
        return replace(x, dims=tuple(dims))
    map_ = _expansion(placed, dims, [])
    return replace(
        x.with_values(lambda value: mapped(value, map_, operation.known)), dims=tuple(dims)
    )


@rule("concatenate")
def _concatenate(operation: Operation, *operands: Any) -> Any:
    k = operation.params["dimension"]
    layers = [o for o in operands if isinstance(o, Layer)]
    if any(isinstance(o, Weights) for o in operands) or not layers:
        raise NoLimitError("joins a parameter with something else")
    dims = layers[0].dims
    if not all(len(o.dims[k]) == 1 and o.dims[k][0].units for o in layers):
        raise NoLimitError("joins layers along positions, or positions with units")
    parts: list[Any] = []
    for o in operands:
        if isinstance(o, Layer):
            if o.dims[:k] + o.dims[k + 1 :] != dims[:k] + dims[k + 1 :]:
                raise NoLimitError("joins layers whose positions differ")
            parts += o.parts
        else:
            parts.append((o.shape[k], _data(o, [k], dims)))
    units = sum(size for size, _ in parts)
    new = (*dims[:k], (Axis(units, True),), *dims[k + 1 :])
    starts = itertools.accumulate([0, *[size for size, _ in parts[:-1]]])
    shared = tuple(
        (size, share(part, start, operation.known) if isinstance(part, Elementwise) else part)
        for (size, part), start in zip(parts, starts, strict=True)
    )
    return Layer(new, shared)


@rule("slice")
def _slice(operation: Operation, x: Any) -> Any:
    p = operation.params
    strides = p["strides"] or (1,) * len(p["start_indices"])
    return _sliced(operation, x, p["start_indices"], p["limit_indices"], strides)


@rule("split")
def _split(operation: Operation, x: Any) -> Any:
    axis, sizes = operation.params["axis"], operation.params["sizes"]
    out, start = [], 0
    for size in map(int, sizes):
        starts, limits = [0] * len(x.shape), list(x.shape)
        starts[axis], limits[axis] = start, start + size
        out.append(_sliced(operation, x, starts, limits, (1,) * len(x.shape)))
        start += size
    return out


@rule("dynamic_slice")
def _dynamic_slice(operation: Operation, x: Any, *starts: Any) -> Any:
    numbers = [s.number if isinstance(s, Given) else None for s in starts]
    if any(n is None for n in numbers):
        raise NoLimitError("takes a part that depends on the point")
    sizes = operation.params["slice_sizes"]
    begin = [
        int(np.clip(n + (size if n < 0 else 0), 0, size - part))
        for n, size, part in zip(numbers, x.shape, sizes, strict=True)
    ]
    end = [b + part for b, part in zip(begin, sizes, strict=True)]
    return _sliced(operation, x, begin, end, (1,) * len(sizes))


def _sliced(operation: Operation, x: Any, starts: Any, limits: Any, strides: Any) -> Any:
    if isinstance(x, Weights):
        if tuple(limits) == x.shape and not any(starts):
            return x
        raise NoLimitError("takes a part of a parameter: make it a parameter of its own")
    dims: list[Any] = []
    cuts: list[tuple[int, int, int]] = []
    parts = x.parts
    for dim, start, limit, stride in zip(x.dims, starts, limits, strides, strict=True):
        size = math.prod(axis.size for axis in dim)
        if (start, limit, stride) == (0, size, 1) or not dim:
            dims.append(dim)
            cuts += [(0, axis.size, 1) for axis in dim if not axis.units]
            continue
        if len(dim) > 1:
            raise NoLimitError("takes a part of positions and units together")
        taken = -(-(limit - start) // stride)
        if dim[0].units:
            if stride != 1 or sum(axis.units for d in x.dims for axis in d) > 1:
                raise NoLimitError("takes units in steps, or of one axis of several")
            parts = _shared_parts(operation, parts, start, limit)
        else:
            cuts.append((start, limit, stride))
        dims.append((Axis(taken, dim[0].units),))
    before = x.positions
    after = tuple(axis.size for dim in dims for axis in dim if not axis.units)
    layer = Layer(tuple(dims), parts)
    if before == after:
        return layer
    index = tuple(slice(*cut) for cut in cuts)
    map_ = PositionMap(("cut", tuple(cuts)), lambda v: v[index], before, after, True)
    return layer.with_values(lambda value: mapped(value, map_, operation.known))


def _shared_parts(operation: Operation, parts: Any, start: int, limit: int) -> Any:
    out, begin = [], 0
    for units, value in parts:
        first, last = max(start, begin), min(limit, begin + units)
        if first < last:
            whole = last - first == units
            value = _known_part(value)
            # Units of a part of a concatenation are independent of the others already.
            if not (whole and len(parts) > 1):
                value = share(value, first, operation.known)
            out.append((last - first, value))
        begin += units
    return tuple(out)


@rule("rev")
def _rev(operation: Operation, x: Layer) -> Any:
    flipped = operation.params["dimensions"]
    if isinstance(x, Weights) or any(axis.units for k in flipped for axis in x.dims[k]):
        raise NoLimitError("reverses units")
    axes, i = [], 0
    for k, dim in enumerate(x.dims):
        for axis in dim:
            if not axis.units:
                axes += [i] if k in flipped else []
                i += 1
    sizes = x.positions
    map_ = PositionMap(
        ("rev", tuple(axes), sizes), lambda v: jnp.flip(v, axes), sizes, sizes, True
    )
    return x.with_values(lambda value: mapped(value, map_, operation.known))


# --- Sums -----------------------------------------------------------------------------------------


@rule("reduce_sum")
def _reduce_sum(operation: Operation, x: Any) -> Any:
    if isinstance(x, Weights):
        raise NoLimitError("sums a parameter")
    axes = operation.params["axes"]
    kept = tuple(dim for k, dim in enumerate(x.dims) if k not in axes)
    summed, i = [], 0
    for k, dim in enumerate(x.dims):
        for axis in dim:
            if not axis.units:
                summed += [i] if k in axes else []
                i += 1
    units = [axis.size for k in axes for axis in x.dims[k] if axis.units]
    if units:
        return _mean_over_units(operation, x, kept, summed, math.prod(units))
    before = x.positions
    after = tuple(size for i, size in enumerate(before) if i not in summed)
    map_ = PositionMap(
        ("sum", tuple(summed), before), lambda v: jnp.sum(v, tuple(summed)), before, after, False
    )
    return replace(
        x.with_values(lambda value: mapped(value, map_, operation.known)), dims=kept
    )


def _mean_over_units(
    operation: Operation, x: Layer, kept: Any, summed: list[int], units: int
) -> Layer:
    """The law of large numbers: a sum over units is their number times their mean."""
    if operation.known["outputs"] in [a.size for dim in x.dims for a in dim if a.units]:
        raise NoLimitError("sums over the outputs, of which there are few")
    moments, total = operation.moments, x.units
    positions = x.positions
    sides = []
    for side in (1, 2):
        value = None
        for size, part in x.parts:
            mean = moments.mean_of_value(_known_part(part), side)
            if mean is not None:
                mean = size / total * mean
                value = mean if value is None else value + mean
        if value is not None:
            value = jnp.broadcast_to(value, (value.shape[0], *positions))
            value = units * jnp.sum(value, tuple(i + 1 for i in summed))
        sides.append(value)
    constant = 0.0 if sides[0] is None else Coefficient(*sides)
    count = math.prod(a.size for dim in kept for a in dim if a.units)
    return Layer(kept, ((count, Elementwise((), constant)),))


@rule("reduce_window_sum")
def _reduce_window_sum(operation: Operation, x: Layer) -> Any:
    p = operation.params
    rank = len(x.dims)
    dilation = p.get("window_dilation") or (1,) * rank
    base = p.get("base_dilation") or (1,) * rank
    columns = list(
        zip(p["window_dimensions"], p["window_strides"], p["padding"], base, dilation, strict=True)
    )
    windows, dims = [], []
    for dim, column, size in zip(x.dims, columns, operation.shapes[0], strict=True):
        if column[0] == column[1] == 1 and tuple(column[2]) == (0, 0):
            windows += [(1, 1, (0, 0), 1, 1) for axis in dim if not axis.units]
            dims.append(dim)
        elif len(dim) == 1 and not dim[0].units:
            windows.append(column)
            dims.append((Axis(size, False),))
        else:
            raise NoLimitError("sums over windows of units")
    before = x.positions
    after = tuple(axis.size for dim in dims for axis in dim if not axis.units)
    sizes, strides, padding, base, dilation = (list(part) for part in zip(*windows, strict=True))

    def pool(values: jax.Array) -> jax.Array:
        return lax.reduce_window(
            values, 0.0, lax.add, sizes, strides, padding, base, dilation
        )

    map_ = PositionMap(("window", repr(windows)), pool, before, after, False)
    return replace(
        x.with_values(lambda value: mapped(value, map_, operation.known)), dims=tuple(dims)
    )


# --- Products with parameters ---------------------------------------------------------------------


def _data(x: Given, features: Sequence[int], dims: Any) -> Data:
    """Given numbers as a field whose units are these axes, over the positions of `dims`."""
    others = [k for k in range(len(x.shape)) if k not in features]
    positions = tuple(axis.size for k in others for axis in dims[k] if not axis.units)

    def arranged(values: Any) -> jax.Array:
        order = (0, *[k + 1 for k in others], *[k + 1 for k in features])
        return jnp.transpose(values, order).reshape(values.shape[0], *positions, -1)

    return Data(positions, False, arranged(x.left), arranged(x.right))


@rule("dot_general")
def _dot_general(operation: Operation, a: Any, b: Any) -> Any:
    (ca, cb), (ba, bb) = operation.params["dimension_numbers"]
    if isinstance(a, Weights) and not isinstance(b, Weights):
        out = _product(operation, b, a, cb, ca, bb or ba)
        free = len(a.shape) - len(ca)
        rank = len(out.dims)
        order = [*range(rank - free, rank), *range(rank - free)]
        return transposed(operation, out, order)
    if isinstance(b, Weights) and not isinstance(a, Weights):
        return _product(operation, a, b, ca, cb, ba or bb)
    for x, c, batch, given, contracted in ((a, ca, ba, b, cb), (b, cb, bb, a, ca)):
        if isinstance(x, Layer) and isinstance(given, Given) and given.constant:
            if not batch and not any(axis.units for k in c for axis in x.dims[k]):
                return _mixed(operation, x, given, c, contracted, x is a)
    if isinstance(a, Weights) and isinstance(b, Weights):
        raise NoLimitError("multiplies two parameters")
    raise NoLimitError(
        "is a product of two random layers, or of one with numbers, over its units (attention is "
        "one)"
    )


def _mixed(
    operation: Operation, x: Layer, given: Given, c: Any, contracted: Any, first: bool
) -> Layer:
    """Positions times a constant matrix."""
    if any(len(x.dims[k]) != 1 for k in c):
        raise NoLimitError("multiplies joined positions by constants")
    matrix = jnp.asarray(given.left)[0]
    places, i = {}, 0
    for k, dim in enumerate(x.dims):
        for axis in dim:
            if not axis.units:
                places[k] = i if k in c else -1
                i += 1
    axes = [places[k] for k in c]
    others = [j for j in range(matrix.ndim) if j not in contracted]
    free = [k for k in range(len(x.dims)) if k not in c]
    dims_x = tuple(x.dims[k] for k in free)
    dims_m = tuple((Axis(matrix.shape[j], False),) if matrix.shape[j] > 1 else () for j in others)
    sizes_m = [matrix.shape[j] for j in others if matrix.shape[j] > 1]
    before = x.positions
    kept = [size for i, size in enumerate(before) if i not in axes]
    after = tuple([*kept, *sizes_m] if first else [*sizes_m, *kept])

    def mix(values: jax.Array) -> jax.Array:
        if first:
            return jnp.tensordot(values, matrix, (axes, list(contracted))).reshape(after)
        return jnp.tensordot(matrix, values, (list(contracted), axes)).reshape(after)

    map_ = PositionMap(("mix", id(given), tuple(axes), first), mix, before, after, False)
    operation.known["kept", id(given)] = given
    dims = (*dims_x, *dims_m) if first else (*dims_m, *dims_x)
    return replace(x.with_values(lambda v: mapped(v, map_, operation.known)), dims=dims)


def _product(
    operation: Operation, x: Any, w: Weights, cx: Sequence[int], cw: Sequence[int], batch: Any
) -> Layer:
    """Sum over all units, and perhaps positions, with fresh weights."""
    if batch:
        raise NoLimitError("multiplies by weights that differ from position to position")
    _check_weights(operation, w, cw)
    free = [k for k in range(len(x.shape)) if k not in cx]
    outputs = [_layer_dims(w)[k] for k in range(len(w.shape)) if k not in cw]
    if isinstance(x, Given):
        dims = tuple((Axis(s, False),) if s > 1 else () for s in x.shape)
        sources: Any = ((1, _data(x, list(cx), dims)),)
        kept, positions, summed = [dims[k] for k in free], sources[0][1].positions, ()
    else:
        if any(axis.units for k in free for axis in x.dims[k]):
            raise NoLimitError("multiplies a layer by a parameter over some of its units only")
        if not any(axis.units for k in cx for axis in x.dims[k]) and x.units > 1:
            raise NoLimitError("multiplies a layer by a parameter over positions only")
        kept = [x.dims[k] for k in free]
        positions, sources = x.positions, x.parts
        summed, i = (), 0
        for k, dim in enumerate(x.dims):
            for axis in dim:
                if not axis.units:
                    summed += (i,) if k in cx else ()
                    i += 1
    remaining = tuple(size for i, size in enumerate(positions) if i not in summed)
    key = w.path, tuple(w.axes[k] for k in cw), positions, summed
    contraction = Contraction(
        remaining, True, key, w.scale, w.rate, sources, _sum_over(key, len(positions), summed)
    )
    count = math.prod(axis.size for dim in outputs for axis in dim)
    return Layer((*kept, *outputs), ((count, single(contraction)),))


def _check_weights(operation: Operation, w: Weights, contracted: Sequence[int]) -> None:
    if w.mean:
        raise NoLimitError(
            f"multiplies a layer by the parameter {w.path}, whose entries start about {w.mean:g} "
            "and not 0"
        )
    axes = tuple(w.axes[k] for k in contracted)
    used = operation.known.setdefault(("used", w.path), axes)
    if used != axes:
        raise NoLimitError(
            f"uses the parameter {w.path} a second time over other axes (tied weights, transposed)"
        )
    if operation.known["own"] and w.rate != w.scale:
        raise NoLimitError(
            f"multiplies by the parameter {w.path}, which starts at {w.scale:g} times N(0, 1): in "
            "the module's own parameterisation the tangent kernel grows with the width"
        )


def _sum_over(key: Any, count: int, summed: tuple[int, ...]) -> Reduction:
    """Sums over positions that both points share."""
    letters = "abcdefg"[:count]
    kept = "".join(letter for i, letter in enumerate(letters) if i not in summed)
    others = "".join(c if i in summed else c.upper() for i, c in enumerate(letters))

    def same(values: jax.Array) -> jax.Array:
        return jnp.einsum(f"...{letters}->...{kept}", values)

    def full(values: jax.Array) -> jax.Array:
        return jnp.einsum(f"...{letters}{others}->...{kept}{kept.upper()}", values)

    return Reduction(key, same, full, lambda _: True)


@rule("conv_general_dilated")
def _convolution(operation: Operation, x: Any, w: Any) -> Any:
    p = operation.params
    if not isinstance(w, Weights) or isinstance(x, Weights):
        raise NoLimitError("convolves with something else than a parameter")
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        raise NoLimitError("convolves in groups: a sum over few channels has no limit")
    lhs, rhs, out = p["dimension_numbers"]
    spatial = len(lhs) - 2
    order = (lhs[0], *lhs[2:], lhs[1])
    window = tuple(w.shape[k] for k in rhs[2:])
    _check_weights(operation, w, rhs[1:])
    channels = _layer_dims(w)[rhs[0]]
    sizes = tuple(operation.shapes[0][k] for k in out[2:])
    if isinstance(x, Given):
        batch, inputs = x.shape[lhs[0]], tuple(x.shape[k] for k in lhs[2:])
        lead: tuple[Axis, ...] = (Axis(batch, False),) if batch > 1 else ()
        dims: Any = [()] * len(x.shape)
        dims[lhs[0]] = lead
        for k, size in zip(lhs[2:], inputs, strict=True):
            dims[k] = (Axis(size, False),)
        moved = Given(
            jnp.transpose(x.left, (0, *[k + 1 for k in order])),
            jnp.transpose(x.right, (0, *[k + 1 for k in order])),
        )
        sources: Any = ((1, _data(moved, [spatial + 1], [dims[k] for k in order])),)
    else:
        x = transposed(operation, x, order)
        inputs = tuple(x.shape[1:-1])
        lead = x.dims[0]
        if any(axis.units for dim in x.dims[:-1] for axis in dim) or not x.dims[-1]:
            raise NoLimitError("convolves over units")
        x = _with_dims(
            operation, x, (lead, *((Axis(s, False),) for s in inputs), x.dims[-1]),
            tuple(range(len(x.positions))),
        )  # fmt: skip
        sources = x.parts
    before = tuple(axis.size for axis in lead)
    geometry = window, p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"]
    key = w.path, tuple(w.axes[k] for k in rhs[1:]), inputs, repr(geometry)
    reduction = _patches(key, len(before), inputs, sizes, *geometry)
    contraction = Contraction(
        (*before, *sizes), True, key, w.scale, w.rate, sources, reduction
    )
    count = math.prod(axis.size for axis in channels)
    layer = Layer(
        (lead, *((Axis(s, False),) for s in sizes), channels), ((count, single(contraction)),)
    )
    canonical = (out[0], *out[2:], out[1])
    return transposed(operation, layer, np.argsort(canonical).tolist())


def _patches(
    key: Any, lead: int, inputs: Any, outputs: Any, window: Any, strides: Any, padding: Any,
    base: Any, dilation: Any,
) -> Reduction:  # fmt: skip
    """Sums over the offsets of a window, the same at both points."""
    spatial = len(window)

    def shifted(values: jax.Array, start: int, offset: Sequence[int]) -> jax.Array:
        """What the window's entry at an offset sees, for axes from `start` on."""
        config = [(0, 0, 0)] * values.ndim
        index: list[Any] = [slice(None)] * values.ndim
        for k in range(spatial):
            axis = start + k
            config[axis] = (*padding[k], base[k] - 1)
            first = offset[k] * dilation[k]
            index[axis] = slice(first, first + strides[k] * (outputs[k] - 1) + 1, strides[k])
        zero = jnp.zeros((), values.dtype)
        return lax.pad(values, zero, config)[tuple(index)]

    def summed(values: jax.Array, starts: Sequence[int]) -> jax.Array:
        total = None
        for offset in itertools.product(*map(range, window)):
            part = values
            for start in starts:
                part = shifted(part, start, offset)
            total = part if total is None else total + part
        return total

    def same(values: jax.Array) -> jax.Array:
        return summed(values, (values.ndim - spatial,))

    def full(values: jax.Array) -> jax.Array:
        return summed(values, (values.ndim - 2 * spatial - lead, values.ndim - spatial))

    padded = any(tuple(pad) != (0, 0) for pad in padding) or any(b != 1 for b in base)
    return Reduction(key, same, full, lambda is_full: not (is_full and padded))


# --- No rule --------------------------------------------------------------------------------------

REASONS = {
    "reduce_window_max": "takes the maximum over positions, which has no known limit; an average "
    "(nnx.avg_pool) has one",
    "reduce_max": "takes the maximum of a layer (softmax and maxima do), which has no known limit",
    "reduce_min": "takes the minimum of a layer, which has no known limit",
    "scan": "is a loop over layers; write it as a Python loop over nnx.List",
    "while": "is a loop of unknown length",
    "cond": "takes a branch that depends on a random layer",
    "stop_gradient": "stops the gradient, so that the tangent kernel is of no function",
    "gather": "picks entries by an index; a slice has a limit",
    "sort": "sorts random numbers",
    "argmax": "takes the largest of random numbers",
    "random_bits": "draws random numbers: the network is no function of its parameters and input",
}

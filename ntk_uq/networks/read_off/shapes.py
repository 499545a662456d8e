"""Rules of operations that move entries: reshapes, transposes, slices, concatenations."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ntk_uq.networks.read_off.elementwise import (
    constant_over,
    data_of,
    expansion,
    is_random,
    known_part,
    layer_dims,
    tidy,
)
from ntk_uq.networks.read_off.fields import Elementwise, Field, Linear, PositionMap, Term
from ntk_uq.networks.read_off.rules import Operation, Value, rule
from ntk_uq.networks.read_off.values import (
    Axis,
    Given,
    Layer,
    NoLimitError,
    Weights,
    mapped,
    moved,
    parameter_field,
    share,
)

__all__ = ["reshaped", "transposed", "with_dims"]


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
    new = tuple(tidy([Axis(size, units) for units, size in dim]) for dim in dims)
    if len(x.parts) > 1 and sum(axis.units for dim in new for axis in dim) != 1:
        raise NoLimitError("splits the units of concatenated layers")
    return with_dims(operation, x, new, tuple(range(len(x.positions))))


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


def with_dims(operation: Operation, x: Layer, dims: Any, order: tuple[int, ...]) -> Layer:
    """The same layer with its positions in this order, and then in the shape of `dims`."""
    before = x.positions
    after = tuple(axis.size for dim in dims for axis in dim if not axis.units)
    identity = order == tuple(range(len(before)))
    if identity and before == after:
        return replace(x, dims=dims)

    def move(values: jax.Array) -> jax.Array:
        return jnp.transpose(values, order).reshape(after)

    map_ = PositionMap(("move", order, after), move, before, after, True)
    return replace(x.with_values(lambda v: mapped(v, map_)), dims=dims)


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
    return with_dims(operation, x, tuple(x.dims[k] for k in permutation), order)


@rule("broadcast_in_dim")
def _broadcast(operation: Operation, x: Any) -> Any:
    shape, where = operation.shapes[0], operation.params["broadcast_dimensions"]
    own = layer_dims(x)
    if isinstance(x, Weights):
        if math.prod(shape) == math.prod(x.shape):
            axes = [x.axes[where.index(k)] if k in where else () for k in range(len(shape))]
            return replace(x, axes=tuple(axes))
        layer = Layer(own, ((math.prod(x.shape), parameter_field(x, (), False, operation.known)),))
        x = layer
    random = is_random(x)
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
        return Layer(tuple(dims), ((units, constant_over(value, placed, dims)),))
    if tuple(axis.size for dim in dims for axis in dim if not axis.units) == x.positions:
        return replace(x, dims=tuple(dims))
    map_ = expansion(placed, dims, [])
    return replace(x.with_values(lambda value: mapped(value, map_)), dims=tuple(dims))


@rule("concatenate")
def _concatenate(operation: Operation, *operands: Any) -> Any:
    k = operation.params["dimension"]
    layers = [o for o in operands if isinstance(o, Layer)]
    if any(isinstance(o, Weights) for o in operands) or not layers:
        raise NoLimitError("joins a parameter with something else")
    dims = layers[0].dims
    if not all(len(o.dims[k]) == 1 and o.dims[k][0].units for o in layers):
        return _joined_positions(operation, operands, k)
    parts: list[Any] = []
    for o in operands:
        if isinstance(o, Layer):
            if o.dims[:k] + o.dims[k + 1 :] != dims[:k] + dims[k + 1 :]:
                raise NoLimitError("joins layers whose positions differ")
            parts += o.parts
        else:
            parts.append((o.shape[k], data_of(o, [k], dims)))
    units = sum(size for size, _ in parts)
    new = (*dims[:k], (Axis(units, True),), *dims[k + 1 :])
    return Layer(new, tuple(parts))


def _joined_positions(operation: Operation, operands: Sequence[Any], k: int) -> Layer:
    """Positions of one layer beside one another, as periodic padding puts them."""
    if not all(
        isinstance(o, Layer)
        and not any(axis.units for axis in o.dims[k])
        and o.dims[:k] + o.dims[k + 1 :] == operands[0].dims[:k] + operands[0].dims[k + 1 :]
        and len(o.parts) == len(operands[0].parts)
        for o in operands
    ):
        raise NoLimitError("joins positions with units, or of different layers")
    before = operands[0].dims[:k]
    axis = sum(not a.units for dim in before for a in dim)
    flat = [
        with_dims(
            operation, o, (*before, (Axis(o.shape[k], False),), *o.dims[k + 1 :]),
            tuple(range(len(o.positions))),
        )
        for o in operands
    ]  # fmt: skip
    parts = tuple(
        (same[0][0], _joined_values([value for _, value in same], axis))
        for same in zip(*(o.parts for o in flat), strict=True)
    )
    size = sum(o.shape[k] for o in operands)
    return Layer((*before, (Axis(size, False),), *operands[0].dims[k + 1 :]), parts)


def _joined_values(values: Sequence[Any], axis: int) -> Elementwise:
    """One value over the positions of several, which are the same function of the same fields."""
    first, *others = (known_part(value) for value in values)
    alike = all(
        value.constant == first.constant
        and len(value.terms) == len(first.terms)
        and all(
            [f for _, f in s.factors] == [f for _, f in t.factors]
            for s, t in zip(value.terms, first.terms, strict=True)
        )
        for value in others
    )
    if not alike:
        raise NoLimitError("joins positions of different layers")
    terms = []
    for same in zip(*(value.terms for value in (first, *others)), strict=True):
        factors = zip(*(term.factors for term in same), strict=True)
        terms.append(
            Term(tuple((_joined_field([u for u, _ in of], axis), of[0][1]) for of in factors))
        )
    return Elementwise(tuple(terms), first.constant)


def _joined_field(fields: Sequence[Field], axis: int) -> Field:
    """Picks of one field's positions beside one another."""
    chains = [_picked_from(u) for u in fields]
    source = next(
        (u for u, _ in chains[0] if all(any(u is v for v, _ in chain) for chain in chains)), None
    )
    if source is None:
        raise NoLimitError("joins positions of different layers")
    maps = [next(maps for u, maps in chain if u is source) for chain in chains]

    def join(values: jax.Array) -> jax.Array:
        picked = [functools.reduce(lambda v, m: m.function(v), those, values) for those in maps]
        return jnp.concatenate(picked, axis)

    sizes = list(fields[0].positions)
    sizes[axis] = sum(u.positions[axis] for u in fields)
    key = "join", axis, tuple(tuple((m.key, m.after) for m in those) for those in maps)
    return moved(source, PositionMap(key, join, source.positions, tuple(sizes), True))


def _picked_from(u: Field) -> list[tuple[Field, tuple[PositionMap, ...]]]:
    """What a field's positions are picked from, and by which maps: itself first, by none."""
    chain: list[tuple[Field, tuple[PositionMap, ...]]] = [(u, ())]
    while isinstance(u, Linear) and u.map.picks:
        chain.append((u.source, (u.map, *chain[-1][1])))
        u = u.source
    return chain


@rule("pad")
def _pad(operation: Operation, x: Any, value: Any) -> Any:
    if isinstance(x, Weights) or not (isinstance(value, Given) and value.number == 0):
        raise NoLimitError("pads a parameter, or a layer by something else than 0")
    config, dims = [], []
    for dim, how, size in zip(
        x.dims, operation.params["padding_config"], operation.shapes[0], strict=True
    ):
        if tuple(how) == (0, 0, 0):
            config += [(0, 0, 0) for axis in dim if not axis.units]
            dims.append(dim)
        elif len(dim) == 1 and not dim[0].units:
            config.append(tuple(how))
            dims.append((Axis(size, False),))
        else:
            raise NoLimitError("pads units")
    after = tuple(axis.size for dim in dims for axis in dim if not axis.units)

    def pad(values: jax.Array) -> jax.Array:
        return lax.pad(values, jnp.zeros((), values.dtype), config)

    map_ = PositionMap(("pad", tuple(config)), pad, x.positions, after, False)
    return replace(x.with_values(lambda value: mapped(value, map_)), dims=tuple(dims))


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
    numbers: list[Any] = [s.number if isinstance(s, Given) else None for s in starts]
    if None in numbers:
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
        if tuple(limits) == x.shape and not any(starts) and set(strides) <= {1}:
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
    return layer.with_values(lambda value: mapped(value, map_))


def _shared_parts(operation: Operation, parts: Any, start: int, limit: int) -> Any:
    out, begin = [], 0
    for units, value in parts:
        first, last = max(start, begin), min(limit, begin + units)
        if first < last:
            value = known_part(value)
            # In the part's own count of its units: the same units are the same field.
            if last - first < units:
                value = share(value, first - begin)
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
    map_ = PositionMap(("rev", tuple(axes), sizes), lambda v: jnp.flip(v, axes), sizes, sizes, True)
    return x.with_values(lambda value: mapped(value, map_))

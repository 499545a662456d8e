"""Rules of sums over positions and over units."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ntk_uq.networks.read_off.elementwise import known_part
from ntk_uq.networks.read_off.fields import (
    Coefficient,
    Elementwise,
    PositionMap,
)
from ntk_uq.networks.read_off.large_numbers import Sum, joined
from ntk_uq.networks.read_off.rules import Operation, rule
from ntk_uq.networks.read_off.values import (
    Axis,
    Layer,
    NoLimitError,
    Weights,
    mapped,
    size_of,
)

__all__ = []


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
        ("sum", tuple(summed), before), lambda v: jnp.sum(v, tuple(summed)), before, after, False,
        math.prod(before[i] for i in summed),
    )  # fmt: skip
    return replace(x.with_values(lambda value: mapped(value, map_)), dims=kept)


def _mean_over_units(
    operation: Operation, x: Layer, kept: Any, summed: list[int], units: int
) -> Layer:
    """The law of large numbers: a sum over units is their number times their mean."""
    if operation.known["outputs"] in [a.size for dim in x.dims for a in dim if a.units]:
        raise NoLimitError("sums over the outputs, of which there are few")
    moments, total = operation.moments, x.units
    positions = x.positions
    sides: list[Any] = []
    for side in (1, 2):
        value = None
        for size, part in x.parts:
            mean = moments.mean_of_value(known_part(part), side)
            if mean is not None:
                mean = size / total * mean
                value = mean if value is None else value + mean
        if value is not None:
            value = jnp.broadcast_to(value, (value.shape[0], *positions))
            value = units * jnp.sum(value, tuple(i + 1 for i in summed))
        sides.append(value)
    count = math.prod(a.size for dim in kept for a in dim if a.units)
    entries = units * math.prod(positions[i] for i in summed)
    own = Sum(entries, units, count, sides[0] is None)
    found = [_sum_of(part, own) for _, part in x.parts]
    if sides[0] is None:
        sizes = tuple(size for i, size in enumerate(positions) if i not in summed)
        sides = [jnp.zeros((1, *sizes))] * 2
    constant = Coefficient(*sides).of(joined(*found))
    return Layer(kept, ((count, Elementwise((), constant)),))


def _sum_of(part: Any, own: Sum) -> Sum | None:
    """What a sum over units is one of: these, or, where they are one number, those it is from."""
    if part.terms:
        return replace(own, size=size_of(part))
    constant = part.constant
    if isinstance(constant, Coefficient) and constant.sum:
        return constant.sum.multiple(own.times)
    return None


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
        return lax.reduce_window(values, 0.0, lax.add, sizes, strides, padding, base, dilation)

    map_ = PositionMap(("window", repr(windows)), pool, before, after, False, math.prod(sizes))
    return replace(x.with_values(lambda value: mapped(value, map_)), dims=tuple(dims))

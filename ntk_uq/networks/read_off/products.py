"""Rules of products with parameters: dense layers and convolutions."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ntk_uq.networks.read_off.elementwise import data_of, layer_dims
from ntk_uq.networks.read_off.fields import (
    Coefficient,
    Contraction,
    Data,
    Elementwise,
    PositionMap,
    Reduction,
)
from ntk_uq.networks.read_off.rules import Operation, Value, rule
from ntk_uq.networks.read_off.shapes import transposed, with_dims
from ntk_uq.networks.read_off.values import (
    Axis,
    Given,
    Layer,
    NoLimitError,
    Weights,
    mapped,
    settled,
    single,
)

__all__ = []


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
    joined = tuple(
        (Axis(math.prod(axis.size for axis in dim), False),) if k in c and dim else dim
        for k, dim in enumerate(x.dims)
    )
    x = with_dims(operation, x, joined, tuple(range(len(x.positions))))
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

    most = np.abs(np.asarray(given.left)[0]).sum(tuple(contracted)).max(initial=0.0)
    key = "mix", id(given), tuple(axes), first
    map_ = PositionMap(key, mix, before, after, False, float(most))
    operation.known["kept", id(given)] = given
    dims = (*dims_x, *dims_m) if first else (*dims_m, *dims_x)
    return replace(x.with_values(lambda v: mapped(v, map_)), dims=dims)


def _product(
    operation: Operation, x: Any, w: Weights, cx: Sequence[int], cw: Sequence[int], batch: Any
) -> Layer:
    """Sum over all units, and perhaps positions, with fresh weights."""
    if batch:
        raise NoLimitError("multiplies by weights that differ from position to position")
    free = [k for k in range(len(x.shape)) if k not in cx]
    outputs = [layer_dims(w)[k] for k in range(len(w.shape)) if k not in cw]
    if isinstance(x, Given):
        dims = tuple((Axis(s, False),) if s > 1 else () for s in x.shape)
        sources: Any = ((1, data_of(x, list(cx), dims)),)
        kept, positions = [dims[k] for k in free], sources[0][1].positions
        summed: tuple[int, ...] = ()
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
    _check_weights(operation, w, key, sources)
    reduction = _sum_over(key, len(positions), summed)
    contraction = _contraction(operation, x, Contraction(
        remaining, True, key, w.scale, w.rate, sources, reduction
    ))  # fmt: skip
    count = math.prod(axis.size for dim in outputs for axis in dim)
    return Layer((*kept, *outputs), ((count, single(contraction)),))


def _contraction(operation: Operation, x: Value, new: Contraction) -> Contraction:
    """The product of the same layer with the same parameter, if it was taken before."""
    key = new.key, new.scale, id(x.parts if isinstance(x, Layer) else x)
    return operation.known.setdefault(key, (new, x))[0]


def _check_weights(operation: Operation, w: Weights, key: Any, sources: Any) -> None:
    """Refuse weights that start elsewhere, and a second use that is not alike the first."""
    if w.mean:
        raise NoLimitError(
            f"multiplies a layer by the parameter {w.path}, whose entries start about {w.mean:g} "
            "and not 0"
        )
    if any(units > 1 and _is_statistic(part) for units, part in sources):
        raise NoLimitError(
            "multiplies a parameter by means over units, one for each of several groups: of few "
            "units they have no limit"
        )
    for _, part in sources:
        if isinstance(part, Elementwise):
            settled(part.constant)
    use = key, tuple((units, isinstance(part, Data)) for units, part in sources)
    used = operation.known.setdefault(("used", w.path), use)
    if used[0][1] != key[1]:
        raise NoLimitError(
            f"uses the parameter {w.path} a second time over other axes (tied weights, transposed)"
        )
    if used != use:
        raise NoLimitError(
            f"uses the parameter {w.path} a second time in another way: over other positions, or "
            "a layer that is put together of other parts"
        )
    if w.rate != w.scale:
        raise NoLimitError(
            f"multiplies by the parameter {w.path}, which starts at {w.scale:g} times N(0, 1): in "
            "the module's own parameterisation the tangent kernel grows with the width"
        )


def _is_statistic(part: Elementwise | Data) -> bool:
    """Whether all units are one number for each point, as means over units are."""
    return (
        isinstance(part, Elementwise) and not part.terms and isinstance(part.constant, Coefficient)
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
    original = x
    lhs, rhs, out = p["dimension_numbers"]
    spatial = len(lhs) - 2
    order = (lhs[0], *lhs[2:], lhs[1])
    window = tuple(w.shape[k] for k in rhs[2:])
    channels = layer_dims(w)[rhs[0]]
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
        sources: Any = ((1, data_of(moved, [spatial + 1], [dims[k] for k in order])),)
    else:
        x = transposed(operation, x, order)
        inputs = tuple(x.shape[1:-1])
        lead = x.dims[0]
        if any(axis.units for dim in x.dims[:-1] for axis in dim) or not x.dims[-1]:
            raise NoLimitError("convolves over units")
        x = with_dims(
            operation, x, (lead, *((Axis(s, False),) for s in inputs), x.dims[-1]),
            tuple(range(len(x.positions))),
        )  # fmt: skip
        sources = x.parts
    before = tuple(axis.size for axis in lead)
    geometry = window, p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"]
    key = w.path, tuple(w.axes[k] for k in rhs[1:]), inputs, repr(geometry)
    _check_weights(operation, w, (*key, before), sources)
    reduction = _patches(key, len(before), inputs, sizes, *geometry)
    contraction = _contraction(operation, original, Contraction(
        (*before, *sizes), True, key, w.scale, w.rate, sources, reduction
    ))  # fmt: skip
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
        total: Any = None
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

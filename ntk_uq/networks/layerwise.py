"""Derivatives of a network's outputs by its parameters, layer by layer, point by point.

A weight W [k, m] that is used once, in h W with one row h for each point, has the derivative
h (x) g, with g the gradient by the product. It is kept in this form: its part of the tangent
kernel, (h . h') (g . g'), costs k + C^2 m where C^2 k m numbers would be multiplied. The derivative
by a convolution's kernel is a sum of such over the output's positions, with patches of the input
for rows: where it has few positions it is kept in this form as well, else it is formed. Vectorised
by JAX it would be a convolution with a group for each point, which is slow. Such weights are found
in the jaxpr of the forward pass; of all others JAX forms the derivatives.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core

from ntk_uq._common.machine import cores, one_blas_thread
from ntk_uq._common.side_by_side import side_by_side

__all__ = ["Rows", "jacobian_of", "kernel_of", "pull_of", "push_of", "rows_of"]

Function = Callable[
    [list[Array], Array], Array
]  # (arrays of parameters, points [n, ...]) -> [n, C]
# Derivatives at b points by each array of p parameters: (J [b, C, p],), or with p = k m factors
# (h [b, q, k], g [b, C, q, m]) at q positions, of a dense layer one.
Rows = list[tuple[Array, ...]]

# Many small products run at half the rate of a large one.
_GAIN = 2
# Points whose patches are multiplied at once: of one, products are as slow as reading the others.
_TOGETHER = 8

_product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def rows_of(function: Function, params: list[Array], x: Array) -> Rows:
    """Derivatives at points x [b, ...]; traceable."""
    closed = jax.make_jaxpr(function)(params, x[:1])
    taps = _tapped_products(closed.jaxpr, len(params))
    equations = {weight: closed.jaxpr.eqns[k] for k, weight in taps.items()}

    def outputs(moving: dict[int, Array], shifts: list[Array], point: Array) -> Any:
        full = [moving.get(i, param) for i, param in enumerate(params)]
        (f,), inputs = _evaluate(closed, [*full, point[None]], list(taps), shifts)
        seen = [_seen(eqn, h) for eqn, h in zip(equations.values(), inputs, strict=True)]
        return f[0], seen

    products: list[Any] = [eqn.outvars[0].aval for eqn in equations.values()]
    shifts = [jnp.zeros(aval.shape, aval.dtype) for aval in products]
    moving = {i: param for i, param in enumerate(params) if i not in equations}
    derivatives = jax.jacrev(outputs, (0, 1), has_aux=True)
    (of_moving, of_shifts), inputs = jax.vmap(derivatives, (None, None, 0))(moving, shifts, x)

    rows: dict[int, tuple[Array, ...]]
    rows = {i: (d.reshape(*d.shape[:2], -1),) for i, d in of_moving.items()}
    for (weight, eqn), h, g in zip(equations.items(), inputs, of_shifts, strict=True):
        rows[weight] = _dense(h, g) if eqn.primitive.name == "dot_general" else _conv(eqn, h, g)
    return [rows[i] for i in range(len(params))]


def kernel_of(left: Rows, right: Rows, xp: Any = jnp) -> Any:
    """Products of derivatives, summed over parameters: [b1, C, b2, C].

    By NumPy (`xp`) if these are its arrays: its products are twice as fast on a CPU as JAX's.
    """
    how = {} if xp is np else {"precision": lax.Precision.HIGHEST}

    def products(u: Any, v: Any) -> Any:
        flat = xp.matmul(u.reshape(-1, u.shape[-1]), v.reshape(-1, v.shape[-1]).T, **how)
        return flat.reshape(*u.shape[:-1], *v.shape[:-1])

    formed = [(u[0], v[0]) for u, v in zip(left, right, strict=True) if len(u) == 1]
    total: Any = 0.0
    if formed:
        total = products(*(xp.concatenate(arrays, axis=-1) for arrays in zip(*formed, strict=True)))
    for u, v in zip(left, right, strict=True):
        if len(u) == 2 and u[0].shape[1] == 1:
            seen = products(u[0][:, 0], v[0][:, 0])[:, None, :, None]
            total = total + seen * products(u[1][:, :, 0], v[1][:, :, 0])
        elif len(u) == 2:
            total = total + (_at_positions if xp is np else _at_positions_on_device)(u, v)
    return total


def _at_positions(left: tuple[Any, ...], right: tuple[Any, ...]) -> Any:
    """The sum over pairs of positions of (h . h') (g . g'), by NumPy.

    For each point (h . h') g' first: q^2 C m multiplications for a pair of points, and C^2 q m
    after them, where (g . g') would take C^2 q^2 m.
    """
    (h1, g1), (h2, g2) = left, right
    (b1, outputs, q, m), (b2, others) = g1.shape, g2.shape[:2]
    # Positions last, and all in the order in which it is read: else most small products of many are
    # made without BLAS, at a quarter of the rate.
    g1, g2 = (np.ascontiguousarray(g.swapaxes(2, 3)) for g in (g1, g2))
    g1, g2 = g1.reshape(b1, outputs, m * q), g2.reshape(b2, others * m, q)
    patches = h2.reshape(b2 * q, -1)
    kernel = np.empty((b1, outputs, b2, others), g1.dtype)

    def of_points(points: range) -> None:
        rows = slice(points.start, points.stop)
        seen = (patches @ h1[rows].reshape(len(points) * q, -1).T).reshape(b2, q, -1, q)
        weighted = np.empty((b2, others * m, q), g1.dtype)
        by_output = weighted.reshape(b2, others, m * q).swapaxes(1, 2)
        for k, i in enumerate(points):
            np.matmul(g2, np.ascontiguousarray(seen[:, :, k]), out=weighted)
            kernel[i] = np.matmul(g1[i], by_output).swapaxes(0, 1)

    together = [range(b1)[start : start + _TOGETHER] for start in range(0, b1, _TOGETHER)]
    with one_blas_thread():
        side_by_side(of_points, together, cores())
    return kernel


def _at_positions_on_device(left: tuple[Array, ...], right: tuple[Array, ...]) -> Array:
    """The same by JAX."""

    def of_point(point: tuple[Array, Array]) -> Array:
        seen = _product("qk,jpk->jqp", point[0], right[0])
        weighted = _product("jqp,jdpm->jdqm", seen, right[1])
        return _product("cqm,jdqm->cjd", point[1], weighted)

    return lax.map(of_point, left)


def jacobian_of(rows: Rows) -> Array:
    """J, [b, C, P]."""

    def formed(row: tuple[Array, ...]) -> Array:
        if len(row) == 1:
            return row[0]
        return _product("bqk,bcqm->bckm", *row).reshape(*row[1].shape[:2], -1)

    return jnp.concatenate([formed(row) for row in rows], axis=-1)


def push_of(rows: Rows, v: Array) -> Array:
    """J v of S vectors [S, P]: [S, b, C]."""
    total: Any = 0.0
    for row, part in zip(rows, jnp.split(v, _ends(rows), axis=1), strict=True):
        if len(row) == 1:
            total = total + _product("icp,sp->sic", row[0], part)
        else:
            h, g = row
            weights = part.reshape(len(part), h.shape[-1], g.shape[-1])
            total = total + _product("siqm,icqm->sic", _product("iqk,skm->siqm", h, weights), g)
    return total


def pull_of(rows: Rows, u: Array) -> Array:
    """J^T u of S vectors [S, b, C]: [S, P]."""

    def part(row: tuple[Array, ...]) -> Array:
        if len(row) == 1:
            return _product("sic,icp->sp", u, row[0])
        h, g = row
        return _product("iqk,siqm->skm", h, _product("sic,icqm->siqm", u, g)).reshape(len(u), -1)

    return jnp.concatenate([part(row) for row in rows], axis=-1)


def _ends(rows: Rows) -> list[int]:
    """Where the parts of a vector of parameters end, but the last."""
    sizes = [math.prod(array.shape[-1] for array in row) for row in rows]
    return np.cumsum(sizes)[:-1].tolist()


def _dense(h: Array, g: Array) -> tuple[Array, Array]:
    """Factors of inputs [b, 1, k] and gradients [b, C, 1, m]."""
    return h, g


def _conv(eqn: Any, patches: Array, g: Array) -> tuple[Array, ...]:
    """Derivatives by a convolution's kernel of patches [b, q, k] and gradients [b, C, *output]."""
    numbers, shape = eqn.params["dimension_numbers"], eqn.invars[1].aval.shape
    batch, feature, *space = (2 + axis for axis in numbers.out_spec)
    g = g.transpose(0, 1, batch, *space, feature).reshape(*g.shape[:2], -1, g.shape[feature])
    # Patches are [input, *window]; the kernel has its axes in another order.
    output, *others = numbers.rhs_spec
    window = patches.reshape(*patches.shape[:2], *(shape[axis] for axis in others))
    window = window.transpose(0, 1, *(2 + np.argsort(others)))
    patches = window.reshape(patches.shape)
    outputs, (q, k), m = g.shape[1], patches.shape[1:], g.shape[3]
    factored = q * (q * k + q * outputs * m + outputs**2 * m)
    if output == len(shape) - 1 and _GAIN * factored < outputs**2 * k * m:
        return patches, g
    flat = _product("bqk,bcqm->bckm", patches, g)
    formed = flat.reshape(
        *flat.shape[:2], *(n for axis, n in enumerate(shape) if axis != output), m
    )
    return (jnp.moveaxis(formed, -1, 2 + output).reshape(*flat.shape[:2], -1),)


def _seen(eqn: Any, h: Array) -> Array:
    """What a weight is multiplied by at one point: a dense layer's input, patches [q, k]."""
    if eqn.primitive.name == "dot_general":
        return h
    numbers = eqn.params["dimension_numbers"]
    window = [eqn.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
    settings = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    patches = lax.conv_general_dilated_patches(
        h,
        window,
        **{name: eqn.params[name] for name in settings},
        dimension_numbers=numbers,
        precision=lax.Precision.HIGHEST,
    )
    batch, feature, *space = numbers.out_spec
    patches = patches.transpose(batch, *space, feature)
    return patches.reshape(-1, patches.shape[-1])


def _tapped_products(jaxpr: Any, n_params: int) -> dict[int, int]:
    """Equations by a weight that is used nowhere else, with the weight's number."""
    numbers = {var: i for i, var in enumerate(jaxpr.invars[:n_params])}
    uses = [atom for eqn in jaxpr.eqns for atom in eqn.invars if isinstance(atom, core.Var)]
    uses += [atom for atom in jaxpr.outvars if isinstance(atom, core.Var)]
    known = {"dot_general": _is_dense, "conv_general_dilated": _is_conv}
    found = {}
    for k, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name not in known or not known[eqn.primitive.name](eqn):
            continue
        h, weight = eqn.invars
        variables = isinstance(h, core.Var) and isinstance(weight, core.Var)
        if variables and weight in numbers and h not in numbers and uses.count(weight) == 1:
            found[k] = numbers[weight]
    return found


def _is_dense(eqn: Any) -> bool:
    """Whether it is h W with one row h."""
    (h_axes, weight_axes), batch = eqn.params["dimension_numbers"]
    h, weight = (atom.aval for atom in eqn.invars)
    matrices = (h.ndim, weight.ndim, tuple(h_axes), tuple(weight_axes)) == (2, 2, (1,), (0,))
    return matrices and h.shape[0] == 1 and not any(batch)


def _is_conv(eqn: Any) -> bool:
    """Whether it is a convolution without groups, of one point."""
    groups = eqn.params["feature_group_count"], eqn.params["batch_group_count"]
    batch = eqn.params["dimension_numbers"].lhs_spec[0]
    return groups == (1, 1) and eqn.invars[0].aval.shape[batch] == 1


def _evaluate(
    closed: Any, arguments: list[Array], tapped: list[int], shifts: list[Array]
) -> tuple[list[Array], list[Array]]:
    """A jaxpr's outputs with shifts added to the results of some equations, and their inputs."""
    jaxpr, inputs, shift = closed.jaxpr, [], iter(shifts)
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return values[atom] if isinstance(atom, core.Var) else atom.val

    for k, eqn in enumerate(jaxpr.eqns):
        operands = [read(atom) for atom in eqn.invars]
        settings = eqn.primitive.get_bind_params(eqn.params)
        # JAX before 0.12 gives the functions that an equation calls apart.
        functions, settings = settings if isinstance(settings, tuple) else ((), settings)
        results = eqn.primitive.bind(*functions, *operands, **settings)
        results = results if eqn.primitive.multiple_results else [results]
        if k in tapped:
            inputs.append(operands[0])
            results = [results[0] + next(shift)]
        values |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars], inputs

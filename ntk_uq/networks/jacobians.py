"""Tangent kernel of any network at finite width, by its Jacobians."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Network", "jacobian_kernel"]

_BLOCK_BYTES = 2**28  # For the Jacobian of a block of points; two are held at a time.


class Network(Protocol):
    """What is differentiated; compiled programs know it by its value."""

    def apply(self, params: Any, x: jax.Array) -> jax.Array:
        """Outputs [n, C] at points [n, d]."""
        ...


def jacobian_kernel(
    network: Network,
    params: Any,
    x1: jax.Array,
    x2: jax.Array | None,
    trace: bool,
) -> jax.Array:
    """J(x1) J(x2)^T, by blocks of points: [n1, C, n2, C], with `trace` [n1, n2]."""
    outputs = jax.eval_shape(network.apply, params, x1[:1]).shape[-1]
    point_bytes = outputs * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    block = max(1, _BLOCK_BYTES // point_bytes)
    columns = x1 if x2 is None else x2
    rows = []
    for i in range(0, len(x1), block):
        left = _jacobian(network, params, x1[i : i + block])
        row = []
        for j in range(0, len(columns), block):
            same = x2 is None and i == j
            right = left if same else _jacobian(network, params, columns[j : j + block])
            row.append(_products(left, right, trace))
        rows.append(jnp.concatenate(row, axis=1 if trace else 2))
    return jnp.concatenate(rows)


@functools.partial(jax.jit, static_argnums=0)
def _jacobian(network: Network, params: Any, x: jax.Array) -> list[jax.Array]:
    """Derivatives of the outputs at each point, [n, C, p] for each array of p parameters."""

    def outputs(params: Any, point: jax.Array) -> jax.Array:
        return network.apply(params, point[None])[0]

    jacobians = jax.vmap(jax.jacrev(outputs), (None, 0))(params, x)
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobians)]


@functools.partial(jax.jit, static_argnums=2)
def _products(left: list[jax.Array], right: list[jax.Array], trace: bool) -> jax.Array:
    """Sum over parameters of the products of derivatives; with `trace`, mean over outputs."""
    equation = "icp,jcp->ij" if trace else "icp,jdp->icjd"
    product = functools.partial(jnp.einsum, equation, precision=lax.Precision.HIGHEST)
    total = functools.reduce(jnp.add, map(product, left, right))
    return total / left[0].shape[1] if trace else total

"""Empirical kernels of a finite network: what its parameters say, at the width that it has.

The infinite-width kernels belong to the architecture, ``net.kernels``. In expectation over
initialisations the empirical ones approach them as the width grows; after training they tell how
far the tangent kernel has moved.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ntk_uq._common.rules import own_rules
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.mlp import MLP

_BLOCK_BYTES = 2**28  # For the Jacobian of a block of points; two are held at a time.


@own_rules()
def empirical_ntk(
    architecture: BaseArchitecture,
    params: Any,
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    trace: bool = False,
) -> jax.Array:
    """Tangent kernel J(x1) J(x2)^T of a finite network.

    For an MLP a sum over layers of products of Gram matrices, of the layer's inputs and of the
    gradients of its outputs, so that no Jacobian is formed. For other networks Jacobians are
    formed, for blocks of points, so that memory stays bounded.

    Parameters
    ----------
    architecture : MLP or Architecture
        The network's architecture.
    params : pytree
        The network's parameters, from ``architecture.init`` or training.
    x1 : array of shape [n1, d]
        Points.
    x2 : array of shape [n2, d], optional
        Points. Left out: those of `x1`.
    trace : bool, default False
        Average the kernel over equal outputs; in the limit of infinite width nothing is lost.

    Returns
    -------
    array of shape [n1, C, n2, C], with `trace` [n1, n2]
        In the dtype of the parameters.

    References
    ----------
    Jacot, Gabriel & Hongler 2018, arXiv 1806.07572.

    Examples
    --------
    >>> import jax
    >>> from ntk_uq import MLP
    >>> net = MLP(width=32)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    >>> x = jax.random.normal(jax.random.key(1), (5, 2))
    >>> empirical_ntk(net, params, x).shape
    (5, 3, 5, 3)
    """
    if isinstance(architecture, MLP):
        left = _factors(params, x1)
        right = left if x2 is None else _factors(params, x2)
        return _gram_products(params, left, right, trace)
    outputs = jax.eval_shape(architecture.apply, params, x1[:1]).shape[-1]
    point_bytes = outputs * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    block = max(1, _BLOCK_BYTES // point_bytes)
    columns = x1 if x2 is None else x2
    rows = []
    for i in range(0, len(x1), block):
        left = _jacobian(architecture, params, x1[i : i + block])
        row = []
        for j in range(0, len(columns), block):
            same = x2 is None and i == j
            right = left if same else _jacobian(architecture, params, columns[j : j + block])
            row.append(_products(left, right, trace))
        rows.append(jnp.concatenate(row, axis=1 if trace else 2))
    return jnp.concatenate(rows)


@own_rules()
def empirical_nngp(
    architecture: BaseArchitecture, params: Any, x1: jax.Array, x2: jax.Array | None = None
) -> jax.Array:
    """Products of a finite network's outputs, averaged over the C outputs.

    One network at initialisation gives an unbiased estimate of the NNGP kernel, of C samples: take
    the mean over networks.

    Parameters
    ----------
    architecture, params, x1, x2
        As for `empirical_ntk`.

    Returns
    -------
    array of shape [n1, n2]
        In the dtype of the parameters.

    References
    ----------
    Lee et al. 2018, arXiv 1711.00165.

    Examples
    --------
    >>> import jax
    >>> from ntk_uq import MLP
    >>> net = MLP(width=32)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    >>> x = jax.random.normal(jax.random.key(1), (5, 2))
    >>> empirical_nngp(net, params, x).shape
    (5, 5)
    """
    f1 = architecture.apply(params, x1)
    f2 = f1 if x2 is None else architecture.apply(params, x2)
    return f1 @ f2.T / f1.shape[1]


@jax.jit
def _factors(params: Any, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Inputs [n, fan_in] of each layer, and gradients [n, C, fan_out] of its outputs."""

    def outputs(taps: list[jax.Array], point: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        f, inputs = params.tapped(point[None], taps)
        return f[0], [h[0] for h in inputs]

    taps = [jnp.zeros_like(layer.bias[...]) for layer in params.layers]
    gradients, inputs = jax.vmap(jax.jacrev(outputs, has_aux=True), (None, 0))(taps, x)
    return list(zip(inputs, gradients, strict=True))


@functools.partial(jax.jit, static_argnums=3)
def _gram_products(params: Any, left: Any, right: Any, trace: bool) -> jax.Array:
    """Sum over layers of (w^2 h h' + b^2) g g'; with `trace`, mean over outputs."""
    equation = "icm,jcm->ij" if trace else "icm,jdm->icjd"
    total: Any = 0.0
    for layer, (h1, g1), (h2, g2) in zip(params.layers, left, right, strict=True):
        inputs = layer.w_scale**2 * jnp.matmul(h1, h2.T, precision=lax.Precision.HIGHEST)
        inputs = inputs + layer.b_scale**2
        gradients = jnp.einsum(equation, g1, g2, precision=lax.Precision.HIGHEST)
        total = total + gradients * (inputs if trace else inputs[:, None, :, None])
    return total / left[0][1].shape[1] if trace else total


@functools.partial(jax.jit, static_argnums=0)
def _jacobian(architecture: BaseArchitecture, params: Any, x: jax.Array) -> list[jax.Array]:
    """Derivatives of the outputs at each point, [n, C, p] for each array of p parameters."""

    def outputs(params: Any, point: jax.Array) -> jax.Array:
        return architecture.apply(params, point[None])[0]

    jacobians = jax.vmap(jax.jacrev(outputs), (None, 0))(params, x)
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobians)]


@functools.partial(jax.jit, static_argnums=2)
def _products(left: list[jax.Array], right: list[jax.Array], trace: bool) -> jax.Array:
    """Sum over parameters of the products of derivatives; with `trace`, mean over outputs."""
    equation = "icp,jcp->ij" if trace else "icp,jdp->icjd"
    product = functools.partial(jnp.einsum, equation, precision=lax.Precision.HIGHEST)
    total = functools.reduce(jnp.add, map(product, left, right))
    return total / left[0].shape[1] if trace else total

"""Kernels that neural-tangents computes."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from ntk_uq.networks.architecture import Kernels

__all__ = ["stax_kernel_diag", "stax_kernels"]


@functools.partial(jax.jit, static_argnums=0)
def stax_kernels(
    kernel_fn: Callable[..., Any], x1: jax.Array, x2: jax.Array | None = None
) -> Kernels:
    """Kernels [n1, n2] by a `kernel_fn` of neural-tangents."""
    return Kernels(*kernel_fn(x1, x2, Kernels._fields))


@functools.partial(jax.jit, static_argnums=0)
def stax_kernel_diag(kernel_fn: Callable[..., Any], x: jax.Array) -> Kernels:
    """Diagonals [n] of the kernels by a `kernel_fn` of neural-tangents."""
    blocks = jax.vmap(lambda row: Kernels(*kernel_fn(row, None, Kernels._fields)))(x[:, None])
    return Kernels(*(values[:, 0, 0] for values in blocks))

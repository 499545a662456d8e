"""Theta as what it does to vectors, whatever holds it."""

import math
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax

__all__ = ["Dense", "Factor", "Operator", "as_operator"]

# Of so few points and vectors a CPU multiplies rows up to five times as fast as columns, whose
# entries for one point are too few for its registers; of more it takes up to a third longer.
_FEW_POINTS, _FEW_VECTORS = 768, 64


@runtime_checkable
class Operator(Protocol):
    """A symmetric positive semi-definite matrix over points and outputs; a pytree."""

    def product(self, v: Array) -> Array:
        """Theta v for S vectors, [n, C, S]."""
        ...

    def diagonal(self) -> Array:
        """Diagonal, [n, C], or [n, 1] where it is the same for all outputs."""
        ...


class Dense(NamedTuple):
    """A matrix [n, n] that acts on each output alike, or [n, C, n, C]."""

    matrix: Array

    def product(self, v: Array) -> Array:
        """Theta v for S vectors, [n, C, S]."""
        # [n, n], or [nC, nC] where outputs have kernels of their own.
        flat = self._flat()
        return _times(flat, v.reshape(len(flat), -1)).reshape(v.shape)

    def diagonal(self) -> Array:
        """Diagonal, [n, C] or [n, 1]."""
        return jnp.diag(self._flat()).reshape(len(self.matrix), -1)

    def _flat(self) -> Array:
        shape = self.matrix.shape
        return self.matrix.reshape(math.prod(shape[: len(shape) // 2]), -1)


class Factor(NamedTuple):
    """J J^T, of a J [n, C, P] with fewer columns than rows."""

    jacobian: Array

    def product(self, v: Array) -> Array:
        """Theta v for S vectors, [n, C, S]."""
        flat = self.jacobian.reshape(-1, self.jacobian.shape[-1])
        columns = v.reshape(len(flat), -1)
        pulled = jnp.matmul(flat.T, columns, precision=lax.Precision.HIGHEST)
        return jnp.matmul(flat, pulled, precision=lax.Precision.HIGHEST).reshape(v.shape)

    def diagonal(self) -> Array:
        """Diagonal, [n, C]."""
        return jnp.sum(self.jacobian**2, axis=-1)


@partial(jax.jit, inline=True)
def _times(symmetric: Array, columns: Array) -> Array:
    """A symmetric matrix times columns."""
    # An accelerator's default would round the kernel to 10 bits, unseen by any repetition.
    precisely = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    if len(symmetric) > _FEW_POINTS or columns.shape[1] > _FEW_VECTORS:
        return precisely(symmetric, columns)
    # Without barriers XLA would turn the product round again, and the matrix with it.
    rows = lax.optimization_barrier(columns.T)
    return lax.optimization_barrier(precisely(rows, symmetric)).T


def as_operator(ntk: Array | Operator) -> Operator:
    """An operator as it is, and one of a matrix."""
    return ntk if isinstance(ntk, Operator) else Dense(jnp.asarray(ntk))

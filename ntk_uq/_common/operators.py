"""Theta as what it does to vectors, whatever holds it."""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array, lax

__all__ = ["Dense", "Factor", "Operator", "as_operator"]


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
        # An accelerator's default would round the kernel to 10 bits, unseen by any repetition.
        columns = v.reshape(len(flat), -1)
        return jnp.matmul(flat, columns, precision=lax.Precision.HIGHEST).reshape(v.shape)

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


def as_operator(ntk: Array | Operator) -> Operator:
    """An operator as it is, and one of a matrix."""
    return ntk if isinstance(ntk, Operator) else Dense(jnp.asarray(ntk))

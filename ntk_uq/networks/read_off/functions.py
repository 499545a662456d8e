"""Elementwise functions that are gathered from a module's operations, and what is known of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax

__all__ = ["IDENTITY", "Function", "affine", "composed"]


@dataclass(frozen=True, eq=False)
class Function:
    """An elementwise function of one variable; `affine` is (a, b) where it is a u + b.

    factor : the number that the module has multiplied it by.
    """

    call: Callable[[jax.Array], jax.Array]
    affine: tuple[float, float] | None = None
    factor: float = 1.0

    def __call__(self, u: jax.Array) -> jax.Array:
        """Values at u."""
        return self.call(u)


@functools.lru_cache(maxsize=512)
def affine(a: float, b: float) -> Function:
    """The function a u + b."""

    def call(u: jax.Array) -> jax.Array:
        return a * u + b

    return Function(call, (a, b), abs(a))


IDENTITY = affine(1.0, 0.0)


def composed(outer: Callable[..., jax.Array], *inner: Function | float) -> Function:
    """An elementwise function of several others of the same variable, and of numbers."""

    def call(u: jax.Array) -> jax.Array:
        return outer(*(f(u) if isinstance(f, Function) else f for f in inner))

    return Function(call)

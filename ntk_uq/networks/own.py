"""A network of the user's own, with the kernel that belongs to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from flax import nnx

from ntk_uq.networks.architecture import BaseArchitecture, Kernels, ModuleFactory
from ntk_uq.networks.stax_kernels import stax_kernel_diag, stax_kernels

__all__ = ["Architecture"]


@dataclass(frozen=True)
class Architecture(BaseArchitecture):
    """Any Flax NNX module, with the infinite-width kernel that belongs to it.

    Parameters
    ----------
    module : callable
        ``module(in_features, out_features, rngs=rngs)`` builds the network, in its own
        parameterisation; a subclass of ``nnx.Module`` with that signature will do.
    kernel_fn : callable, optional
        The ``kernel_fn`` of a network with the same layers from ``ntk_uq.stax``, which is
        neural-tangents' module made to import on a current JAX. Without it there are finite
        networks only, and `kernels` raises a ValueError.

    Raises
    ------
    ValueError
        If `module` is a network and not what makes one, or `kernel_fn` cannot be called.

    Examples
    --------
    >>> import jax
    >>> from flax import nnx
    >>> net = Architecture(nnx.Linear)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    >>> net.apply(params, jax.numpy.ones((5, 2))).shape
    (5, 3)
    """

    module: ModuleFactory
    kernel_fn: Callable[..., Any] | None = None
    ndim: ClassVar[int | None] = None
    holds_functions: ClassVar[bool] = True
    _standard_normal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.module, nnx.Module) or not callable(self.module):
            raise ValueError(
                "module must be a function or class that builds a network, called as "
                f"module(in_features, out_features, rngs=rngs); got {type(self.module).__name__}. "
                "An ensemble builds many networks: pass the class, not an instance."
            )
        if not (self.kernel_fn is None or callable(self.kernel_fn)):
            raise ValueError(
                "kernel_fn must be the third function of a neural_tangents.stax network; got "
                f"{type(self.kernel_fn).__name__}."
            )

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        return stax_kernels(self._known_kernel_fn(), x1, x2)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        return stax_kernel_diag(self._known_kernel_fn(), x)

    def _known_kernel_fn(self) -> Callable[..., Any]:
        if self.kernel_fn is None:
            raise ValueError(
                "This architecture has no infinite-width kernel. Give Architecture the kernel_fn "
                "of a neural_tangents.stax network with the same layers, or use MLP."
            )
        return self.kernel_fn

"""What the functions of this wing ask of kernels and targets, at their doors."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from ntk_uq.networks.architecture import Kernels


def _arrays(kernels: Kernels, y: ArrayLike) -> tuple[Kernels, Array]:
    """As JAX arrays, in the precision of the kernels."""
    if not (isinstance(kernels, tuple | list) and len(kernels) == 2):
        raise ValueError(
            "kernels takes Kernels(nngp, ntk), as architecture.kernels(X) gives them; got "
            f"{type(kernels).__name__}."
        )
    nngp, ntk = (jnp.asarray(kernel) for kernel in kernels)
    n, shapes = len(ntk), [nngp.shape, ntk.shape]
    if np.ndim(y) != 2 or shapes != [(n, n), (n, n)] or np.shape(y)[0] != n:
        raise ValueError(
            "Kernels of n points are [n, n] and their targets [n, C], for classes one-hot rows; "
            f"got {nngp.shape}, {ntk.shape} and {np.shape(y)}."
        )
    return Kernels(nngp, ntk), jnp.asarray(y, ntk.dtype)

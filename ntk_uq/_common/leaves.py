"""Arrays of a result, as they are kept."""

from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["as_numpy", "read_only"]


def as_numpy(tree: Any) -> Any:
    """JAX arrays of a pytree as NumPy's: unpickled without x64, JAX would round them."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree
    )


def read_only(values: ArrayLike) -> NDArray:
    """A copy to which nobody can write, of what a model computes with or has found."""
    kept = np.array(values)
    kept.flags.writeable = False
    return kept

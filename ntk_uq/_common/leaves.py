"""Arrays of a result, as they are kept."""

from typing import Any

import jax
import numpy as np

__all__ = ["as_numpy"]


def as_numpy(tree: Any) -> Any:
    """JAX arrays of a pytree as NumPy's: unpickled without x64, JAX would round them."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree
    )

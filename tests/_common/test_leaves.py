"""What is kept of a result does not depend on JAX's precision when it is read again."""

import jax
import jax.numpy as jnp
import numpy as np

from ntk_uq._common.leaves import as_numpy


def test_double_precision_stays():
    with jax.enable_x64(True):
        kept = as_numpy({"a": jnp.array([1 / 3]), "b": 2.0, "c": None})
    assert type(kept["a"]) is np.ndarray
    assert kept["a"][0] == 1 / 3
    assert (kept["b"], kept["c"]) == (2.0, None)

"""What is kept of a result does not depend on JAX's precision when it is read again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_uq._common.leaves import as_numpy, read_only


def test_double_precision_stays():
    with jax.enable_x64(True):
        kept = as_numpy({"a": jnp.array([1 / 3]), "b": 2.0, "c": None})
    assert type(kept["a"]) is np.ndarray
    assert kept["a"][0] == 1 / 3
    assert (kept["b"], kept["c"]) == (2.0, None)


def test_nobody_writes_to_what_is_kept():
    own = np.array([1.0, 2.0])
    kept = read_only(own)
    own[:] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 3.0
    assert kept.tolist() == [1.0, 2.0]

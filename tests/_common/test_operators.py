"""Products with Theta, whatever holds it, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_uq._common.operators import Dense, Factor

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "vectors"),
    [
        ((5, 5), (5, 2, 3)),
        ((5, 5), (5, 3, 40)),
        ((800, 800), (800, 1, 2)),
        ((3, 2, 3, 2), (3, 2, 4)),
    ],
    ids=["few", "many vectors", "many points", "coupled"],
)
@pytest.mark.parametrize("traced", [False, True])
def test_products_of_a_matrix(shape, vectors, traced):
    """By rows or by columns, which is a matter of time alone."""
    rows = int(np.sqrt(np.prod(shape)))
    matrix = RNG.normal(size=(rows, rows))
    matrix, v = matrix + matrix.T, RNG.normal(size=vectors)
    with jax.enable_x64(True):
        product = Dense(jnp.asarray(matrix.reshape(shape))).product
        found = (jax.jit(product) if traced else product)(jnp.asarray(v))
    expected = (matrix @ v.reshape(rows, -1)).reshape(vectors)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_products_of_a_factor():
    jacobian, v = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 2, 5))
    flat = jacobian.reshape(8, 3)
    with jax.enable_x64(True):
        operator = Factor(jnp.asarray(jacobian))
        found, diagonal = operator.product(jnp.asarray(v)), operator.diagonal()
    expected = (flat @ flat.T @ v.reshape(8, 5)).reshape(v.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(diagonal, np.diag(flat @ flat.T).reshape(4, 2), rtol=1e-9)

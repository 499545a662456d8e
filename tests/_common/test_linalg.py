"""Factorisations take as little jitter as they can, and refuse what none would mend."""

import jax.numpy as jnp
import numpy as np
import pytest

from ntk_uq._common.linalg import cholesky, interpolation_factor

pytestmark = pytest.mark.double_precision

FEATURES = np.random.default_rng(0).normal(size=(6, 3))
FULL = FEATURES.T @ FEATURES
SINGULAR = FEATURES @ FEATURES.T  # rank 3 of 6


def test_a_definite_matrix_takes_none():
    factor, jitter = cholesky(jnp.asarray(FULL))
    assert jitter == 0
    np.testing.assert_allclose(factor, np.linalg.cholesky(FULL), rtol=1e-12)
    np.testing.assert_array_equal(interpolation_factor(jnp.asarray(FULL)), factor)


def test_a_singular_matrix_takes_what_rounding_does():
    factor, jitter = cholesky(jnp.asarray(SINGULAR))
    rounding = np.finfo(float).eps * np.trace(SINGULAR)
    assert rounding <= jitter <= 1e3 * rounding * (1 + 1e-12)
    product = np.asarray(factor @ factor.T)
    np.testing.assert_allclose(product, SINGULAR + jitter * np.eye(6), atol=10 * rounding)
    with pytest.raises(ValueError, match=r"reg = 0 interpolates .* singular"):
        interpolation_factor(jnp.asarray(SINGULAR))


def test_an_indefinite_matrix_is_refused_with_its_eigenvalue():
    with pytest.raises(ValueError, match=r"smallest eigenvalue is -1, beyond rounding"):
        cholesky(jnp.diag(jnp.array([3.0, -1.0])))

"""Factors applied to whitened variables are products of matrices."""

import jax.numpy as jnp
import numpy as np

from ntk_uq._common.factors import apply_factor

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(5, 3)).astype(np.float32)


def test_one_factor_for_all_outputs():
    factor = RNG.normal(size=(5, 5)).astype(np.float32)
    found = apply_factor(jnp.asarray(factor), jnp.asarray(Z))
    np.testing.assert_allclose(found, factor @ Z, rtol=1e-4, atol=1e-5)


def test_a_factor_for_each_output():
    factors = RNG.normal(size=(3, 5, 5)).astype(np.float32)
    found = apply_factor(jnp.asarray(factors), jnp.asarray(Z))
    expected = np.stack([factors[c] @ Z[:, c] for c in range(3)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

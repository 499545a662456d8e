"""The dual solver against formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from ntk_uq._common import solver
from ntk_uq.likelihoods import Gaussian, Weighted


def test_numbers_of_points_that_are_near_share_a_program():
    """Ridge regression in closed form, with weights, for 34, 35 and 41 points."""
    random = np.random.default_rng(0)
    factor, y, f0 = random.normal(size=(41, 50)), random.normal(size=(41, 2)), np.ones((1, 41, 2))
    counts, reg, noise = random.uniform(0.5, 2.0, 41), 0.7, 0.8
    programs = solver._solve_dense._cache_size()
    with jax.enable_x64(True):
        for n in (34, 35, 41):
            ntk = factor[:n] @ factor[:n].T / 50
            likelihood = Weighted(Gaussian(noise), jnp.asarray(counts[:n]))
            found = solver.solve_dual(
                jnp.asarray(ntk), reg, jnp.asarray(y[:n]), jnp.asarray(f0[:, :n]), likelihood
            )
            expected = np.linalg.solve(ntk + np.diag(reg * noise**2 / counts[:n]), y[:n] - 1)
            assert found.alpha.shape == found.latents.shape == (1, n, 2)
            np.testing.assert_allclose(found.alpha[0], expected, atol=1e-5)
            np.testing.assert_allclose(found.latents[0], 1 + ntk @ expected, atol=1e-5)
    assert solver._solve_dense._cache_size() == programs + 1

"""A problem's weights are its training loss's, and nobody else's."""

import jax.numpy as jnp
import numpy as np

from ntk_uq import MLP, Gaussian
from ntk_uq.networks import Problem

X, Y = np.array([[-1.0], [0.0], [1.0]]), np.array([[0.0], [1.0], [3.0]])


def test_weights_multiply_the_log_density():
    likelihood = Gaussian(0.5)
    plain = Problem(X, Y, likelihood, 1.0, None, MLP())
    assert plain.loss is likelihood
    assert Problem(X, Y, likelihood, 1.0, None, MLP(), np.ones(3)).loss is likelihood
    weights = np.array([1.0, 2.0, 0.5])
    weighted = Problem(X, Y, likelihood, 1.0, None, MLP(), weights)
    latents = jnp.ones((3, 1))
    np.testing.assert_allclose(
        weighted.loss.log_density(latents, Y),
        weights * plain.loss.log_density(latents, Y),
        rtol=1e-6,
    )
    assert weighted.likelihood is likelihood

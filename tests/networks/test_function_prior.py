"""The two Gaussian processes of a network, against the law of sampled ones."""

import jax
import numpy as np
import pytest

from ntk_uq import MLP
from ntk_uq.networks import FunctionPrior

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((5, 2)), RNG.standard_normal((3, 2))
NET = MLP(depth=0, w_std=1.3, b_std=0.4)


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
def test_of_a_linear_network(kernel):
    """Without hidden layers both kernels are the inner product; reg is of the tangent kernel's."""
    prior = FunctionPrior(NET, kernel, 4.0)
    scale = 4.0 if kernel == "ntk" else 1.0
    expected = (1.3**2 * X_TEST @ X.T / 2 + 0.4**2) / scale
    np.testing.assert_allclose(prior.covariance(X_TEST, X), expected, rtol=1e-12)
    np.testing.assert_allclose(prior.variance(X), np.diag(prior.covariance(X)), rtol=1e-12)


def test_nngp_is_the_law_of_networks():
    networks = 4000
    keys = jax.random.split(jax.random.key(0), networks)
    outputs = jax.vmap(lambda key: NET.apply(NET.init(key, 2, 1), X.astype(np.float32)))(keys)
    outputs = np.asarray(outputs)[..., 0]
    expected = FunctionPrior(NET, "nngp", 1.0).covariance(X)
    variance = np.outer(np.diag(expected), np.diag(expected)) + expected**2
    error = (outputs.T @ outputs / networks - expected) / np.sqrt(variance / networks)
    assert np.abs(error).max() < 5

"""Gaussian noise."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ntk_uq.likelihoods import Gaussian

pytestmark = pytest.mark.double_precision

CASE = SimpleNamespace(
    likelihood=Gaussian(0.7),
    hard_targets=lambda rng, shape: 3 * rng.normal(size=shape),
    soft_targets=lambda rng, shape: rng.normal(size=shape),
    log_density=lambda f, y: stats.norm.logpdf(y, f, 0.7).sum(axis=-1),
    highest_latent=800.0,
    probabilities=False,
    variance=lambda f: np.full_like(f, 0.7**2),
)


def test_distribution_of_draws():
    noisy = Gaussian(0.7).sample(jax.random.key(5), np.full((20_000, 1), 0.1))
    assert stats.kstest(np.ravel(noisy), stats.norm(0.1, 0.7).cdf).pvalue > 1e-3


def test_parameters_are_traced():
    n_traces = 0

    @jax.jit
    def log_density(likelihood, f, y):
        nonlocal n_traces
        n_traces += 1
        return likelihood.log_density(f, y)

    f, y = np.zeros((4, 3)), np.ones((4, 3))
    for noise in (0.5, 2.0):
        expected = stats.norm.logpdf(y, f, noise).sum(axis=-1)
        np.testing.assert_allclose(log_density(Gaussian(noise), f, y), expected, rtol=1e-13)
    assert n_traces == 1


def test_noise_can_be_learned():
    # The maximum-likelihood noise is the root mean square of the residuals.
    y = np.random.default_rng(0).normal(size=(50, 3))
    f = np.zeros_like(y)
    slope = jax.grad(lambda noise: jnp.sum(Gaussian(noise).log_density(f, y)))
    np.testing.assert_allclose(slope(np.sqrt(np.mean(y**2))), 0, atol=1e-11)


@pytest.mark.parametrize("noise", [0, 0.0, -0.5, np.nan, np.inf, np.array([0.3, 0.0])], ids=str)
def test_noise_that_is_none_is_refused(noise):
    with pytest.raises(ValueError, match="noise must be positive and finite"):
        Gaussian(noise)

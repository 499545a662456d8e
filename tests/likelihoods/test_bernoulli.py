"""Logistic probabilities."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from ntk_uq.likelihoods import Bernoulli

pytestmark = pytest.mark.double_precision

CASE = SimpleNamespace(
    likelihood=Bernoulli(),
    hard_targets=lambda rng, shape: rng.integers(2, size=shape).astype(float),
    soft_targets=lambda rng, shape: expit(2 * rng.normal(size=shape)),
    log_density=lambda f, y: stats.bernoulli.logpmf(y, expit(f)).sum(axis=-1),
    highest_latent=800.0,
    probabilities=True,
    variance=None,
)


def test_soft_targets_average_the_log_density_over_observations():
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(4, 3)), expit(rng.normal(size=(4, 3)))
    by_hand = np.sum(y * np.log(expit(f)) + (1 - y) * np.log(expit(-f)), axis=-1)
    np.testing.assert_allclose(Bernoulli().log_density(f, y), by_hand, rtol=1e-13)


@pytest.mark.parametrize(
    ("y", "towards"),
    [
        ([[1.0, 0.5, 0.5]], [1.0, 0.0, 0.0]),
        ([[0.5, 0.0, 0.5]], [0.0, -1.0, 0.0]),
    ],
)
def test_degenerate_targets_want_infinite_latents(y, towards):
    y, f = np.array(y), np.zeros((1, 3))
    assert np.all(Bernoulli().degenerate(y))
    assert not np.all(np.isfinite(Bernoulli().optimum(y)))
    along = [Bernoulli().log_density(f + t * np.array(towards), y)[0] for t in range(12)]
    assert np.all(np.diff(along) > 0)


def test_draws_are_zeros_and_ones():
    draws = np.asarray(Bernoulli().sample(jax.random.key(0), np.zeros((1000, 3))))
    assert set(np.unique(draws)) == {0.0, 1.0}

"""Counts."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy import stats

from ntk_uq.likelihoods import Poisson

pytestmark = pytest.mark.double_precision

CASE = SimpleNamespace(
    likelihood=Poisson(),
    hard_targets=lambda rng, shape: rng.poisson(3.0, size=shape).astype(float),
    soft_targets=lambda rng, shape: rng.gamma(2.0, size=shape),
    log_density=lambda f, y: stats.poisson.logpmf(y, np.exp(f)).sum(axis=-1),
    highest_latent=700.0,  # exp(800) is beyond double precision
    probabilities=False,
    variance=None,
)


def test_impossible_counts_under_an_infinite_rate():
    # What overflows does so to the limit, never to NaN.
    f, y = np.full((1, 1), 800.0), np.zeros((1, 1))
    assert Poisson().log_density(f, y)[0] == -np.inf
    assert Poisson().gradient(f, y)[0, 0] == -np.inf


def test_counts_of_zero_want_infinite_latents():
    y, f = np.array([[1.0, 0.0, 1.0]]), np.zeros((1, 3))
    assert np.all(Poisson().degenerate(y))
    assert not np.all(np.isfinite(Poisson().optimum(y)))
    along = [Poisson().log_density(f + t * np.array([0.0, -1.0, 0.0]), y)[0] for t in range(12)]
    assert np.all(np.diff(along) > 0)


def test_distribution_of_draws():
    rate, last = np.exp(1.0), 9  # counts from the last on are one bin
    draws = np.ravel(Poisson().sample(jax.random.key(5), np.full((20_000, 1), 1.0)))
    assert np.all((draws >= 0) & (draws == np.round(draws)))
    expected = stats.poisson.pmf(np.arange(last), rate)
    expected = 20_000 * np.append(expected, 1 - expected.sum())
    observed = np.bincount(np.minimum(draws.astype(int), last), minlength=last + 1)
    assert stats.chisquare(observed, expected).pvalue > 1e-3

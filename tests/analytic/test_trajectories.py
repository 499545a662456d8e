"""Draws corrected by trajectories have the posterior's law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_problem import (
    NET,
    dense_problem,
    diagonal,
    jaxed,
)
from scipy import stats

from ntk_uq.analytic import (
    correct_draws,
    exact_predictor,
    gaussian_predictor,
    trajectories,
)
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson
from ntk_uq.networks.architecture import Kernels

pytestmark = pytest.mark.double_precision


@pytest.fixture(scope="module")
def problem():
    return dense_problem()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "y", "prior"),
    [(Bernoulli(), 1.0, 30.0), (Poisson(), 3.0, 4.0), (Gaussian(0.5), 1.0, 2.0)],
)
def test_corrected_draws_have_the_posteriors_moments(likelihood, y, prior):
    """One latent, whose posterior is known by quadrature; first order is off for a wide prior."""
    targets, draws = np.array([[y]]), 20_000
    grid = np.linspace(-40, 40, 200_001)[:, None, None]
    with jax.enable_x64(True):
        kernels = Kernels(jnp.eye(1), jnp.full((1, 1), prior))
        log_p = np.asarray(likelihood.log_density(jnp.asarray(grid), jnp.asarray(targets)))[:, 0]
        args = (kernels, targets, 1.0, likelihood, "posterior")
        plain = exact_predictor(jax.random.key(0), *args, draws)
        corrected = correct_draws(jax.random.key(1), plain, targets, likelihood, 6)
        found, first_order = (
            np.asarray(p.latents(kernels, Kernels(jnp.ones(1), jnp.full(1, prior))))[:, 0, 0]
            for p in (corrected, plain)
        )
    weight = np.exp(log_p - log_p.max() - grid[:, 0, 0] ** 2 / (2 * prior))
    cdf = np.cumsum(weight) / weight.sum()
    test = stats.kstest(found, lambda f: np.interp(f, grid[:, 0, 0], cdf))
    assert test.pvalue > 1e-3
    if not isinstance(likelihood, Gaussian):
        biased = stats.kstest(first_order, lambda f: np.interp(f, grid[:, 0, 0], cdf))
        assert biased.pvalue < 1e-6


@pytest.mark.slow
def test_corrected_draws_of_a_linear_problem_keep_their_law(problem):
    train, cross, test, y = problem
    args = (jaxed(train), y, 0.5, Gaussian(0.7), "posterior")
    plain = exact_predictor(jax.random.key(0), *args, 2000)
    corrected = correct_draws(jax.random.key(1), plain, y, Gaussian(0.7))
    latents = np.asarray(corrected.latents(jaxed(cross), diagonal(test)))
    mean, cov = gaussian_predictor(*args).moments(jaxed(cross), diagonal(test))
    z = (latents - mean) / np.sqrt(np.einsum("mcc->mc", np.asarray(cov)))
    for column in z.reshape(2000, -1).T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    fewer = correct_draws(
        jax.random.key(1), exact_predictor(jax.random.key(0), *args, 3), y, Gaussian(0.7)
    )
    np.testing.assert_allclose(fewer.whitened, corrected.whitened[:3], atol=1e-5)
    with pytest.raises(ValueError, match='draws of uncertainty "posterior"'):
        correct_draws(
            jax.random.key(1), exact_predictor(jax.random.key(0), *args[:-1], "none", 1), y, args[3]
        )


@pytest.mark.slow
def test_trajectories_in_a_wide_prior_take_steps_that_are_accepted(monkeypatch):
    """Draws spread too far there, where the posterior is steep; the posterior's spread returns."""
    rng = np.random.default_rng(0)
    x, reg = rng.normal(size=(40, 3)), 1e-3
    y = np.eye(2)[(x[:, 0] + 0.5 * rng.normal(size=40) > 0).astype(int)]
    train = Kernels(*map(jnp.asarray, NET.kernels(x)))
    draws = exact_predictor(jax.random.key(0), train, y, reg, Categorical(), "posterior", 400)

    def corrected(start, n_trajectories, seed):
        args = jax.random.key(seed), start, y, Categorical(), n_trajectories
        moved = correct_draws(*args)
        return moved, np.einsum("ij,sjc->sic", moved.factor, moved.whitened)

    before = np.einsum("ij,sjc->sic", draws.factor, draws.whitened)
    before = before + np.einsum("ij,sjc->sic", train.ntk, draws.alpha)

    def stayed():
        after = corrected(draws, 1, 1)[1]
        return np.mean(np.all(np.isclose(after, before, atol=1e-3), axis=(1, 2)))

    assert stayed() < 0.5
    moved, once = corrected(draws, 16, 1)
    _, twice = corrected(moved, 16, 2)
    wide, once, twice = (np.diff(f, axis=-1).std(axis=0).mean() for f in (before, once, twice))
    assert wide > 1.15 * twice
    assert abs(once / twice - 1) < 0.05
    monkeypatch.setattr(trajectories, "_HALVINGS", 0)
    assert stayed() > 0.7

"""Integrated leave-one-out against quadrature and closed forms, of draws that are exact."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ntk_uq import MLP, Categorical, Gaussian, bayes
from ntk_uq.analytic import leave_one_out
from ntk_uq.networks.architecture import Kernels

X = np.array([-1.0, 0.2, 1.1])
S = 9.0 * np.exp(-0.5 * (X[:, None] - X) ** 2)
L = np.linalg.cholesky(S)
RNG = np.random.default_rng(0)


def draws_of(latents):
    """Independent draws [S, n, C], as two chains."""
    whitened = np.linalg.solve(L, latents).reshape(2, -1, *latents.shape[1:])
    prior = bayes.GaussianProcessPrior(jnp.asarray(L), 0.0)
    return bayes.PosteriorDraws(prior, whitened, latents.reshape(whitened.shape), {}, 0.0)


def test_classes_against_quadrature():
    """Wide prior, labels at odds: the posterior by rejection, each density by Gauss-Hermite."""
    codes = np.array([0, 1, 0])
    latents = L @ RNG.normal(size=(120_000, 3, 2))
    density = -np.logaddexp(0, np.diff(latents, axis=-1)[..., 0] * np.where(codes == 0, 1, -1))
    kept = latents[np.log(RNG.random(len(latents))) < density.sum(axis=1)]
    kept = kept[: len(kept) // 8 * 8]
    assert len(kept) > 5000
    targets = np.eye(2)[codes]
    elpd, pareto_k = bayes.integrated_loo(draws_of(kept), targets, Categorical())
    parts = [
        bayes.integrated_loo(draws_of(part), targets, Categorical())[0]
        for part in np.split(kept, 8)
    ]

    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    grid = np.array(list(itertools.product(nodes, repeat=3)))
    mass = np.prod(list(itertools.product(node_weights, repeat=3)), axis=1)
    differences = np.sqrt(2) * grid @ L.T  # of the two latents
    p = 1 / (1 + np.exp(np.where(codes == 0, -1, 1) * differences))
    exact = [
        np.log(mass @ p.prod(axis=1) / (mass @ np.delete(p, i, 1).prod(axis=1))) for i in range(3)
    ]
    assert pareto_k.max() < 0.7
    # In standard errors, from eight parts of the draws: of Student's t with seven degrees of
    # freedom 6 is exceeded in one case of a thousand.
    error = np.std(parts, axis=0, ddof=1) / np.sqrt(8)
    assert np.all(np.abs(elpd - exact) < 6 * error)
    assert error.max() < 0.1


def test_noise_against_the_closed_form():
    """Three rows of one point and weights, each row removed by itself."""
    y, noise = np.array([[2.0], [-1.0], [0.5]]), 1.0
    weights, rows, removed = np.array([3.0, 1.0, 0.7]), [0, 1, 2], [1.0, 1.0, 0.7]
    gain = S @ np.linalg.inv(S + np.diag(noise**2 / weights))
    root = np.linalg.cholesky(S - gain @ S)
    latents = (gain @ y)[:, 0] + RNG.normal(size=(8000, 3)) @ root.T
    settings = {"weights": weights, "rows": rows, "removed": removed}
    elpd, pareto_k = bayes.integrated_loo(
        draws_of(latents[..., None]), y, Gaussian(noise), **settings
    )
    mean, variance = leave_one_out(Kernels(S, S), y, 1.0, noise, "posterior", **settings)
    exact = stats.norm.logpdf(y, mean, np.sqrt(variance + noise**2))[:, 0]
    assert pareto_k.max() < 0.7
    parts = [
        bayes.integrated_loo(draws_of(part[..., None]), y, Gaussian(noise), **settings)[0]
        for part in np.split(latents, 8)
    ]
    assert np.all(np.abs(elpd - exact) < 6 * np.std(parts, axis=0, ddof=1) / np.sqrt(8))


def test_a_finite_network_is_refused():
    prior = bayes.NetworkPrior(jnp.ones((3, 2)), MLP(width=4), 1)
    draws = bayes.PosteriorDraws(prior, np.ones((1, 4, 9)), np.ones((1, 4, 3, 1)), {}, 0.0)
    with pytest.raises(ValueError, match="latents of a finite network"):
        bayes.integrated_loo(draws, np.ones((3, 1)), Gaussian(1.0))

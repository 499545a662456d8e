"""Simulation-based calibration finds what is right, and what is not."""

import arviz_plots
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from scipy import stats

from ntk_uq import MLP, Bernoulli, Categorical, Gaussian, Weighted, bayes
from ntk_uq.bayes.samplers import ChainSampler, DrawSampler, samplers_of

pytestmark = pytest.mark.double_precision

X = np.array([-1.0, 0.2, 1.1])
S = 4.0 * np.exp(-0.5 * (X[:, None] - X) ** 2)
KEY = jax.random.key(3)


def gaussian_process(*, narrower=1.0, shift=0.0, blind=False):
    """Regression by a Gaussian process, exact but for what is wrong on purpose."""

    def sampler(key, prior, targets, likelihood):
        covariance = np.asarray(prior.factor @ prior.factor.T)
        gain = covariance @ np.linalg.inv(covariance + likelihood.noise**2 * np.eye(3))
        if blind:
            gain = 0 * gain
        root = np.linalg.cholesky(covariance - gain @ covariance)
        z = np.random.default_rng(np.asarray(jax.random.key_data(key))).normal(size=(99, 3, 2))
        return gain @ np.asarray(targets) + narrower * (root @ z) + shift

    return sampler


def p_values(tree):
    """Of uniform transforms, by Kolmogorov and Smirnov: smallest over latents, and the other."""
    group = tree["prior_sbc"]
    latents = group["f"].values.reshape(-1, 6).T
    return (
        min(stats.kstest(values, "uniform").pvalue for values in latents),
        stats.kstest(group["log_likelihood"].values[0], "uniform").pvalue,
    )


def calibrated(sampler, simulations=200):
    return bayes.simulation_based_calibration(
        KEY, S, Gaussian(0.5), 2, sampler=sampler, simulations=simulations
    )


def test_an_exact_sampler_passes():
    tree = calibrated(gaussian_process())
    latents, log_likelihood = p_values(tree)
    assert latents > 0.001 / 6
    assert log_likelihood > 0.001
    ranks = tree["ranks"]["f"].values
    assert ranks.min() >= 0
    assert ranks.max() <= 99
    np.testing.assert_array_equal(np.floor(tree["prior_sbc"]["f"].values * 100), ranks)


@pytest.mark.parametrize("wrong", [{"narrower": 0.5}, {"shift": 0.4}])
def test_a_wrong_sampler_is_found(wrong):
    assert p_values(calibrated(gaussian_process(**wrong)))[0] < 1e-6


def test_draws_that_ignore_the_data_are_found():
    """Ranks of latents are uniform for draws from the prior: the log likelihood sees them."""
    latents, log_likelihood = p_values(calibrated(gaussian_process(blind=True)))
    assert latents > 0.001 / 6
    assert log_likelihood < 1e-6


def test_simulations_go_on_by_their_index():
    whole = calibrated(gaussian_process(), 6)
    parts = [calibrated(gaussian_process(), indices)["prior_sbc"] for indices in (range(4), [4, 5])]
    together = xarray.concat([part.to_dataset() for part in parts], dim="draw")
    xarray.testing.assert_equal(together, whole["prior_sbc"].to_dataset())


def test_arviz_draws_it():
    tree = calibrated(gaussian_process(), 20)
    for arguments in (
        {"var_names": "log_likelihood"},
        {"coords": {"point": [0]}, "var_names": "f"},
    ):
        arviz_plots.plot_ecdf_pit(tree, backend="matplotlib", **arguments)
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", samplers_of(DrawSampler))
def test_samplers_by_name(sampler):
    settings = {"sampler": sampler, "simulations": 40}
    tree = bayes.simulation_based_calibration(KEY, S, Bernoulli(), 2, **settings)
    assert tree["ranks"]["f"].shape == (1, 40, 3, 2)
    if sampler in samplers_of(ChainSampler):
        assert min(p_values(tree)) > 0.001 / 7


@pytest.mark.slow
def test_networks():
    prior = bayes.NetworkPrior(jnp.asarray(X[:, None]), MLP(width=3, depth=1), 2)
    tree = bayes.simulation_based_calibration(KEY, prior, Bernoulli(), simulations=40)
    assert tree["ranks"]["f"].shape == (1, 40, 3, 2)


def test_what_is_refused():
    weighted = Weighted(Gaussian(1.0), jnp.ones(3))
    with pytest.raises(ValueError, match="without weights"):
        bayes.simulation_based_calibration(KEY, S, weighted)
    with pytest.raises(ValueError, match="sampler must be a function"):
        bayes.simulation_based_calibration(KEY, S, Gaussian(1.0), sampler="laplace")
    with pytest.raises(ValueError, match=r"\[S, 3, 2\]; got \(5, 3\)"):
        bayes.simulation_based_calibration(
            KEY, S, Categorical(), 2, sampler=lambda *_: np.zeros((5, 3)), simulations=1
        )
    with pytest.raises(ValueError, match=r"such as ntk_uq.Bernoulli\(\) .* got 'bernoulli'"):
        bayes.simulation_based_calibration(KEY, S, "bernoulli")
    with pytest.raises(ValueError, match=r"takes as likelihood .* got <class"):
        bayes.simulation_based_calibration(KEY, S, Bernoulli)
    with pytest.raises(ValueError, match="key must be one PRNG key"):
        bayes.simulation_based_calibration(0, S, Bernoulli())
    with pytest.raises(ValueError, match="got none"):
        bayes.simulation_based_calibration(KEY, S, Gaussian(1.0), simulations=0)

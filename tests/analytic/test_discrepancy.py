"""How far first order holds, as a fit measures it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_problem import (
    C,
    dense_problem,
    diagonal,
    jaxed,
)
from scipy import stats
from scipy.special import softmax

from ntk_uq.analytic import (
    discrepancy,
    exact_predictor,
    gaussian,
    gaussian_predictor,
)
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson
from ntk_uq.networks.architecture import Kernels
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

pytestmark = pytest.mark.double_precision


@pytest.fixture(scope="module")
def problem():
    return dense_problem()


def test_discrepancy_is_that_of_moments():
    rng = np.random.default_rng(0)
    samples = rng.gamma(2.0, size=(400, 2, C)) - 1
    gaussian = GaussianPrediction(rng.normal(size=(2, C)), np.stack([np.eye(C), 2 * np.eye(C)]))
    found = discrepancy(gaussian, SamplePrediction(samples))
    # Softmax does not see the mean over classes, which takes a third of independent variances.
    centred = samples - samples.mean(axis=2, keepdims=True)
    sd = centred.std(axis=0, ddof=1)
    mean = gaussian.mean - gaussian.mean.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.mean_shift, (centred.mean(axis=0) - mean) / sd)
    np.testing.assert_allclose(found.sd_ratio, np.sqrt([[2 / 3], [4 / 3]]) / sd)
    skewness = stats.skew(centred, axis=0)
    np.testing.assert_allclose(found.skewness, skewness, rtol=0.01)  # of S against S - 1
    distance = np.abs(gaussian.proba() - softmax(samples, axis=2).mean(axis=0)).sum(axis=1) / 2
    np.testing.assert_allclose(found.total_variation, distance)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Poisson()], ids=str)
def test_total_variation_of_predictive_distributions_by_enumeration(likelihood):
    """Drawn targets give what the sum over targets does, for one output."""
    rng = np.random.default_rng(0)
    p, q = (
        SamplePrediction(rng.normal(mean, 0.4, size=(50, 200, 1)), likelihood)
        for mean in (0.0, 0.8)
    )
    targets = np.arange(2.0 if isinstance(likelihood, Bernoulli) else 40.0)
    densities = [[np.exp(f.log_density(np.full((200, 1), y))) for y in targets] for f in (p, q)]
    exact = 0.5 * np.sum(np.abs(np.subtract(*densities)), axis=0)
    found = discrepancy(p, q).total_variation
    # A mean of 32 values in [0, 1], independent over 200 points.
    error = np.std(found - exact) / np.sqrt(200)
    assert abs(np.mean(found - exact)) < 4 * error
    assert error < 0.02


@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_discrepancy_is_zero_where_first_order_is_exact(problem, monkeypatch, uncertainty):
    train, *_, y = problem
    args = (jaxed(train), y, 0.7, Gaussian(0.4), uncertainty)
    assert not np.any(gaussian_predictor(*args).discrepancy.total_variation)
    assert not np.any(gaussian_predictor(*args[:4], "none").discrepancy.total_variation)
    # And so it is measured, where nobody says that it is exact: up to the tolerance of the draws,
    # 1.4% of a standard deviation.
    monkeypatch.setattr(gaussian, "is_exact", lambda likelihood: False)
    found = gaussian_predictor(*args).discrepancy
    assert np.max(found.total_variation) < 0.02
    assert np.max(np.abs(found.mean_shift)) < 0.02
    np.testing.assert_allclose(found.sd_ratio, 1, atol=0.02)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("likelihood", "uncertainty"),
    [
        (Categorical(), "initialization"),
        (Categorical(), "posterior"),
        (Bernoulli(), "posterior"),
        (Poisson(), "initialization"),
    ],
    ids=str,
)
def test_first_order_draws_neglect_the_second_order(problem, monkeypatch, likelihood, uncertainty):
    """The error falls with the square of the prior functions; of the posterior, divided by reg.

    There, prior functions are of order reg^(-1/2), and all that training changes of order 1 / reg.
    """
    train, *_, y = problem
    monkeypatch.setattr(gaussian, "CHECK_TOLERANCE", 1e-20)
    errors = []
    for size in (0.1, 0.03):
        kernels, reg, power = Kernels(size**2 * train.nngp, train.ntk), 0.7, 2
        if uncertainty == "posterior":
            kernels, reg, power = train, size**-2, 4
        args = (jaxed(kernels), jnp.asarray(y), reg, likelihood, uncertainty)
        predictor = gaussian_predictor(*args, n_checked=0)
        draws = gaussian._coupled_draws(predictor, *args[:2], likelihood, 8)
        errors.append(np.max(np.abs(np.subtract(*draws))))
    # Higher orders are a few times the size, relative to the leading one; Bernoulli's curvature has
    # no slope at zero, so its error falls faster. A fault of first order falls by a power less.
    assert errors[0] / errors[1] > 0.6 * (10 / 3) ** power


@pytest.mark.slow
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
@pytest.mark.parametrize("factor", [1, 1e4])
def test_discrepancy_is_that_of_many_other_draws(problem, uncertainty, factor):
    """The few draws of the fit measure what thousands do; it is large where prior functions are."""
    train, *_, y = problem
    train = Kernels(*(factor * k for k in train))
    args = (jaxed(train), jnp.asarray(y), 1.0, Categorical(), uncertainty)
    predictor = gaussian_predictor(*args)
    own = jaxed(train), diagonal(train)
    closed = GaussianPrediction(*map(np.asarray, predictor.moments(*own)))
    samples = exact_predictor(jax.random.key(3), *args, 2000).latents(*own)
    draws = SamplePrediction(np.asarray(samples))
    first_order, exact = gaussian._coupled_draws(predictor, *args[:2], Categorical(), 32)
    change = softmax(np.asarray(first_order), axis=2) - softmax(np.asarray(exact), axis=2)
    error = change.std(axis=0) / np.sqrt(32) + draws.proba_mcse() + closed.proba_mcse()
    found, known = predictor.discrepancy, discrepancy(closed, draws)
    difference = np.abs(found.total_variation - known.total_variation)
    assert np.mean(difference) < 3 * 0.5 * np.mean(error.sum(axis=1))
    if factor == 1:
        assert np.mean(found.total_variation) < 0.1
    else:
        assert np.mean(found.total_variation) > 0.2

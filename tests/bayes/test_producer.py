"""The posterior without scikit-learn, against Gaussian processes by dense linear algebra."""

import jax
import numpy as np
import pytest
from arviz_stats.base import array_stats
from gaussian_process import conditioned, linear_kernel
from scipy import stats

from ntk_uq import MLP, Gaussian
from ntk_uq.bayes import LaplaceNetwork, Posterior
from ntk_uq.networks import Problem

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((8, 3)), RNG.standard_normal((3, 3))
Y = np.c_[X[:, 0], X[:, 1] - 1] + 0.3 * RNG.standard_normal((8, 2))
# Without hidden layers: a Bayesian linear regression, at any width.
NET = MLP(depth=0, w_std=1.3, b_std=0.4)
NOISE, REG = 0.5, 2.0
WEIGHTS = RNG.uniform(0.5, 3.0, 8)


def problem(weights=None):
    return Problem(X, Y, Gaussian(NOISE), REG, jax.random.key(0), NET, weights)


def expected(reg=1.0, weights=1.0):
    """Mean, and covariance over the points."""
    linear = linear_kernel(NET)
    return conditioned(lambda a, b: linear(a, b) / reg, X, Y, X_TEST, NOISE**2 / weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "weights"),
    [("ntk", WEIGHTS), ("nngp", None), ("weights", None)],
    ids=["weighted", "nngp", "weights"],
)
def test_draws_have_the_moments_of_the_process(prior, weights):
    producer = Posterior(prior, num_warmup=300, num_samples=1500)
    fitted = producer.fit(problem(weights))
    assert fitted.diagnostics.rhat_max < 1.05
    mean, cov = expected(REG if prior == "ntk" else 1.0, 1.0 if weights is None else weights)
    level = stats.norm.isf(1e-3 / 4 / 24)
    for joint in (False, True):
        found = fitted.latents(X_TEST, joint)
        assert found.n_chains == 2
        assert found.joint == (joint or prior == "weights")
        draws = found.samples.reshape(2, -1, 3, 2)
        pairs = [(draws, mean), ((draws - mean) ** 2, np.diag(cov)[:, None])]
        if found.joint:
            products = (draws[:, :, 0] - mean[0]) * (draws[:, :, 1] - mean[1])
            pairs.append((products[:, :, None], cov[0, 1]))
        for values, truth in pairs:
            ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
            error = values.std((0, 1)) / np.sqrt(ess)
            assert (np.abs(values.mean((0, 1)) - truth) / error).max() < level


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_laplace_of_a_linear_network_is_exact(weights):
    found = LaplaceNetwork().fit(problem(weights)).latents(X_TEST, joint=True)
    mean, cov = expected(weights=1.0 if weights is None else weights)
    np.testing.assert_allclose(found.mean, mean, atol=1e-4)
    np.testing.assert_allclose(found.joint_cov[:, 0, :, 0], cov, atol=1e-8)
    np.testing.assert_allclose(found.cov[:, 1, 1], np.diag(cov), atol=1e-8)


def test_what_cannot_be_fitted():
    with pytest.raises(ValueError, match=r'sampler must be "nuts", .*; got .laplace.'):
        Posterior(sampler="laplace").fit(problem())
    no_key = Problem(X, Y, Gaussian(NOISE), REG, None, NET)
    for producer in (Posterior(), LaplaceNetwork()):
        with pytest.raises(ValueError, match="give a key"):
            producer.fit(no_key)

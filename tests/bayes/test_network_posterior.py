"""Posteriors of finite networks: linear ones in closed form, wide ones against their limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from flax import nnx
from scipy import optimize, stats
from scipy.special import softmax

from ntk_uq import MLP, Architecture, ConvNet, bayes
from ntk_uq.analytic import gaussian_predictor
from ntk_uq.bayes.samplers import ChainSampler, samplers_of
from ntk_uq.likelihoods import Categorical, Gaussian
from ntk_uq.networks.architecture import Kernels

pytestmark = pytest.mark.double_precision


RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 2))
X_NEW = RNG.normal(size=(4, 2))
Y = RNG.normal(size=(6, 2))
LABELS = np.eye(3)[[0, 1, 2, 0, 1, 1]]
NOISE = 0.5
LINEAR = MLP(depth=0, w_std=1.3, b_std=0.4)
LONG = {"num_warmup": 300, "num_samples": 2000, "num_chains": 2}


def features(x):
    """The linear network is features(x) @ theta, theta ~ N(0, I), for each output."""
    return np.c_[1.3 * x / np.sqrt(2), np.full(len(x), 0.4)]


def linear_posterior(x):
    """Mean and covariance of the outputs at x, by Bayesian linear regression."""
    phi = features(X)
    precision = np.eye(3) + phi.T @ phi / NOISE**2
    mean = np.linalg.solve(precision, phi.T @ Y / NOISE**2)
    return features(x) @ mean, features(x) @ np.linalg.solve(precision, features(x).T)


def worst_z(draws, expected):
    ess = array_stats.ess(draws, chain_axis=0, draw_axis=1, method="mean")
    return np.max(np.abs(draws.mean((0, 1)) - expected) / (draws.std((0, 1)) / np.sqrt(ess)))


def assert_moments(draws, mean, cov):
    """Means and second moments over points, each family at a level of 1e-3."""
    m, c = mean.shape
    assert worst_z(draws, mean) < stats.norm.isf(5e-4 / mean.size)
    products = np.einsum("sdic,sdjc->sdcij", draws - mean, draws - mean)
    assert worst_z(products, np.broadcast_to(cov, (c, m, m))) < stats.norm.isf(5e-4 / (c * m * m))


@pytest.mark.cases(1)
@pytest.mark.parametrize("sampler", samplers_of(ChainSampler))
def test_linear_network_against_bayesian_linear_regression(sampler):
    prior = bayes.NetworkPrior(jnp.asarray(X), LINEAR, 2)
    assert prior.n_parameters == 6
    draws = bayes.sample_latents(
        jax.random.key(0), prior, Y, Gaussian(NOISE), sampler=sampler, **LONG
    )
    assert draws.whitened.shape == (2, 2000, 6)
    assert_moments(draws.latents, *linear_posterior(X))
    predicted = bayes.predict_network(draws, X_NEW).reshape(2, 2000, 4, 2)
    assert_moments(predicted, *linear_posterior(X_NEW))
    # A draw is one function: at the training points it is the draw itself.
    again = bayes.predict_network(draws, X).reshape(draws.latents.shape)
    np.testing.assert_allclose(again, draws.latents, atol=1e-12)


def test_predictions_in_blocks_are_the_same(monkeypatch):
    prior = bayes.NetworkPrior(jnp.asarray(X), LINEAR, 2)
    whitened = RNG.normal(size=(1, 20, 6))
    draws = bayes.PosteriorDraws(prior, whitened, None, {}, 1.0)
    whole = bayes.predict_network(draws, X_NEW)
    monkeypatch.setattr("ntk_uq.bayes.prediction._CHUNK", 1)
    np.testing.assert_allclose(bayes.predict_network(draws, X_NEW), whole, rtol=1e-12)


@pytest.mark.slow
def test_wide_network_approaches_the_nngp_posterior():
    """At width 512 its moments differ from the limit's by less than Monte-Carlo error."""
    net = MLP(width=512, depth=1, activation="erf", b_std=0.5)
    prior = bayes.NetworkPrior(jnp.asarray(X), net, 2)
    draws = bayes.sample_latents(jax.random.key(1), prior, Y, Gaussian(NOISE), **LONG)
    k, cross, new = (net.kernels(*p).nngp for p in ((X,), (X_NEW, X), (X_NEW,)))
    gain = cross @ np.linalg.inv(k + NOISE**2 * np.eye(6))
    predicted = bayes.predict_network(draws, X_NEW).reshape(2, 2000, 4, 2)
    assert_moments(predicted, gain @ Y, new - gain @ cross.T)


class Convolution(nnx.Module):
    """A user's module on images."""

    def __init__(self, in_features, out_features, *, rngs):
        self.conv = nnx.Conv(in_features[-1], 2, (2, 2), rngs=rngs)
        self.readout = nnx.Linear(2, out_features, rngs=rngs)

    def __call__(self, x):
        return self.readout(jnp.mean(jax.nn.relu(self.conv(x)), axis=(1, 2)))


@pytest.mark.parametrize(
    ("net", "n_parameters"),
    [
        (ConvNet(width=2, depth=1), 9 * 2 + 2 + 2 * 3 + 3),
        (Architecture(Convolution), 4 * 2 + 2 + 2 * 3 + 3),
    ],
    ids=["ConvNet", "module"],
)
def test_parameters_go_where_the_network_has_them(net, n_parameters):
    """Evaluated from a flat vector as the network itself is, from its own parameters."""
    images = jnp.asarray(RNG.normal(size=(5, 3, 3, 1)))
    prior = bayes.NetworkPrior(images, net, 3)
    assert prior.n_parameters == n_parameters
    params = net.init(jax.random.key(0), (3, 3, 1), 3)
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    np.testing.assert_allclose(prior.latents(flat), net.apply(params, images), rtol=1e-12)
    z = jax.vmap(lambda key: prior.sample_whitened(key, 3))(jax.random.split(jax.random.key(1), 99))
    assert stats.kstest(np.ravel(z), "norm").pvalue > 1e-3


# Linearised Laplace


def test_laplace_of_a_linear_network_is_exact():
    prior = bayes.NetworkPrior(jnp.asarray(X), LINEAR, 2)
    fit = bayes.laplace_network(jax.random.key(0), prior, Y, Gaussian(NOISE))
    assert fit.gradient < 1e-4
    mean, cov = linear_posterior(X_NEW)
    found_mean, found = fit.moments(X_NEW)
    np.testing.assert_allclose(found_mean, mean, atol=1e-5)
    np.testing.assert_allclose(found, np.diag(cov)[:, None, None] * np.eye(2), atol=1e-8)
    _, joint = fit.moments(X_NEW, joint=True)
    np.testing.assert_allclose(joint, np.einsum("mn,cd->mcnd", cov, np.eye(2)), atol=1e-8)


def test_laplace_of_logistic_regression():
    """Against the mode by SciPy and the inverse Hessian of its objective, in parameters."""
    prior = bayes.NetworkPrior(jnp.asarray(X), LINEAR, 3)
    fit = bayes.laplace_network(jax.random.key(0), prior, LABELS, Categorical())
    phi = features(X)

    def objective(theta):
        f = phi @ theta.reshape(3, 3)
        log_p = f - np.log(np.exp(f).sum(1, keepdims=True))
        return 0.5 * theta @ theta - np.sum(LABELS * log_p)

    theta = optimize.minimize(objective, np.zeros(9), options={"gtol": 1e-8}).x.reshape(3, 3)
    p = softmax(phi @ theta, axis=1)
    w = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    hessian = np.einsum("na,ncd,nb->acbd", phi, w, phi).reshape(9, 9) + np.eye(9)
    inverse = np.linalg.inv(hessian).reshape(3, 3, 3, 3)
    new = features(X_NEW)
    mean, cov = fit.moments(X_NEW)
    np.testing.assert_allclose(mean, new @ theta, atol=1e-4)
    np.testing.assert_allclose(cov, np.einsum("ma,acbd,mb->mcd", new, inverse, new), atol=1e-5)


def test_laplace_measures_nothing_where_it_is_exact(monkeypatch):
    prior = bayes.NetworkPrior(jnp.asarray(X), LINEAR, 2)
    problem = (jax.random.key(0), prior, Y, Gaussian(NOISE))
    assert not np.any(bayes.laplace_network(*problem).discrepancy.total_variation)
    # And so it is measured, where nobody says that it is exact: up to the tolerance of the draws,
    # 1.4% of a standard deviation, and that of the mode.
    monkeypatch.setattr("ntk_uq.bayes.samplers.laplace.is_exact", lambda likelihood: False)
    found = bayes.laplace_network(*problem).discrepancy
    assert np.max(np.abs(found.mean_shift)) < 0.02
    np.testing.assert_allclose(found.sd_ratio, 1, atol=0.02)


@pytest.mark.slow
def test_laplace_of_a_linear_network_is_as_far_off_as_that_of_its_kernel():
    """Two derivations, with draws of their own."""
    wide = MLP(depth=0, w_std=8.0, b_std=8.0)
    prior = bayes.NetworkPrior(jnp.asarray(X), wide, 3)
    network = bayes.laplace_network(jax.random.key(0), prior, LABELS, Categorical())
    kernels = Kernels(*map(jnp.asarray, wide.kernels(X)))
    kernel = gaussian_predictor(kernels, LABELS, 1.0, Categorical(), "posterior")
    a, b = (np.mean(fit.discrepancy.total_variation) for fit in (network, kernel))
    assert min(a, b) > 0.03
    # Each is a mean over 32 draws of differences of at most one in probability.
    assert abs(a - b) < 0.5 * max(a, b)


def test_laplace_in_blocks_is_the_same(monkeypatch):
    prior = bayes.NetworkPrior(jnp.asarray(X), MLP(width=4, depth=1), 3)
    fit = bayes.laplace_network(jax.random.key(0), prior, LABELS, Categorical())
    whole = fit.moments(X_NEW)
    monkeypatch.setattr("ntk_uq.bayes.samplers.laplace._CHUNK", 1)
    for a, b in zip(fit.moments(X_NEW), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

"""The infinite ensemble without scikit-learn, against dense solutions."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from gaussian_process import conditioned
from scipy.optimize import root
from scipy.special import softmax
from scipy.stats import norm

from ntk_uq import MLP, Categorical, Gaussian, NormalScores, NTKRegressor
from ntk_uq.analytic import InfiniteEnsemble, LaplaceProcess
from ntk_uq.networks import Problem

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((10, 2)), RNG.standard_normal((4, 2))
Y = np.c_[np.sin(X[:, 0]), X[:, 1]] + 0.1 * RNG.standard_normal((10, 2))
NET = MLP(depth=1, activation="erf")
NOISE, REG = 0.3, 0.5


def regression(**changes):
    settings = {"likelihood": Gaussian(NOISE), "reg": REG, "key": jax.random.key(0)}
    return Problem(X, Y, architecture=NET, **{**settings, **changes})


def kernel(name, scales=1.0):
    return lambda a, b: getattr(NET.kernels(a * scales, b * scales), name)


@pytest.mark.parametrize("weights", [None, RNG.uniform(0.5, 3.0, 10)], ids=["alike", "weighted"])
def test_posterior_is_a_gaussian_process(weights):
    """With a scale for each feature, and a weight for each point."""
    scales = np.array([2.0, 0.5])
    producer = InfiniteEnsemble("posterior", "gaussian", feature_scales=scales)
    found = producer.fit(regression(weights=weights)).latents(X_TEST, joint=True)

    def prior(a, b):
        return kernel("ntk", scales)(a, b) / REG

    variance = NOISE**2 / (1.0 if weights is None else weights)
    mean, cov = conditioned(prior, X, Y, X_TEST, variance)
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    for c in range(2):
        np.testing.assert_allclose(found.joint_cov[:, c, :, c], cov, atol=1e-8)
    np.testing.assert_allclose(found.joint_cov[:, 0, :, 1], 0, atol=1e-12)
    np.testing.assert_allclose(found.cov[:, 0, 0], np.diag(cov), atol=1e-8)


@pytest.mark.slow
def test_draws_over_initialisations_have_the_law_of_the_closed_form():
    """A ridge regression of y - f0 with the NTK, f0 of the NNGP kernel's process."""
    ntk, nngp = kernel("ntk"), kernel("nngp")
    pull = np.linalg.solve(ntk(X, X) + REG * NOISE**2 * np.eye(10), ntk(X, X_TEST)).T
    cross = nngp(X_TEST, X)
    cov = nngp(X_TEST, X_TEST) - pull @ cross.T - cross @ pull.T + pull @ nngp(X, X) @ pull.T
    draws = 2000
    fitted = InfiniteEnsemble("initialization", n_draws=draws).fit(regression())
    level = norm.isf(1e-4 / 16)  # of all four tests of eight numbers, about
    for found in (fitted.latents(X_TEST), fitted.latents(X_TEST, joint=True)):
        error = (found.mean - pull @ Y) / np.sqrt(np.diag(cov)[:, None] / draws)
        assert np.abs(error).max() < level
        spread = np.einsum("mcc->mc", found.cov) / np.diag(cov)[:, None] - 1
        assert np.abs(spread).max() < level * np.sqrt(2 / draws)
    assert fitted.jitter == 0
    functions = fitted.functions()
    np.testing.assert_allclose(functions(X_TEST), functions(X_TEST), atol=1e-4)


def test_the_mode_of_a_classification():
    """Stationary: reg Theta^-1 f = Y - softmax(f), by a general solver."""
    labels = np.eye(3)[np.arange(10) % 3]
    problem = regression(likelihood=Categorical())
    problem = Problem(X, labels, Categorical(), REG, problem.key, NET)
    ntk = NET.kernels(X).ntk

    def residual(alpha):
        alpha = alpha.reshape(10, 3)
        return (REG * alpha - labels + softmax(ntk @ alpha, axis=1)).ravel()

    alpha = root(residual, np.zeros(30), tol=1e-12).x.reshape(10, 3)
    for method in ("exact", "gaussian"):
        found = InfiniteEnsemble("none", method).fit(problem).latents(X_TEST)
        np.testing.assert_allclose(found.mean, NET.kernels(X_TEST, X).ntk @ alpha, atol=1e-6)
        np.testing.assert_array_equal(found.cov, 0)


@pytest.mark.parametrize("name", ["ntk", "nngp"])
def test_laplace_of_a_process_is_exact_for_gaussian_noise(name):
    found = LaplaceProcess(name).fit(regression(key=None)).latents(X_TEST, joint=True)
    scale = REG if name == "ntk" else 1.0
    mean, cov = conditioned(lambda a, b: kernel(name)(a, b) / scale, X, Y, X_TEST, NOISE**2)
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    np.testing.assert_allclose(found.joint_cov[:, 1, :, 1], cov, atol=1e-8)


def test_points_in_blocks(monkeypatch):
    fitted = InfiniteEnsemble(n_draws=3).fit(regression())
    whole = fitted.latents(X_TEST).samples
    monkeypatch.setattr("ntk_uq.analytic.producer._POINTS_AT_ONCE", 3)
    np.testing.assert_allclose(fitted.latents(X_TEST).samples, whole, rtol=1e-12)


@pytest.mark.parametrize("scores", [False, True], ids=["MLP", "behind scores"])
def test_a_point_alone_has_the_draws_that_it_has_among_others(scores):
    """One program computes it, and scores of the training points are computed once."""
    net = NormalScores.of(X, NET) if scores else NET
    fitted = InfiniteEnsemble(n_draws=5).fit(replace(regression(), architecture=net))
    together = fitted.latents(X_TEST).samples
    for i in range(2):
        alone = fitted.latents(X_TEST[i : i + 1]).samples
        np.testing.assert_allclose(alone[:, 0], together[:, i], rtol=1e-9, atol=1e-9)


def test_what_is_drawn_needs_a_key():
    with pytest.raises(ValueError, match="give the problem a key"):
        InfiniteEnsemble().fit(regression(key=None))
    with pytest.raises(ValueError, match='drawn by method="exact"'):
        InfiniteEnsemble(method="gaussian").fit(regression()).functions()


@pytest.mark.slow
def test_an_estimator_adds_units_and_nothing_else():
    estimator = NTKRegressor(NET, reg=REG, noise=NOISE, method="exact", n_draws=4).fit(X, Y)
    given = estimator._key()
    ours = InfiniteEnsemble("posterior", n_draws=4).fit(regression(key=given)).latents(X_TEST)
    theirs = estimator.predict_distribution(X_TEST)
    np.testing.assert_allclose(ours.samples, theirs.samples, rtol=1e-12)

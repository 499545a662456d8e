"""Smooth units that climb the evidence, behind what they are shown of the features."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from ntk_uq import MLP, Gaussian, NormalScores
from ntk_uq.selection.by_evidence import refine, smooth

REGS = [1e-3, 1e-2, 0.1, 1.0]


def problem():
    """A kink in the first of two normal variables, half a line in the second, and no noise."""
    z = np.random.default_rng(0).normal(size=(40, 2))
    y = np.abs(z[:, :1]) + 0.5 * z[:, 1:]
    return z, (y - y.mean()) / y.std()


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("of", [lambda z: z, lambda z: z**3], ids=["features", "cubes"])
def test_evidence_is_that_of_the_network_that_comes_back(of):
    """SciPy's normal density under its kernel, of features times the scales that come back."""
    z, y = problem()
    x = of(z)
    best = smooth(MLP(), x, y, Gaussian(np.array([0.1])), ("noise",), None, REGS, (x, None))
    prior = best.network.kernels(x * best.scales).ntk / best.reg
    covariance = prior + np.square(best.likelihood.noise) * np.eye(len(y))
    expected = multivariate_normal(np.zeros(len(y)), covariance).logpdf(y[:, 0])
    np.testing.assert_allclose(best.evidence, expected, rtol=1e-6)
    network = best.network.network if isinstance(best.network, NormalScores) else best.network
    assert network.activation == "gelu"


def test_units_of_features_make_no_difference():
    """Normal scores of a cube and of a hyperbolic sine are the same."""
    z, y = problem()
    of_data = y, Gaussian(np.array([0.1])), ("noise",), None, REGS
    cubes, sines = (smooth(MLP(), x, *of_data, (x, None)) for x in (z**3, np.sinh(2 * z)))
    assert isinstance(cubes.network, NormalScores)
    assert not cubes.network.beside
    np.testing.assert_allclose(cubes.evidence, sines.evidence, atol=0.05)
    np.testing.assert_allclose(cubes.scales, sines.scales, rtol=0.05)


def test_features_that_need_no_other_unit_keep_theirs():
    """Scores of normal variables are nearly what these are, and no better."""
    x, y = problem()
    best = smooth(MLP(), x, y, Gaussian(np.array([0.1])), ("noise",), None, REGS, (x, None))
    assert best.network == replace(MLP(activation="gelu", depth=1), b_std=best.network.b_std)


def test_biases_climb():
    """Units bend sharply only if biases are as large as weights: a process with many kinks."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 1))
    process = GaussianProcessRegressor(Matern(0.3, nu=1.5))
    y = process.sample_y(x, random_state=0)
    of_data = y / y.std(), Gaussian(np.array([0.1]))
    best = smooth(MLP(), x, *of_data, ("noise",), None, REGS, (x, None))
    assert best.climbed == ("reg", "b_std", "scales", "noise")
    network, seen = best.network, x * best.scales
    if isinstance(network, NormalScores):
        network, seen = network.network, np.asarray(network.scores(seen))
    stays = replace(network, b_std=MLP().b_std)
    other = refine(stays, seen, np.ones(1), *of_data, ("noise", "scales"), None, best.reg)
    assert best.evidence > other.evidence + 3

"""Functions of random networks, against the Gaussian process that they stand for."""

import numpy as np
import pytest
from scipy import stats

from ntk_uq import MLP, FeatureEmbedding
from ntk_uq.networks import RandomFunctions

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))
# Of all entries that a test compares, by Bonferroni.
LEVEL = stats.norm.isf(1e-5 / 20)


def covariance(draws):
    """Over draws and outputs [4, 4], and its standard error, whatever the draws' kurtosis."""
    products = np.einsum("sic,sjc->sij", draws, draws) / draws.shape[2]
    return products.mean(0), products.std(0, ddof=1) / np.sqrt(len(draws))


def test_of_one_hidden_layer_the_covariance_is_the_limits_at_any_width():
    net = MLP(width=8, depth=1, activation="erf")
    draws = RandomFunctions(net, "nngp", 1.0, 8, (1, 2))(range(500), X).astype(float)
    found, error = covariance(draws)
    assert np.all(np.abs(found - net.kernels(X).nngp) < LEVEL * error)
    means = draws.mean(axis=(0, 2)) / (draws.mean(axis=2).std(axis=0) / np.sqrt(len(draws)))
    assert np.all(np.abs(means) < LEVEL)


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
@pytest.mark.parametrize("net", [MLP(width=256), FeatureEmbedding(MLP(width=256, depth=1))])
def test_of_wide_networks_the_law_is_the_limits(net, kernel):
    """Covariances within O(1 / width) and the error of 200 draws; each latent is normal."""
    scale = 1.5
    draws = RandomFunctions(net, kernel, scale, 4, (0,))(range(200), X).astype(float)
    expected = scale**2 * getattr(net.kernels(X), kernel)
    found, error = covariance(draws)
    assert np.all(np.abs(found - expected) < LEVEL * error + 5 * np.max(expected) / 256)
    for i in range(len(X)):
        assert stats.kstest(draws[:, i, 0] / np.sqrt(expected[i, i]), "norm").pvalue > 1e-4


def test_a_draw_depends_on_its_number_and_a_value_on_its_point(monkeypatch):
    functions = RandomFunctions(MLP(width=16), "nngp", 1.0, 2, (7,))
    whole = functions(range(5), X)
    np.testing.assert_allclose(functions(range(3, 5), X[1:]), whole[3:, 1:], atol=1e-5)
    monkeypatch.setattr("ntk_uq.networks.random_functions._POINTS_AT_ONCE", 3)
    told = []
    np.testing.assert_allclose(
        functions(range(5), X, lambda *done: told.append(done)), whole, atol=1e-5
    )
    assert told[-1] == (5, 5)
    other = RandomFunctions(MLP(width=16), "nngp", 1.0, 2, (8,))
    assert np.all(np.abs(other(range(5), X) - whole) > 1e-6)


def test_bits_are_the_same_on_every_machine():
    """Philox's are NumPy's promise; files of functions rest on it."""
    bits = RandomFunctions(MLP(), "nngp", 1.0, 2, (1, 2))._bits(3, 4)
    assert bits.tolist() == [1238833766, 3091927825, 1285942641, 54554891]

"""Normal scores against SciPy's ranks, and networks behind them against the networks themselves."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import PowerTransformer, StandardScaler

from ntk_uq.networks import MLP, FeatureEmbedding, NormalScores
from ntk_uq.selection.metric import with_scales

NET = MLP(width=8, depth=1)


def scores_of(network, X):
    with jax.enable_x64(True):
        return np.asarray(network.scores(jnp.asarray(X)))


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    return np.stack([rng.standard_cauchy(50), rng.integers(5, size=50)], axis=1)


def test_scores_are_those_of_ranks(X):
    """Van der Waerden's, ties sharing their mean rank, standardised."""
    expected = stats.norm.ppf((stats.rankdata(X, axis=0) - 0.5) / len(X))
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    np.testing.assert_allclose(scores_of(NormalScores.of(X, NET), X), expected, atol=1e-10)


def test_any_increasing_function_has_the_same(X):
    changed = np.stack([np.arctan(X[:, 0]), np.exp(X[:, 1])], axis=1)
    of_X, of_changed = NormalScores.of(X, NET), NormalScores.of(changed, NET)
    np.testing.assert_allclose(scores_of(of_X, X), scores_of(of_changed, changed), atol=1e-10)


@pytest.mark.parametrize("n", [64, 200])
def test_of_64_values_scores_are_exact(n):
    """Of more they are those of 64, and the others lie between the scores of their neighbours."""
    x = np.linspace(-2, 2, n)[:, None]
    of_x, of_changed = NormalScores.of(x, NET), NormalScores.of(np.exp(x), NET)
    found, changed = scores_of(of_x, x)[:, 0], scores_of(of_changed, np.exp(x))[:, 0]
    kept = np.isin(x[:, 0], of_x.at[0])
    assert kept.sum() == 64
    np.testing.assert_allclose(changed[kept], found[kept], atol=1e-10)
    steps = np.diff(found[kept])
    within = np.searchsorted(np.flatnonzero(kept), np.flatnonzero(~kept)) - 1
    off = np.abs(changed - found)[~kept]
    assert np.all(off < steps[within])
    assert np.all(off > 0)


def test_a_weight_of_two_is_the_point_twice(X):
    weights = 1.0 + (np.arange(50) < 20)
    repeated = NormalScores.of(np.concatenate([X, X[:20]]), NET)
    np.testing.assert_allclose(
        scores_of(NormalScores.of(X, NET, weights), X), scores_of(repeated, X), atol=1e-9
    )


def test_powers_are_those_of_the_highest_likelihood(X):
    """As scikit-learn finds them, of a feature in any unit: its own search ends elsewhere."""
    positive = np.stack([np.exp(X[:, 1]), np.arange(50.0) ** 2], axis=1)
    standardised = StandardScaler().fit_transform(positive)
    expected = PowerTransformer().fit_transform(standardised)
    network = NormalScores.of(40 * positive + 3, NET, by="power")
    found = scores_of(network, 40 * positive + 3)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    weights = 1.0 + (np.arange(50) < 20)
    repeated = NormalScores.of(np.concatenate([positive, positive[:20]]), NET, by="power")
    weighted = NormalScores.of(positive, NET, weights, by="power")
    np.testing.assert_allclose(
        scores_of(weighted, positive), scores_of(repeated, positive), atol=1e-5
    )


def test_beyond_known_values_they_go_on(X):
    network, spread = NormalScores.of(X, NET), X.std(axis=0)
    far = X.max(axis=0) + spread * np.arange(4)[:, None]
    np.testing.assert_allclose(np.diff(scores_of(network, far), axis=0), 1.0, rtol=1e-9)
    near = X.min(axis=0) - spread * np.arange(4)[:, None]
    np.testing.assert_allclose(np.diff(scores_of(network, near), axis=0), -1.0, rtol=1e-9)


def test_what_has_no_ranks_stays():
    """Indicators, constants, and constants but for rounding."""
    X = np.stack([np.arange(30) % 2, np.full(30, 3.0), 0.3 + 1e-16 * (np.arange(30) % 3)], axis=1)
    network = NormalScores.of(X, NET)
    assert network.changes_nothing
    np.testing.assert_allclose(scores_of(network, X), X, atol=1e-12)


def test_of_many_points_a_line_between_some():
    """They rise with the values everywhere, and are nearly the scores of all of them."""
    x = np.sort(np.random.default_rng(1).standard_normal(2000))[:, None]
    found = scores_of(NormalScores.of(x, NET), x)[:, 0]
    assert np.all(np.diff(found) > 0)
    ranks = (np.arange(2000) + 0.5) / 2000
    scale = stats.norm.ppf(ranks).std()
    # Between two knots, 1/63 apart in rank, an increasing function is off by no more than that.
    np.testing.assert_allclose(stats.norm.cdf(found * scale), ranks, atol=1 / 63 + 1e-3)


def test_the_network_behind_them(X):
    """Finite and infinite, with what a metric makes of them."""
    for inner in (NET, FeatureEmbedding(NET)):
        network, Z = NormalScores.of(X, inner), scores_of(NormalScores.of(X, inner), X)
        for found, expected in zip(network.kernels(X), inner.kernels(Z), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10)
        np.testing.assert_allclose(network.kernel_diag(X).ntk, inner.kernel_diag(Z).ntk, rtol=1e-10)
        learnt, factors = with_scales(network, np.array([1.0, 0.5]))
        behind, scales = with_scales(inner, np.array([1.0, 0.5]))
        np.testing.assert_array_equal(factors, 1.0)
        np.testing.assert_allclose(
            learnt.kernels(X).ntk, behind.kernels(Z * scales).ntk, rtol=1e-10
        )
    with jax.enable_x64(True):
        params = network.init(jax.random.key(0), 2, 3)
        np.testing.assert_allclose(
            network.apply(params, jnp.asarray(X)), inner.apply(params.network, jnp.asarray(Z))
        )
        np.testing.assert_allclose(
            network.tangent_kernel(params, X[:4], trace=True),
            inner.tangent_kernel(params.network, jnp.asarray(Z[:4]), trace=True),
        )
    assert network.widened(512).network.network.width == 512


def test_factors_are_the_scales_unless_something_else_has_them(X):
    """Of an embedding, or of points that were multiplied before the scores."""
    factors, ones = np.array([1.0, 0.5]), np.ones(2)
    network = NormalScores.of(X, NET)
    assert network.scales is None
    assert network.scaled(ones) == network
    twice = network.scaled(factors).scaled(factors)
    assert twice.scales == (1.0, 0.25)
    np.testing.assert_allclose(scores_of(twice, X), factors**2 * scores_of(network, X), rtol=1e-12)
    assert network.of_scaled(factors).scales is None
    assert NormalScores.of(X, NET, beside=True).scaled(factors).scales is None
    embedded, _ = with_scales(NormalScores.of(X, FeatureEmbedding(NET)), factors)
    assert embedded.scales == (1.0, 0.5)
    for wrong in ((1.0,), (1.0, -0.5), (1.0, np.nan)):
        with pytest.raises(ValueError, match="factors"):
            replace(network, factors=wrong)


@pytest.mark.parametrize("inner", [NET, FeatureEmbedding(NET, scales=(1.0, 0.5))], ids=repr)
def test_features_beside_their_scores(X, inner):
    """The network itself, of twice as many features; scales are of a feature and its score."""
    network, Z = NormalScores.of(X, inner, beside=True), scores_of(NormalScores.of(X, inner), X)
    both = np.concatenate([X, Z], axis=1)
    if isinstance(inner, FeatureEmbedding):
        inner = replace(inner, scales=inner.scales * 2)
        assert network.scales == (1.0, 0.5)
    np.testing.assert_allclose(network.kernels(X).ntk, inner.kernels(both).ntk, rtol=1e-10)
    np.testing.assert_allclose(network.kernel_diag(X).ntk, inner.kernel_diag(both).ntk, rtol=1e-10)
    scales = np.array([0.7, 0.0])
    learnt, factors = with_scales(network, scales)
    behind, of_both = with_scales(inner, np.tile(scales, 2))
    np.testing.assert_allclose(
        learnt.kernels(X * factors).ntk, behind.kernels(both * of_both).ntk, rtol=1e-9
    )
    with jax.enable_x64(True):
        params = network.init(jax.random.key(0), 2, 1)
        np.testing.assert_allclose(
            network.apply(params, jnp.asarray(X)), inner.apply(params.network, jnp.asarray(both))
        )


@pytest.mark.double_precision
def test_gradients_beside_scores_move_a_feature_and_its_score_alike(X):
    """Against differences of the kernel's function, with straight scores of slope one."""
    line = (-5.0, 5.0)
    network = NormalScores(NET, (line, line), (line, line), beside=True)
    points, x = jnp.asarray(X[:6]).clip(-4, 4), jnp.array([[0.3, -0.8]])
    alpha = jnp.asarray(np.random.default_rng(1).standard_normal((6, 1)))
    found = network.gradients(x, points, alpha, jnp.ones(2))[0, :, 0]

    def function(x):
        return np.asarray(network.kernels(x, points).ntk @ alpha)[0, 0]

    steps = 1e-5 * np.eye(2)
    differences = [(function(x + h) - function(x - h)) / 2e-5 for h in steps]
    np.testing.assert_allclose(found, differences, rtol=1e-6)


def test_refused(X):
    with pytest.raises(ValueError, match='by must be "rank" or "power"; got \'log\''):
        NormalScores.of(X, NET, by="log")
    with pytest.raises(ValueError, match="must increase"):
        NormalScores(NET, ((0.0, 0.0),), ((0.0, 1.0),))
    with pytest.raises(ValueError, match="as many finite values as scores"):
        NormalScores(NET, ((0.0, 1.0),), ((0.0,),))
    with pytest.raises(ValueError, match="network must be an architecture that takes tables"):
        NormalScores.of(X, "MLP")
    with pytest.raises(ValueError, match="of 2 features; the points have 3"):
        NormalScores.of(X, NET).kernels(np.ones((2, 3)))

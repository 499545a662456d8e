"""An embedding of each feature: its covariance by hand, its waves, networks of either width."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate

import ntk_uq as nuq
from ntk_uq import MLP, Architecture, FeatureEmbedding
from ntk_uq.kernels import empirical_ntk
from ntk_uq.networks.neural_tangents import stax

X = np.random.default_rng(0).normal(size=(7, 3)) * [1, 2, 3]
Y = (X[:, 0] > 0).astype(int)


def covariance(x, z, frequency, linear, scales, limit=5.0):
    """k_0 by its definition, a pair and a feature at a time."""
    k = np.zeros((len(x), len(z)))
    for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(z)):
        for s, u, v in zip(scales, a, b, strict=True):
            apart = np.clip(u, -limit, limit) - np.clip(v, -limit, limit)
            k[i, j] += s**2 * (linear * u * v + np.exp(-((frequency * apart) ** 2) / 2))
    return k / np.sum(np.square(scales))


def relu_kernels(k, k1, k2, depth, w_std, b_std):
    """Moments by integrals over the angle of two Gaussian variables: no arc cosine."""
    w2, b2 = w_std**2, b_std**2
    k, k1, k2 = (w2 * moment + b2 for moment in (k, k1, k2))
    ntk = k
    for _ in range(depth):
        cosine = k / np.sqrt(k1 * k2)
        angle = np.arccos(np.clip(cosine, -1, 1))
        # Both are positive on an arc of pi - angle; polar coordinates do the radius.
        mean, _ = integrate.quad(
            lambda t, a=angle: np.cos(t) * np.cos(t - a), angle - np.pi / 2, np.pi / 2
        )
        product, slope = np.sqrt(k1 * k2) * mean / np.pi, (np.pi - angle) / (2 * np.pi)
        k = w2 * product + b2
        ntk = k + w2 * slope * ntk
        k1, k2 = w2 * k1 / 2 + b2, w2 * k2 / 2 + b2
    return k, ntk


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("scales", [None, (2.0, 0.0, 0.5)])
def test_kernels_go_on_from_the_embeddings_covariance(depth, scales):
    net = FeatureEmbedding(MLP(depth=depth, b_std=0.4), 1.3, 0.8, scales)
    by_hand = np.ones(3) if scales is None else np.array(scales)
    k = covariance(X, X, 1.3, 0.8, by_hand)
    expected = np.vectorize(relu_kernels)(
        k, np.diag(k)[:, None], np.diag(k)[None], depth, 2**0.5, 0.4
    )
    # quad's own error is 1.5e-8; points that coincide lose half the digits of an arc cosine.
    np.testing.assert_allclose(net.kernels(X), expected, rtol=2e-7)
    np.testing.assert_allclose(net.kernels(X[:4], X[4:]), np.array(expected)[:, :4, 4:], rtol=2e-7)
    diagonals = np.diagonal(net.kernels(X), axis1=1, axis2=2)
    np.testing.assert_allclose(net.kernel_diag(X), diagonals, rtol=1e-13)


@pytest.mark.parametrize("frequency", [0.1, 0.7, 4.0])
def test_waves_have_the_covariance(frequency):
    net = FeatureEmbedding(frequency=frequency, scales=[1, 2, 3], limit=4.0)
    with jax.enable_x64(True):
        seen = np.asarray(net.embed(jnp.asarray(X)))
    expected = covariance(X, X, frequency, 0.5, [1, 2, 3], limit=4.0)
    np.testing.assert_allclose(seen @ seen.T / seen.shape[1], expected, atol=2e-5)


def test_without_hidden_layers_functions_are_additive():
    K = FeatureEmbedding(MLP(depth=0)).kernels(np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])).ntk
    interaction = np.array([1, -1, -1, 1])
    assert abs(interaction @ K @ interaction) < 1e-12 * np.max(K)


def test_finite_networks_have_the_kernels():
    """The mean over networks of a tangent kernel, to its standard error and the width's."""
    net, x = FeatureEmbedding(MLP(width=1024, depth=1), 1.3), X[:4].astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 24)
    draw = jax.jit(lambda key: net.init(key, 3, 2))
    kernels = np.array([empirical_ntk(net, draw(key), x, trace=True) for key in keys])
    error = kernels.std(axis=0, ddof=1) / np.sqrt(len(keys))
    expected = net.kernels(X[:4]).ntk
    assert np.all(np.abs(kernels.mean(axis=0) - expected) < 5 * error + 1e-4 * expected)
    params = draw(keys[0])
    jacobian = jax.jit(jax.jacobian(lambda p: net.apply(p, x)))(params)
    rows = [np.asarray(leaf).reshape(8, -1) for leaf in jax.tree.leaves(jacobian)]
    dense = sum(leaf @ leaf.T for leaf in rows).reshape(4, 2, 4, 2)
    np.testing.assert_allclose(empirical_ntk(net, params, x), dense, rtol=1e-4, atol=1e-4)


def test_a_network_of_the_users_behind_it():
    """By its own waves, without a formula of the angle: as far from that as the waves are."""
    _, _, kernel_fn = stax.serial(
        stax.Dense(64, 2**0.5, 0.3), stax.Relu(), stax.Dense(1, 2**0.5, 0.3)
    )

    def module(in_features, out_features, *, rngs):
        return nnx.Linear(in_features, out_features, rngs=rngs)

    users = FeatureEmbedding(Architecture(module, kernel_fn), 0.9)
    ours = FeatureEmbedding(MLP(depth=1), 0.9)
    apart = ~np.eye(len(X), dtype=bool)  # where points coincide its angle loses half the digits
    for theirs, kernel in zip(users.kernels(X), ours.kernels(X), strict=True):
        np.testing.assert_allclose(theirs[apart], kernel[apart], rtol=1e-4)
    np.testing.assert_allclose(users.kernels(X[:4], X[4:]), ours.kernels(X[:4], X[4:]), rtol=1e-4)
    np.testing.assert_allclose(users.kernel_diag(X), ours.kernel_diag(X), rtol=1e-4)
    assert users.holds_functions
    assert not ours.holds_functions
    assert users.apply(users.init(jax.random.key(0), 3, 2), X.astype(np.float32)).shape == (7, 2)


def test_derivatives_where_points_coincide():
    net = FeatureEmbedding(MLP(depth=2), 0.9)

    @jax.jit
    @jax.value_and_grad
    def f(x):
        return net.kernel_block(x, jnp.asarray(X))[1].sum()

    with jax.enable_x64(True):
        at, direction = jnp.asarray(X[:1]), jnp.asarray([[0.3, -0.2, 0.5]])
        _, gradient = f(at)
        assert np.isfinite(gradient).all()
        away = at + 0.1
        ahead, behind = f(away + 1e-6 * direction)[0], f(away - 1e-6 * direction)[0]
        slope = np.sum(np.asarray(f(away)[1]) * np.asarray(direction))
        np.testing.assert_allclose((ahead - behind) / 2e-6, slope, rtol=1e-6)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "make",
    [
        lambda net: nuq.NTKClassifier(net, n_draws=4),
        lambda net: nuq.EnsembleClassifier(net, n_members=2, reg=1.0),
        lambda net: nuq.BayesianClassifier(net, sampler="laplace", reg=1.0),
    ],
    ids=["ntk", "ensemble", "bayes"],
)
def test_every_producer_takes_it_and_files_keep_it(make, tmp_path):
    net = FeatureEmbedding(MLP(width=16, depth=1, activation="erf"), scales=[1.0, 0.5, 0.2])
    model = make(net).fit(X / 3, Y)
    nuq.save(model, tmp_path / "model.ntk")
    loaded = nuq.load(tmp_path / "model.ntk")
    assert loaded.architecture == net
    np.testing.assert_allclose(
        loaded.predict_proba(X / 3), model.predict_proba(X / 3), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": nuq.ConvNet()}, "takes tables"),
        ({"network": 3}, "takes tables"),
        ({"frequency": 0.0}, "frequency must be a number > 0"),
        ({"linear": -1.0}, "linear must be at least 0"),
        ({"limit": np.inf}, "limit must be a number > 0"),
        ({"scales": [0.0, 0.0]}, "all 0"),
        ({"scales": [1.0, -1.0]}, "at least 0 for each feature"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureEmbedding(**arguments)


def test_scales_of_other_points_are_refused():
    with pytest.raises(ValueError, match="scales has 2 entries; the points have 3 features"):
        FeatureEmbedding(scales=[1.0, 2.0]).kernels(X)

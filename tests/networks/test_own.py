"""A module of the user's own: its NTK parameterisation, its kernels, the estimators with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats
from small_problem import X

import ntk_uq as nuq
from ntk_uq.lazy import measure_laziness
from ntk_uq.networks.own import EmpiricalKernels

Y = np.arange(12) % 2
X_TEST = np.random.default_rng(1).normal(size=(12, 3))


class Sequential(nnx.Module):
    """What `MLP` is, written in Flax's layers."""

    def __init__(self, in_features, out_features, *, width=16, activation=nnx.relu, rngs):
        he = {"kernel_init": nnx.initializers.he_normal(), "rngs": rngs}
        self.layers = nnx.Sequential(
            nnx.Linear(in_features, width, **he),
            activation,
            nnx.Linear(width, width, **he),
            activation,
            nnx.Linear(width, out_features, **he),
        )

    def __call__(self, x):
        return self.layers(x)


OWN, SAME = nuq.Architecture(Sequential), nuq.MLP(width=16)


def test_kernels_are_those_of_the_same_mlp():
    for ours, theirs in zip(OWN.kernels(X, X_TEST), SAME.kernels(X, X_TEST), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    repeated = np.concatenate([X[:5], X[:5] + 1e-9, X[:2]])
    for ours, theirs in zip(OWN.kernels(repeated), SAME.kernels(repeated), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.slow
def test_training_equals_that_of_the_same_mlp():
    """Parameters in the same order are drawn alike, member for member."""
    erf = nuq.Architecture(functools.partial(Sequential, activation=jax.lax.erf))
    fits = [
        nuq.EnsembleClassifier(net, n_members=2, reg=0.5, tol=1e-6, progress=False).fit(
            X[:8], Y[:8]
        )
        for net in (erf, nuq.MLP(width=16, activation="erf"))
    ]
    ours, theirs = (fit.predict_distribution(X_TEST).samples for fit in fits)
    # A gap of tol nats is sqrt(2 tol / reg) in the parameters.
    np.testing.assert_allclose(ours, theirs, atol=4e-3)


class Mixed(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs):
        init = nnx.initializers
        self.truncated = nnx.Linear(in_features, 40, rngs=rngs)
        self.uniform = nnx.Linear(40, 30, kernel_init=init.glorot_uniform(), rngs=rngs)
        self.orthogonal = nnx.Linear(30, 30, kernel_init=init.orthogonal(1.5), rngs=rngs)
        self.norm = nnx.LayerNorm(30, rngs=rngs)
        self.bare = nnx.Param(1 + 0.02 * jax.random.normal(rngs.params(), (30, 7)))
        self.heads = nnx.LinearGeneral(30, (4, 7), rngs=rngs)  # its bias has two axes

    def __call__(self, x):
        return x


def test_laws_of_parameters_are_recognised():
    laws = {law.path: law for law in nuq.Architecture(Mixed, b_std=0.1).laws(5, 2)}
    expected = {
        "truncated.kernel": (0, 5**-0.5, "truncated normal"),
        "truncated.bias": (0, 0.1, "constant"),
        "uniform.kernel": (0, (2 / 70) ** 0.5, "uniform"),
        "norm.scale": (1, 0, "constant"),
        "norm.bias": (0, 0.1, "constant"),
        "heads.bias": (0, 0.1, "constant"),
        "bare": (1, 0.02, "normal"),
    }
    for path, (mean, scale, how) in expected.items():
        assert laws[path].how == how
        np.testing.assert_allclose((laws[path].mean, laws[path].scale), (mean, scale), rtol=1e-5)
    measured = laws["orthogonal.kernel"]
    assert measured.how == "measured"
    np.testing.assert_allclose(measured.scale, 1.5 / 30**0.5, rtol=0.03)


def test_parameters_are_standard_normal_and_outputs_those_of_the_module():
    net = nuq.Architecture(Sequential, width=64)
    params = net.init(jax.random.key(0), 3, 2)
    for leaf in jax.tree.leaves(params):
        assert stats.kstest(np.asarray(leaf).ravel(), "norm").pvalue > 1e-3
    leaves, structure = jax.tree.flatten(Sequential(3, 2, width=64, rngs=nnx.Rngs(0)))
    scaled = [
        law.scale * leaf for law, leaf in zip(net.laws(3, 2), jax.tree.leaves(params), strict=True)
    ]
    assert len(scaled) == len(leaves)
    expected = jax.tree.unflatten(structure, scaled)(X)
    np.testing.assert_allclose(net.apply(params, X), expected, rtol=1e-5, atol=1e-6)


class Zero(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs):
        self.last = nnx.Linear(
            in_features, out_features, kernel_init=nnx.initializers.zeros, rngs=rngs
        )

    def __call__(self, x):
        return self.last(x)


class Uneven(Zero):
    def __init__(self, in_features, out_features, *, rngs):
        super().__init__(in_features, out_features, rngs=rngs)
        numbers = jax.random.normal(rngs.params(), (in_features, out_features))
        self.last.kernel = nnx.Param(numbers * jnp.arange(1.0, in_features + 1)[:, None])


class Normed(Zero):
    def __init__(self, in_features, out_features, *, rngs):
        super().__init__(in_features, out_features, rngs=rngs)
        self.norm = nnx.BatchNorm(in_features, rngs=rngs)


class Mistaken(Sequential):
    def __call__(self, x):
        return super().__call__(x[:, :-1])


def start(module):
    return nuq.Architecture(module).init(jax.random.key(0), 3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: start(nnx.Sequential), "Sequential failed, called with in_features=3, "),
        (
            lambda: nuq.Architecture(Mistaken).kernels(X),
            rf"Mistaken failed, called with points of shape .*{__file__}:\d+ \(__call__\): TypeErr",
        ),
        (
            lambda: nuq.Architecture(Zero(3, 2, rngs=nnx.Rngs(0))),
            "trained already is for nuq.Linearized",
        ),
        (lambda: nuq.Architecture(Normed).init(jax.random.key(0), 3, 2), "norm.mean: BatchStat"),
        (lambda: nuq.Architecture(Zero).init(jax.random.key(0), 3, 2), "starts at zero"),
        (lambda: nuq.Architecture(Uneven).init(jax.random.key(0), 3, 2), "differ from one"),
        (lambda: nuq.Architecture(nnx.Linear, width=3), "Linear takes no width"),
        (lambda: nuq.Architecture(Zero).with_width(3), "Zero takes no width"),
        (lambda: nuq.Architecture(Zero, kernels="measured"), 'must be "read_off" or "empirical"'),
        (lambda: nuq.Architecture(Zero, parameterization="flax"), 'must be "ntk" or "own"'),
        (lambda: nuq.Architecture(Zero, n_networks=1), "n_networks must be an integer"),
        (
            lambda: nuq.Architecture(Sequential, parameterization="own").kernels(X),
            "tangent kernel grows with the width",
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Standard(nnx.Module):
    """In NTK parameterisation by its own doing."""

    def __init__(self, in_features, out_features, *, rngs):
        self.w = nnx.Param(jax.random.normal(rngs.params(), (in_features, 16)))
        self.v = nnx.Param(jax.random.normal(rngs.params(), (16, out_features)))

    def __call__(self, x):
        return nnx.relu(2**0.5 * x @ self.w[...] / x.shape[1] ** 0.5) @ self.v[...] / 4 * 2**0.5


def test_own_parameters_that_are_standard_normal_already():
    mlp = nuq.MLP(depth=1, b_std=0.0).kernels(X)
    for parameterization in ("own", "ntk"):
        net = nuq.Architecture(Standard, parameterization=parameterization)
        for ours, theirs in zip(net.kernels(X), mlp, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("width", [64, pytest.param(256, marks=pytest.mark.slow)])
def test_empirical_kernels_say_their_error(width):
    limit = OWN.kernels(X, X_TEST)
    net = nuq.Architecture(Sequential, kernels="empirical", width=width, n_networks=30)
    found = net.kernels(X, X_TEST)
    assert isinstance(found, EmpiricalKernels)
    for ours, error, theirs in zip(found, found.standard_error, limit, strict=True):
        assert error.shape == ours.shape
        assert (np.abs(ours - theirs) < 5 * error + 3 / width * np.abs(theirs).max()).all()
    diagonal = net.kernel_diag(X).ntk  # in the precision of the parameters
    np.testing.assert_allclose(diagonal, np.diag(net.kernels(X, X).ntk), rtol=1e-5)


def test_width_is_a_parameter_of_the_estimator():
    clf = nuq.EnsembleClassifier(OWN).set_params(architecture__width=8)
    assert clf.architecture == OWN.with_width(8)
    assert jax.tree.leaves(clf.architecture.init(jax.random.key(0), 3, 2))[0].shape == (8,)


def test_estimators_take_a_module(tmp_path):
    """Fit, predict, compare, save and load, without another word on kernels."""
    infinite = nuq.NTKClassifier(OWN, reg=0.5, n_draws=4, random_state=0).fit(X, Y)
    finite = nuq.EnsembleClassifier(OWN, n_members=4, reg=0.5, progress=False).fit(X, Y)
    table = nuq.compare(
        {"infinite": infinite, "finite": finite}, X_TEST, Y, reference="infinite"
    ).table
    assert np.isfinite(table.loc["finite", "tv"])
    for estimator in (infinite, finite):
        path = tmp_path / "model.ntk"
        nuq.save(estimator, path)
        again = nuq.load(path, architecture=OWN)
        np.testing.assert_allclose(
            again.predict_proba(X_TEST), estimator.predict_proba(X_TEST), atol=1e-6
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior draws need care")  # so few, on purpose
@pytest.mark.parametrize("prior", ["ntk", "weights"])
def test_posterior_of_a_module(prior):
    net = OWN.with_width(4)
    model = nuq.BayesianClassifier(
        net, prior=prior, reg=1.0, num_warmup=20, num_samples=20, num_chains=1, progress=False
    )
    with np.errstate(all="ignore"):
        assert np.isfinite(model.fit(X[:6], Y[:6]).predict_proba(X_TEST)).all()


def test_behind_an_embedding():
    ours = nuq.FeatureEmbedding(OWN).kernels(X, X_TEST)
    for one, other in zip(ours, nuq.FeatureEmbedding(SAME).kernels(X, X_TEST), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)  # its waves are cut at 1e-5
    params = nuq.FeatureEmbedding(OWN).init(jax.random.key(0), 3, 2)
    same = nuq.FeatureEmbedding(SAME).init(jax.random.key(0), 3, 2)
    np.testing.assert_allclose(
        nuq.FeatureEmbedding(OWN).apply(params, X.astype(np.float32)),
        nuq.FeatureEmbedding(SAME).apply(same, X.astype(np.float32)),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.slow
def test_laziness_of_a_module():
    laziness = measure_laziness(
        jax.random.key(0), nuq.Architecture(functools.partial(Sequential)), X, np.eye(2)[Y],
        nuq.Categorical(), reg=1.0, widths=[8, 64], X_probe=X[:5], n_members=2,
    )  # fmt: skip
    assert list(laziness.widths) == [8, 64]

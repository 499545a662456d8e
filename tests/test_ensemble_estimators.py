"""The finite ensembles' estimators: options, weights, images, users' modules."""

import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits, load_iris

from ntk_uq import (
    MLP,
    Architecture,
    ConvNet,
    EnsembleClassifier,
    EnsembleRegressor,
    NTKClassifier,
    NTKRegressor,
)

X, y = load_iris(return_X_y=True)
X, y, X_TEST = X[::5], y[::5], X[1::15]
NET = MLP(width=64, depth=1, activation="erf")


@pytest.mark.slow
def test_regressor_has_the_law_of_the_infinite_one():
    target, members = X[:, 0] + X[:, 1] ** 2, 64
    options = {"noise": 0.5, "reg": 4.0, "uncertainty": "posterior"}
    finite = EnsembleRegressor(n_members=members, **options).fit(X, target)
    infinite = NTKRegressor(**options).fit(X, target)
    mean, std = finite.predict(X_TEST, return_std=True)
    expected_mean, expected_std = infinite.predict(X_TEST, return_std=True)
    assert finite.converged_.all()
    finite_width = 20 / 512
    error = np.abs(mean - expected_mean) / expected_std
    assert error.max() < 4 / np.sqrt(members) + finite_width
    assert np.abs(std / expected_std - 1).max() < 4 / np.sqrt(2 * members) + finite_width


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.ConvergenceWarning")
def test_weights_count_points():
    weights = np.ones(len(X))
    weights[:2], weights[-3:] = 2, 0
    rows = np.random.default_rng(0).permutation(np.r_[0, 1, : len(X) - 3])
    # Features and targets are standardised, and the noise is estimated, by the weighted points too.
    for model in (
        EnsembleClassifier(n_members=1), EnsembleClassifier(NET, n_members=2),
        EnsembleRegressor(n_members=1, max_iter=20),
        EnsembleRegressor(NET, n_members=2, max_iter=20),
    ):  # fmt: skip
        target = y if hasattr(model, "predict_proba") else X @ [1.0, -1, 2, 0.5] + 0.3 * np.sin(y)
        weighted = model.fit(X, target, sample_weight=weights).predict(X_TEST)
        np.testing.assert_array_equal(weighted, model.fit(X[rows], target[rows]).predict(X_TEST))
    with pytest.raises(ValueError, match="Negative values"):
        model.fit(X, y, sample_weight=-weights)


@pytest.mark.slow
def test_warm_start_trains_only_the_new_members(capsys):
    classifier = EnsembleClassifier(NET, n_members=2, warm_start=True, progress=True).fit(X, y)
    first = classifier.ensemble_
    classifier.set_params(n_members=3).fit(X, y)
    whole = EnsembleClassifier(NET, n_members=3).fit(X, y)
    np.testing.assert_array_equal(
        classifier.predict_distribution(X_TEST).samples, whole.predict_distribution(X_TEST).samples
    )
    np.testing.assert_array_equal(classifier.ensemble_.objective[:2], first.objective)
    assert "gap=" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("readout", [pytest.param("pool", marks=pytest.mark.slow), "flatten"])
def test_images_go_through_convolutions(readout):
    digits = load_digits()
    rows = np.flatnonzero(digits.target < 2)[:60]
    images, labels = digits.images[rows, ::2, ::2, None] / 16, digits.target[rows]
    net = ConvNet(width=16, depth=1, readout=readout)
    finite = EnsembleClassifier(net, n_members=3, reg=0.01).fit(images[:40], labels[:40])
    assert finite.score(images[40:], labels[40:]) > 0.9
    infinite = NTKClassifier(net, n_draws=8, reg=0.01).fit(images[:40], labels[:40])
    assert infinite.score(images[40:], labels[40:]) > 0.9
    with pytest.raises(ValueError, match=r"shape \(4, 2, 1\); those of fit had \(4, 4, 1\)"):
        finite.predict(images[:, :, :2])
    with pytest.raises(ValueError, match="dim 4"):
        EnsembleClassifier(MLP()).fit(images, labels)
    with pytest.raises(ValueError, match="ConvNet takes images"):
        EnsembleClassifier(net).fit(X, y)


class Convolutional(nnx.Module):
    """A user's module, in its own parameterisation."""

    def __init__(self, in_features, out_features, *, rngs):
        height, width, channels = in_features
        self.conv = nnx.Conv(channels, 8, (3, 3), rngs=rngs)
        self.readout = nnx.Linear(height * width * 8, out_features, rngs=rngs)

    def __call__(self, x):
        return self.readout(jax.nn.relu(self.conv(x)).reshape(len(x), -1))


# So narrow a network in its own parameterisation learns features, which is said.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.LazinessWarning")
def test_a_users_module_on_images():
    images = np.random.default_rng(0).normal(size=(20, 4, 4, 1))
    labels = (images[:, 0].sum(axis=(1, 2)) > 0).astype(int)
    classifier = EnsembleClassifier(Architecture(Convolutional), n_members=2, reg=0.01)
    assert classifier.fit(images, labels).score(images, labels) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uncertainty": "all"}, 'uncertainty must be "initialization"'),
        ({"tol": -1.0}, "tol must be at least 0"),
        ({"max_iter": 0}, "max_iter must be an integer, at least 1"),
        ({"optimizer": 0.1}, "optimizer takes an optax optimizer"),
        ({"batch_size": 0}, "batch_size must be an integer, at least 1"),
        ({"memory": 1000}, "one member takes about"),
        ({"reg": 0.0}, "reg=0 with one-hot targets has no solution"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        EnsembleClassifier(NET, n_members=1, **options).fit(X, y)

"""Estimators of a trained network: its labels, its file, its refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV
from trained_networks import ConvolutionalNetwork

import ntk_uq as nuq

X, y = make_moons(60, noise=0.2, random_state=0)
X_TEST, Y_TEST = make_moons(200, noise=0.2, random_state=1)
DECAY = 0.3


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 32, rngs=rngs)
        self.readout = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.tanh(self.hidden(x)))


@pytest.fixture(scope="module")
def model():
    """Trained by optax on a sum of losses with weight decay, as its docs have it."""
    model = Classifier(nnx.Rngs(0))
    # At a constant rate Adam wanders about the minimum.
    rate = optax.cosine_decay_schedule(0.02, 1500)
    optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)
    points, labels = jnp.asarray(X, jnp.float32), jnp.asarray(y)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            losses = optax.softmax_cross_entropy_with_integer_labels(model(points), labels)
            weights = jax.tree.leaves(nnx.state(model, nnx.Param))
            return jnp.sum(losses) + 0.5 * DECAY * sum(jnp.sum(w**2) for w in weights)

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(1500):
        step(model, optimizer)
    return model


@pytest.mark.slow
def test_a_trained_network_is_its_own_mode(model):
    """With the prior of its weight decay, on its own data; as classifier in every method."""
    net = nuq.Linearized(model, prior_mean="zero")
    logits = net.tangent.at(X_TEST)
    settings = {"reg": DECAY, "progress": False}
    mode = nuq.NTKClassifier(net, uncertainty="none", **settings).fit(X, y)
    # What is left of Adam's gradient moves it by little.
    found = mode.predict_distribution(X_TEST).mean
    assert np.abs(found - logits).max() < 0.02 * np.abs(logits).max()
    laplace = nuq.NTKClassifier(net, uncertainty="posterior", method="gaussian", **settings)
    draws = nuq.NTKClassifier(net, uncertainty="posterior", n_draws=64, **settings)
    comparison = nuq.compare(
        {"laplace": laplace.fit(X, y), "draws": draws.fit(X, y), "mode": mode},
        X_TEST, Y_TEST, reference="draws",
    )  # fmt: skip
    assert comparison.table.loc["draws", "accuracy"] > 0.9
    assert comparison.table.loc["mode", "epistemic"] == 0
    assert comparison.table.loc["draws", "epistemic"] > 0
    far = draws.predict_distribution([[8.0, -8.0]]).epistemic
    assert far > draws.predict_distribution(X_TEST).epistemic.mean()


def test_file(model, tmp_path):
    """The file holds the network's numbers; its code comes from a model of the same class."""
    settings = {"reg": 0.5, "uncertainty": "posterior", "progress": False}
    for method in ("exact", "gaussian"):
        clf = nuq.NTKClassifier(nuq.Linearized(model), method=method, n_draws=4, **settings).fit(
            X, y
        )
        path = tmp_path / f"{method}.ntk"
        nuq.save(clf, path)
        untrained = nuq.Linearized(Classifier(nnx.Rngs(1)))
        again = nuq.load(path, architecture=untrained)
        np.testing.assert_array_equal(again.predict_proba(X_TEST), clf.predict_proba(X_TEST))
    with pytest.raises(ValueError, match="Linearized"):
        nuq.load(path, architecture=nuq.Architecture(nnx.Linear))
    with pytest.raises(ValueError, match=r"other shapes.* Give a model of the same class"):
        nuq.load(path, architecture=nuq.Linearized(nnx.Linear(2, 2, rngs=nnx.Rngs(0))))
    chosen = nnx.All(nnx.Param, nnx.PathContains("readout"))
    with pytest.raises(ValueError, match="other shapes"):
        nuq.load(path, architecture=nuq.Linearized(Classifier(nnx.Rngs(1)), chosen))


def test_sklearn(model):
    clf = nuq.NTKClassifier(nuq.Linearized(model), reg=1.0, uncertainty="none")
    again = clone(clf).fit(X, np.where(y == 1, "upper", "lower"))
    assert set(again.predict(X_TEST)) == {"upper", "lower"}
    assert again.score(X_TEST, np.where(Y_TEST == 1, "upper", "lower")) > 0.9


def test_reg_by_refits(model):
    """What the error about reg="cv" advises."""
    clf = nuq.NTKClassifier(nuq.Linearized(model), uncertainty="none", progress=False)
    search = GridSearchCV(clf, {"reg": [0.1, 10.0]}, scoring="neg_log_loss", cv=2).fit(X, y)
    assert search.best_estimator_.reg_ == search.best_params_["reg"]
    assert search.best_score_ > np.log(0.5)  # better than a guess


@pytest.mark.slow
def test_images():
    images = np.random.default_rng(0).standard_normal((9, 6, 6, 2))
    net = nuq.Linearized(ConvolutionalNetwork(nnx.Rngs(0)))
    clf = nuq.NTKClassifier(net, reg=1.0, uncertainty="posterior", n_draws=3, progress=False)
    assert clf.fit(images, np.arange(9) % 3).predict_proba(images).shape == (9, 3)


class Outputs(nnx.Module):
    """A network whose outputs are a function of another's."""

    def __init__(self, function, model):
        self.function, self.model = function, model

    def __call__(self, x):
        return self.function(self.model(x))


def test_outputs_that_are_no_logits(model):
    """Probabilities, and one logit between two classes: what the error says to paste works."""

    def fitted(function):
        net = nuq.Linearized(Outputs(function, model))
        return nuq.NTKClassifier(net, reg=1.0, uncertainty="none", progress=False).fit(X, y)

    with pytest.warns(UserWarning, match="outputs are probabilities.* leave out its last softmax"):
        fitted(nnx.softmax)
    with pytest.raises(ValueError, match=r"jnp\.concatenate") as raised:
        fitted(lambda logits: logits[:, 1:] - logits[:, :1])
    (code,) = re.findall(r"returns (jnp.*), z of shape", str(raised.value))
    two = fitted(lambda logits: eval(code, {"jnp": jnp, "z": logits[:, 1:] - logits[:, :1]}))
    assert two.score(X_TEST, Y_TEST) > 0.9


def test_no_checkpoint(model, tmp_path):
    net = nuq.Linearized(model)
    clf = nuq.NTKClassifier(net, reg=1.0, uncertainty="none", checkpoint=tmp_path / "run")
    with pytest.warns(UserWarning, match="nothing of this fit is kept there"):
        clf.fit(X, y)


def test_refusals(model):
    net = nuq.Linearized(model)
    with pytest.raises(ValueError, match="one network, which is given"):
        nuq.NTKClassifier(net).fit(X, y)
    with pytest.raises(ValueError, match="reg > 0"):
        nuq.NTKClassifier(net, reg=0, uncertainty="none", label_smoothing=0.1).fit(X, y)
    with pytest.raises(ValueError, match="Leave tune out"):
        nuq.NTKClassifier(net, reg="evidence", uncertainty="none", tune=("scales",)).fit(X, y)
    for reg in ("cv", "evidence"):
        with pytest.raises(ValueError, match=r"number for reg.*GridSearchCV"):
            nuq.NTKClassifier(net, reg=reg, uncertainty="none").fit(X, y)
    with pytest.raises(ValueError, match="needs the noise"):
        nuq.NTKRegressor(net, reg=1.0, uncertainty="none").fit(X, X)
    with pytest.raises(ValueError, match="both were given"):
        nuq.NTKClassifier(net, kernel=nuq.MLP().kernels, reg=1.0, uncertainty="none").fit(X, y)
    with pytest.raises(ValueError, match="Leave n_trajectories out"):
        nuq.NTKClassifier(net, reg=1.0, uncertainty="posterior", n_trajectories=1).fit(X, y)
    with pytest.raises(ValueError, match="2 outputs, and the targets 3"):
        nuq.NTKClassifier(net, reg=1.0, uncertainty="none").fit(X, np.arange(60) % 3)
    for other in (nuq.EnsembleClassifier(net), nuq.BayesianClassifier(net)):
        with pytest.raises(ValueError, match="NTKClassifier"):
            other.fit(X, y)

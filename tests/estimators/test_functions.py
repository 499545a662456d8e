"""A classifier as a function of JAX: the estimator's own predictions, jitted and differentiated."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from small_problem import FEW, LABELS, NET
from small_problem import X as STANDARD

from ntk_uq import (
    MLP,
    BayesianClassifier,
    ConvNet,
    EnsembleClassifier,
    Linearized,
    NTKClassifier,
    load,
)
from ntk_uq.bayes import SamplingWarning

# Of several units: where no network is given, features are standardised first.
UNITS, SHIFT = np.array([1.0, 100.0, 0.01]), np.array([-3.0, 500.0, 0.1])
X = SHIFT + UNITS * STANDARD
TEST = SHIFT + UNITS * np.random.default_rng(1).normal(size=(8, 3))


@pytest.mark.parametrize("name", ["ntk-mixture", "ntk-exact", "ntk-none", "ensemble"])
@pytest.mark.filterwarnings("ignore:.* was written with scikit-learn")
def test_predictions_after_a_function_in_single_precision(name):
    """While it lives JAX takes arrays that it holds for single (findings): none are shared."""
    points = np.random.default_rng(5).normal(size=(7, 2))
    path = Path(__file__).parents[1] / "golden" / f"{name}.ntk"
    before = [load(path).predict_proba(some) for some in (points, points[:1])]
    model = load(path)
    function = model.as_function()
    function(points.astype(np.float32))
    for some, expected in zip((points, points[:1]), before, strict=True):
        np.testing.assert_allclose(model.predict_proba(some), expected, rtol=1e-10)


@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_close_points_in_single_precision(uncertainty):
    """Covariances of the prior that are singular to single precision: a line, and neighbours.

    Of the prior's deviation, 1 to 3 here, a part sqrt(sqrt(n) eps) is 0.001: latents are off by
    some thousandths, and probabilities by a quarter of that.
    """
    points = np.sort(np.random.default_rng(0).normal(size=40))
    points = np.concatenate([points, points + 1e-5])[:, None]
    model = NTKClassifier(MLP(depth=1), 1.0, uncertainty, n_draws=16)
    model.fit(points, (points[:, 0] > 0).astype(int))
    for some in (points, points + 0.01):
        found = model.as_function()(some.astype(np.float32)).proba
        np.testing.assert_allclose(found, model.predict_proba(some), atol=0.01)


@pytest.mark.parametrize(
    "model",
    [
        NTKClassifier(reg=0.3, n_draws=4),
        pytest.param(NTKClassifier(reg=1.0, method="gaussian"), marks=pytest.mark.slow),
        pytest.param(
            NTKClassifier(reg=1.0, uncertainty="posterior", n_draws=4), marks=pytest.mark.slow
        ),
        EnsembleClassifier(reg=1.0, n_members=3),
    ],
    ids=["exact", "gaussian", "posterior", "ensemble"],
)
def test_function_is_the_estimator(model):
    model.fit(X, LABELS)
    prediction = model.predict_distribution(TEST)
    with jax.enable_x64(True):
        found = model.as_function()(TEST)
        np.testing.assert_allclose(found.proba, prediction.proba(), atol=1e-8)
        for name in ("total_uncertainty", "aleatoric", "epistemic"):
            np.testing.assert_allclose(getattr(found, name), getattr(prediction, name), atol=1e-8)
    np.testing.assert_allclose(model.as_function()(TEST).proba, prediction.proba(), atol=2e-3)


@pytest.mark.slow
def test_gradient_by_differences():
    model = NTKClassifier(reg=1.0, n_draws=4).fit(X, LABELS)
    function, step = model.as_function(), 1e-4 * X.std(axis=0)[0]
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: function(x).epistemic[0])(TEST[:1])[0, 0]
    moved = np.repeat(TEST[:1], 2, axis=0)
    moved[:, 0] += [-step, step]
    low, high = model.predict_distribution(moved).epistemic
    np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-3)


def test_draws_that_go_on_by_random_numbers_are_no_function():
    model = BayesianClassifier(NET, **FEW)
    with pytest.warns(SamplingWarning):
        model.fit(STANDARD, LABELS)
    with pytest.raises(ValueError, match="is no function"):
        model.as_function()


def test_a_trained_network_is_no_function():
    """The message says what is: NTKClassifiers of other networks."""
    trained = Linearized(nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    model = NTKClassifier(trained, reg=1.0, uncertainty="none").fit(STANDARD, LABELS)
    with pytest.raises(ValueError, match=r"\(Linearized\), is no function"):
        model.as_function()


def test_points_of_another_shape_are_refused():
    """By name, by the function and by predictions: of columns, and of images that are flat."""
    function = NTKClassifier(reg=1.0, n_draws=2).fit(X, LABELS).as_function()
    for points in (TEST[:, :2], TEST[0]):
        with pytest.raises(ValueError, match=r"the shape \[m, 3\], as those of fit"):
            function(points)
    images = STANDARD[:, :, None, None]
    model = NTKClassifier(ConvNet(depth=1), reg=1.0, n_draws=2).fit(images, LABELS)
    with pytest.raises(ValueError, match=r"got \(12, 3\).*X.reshape\(-1, 3, 1, 1\)"):
        model.predict(STANDARD)

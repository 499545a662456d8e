"""A classifier as a function of JAX: the estimator's own predictions, jitted and differentiated."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_wine

from ntk_uq import MLP, BayesianClassifier, EnsembleClassifier, NTKClassifier
from ntk_uq.bayes import SamplingWarning

X, LABELS = load_wine(return_X_y=True)
TRAIN, TEST = slice(0, None, 3), X[1::3]
NETWORK = MLP(width=32, depth=1)


@pytest.mark.parametrize(
    "model",
    [
        NTKClassifier(reg=0.3, n_draws=32),
        pytest.param(NTKClassifier(reg=1.0, method="gaussian"), marks=pytest.mark.slow),
        pytest.param(
            NTKClassifier(reg=1.0, uncertainty="posterior", n_draws=8), marks=pytest.mark.slow
        ),
        EnsembleClassifier(reg=1.0, n_members=3),
    ],
    ids=["exact", "gaussian", "posterior", "ensemble"],
)
def test_function_is_the_estimator(model):
    model.fit(X[TRAIN], LABELS[TRAIN])
    prediction = model.predict_distribution(TEST)
    with jax.enable_x64(True):
        found = model.as_function()(TEST)
        np.testing.assert_allclose(found.proba, prediction.proba(), atol=1e-8)
        for name in ("total_uncertainty", "aleatoric", "epistemic"):
            np.testing.assert_allclose(getattr(found, name), getattr(prediction, name), atol=1e-8)
    np.testing.assert_allclose(model.as_function()(TEST).proba, prediction.proba(), atol=2e-3)


@pytest.mark.slow
def test_gradient_by_differences():
    model = NTKClassifier(reg=1.0, n_draws=8).fit(X[TRAIN], LABELS[TRAIN])
    function, step = model.as_function(), 1e-4 * X.std(axis=0)[0]
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: function(x).epistemic[0])(TEST[:1])[0, 0]
    moved = np.repeat(TEST[:1], 2, axis=0)
    moved[:, 0] += [-step, step]
    low, high = model.predict_distribution(moved).epistemic
    np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-3)


def test_draws_that_go_on_by_random_numbers_are_no_function():
    model = BayesianClassifier(NETWORK, num_warmup=5, num_samples=5, num_chains=1)
    with pytest.warns(SamplingWarning):
        model.fit(X[TRAIN] / X.std(axis=0), LABELS[TRAIN])
    with pytest.raises(ValueError, match="is no function"):
        model.as_function()

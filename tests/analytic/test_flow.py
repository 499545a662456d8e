"""Gradient flow of many draws, against SciPy's integrator and in its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.metrics import log_loss

import ntk_uq as nuq
from ntk_uq import gradient_flow
from ntk_uq.analytic import follow_flow

RNG = np.random.default_rng(0)
X, y = make_moons(12, noise=0.2, random_state=0)
X_TEST, _ = make_moons(6, noise=0.2, random_state=1)
Y = np.eye(2)[y]
NET = nuq.MLP(depth=1)
TIMES = [0.01, 0.3, 10.0]


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_against_scipy(reg):
    """One-hot labels, with and without regularisation: nothing diverges by a finite time."""
    kernels = NET.kernels(X)
    f0 = np.linalg.cholesky(kernels.nngp + 1e-9 * np.eye(len(X))) @ RNG.standard_normal(
        (2, len(X), 2)
    )
    with jax.enable_x64(True):
        problem = [jnp.asarray(a) for a in (kernels.ntk, Y, f0)]
        found = list(follow_flow(*problem, reg, nuq.Categorical(), TIMES))
        for s, start in enumerate(f0):
            exact = gradient_flow.integrate(
                kernels.ntk, Y, start, reg, nuq.Categorical(), TIMES, rtol=1e-9, atol=1e-11
            )
            for (alpha, latents), coefficients in zip(found, exact, strict=True):
                # Steps of 1e-6 nats, about 1e-3 of the likelihood's scale, a hundred of them.
                expected = start + kernels.ntk @ coefficients
                np.testing.assert_allclose(latents[s], expected, atol=1e-3)
                np.testing.assert_allclose(start + kernels.ntk @ alpha[s], latents[s], atol=1e-9)


def classifier(**settings):
    return nuq.NTKClassifier(NET, n_draws=4, progress=False, **settings).fit(X, y)


@pytest.mark.slow
def test_limits_of_the_classifier():
    """At t = 0 the prior function, in the end the solution, in between neither."""
    end = classifier(reg=0.5).predict_distribution(X_TEST).samples
    start = classifier(reg=0.5, time=0).predict_distribution(X_TEST).samples
    late = classifier(reg=0.5, time=30.0).predict_distribution(X_TEST).samples
    # What is left decays by exp(-reg t) at least; a step's error is 1e-3 of the scale.
    np.testing.assert_allclose(late, end, atol=2e-3)
    np.testing.assert_array_equal(
        classifier(reg=0.5, time=np.inf).predict_distribution(X_TEST).samples, end
    )
    variance = NET.kernel_diag(X_TEST).nngp
    assert np.all(start.var(axis=(0, 2)) < 5 * variance)
    mode = classifier(reg=0, time=0, uncertainty="none").predict_distribution(X_TEST)
    assert not mode.mean.any()
    losses = [
        log_loss(y, classifier(reg=0, time=time, uncertainty="none").predict_proba(X))
        for time in (0, 0.1, 1.0, 10.0)
    ]
    assert np.all(np.diff(losses) < 0)  # the loss falls along its gradient


def test_regression_in_closed_form():
    """Draws and closed form agree at a time; with a noise of each output."""
    targets = np.stack([np.sin(X[:, 0]), X[:, 1] ** 2], axis=1)
    settings = {"reg": 0.3, "noise": 0.2, "time": 0.05, "progress": False}
    mean = {
        method: nuq.NTKRegressor(NET, uncertainty="none", method=method, **settings)
        .fit(X, targets)
        .predict(X_TEST)
        for method in ("exact", "gaussian")
    }
    np.testing.assert_allclose(mean["exact"], mean["gaussian"], atol=1e-3)
    one = nuq.NTKRegressor(NET, uncertainty="initialization", **settings).fit(X, targets)
    kernels, likelihood = NET.kernels(X), nuq.Gaussian(0.2)
    with jax.enable_x64(True):
        known = gradient_flow.gaussian_predictor_at(kernels, targets, 0.3, likelihood, 0.05)
        moments = known.moments(NET.kernels(X_TEST, X), NET.kernel_diag(X_TEST))
    prediction = one.predict_distribution(X_TEST)
    np.testing.assert_allclose(prediction.mean, moments[0], atol=1e-10)
    np.testing.assert_allclose(prediction.cov, moments[1], atol=1e-10)


def test_refusals():
    with pytest.raises(ValueError, match="a posterior has no time"):
        classifier(reg=1.0, time=1.0, uncertainty="posterior")
    with pytest.raises(ValueError, match="at least 0"):
        classifier(reg=1.0, time=-1.0)
    with pytest.raises(ValueError, match="compared by scikit-learn: GridSearchCV"):
        classifier(reg=1.0, time="cv")
    with pytest.raises(ValueError, match="number for reg"):
        classifier(reg="cv", time=1.0)
    with pytest.raises(ValueError, match="closed form"):
        classifier(reg=1.0, time=1.0, method="gaussian")
    with pytest.raises(ValueError, match="stop at a time"):
        classifier(reg=0)

"""Networks trained until a time: against SciPy's integrator, gradient descent, and the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from jax.flatten_util import ravel_pytree
from sklearn.datasets import make_moons

import ntk_uq as nuq
from ntk_uq import ensemble

X, y = make_moons(10, noise=0.2, random_state=0)
Y = np.eye(2)[y]
NET = nuq.MLP(width=8, depth=1, activation="erf")
KEY = jax.random.key(0)


def trained(time, **settings):
    settings = {"reg": 0.0, "n_members": 2, **settings}
    points, targets = (jnp.asarray(a, jnp.float32) for a in (X, Y))
    return ensemble.train_ensemble(
        KEY, NET, points, targets, nuq.Categorical(), time=time, **settings
    )


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_against_scipy(reg):
    """The parameters at a time, for one-hot labels without regularisation too."""
    found = trained(2.0, reg=reg)
    assert found.converged.all()
    initial, end = found.member(1)
    with jax.enable_x64(True):
        start, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), initial))
        points = jnp.asarray(X)

        @jax.jit
        @jax.grad
        def slope(theta):
            f = NET.apply(unravel(theta), points)
            loss = -jnp.sum(jnp.asarray(Y) * jax.nn.log_softmax(f))
            return loss + 0.5 * reg * jnp.sum((theta - start) ** 2)

        exact = scipy.integrate.solve_ivp(
            lambda _, theta: -np.asarray(slope(theta)), (0, 2.0), np.asarray(start),
            rtol=1e-8, atol=1e-10,
        ).y[:, -1]  # fmt: skip
        reached, _ = ravel_pytree(end)
    distance = np.linalg.norm(exact - np.asarray(start))
    # Steps of 1e-3 of the distance at most, and errors of early ones decay.
    assert np.linalg.norm(np.asarray(reached) - exact) < 5e-3 * distance


@pytest.mark.slow
def test_limits():
    initial, end = trained(0.0).member(0)
    for a, b in zip(jax.tree.leaves(initial), jax.tree.leaves(end), strict=True):
        np.testing.assert_array_equal(a, b)
    minimum = trained(None, reg=1.0, tol=1e-6).latents(X)
    late = trained(30.0, reg=1.0).latents(X)
    # Conjugate gradients end within 1e-6 of an objective of about 10 nats: 1e-3 in latents or so.
    np.testing.assert_allclose(late, minimum, atol=0.02)


def test_estimators():
    settings = {"n_members": 2, "progress": False}
    clf = nuq.EnsembleClassifier(NET, reg=0, time=1.0, **settings).fit(X, y)
    assert clf.converged_.all()
    samples = clf.predict_distribution(X).samples
    reg = nuq.EnsembleRegressor(NET, noise=0.5, time=1.0, **settings).fit(X, X[:, 0])
    assert reg.predict(X).shape == (10,)
    np.testing.assert_array_equal(
        nuq.EnsembleClassifier(NET, reg=0, time=1.0, **settings)
        .fit(X, y)
        .predict_distribution(X)
        .samples,
        samples,
    )


def test_refusals():
    with pytest.raises(ValueError, match="a posterior has no time"):
        trained(1.0, reg=1.0, uncertainty="posterior")
    with pytest.raises(ValueError, match="no batches"):
        trained(1.0, batch_size=4)
    with pytest.raises(ValueError, match="time"):
        trained(-1.0)
    with pytest.warns(nuq.ensemble.ConvergenceWarning, match="max_iter=3"):
        trained(100.0, max_iter=3)

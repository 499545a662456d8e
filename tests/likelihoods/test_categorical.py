"""Softmax over classes."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, softmax

from ntk_uq.likelihoods import Categorical

pytestmark = pytest.mark.double_precision

CASE = SimpleNamespace(
    likelihood=Categorical(),
    hard_targets=lambda rng, shape: np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])],
    soft_targets=lambda rng, shape: softmax(2 * rng.normal(size=shape), axis=-1),
    log_density=lambda f, y: stats.multinomial.logpmf(y, 1, softmax(f, axis=-1)),
    highest_latent=800.0,
    probabilities=True,
    variance=None,
)


def test_soft_targets_average_the_log_density_over_observations():
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(4, 3)), softmax(rng.normal(size=(4, 3)), axis=-1)
    expected = np.sum(y * log_softmax(f, axis=-1), axis=-1)
    np.testing.assert_allclose(Categorical().log_density(f, y), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("y", "towards"),
    [
        ([[1.0, 0.0, 0.0]], [1.0, -1.0, -1.0]),
        ([[0.5, 0.5, 0.0]], [1.0, 1.0, -2.0]),
    ],
)
def test_degenerate_targets_want_infinite_latents(y, towards):
    y, f = np.array(y), np.zeros((1, 3))
    assert np.all(Categorical().degenerate(y))
    assert not np.all(np.isfinite(Categorical().optimum(y)))
    along = [Categorical().log_density(f + t * np.array(towards), y)[0] for t in range(12)]
    assert np.all(np.diff(along) > 0)


def test_degeneracy_is_judged_point_by_point():
    y = np.array([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(Categorical().degenerate(y), [False, True, True])


def test_draws_are_classes():
    draws = np.asarray(Categorical().sample(jax.random.key(0), np.zeros((1000, 3))))
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert np.all(draws.sum(axis=-1) == 1)

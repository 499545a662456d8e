"""A weight for each training point."""

import numpy as np
import pytest

from ntk_uq.likelihoods import Categorical, Gaussian, Weighted

pytestmark = pytest.mark.double_precision


@pytest.mark.parametrize("likelihood", [Categorical(), Gaussian(0.7)], ids=str)
def test_a_weight_of_two_counts_a_point_twice(likelihood):
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(3, 2)), np.eye(2)[[0, 1, 1]]
    weights = np.array([2.0, 1.0, 1.0])
    twice, rows = Weighted(likelihood, weights), [0, 0, 1, 2]
    total = np.sum(likelihood.log_density(f[rows], y[rows]))
    np.testing.assert_allclose(np.sum(twice.log_density(f, y)), total, rtol=1e-13)
    gradient = np.asarray(likelihood.gradient(f, y))
    np.testing.assert_allclose(twice.gradient(f, y), weights[:, None] * gradient, rtol=1e-13)
    curvature, alone = twice.curvature(f, y), likelihood.curvature(f, y)
    for e in np.eye(2):
        np.testing.assert_allclose(
            curvature.matvec(e), weights[:, None] * alone.matvec(e), rtol=1e-12
        )
    if curvature.direction is not None:
        norms = np.sum(curvature.diagonal * curvature.direction**2, axis=-1)
        np.testing.assert_allclose(norms, 1, rtol=1e-12)


def test_weights_of_some_points():
    some = Weighted(Categorical(), np.array([1.0, 2.0, 3.0])).take(np.array([2, 0]))
    np.testing.assert_array_equal(some.weights, [3.0, 1.0])

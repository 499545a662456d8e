"""Leave-one-out in closed form against problems that are solved without the point."""

import numpy as np
import pytest

from ntk_uq import MLP
from ntk_uq.analytic import leave_one_out
from ntk_uq.networks.architecture import Kernels

RNG = np.random.default_rng(0)
X, y = RNG.normal(size=(7, 2)), RNG.normal(size=(7, 2))
NET = MLP(depth=1)
KERNELS = NET.kernels(X)


@pytest.mark.parametrize("uncertainty", ["posterior", "initialization", "none"])
def test_against_solutions_without_the_point(uncertainty):
    """f(x) = f0(x) + Theta_xX (Theta + reg noise^2)^-1 (y + e - f0(X)), as a map of f0 and e."""
    reg, noise = 0.7, np.array([0.3, 0.1])
    mean, variance = leave_one_out(KERNELS, y, reg, noise, uncertainty)
    prior = {"posterior": KERNELS.ntk / reg, "initialization": KERNELS.nngp, "none": 0 * X @ X.T}
    for i, output in ((0, 0), (4, 1)):
        left, sigma = np.arange(7) != i, noise[output]
        ridge = KERNELS.ntk[np.ix_(left, left)] + reg * sigma**2 * np.eye(6)
        smoother = KERNELS.ntk[i, left] @ np.linalg.inv(ridge)
        assert mean[i, output] == pytest.approx(smoother @ y[left, output], rel=1e-9)
        of_prior = np.insert(-smoother, i, 1.0)
        expected = of_prior @ prior[uncertainty] @ of_prior
        expected += (uncertainty == "posterior") * sigma**2 * smoother @ smoother
        assert variance[i, output] == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("uncertainty", ["posterior", "initialization", "none"])
def test_a_point_that_counts_less_is_part_of_one_that_is_repeated(uncertainty):
    """A row of a point with three equal rows: of the matrix with all of them, singular or not."""
    rows = np.array([0, 1, 1, 1, 2, 3])
    repeated = Kernels(*(k[np.ix_(rows, rows)] for k in KERNELS))
    expected = leave_one_out(repeated, y[rows], 0.7, 0.3, uncertainty)
    distinct = Kernels(*(k[:4, :4] for k in KERNELS))
    found = leave_one_out(
        distinct, y[:4], 0.7, 0.3, uncertainty,
        weights=[1, 3, 1, 1], rows=[0, 1, 2, 3], removed=np.ones(4),
    )  # fmt: skip
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other[[0, 1, 4, 5]], rtol=1e-8, atol=1e-12)


def test_equal_points_without_noise_are_refused():
    with pytest.raises(ValueError, match="singular in double precision"):
        leave_one_out(Kernels(np.ones((2, 2)), np.ones((2, 2))), np.ones((2, 1)), 0.0, 0.1, "none")

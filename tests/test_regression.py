"""Regression with fitted noise and regularisation, against scikit-learn's Gaussian process."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel
from sklearn.preprocessing import StandardScaler

from ntk_uq import NTKRegressor


class FittedKernel(Kernel):
    """The prior covariance of a fitted regressor, Theta / reg, in squared units of the target."""

    def __init__(self, network, variance):
        self.network = network
        self.variance = variance

    def __call__(self, X, Y=None, eval_gradient=False):
        return self.variance * self.network.kernels(X, Y).ntk

    def diag(self, X):
        return self.variance * self.network.kernel_diag(X).ntk

    def is_stationary(self):
        return False


@pytest.mark.parametrize(
    ("x", "y"),
    [load_diabetes(return_X_y=True), make_friedman1(100, noise=1.0, random_state=0)],
    ids=["diabetes", "friedman1"],
)
def test_posterior_is_scikit_learns_process_with_the_same_kernel(x, y):
    train, test = slice(0, 50), slice(50, 80)
    ours = NTKRegressor(reg="evidence", uncertainty="posterior", method="gaussian").fit(
        x[train], y[train]
    )
    scaler, level, scale = StandardScaler().fit(x[train]), y[train].mean(), y[train].std()
    kernel = FittedKernel(ours.architecture_, scale**2 / ours.reg_)
    theirs = GaussianProcessRegressor(kernel, alpha=ours.noise_[0] ** 2, optimizer=None)
    theirs.fit(scaler.transform(x[train]), y[train] - level)
    mean, std = ours.predict(x[test], return_std=True)
    their_mean, their_std = theirs.predict(scaler.transform(x[test]), return_std=True)
    np.testing.assert_allclose(mean, their_mean + level, rtol=1e-6)
    np.testing.assert_allclose(std, their_std, rtol=1e-6)

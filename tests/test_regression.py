"""Regression with fitted noise and regularisation, against scikit-learn's Gaussian process."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    Kernel,
    Matern,
    WhiteKernel,
)
from stand_ins import default_features

from ntk_uq import MLP, BayesianRegressor, EnsembleRegressor, NormalScores, NTKRegressor
from ntk_uq.analytic import estimate_noise


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


@pytest.mark.cases(1)
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
    level, scale = y[train].mean(), y[train].std()
    kernel = FittedKernel(ours.architecture_, scale**2 / ours.reg_)
    theirs = GaussianProcessRegressor(kernel, alpha=ours.noise_[0] ** 2, optimizer=None)
    theirs.fit(default_features(x[train], x[train]), y[train] - level)
    mean, std = ours.predict(x[test], return_std=True)
    their_mean, their_std = theirs.predict(default_features(x[train], x[test]), return_std=True)
    np.testing.assert_allclose(mean, their_mean + level, rtol=1e-6)
    np.testing.assert_allclose(std, their_std, rtol=1e-6)


def log_evidence(covariance, y, noise, weights):
    """Log of the integral of prod_i N(y_i | f_i, noise^2)^w_i under f ~ N(0, covariance)."""
    d = np.diag(weights / noise**2)
    posterior = np.linalg.inv(np.linalg.inv(covariance) + d)
    quadratic = y @ (d - d @ posterior @ d) @ y
    log_det = np.linalg.slogdet(np.eye(len(y)) + covariance @ d)[1]
    return -0.5 * (weights.sum() * np.log(2 * np.pi * noise**2) + quadratic + log_det)


def test_noise_of_weighted_points():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    covariance = np.exp(-0.5 * ((points[:, None] - points) ** 2).sum(axis=2))
    y = np.c_[np.sin(points[:, 0]), points[:, 1]] + 0.3 * rng.normal(size=(12, 2))
    # The row twice is the weight 2; the rounding of zero eigenvalues leaves about 1e-7.
    weights = np.array([2.0, 1, 3, 1, 1, 1, 2, 1, 1, 1, 1, 1])
    rows = np.repeat(np.arange(12), weights.astype(int))
    repeated = estimate_noise(covariance[np.ix_(rows, rows)], y[rows], 1.0)
    weighted = estimate_noise(covariance, y, 1.0, weights)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4)
    # Any weights: the evidence of a likelihood that is raised to them.
    weights = rng.uniform(0.3, 3.0, 12)
    for target, noise in zip(y.T, estimate_noise(covariance, y, 1.0, weights), strict=True):
        highest, *others = (
            log_evidence(covariance, target, factor * noise, weights) for factor in (1, 0.98, 1.02)
        )
        assert highest > max(others)


@pytest.mark.cases(1)
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.ConvergenceWarning")
@pytest.mark.parametrize(
    "model",
    [
        BayesianRegressor(sampler="laplace"), NTKRegressor(),
        EnsembleRegressor(n_members=1, max_iter=3),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_a_constant_target_has_its_size_as_unit(model):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 3))
    varying = np.sin(2 * points[:, 0]) + 0.3 * rng.normal(size=12)
    far = points + 3

    def fit(target):
        with pytest.warns(UserWarning, match="All targets are equal"):
            fitted = model.fit(points, target)
        return fitted.noise_, fitted.predict(far, return_std=True)

    noise, moments = fit(np.full(12, 0.3))
    assert 0 < noise[0] < 0.1 * 0.3
    for factor in (1000.0, -1e-6):
        scaled_noise, scaled_moments = fit(np.full(12, 0.3 * factor))
        np.testing.assert_allclose(scaled_noise, abs(factor) * noise, rtol=1e-5)
        np.testing.assert_allclose(scaled_moments[1], abs(factor) * moments[1], rtol=1e-5)
    if not isinstance(model, EnsembleRegressor):
        np.testing.assert_allclose(moments[0], 0.3, rtol=1e-12)
    # Beside a column that varies, either is what it is alone.
    alone = model.fit(points, varying).noise_
    both, _ = fit(np.c_[varying, np.full(12, 300.0)])
    np.testing.assert_allclose(both, [alone[0], 1000 * noise[0]], rtol=1e-5)
    zero, _ = fit(np.zeros(12))
    assert zero[0] > 0


def test_raw_targets_that_a_network_does_not_expect_are_said():
    """Without it predictions stay near the prior's, and R^2 below zero."""
    X = np.random.default_rng(0).normal(size=(30, 2))
    y = 150 + 70 * X[:, 0]
    net = MLP(width=8, depth=1)
    with pytest.warns(UserWarning, match="Targets are of size 1.*Standardise them"):
        NTKRegressor(net, noise=10.0).fit(X, y)
    NTKRegressor(net, noise=0.1).fit(X, (y - y.mean()) / y.std())
    assert NTKRegressor(noise=10.0, reg=1.0).fit(X, y).score(X, y) > 0.9


def noisy(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return x, np.sin(2 * x[:, 0]) + x[:, 1] + 0.3 * rng.normal(size=n)


def test_rows_that_were_entered_twice_are_said():
    """They look like measurements without noise, whose evidence has no bound from above."""
    x, y = noisy(40)
    twice = np.r_[np.arange(40), np.arange(6)]
    with pytest.warns(UserWarning, match="6 points count more than once.*drop the copies"):
        model = NTKRegressor().fit(x[twice], y[twice])
    assert model.noise_[0] > 0.009 * y.std()


def test_skewed_features_are_seen_by_powers_of_them():
    """Where the target is a function of logarithms, and nearer than with features as they are."""
    rng = np.random.default_rng(0)
    logs, new = rng.normal(size=(80, 2)), rng.normal(size=(300, 2))

    def truth(logs):
        return np.sin(2 * logs[:, 0]) + 0.5 * logs[:, 1]

    x, y = np.exp(1.5 * logs), truth(logs) + 0.1 * rng.normal(size=80)
    shown = NTKRegressor().fit(x, y)
    asked = {"reg": "evidence", "tune": ("depth", "embedding", "scales")}
    errors = [
        np.sqrt(np.mean((model.predict(np.exp(1.5 * new)) - truth(new)) ** 2))
        for model in (shown, NTKRegressor(**asked).fit(x, y))
    ]
    network = shown.architecture_
    assert isinstance(network, NormalScores)
    assert not network.beside
    assert errors[0] < 0.9 * errors[1]


def test_a_smooth_function_of_few_features_is_found():
    """Of ten features five count: the others' scales vanish, and what is predicted is nearer.

    With relu units alone errors are 2.5 to 3.5 times those of scikit-learn's process with a smooth
    kernel and a scale for each feature, told here which these are.
    """
    x, y = make_friedman1(120, noise=0.5, random_state=0)
    new, truth = make_friedman1(300, noise=0.0, random_state=10)
    model = NTKRegressor().fit(x, y)
    assert model.architecture_.activation == "gelu"
    assert np.max(model.feature_scales_[5:]) < 0.1 * np.max(model.feature_scales_[:5])
    radial = ConstantKernel() * RBF(np.ones(5)) + WhiteKernel()
    process = GaussianProcessRegressor(radial, normalize_y=True).fit(x[:, :5], y)
    error = np.sqrt(np.mean((model.predict(new) - truth) ** 2))
    assert error < 2 * np.sqrt(np.mean((process.predict(new[:, :5]) - truth) ** 2))


def test_a_rough_function_of_ranks_is_found():
    """A draw of a Matern process of four variables that count differently, shown their cubes.

    Errors are hardly larger than those of scikit-learn's process with that kernel, told the
    variables.
    """
    rng = np.random.default_rng(2)
    z = rng.normal(size=(400, 4))
    kernel = Matern([1.0, 2.0, 4.0, 50.0], nu=1.5)
    y = GaussianProcessRegressor(kernel).sample_y(z, random_state=2)[:, 0]
    y = y + 0.05 * rng.normal(size=400)
    x, known, new = z**3, slice(0, 120), slice(120, 400)
    model = NTKRegressor().fit(x[known], y[known])
    assert isinstance(model.architecture_, NormalScores)
    assert model.architecture_.network.activation == "gelu"
    assert model.feature_scales_[3] < 0.1 * model.feature_scales_[0]
    process = GaussianProcessRegressor(kernel, alpha=0.05**2, optimizer=None)
    process.fit(z[known], y[known])
    errors = [
        np.sqrt(np.mean((mean - y[new]) ** 2))
        for mean in (model.predict(x[new]), process.predict(z[new]))
    ]
    assert errors[0] < 1.25 * errors[1]

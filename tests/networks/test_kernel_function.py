"""Kernels without a network: against scikit-learn's Gaussian processes."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.metrics.pairwise import laplacian_kernel, sigmoid_kernel

import ntk_uq as nuq
from ntk_uq import KernelFunction, NTKClassifier, NTKRegressor

RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(40, 2)), RNG.normal(size=(15, 2))
Y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=40)
LABELS = np.where(X[:, 0] > 0.2 * X[:, 1], "one", "zero")
KERNEL = 2.0 * Matern(0.8, nu=1.5)


def test_regression_is_the_gaussian_process():
    model = NTKRegressor(kernel=KERNEL, reg=1.0, noise=0.1).fit(X, Y)
    process = GaussianProcessRegressor(KERNEL, alpha=0.01, optimizer=None).fit(X, Y)
    expected = process.predict(X_TEST, return_std=True)
    for found, of_process in zip(model.predict(X_TEST, return_std=True), expected, strict=True):
        np.testing.assert_allclose(found, of_process, rtol=1e-4, atol=1e-6)
    halved = NTKRegressor(KernelFunction(0.5 * KERNEL), reg=0.5, noise=0.1).fit(X, Y)
    np.testing.assert_allclose(halved.predict(X_TEST), expected[0], rtol=1e-4, atol=1e-6)


def test_two_classes_have_the_mode_of_the_binary_process():
    """Softmax of two latents with covariance k is a logistic function of one with 2 k."""
    model = NTKClassifier(kernel=KERNEL, uncertainty="none").fit(X, LABELS)
    process = GaussianProcessClassifier(2.0 * KERNEL, optimizer=None).fit(X, LABELS)
    latents = model.predict_distribution(X_TEST).mean
    found = latents[:, 1] - latents[:, 0]
    inner = process.base_estimator_
    expected = inner.kernel_(X_TEST, X) @ (inner.y_train_ - inner.pi_)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_functions_diagonals_and_reg_by_the_evidence():
    pairwise, known = KernelFunction(laplacian_kernel), KernelFunction(RBF())
    many = RNG.normal(size=(130, 2))
    np.testing.assert_allclose(pairwise.kernel_diag(many).ntk, 1.0)
    np.testing.assert_allclose(known.kernel_diag(many).nngp, 1.0)
    np.testing.assert_array_equal(known.kernels(X, X_TEST).ntk, RBF()(X, X_TEST))
    model = NTKRegressor(kernel=laplacian_kernel, reg="evidence").fit(X, Y)
    assert np.corrcoef(model.predict(X), Y)[0, 1] > 0.95


@pytest.mark.slow
def test_the_evidence_of_classes():
    classes = NTKClassifier(kernel=KERNEL, reg="evidence", method="gaussian").fit(X, LABELS)
    assert classes.score(X, LABELS) > 0.9


def test_saved_and_known_again(tmp_path):
    model = NTKClassifier(kernel=KERNEL, uncertainty="posterior", n_draws=4).fit(X, LABELS)
    nuq.save(model, tmp_path / "model.ntk")
    again = nuq.load(tmp_path / "model.ntk", architecture=KernelFunction(KERNEL))
    np.testing.assert_array_equal(again.predict_proba(X_TEST), model.predict_proba(X_TEST))
    assert again.kernel is KERNEL
    with pytest.raises(ValueError, match=r"a kernel function.*nuq.KernelFunction\(kernel\)"):
        nuq.load(tmp_path / "model.ntk")
    with pytest.raises(ValueError, match=r"as nuq.KernelFunction\(kernel\); got RBF"):
        nuq.load(tmp_path / "model.ntk", architecture=RBF())
    with pytest.raises(ValueError, match="nngp differs"):
        nuq.load(tmp_path / "model.ntk", architecture=KernelFunction(RBF()))


def fitted(**arguments):
    return NTKClassifier(**arguments).fit(X, LABELS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KernelFunction("rbf"), "must be a function"),
        (lambda: fitted(architecture=nuq.MLP(), kernel=RBF()), "both were given"),
        (lambda: fitted(kernel=lambda a, b: np.ones(3)), "must give the shape"),
        (lambda: fitted(kernel=lambda a, b: np.full((len(a), len(b)), np.nan)), "NaN"),
        (lambda: fitted(kernel=RBF() + WhiteKernel()), "noise= of NTKRegressor"),
        (lambda: fitted(kernel=lambda a, b: RBF()(a, b) * (1 + a[:, :1])), "is symmetric"),
        (lambda: fitted(kernel=RBF), r"the class RBF: give one of it, kernel=RBF\(\.\.\.\)"),
        (lambda: fitted(kernel=lambda a, b: -RBF()(a, b)), "a variance is not negative"),
        (lambda: KernelFunction(lambda a, b: -RBF()(a, b)).kernel_diag(X), "is -1 at a point"),
        (lambda: fitted(kernel=lambda a, b: sigmoid_kernel(a, b, coef0=-1.0) + 1), "an eigenvalue"),
        (lambda: fitted(kernel=RBF(), reg="cv", tune=("scales",)), "no scales"),
        (
            lambda: nuq.EnsembleClassifier(KernelFunction(RBF())).fit(X, LABELS),
            "no finite networks",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()

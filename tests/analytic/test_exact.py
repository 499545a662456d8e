"""Exact draws against laws that are known, and as functions of the point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_problem import (
    C,
    M,
    N,
    dense_problem,
    diagonal,
    jaxed,
    relu_kernels,
    soft_targets,
)
from scipy import optimize, special, stats
from sklearn.linear_model import LogisticRegression

from ntk_uq.analytic import (
    FunctionDraws,
    exact_predictor,
    gaussian_predictor,
)
from ntk_uq.analytic.exact import _exact_predictor
from ntk_uq.likelihoods import Categorical, Gaussian, Poisson
from ntk_uq.networks.architecture import Kernels

pytestmark = pytest.mark.double_precision


@pytest.fixture(scope="module")
def problem():
    return dense_problem()


@pytest.mark.cases(2)
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
@pytest.mark.parametrize("joint", [False, True])
def test_exact_draws_have_the_law_of_an_exactly_gaussian_case(problem, uncertainty, joint):
    """Gaussian likelihood: standardised draws pass a Kolmogorov-Smirnov test at each output."""
    train, cross, test, y = problem
    likelihood, reg, draws = Gaussian(0.5), 0.7, 2000
    key = jax.random.key(3)
    exact = exact_predictor(key, jaxed(train), y, reg, likelihood, uncertainty, draws)
    latents = (
        exact.joint_latents(jax.random.key(4), jaxed(cross), jaxed(test))
        if joint
        else exact.latents(jaxed(cross), diagonal(test))
    )
    # Ridge regression with ridge reg sigma^2, and its prior function pushed through.
    ridge = np.linalg.inv(train.ntk + reg * 0.25 * np.eye(N))
    prior_scale = 1.0 if uncertainty == "initialization" else 1 / reg
    q = train.nngp if uncertainty == "initialization" else train.ntk
    q_cross = cross.nngp if uncertainty == "initialization" else cross.ntk
    q_test = test.nngp if uncertainty == "initialization" else test.ntk
    a = cross.ntk @ ridge
    cov = prior_scale * (q_test - a @ q_cross.T - q_cross @ a.T + a @ q @ a.T)
    if uncertainty == "posterior":  # label noise N(0, 1 / sigma^2), scaled by sigma^2
        cov = cov + 0.25 * a @ a.T
    z = (np.asarray(latents) - (a @ y)) / np.sqrt(np.diag(cov))[:, None]
    p_values = stats.kstest(z.reshape(draws, -1), "norm").pvalue
    assert np.min(p_values) > 0.01 / (M * C)  # Bonferroni over outputs and points, level 1%
    if joint:
        whitened = np.linalg.solve(np.linalg.cholesky(cov), np.asarray(latents) - a @ y)
        sample = np.einsum("smc,skc->mk", whitened, whitened) / (draws * C)
        error = np.sqrt((1 + np.eye(M)) / (draws * C))  # of a covariance of standard normals
        assert np.max(np.abs(sample - np.eye(M)) / error) < 4.5


def test_gaussian_and_exact_agree_where_the_problem_is_nearly_linear(problem):
    """With reg large the softmax is nearly linear over the spread that data can change."""
    train, cross, test, y = problem
    reg, draws = 30.0, 4000
    scale = 0.05  # of the prior function: the first-order error is of its second order
    small = Kernels(train.nngp * scale**2, train.ntk)
    small_cross = Kernels(cross.nngp * scale**2, cross.ntk)
    small_test = Kernels(np.diag(test.nngp) * scale**2, np.diag(test.ntk))
    args = (jaxed(small), y, reg, Categorical(), "initialization")
    mean, cov = gaussian_predictor(*args).moments(jaxed(small_cross), jaxed(small_test))
    latents = exact_predictor(jax.random.key(0), *args, draws).latents(
        jaxed(small_cross), jaxed(small_test)
    )
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    # First order is off by about scale^2 in mean, which 0.1 sd bounds; then the standard error.
    assert np.max(np.abs(np.mean(latents, 0) - mean) / sd) < 0.1 * scale + 4.5 / np.sqrt(draws)
    ratio = np.std(latents, axis=0) / sd
    assert np.max(np.abs(ratio - 1)) < scale + 4.5 / np.sqrt(2 * draws)


def test_more_draws_keep_the_earlier_ones(problem):
    train, cross, test, y = problem
    args = (jax.random.key(0), jaxed(train), y, 0.5, Categorical(), "initialization")
    few, many = (exact_predictor(*args, n).latents(jaxed(cross), diagonal(test)) for n in (3, 10))
    np.testing.assert_allclose(many[:3], few, rtol=0, atol=1e-5)


def test_latents_are_a_function_of_the_point_alone(problem):
    train, cross, test, y = problem
    exact = exact_predictor(
        jax.random.key(0), jaxed(train), y, 0.5, Categorical(), "initialization", 16
    )
    whole = exact.latents(jaxed(cross), diagonal(test))
    order = np.array([4, 1])
    part = exact.latents(
        Kernels(*(k[order] for k in cross)), Kernels(*(np.diag(k)[order] for k in test))
    )
    np.testing.assert_allclose(part, whole[:, order], rtol=1e-12, atol=1e-12)


def test_duplicate_rows(problem):
    train, _, _, y = problem
    twice = np.r_[np.arange(N), 0]
    doubled = Kernels(*(jnp.asarray(k[np.ix_(twice, twice)]) for k in train))
    with pytest.raises(ValueError, match="duplicate"):
        gaussian_predictor(doubled, soft_targets(y)[twice], 0.0, Categorical(), "initialization")
    with pytest.raises(ValueError, match="duplicate"):
        exact_predictor(
            jax.random.key(0), doubled, soft_targets(y)[twice], 0.0, Categorical(),
            "initialization", 2,
        )  # fmt: skip
    exact = exact_predictor(
        jax.random.key(0), doubled, y[twice], 0.5, Categorical(), "initialization", 4
    )
    assert np.all(exact.converged)
    assert 0 < exact.jitter < 1e-9
    assert np.max(np.ptp(np.asarray(exact.factor @ exact.whitened)[:, [0, -1]], axis=1)) < 1e-4


def test_progress_counts_every_draw(problem):
    train, _, _, y = problem
    seen = []
    exact_predictor(
        jax.random.key(0), jaxed(train), y, 0.5, Categorical(), "initialization", 300,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    done = [d for d, _ in seen]
    assert done == sorted(set(done))
    assert len(done) > 1
    assert seen[-1] == (300, 300)


@pytest.mark.cases(1)
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior", "none"])
def test_draws_are_functions(uncertainty):
    """Piece by piece as at once, the same values when asked again, and the joint law."""
    rng = np.random.default_rng(5)
    X, x, y = rng.normal(size=(8, 4)), rng.normal(size=(5, 4)), np.eye(C)[np.arange(8) % C]
    args = (relu_kernels(X, X), y, 0.5, Gaussian(0.5), uncertainty)
    predictor = exact_predictor(jax.random.key(0), *args, 1500)
    whole = FunctionDraws(jax.random.key(1), relu_kernels, X, predictor)(x)
    functions = FunctionDraws(jax.random.key(1), relu_kernels, X, predictor)
    pieces = jnp.concatenate([functions(x[:2]), functions(x[2:])], axis=1)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    np.testing.assert_allclose(functions(x[1:4]), whole[:, 1:4], atol=1e-4)
    if uncertainty == "none":
        return
    # The likelihood is Gaussian, so that the joint law is known.
    mean, cov = gaussian_predictor(*args).joint_moments(relu_kernels(x, X), relu_kernels(x, x))
    z = np.linalg.solve(
        np.linalg.cholesky(np.asarray(cov).reshape(5 * C, -1)),
        np.asarray(whole - mean).reshape(len(whole), -1).T,
    )
    error = np.sqrt((1 + np.eye(5 * C)) / len(whole))
    assert np.max(np.abs(z @ z.T / len(whole) - np.eye(5 * C)) / error) < 4.5


def test_functions_at_training_points_are_the_trained_ones(problem):
    train, _, _, y = problem
    args = (jaxed(train), y, 0.5, Categorical(), "posterior")
    predictor = exact_predictor(jax.random.key(0), *args, 4)
    joint = predictor.joint_latents(jax.random.key(2), jaxed(train), jaxed(train))
    alone = predictor.latents(jaxed(train), diagonal(train))
    np.testing.assert_allclose(joint, alone, atol=1e-3)


def scipy_poisson_mode(ntk, reg, counts):
    """Minimise the primal objective over the latents at the training points."""
    inverse = np.linalg.inv(ntk)

    def objective(f):
        rates = np.exp(f)
        return (
            np.sum(rates - counts * f) + reg / 2 * f @ inverse @ f,
            rates - counts + reg * inverse @ f,
        )

    start = np.log(counts + 0.1)
    return optimize.minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x


@pytest.mark.parametrize("reg", [1e-3, 0.1])
def test_a_wide_prior_of_counts_is_solved(problem, reg):
    """Prior functions of rates up to e^200: solutions start at the mode, and not there."""
    train, *_ = problem
    y = np.arange(N).reshape(N, 1) % 5.0
    predictor = exact_predictor(
        jax.random.key(0), train, y, reg, Poisson(), "posterior", n_draws=200
    )
    f0 = np.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    assert f0.max() > (150 if reg < 0.1 else 15)
    assert predictor.converged.all()
    # Stationary: what the gradient leaves is the label noise, N(0, W) with W at the mode.
    f = f0 + np.einsum("ij,sjc->sic", train.ntk, predictor.alpha)
    noise = y - np.exp(f) - reg * predictor.alpha
    scale = np.exp(0.5 * scipy_poisson_mode(train.ntk, reg, y[:, 0]))
    assert stats.kstest((noise[..., 0] / scale).ravel(), "norm").pvalue > 1e-3


def test_the_posterior_of_a_kernel_of_low_rank_is_solved():
    """A linear network's: where the kernel has nothing, coefficients without bound change nothing.

    Stationary in the network's weights, as above; the mode is a logistic regression's.
    """
    features = np.random.default_rng(0).normal(size=(30, 3))
    labels = (features[:, 0] > 0).astype(int)
    y, ntk, reg = jnp.eye(2)[labels], features @ features.T, 0.03
    predictor = _exact_predictor(
        jax.random.key(0), Kernels(ntk, ntk), y, reg, Categorical(), "posterior", 200, max_iter=500
    )
    assert predictor.converged.all()
    # Its one latent is the difference of two, of which each has the prior.
    mode = LogisticRegression(C=2 / reg, fit_intercept=False, tol=1e-8, max_iter=1000)
    p = mode.fit(features, labels).predict_proba(features)
    f0 = np.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    f = f0 + np.einsum("ij,sjc->sic", ntk, predictor.alpha)
    noise = y - special.softmax(f, axis=-1) - reg * predictor.alpha
    of_weights = np.asarray(noise[..., 0]) @ features
    factor = np.linalg.cholesky(features.T @ (p[:, :1] * p[:, 1:] * features))
    z = np.linalg.solve(factor, of_weights.T)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3

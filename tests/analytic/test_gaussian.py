"""The closed form against dense, independently derived formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_problem import (
    NET,
    C,
    M,
    N,
    dense_blocks,
    dense_problem,
    diagonal,
    jaxed,
    pointwise,
    relu_kernels,
    scipy_mode,
    soft_targets,
    wide,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from ntk_uq.analytic import (
    exact_predictor,
    gaussian_predictor,
)
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson
from ntk_uq.networks.architecture import Kernels
from ntk_uq.predictions import GaussianPrediction

pytestmark = pytest.mark.double_precision


@pytest.fixture(scope="module")
def problem():
    return dense_problem()


@pytest.mark.parametrize("reg", [0.05, 1.0, 20.0])
def test_gaussian_initialization_is_b_k_bt(problem, reg):
    train, cross, test, y = problem
    predictor = gaussian_predictor(jaxed(train), y, reg, Categorical(), "initialization")
    mean, cov = predictor.moments(jaxed(cross), diagonal(test))
    mode = scipy_mode(train.ntk, reg, y)
    np.testing.assert_allclose(
        mean, cross.ntk @ np.linalg.solve(train.ntk, mode), rtol=1e-5, atol=1e-6
    )
    w = dense_blocks(mode)
    gain = np.linalg.solve(reg * np.eye(N * C) + w @ wide(train.ntk), w)
    b = np.hstack([-wide(cross.ntk) @ gain, np.eye(M * C)])
    prior = np.block([[train.nngp, cross.nngp.T], [cross.nngp, test.nngp]])
    expected = pointwise(b @ wide(prior) @ b.T)
    np.testing.assert_allclose(cov, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reg", [0.05, 1.0, 20.0])
def test_gaussian_posterior_is_laplace(problem, reg):
    """Against the precision form, (S^-1 + W)^-1 carried to the test points."""
    train, cross, test, y = problem
    predictor = gaussian_predictor(jaxed(train), y, reg, Categorical(), "posterior")
    _, cov = predictor.moments(jaxed(cross), diagonal(test))
    w = dense_blocks(scipy_mode(train.ntk, reg, y))
    s_inverse = wide(np.linalg.inv(train.ntk / reg))
    s_cross = wide(cross.ntk / reg)
    carried = s_cross @ s_inverse
    expected = (
        wide(test.ntk / reg)
        - carried @ s_cross.T
        + carried @ np.linalg.inv(s_inverse + w) @ carried.T
    )
    np.testing.assert_allclose(cov, pointwise(expected), rtol=1e-5, atol=1e-6)


def interpolant(train, cross, y, f0_train, f0_test):
    """f0(x) + Theta Theta^-1 P (log Y - f0(X)), written out in full matrices."""
    p = np.eye(C) - 1 / C
    return f0_test + cross.ntk @ np.linalg.inv(train.ntk) @ (np.log(y) - f0_train) @ p


def test_no_regularisation_is_exactly_gaussian(problem):
    train, cross, test, y = problem
    y = soft_targets(y)
    predictor = gaussian_predictor(jaxed(train), y, 0.0, Categorical(), "initialization")
    mean, cov = predictor.moments(jaxed(cross), diagonal(test))
    np.testing.assert_allclose(mean, interpolant(train, cross, y, 0.0, 0.0), rtol=1e-9, atol=1e-10)
    # The interpolant is linear in f0: apply it to basis vectors and sandwich the prior.
    basis = np.eye((N + M) * C).reshape(-1, N + M, C)
    zero = interpolant(train, cross, y, 0.0, 0.0)
    b = np.stack(
        [(interpolant(train, cross, y, e[:N], e[N:]) - zero).ravel() for e in basis], axis=1
    )
    prior = np.block([[train.nngp, cross.nngp.T], [cross.nngp, test.nngp]])
    np.testing.assert_allclose(cov, pointwise(b @ wide(prior) @ b.T), rtol=1e-8, atol=1e-9)


def test_much_regularisation_gives_the_prior(problem):
    train, cross, test, y = problem
    for uncertainty, prior in [("initialization", np.diag(test.nngp)), ("none", np.zeros(M))]:
        predictor = gaussian_predictor(jaxed(train), y, 1e9, Categorical(), uncertainty)
        mean, cov = predictor.moments(jaxed(cross), diagonal(test))
        np.testing.assert_allclose(mean, 0, atol=1e-6)
        np.testing.assert_allclose(cov, prior[:, None, None] * np.eye(C), atol=1e-6)


def test_one_point_solves_a_scalar_equation():
    """One training point, two classes: alpha = (a, -a) with reg a = 1 - sigmoid(2 theta a)."""
    theta, reg = 1.7, 0.4
    a = optimize.brentq(lambda a: reg * a - 1 / (1 + np.exp(2 * theta * a)), 0, 10)
    one = jnp.ones((1, 1))
    kernels = Kernels(one, theta * one)
    predictor = gaussian_predictor(kernels, jnp.array([[1.0, 0.0]]), reg, Categorical(), "none")
    np.testing.assert_allclose(predictor.alpha, [[a, -a]], rtol=1e-6)


@pytest.mark.slow
def test_points_far_apart_are_solved_one_by_one():
    """Uncorrelated points: a scalar equation each, and its first-order spread by hand."""
    theta, k, reg = np.array([0.8, 1.7, 3.0]), np.array([0.5, 1.0, 1.5]), 0.4
    y = np.eye(2)[[0, 1, 0]]
    kernels = Kernels(jnp.diag(k), jnp.diag(theta))
    args = (kernels, y, reg, Categorical())
    diagonal_kernels = Kernels(jnp.asarray(k), jnp.asarray(theta))
    mean, cov = gaussian_predictor(*args, "initialization").moments(kernels, diagonal_kernels)
    for i, sign in enumerate([1, -1, 1]):
        a = optimize.brentq(lambda a, t=theta[i]: reg * a - 1 / (1 + np.exp(2 * t * a)), 0, 10)
        np.testing.assert_allclose(mean[i], sign * theta[i] * np.array([a, -a]), rtol=1e-5)
        # Along (1, -1) / sqrt(2) the curvature is 2 p (1 - p), and what is left of the prior's
        # standard deviation is reg / (reg + 2 p (1 - p) theta); along (1, 1) all of it.
        p = 1 / (1 + np.exp(-2 * theta[i] * a))
        left = reg / (reg + 2 * p * (1 - p) * theta[i])
        variances = k[i] * np.array([left**2, 1.0])
        rotation = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
        np.testing.assert_allclose(cov[i], rotation.T @ np.diag(variances) @ rotation, rtol=1e-5)
    # A test point far from all of them keeps its prior.
    nothing = Kernels(jnp.zeros((1, 3)), jnp.zeros((1, 3)))
    mean, cov = gaussian_predictor(*args, "initialization").moments(
        nothing, Kernels(jnp.array([0.7]), jnp.array([1.9]))
    )
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_allclose(cov[0], 0.7 * np.eye(2))


def test_none_is_the_mode_in_both_methods(problem):
    train, cross, test, y = problem
    args = (jaxed(train), y, 0.5, Categorical(), "none")
    mean, cov = gaussian_predictor(*args).moments(jaxed(cross), diagonal(test))
    draws = exact_predictor(jax.random.key(0), *args, 8).latents(jaxed(cross), diagonal(test))
    assert draws.shape == (1, M, C)
    np.testing.assert_allclose(draws[0], mean, rtol=1e-10)
    assert np.all(cov == 0)


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("likelihood", "reg", "uncertainty"),
    [
        (Categorical(), 0.3, "initialization"),
        (Categorical(), 0.3, "posterior"),
        (Categorical(), 0.3, "none"),
        (Categorical(), 0.0, "initialization"),
        (Bernoulli(), 0.3, "initialization"),
        (Bernoulli(), 0.3, "posterior"),
        (Gaussian(0.4), 0.3, "initialization"),
        (Gaussian(0.4), 0.3, "posterior"),
    ],
    ids=str,
)
def test_joint_covariance(problem, likelihood, reg, uncertainty):
    """Against B K B^T and Laplace's formula in full matrices, with W by automatic derivatives."""
    train, cross, test, y = problem
    y = soft_targets(y)
    predictor = gaussian_predictor(jaxed(train), y, reg, likelihood, uncertainty)
    mean, cov = predictor.moments(jaxed(cross), diagonal(test))
    joint_mean, joint = predictor.joint_moments(jaxed(cross), jaxed(test))
    np.testing.assert_allclose(joint_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("mcmd->mcd", joint), cov, atol=1e-10)
    joint = np.asarray(joint).reshape(M * C, M * C)
    np.testing.assert_allclose(joint, joint.T, rtol=1e-14, atol=1e-15)
    if uncertainty == "none":
        assert np.all(joint == 0)
        return
    f = jnp.asarray(train.ntk @ np.asarray(predictor.alpha))
    loss = jax.jit(jax.hessian(lambda f: -jnp.sum(likelihood.log_density(f, jnp.asarray(y)))))
    w = np.asarray(loss(f)).reshape(N * C, N * C)
    if reg > 0:
        gain = np.linalg.solve(reg * np.eye(N * C) + w @ wide(train.ntk), w)
    else:
        gain = np.kron(np.linalg.inv(train.ntk), np.eye(C) - 1 / C)
    a = wide(cross.ntk) @ gain
    if uncertainty == "posterior":
        expected = (wide(test.ntk) - a @ wide(cross.ntk).T) / reg
    else:
        b = np.hstack([-a, np.eye(M * C)])
        prior = np.block([[train.nngp, cross.nngp.T], [cross.nngp, test.nngp]])
        expected = b @ wide(prior) @ b.T
    np.testing.assert_allclose(joint, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    log_reg=st.floats(-4, 6),
    n=st.sampled_from([1, 5]),
    likelihood=st.sampled_from([Categorical(), Bernoulli(), Poisson(), Gaussian(0.4)]),
    uncertainty=st.sampled_from(["initialization", "posterior", "none"]),
)
def test_properties_of_any_problem(seed, log_reg, n, likelihood, uncertainty):
    """Stationary; covariances positive; the same after permuting points and relabelling outputs."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        X, x = rng.normal(size=(n, 2)), rng.normal(size=(3, 2)) * 10 ** rng.uniform(-1, 1, (3, 1))
        y = np.asarray(likelihood.sample(jax.random.key(seed), jnp.zeros((n, C))))
        reg, own = 10.0**log_reg, Kernels(*map(jnp.asarray, NET.kernel_diag(x)))

        def moments(rows, columns):
            predictor = gaussian_predictor(
                relu_kernels(X[rows], X[rows]), y[rows][:, columns], reg, likelihood, uncertainty
            )
            assert predictor.gap < 1e-8
            return predictor, *predictor.moments(relu_kernels(x, X[rows]), own)

        predictor, mean, cov = moments(np.arange(n), np.arange(C))
        f = NET.kernels(X).ntk @ predictor.alpha
        residual = likelihood.gradient(f, y) - reg * predictor.alpha
        norm = np.sum(residual * (NET.kernels(X).ntk @ residual))
        assert norm <= 2 * reg * 1e-12 + 1e-20 * np.sum((reg * predictor.alpha) ** 2)
        scale = np.max(np.abs(cov)) + 1e-12
        assert np.min(np.linalg.eigvalsh(cov)) > -1e-9 * scale
        if isinstance(likelihood, Categorical):
            p = GaussianPrediction(np.asarray(mean), np.asarray(cov)).proba()
            np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
        rows, columns = rng.permutation(n), rng.permutation(C)
        _, mean2, cov2 = moments(rows, columns)
        tolerance = 1e-5 * (1 + np.sqrt(np.max(NET.kernel_diag(x).ntk) / reg))
        np.testing.assert_allclose(mean2, mean[:, columns], atol=tolerance)
        expected = cov[:, columns][:, :, columns]
        np.testing.assert_allclose(cov2, expected, atol=1e-5 * (1 + scale))


def test_far_points_keep_their_prior(problem):
    """A point without covariance to the training points learns nothing of them."""
    train, _, _, y = problem
    zero = Kernels(jnp.zeros((1, N)), jnp.zeros((1, N)))
    for uncertainty, variance in [("initialization", 2.0), ("posterior", 3.0 / 0.7)]:
        predictor = gaussian_predictor(jaxed(train), y, 0.7, Categorical(), uncertainty)
        own = Kernels(jnp.array([2.0]), jnp.array([3.0]))
        mean, cov = predictor.moments(zero, own)
        np.testing.assert_array_equal(mean, np.zeros((1, C)))
        np.testing.assert_allclose(cov[0], variance * np.eye(C))


def test_no_solution_is_refused(problem):
    train, _, _, one_hot = problem
    for arguments, function in (((), gaussian_predictor), ((2,), exact_predictor)):
        key = (jax.random.key(0),) if arguments else ()
        with pytest.raises(ValueError, match="smooth the targets"):
            function(*key, train, one_hot, 0.0, Categorical(), "initialization", *arguments)

"""The infinite ensemble against dense, independently derived formulas and against simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import log_softmax, softmax

from ntk_uq._common.deflation import SHARE
from ntk_uq._common.solver import deflate_at_mode, solve_dual
from ntk_uq.analytic import (
    FunctionDraws,
    correct_draws,
    discrepancy,
    exact_predictor,
    gaussian,
    gaussian_predictor,
    trajectories,
)
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.mlp import MLP
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

N, M, C = 12, 7, 3
NET = MLP(depth=2, w_std=1.3, b_std=0.4)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X, x = rng.normal(size=(N, 4)), rng.normal(size=(M, 4))
    labels = rng.integers(C, size=N)
    both = NET.kernels(np.concatenate([X, x]))
    train = Kernels(*(k[:N, :N] for k in both))
    cross = Kernels(*(k[N:, :N] for k in both))
    test = Kernels(*(k[N:, N:] for k in both))
    return train, cross, test, np.eye(C)[labels]


def jaxed(kernels):
    return Kernels(*(jnp.asarray(k) for k in kernels))


def diagonal(kernels):
    return Kernels(*(jnp.asarray(np.diag(k)) for k in kernels))


def scipy_mode(ntk, reg, y, f0=0.0, linear=0.0):
    """Minimise the primal objective in f over the training points, by a trusted optimiser."""
    inverse = np.linalg.inv(ntk)
    n, c = y.shape

    def objective(flat):
        f = flat.reshape(n, c)
        g = f - f0
        value = -np.sum(y * log_softmax(f, axis=1)) + 0.5 * reg * np.sum(g * (inverse @ g))
        gradient = softmax(f, axis=1) - y + linear + reg * inverse @ g
        return value + np.sum(linear * f), gradient.ravel()

    def hessian(flat):
        p = softmax(flat.reshape(n, c), axis=1)
        h = reg * np.einsum("ij,cd->icjd", inverse, np.eye(c))
        for i in range(n):
            h[i, :, i, :] += np.diag(p[i]) - np.outer(p[i], p[i])
        return h.reshape(n * c, n * c)

    start = np.broadcast_to(f0, (n, c)).ravel()
    result = optimize.minimize(
        objective, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-12}
    )
    return result.x.reshape(n, c)


def dense_blocks(f):
    """blockdiag(diag p_i - p_i p_i^T), [nC, nC], point-major."""
    p = softmax(f, axis=1)
    w = np.zeros((len(p), C, len(p), C))
    for i, pi in enumerate(p):
        w[i, :, i, :] = np.diag(pi) - np.outer(pi, pi)
    return w.reshape(len(p) * C, -1)


def wide(kernel):
    """Kernel times the identity over outputs, [n1 C, n2 C]."""
    return np.kron(kernel, np.eye(C))


def pointwise(cov):
    """[m C, m C] -> [m, C, C]."""
    return np.stack([cov[i * C : (i + 1) * C, i * C : (i + 1) * C] for i in range(len(cov) // C)])


@pytest.mark.parametrize("reg", [1e-6, 0.03, 1.0, 40.0])
def test_solver_agrees_with_scipy(problem, reg):
    train, _, _, y = problem
    rng = np.random.default_rng(1)
    f0 = rng.normal(size=(3, N, C))
    linear = 0.1 * rng.normal(size=(3, N, C))
    solution = solve_dual(train.ntk, reg, y, f0, Categorical(), linear=linear)
    # The linear term has a mean over classes, which only alpha = O(1 / reg) can meet: rounding of
    # the latents is eps / reg, and by W < 1/2 that of the objective, in 12 points of 3 classes:
    scale = np.max(np.diag(train.ntk))
    rounding = N**3 * C * scale**3 * np.finfo(float).eps ** 2 / reg**3
    assert np.all(solution.gap < 1e-12 + rounding)
    for s in range(3):
        expected = scipy_mode(train.ntk, reg, y, f0[s], linear[s])
        # The gap bounds the objective's excess, so the latents' error is its square root in
        # posterior standard deviations, which are at most those of the prior.
        error = np.sqrt(2 * max(solution.gap[s], 1e-12) * scale / reg)
        np.testing.assert_allclose(solution.latents[s], expected, atol=max(error, 1e-8))


@pytest.mark.parametrize(
    ("likelihood", "y"),
    [
        (Categorical(), np.eye(C)[np.arange(N) % C]),
        (Bernoulli(), (np.arange(N * C).reshape(N, C) % 2).astype(float)),
        (Gaussian(0.3), np.linspace(-2, 2, N * C).reshape(N, C)),
        (Poisson(), np.arange(N * C).reshape(N, C) % 5.0),
    ],
    ids=lambda v: type(v).__name__,
)
@pytest.mark.parametrize("reg", [1e-4, 1.0, 1e4])
def test_solutions_are_stationary_for_every_likelihood(problem, likelihood, y, reg):
    train, *_ = problem
    f0 = np.random.default_rng(2).normal(size=(5, N, C))
    solution = solve_dual(train.ntk, reg, y, f0, likelihood)
    assert np.all(solution.converged)
    f = f0 + np.einsum("ij,sjc->sic", train.ntk, solution.alpha)
    np.testing.assert_allclose(solution.latents, f, rtol=1e-9, atol=1e-9)
    # <r, r>_Theta <= 2 reg gap, and Theta is at least its smallest eigenvalue. A constant curvature
    # W bounds the gap too, and r^2 / W <= 2 gap may be known first.
    bound = np.sqrt(2e-12 * reg / np.linalg.eigvalsh(train.ntk)[0])
    if isinstance(likelihood, Gaussian):
        bound = max(bound, np.sqrt(2e-12 / likelihood.noise**2))
    stationarity = likelihood.gradient(f, y) - reg * solution.alpha
    assert np.max(np.abs(stationarity)) <= bound + 1e-9 * np.max(np.abs(solution.alpha)) * reg


@pytest.mark.cases(1)
@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Poisson()], ids=str)
def test_a_complete_deflation_inverts_the_hessian(problem, likelihood):
    train, _, _, y = problem
    reg = 0.3
    deflation, near = deflate_at_mode(jnp.asarray(train.ntk), reg, jnp.asarray(y), likelihood)
    assert deflation.basis.shape == (N, N)
    f = train.ntk @ near[0]
    hessian = jax.hessian(lambda f: -jnp.sum(likelihood.log_density(f, y)))(f)
    curvature = SHARE * hessian.reshape(N * C, N * C)
    big = np.kron(train.ntk, np.eye(C))
    inverse = reg * np.linalg.inv(reg * np.eye(N * C) + curvature @ big)
    r = np.random.default_rng(3).normal(size=(N, C, 2))
    ntk_r = np.einsum("ij,jcs->ics", train.ntk, r)
    steepest, ntk_steepest = deflation.apply(r, ntk_r)
    expected = (inverse @ r.reshape(N * C, 2)).reshape(r.shape)
    np.testing.assert_allclose(steepest, expected, atol=1e-9)
    np.testing.assert_allclose(
        ntk_steepest, np.einsum("ij,jcs->ics", train.ntk, expected), atol=1e-9
    )


@pytest.mark.cases(2)
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    ("likelihood", "y"),
    [
        (Categorical(), np.eye(C)[np.arange(N) % C]),
        (Gaussian(0.3), np.linspace(-2, 2, N * C).reshape(N, C)),
        (Poisson(), np.arange(N * C).reshape(N, C) % 5.0),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_deflation_does_not_change_the_solution(problem, likelihood, y, copies):
    """Not even where rows are repeated and the kernel is singular."""
    train, *_ = problem
    ntk, y = jnp.asarray(np.tile(train.ntk, (copies, copies))), np.tile(y, (copies, 1))
    rng = np.random.default_rng(4)
    f0 = jnp.asarray(np.tile(rng.normal(size=(3, N, C)), (1, copies, 1)))
    linear = 0.1 * rng.normal(size=f0.shape)
    deflation, near = deflate_at_mode(ntk, 0.1, y, likelihood)
    plain = solve_dual(ntk, 0.1, y, f0, likelihood, linear=linear)
    for start in (None, jnp.broadcast_to(near, f0.shape)):
        deflated = solve_dual(
            ntk, 0.1, y, f0, likelihood, linear=linear, deflation=deflation, start=start
        )
        assert deflated.converged.all()
        np.testing.assert_allclose(deflated.latents, plain.latents, atol=1e-5)


def test_a_deflation_that_rounding_spoils_is_none():
    """Single precision, where rounding of a kernel of 1e8 exceeds reg."""
    rng = np.random.default_rng(0)
    features = 1e4 * rng.normal(size=(50, 3))
    ntk, y = jnp.asarray(features @ features.T, jnp.float32), jnp.eye(2)[np.arange(50) % 2]
    y = y.astype(jnp.float32)
    deflation, _ = deflate_at_mode(ntk, 1e-3, y, Categorical())
    r = jnp.asarray(rng.normal(size=(50, 2, 4)), jnp.float32)
    assert np.all(np.isfinite(deflation.apply(r, jnp.einsum("ij,jcs->ics", ntk, r))[0]))


@pytest.mark.slow
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_many_points_are_deflated(uncertainty):
    """Draws of 1,000 noisy points: stationary, with a third of the products or fewer."""
    rng = np.random.default_rng(0)
    x, reg = rng.normal(size=(1000, 5)), 0.3
    y = np.eye(2)[(x[:, 0] + rng.normal(size=1000) > 0).astype(int)]
    kernels = Kernels(*map(jnp.asarray, NET.kernels(x)))
    predictor = exact_predictor(
        jax.random.key(0), kernels, y, reg, Categorical(), uncertainty, n_draws=8
    )
    assert predictor.converged.all()
    f0 = np.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    plain = solve_dual(kernels.ntk, reg, y, f0, Categorical())
    deflation, _ = deflate_at_mode(kernels.ntk, reg, y, Categorical())
    deflated = solve_dual(kernels.ntk, reg, y, f0, Categorical(), deflation=deflation)
    assert deflated.n_products <= plain.n_products / 3
    if uncertainty == "initialization":
        # The predictor's are the deflated solutions, to the last bits, and the plain ones closely.
        np.testing.assert_allclose(predictor.alpha, deflated.alpha, atol=1e-9)
        latents = f0 + np.einsum("ij,sjc->sic", kernels.ntk, predictor.alpha)
        np.testing.assert_allclose(latents, plain.latents, atol=1e-5)


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


def soft_targets(y, smoothing=0.2):
    return (1 - smoothing) * y + smoothing / C


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
    hessian = jax.hessian(lambda f: -jnp.sum(likelihood.log_density(f, jnp.asarray(y))))(f)
    w = np.asarray(hessian).reshape(N * C, N * C)
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


def _relu_kernels(x1, x2):
    return Kernels(*(jnp.asarray(k) for k in NET.kernels(x1, x2)))


@pytest.mark.cases(1)
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior", "none"])
def test_draws_are_functions(uncertainty):
    """Piece by piece as at once, the same values when asked again, and the joint law."""
    rng = np.random.default_rng(5)
    X, x, y = rng.normal(size=(8, 4)), rng.normal(size=(5, 4)), np.eye(C)[np.arange(8) % C]
    args = (_relu_kernels(X, X), y, 0.5, Gaussian(0.5), uncertainty)
    predictor = exact_predictor(jax.random.key(0), *args, 1500)
    whole = FunctionDraws(jax.random.key(1), _relu_kernels, X, predictor)(x)
    functions = FunctionDraws(jax.random.key(1), _relu_kernels, X, predictor)
    pieces = jnp.concatenate([functions(x[:2]), functions(x[2:])], axis=1)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    np.testing.assert_allclose(functions(x[1:4]), whole[:, 1:4], atol=1e-4)
    if uncertainty == "none":
        return
    # The likelihood is Gaussian, so that the joint law is known.
    mean, cov = gaussian_predictor(*args).joint_moments(_relu_kernels(x, X), _relu_kernels(x, x))
    z = np.linalg.solve(
        np.linalg.cholesky(np.asarray(cov).reshape(5 * C, -1)),
        np.asarray(whole - mean).reshape(len(whole), -1).T,
    )
    error = np.sqrt((1 + np.eye(5 * C)) / len(whole))
    assert np.max(np.abs(z @ z.T / len(whole) - np.eye(5 * C)) / error) < 4.5


def test_discrepancy_is_that_of_moments():
    rng = np.random.default_rng(0)
    samples = rng.gamma(2.0, size=(400, 2, C)) - 1
    gaussian = GaussianPrediction(rng.normal(size=(2, C)), np.stack([np.eye(C), 2 * np.eye(C)]))
    found = discrepancy(gaussian, SamplePrediction(samples))
    # Softmax does not see the mean over classes, which takes a third of independent variances.
    centred = samples - samples.mean(axis=2, keepdims=True)
    sd = centred.std(axis=0, ddof=1)
    mean = gaussian.mean - gaussian.mean.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.mean_shift, (centred.mean(axis=0) - mean) / sd)
    np.testing.assert_allclose(found.sd_ratio, np.sqrt([[2 / 3], [4 / 3]]) / sd)
    skewness = stats.skew(centred, axis=0)
    np.testing.assert_allclose(found.skewness, skewness, rtol=0.01)  # of S against S - 1
    distance = np.abs(gaussian.proba() - softmax(samples, axis=2).mean(axis=0)).sum(axis=1) / 2
    np.testing.assert_allclose(found.total_variation, distance)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Poisson()], ids=str)
def test_total_variation_of_predictive_distributions_by_enumeration(likelihood):
    """Drawn targets give what the sum over targets does, for one output."""
    rng = np.random.default_rng(0)
    p, q = (
        SamplePrediction(rng.normal(mean, 0.4, size=(50, 200, 1)), likelihood)
        for mean in (0.0, 0.8)
    )
    targets = np.arange(2.0 if isinstance(likelihood, Bernoulli) else 40.0)
    densities = [[np.exp(f.log_density(np.full((200, 1), y))) for y in targets] for f in (p, q)]
    exact = 0.5 * np.sum(np.abs(np.subtract(*densities)), axis=0)
    found = discrepancy(p, q).total_variation
    # A mean of 32 values in [0, 1], independent over 200 points.
    error = np.std(found - exact) / np.sqrt(200)
    assert abs(np.mean(found - exact)) < 4 * error
    assert error < 0.02


@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_discrepancy_is_zero_where_first_order_is_exact(problem, monkeypatch, uncertainty):
    train, *_, y = problem
    args = (jaxed(train), y, 0.7, Gaussian(0.4), uncertainty)
    assert not np.any(gaussian_predictor(*args).discrepancy.total_variation)
    assert not np.any(gaussian_predictor(*args[:4], "none").discrepancy.total_variation)
    # And so it is measured, where nobody says that it is exact: up to the tolerance of the draws,
    # 1.4% of a standard deviation.
    monkeypatch.setattr(gaussian, "is_exact", lambda likelihood: False)
    found = gaussian_predictor(*args).discrepancy
    assert np.max(found.total_variation) < 0.02
    assert np.max(np.abs(found.mean_shift)) < 0.02
    np.testing.assert_allclose(found.sd_ratio, 1, atol=0.02)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("likelihood", "uncertainty"),
    [
        (Categorical(), "initialization"),
        (Categorical(), "posterior"),
        (Bernoulli(), "posterior"),
        (Poisson(), "initialization"),
    ],
    ids=str,
)
def test_first_order_draws_neglect_the_second_order(problem, monkeypatch, likelihood, uncertainty):
    """The error falls with the square of the prior functions; of the posterior, divided by reg.

    There, prior functions are of order reg^(-1/2), and all that training changes of order 1 / reg.
    """
    train, *_, y = problem
    monkeypatch.setattr(gaussian, "CHECK_TOLERANCE", 1e-20)
    errors = []
    for size in (0.1, 0.03):
        kernels, reg, power = Kernels(size**2 * train.nngp, train.ntk), 0.7, 2
        if uncertainty == "posterior":
            kernels, reg, power = train, size**-2, 4
        args = (jaxed(kernels), jnp.asarray(y), reg, likelihood, uncertainty)
        predictor = gaussian_predictor(*args, n_checked=0)
        draws = gaussian._coupled_draws(predictor, *args[:2], likelihood, 8)
        errors.append(np.max(np.abs(np.subtract(*draws))))
    # Higher orders are a few times the size, relative to the leading one; Bernoulli's curvature has
    # no slope at zero, so its error falls faster. A fault of first order falls by a power less.
    assert errors[0] / errors[1] > 0.6 * (10 / 3) ** power


@pytest.mark.slow
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
@pytest.mark.parametrize("factor", [1, 1e4])
def test_discrepancy_is_that_of_many_other_draws(problem, uncertainty, factor):
    """The few draws of the fit measure what thousands do; it is large where prior functions are."""
    train, *_, y = problem
    train = Kernels(*(factor * k for k in train))
    args = (jaxed(train), jnp.asarray(y), 1.0, Categorical(), uncertainty)
    predictor = gaussian_predictor(*args)
    own = jaxed(train), diagonal(train)
    closed = GaussianPrediction(*map(np.asarray, predictor.moments(*own)))
    samples = exact_predictor(jax.random.key(3), *args, 2000).latents(*own)
    draws = SamplePrediction(np.asarray(samples))
    first_order, exact = gaussian._coupled_draws(predictor, *args[:2], Categorical(), 32)
    change = softmax(np.asarray(first_order), axis=2) - softmax(np.asarray(exact), axis=2)
    error = change.std(axis=0) / np.sqrt(32) + draws.proba_mcse() + closed.proba_mcse()
    found, known = predictor.discrepancy, discrepancy(closed, draws)
    difference = np.abs(found.total_variation - known.total_variation)
    assert np.mean(difference) < 3 * 0.5 * np.mean(error.sum(axis=1))
    if factor == 1:
        assert np.mean(found.total_variation) < 0.1
    else:
        assert np.mean(found.total_variation) > 0.2


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
                _relu_kernels(X[rows], X[rows]), y[rows][:, columns], reg, likelihood, uncertainty
            )
            assert predictor.gap < 1e-8
            return predictor, *predictor.moments(_relu_kernels(x, X[rows]), own)

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


# --- Corrections beyond first order ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "y", "prior"),
    [(Bernoulli(), 1.0, 30.0), (Poisson(), 3.0, 4.0), (Gaussian(0.5), 1.0, 2.0)],
)
def test_corrected_draws_have_the_posteriors_moments(likelihood, y, prior):
    """One latent, whose posterior is known by quadrature; first order is off for a wide prior."""
    targets, draws = np.array([[y]]), 20_000
    grid = np.linspace(-40, 40, 200_001)[:, None, None]
    with jax.enable_x64(True):
        kernels = Kernels(jnp.eye(1), jnp.full((1, 1), prior))
        log_p = np.asarray(likelihood.log_density(jnp.asarray(grid), jnp.asarray(targets)))[:, 0]
        args = (kernels, targets, 1.0, likelihood, "posterior")
        plain = exact_predictor(jax.random.key(0), *args, draws)
        corrected = correct_draws(jax.random.key(1), plain, targets, likelihood, 6)
        found, first_order = (
            np.asarray(p.latents(kernels, Kernels(jnp.ones(1), jnp.full(1, prior))))[:, 0, 0]
            for p in (corrected, plain)
        )
    weight = np.exp(log_p - log_p.max() - grid[:, 0, 0] ** 2 / (2 * prior))
    cdf = np.cumsum(weight) / weight.sum()
    test = stats.kstest(found, lambda f: np.interp(f, grid[:, 0, 0], cdf))
    assert test.pvalue > 1e-3
    if not isinstance(likelihood, Gaussian):
        biased = stats.kstest(first_order, lambda f: np.interp(f, grid[:, 0, 0], cdf))
        assert biased.pvalue < 1e-6


def test_corrected_draws_of_a_linear_problem_keep_their_law(problem):
    train, cross, test, y = problem
    args = (jaxed(train), y, 0.5, Gaussian(0.7), "posterior")
    plain = exact_predictor(jax.random.key(0), *args, 2000)
    corrected = correct_draws(jax.random.key(1), plain, y, Gaussian(0.7))
    latents = np.asarray(corrected.latents(jaxed(cross), diagonal(test)))
    mean, cov = gaussian_predictor(*args).moments(jaxed(cross), diagonal(test))
    z = (latents - mean) / np.sqrt(np.einsum("mcc->mc", np.asarray(cov)))
    for column in z.reshape(2000, -1).T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    fewer = correct_draws(
        jax.random.key(1), exact_predictor(jax.random.key(0), *args, 3), y, Gaussian(0.7)
    )
    np.testing.assert_allclose(fewer.whitened, corrected.whitened[:3], atol=1e-5)
    with pytest.raises(ValueError, match='draws of uncertainty "posterior"'):
        correct_draws(
            jax.random.key(1), exact_predictor(jax.random.key(0), *args[:-1], "none", 1), y, args[3]
        )


@pytest.mark.slow
def test_trajectories_in_a_wide_prior_take_steps_that_are_accepted(monkeypatch):
    """Draws spread too far there, where the posterior is steep; the posterior's spread returns."""
    rng = np.random.default_rng(0)
    x, reg = rng.normal(size=(40, 3)), 1e-3
    y = np.eye(2)[(x[:, 0] + 0.5 * rng.normal(size=40) > 0).astype(int)]
    train = Kernels(*map(jnp.asarray, NET.kernels(x)))
    draws = exact_predictor(jax.random.key(0), train, y, reg, Categorical(), "posterior", 400)

    def corrected(start, n_trajectories, seed):
        args = jax.random.key(seed), start, y, Categorical(), n_trajectories
        moved = correct_draws(*args)
        return moved, np.einsum("ij,sjc->sic", moved.factor, moved.whitened)

    before = np.einsum("ij,sjc->sic", draws.factor, draws.whitened)
    before = before + np.einsum("ij,sjc->sic", train.ntk, draws.alpha)

    def stayed():
        after = corrected(draws, 1, 1)[1]
        return np.mean(np.all(np.isclose(after, before, atol=1e-3), axis=(1, 2)))

    assert stayed() < 0.5
    moved, once = corrected(draws, 16, 1)
    _, twice = corrected(moved, 16, 2)
    wide, once, twice = (np.diff(f, axis=-1).std(axis=0).mean() for f in (before, once, twice))
    assert wide > 1.15 * twice
    assert abs(once / twice - 1) < 0.05
    monkeypatch.setattr(trajectories, "_HALVINGS", 0)
    assert stayed() > 0.7


def test_functions_at_training_points_are_the_trained_ones(problem):
    train, _, _, y = problem
    args = (jaxed(train), y, 0.5, Categorical(), "posterior")
    predictor = exact_predictor(jax.random.key(0), *args, 4)
    joint = predictor.joint_latents(jax.random.key(2), jaxed(train), jaxed(train))
    alone = predictor.latents(jaxed(train), diagonal(train))
    np.testing.assert_allclose(joint, alone, atol=1e-3)


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


def test_a_draw_solved_to_the_last_bit_waits_for_the_others():
    """Its residual is exactly zero where it starts; it once became NaN, and counted as solved."""
    ntk, y = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([[1.0], [0.0]])
    f0 = jnp.array([[[1.0], [2.0]], [[-4.0], [3.0]]])
    linear = Bernoulli().gradient(f0, y).at[1].set(0.0)
    solution = solve_dual(ntk, 1.0, y, f0, Bernoulli(), linear=linear)
    np.testing.assert_array_equal(solution.alpha[0], 0)
    alone = solve_dual(ntk, 1.0, y, f0[1:], Bernoulli())
    np.testing.assert_allclose(solution.alpha[1], alone.alpha[0], rtol=1e-12)
    assert solution.converged.all()
    nothing = solve_dual(ntk * jnp.nan, 1.0, y, f0, Bernoulli())
    assert not nothing.converged.any()


def test_no_solution_is_refused(problem):
    train, _, _, one_hot = problem
    for arguments, function in (((), gaussian_predictor), ((2,), exact_predictor)):
        key = (jax.random.key(0),) if arguments else ()
        with pytest.raises(ValueError, match="smooth the targets"):
            function(*key, train, one_hot, 0.0, Categorical(), "initialization", *arguments)

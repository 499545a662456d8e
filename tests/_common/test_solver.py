"""Solutions of the dual problem against SciPy's minimiser and the conditions of stationarity."""

import jax.numpy as jnp
import numpy as np
import pytest
from dense_problem import (
    C,
    N,
    dense_problem,
    scipy_mode,
)

from ntk_uq._common.solver import _dense_program, solve_dual
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, Weighted

pytestmark = pytest.mark.double_precision


@pytest.fixture(scope="module")
def problem():
    return dense_problem()


@pytest.mark.parametrize(  # at the least of them SciPy takes ten seconds
    "reg", [pytest.param(1e-6, marks=pytest.mark.slow), 0.03, 1.0, 40.0]
)
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


def test_numbers_of_points_that_are_near_share_a_program():
    """Ridge regression in closed form, with weights, for 34, 35 and 41 points."""
    random = np.random.default_rng(0)
    factor, y, f0 = random.normal(size=(41, 50)), random.normal(size=(41, 2)), np.ones((1, 41, 2))
    counts, reg, noise = random.uniform(0.5, 2.0, 41), 0.7, 0.8
    programs = _dense_program()._cache_size()
    for n in (34, 35, 41):
        ntk = factor[:n] @ factor[:n].T / 50
        likelihood = Weighted(Gaussian(noise), jnp.asarray(counts[:n]))
        found = solve_dual(
            jnp.asarray(ntk), reg, jnp.asarray(y[:n]), jnp.asarray(f0[:, :n]), likelihood
        )
        expected = np.linalg.solve(ntk + np.diag(reg * noise**2 / counts[:n]), y[:n] - 1)
        assert found.alpha.shape == found.latents.shape == (1, n, 2)
        np.testing.assert_allclose(found.alpha[0], expected, atol=1e-5)
        np.testing.assert_allclose(found.latents[0], 1 + ntk @ expected, atol=1e-5)
    assert _dense_program()._cache_size() == programs + 1


def test_numbers_of_all_kinds_share_a_program(problem):
    train, _, _, y = problem
    f0 = np.random.default_rng(2).normal(size=(4, N, C))
    solve_dual(train.ntk, 1.0, y, f0, Categorical())
    programs = _dense_program()._cache_size()
    for kind in (np.float64, jnp.asarray, np.float32):
        solve_dual(train.ntk, kind(2.0), y, f0, Categorical(), linear=kind(0.0), tol=kind(1e-9))
    assert _dense_program()._cache_size() == programs


def test_rounding_ends_the_iterations(problem):
    """Of a tolerance that no precision reaches nothing is gained by all that are allowed."""
    train, _, _, y = problem
    f0 = np.random.default_rng(2).normal(size=(5, N, C))
    solution = solve_dual(train.ntk, 1.0, y, f0, Categorical(), tol=1e-300, max_iter=100_000)
    assert solution.n_products < 50_000
    assert not solution.converged.any()
    assert np.all(solution.gap < 1e-12)

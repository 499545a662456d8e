"""A deflation changes how soon a solution is found, and not which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_problem import (
    NET,
    C,
    N,
    dense_problem,
)
from sklearn.datasets import load_iris

from ntk_uq._common.deflation import SHARE
from ntk_uq._common.solver import deflate_at_mode, solve_dual
from ntk_uq.analytic import (
    exact_predictor,
)
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, Weighted
from ntk_uq.networks.architecture import Kernels

pytestmark = pytest.mark.double_precision


@pytest.fixture(scope="module")
def problem():
    return dense_problem()


@pytest.mark.cases(1)
@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Poisson()], ids=str)
def test_a_complete_deflation_inverts_the_hessian(problem, likelihood):
    train, _, _, y = problem
    reg = 0.3
    deflation, near = deflate_at_mode(jnp.asarray(train.ntk), reg, jnp.asarray(y), likelihood)
    assert deflation.basis.shape == (N, N)
    f = train.ntk @ near.alpha[0]
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


@pytest.mark.cases(1)
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
    for start in (None, jnp.broadcast_to(near.alpha, f0.shape)):
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


@pytest.mark.parametrize("wide", [1, 100])
def test_classes_far_apart(wide):
    """A kernel of rank 5, and a small `reg`: all is curved at first, and next to nothing at last.

    Directions that are deflated by a curvature which is not there are searched in steps many times
    longer than 1 / reg. Coefficients that Theta does not see would grow by as much in each of them,
    until their rounding is all that is left.
    """
    X, labels = load_iris(return_X_y=True)
    X = (X[::2] - X.mean(axis=0)) / X.std(axis=0)
    ntk, y = jnp.asarray(X @ X.T + 0.1), jnp.eye(3)[labels[::2]]
    f0 = wide * jnp.asarray(X @ np.random.default_rng(0).normal(size=(4, 4, 3)))
    deflation, mode = deflate_at_mode(ntk, 1e-4, y, Categorical())
    assert mode.converged.all()
    plain = solve_dual(ntk, 1e-4, y, f0, Categorical())
    deflated = solve_dual(ntk, 1e-4, y, f0, Categorical(), deflation=deflation)
    assert plain.converged.all()
    assert deflated.converged.all()
    np.testing.assert_allclose(deflated.latents, plain.latents, atol=1e-4)


def test_what_a_singular_kernel_does_not_see():
    """Indicators: near the mode r is nearly all in the null space, and B r is rounding."""
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=(240, 9))
    x = np.eye(3)[codes].reshape(240, 27) - 1 / 3
    labels = (codes[:, 0] == codes[:, 1]) | (codes[:, 2] == codes[:, 3])
    ntk, y = jnp.asarray(2 * x @ x.T + 0.1), jnp.eye(2)[labels.astype(int)]
    often = Weighted(Categorical(), jnp.full(240, 1e4))
    deflation, mode = deflate_at_mode(ntk, 100.0, y, often)
    zero = jnp.zeros_like(y)[None]
    solution = solve_dual(
        ntk, 100.0, y, zero, often, deflation=deflation, start=mode.alpha, tol=1e-8
    )
    # It began at a gap of 0.005; rounding of so many labels leaves 1e-7.
    assert solution.gap[0] < 1e-4
    assert solution.n_products < 100


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

"""Line search and conjugacy of the solver, against a root finder and linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from ntk_uq._common.dual_steps import DualProblem, Steps
from ntk_uq._common.solver import _Dense, _Iterations
from ntk_uq.likelihoods import Bernoulli, Gaussian, Poisson

pytestmark = pytest.mark.double_precision
N, C, S, REG = 6, 2, 3, 0.3
RANDOM = np.random.default_rng(0)
FACTOR = RANDOM.normal(size=(N, 2 * N))
NTK = FACTOR @ FACTOR.T / N
F0 = RANDOM.normal(size=(S, N, C))
COUNTS = RANDOM.integers(5, size=(N, C)).astype(float)
LINEAR = 0.1 * RANDOM.normal(size=(S, N, C))


def iterations(likelihood, targets, linear=0.0):
    problem = DualProblem(REG, jnp.asarray(targets), jnp.asarray(F0), likelihood, linear)
    steps = Steps.of(problem)
    return _Iterations(_Dense(jnp.asarray(NTK)), steps, F0.dtype, 100)


@pytest.mark.parametrize(
    ("likelihood", "targets", "log_density"),
    [
        (Poisson(), COUNTS, lambda f, y: np.sum(y * f - np.exp(f))),
        (Bernoulli(), COUNTS % 2, lambda f, y: np.sum(y * f - np.logaddexp(0, f))),
    ],
    ids=["Poisson", "Bernoulli"],
)
def test_the_line_search_ends_near_the_root_of_the_slope(likelihood, targets, log_density):
    """Where the slope has fallen to a tenth: around a root that SciPy finds, draw by draw."""
    solver = iterations(likelihood, targets, jnp.asarray(LINEAR))
    it = solver.beginning(None, None)
    t, gradient = solver.steps.line_search(it)
    for s in range(S):
        direction = np.asarray(it.direction[..., s])

        def slope(t, s=s, direction=direction):
            # By differences of the objective Phi along the line.
            def value(t):
                f = F0[s] + t * NTK @ direction
                penalty = 0.5 * REG * t**2 * np.sum(direction * (NTK @ direction))
                return penalty + np.sum(LINEAR[s] * f) - log_density(f, targets)

            return (value(t + 1e-4) - value(t - 1e-4)) / 2e-4

        root = optimize.brentq(slope, 0, 50)
        assert slope(0) < 0 < root
        assert abs(slope(t[s])) < 0.1 * abs(slope(0)) * (1 + 1e-4)
        np.testing.assert_allclose(
            gradient[..., s],
            likelihood.gradient(jnp.asarray(F0[s] + t[s] * NTK @ direction), targets),
            rtol=1e-9,
        )


def test_a_line_search_that_ends_early_is_where_the_objective_still_falls(monkeypatch):
    """And the gradient is that of where it ends."""
    monkeypatch.setattr("ntk_uq._common.dual_steps._MAX_LINE_SEARCH", 1)
    # Newton's step overshoots where the curvature is less at first than further on.
    counts = np.full((N, C), 40.0)
    solver = iterations(Poisson(), counts)
    it = solver.beginning(None, None)
    t, gradient = solver.steps.line_search(it)
    at = it.latents + t * it.ntk_direction
    np.testing.assert_allclose(gradient, counts[..., None] - np.exp(at), rtol=1e-9)
    alpha = it.alpha + t * it.direction
    falls = np.sum((gradient - REG * alpha) * it.ntk_direction, axis=(0, 1))
    assert np.all(falls > 0)
    np.testing.assert_array_equal(t, 0)


def test_directions_are_conjugate_and_end_at_the_solution():
    """A quadratic problem, whose Hessian has as many eigenvalues as there are points.

    It ends after so many steps, as conjugate gradients do.
    """
    noise = 0.8
    solver = iterations(Gaussian(noise), COUNTS)
    step = jax.jit(solver.step)
    hessian = NTK @ (NTK / noise**2 + REG * np.eye(N))
    it = solver.beginning(None, None)
    directions = []
    for _ in range(N):
        directions.append(it.direction[..., 0])
        it = step(it)
    bends = np.einsum("anc,nm,bmc->ab", directions, hessian, directions)
    size = np.sqrt(np.outer(np.diag(bends), np.diag(bends)))
    np.testing.assert_allclose(bends / size, np.eye(N), atol=1e-9)
    for s in range(S):
        expected = np.linalg.solve(NTK + REG * noise**2 * np.eye(N), COUNTS - F0[s])
        np.testing.assert_allclose(it.alpha[..., s], expected, atol=1e-9)


def test_refreshed_latents_are_free_of_drift():
    solver = iterations(Gaussian(0.8), COUNTS)
    alpha = RANDOM.normal(size=(N, C, S))
    latents, descent = solver.refreshed(jnp.asarray(alpha))
    expected = np.moveaxis(F0, 0, -1) + np.einsum("nm,mcs->ncs", NTK, alpha)
    np.testing.assert_allclose(latents, expected, rtol=1e-9, atol=1e-9)
    residual = (COUNTS[..., None] - expected) / 0.8**2 - REG * alpha
    np.testing.assert_allclose(descent, residual, rtol=1e-9, atol=1e-8)

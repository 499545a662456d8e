"""Training time: closed form and integrator against each other, explicit steps, and both ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ntk_uq._common.solver import solve_dual
from ntk_uq.analytic import exact_predictor, gaussian_predictor
from ntk_uq.gradient_flow import exact_predictor_at, gaussian_predictor_at, integrate
from ntk_uq.likelihoods import Categorical, Gaussian
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.mlp import MLP

pytestmark = pytest.mark.double_precision

N, M, C = 9, 4, 3
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(N + M, 3))
BOTH = MLP(depth=1).kernels(POINTS)
TRAIN = Kernels(*(k[:N, :N] for k in BOTH))
CROSS = Kernels(*(k[N:, :N] for k in BOTH))
OWN = Kernels(*(np.diag(k)[N:] for k in BOTH))
ONE_HOT = np.eye(C)[RNG.integers(C, size=N)]
TARGET = RNG.normal(size=(N, C))
PRIOR = RNG.normal(size=(N, C))


def test_against_small_steps_of_gradient_descent():
    """In the dual a step of gradient descent is alpha += rate (gradient - reg alpha)."""
    reg, time, errors = 0.3, 0.5, []
    flow = integrate(TRAIN.ntk, ONE_HOT, PRIOR, reg, Categorical(), [time])[0]
    for steps in (2000, 4000):
        alpha = np.zeros((N, C))
        for _ in range(steps):
            f = PRIOR + TRAIN.ntk @ alpha
            alpha = alpha + time / steps * (ONE_HOT - softmax(f, axis=1) - reg * alpha)
        errors.append(np.max(np.abs(alpha - flow)))
    assert errors[0] < 2e-3
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.05)  # of first order in the step


@pytest.mark.parametrize("reg", [0.0, 0.4])
@pytest.mark.parametrize("time", [0.0, 0.03, 0.7, 20.0])
def test_closed_form_is_what_the_integrator_finds(reg, time):
    likelihood = Gaussian(0.5)
    closed = gaussian_predictor_at(TRAIN, TARGET, reg, likelihood, time)
    by_steps = integrate(TRAIN.ntk, TARGET, np.zeros((N, C)), reg, likelihood, [time])[0]
    np.testing.assert_allclose(closed.alpha, by_steps, rtol=1e-4, atol=1e-5)


def test_law_at_a_time_is_that_of_trained_draws():
    """The closed form is linear in f0: apply the integrator to basis vectors, and sandwich K."""
    likelihood, reg, time = Gaussian(0.5), 0.4, 0.3
    _, cov = gaussian_predictor_at(TRAIN, TARGET, reg, likelihood, time).moments(CROSS, OWN)
    zero = integrate(TRAIN.ntk, np.zeros((N, 1)), np.zeros((N, 1)), reg, likelihood, [time])[0]
    response = np.hstack(
        [
            integrate(TRAIN.ntk, np.zeros((N, 1)), e[:, None], reg, likelihood, [time])[0] - zero
            for e in np.eye(N)
        ]
    )
    b = np.hstack([CROSS.ntk @ response, np.eye(M)])
    expected = np.diag(b @ BOTH.nngp @ b.T)
    np.testing.assert_allclose(np.diagonal(cov, axis1=1, axis2=2).T, [expected] * C, rtol=1e-4)


def test_both_ends_for_squared_error():
    mean, cov = gaussian_predictor_at(TRAIN, TARGET, 0.4, Gaussian(0.5), 0.0).moments(CROSS, OWN)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(cov, OWN.nngp[:, None, None] * np.eye(C), atol=1e-12)
    args = (TRAIN, TARGET, 0.4, Gaussian(0.5))
    end = gaussian_predictor_at(*args, np.inf).moments(CROSS, OWN)
    solution = gaussian_predictor(*args, "initialization").moments(CROSS, OWN)
    for a, b in zip(end, solution, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_both_ends_for_cross_entropy():
    key = jax.random.key(0)
    args = (TRAIN, ONE_HOT, 0.4, Categorical(), "initialization", 3)
    trained = exact_predictor(key, *args)
    prior = exact_predictor_at(trained, TRAIN.ntk, ONE_HOT, Categorical(), 0.0)
    assert np.all(prior.alpha == 0)
    end = exact_predictor_at(trained, TRAIN.ntk, ONE_HOT, Categorical(), 1e3)
    kernels = Kernels(*map(jnp.asarray, CROSS)), Kernels(*map(jnp.asarray, OWN))
    np.testing.assert_allclose(end.latents(*kernels), trained.latents(*kernels), atol=1e-4)


def test_objective_never_rises():
    reg = 0.1
    times = np.geomspace(1e-3, 100, 15)
    alphas = integrate(TRAIN.ntk, ONE_HOT, PRIOR, reg, Categorical(), times)
    f = PRIOR + TRAIN.ntk @ alphas
    loss = -np.sum(Categorical().log_density(f, ONE_HOT), axis=-1)
    objective = loss + 0.5 * reg * np.sum(alphas * (f - PRIOR), axis=(1, 2))
    assert np.all(np.diff(objective) < 1e-7)
    end = solve_dual(jnp.asarray(TRAIN.ntk), reg, ONE_HOT, PRIOR[None], Categorical())
    np.testing.assert_allclose(f[-1], end.latents[0], atol=1e-3)


@pytest.mark.parametrize(
    ("times", "message"), [([1.0, 0.5], "increasing"), ([np.inf], "finite"), ([-1.0], "at least 0")]
)
def test_times_that_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        integrate(TRAIN.ntk, ONE_HOT, PRIOR, 0.1, Categorical(), times)


def test_a_posterior_has_no_time():
    posterior = exact_predictor(
        jax.random.key(0), TRAIN, ONE_HOT, 1.0, Categorical(), "posterior", 2
    )
    with pytest.raises(ValueError, match="a posterior has no time"):
        exact_predictor_at(posterior, TRAIN.ntk, ONE_HOT, Categorical(), 1.0)


def test_large_systems_are_refused():
    with pytest.raises(ValueError, match="9000 equations"):
        integrate(np.eye(3000), np.eye(3000, 3), np.zeros((3000, 3)), 1.0, Categorical(), [1.0])

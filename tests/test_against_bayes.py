"""The corrections that the study against NUTS measures leave the posterior as it is."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from ntk_uq import MLP, Categorical
from ntk_uq._common.coordinates import Preconditioned
from ntk_uq.analytic import exact_predictor

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "against_bayes.py"
spec = importlib.util.spec_from_file_location("against_bayes", SCRIPT)
study = sys.modules["against_bayes"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)

VARIANCE = 4.0
TARGET = [[1.0, 0.0]]


def moments_of_margin():
    """Mean and variance of the margin f_1 - f_2 of one point, by quadrature."""
    scale = np.sqrt(2 * VARIANCE)

    def integral(power):
        return quad(lambda d: d**power * norm.pdf(d, 0, scale) * expit(d), -40, 40)[0]

    mean = integral(1) / integral(0)
    return mean, integral(2) / integral(0) - mean**2


@pytest.mark.cases(1)
@pytest.mark.parametrize("coordinates", ["plain", "preconditioned"])
def test_slice_steps_converge_to_the_posterior(coordinates):
    with jax.enable_x64(True):
        factor, y = jnp.full((1, 1), np.sqrt(VARIANCE)), jnp.array(TARGET)
        zero = jnp.zeros_like(y)
        how = study.Coordinates(factor, zero, zero, zero)
        if coordinates == "preconditioned":
            found = Preconditioned.create(factor, y, Categorical())
            how = study.Coordinates(found.factor, found.mode, found.alpha, found.curvature)
        start = 3 * jnp.ones((4000, 1, 2))
        u = study.slice_steps(jax.random.key(0), how, start, y, 20)
        latents = np.asarray(how.centre + how.apply(u))
    margin = latents[:, 0, 0] - latents[:, 0, 1]
    mean, variance = moments_of_margin()
    assert abs(margin.mean() - mean) < 4 * margin.std() / np.sqrt(len(margin))
    # Of a variance: the standard deviation of the squares.
    squares = (margin - mean) ** 2
    assert abs(squares.mean() - variance) < 4 * squares.std() / np.sqrt(len(margin))


@pytest.mark.slow
def test_draws_as_prior_functions_predict_the_same():
    with jax.enable_x64(True):
        X, x = (
            jnp.array([[-1.0, 0.5], [1.0, 0.2], [0.3, -1.0]]),
            jnp.array([[0.4, 0.6], [2.0, 0.0]]),
        )
        net, reg, y = MLP(), 0.5, jnp.eye(2)[jnp.array([0, 1, 1])]
        draws = exact_predictor(
            jax.random.key(1), net.kernels(X), y, reg, Categorical(), "posterior", 5
        )
        again = study.with_latents(draws, study.training_latents(draws, reg))
        kernels = net.kernels(x, X), net.kernels(x)
        key = jax.random.key(2)
        expected = np.asarray(draws.joint_latents(key, *kernels))
        assert again.joint_latents(key, *kernels) == pytest.approx(expected, abs=1e-8)


@pytest.mark.slow
def test_quick_run():
    command = [sys.executable, str(SCRIPT), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for words in ("3 HMC trajectories", "renewed noise", "weights, width", "initialization | 16"):
        assert words in result.stdout

"""The finite ensemble without scikit-learn: of networks without hidden layers all is known."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from gaussian_process import linear_kernel

from ntk_uq import MLP, Gaussian
from ntk_uq.ensemble import FiniteEnsemble
from ntk_uq.networks import Problem

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((10, 3)), RNG.standard_normal((4, 3))
Y = np.c_[X[:, 0], X[:, 1] - 1] + 0.3 * RNG.standard_normal((10, 2))
NET = MLP(depth=0, w_std=1.3, b_std=0.4)
NOISE, REG = 0.5, 2.0


def problem(weights=None, key=0):
    key = None if key is None else jax.random.key(key)
    return Problem(X, Y, Gaussian(NOISE), REG, key, NET, weights)


@pytest.mark.cases(2)
@pytest.mark.parametrize("weights", [None, RNG.uniform(0.5, 3.0, 10)], ids=["alike", "weighted"])
@pytest.mark.parametrize("uncertainty", ["initialization", "none"])
def test_members_are_ridge_regressions(weights, uncertainty):
    """f0 + Theta (Theta + reg noise^2)^-1 (y - f0), and of shifted networks f0 = 0."""
    fitted = FiniteEnsemble(3, uncertainty, tol=1e-7).fit(problem(weights))
    found = fitted.latents(X_TEST)
    assert found.joint
    theta = linear_kernel(NET)
    ridge = REG * NOISE**2 / (np.ones(10) if weights is None else weights)
    pull = np.linalg.solve(theta(X, X) + np.diag(ridge), theta(X, X_TEST)).T
    for i, member in enumerate(found.samples):
        start, _ = fitted.trained.member(i)
        plain = uncertainty == "initialization"
        at_train, at_test = (np.asarray(start(x)) * plain for x in (X, X_TEST))
        # In single precision, to a tolerance of 1e-7 of the objective.
        np.testing.assert_allclose(member, at_test + pull @ (Y - at_train), atol=5e-3)


def test_a_warm_start_keeps_members():
    few = FiniteEnsemble(1).fit(problem())
    more = FiniteEnsemble(2).fit(problem(), warm_start=few)
    np.testing.assert_array_equal(more.latents(X).samples[:1], few.latents(X).samples)
    whole = FiniteEnsemble(2).fit(problem())
    np.testing.assert_array_equal(more.latents(X).samples, whole.latents(X).samples)


@pytest.mark.parametrize(
    "changes",
    [{"points": X[::-1]}, {"targets": Y + 1}, {"likelihood": Gaussian(2 * NOISE)}, {"time": 1.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_warm_start_goes_on_with_the_same_problem(changes):
    few = FiniteEnsemble(1).fit(problem())
    of_flow = {name: changes[name] for name in changes if name == "time"}
    of_problem = {name: changes[name] for name in changes if name != "time"}
    with pytest.raises(ValueError, match="other points, targets, weights, noise or time"):
        FiniteEnsemble(2, **of_flow).fit(replace(problem(), **of_problem), warm_start=few)


def test_a_key_is_needed():
    with pytest.raises(ValueError, match="give the problem a key"):
        FiniteEnsemble(1).fit(problem(key=None))

"""The law of a mixture is the mixture of the laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_uq import MLP, Categorical
from ntk_uq.analytic import Component, InfiniteEnsemble, fit_mixture
from ntk_uq.analytic.mixture import allotted
from ntk_uq.networks import FeatureEmbedding, Problem

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((8, 2)), RNG.standard_normal((3, 2))
PROBLEM = Problem(X, np.eye(2)[np.arange(8) % 2], Categorical(), 1.0, jax.random.key(0), MLP())
COMPONENTS = (
    Component("a", MLP(depth=1), 0.5, np.array([1.0, 0.2]), 0.75, -0.3),
    Component("b", FeatureEmbedding(MLP(depth=1)), 2.0, 1.0, 0.25, -0.4),
)


def test_allotted():
    """Sums are kept, and no share is off by a draw; ties go to the first."""
    for n in (1, 2, 5, 7, 256):
        weights = RNG.dirichlet(np.ones(4))
        counts = np.array(allotted(weights, n))
        assert counts.sum() == n
        assert np.all(np.abs(counts - n * weights) < 1)
    assert allotted([0.5, 0.5], 1) == [1, 0]
    assert allotted([0.1] * 10, 10) == [1] * 10  # whatever rounding says


@pytest.mark.parametrize(
    "uncertainty", ["initialization", pytest.param("posterior", marks=pytest.mark.slow)]
)
def test_a_mixture_of_laws(uncertainty):
    producer = InfiniteEnsemble(uncertainty, n_draws=8)
    fitted = fit_mixture(producer, COMPONENTS, PROBLEM)
    prediction = fitted.latents(X_TEST)
    parts = [member.latents(X_TEST) for member in fitted.members]
    assert [len(part.samples) for part in parts] == [6, 2]
    expected = sum(one.weight * part.proba() for one, part in zip(COMPONENTS, parts, strict=True))
    np.testing.assert_allclose(prediction.proba(), expected, rtol=1e-12)
    # Moments of a mixture: the mean of the covariances, and the covariance of the means.
    means = np.array([part.mean for part in parts])
    mean = np.tensordot([0.75, 0.25], means, 1)
    np.testing.assert_allclose(prediction.mean, mean, rtol=1e-10)
    for member, one in zip(fitted.members, COMPONENTS, strict=True):
        assert (member.architecture, member.reg) == (one.architecture, one.reg)
        np.testing.assert_array_equal(member.feature_scales, one.feature_scales)
    # Members draw numbers of their own.
    first, second = (member.predictor.whitened for member in fitted.members)
    assert not np.any(np.isin(first, second))
    with jax.enable_x64(True):
        traced = np.asarray(fitted.traced_latents(jnp.asarray(X_TEST)))
    np.testing.assert_allclose(traced, prediction.samples, atol=1e-8)


def test_functions_and_joint_draws():
    fitted = fit_mixture(InfiniteEnsemble(n_draws=4), COMPONENTS, PROBLEM)
    functions = fitted.functions()
    together, again = functions(X_TEST), functions(X_TEST[1:])
    assert together.shape == (4, 3, 2)
    np.testing.assert_allclose(again, together[:, 1:], atol=1e-6)
    assert fitted.latents(X_TEST, joint=True).joint


def test_too_few_draws_for_a_member():
    fitted = fit_mixture(InfiniteEnsemble(n_draws=1), COMPONENTS, PROBLEM)
    assert [member.reg for member in fitted.members] == [0.5]

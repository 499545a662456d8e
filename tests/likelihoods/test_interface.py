"""Likelihoods against scipy.stats, finite differences, and their own draws."""

import runpy
from dataclasses import is_dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ntk_uq import likelihoods
from ntk_uq.likelihoods import Curvature

pytestmark = pytest.mark.double_precision

N, C = 4, 3
# What each likelihood's own file knows of it. `Weighted` describes the points that it is made for.
CASES = [
    runpy.run_path(str(path))["CASE"]
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path.stem not in ("test_interface", "test_weighted")
]
NAMES = [type(case.likelihood).__name__ for case in CASES]
every_case = pytest.mark.parametrize("case", CASES, ids=NAMES)
every_likelihood = pytest.mark.parametrize(
    "likelihood", [case.likelihood for case in CASES], ids=NAMES
)
# Shapes stay the same from example to example, so that nothing is compiled twice.
latents = arrays(np.float64, (N, C), elements=st.floats(-6, 6))
keys = st.integers(0, 2**32 - 1)


def hard_targets(case, seed, shape=(N, C)):
    """Targets as they are observed."""
    return case.hard_targets(np.random.default_rng(seed), shape)


def soft_targets(case, seed, shape=(N, C)):
    """Targets that are not degenerate: averages over observations."""
    return case.soft_targets(np.random.default_rng(seed), shape)


def test_every_shipped_likelihood_has_a_case():
    shipped = {name for name in likelihoods.__all__ if is_dataclass(getattr(likelihoods, name))}
    assert {*NAMES, "Weighted"} == shipped


def derivative(function, f):
    """Central differences along each output: [..., C] -> [..., C] or [..., C] -> [..., C, C]."""
    step = np.finfo(float).eps ** (1 / 3)  # balances truncation and rounding
    columns = [
        (np.asarray(function(f + step * e)) - np.asarray(function(f - step * e))) / (2 * step)
        for e in np.eye(f.shape[-1])
    ]
    return np.stack(columns, axis=-1)


def assert_derivative(value, function, f):
    """Value is the derivative of the function, to the precision of central differences."""
    scale = max(np.max(np.abs(function(f))), np.max(np.abs(value)), 1.0)
    np.testing.assert_allclose(value, derivative(function, f), rtol=1e-8, atol=1e-9 * scale)


def dense(curvature):
    """W, [n, C, C], column by column."""
    return np.stack([curvature.matvec(np.eye(C)[c]) for c in range(C)], axis=-1)


@every_case
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_log_density_is_scipys(case, f, seed):
    likelihood = case.likelihood
    y = hard_targets(case, seed)
    np.testing.assert_allclose(
        likelihood.log_density(f, y), case.log_density(f, y), rtol=1e-10, atol=1e-10
    )


@every_case
@pytest.mark.parametrize("targets", [hard_targets, soft_targets])
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_gradient_and_curvature_are_derivatives(case, targets, f, seed):
    likelihood = case.likelihood
    y = targets(case, seed)
    assert_derivative(likelihood.gradient(f, y), lambda f: likelihood.log_density(f, y), f)
    curvature = dense(likelihood.curvature(f, y))
    assert_derivative(-curvature, lambda f: likelihood.gradient(f, y), f)


@every_case
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_curvature_of_every_likelihood_is_a_covariance(case, f, seed):
    likelihood = case.likelihood
    curvature = likelihood.curvature(f, hard_targets(case, seed))
    w = dense(curvature)
    scale = np.max(np.abs(w))
    np.testing.assert_allclose(w, w.swapaxes(-1, -2), atol=1e-15 * scale)
    # An entry p (1 - p) cancels where p is near one: it is off by the rounding of p, not its own.
    rounding = 1e-14 * scale + 8 * np.finfo(float).eps
    assert np.linalg.eigvalsh(w).min() >= -rounding
    root = np.stack([curvature.sqrt_matvec(np.eye(C)[c]) for c in range(C)], axis=-1)
    np.testing.assert_allclose(root @ root.swapaxes(-1, -2), w, atol=rounding)


@settings(deadline=None, max_examples=30)
@given(
    d=arrays(np.float64, (N, C), elements=st.floats(1e-3, 1e3)),
    q=arrays(np.float64, (N, C), elements=st.floats(-3, 3)),
    v=latents,
)
def test_curvature_is_a_diagonal_less_one_rank(d, q, v):
    q[:, 0] = np.copysign(np.abs(q[:, 0]) + 0.1, q[:, 0])
    q /= np.sqrt(np.sum(d * q**2, axis=-1, keepdims=True))  # the contract of the direction
    for direction in (q, None):
        curvature = Curvature(d, direction)
        w = d[:, :, None] * np.eye(C)
        if direction is not None:
            w -= (d * q)[:, :, None] * (d * q)[:, None, :]
        tolerance = {"rtol": 1e-12, "atol": 1e-13 * d.max()}
        np.testing.assert_allclose(
            curvature.matvec(v), np.einsum("ncd,nd->nc", w, v), **tolerance | {"atol": 1e-10}
        )
        root = np.stack([curvature.sqrt_matvec(np.eye(C)[c]) for c in range(C)], axis=-1)
        np.testing.assert_allclose(root @ root.swapaxes(-1, -2), w, **tolerance)


@every_case
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_direction_is_normalised_and_points_where_the_likelihood_is_blind(case, f, seed):
    likelihood = case.likelihood
    curvature = likelihood.curvature(f, hard_targets(case, seed))
    assert np.all(curvature.diagonal >= 0)
    if curvature.direction is None:
        return
    squared = np.sum(curvature.diagonal * curvature.direction**2, axis=-1)
    np.testing.assert_allclose(squared, 1, rtol=1e-14)
    np.testing.assert_allclose(curvature.matvec(1 / curvature.direction), 0, atol=1e-15)


@every_likelihood
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_gradient_vanishes_where_the_target_is_the_response(likelihood, f, seed):
    response = likelihood.response(f)
    np.testing.assert_allclose(
        likelihood.gradient(f, response), 0, atol=1e-15 * np.max(np.abs(response))
    )


@every_case
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_optimum_of_a_target_alone(case, f, seed):
    likelihood = case.likelihood
    y = soft_targets(case, seed)
    assert not np.any(likelihood.degenerate(y))
    best = likelihood.optimum(y)
    np.testing.assert_allclose(likelihood.gradient(best, y), 0, atol=1e-13 * max(1, y.max()))
    np.testing.assert_allclose(likelihood.identified(best), best, rtol=1e-12, atol=1e-13)
    rounding = 1e-13 * (1 + np.abs(likelihood.log_density(best, y)))
    assert np.all(likelihood.log_density(f, y) <= likelihood.log_density(best, y) + rounding)


@every_case
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_likelihood_sees_the_identified_part_only(case, f, seed):
    likelihood = case.likelihood
    y = hard_targets(case, seed)
    seen = likelihood.identified(f)
    np.testing.assert_allclose(likelihood.identified(seen), seen, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        likelihood.log_density(seen, y),
        likelihood.log_density(f, y),
        rtol=1e-12,
        atol=1e-12,
    )
    unseen = f - seen
    np.testing.assert_allclose(likelihood.curvature(f, y).matvec(unseen), 0, atol=1e-14)


@every_case
def test_leading_axes_broadcast(case):
    likelihood = case.likelihood
    f = np.random.default_rng(0).normal(size=(2, 5, N, C))
    y = soft_targets(case, 1)

    def quantities(f):
        curvature = likelihood.curvature(f, y)
        return (
            likelihood.log_density(f, y),
            likelihood.gradient(f, y),
            curvature.diagonal,
            curvature.matvec(f),
            curvature.sqrt_matvec(f),
            likelihood.response(f),
            likelihood.identified(f),
        )

    for together, shape in zip(quantities(f), [(N,)] + 6 * [(N, C)], strict=True):
        assert together.shape == (2, 5, *shape)
    for i in np.ndindex(2, 5):
        for together, alone in zip(quantities(f), quantities(f[i]), strict=True):
            np.testing.assert_allclose(together[i], alone, rtol=1e-14, atol=1e-15)


@every_case
def test_extreme_latents(case):
    likelihood = case.likelihood
    high = case.highest_latent
    f = np.array([[high, -800.0, 0.0], [-800.0, -800.0, high], [-800.0, 0.0, high]])
    for targets in (hard_targets, soft_targets):
        y = targets(case, 0, f.shape)
        curvature = likelihood.curvature(f, y)
        for value in (
            likelihood.log_density(f, y),
            likelihood.gradient(f, y),
            curvature.diagonal,
            curvature.matvec(np.ones_like(f)),
            curvature.sqrt_matvec(np.ones_like(f)),
            likelihood.response(f),
        ):
            assert np.all(np.isfinite(value))
    if case.probabilities:
        # Log densities do not saturate: linear in the latents that far out.
        wrong = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        assert np.all(likelihood.log_density(f, wrong) <= -1600)


# One shape for all tests of draws: the sampler of counts takes seconds to compile.
N_DRAWS, DRAWN = 20_000, np.array([[0.1, -0.2, 0.2], [1.5, -0.5, 0.3], [-2.0, 1.0, 2.0]])


def draw(likelihood, seed, f=DRAWN):
    """Draws [S, n, C] at latents f [n, C]."""
    return np.asarray(likelihood.sample(jax.random.key(seed), np.broadcast_to(f, (N_DRAWS, 3, C))))


@pytest.mark.slow
@every_case
def test_draws_have_the_mean_and_covariance_of_the_likelihood(case):
    likelihood = case.likelihood
    response = np.asarray(likelihood.response(DRAWN))
    deviation = draw(likelihood, 3) - response
    # The variance of exponential families in natural parameters is their curvature.
    variance = dense(likelihood.curvature(DRAWN, response))
    if case.variance is not None:
        variance = case.variance(DRAWN)[..., None] * np.eye(C)
    expected = np.zeros((3, C, 3, C))
    expected[np.arange(3), :, np.arange(3), :] = variance  # points are independent
    products = np.einsum("sic,sjd->sicjd", deviation, deviation)
    z = np.append(z_scores(deviation, 0.0), z_scores(products, expected))
    assert np.max(np.abs(z)) < stats.norm.isf(1e-3 / 2 / z.size)  # Bonferroni, at 1e-3


def z_scores(values, expected):
    return (values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


@pytest.mark.slow
@every_likelihood
def test_draws_follow_the_key(likelihood):
    np.testing.assert_array_equal(draw(likelihood, 0), draw(likelihood, 0))
    assert np.any(draw(likelihood, 0) != draw(likelihood, 1))


@every_case
def test_single_precision_stays(case):
    likelihood = case.likelihood
    f = jnp.ones((N, C), jnp.float32)
    y = jnp.asarray(soft_targets(case, 0), jnp.float32)
    curvature = likelihood.curvature(f, y)
    values = (
        likelihood.log_density(f, y),
        likelihood.gradient(f, y),
        curvature.diagonal,
        curvature.matvec(f),
        curvature.sqrt_matvec(f),
        likelihood.response(f),
        likelihood.sample(jax.random.key(0), f),
        likelihood.optimum(y),
        likelihood.identified(f),
    )
    assert {value.dtype for value in values} == {jnp.dtype("float32")}

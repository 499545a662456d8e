"""Likelihoods against scipy.stats, finite differences, and their own draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.special import expit, log_softmax, softmax

from ntk_uq.likelihoods import Bernoulli, Categorical, Curvature, Gaussian, Poisson

N, C = 4, 3
ALL = [Categorical(), Bernoulli(), Gaussian(0.7), Poisson()]
NAMES = [type(likelihood).__name__ for likelihood in ALL]
every_likelihood = pytest.mark.parametrize("likelihood", ALL, ids=NAMES)
# Shapes stay the same from example to example, so that nothing is compiled twice.
latents = arrays(np.float64, (N, C), elements=st.floats(-6, 6))
keys = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def hard_targets(likelihood, seed, shape=(N, C)):
    """Targets as they are observed."""
    rng = np.random.default_rng(seed)
    if isinstance(likelihood, Categorical):
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    if isinstance(likelihood, Bernoulli):
        return rng.integers(2, size=shape).astype(float)
    if isinstance(likelihood, Poisson):
        return rng.poisson(3.0, size=shape).astype(float)
    return 3 * rng.normal(size=shape)


def soft_targets(likelihood, seed, shape=(N, C)):
    """Targets that are not degenerate: averages over observations."""
    rng = np.random.default_rng(seed)
    if isinstance(likelihood, Categorical):
        return softmax(2 * rng.normal(size=shape), axis=-1)
    if isinstance(likelihood, Bernoulli):
        return expit(2 * rng.normal(size=shape))
    if isinstance(likelihood, Poisson):
        return rng.gamma(2.0, size=shape)
    return rng.normal(size=shape)


def scipy_log_density(likelihood, f, y):
    """Log density [n] of hard targets."""
    if isinstance(likelihood, Categorical):
        return stats.multinomial.logpmf(y, 1, softmax(f, axis=-1))
    if isinstance(likelihood, Bernoulli):
        return stats.bernoulli.logpmf(y, expit(f)).sum(axis=-1)
    if isinstance(likelihood, Poisson):
        return stats.poisson.logpmf(y, np.exp(f)).sum(axis=-1)
    return stats.norm.logpdf(y, f, likelihood.noise).sum(axis=-1)


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


@every_likelihood
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_log_density_is_scipys(likelihood, f, seed):
    y = hard_targets(likelihood, seed)
    np.testing.assert_allclose(
        likelihood.log_density(f, y), scipy_log_density(likelihood, f, y), rtol=1e-10, atol=1e-10
    )


def test_soft_targets_average_the_log_density_over_observations():
    f = np.random.default_rng(0).normal(size=(N, C))
    y = soft_targets(Categorical(), 1)
    expected = np.sum(y * log_softmax(f, axis=-1), axis=-1)
    np.testing.assert_allclose(Categorical().log_density(f, y), expected, rtol=1e-13)
    y = soft_targets(Bernoulli(), 1)
    by_hand = np.sum(y * np.log(expit(f)) + (1 - y) * np.log(expit(-f)), axis=-1)
    np.testing.assert_allclose(Bernoulli().log_density(f, y), by_hand, rtol=1e-13)


@every_likelihood
@pytest.mark.parametrize("targets", [hard_targets, soft_targets])
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_gradient_and_curvature_are_derivatives(likelihood, targets, f, seed):
    y = targets(likelihood, seed)
    assert_derivative(likelihood.gradient(f, y), lambda f: likelihood.log_density(f, y), f)
    curvature = dense(likelihood.curvature(f, y))
    assert_derivative(-curvature, lambda f: likelihood.gradient(f, y), f)


@every_likelihood
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_curvature_of_every_likelihood_is_a_covariance(likelihood, f, seed):
    curvature = likelihood.curvature(f, hard_targets(likelihood, seed))
    w = dense(curvature)
    scale = np.max(np.abs(w))
    np.testing.assert_allclose(w, w.swapaxes(-1, -2), atol=1e-15 * scale)
    assert np.linalg.eigvalsh(w).min() >= -1e-14 * scale
    root = np.stack([curvature.sqrt_matvec(np.eye(C)[c]) for c in range(C)], axis=-1)
    np.testing.assert_allclose(root @ root.swapaxes(-1, -2), w, atol=1e-14 * scale)


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


@every_likelihood
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_direction_is_normalised_and_points_where_the_likelihood_is_blind(likelihood, f, seed):
    curvature = likelihood.curvature(f, hard_targets(likelihood, seed))
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


@every_likelihood
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_optimum_of_a_target_alone(likelihood, f, seed):
    y = soft_targets(likelihood, seed)
    assert not np.any(likelihood.degenerate(y))
    best = likelihood.optimum(y)
    np.testing.assert_allclose(likelihood.gradient(best, y), 0, atol=1e-13 * max(1, y.max()))
    np.testing.assert_allclose(likelihood.identified(best), best, rtol=1e-12, atol=1e-13)
    rounding = 1e-13 * (1 + np.abs(likelihood.log_density(best, y)))
    assert np.all(likelihood.log_density(f, y) <= likelihood.log_density(best, y) + rounding)


@pytest.mark.parametrize(
    ("likelihood", "y", "towards"),
    [
        (Categorical(), [[1.0, 0.0, 0.0]], [1.0, -1.0, -1.0]),
        (Categorical(), [[0.5, 0.5, 0.0]], [1.0, 1.0, -2.0]),
        (Bernoulli(), [[1.0, 0.5, 0.5]], [1.0, 0.0, 0.0]),
        (Bernoulli(), [[0.5, 0.0, 0.5]], [0.0, -1.0, 0.0]),
        (Poisson(), [[1.0, 0.0, 1.0]], [0.0, -1.0, 0.0]),
    ],
    ids=str,
)
def test_degenerate_targets_want_infinite_latents(likelihood, y, towards):
    y, f = np.array(y), np.zeros((1, C))
    assert np.all(likelihood.degenerate(y))
    assert not np.all(np.isfinite(likelihood.optimum(y)))
    along = [likelihood.log_density(f + t * np.array(towards), y)[0] for t in range(12)]
    assert np.all(np.diff(along) > 0)


def test_degeneracy_is_judged_point_by_point():
    y = np.array([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(Categorical().degenerate(y), [False, True, True])


@every_likelihood
@settings(deadline=None, max_examples=20)
@given(f=latents, seed=keys)
def test_likelihood_sees_the_identified_part_only(likelihood, f, seed):
    y = hard_targets(likelihood, seed)
    seen = likelihood.identified(f)
    np.testing.assert_allclose(likelihood.identified(seen), seen, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        likelihood.log_density(seen, y), likelihood.log_density(f, y), rtol=1e-12, atol=1e-12
    )
    unseen = f - seen
    np.testing.assert_allclose(likelihood.curvature(f, y).matvec(unseen), 0, atol=1e-14)


@every_likelihood
def test_leading_axes_broadcast(likelihood):
    f = np.random.default_rng(0).normal(size=(2, 5, N, C))
    y = soft_targets(likelihood, 1)

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


@every_likelihood
def test_extreme_latents(likelihood):
    # exp(800) is beyond double precision, and a Poisson likelihood's rate with it.
    high = 700.0 if isinstance(likelihood, Poisson) else 800.0
    f = np.array([[high, -800.0, 0.0], [-800.0, -800.0, high], [-800.0, 0.0, high]])
    for targets in (hard_targets, soft_targets):
        y = targets(likelihood, 0, f.shape)
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
    if isinstance(likelihood, Categorical | Bernoulli):
        # Log densities do not saturate: linear in the latents that far out.
        wrong = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        assert np.all(likelihood.log_density(f, wrong) <= -1600)


def test_impossible_counts_under_an_infinite_rate():
    # What overflows does so to the limit, never to NaN.
    f, y = np.full((1, 1), 800.0), np.zeros((1, 1))
    assert Poisson().log_density(f, y)[0] == -np.inf
    assert Poisson().gradient(f, y)[0, 0] == -np.inf


# One shape for all tests of draws: the sampler of counts takes seconds to compile.
N_DRAWS, DRAWN = 20_000, np.array([[0.1, -0.2, 0.2], [1.5, -0.5, 0.3], [-2.0, 1.0, 2.0]])


def draw(likelihood, seed, f=DRAWN):
    """Draws [S, n, C] at latents f [n, C]."""
    return np.asarray(likelihood.sample(jax.random.key(seed), np.broadcast_to(f, (N_DRAWS, 3, C))))


@every_likelihood
def test_draws_have_the_mean_and_covariance_of_the_likelihood(likelihood):
    response = np.asarray(likelihood.response(DRAWN))
    deviation = draw(likelihood, 3) - response
    # The variance of exponential families in natural parameters is their curvature.
    variance = dense(likelihood.curvature(DRAWN, response))
    if isinstance(likelihood, Gaussian):
        variance = np.broadcast_to(likelihood.noise**2 * np.eye(C), variance.shape)
    expected = np.zeros((3, C, 3, C))
    expected[np.arange(3), :, np.arange(3), :] = variance  # points are independent
    products = np.einsum("sic,sjd->sicjd", deviation, deviation)
    z = np.append(z_scores(deviation, 0.0), z_scores(products, expected))
    assert np.max(np.abs(z)) < stats.norm.isf(1e-3 / 2 / z.size)  # Bonferroni, at 1e-3


def z_scores(values, expected):
    return (values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def test_draws_are_observations():
    classes = draw(Categorical(), 0)
    assert set(np.unique(classes)) == {0.0, 1.0}
    assert np.all(classes.sum(axis=-1) == 1)
    assert set(np.unique(draw(Bernoulli(), 0))) == {0.0, 1.0}
    counts = draw(Poisson(), 0)
    assert np.all((counts >= 0) & (counts == np.round(counts)))


def test_distribution_of_draws():
    noisy = draw(Gaussian(0.7), 5)[:, 0, 0]
    assert stats.kstest(noisy, stats.norm(DRAWN[0, 0], 0.7).cdf).pvalue > 1e-3
    rate, last = np.exp(DRAWN[2, 1]), 9  # counts from the last on are one bin
    counts = draw(Poisson(), 5)[:, 2, 1].astype(int)
    expected = stats.poisson.pmf(np.arange(last), rate)
    expected = N_DRAWS * np.append(expected, 1 - expected.sum())
    observed = np.bincount(np.minimum(counts, last), minlength=last + 1)
    assert stats.chisquare(observed, expected).pvalue > 1e-3


@every_likelihood
def test_draws_follow_the_key(likelihood):
    np.testing.assert_array_equal(draw(likelihood, 0), draw(likelihood, 0))
    assert np.any(draw(likelihood, 0) != draw(likelihood, 1))


@every_likelihood
def test_single_precision_stays(likelihood):
    f = jnp.ones((N, C), jnp.float32)
    y = jnp.asarray(soft_targets(likelihood, 0), jnp.float32)
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


def test_parameters_are_traced():
    n_traces = 0

    @jax.jit
    def log_density(likelihood, f, y):
        nonlocal n_traces
        n_traces += 1
        return likelihood.log_density(f, y)

    f, y = np.zeros((N, C)), np.ones((N, C))
    for noise in (0.5, 2.0):
        expected = stats.norm.logpdf(y, f, noise).sum(axis=-1)
        np.testing.assert_allclose(log_density(Gaussian(noise), f, y), expected, rtol=1e-13)
    assert n_traces == 1


def test_noise_can_be_learned():
    # The maximum-likelihood noise is the root mean square of the residuals.
    y = np.random.default_rng(0).normal(size=(50, C))
    f = np.zeros_like(y)
    slope = jax.grad(lambda noise: jnp.sum(Gaussian(noise).log_density(f, y)))
    np.testing.assert_allclose(slope(np.sqrt(np.mean(y**2))), 0, atol=1e-11)

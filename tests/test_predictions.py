"""Predictions against quadrature, hand calculation and simulation."""

import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import entr, expit, softmax

from ntk_uq.bayes import SamplingWarning
from ntk_uq.likelihoods import Gaussian
from ntk_uq.predictions import GaussianPrediction, SamplePrediction, distributions

# What _SCRAMBLES and _SOBOL_POINTS promise of a class probability, for latents of standard
# deviations up to 3.
QUADRATURE_ERROR = 3e-3


def gaussian(m, c, seed=0, scale=1.5, rank=None):
    """Random means and covariances, of full rank unless told otherwise."""
    rng = np.random.default_rng(seed)
    root = scale * rng.normal(size=(m, c, rank or c)) / np.sqrt(rank or c)
    return GaussianPrediction(2 * rng.normal(size=(m, c)), root @ root.swapaxes(1, 2))


def gauss_hermite(prediction):
    """Mean probability of class 1 of 2, and mean entropy, to quadrature's precision: [m] each.

    Softmax of two latents is the logistic function of their difference.
    """
    contrast = np.array([-1.0, 1.0])
    mean = prediction.mean @ contrast
    sd = np.sqrt(np.einsum("c,mcd,d->m", contrast, prediction.cov, contrast))
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    p = expit(mean[:, None] + sd[:, None] * nodes)
    weights = weights / weights.sum()
    return p @ weights, (entr(p) + entr(1 - p)) @ weights


def autoregressive(rng, rho, length, *shape):
    """Stationary AR(1) chains with standard normal marginals: [length, ...]."""
    x = np.empty((length, *shape))
    x[0] = rng.normal(size=shape)
    for t in range(1, length):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=shape)
    return x


# The Gaussian prediction.


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_two_classes_against_gauss_hermite(scale):
    prediction = gaussian(200, 2, scale=scale)
    p, entropy = gauss_hermite(prediction)
    np.testing.assert_allclose(prediction.proba()[:, 1], p, atol=QUADRATURE_ERROR)
    np.testing.assert_allclose(prediction.aleatoric, entropy, atol=QUADRATURE_ERROR)
    total = entr(p) + entr(1 - p)
    np.testing.assert_allclose(prediction.total_uncertainty, total, atol=3 * QUADRATURE_ERROR)
    np.testing.assert_allclose(prediction.epistemic, total - entropy, atol=4 * QUADRATURE_ERROR)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_reported_integration_error_is_the_actual_one(scale):
    prediction = gaussian(500, 2, scale=scale)
    actual = prediction.proba()[:, 1] - gauss_hermite(prediction)[0]
    reported = prediction.proba_mcse()[:, 1]
    # Four scrambles estimate it: 3 degrees of freedom, and the points share them.
    ratio = np.mean(actual**2) / np.mean(reported**2)
    assert stats.f.ppf(1e-3, 3, 3) < ratio < stats.f.ppf(1 - 1e-3, 3, 3)
    assert reported.max() < QUADRATURE_ERROR


@pytest.mark.parametrize("rank", [6, 2])
def test_many_classes_against_plain_monte_carlo(rank):
    m, c, n_draws = 8, 6, 100_000
    prediction = gaussian(m, c, seed=1, rank=rank)
    rng = np.random.default_rng(2)
    for k in range(m):
        latents = rng.multivariate_normal(prediction.mean[k], prediction.cov[k], size=n_draws)
        p = softmax(latents, axis=-1)
        error = 4.5 * p.std(axis=0) / np.sqrt(n_draws)  # 1e-3 familywise over 48 probabilities
        difference = np.abs(prediction.proba()[k] - p.mean(axis=0))
        assert np.all(difference < error + QUADRATURE_ERROR)
        entropy = entr(p).sum(axis=-1)
        error = 4.5 * entropy.std() / np.sqrt(n_draws)
        assert abs(prediction.aleatoric[k] - entropy.mean()) < error + 2 * QUADRATURE_ERROR


def test_no_covariance_is_the_softmax_of_the_mean():
    mean = gaussian(5, 4).mean
    prediction = GaussianPrediction(mean, np.zeros((5, 4, 4)))
    p = softmax(mean, axis=-1)
    np.testing.assert_allclose(prediction.proba(), p, rtol=1e-12)
    np.testing.assert_allclose(prediction.proba_mcse(), 0, atol=1e-15)
    np.testing.assert_allclose(prediction.aleatoric, entr(p).sum(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(prediction.epistemic, 0, atol=1e-12)
    np.testing.assert_allclose(prediction.std, 0)


def test_common_shift_of_all_latents_changes_nothing():
    # Softmax is blind along 1, in the mean and in the covariance.
    prediction = gaussian(20, 4)
    shifted = GaussianPrediction(prediction.mean + 7.0, prediction.cov)
    np.testing.assert_allclose(shifted.proba(), prediction.proba(), rtol=1e-12)
    blind = GaussianPrediction(prediction.mean, np.full((20, 4, 4), 9.0))
    np.testing.assert_allclose(blind.proba(), softmax(prediction.mean, axis=-1), rtol=1e-7)


def test_rounding_of_the_covariance_does_not_move_probabilities():
    # Equal eigenvalues have no eigenvectors of their own: rounding chooses them.
    mean = gaussian(10, 5).mean
    noise = 1e-15 * np.random.default_rng(0).normal(size=(10, 5, 5))
    cov = np.broadcast_to(2 * np.eye(5), (10, 5, 5))
    exact = GaussianPrediction(mean, cov)
    rounded = GaussianPrediction(mean, cov + noise + noise.swapaxes(1, 2))
    np.testing.assert_allclose(rounded.proba(), exact.proba(), atol=1e-13)
    # A singular covariance amplifies rounding to its square root, and no further.
    singular = GaussianPrediction(mean, np.zeros((10, 5, 5)))
    rounded = GaussianPrediction(mean, noise @ noise.swapaxes(1, 2) * 1e15)
    np.testing.assert_allclose(rounded.proba(), singular.proba(), atol=1e-7)


def test_variance_rounded_below_zero_is_zero():
    prediction = GaussianPrediction(np.zeros((1, 2)), np.diag([-1e-17, 1.0])[None])
    np.testing.assert_allclose(prediction.std, [[0, 1]])
    assert np.all(np.isfinite(prediction.proba()))
    assert np.all(np.isfinite(prediction.sample(jax.random.key(0), 3)))


@pytest.mark.parametrize("rank", [3, 1])
def test_draws_of_a_gaussian_have_its_moments(rank):
    n_draws = 20_000
    prediction = gaussian(4, 3, rank=rank)
    draws = prediction.sample(jax.random.key(0), n_draws)
    assert draws.shape == (n_draws, 4, 3)
    assert draws.dtype == np.float64
    # Points are independent of one another.
    cov = np.zeros((4, 3, 4, 3))
    cov[np.arange(4), :, np.arange(4), :] = prediction.cov
    deviation = draws - prediction.mean
    products = np.einsum("sic,sjd->sicjd", deviation, deviation)
    z = np.append(z_scores(deviation, 0.0), z_scores(products, cov))
    assert np.max(np.abs(z)) < stats.norm.isf(1e-3 / 2 / z.size)
    standardised = deviation[:, 0, 0] / prediction.std[0, 0]
    assert stats.kstest(standardised, "norm").pvalue > 1e-3


def z_scores(values, expected):
    return (values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


# Draws.


def test_uncertainties_by_hand():
    # Two members, sure of opposite classes: all uncertainty is about the member.
    sure = np.array([[[np.log(3.0), 0.0]], [[0.0, np.log(3.0)]]])
    prediction = SamplePrediction(sure)
    np.testing.assert_allclose(prediction.mean, [[np.log(3) / 2, np.log(3) / 2]])
    np.testing.assert_allclose(prediction.cov[0], np.log(3) ** 2 / 2 * np.array([[1, -1], [-1, 1]]))
    np.testing.assert_allclose(prediction.std, np.log(3) / np.sqrt(2))
    np.testing.assert_allclose(prediction.proba(), [[0.5, 0.5]])
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    np.testing.assert_allclose(prediction.total_uncertainty, np.log(2))
    np.testing.assert_allclose(prediction.aleatoric, entropy)
    np.testing.assert_allclose(prediction.epistemic, np.log(2) - entropy)
    # The standard error of the mean of 3/4 and 1/4.
    np.testing.assert_allclose(prediction.proba_mcse(), 0.25)


def test_members_that_agree_have_no_epistemic_uncertainty():
    prediction = SamplePrediction(np.broadcast_to(gaussian(5, 3).mean, (7, 5, 3)))
    np.testing.assert_allclose(prediction.epistemic, 0, atol=1e-14)
    np.testing.assert_allclose(prediction.cov, 0, atol=1e-28)
    np.testing.assert_allclose(prediction.total_uncertainty, prediction.aleatoric, atol=1e-14)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    c=st.integers(2, 5),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
    kind=st.sampled_from(["gaussian", "samples"]),
)
def test_uncertainties_are_ordered(seed, c, scale, kind):
    m = 3
    prediction = gaussian(m, c, seed, scale)
    if kind == "samples":
        prediction = SamplePrediction(prediction.sample(jax.random.key(0), 8))
    p = prediction.proba()
    assert p.shape == (m, c)
    assert np.all((p >= 0) & (p <= 1))
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)
    rounding = 1e-12
    assert np.all(prediction.epistemic >= 0)
    assert np.all(prediction.aleatoric >= 0)
    assert np.all(prediction.aleatoric <= prediction.total_uncertainty + rounding)
    assert np.all(prediction.total_uncertainty <= np.log(c) + rounding)
    np.testing.assert_allclose(
        prediction.epistemic + prediction.aleatoric, prediction.total_uncertainty, atol=rounding
    )


def test_moments_of_draws_are_numpys():
    samples = np.random.default_rng(0).normal(size=(30, 4, 3))
    prediction = SamplePrediction(samples)
    np.testing.assert_allclose(prediction.mean, samples.mean(axis=0))
    for k in range(4):
        np.testing.assert_allclose(prediction.cov[k], np.cov(samples[:, k].T))
    np.testing.assert_allclose(prediction.std, samples.std(axis=0, ddof=1))


def test_single_draw_has_no_error_estimate():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prediction = SamplePrediction(np.array([[[1.0, 2.0]]]))
        np.testing.assert_allclose(prediction.proba(), softmax([[1.0, 2.0]], axis=-1))
        assert np.all(np.isnan(prediction.proba_mcse()))
        assert np.isnan(prediction.mean_mcse(first_class))
        assert np.all(np.isnan(prediction.cov))
        assert np.all(np.isnan(prediction.std))
        np.testing.assert_allclose(prediction.epistemic, 0, atol=1e-15)


def test_single_short_chain_has_no_error_estimate():
    samples = np.random.default_rng(0).normal(size=(distributions._BATCHES_PER_CHAIN - 1, 2, 3))
    assert np.all(np.isnan(SamplePrediction(samples, n_chains=1).proba_mcse()))
    assert np.all(np.isfinite(SamplePrediction(samples).proba_mcse()))


def test_draws_from_draws():
    samples = np.random.default_rng(0).normal(size=(4, 3, 2))
    prediction = SamplePrediction(samples)
    draws = prediction.sample(jax.random.key(0), 4000)
    assert draws.shape == (4000, 3, 2)
    # Each is one of the samples, whole, and all are equally likely.
    matches = np.all(draws[:, None] == samples, axis=(2, 3))
    assert np.all(matches.sum(axis=1) == 1)
    assert stats.chisquare(matches.sum(axis=0)).pvalue > 1e-3


# Standard errors, calibrated by simulation. Test points serve as repetitions.


def first_class(p, points):
    return p[..., 0]


def standardised_errors(samples, **kwargs):
    """(Mean probability - its expectation) / its standard error, latents (x, 0), x ~ N(0, 1)."""
    latents = np.stack([samples, np.zeros_like(samples)], axis=-1)
    prediction = SamplePrediction(latents, **kwargs)
    return (prediction.proba()[:, 0] - 0.5) / prediction.proba_mcse()[:, 0]


@pytest.mark.parametrize("n_draws", [10, 300])
def test_standard_error_of_independent_draws(n_draws):
    rng = np.random.default_rng(0)
    z = standardised_errors(rng.normal(size=(n_draws, 4000)))
    assert stats.kstest(z, stats.t(n_draws - 1).cdf).pvalue > 1e-3


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("rho", "n_chains"), [(0.0, 1), (0.6, 2), (0.8, 2), (0.9, 4), (0.95, 4), (-0.4, 2)]
)
def test_standard_error_of_chains(rho, n_chains):
    """Against the error of an AR(1) chain's mean, in closed form."""
    rng = np.random.default_rng(1)
    repetitions, length = 1500, 2000
    chains = [autoregressive(rng, rho, length, repetitions) for _ in range(n_chains)]
    prediction = SamplePrediction(
        np.concatenate(chains)[..., None], Gaussian(1.0), n_chains=n_chains
    )
    # Of the variance, batches of b draws miss 2 rho / (1 - rho^2) / b at their edges.
    time, edge = (1 + rho) / (1 - rho), 2 * rho / (1 - rho**2)
    batch, n_batches = prediction._batch_size, len(prediction._batches.starts)
    true = (time - edge / length) / (n_chains * length)
    found = np.mean(prediction._response_error**2)
    missed = edge / batch * (1 + 1 / n_batches)
    error = np.sqrt(2 / (n_batches - 1) / repetitions)
    assert found / true == pytest.approx(1 - missed, abs=4 * error + 0.1 * abs(missed))
    # Batches are as long as they should be, and so errors less than 2.5% low.
    assert batch > 0.8 * distributions._TIMES_PER_BATCH * time or rho < 0
    assert found / true > 1 - 0.06 - 4 * error
    assert prediction._too_short is None


@pytest.mark.parametrize("rho", [0.8, 0.9])
def test_standard_error_of_few_slow_draws(rho):
    """Two chains of 500, each measuring its own autocorrelation: the true one in closed form."""
    rng = np.random.default_rng(2)
    n_chains, length, repetitions = 2, 500, 60
    true = (1 + rho) / (1 - rho) / (n_chains * length)
    squares, short = [], 0
    for _ in range(repetitions):
        chains = np.concatenate([autoregressive(rng, rho, length, 8, 1) for _ in range(n_chains)])
        prediction = SamplePrediction(chains, Gaussian(1.0), n_chains=n_chains)
        squares.append(np.mean(prediction._response_error**2) / true)
        short += prediction._too_short is not None
    # Batches of five autocorrelation times at least miss a tenth of the variance at most. Chains of
    # 26 such times hardly have ten of them, and may say so; those of 55 rarely.
    error = np.std(squares) / np.sqrt(repetitions)
    assert 0.9 - 4 * error < np.mean(squares) < 1 + 4 * error
    if rho == 0.8:
        assert short < 0.2 * repetitions


def test_chains_too_short_say_so():
    rng = np.random.default_rng(3)
    slow = autoregressive(rng, 0.99, 1000, 4, 3)
    prediction = SamplePrediction(slow, n_chains=2)
    for error in (prediction.proba_mcse, lambda: prediction.mean_mcse(first_class)):
        with pytest.warns(SamplingWarning, match="errors are too small: about .* draws of a chain"):
            error()
    fast = SamplePrediction(rng.normal(size=(1000, 4, 3)), n_chains=2)
    assert np.all(np.isfinite(fast.proba_mcse()))


def test_batches_of_chains():
    """Contiguous, within chains, the last of them shorter."""
    size = 50
    length = distributions._BATCHES_PER_CHAIN * size - 1
    samples = np.random.default_rng(0).normal(size=(2, length, 5, 3))
    whole = SamplePrediction(samples.reshape(-1, 5, 3), n_chains=2)
    p = softmax(samples, axis=-1)
    batches = [c[start : start + size] for c in p for start in range(0, length, size)]
    shares = np.array([len(batch) for batch in batches]) / (2 * length)
    means = np.stack([batch.mean(axis=0) for batch in batches])
    variance = np.tensordot(shares**2, (means - p.mean(axis=(0, 1))) ** 2, axes=1)
    expected = np.sqrt(variance / (1 - np.sum(shares**2)))
    np.testing.assert_allclose(whole._response_error, expected, rtol=1e-10)


@pytest.mark.parametrize("together", [True, False])
def test_standard_error_of_a_mean_over_points(together):
    n_draws, m, repetitions = 40, 5, 800
    rng = np.random.default_rng(2)
    z = []
    for _ in range(repetitions):
        x = rng.normal(size=(n_draws, 1 if together else m)) * np.ones(m)
        prediction = SamplePrediction(np.stack([x, np.zeros_like(x)], axis=-1), joint=together)
        mean = prediction.proba()[:, 0].mean()
        z.append((mean - 0.5) / prediction.mean_mcse(first_class))
    assert stats.kstest(z, stats.t(n_draws - 1).cdf).pvalue > 1e-3


def test_statistic_of_a_mean_knows_its_points(monkeypatch):
    monkeypatch.setattr(distributions, "_CHUNK", 1)
    samples = np.random.default_rng(0).normal(size=(9, 4, 3))
    labels = np.array([0, 2, 1, 1])
    error = SamplePrediction(samples).mean_mcse(
        lambda p, points: p[:, np.arange(p.shape[1]), labels[points]]
    )
    p = softmax(samples, axis=-1)[:, np.arange(4), labels].mean(axis=1)
    np.testing.assert_allclose(error, p.std(ddof=1) / 3, rtol=1e-12)


# Both.

BOTH = pytest.mark.parametrize(
    "prediction",
    [gaussian(7, 3), SamplePrediction(np.random.default_rng(0).normal(size=(40, 7, 3)))],
    ids=lambda p: type(p).__name__,
)


def subset(prediction, points):
    if isinstance(prediction, GaussianPrediction):
        return GaussianPrediction(prediction.mean[points], prediction.cov[points])
    return SamplePrediction(prediction.samples[:, points])


def summaries(prediction):
    return (
        prediction.mean,
        prediction.std,
        prediction.proba(),
        prediction.proba_mcse(),
        prediction.total_uncertainty,
        prediction.aleatoric,
        prediction.epistemic,
    )


@BOTH
def test_shapes_and_precision(prediction):
    for value, shape in zip(summaries(prediction), 4 * [(7, 3)] + 3 * [(7,)], strict=True):
        assert value.shape == shape
        assert value.dtype == np.float64
    assert prediction.cov.shape == (7, 3, 3)


@BOTH
def test_points_do_not_depend_on_one_another(prediction):
    points = np.array([5, 0, 2])
    for part, whole in zip(
        summaries(subset(prediction, points)), summaries(prediction), strict=True
    ):
        np.testing.assert_allclose(part, whole[points], rtol=1e-12, atol=1e-14)


@BOTH
def test_chunks_of_points_give_what_one_chunk_gives(prediction, monkeypatch):
    whole = summaries(prediction)
    monkeypatch.setattr(distributions, "_CHUNK", 3 * prediction._n_latents * 2)  # two points
    again = subset(prediction, slice(None))
    for part, value in zip(summaries(again), whole, strict=True):
        np.testing.assert_allclose(part, value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        again.mean_mcse(first_class), prediction.mean_mcse(first_class), rtol=1e-12
    )


@BOTH
def test_draws_follow_the_key(prediction):
    draws = [prediction.sample(jax.random.key(seed), 5) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])
    assert not jax.config.jax_enable_x64


@BOTH
def test_predictions_can_be_compared_and_hashed(prediction):
    # Field by field, arrays have no truth value.
    assert prediction == prediction
    assert prediction != subset(prediction, slice(None))
    assert len({prediction, subset(prediction, slice(None))}) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda likelihood: GaussianPrediction(np.zeros((2, 1)), np.ones((2, 1, 1)), likelihood),
        lambda likelihood: SamplePrediction(np.zeros((5, 2, 1)), likelihood),
    ],
    ids=["GaussianPrediction", "SamplePrediction"],
)
@pytest.mark.parametrize(
    "name", ["proba", "proba_mcse", "total_uncertainty", "aleatoric", "epistemic"]
)
def test_regression_has_no_class_probabilities(make, name):
    prediction = make(Gaussian(0.5))

    def value():
        quantity = getattr(prediction, name)
        return quantity() if callable(quantity) else quantity

    with pytest.raises(AttributeError, match="Gaussian; use mean and cov"):
        value()
    assert prediction.std.shape == (2, 1)


def test_other_likelihoods_have_errors_of_their_response():
    samples = np.random.default_rng(0).normal(size=(9, 4, 1))
    error = SamplePrediction(samples, Gaussian(0.5)).mean_mcse(first_class)
    expected = samples[..., 0].mean(axis=1).std(ddof=1) / 3
    np.testing.assert_allclose(error, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("mean", "cov"),
    [((3,), (3, 3)), ((2, 3), (2, 3)), ((2, 3), (3, 3)), ((2, 3), (2, 2, 2)), ((2, 3), (1, 3, 3))],
)
def test_wrong_shapes_of_a_gaussian(mean, cov):
    with pytest.raises(ValueError, match=r"mean of shape \[m, C\] and cov of shape \[m, C, C\]"):
        GaussianPrediction(np.zeros(mean), np.zeros(cov))


@pytest.mark.parametrize("shape", [(2, 3), (0, 2, 3), (1, 1, 2, 3)])
def test_wrong_shapes_of_draws(shape):
    with pytest.raises(ValueError, match=r"samples of shape \[S, m, C\]"):
        SamplePrediction(np.zeros(shape))


@pytest.mark.parametrize("n_chains", [3, 0, -1])
def test_draws_that_do_not_divide_into_chains(n_chains):
    with pytest.raises(ValueError, match=f"do not divide into {n_chains} equal chains"):
        SamplePrediction(np.zeros((4, 1, 2)), n_chains=n_chains)


@pytest.mark.parametrize(
    "prediction",
    [
        SamplePrediction(np.random.default_rng(0).normal(size=(6, 3, 2))),
        GaussianPrediction(np.zeros((3, 2)), np.tile(np.eye(2), (3, 1, 1))),
    ],
    ids=["samples", "gaussian"],
)
def test_a_prediction_as_a_table(prediction):
    table = prediction.to_frame(classes=["no", "yes"], index=list("abc"))
    np.testing.assert_array_equal(table[["probability_no", "probability_yes"]], prediction.proba())
    for name in ("total_uncertainty", "aleatoric", "epistemic"):
        np.testing.assert_array_equal(table[name], getattr(prediction, name))
    best = np.array(["no", "yes"])[prediction.proba().argmax(axis=1)]
    assert table["prediction"].tolist() == best.tolist()
    assert table.index.tolist() == list("abc")
    with pytest.raises(ValueError, match="2 outputs at 3 points; got 3 classes"):
        prediction.to_frame(classes=[0, 1, 2])


def test_a_regression_as_a_table():
    samples = np.random.default_rng(0).normal(size=(6, 3, 1))
    prediction = SamplePrediction(samples, Gaussian(noise=1.0))
    table = prediction.to_frame()
    assert table.columns.tolist() == ["mean", "std"]
    np.testing.assert_allclose(table["std"], samples[..., 0].std(axis=0, ddof=1))

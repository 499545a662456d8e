from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import entropy, norm

from ntk_uq.distances import (
    Draws,
    Estimate,
    distances,
    energy_distance,
)
from ntk_uq.distances.measures import MEASURES, estimate_energy
from ntk_uq.distances.pair import Pair
from ntk_uq.likelihoods import Gaussian
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

N_POINTS, N_CLASSES = 12, 3


REPEATS = 150


def energy_of_gaussians(shift, scale):
    """Of N(0, 1) and N(shift, scale^2): E|x - y| is that of a folded normal variable."""

    def folded(mean, sd):
        return sd * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * sd**2)) + mean * (
            1 - 2 * norm.cdf(-mean / sd)
        )

    across = 2 * folded(shift, np.sqrt(1 + scale**2))
    return (across - folded(0.0, np.sqrt(2)) - folded(0.0, np.sqrt(2) * scale)) / across


def test_energy_distance_of_gaussians_in_closed_form():
    rng = np.random.default_rng(4)
    found = [
        energy_distance(rng.normal(0, 1, (50, 1)), rng.normal(1, 2, (50, 1))) for _ in range(200)
    ]
    exact = energy_of_gaussians(1.0, 2.0)
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / np.sqrt(200))


@pytest.mark.cases(4)
@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("n_draws", [(150, 150), (120, 250)])
@pytest.mark.parametrize("rho", [0.0, 0.99, -0.9])
def test_energy_distance_of_coupled_draws(rho, n_draws, shift):
    """Without bias, and within two standard errors of the truth as often as it should be."""
    rng = np.random.default_rng(9)
    shared = min(n_draws)
    found, uncoupled = [], []
    for _ in range(REPEATS):
        x, y = (rng.standard_normal((n, 1)) for n in n_draws)
        y[:shared] = rho * x[:shared] + np.sqrt(1 - rho**2) * y[:shared]
        y = shift + (1 + shift) * y
        predictions = [SamplePrediction(z[:, None], Gaussian(1.0), joint=True) for z in (x, y)]
        found.append(estimate_energy(Pair(*(Draws(p, p) for p in predictions))))
        if rho > 0.9 and shift == 0:
            uncoupled.append(energy_distance(x, y))
    value, se = np.array([(estimate.value, estimate.se) for estimate in found]).T
    error = value - energy_of_gaussians(shift, 1 + shift)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(REPEATS)
    if uncoupled:  # pairs of one index would make it negative
        assert np.mean(uncoupled) < -10 * np.std(uncoupled) / np.sqrt(REPEATS)
    # Of a normal variable over a standard error of 75 batches 4.9% are beyond 2. Where there is no
    # difference only those above count: the distance is skewed there, and its error too large.
    beyond = np.mean((np.abs(error) if shift else error) > 2 * se)
    assert beyond < 0.05 + 4 * np.sqrt(0.05 * 0.95 / REPEATS)
    ratio = np.sqrt(np.mean(se**2)) / error.std()
    slack = 4 / np.sqrt(2 * REPEATS)
    assert 1 - slack < ratio < (1 if shift else np.sqrt(2)) * (1 + slack)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_method_is_at_no_distance_from_itself(seed):
    rng = np.random.default_rng(seed)
    for n_chains in (None, 2):
        samples = draw(rng, 100, latent_mean(), n_chains).samples
        first, again = (
            Draws(SamplePrediction(samples.copy(), n_chains=n_chains, joint=True)) for _ in range(2)
        )
        first._functions, again._functions = first.prediction, again.prediction
        found = distances(first, again)[0]
        for name in MEASURES:
            estimate = getattr(found, name)
            equal = 0.0 if name in ("tv", "kl", "bures_wasserstein", "energy") else 1.0
            assert estimate.value == pytest.approx(equal, abs=1e-12)
            assert estimate.noise == pytest.approx(equal, abs=1e-12)
            assert estimate.se < 1e-12
            assert not estimate.is_significant


# Predictions of a known law: latents with a common factor over points, a stationary AR(1) process
# over the draws, and a correlation between draws of one index, as of methods that share a seed.
SCALES = np.linspace(0.4, 2.0, N_POINTS)[:, None]


class Sampler(NamedTuple):
    """How the draws of two methods are made."""

    n_draws: tuple[int, int]
    n_chains: tuple[int | None, int | None] = (None, None)
    autocorrelation: float = 0.0
    coupling: float = 0.0


SAMPLERS = {
    "independent": Sampler((120, 120)),
    "chains": Sampler((400, 400), (2, None), 0.5),
    "coupled": Sampler((120, 120), coupling=0.99),
    "partly coupled": Sampler((120, 180), coupling=0.9),
    "coupled chains": Sampler((400, 400), (2, 2), 0.5, coupling=0.9),
}


def latent_mean(seed=0):
    return 1.5 * np.random.default_rng(seed).standard_normal((N_POINTS, N_CLASSES))


def noise(rng, n_draws, n_chains=None):
    return rng.standard_normal((n_chains or 1, n_draws // (n_chains or 1), N_POINTS + 1, N_CLASSES))


def prediction(noise, mean, n_chains=None, autocorrelation=0.0, scale=1.0):
    """The method that turns noise [chains, draws, ...] into draws."""
    noise = np.concatenate([noise[:, :1], noise[:, 1:] * np.sqrt(1 - autocorrelation**2)], axis=1)
    noise = lfilter([1.0], [1.0, -autocorrelation], noise, axis=1).reshape(-1, *noise.shape[2:])
    noise = np.sqrt(0.5) * (noise[:, :1] + noise[:, 1:])
    return SamplePrediction(mean + scale * SCALES * noise, n_chains=n_chains, joint=True)


def draw(rng, n_draws, mean, n_chains=None, autocorrelation=0.0, scale=1.0):
    return prediction(noise(rng, n_draws, n_chains), mean, n_chains, autocorrelation, scale)


def pair(sampler, shift, rng):
    sampler = SAMPLERS[sampler]
    first, second = map(partial(noise, rng), sampler.n_draws, sampler.n_chains)
    if sampler.coupling:
        shared = min(first.shape[1], second.shape[1])
        second[:, :shared] *= np.sqrt(1 - sampler.coupling**2)
        second[:, :shared] += sampler.coupling * first[:, :shared]
    changed = latent_mean() + shift * latent_mean(5), 1 + shift / 2
    rho = [sampler.autocorrelation if chains else 0.0 for chains in sampler.n_chains]
    predictions = (
        prediction(first, latent_mean(), sampler.n_chains[0], rho[0]),
        prediction(second, changed[0], sampler.n_chains[1], rho[1], changed[1]),
    )
    return [Draws(prediction, prediction) for prediction in predictions]


@cache
def simulate(sampler, shift):
    """Distances between two methods that differ by `shift`, over 60 fresh sets of draws of both."""
    rng = np.random.default_rng(11)
    found = [distances(*pair(sampler, shift, rng))[0] for _ in range(60)]
    return {name: [getattr(distance, name) for distance in found] for name in MEASURES}


# What the spread of 60 values, known within 1 / sqrt(120) = 9%, may differ from the standard error
# by: three times that. Where there is no difference, distances of second order have standard errors
# of first order, up to sqrt(2) times too large; ranks change in steps, of 1/3 among three points.
WITHIN = 1.27
STEPS = {"rank_correlation": 0.0, "rejected_20": 1 / 3, "rejected_10": 1 / 2}


@pytest.mark.cases(2)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("name", MEASURES)
def test_standard_error_is_the_spread_over_fresh_draws(name, sampler, shift):
    found = simulate(sampler, shift)[name]
    spread = np.std([estimate.value for estimate in found], ddof=1)
    reported = np.sqrt(np.mean([estimate.se**2 for estimate in found]))
    second_order = shift == 0 and name in ("kl", "bures_wasserstein", "energy")
    conservative = np.sqrt(2) if second_order or name in STEPS else 1.0
    assert spread / WITHIN < reported
    assert reported < WITHIN * conservative * spread + 0.5 * STEPS.get(name, 0.0)


@pytest.mark.cases(16)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", MEASURES)
def test_noise_is_the_value_between_samples_of_one_distribution(name, sampler):
    found = simulate(sampler, 0.0)[name]
    value = np.array([estimate.value for estimate in found])
    noise = np.array([estimate.noise for estimate in found])
    standard_error = value.std() / np.sqrt(len(value))
    # Estimated standard errors, of which noise is made, are a few percent off; so are batch means.
    slack = 4 * standard_error + 0.03 * abs(value.mean()) + 0.2 * STEPS.get(name, 0.0)
    assert abs((value - noise).mean()) < slack
    # 5% of 60 with three of its standard deviations.
    assert np.mean([estimate.is_significant for estimate in found]) < 0.13


@pytest.mark.cases(8)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", MEASURES)
def test_real_differences_are_found(name, sampler):
    found = np.mean([estimate.is_significant for estimate in simulate(sampler, 1.0)[name]])
    # Of twelve points' ranks little can be said.
    assert found == 1 if name not in STEPS else found > 0.3


def test_directions():
    rng = np.random.default_rng(0)
    first, second = pair("independent", 1.0, rng)
    forward, backward = distances(first, second)
    p, q = first.prediction.proba(), second.prediction.proba()
    assert forward.kl.value == pytest.approx(entropy(q, p, axis=1).mean())
    assert backward.kl.value == pytest.approx(entropy(p, q, axis=1).mean())
    ratio = first.prediction.epistemic.mean() / second.prediction.epistemic.mean()
    assert forward.epistemic_ratio.value == pytest.approx(ratio)
    assert backward.epistemic_ratio.value == pytest.approx(1 / ratio)
    assert forward.tv == backward.tv


def test_logits_count_up_to_a_constant():
    rng = np.random.default_rng(1)
    first, second = pair("independent", 1.0, rng)
    samples = second.prediction.samples + 5 * rng.standard_normal((120, N_POINTS, 1))
    shifted = Draws(*(SamplePrediction(samples, joint=True),) * 2)
    plain, moved = distances(first, second)[0], distances(first, shifted)[0]
    assert moved.bures_wasserstein.value == pytest.approx(plain.bures_wasserstein.value)
    assert moved.energy.value == pytest.approx(plain.energy.value)


def test_gaussians_are_known_without_error():
    rng = np.random.default_rng(2)
    factors = rng.standard_normal((N_POINTS, N_CLASSES, N_CLASSES + 1))
    mean, cov = latent_mean(), factors @ factors.swapaxes(-2, -1)
    first = Draws(GaussianPrediction(mean, cov))
    second = Draws(GaussianPrediction(mean + 1.0, 4 * cov))
    found = distances(first, second)[0].bures_wasserstein
    centre = np.eye(3) - 1 / 3
    # The covariances commute: the distance of their roots, and a shift that softmax does not see.
    expected = np.sqrt(np.mean([np.trace(centre @ c @ centre) for c in cov]))
    assert found.value == pytest.approx(expected)
    assert found.se == 0
    assert found.noise == 0
    assert np.isnan(distances(first, second)[0].energy.value)


def test_joint_gaussians_have_function_draws():
    covariance = np.ones((4, 4)) + np.eye(4)
    joint = np.einsum("mn,cd->mcnd", covariance, np.eye(2))
    blocks = np.einsum("mcmd->mcd", joint)
    same = GaussianPrediction(np.zeros((4, 2)), blocks, joint_cov=joint)
    alone = np.einsum("mn,cd->mcnd", 2 * np.eye(4), np.eye(2))
    apart = GaussianPrediction(np.zeros((4, 2)), blocks, joint_cov=alone)
    first, second, third = Draws(same, same), Draws(same, same, seed=1), Draws(apart, apart)
    assert not distances(first, second)[0].energy.is_significant
    assert distances(first, third)[0].energy.is_significant


def test_regressors_have_no_classes():
    rng = np.random.default_rng(3)
    predictions = [
        SamplePrediction(scale * rng.standard_normal((100, 6, 1)), Gaussian(0.5), joint=True)
        for scale in (1.0, 2.0)
    ]
    found = distances(*(Draws(prediction, prediction) for prediction in predictions))[0]
    assert np.isnan(found.tv.value)
    assert np.isnan(found.kl.value)
    assert found.epistemic_ratio.value == pytest.approx(0.5, abs=0.06)
    assert found.bures_wasserstein.value == pytest.approx(1.0, abs=0.2)
    assert found.energy.is_significant


def test_one_draw_has_unknown_errors():
    rng = np.random.default_rng(4)
    one = SamplePrediction(rng.standard_normal((1, N_POINTS, N_CLASSES)), joint=True)
    with np.errstate(all="raise"):
        found = distances(Draws(one, one), pair("independent", 0.0, rng)[0])[0]
    assert np.isnan([found.tv.se, found.bures_wasserstein.value, found.energy.value]).all()
    assert not found.tv.is_significant


@pytest.mark.parametrize("sampler", ["independent", "chains"])
def test_effective_draws(sampler):
    (n_draws, _), (n_chains, _), autocorrelation, _ = SAMPLERS[sampler]
    rng = np.random.default_rng(5)
    found = [
        Draws(draw(rng, n_draws, latent_mean(), n_chains, autocorrelation)).effective_draws
        for _ in range(20)
    ]
    # Of an AR(1) process the variance of a mean is (1 + r) / (1 - r) times that of as many draws;
    # class probabilities are less correlated than latents, by the curvature of softmax.
    low = n_draws * (1 - autocorrelation) / (1 + autocorrelation)
    assert 0.95 * low <= np.mean(found) <= 1.5 * low
    if n_chains is None:
        assert found == pytest.approx([n_draws] * 20)


def test_significance_has_a_direction():
    assert Estimate(0.3, 0.1, 0.05).is_significant
    assert not Estimate(-0.3, 0.1, 0.05).is_significant
    assert Estimate(0.5, 0.1, 0.9, "down").is_significant
    assert not Estimate(1.2, 0.1, 0.9, "down").is_significant
    assert Estimate(0.5, 0.1, 1.0, "either").is_significant
    assert Estimate(1.5, 0.1, 1.0, "either").is_significant
    assert not Estimate(1.1, 0.1, 1.0, "either").is_significant

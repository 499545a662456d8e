"""The measures of a comparison: what each is, and how far it is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import erf

from ntk_uq.distances.arrays import (
    Floats,
    bures_wasserstein,
    energy_and_slopes,
    kl_divergence,
    optimal_map,
    rank_correlations,
    rejection_overlaps,
    without_rounding,
)
from ntk_uq.distances.batches import TINY, paired_batches
from ntk_uq.distances.draws import MOST_BATCHES, Draws
from ntk_uq.distances.estimate import UNKNOWN, Estimate
from ntk_uq.distances.pair import Pair
from ntk_uq.metrics import total_variation
from ntk_uq.predictions import squared_error


@dataclass(frozen=True)
class Distance:
    """How far one method is from another, in several respects.

    Attributes
    ----------
    tv : Estimate
        Total variation of the mean class probabilities, averaged over the test points.
    kl : Estimate
        KL(second || first) of the mean class probabilities, averaged over the test points: nats of
        log loss that the first method loses where the second is right.
    bures_wasserstein : Estimate
        Wasserstein-2 distance of the latents at each point, as Gaussians with their mean and
        covariance: root mean square over the test points. Of logits less their mean over the
        classes, as softmax does not see it.
    energy : Estimate
        Normalised energy distance (`energy_distance`) of the latent functions, jointly over the
        test points; NaN where a method has no function draws.
    epistemic_ratio : Estimate
        Mean epistemic uncertainty of the first method over that of the second.
    rank_correlation : Estimate
        Spearman's, of the epistemic uncertainties of the test points.
    rejected_20, rejected_10 : Estimate
        Fraction of common points among the 20% and the 10% with the greatest total uncertainty,
        which one would reject at a coverage of 80% and 90%.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import Categorical, SamplePrediction
    >>> from ntk_uq.distances import Draws, distances
    >>> latents = np.random.default_rng(0).normal(size=(50, 4, 3))
    >>> near = SamplePrediction(latents, Categorical())
    >>> far = SamplePrediction(3 * latents, Categorical())
    >>> distance, _ = distances(Draws(near), Draws(far))
    >>> bool(distance.epistemic_ratio.value < 1)
    True
    """

    tv: Estimate
    kl: Estimate
    bures_wasserstein: Estimate
    energy: Estimate
    epistemic_ratio: Estimate
    rank_correlation: Estimate
    rejected_20: Estimate
    rejected_10: Estimate


# From a method to itself.
_SAME = Estimate(0.0, 0.0, 0.0)
_EQUAL = Estimate(1.0, 0.0, 1.0, "down")
ZERO_DISTANCE = Distance(
    _SAME, _SAME, _SAME, _SAME, replace(_EQUAL, moves="either"), _EQUAL, _EQUAL, _EQUAL
)


def distances(first: Draws, second: Draws) -> tuple[Distance, Distance]:
    """Distance of the first method from the second, and of the second from the first.

    Parameters
    ----------
    first, second : Draws
        Predictions at the same points.

    Returns
    -------
    Distance, Distance
        They share all that is symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import Categorical, SamplePrediction
    >>> from ntk_uq.distances import Draws, distances
    >>> latents = np.random.default_rng(0).normal(size=(100, 4, 3))
    >>> halves = [SamplePrediction(half, Categorical()) for half in np.split(latents, 2)]
    >>> there, back = distances(*map(Draws, halves))
    >>> there.tv == back.tv, there.tv.is_significant
    (True, False)
    """
    pair = Pair(first, second)
    ratio, inverse = estimate_epistemic_ratio(pair)
    kl, reverse = estimate_kl(pair) if first.is_classifier else (UNKNOWN, UNKNOWN)
    forward = Distance(
        tv=estimate_tv(pair) if first.is_classifier else UNKNOWN,
        kl=kl,
        bures_wasserstein=estimate_bures_wasserstein(pair),
        energy=estimate_energy(first, second),
        epistemic_ratio=ratio,
        rank_correlation=_estimate_ranks(pair, 1, rank_correlations),
        rejected_20=_estimate_ranks(pair, 0, lambda u, v: rejection_overlaps(u, v, 0.8)),
        rejected_10=_estimate_ranks(pair, 0, lambda u, v: rejection_overlaps(u, v, 0.9)),
    )
    backward = replace(forward, kl=reverse, epistemic_ratio=inverse)
    return forward, backward


def estimate_tv(pair: Pair) -> Estimate:
    """Half-normal noise, and a sign that counts as far as it is known: docs/theory."""
    p, q = pair.probabilities
    # A prediction without error has scale 0: the sign of the difference is then known.
    mean_sign = erf((p - q) / (np.sqrt(2) * np.maximum(pair.scale, TINY)))
    return Estimate(
        value=without_rounding(total_variation(p, q).mean()),
        se=pair.error_of_mean(0.5 * mean_sign, -0.5 * mean_sign),
        noise=float(0.5 * np.sqrt(2 / np.pi) * pair.scale.sum(axis=1).mean()),
    )


def estimate_kl(pair: Pair) -> tuple[Estimate, Estimate]:
    """KL(q || p) has the slopes -q / p in p and log(q / p) in q, and the curvature 1 / p."""
    p, q = (np.maximum(proba, TINY) for proba in pair.probabilities)
    # Of two estimates of the same probabilities, which both know.
    noise = float(0.5 * (pair.scale**2 / (0.5 * (p + q))).sum(axis=1).mean())
    return (
        Estimate(
            without_rounding(kl_divergence(q, p).mean()),
            pair.error_of_mean(-q / p, np.log(q / p)),
            noise,
        ),
        Estimate(
            without_rounding(kl_divergence(p, q).mean()),
            pair.error_of_mean(np.log(p / q), -p / q),
            noise,
        ),
    )


def estimate_bures_wasserstein(pair: Pair) -> Estimate:
    """W^2 has the slope 2 (mu_a - mu_b) in mu_a and I - T in A, with T the map from a to b."""
    (mean_a, cov_a), (mean_b, cov_b) = (draws.moments for draws in pair.draws)
    if not (np.isfinite(cov_a).all() and np.isfinite(cov_b).all()):
        return UNKNOWN  # a single draw has no covariance
    square = np.mean(bures_wasserstein(mean_a, cov_a, mean_b, cov_b) ** 2)
    # The difference of traces of which it is made.
    rounding = 10 * np.finfo(np.float64).eps * np.mean(np.trace(cov_a + cov_b, axis1=1, axis2=2))
    value = float(np.sqrt(square)) if square > rounding else 0.0
    identity, shift = np.eye(mean_a.shape[1]), 2 * (mean_a - mean_b)
    curvatures = identity - optimal_map(cov_a, cov_b), identity - optimal_map(cov_b, cov_a)
    return Estimate(
        value=value,
        se=pair.moment_error(shift, curvatures) / (2 * value) if value > 0 else 0.0,
        noise=float(np.sqrt(pair.moment_noise)),
    )


def estimate_energy(first: Draws, second: Draws) -> Estimate:
    """Standard error by linearisation; conservative where there is no difference."""
    if first.functions is None or second.functions is None:
        return UNKNOWN
    (f, every_f), (g, every_g) = first.functions, second.functions
    batches = paired_batches(f, g, MOST_BATCHES, aligned=every_f == every_g)
    if min(len(one.starts) for one in batches) < 2:
        return UNKNOWN
    value, slopes = energy_and_slopes(f.samples[:, 0], g.samples[:, 0], *batches)
    if min(len(one.starts) for one in batches) < 3:
        return replace(UNKNOWN, value=value, noise=0.0)
    # Slopes in the weights of batches, which are what a batch adds to the error.
    terms = [(one, slope / one.weights) for one, slope in zip(batches, slopes, strict=True)]
    return Estimate(value, float(np.sqrt(squared_error(*terms))), 0.0)


def estimate_epistemic_ratio(pair: Pair) -> tuple[Estimate, Estimate]:
    """Ratio of the means and its inverse; few draws make an uncertainty small, which is noise."""
    means = [epistemic.mean(axis=1) for _, epistemic in pair.uncertainties]
    a, b = (mean[0] for mean in means)
    if not (a > 0 and b > 0):  # a method without uncertainty is known to have none
        nothing = Estimate(0.0, 0.0, 1.0, "either")
        unknown = replace(UNKNOWN, moves="either")
        return nothing if b > 0 else unknown, nothing if a > 0 else unknown
    relative = [mean[1:] / mean[0] for mean in means]
    spread = np.std(relative[0] - relative[1], ddof=1)
    shrinkage_a, shrinkage_b = (resampled.mean() for resampled in relative)
    return (
        Estimate(a / b, a / b * spread, shrinkage_a / shrinkage_b, "either"),
        Estimate(b / a, b / a * spread, shrinkage_b / shrinkage_a, "either"),
    )


def _estimate_ranks(
    pair: Pair, which: int, compare: Callable[[Floats, Floats], Floats]
) -> Estimate:
    """A comparison of ranks, by the bootstrap.

    To find what noise alone would give, errors of either method, relative to its estimates, are
    put on the estimates of the other, whose own resamples are the second of the two.
    """
    u, v = (uncertainties[which] for uncertainties in pair.uncertainties)
    value = float(compare(u[:1], v[:1])[0])
    resampled = compare(u[1:], v[1:])
    relative_u, relative_v = (x[1:] / np.maximum(x[0], TINY) for x in (u, v))
    noise = [compare(u[1:], u[0] * relative_v), compare(v[0] * relative_u, v[1:])]
    return Estimate(value, float(np.std(resampled, ddof=1)), float(np.mean(noise)), "down")

"""The measures of a comparison: what each is, how far it is known, and in which words.

A measure is a function of a `Pair`, decorated with all else that there is to say of it, and a field
of `Distance`; tables, pictures and the report read `MEASURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import erf

from ntk_uq._common.words import in_a_line
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
from ntk_uq.distances.estimate import UNKNOWN, Estimate
from ntk_uq.distances.pair import Pair
from ntk_uq.distances.prepared import MOST_BATCHES, PreparedPrediction
from ntk_uq.metrics import total_variation
from ntk_uq.predictions.distributions import squared_error


@dataclass(frozen=True)
class Words:
    """How a table shows a number; ``{reference}`` stands for the name of the reference."""

    title: str
    explanation: str
    digits: int = 3


Estimator = Callable[[Pair], Estimate | tuple[Estimate, Estimate]]

# From a method to itself.
_SAME = Estimate(0.0, 0.0, 0.0)
_EQUAL = Estimate(1.0, 0.0, 1.0, "down")


@dataclass(frozen=True)
class Measure:
    """A respect in which two methods may differ.

    Attributes
    ----------
    estimate : function of a Pair
        One `Estimate`, or two where the direction counts: of the first method from the second, and
        back.
    panel : str
        Title of its picture.
    words : Words, optional
        Its row of the report's table. Without them, neither that table nor `Comparison.table` has
        it.
    noise : Words, optional
        The row of the value that Monte-Carlo error alone would give, if that has one.
    column : str, optional
        Its name in `Comparison.table`, if that is not the field's.
    aspect : str, optional
        What differs where it does, in a sentence of the report.
    itself : Estimate
        Of a method from itself.
    classes_only : bool
        Whether regressors have none.
    """

    estimate: Estimator
    panel: str
    words: Words | None = None
    noise: Words | None = None
    column: str | None = None
    aspect: str | None = None
    itself: Estimate = _SAME
    classes_only: bool = False


# By name, in the order of tables.
MEASURES: dict[str, Measure] = {}


def _measure[E: Estimator](
    panel: str, words: Words | None = None, **options: Any
) -> Callable[[E], E]:
    """Make a measure of the function ``estimate_…`` that follows; `Distance` has its name."""

    def add(estimate: E) -> E:
        name = estimate.__name__.removeprefix("estimate_")
        MEASURES[name] = Measure(estimate, panel, words, **options)
        return estimate

    return add


@_measure(
    "Total variation",
    Words(
        "Distance from {reference}",
        "Total variation between the mean class probabilities and {reference}'s, mean over "
        "test points: 0 is equal, 1 is disjoint. After ±: Monte-Carlo standard error.",
    ),
    noise=Words(
        "… of which sampling noise",
        "The distance that two perfectly agreeing methods would show at these numbers of "
        "draws. A distance no more than two standard errors above it is no evidence of a "
        "difference.",
        digits=4,
    ),
    classes_only=True,
)
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


@_measure(
    "KL divergence (nats)",
    Words(
        "KL divergence from {reference}, nats",
        "What the method's class probabilities would lose in log loss if {reference}'s "
        "were true, mean over test points.",
    ),
    classes_only=True,
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


@_measure(
    "Latents: Bures-Wasserstein",
    Words(
        "Distance of the latents",
        "Bures-Wasserstein distance from {reference}: how far mean and covariance of the "
        "logits at a point would have to be moved; root mean square over test points, in "
        "logits. What is added to all classes alike does not count, as softmax does not "
        "see it.",
    ),
    aspect="the logits at single points",
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


@_measure(
    "Functions: energy distance",
    Words(
        "Distance of the functions",
        "Energy distance from {reference}, of whole functions: it sees how test points "
        "move together, which the distances above do not. Between 0, the same "
        "distribution, and 1; Monte-Carlo error may take it below zero.",
    ),
    aspect="whole functions",
)
def estimate_energy(pair: Pair) -> Estimate:
    """Standard error by linearisation; conservative where there is no difference."""
    first, second = pair.draws
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


@_measure(
    "Epistemic: ratio",
    Words(
        "Epistemic uncertainty, ratio",
        "Mean over test points, divided by {reference}'s: below 1 the method is surer of itself.",
    ),
    itself=replace(_EQUAL, moves="either"),
)
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


@_measure(
    "Epistemic: rank correlation",
    Words(
        "Epistemic uncertainty, rank correlation",
        "Whether both find the same points uncertain: 1 is the same order, 0 is unrelated.",
    ),
    aspect="which points are uncertain",
    itself=_EQUAL,
)
def estimate_rank_correlation(pair: Pair) -> Estimate:
    """Spearman's, of the epistemic uncertainties."""
    return _estimate_ranks(pair, 1, rank_correlations)


@_measure(
    "Common among rejected 20%",
    Words(
        "Common among the rejected",
        "Of the 20% most uncertain points, which one might hand to a human, the fraction "
        "that {reference} would hand over too. Chance would give 0.2.",
    ),
    column="rejection_agreement",
    aspect="which points would be rejected",
    itself=_EQUAL,
)
def estimate_rejected_20(pair: Pair) -> Estimate:
    """Common among the 20% of the greatest total uncertainty."""
    return _estimate_ranks(pair, 0, lambda u, v: rejection_overlaps(u, v, 0.8))


@_measure("Common among rejected 10%", itself=_EQUAL)
def estimate_rejected_10(pair: Pair) -> Estimate:
    """Common among the 10% of the greatest total uncertainty."""
    return _estimate_ranks(pair, 0, lambda u, v: rejection_overlaps(u, v, 0.9))


@in_a_line
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
    >>> from ntk_uq.distances import PreparedPrediction, distances
    >>> latents = np.random.default_rng(0).normal(size=(50, 4, 3))
    >>> near = SamplePrediction(latents, Categorical())
    >>> far = SamplePrediction(3 * latents, Categorical())
    >>> distance, _ = distances(PreparedPrediction(near), PreparedPrediction(far))
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


ZERO_DISTANCE = Distance(**{name: measure.itself for name, measure in MEASURES.items()})


def distances(first: PreparedPrediction, second: PreparedPrediction) -> tuple[Distance, Distance]:
    """Distance of the first method from the second, and of the second from the first.

    Parameters
    ----------
    first, second : PreparedPrediction
        Predictions at the same points.

    Returns
    -------
    Distance, Distance
        They share all that is symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import Categorical, SamplePrediction
    >>> from ntk_uq.distances import PreparedPrediction, distances
    >>> latents = np.random.default_rng(0).normal(size=(100, 4, 3))
    >>> halves = [SamplePrediction(half, Categorical()) for half in np.split(latents, 2)]
    >>> there, back = distances(*map(PreparedPrediction, halves))
    >>> there.tv == back.tv, there.tv.is_significant
    (True, False)
    """
    pair = Pair(first, second)
    there: dict[str, Estimate] = {}
    back: dict[str, Estimate] = {}
    for name, measure in MEASURES.items():
        applies = first.is_classifier or not measure.classes_only
        found = measure.estimate(pair) if applies else UNKNOWN
        there[name], back[name] = found if isinstance(found, tuple) else (found, found)
    return Distance(**there), Distance(**back)

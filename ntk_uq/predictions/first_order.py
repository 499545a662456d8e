"""How far first order holds: a Gaussian about a mode against what it approximates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from ntk_uq._common.rules import own_rules
from ntk_uq.likelihoods import Categorical, Likelihood, Weighted
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

__all__ = [
    "CHECKED",
    "CHECK_ITERATIONS",
    "CHECK_TOLERANCE",
    "Discrepancy",
    "FirstOrderWarning",
    "compare_draws",
    "discrepancy",
    "is_exact",
    "no_discrepancy",
]

# Draws that a fit solves exactly, and the nats that their solutions may be off: 1.4% of a posterior
# standard deviation. Where so many iterations do not bring them there, first order has failed by
# far, and what is missing changes the measure in its second digit.
CHECKED, CHECK_TOLERANCE, CHECK_ITERATIONS = 32, 1e-4, 300
# Targets that are drawn from each prediction where they cannot be enumerated.
_TARGETS = 16


class FirstOrderWarning(UserWarning):
    """The closed form is far from the distribution that it is the first order of."""


class Discrepancy(NamedTuple):
    """How far a Gaussian prediction is from the distribution that it approximates, point by point.

    All but the first are of latents less their mean over outputs, for class probabilities: the
    rest is not seen.

    Attributes
    ----------
    total_variation : array of shape [m]
        Between the two predictive distributions of the target: half the sum of the differences in
        class probabilities. From 0 to 1.
    mean_shift : array of shape [m, C]
        Mean of the draws less that of the Gaussian, in standard deviations of the draws.
    sd_ratio : array of shape [m, C]
        Standard deviation of the Gaussian over that of the draws.
    skewness : array of shape [m, C]
        Third standardised moment of the draws; zero for a Gaussian.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.analytic import gaussian_predictor
    >>> kernels, y = MLP().kernel_block(jnp.array([[-1.0], [1.0]])), jnp.eye(2)
    >>> predictor = gaussian_predictor(kernels, y, 1.0, Categorical(), "initialization")
    >>> bool(predictor.discrepancy.total_variation.mean() < 0.05)
    True
    """

    total_variation: NDArray[np.float64]
    mean_shift: NDArray[np.float64]
    sd_ratio: NDArray[np.float64]
    skewness: NDArray[np.float64]


@own_rules()
def discrepancy(gaussian: Any, draws: Any) -> Discrepancy:
    """Compare the Gaussian predictor with exact draws, at the same points.

    Parameters
    ----------
    gaussian : GaussianPrediction or SamplePrediction
        Of method="gaussian"; or draws from it, which share their random numbers with `draws`, so
        that little Monte-Carlo error is left in the comparison.
    draws : SamplePrediction
        Of method="exact". S independent draws leave standard errors of about 1/sqrt(S) in the
        shift, 1/sqrt(2S) in the ratio and sqrt(6/S) in the skewness.

    Returns
    -------
    Discrepancy

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import GaussianPrediction, Gaussian, SamplePrediction
    >>> from ntk_uq.analytic import discrepancy
    >>> gaussian = GaussianPrediction(np.zeros((1, 1)), np.ones((1, 1, 1)), Gaussian(1.0))
    >>> draws = SamplePrediction(gaussian.sample(jax.random.key(0), 20_000), Gaussian(1.0))
    >>> bool(abs(discrepancy(gaussian, draws).sd_ratio[0, 0] - 1) < 0.02)
    True
    """
    with jax.enable_x64(True):
        identity = jnp.eye(gaussian.mean.shape[1])
        project = np.asarray(gaussian.likelihood.identified(identity))
    samples = draws.samples @ project
    mean, sd = samples.mean(axis=0), samples.std(axis=0, ddof=1)
    variance = np.einsum("dc,mde,ec->mc", project, gaussian.cov, project)
    unit = np.where(sd > 0, sd, 1.0)  # what does not vary keeps its own
    return Discrepancy(
        _total_variation(gaussian, draws),
        (mean - gaussian.mean @ project) / unit,
        np.sqrt(np.maximum(variance, 0.0)) / unit,
        np.mean(((samples - mean) / unit) ** 3, axis=0),
    )


def compare_draws(first_order: Array, exact: Array, likelihood: Likelihood) -> Discrepancy:
    """`discrepancy` of coupled draws [S, n, C] at the training points."""
    of_a_point = _of_a_point(likelihood)
    predictions = (
        SamplePrediction(np.asarray(f, np.float64), of_a_point) for f in (first_order, exact)
    )
    return discrepancy(*predictions)


def is_exact(likelihood: Likelihood) -> bool:
    """Whether first order is all there is: the log density is quadratic in the latents."""
    return getattr(likelihood, "constant_curvature", False)


def _of_a_point(likelihood: Likelihood) -> Likelihood:
    """The likelihood of a new target: weights are of training points."""
    return likelihood.likelihood if isinstance(likelihood, Weighted) else likelihood


def no_discrepancy(shape: tuple[int, ...]) -> Discrepancy:
    """Where first order is exact, at points and outputs of shape [n, C]."""
    return Discrepancy(np.zeros(shape[0]), np.zeros(shape), np.ones(shape), np.zeros(shape))


def _total_variation(
    p: GaussianPrediction | SamplePrediction, q: GaussianPrediction | SamplePrediction
) -> NDArray[np.float64]:
    """Between predictive distributions of the target: [m].

    Where targets cannot be enumerated, the mean of |p - q| / (p + q) over targets of both.
    """
    if isinstance(p.likelihood, Categorical):
        return 0.5 * np.abs(p.proba() - q.proba()).sum(axis=-1)
    key = jax.random.key(0, impl="threefry2x32")
    relative = []
    for source in (p, q):
        for i, latents in enumerate(source.sample(key, _TARGETS)):
            with jax.enable_x64(True):
                y = np.asarray(p.likelihood.sample(jax.random.fold_in(key, i), latents))
            with np.errstate(invalid="ignore"):
                relative.append(np.abs(np.tanh((p.log_density(y) - q.log_density(y)) / 2)))
    # A target that overflow leaves without a density in either tells them apart.
    return np.nan_to_num(np.mean(relative, axis=0), nan=1.0)

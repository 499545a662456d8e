r"""Distances between two predictive distributions, and what Monte-Carlo error makes of them.

The first half takes arrays: `kl_divergence`, `bures_wasserstein`, `energy_distance`,
`rank_correlation`, `rejection_overlap` (total variation is in `ntk_uq.metrics`). The second half
takes two predictions and returns an `Estimate`: the distance, its standard error from the finite
number of draws of both, and the value that this error alone would give. Draws are first averaged in
contiguous batches, so that the autocorrelation of chains is counted; and draw s of one method may
depend on draw s of the other, as those of estimators with one `random_state` do. docs/theory:
"Distance between two predictions".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import helmert
from scipy.special import entr, erf, rel_entr
from scipy.stats import gamma, rankdata

from ntk_uq.likelihoods import Categorical, Gaussian
from ntk_uq.metrics import total_variation
from ntk_uq.predictions import (
    _FEWEST_BATCHES,
    Batches,
    GaussianPrediction,
    SamplePrediction,
    _response,
    squared_error,
    standard_error,
)

__all__ = [
    "Distance",
    "Draws",
    "Estimate",
    "bures_wasserstein",
    "distances",
    "energy_distance",
    "kl_divergence",
    "rank_correlation",
    "rejection_overlap",
]

Floats = NDArray[np.float64]
Prediction = GaussianPrediction | SamplePrediction

# Batches of draws, whose scatter gives standard errors within 1 / sqrt(200) = 7%; fewer where their
# means at all points take more than 2**24 numbers (128 MiB), at least these.
_BATCHES, _FEWEST, _LARGEST = 100, 20, 2**24
# Resamples of the bootstrap, which know a standard error as well.
_RESAMPLES = 100
# Draws of a Gaussian for the energy distance, and the most of any method's.
_FUNCTION_DRAWS, _MOST_FUNCTION_DRAWS = 512, 2000
# Entries of covariances (points times outputs squared) from which latents are compared.
_MOST_MOMENTS = 100_000
# Numbers held at once: 2**22 doubles are 32 MiB.
_CHUNK = 2**22
_TINY = np.finfo(np.float64).tiny
# What rounding leaves of a distance of zero between numbers of order one.
_ROUNDING = 1e-14


def kl_divergence(p: ArrayLike, q: ArrayLike) -> Floats:
    r"""Kullback-Leibler divergence :math:`\sum_c p_c \log(p_c / q_c)` of class probabilities.

    The log loss that predicting q costs beyond that of p, where labels follow p.

    Parameters
    ----------
    p, q : array of shape [..., C]
        Class probabilities, of the same shape.

    Returns
    -------
    array of shape [...]
        Nats; infinite where q is zero and p is not.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from ntk_uq.distances import kl_divergence
    >>> kl_divergence([0.5, 0.5], [0.8, 0.2]).round(4)
    np.float64(0.2231)
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"p and q must have the same shape, got {p.shape} and {q.shape}.")
    return rel_entr(p, q).sum(axis=-1)


def bures_wasserstein(
    mean_a: ArrayLike, cov_a: ArrayLike, mean_b: ArrayLike, cov_b: ArrayLike
) -> Floats:
    r"""Wasserstein-2 distance between Gaussians with the given moments.

    .. math::
        W^2 = \|\mu_a - \mu_b\|^2 + \mathrm{tr}\bigl(A + B - 2 (A^{1/2} B A^{1/2})^{1/2}\bigr)

    Parameters
    ----------
    mean_a, mean_b : array of shape [..., d]
        Means.
    cov_a, cov_b : array of shape [..., d, d]
        Covariances A, B; they may be singular.

    Returns
    -------
    array of shape [...]
        In the unit of the means.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    Bhatia, Jain, Lim (2019), On the Bures-Wasserstein distance between positive definite matrices.

    Examples
    --------
    Of two intervals of one dimension, W^2 is the squared difference of the means plus that of the
    standard deviations.

    >>> from ntk_uq.distances import bures_wasserstein
    >>> bures_wasserstein([0.0], [[1.0]], [3.0], [[25.0]])
    np.float64(5.0)
    """
    mean_a, cov_a, mean_b, cov_b = (
        np.asarray(array, dtype=np.float64) for array in (mean_a, cov_a, mean_b, cov_b)
    )
    square = (*mean_a.shape, mean_a.shape[-1])
    if mean_b.shape != mean_a.shape or cov_a.shape != square or cov_b.shape != square:
        raise ValueError(
            "bures_wasserstein takes means of shape [..., d] and covariances of shape [..., d, d], "
            f"got {mean_a.shape}, {cov_a.shape}, {mean_b.shape} and {cov_b.shape}."
        )
    # The trace of the root is the sum of the singular values of A^1/2 B^1/2.
    fidelity = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum(axis=-1)
    traces = np.trace(cov_a + cov_b, axis1=-2, axis2=-1)
    squared = ((mean_a - mean_b) ** 2).sum(axis=-1) + traces - 2 * fidelity
    return np.sqrt(np.maximum(squared, 0.0))  # rounding may take it below zero


def energy_distance(
    a: ArrayLike,
    b: ArrayLike,
    *,
    batches: tuple[int, int] | None = None,
    coupled: bool = False,
) -> float:
    r"""Normalised energy distance between two sets of draws, without bias from their number.

    .. math::
        H = \frac{2\,\mathrm E\|x - y\| - \mathrm E\|x - x'\| - \mathrm E\|y - y'\|}
                 {2\,\mathrm E\|x - y\|}

    is zero where both have the same distribution, one for two different points, and sees any
    difference, of means, spreads, shapes or dependence. The first two moments need not exist apart.

    Parameters
    ----------
    a, b : array of shape [S, ...] and [T, ...]
        Draws x and y; what follows the first axis is one vector.
    batches : (int, int), optional
        Draws of autocorrelated sequences come in this many contiguous batches each, and draws of
        one batch are not paired. Default: every draw is independent of the others.
    coupled : bool, default False
        Whether x and y of the same batch (without batches: the same index) may depend on each
        other, as draws from one seed do. They are then not paired either; with them, the distance
        would be off by about -1/S, or +1/S where they move against each other.

    Returns
    -------
    float
        At most one. The average over repetitions is zero where there is no difference, so that it
        may be slightly negative.

    Raises
    ------
    ValueError
        If shapes do not fit, or there are fewer than two batches of either.

    References
    ----------
    Szekely and Rizzo (2013), Energy statistics: a class of statistics based on distances.

    Examples
    --------
    >>> from ntk_uq.distances import energy_distance
    >>> energy_distance([[0.0], [0.0]], [[1.0], [1.0]])
    1.0
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim < 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"Draws must have shapes [S, ...] and [T, ...], alike after the first axis; got "
            f"{a.shape} and {b.shape}."
        )
    draws, n_batches = (a.reshape(len(a), -1), b.reshape(len(b), -1)), batches or (len(a), len(b))
    if not all(2 <= k <= len(x) for k, x in zip(n_batches, draws, strict=True)):
        raise ValueError(
            f"The energy distance needs two independent batches of draws of either side; there are "
            f"{len(a)} and {len(b)} draws in {n_batches[0]} and {n_batches[1]} batches."
        )
    starts = [
        np.linspace(0, len(x), k, endpoint=False).astype(int).tolist()
        for k, x in zip(n_batches, draws, strict=True)
    ]
    if coupled and not all(i == j for i, j in zip(*starts, strict=False)):
        raise ValueError(
            "Coupled draws must lie in the same batches: as many draws and batches of either side, "
            f"or no batches; got {len(a)} and {len(b)} draws in {n_batches[0]} and {n_batches[1]} "
            "batches."
        )
    labels = range(n_batches[0]), range(n_batches[1])
    if not coupled:
        labels = range(n_batches[0]), range(n_batches[0], sum(n_batches))
    return _energy(
        *draws,
        *(
            Batches(tuple(at), len(x), tuple(names))
            for at, x, names in zip(starts, draws, labels, strict=True)
        ),
    )[0]


def rank_correlation(u: ArrayLike, v: ArrayLike) -> float:
    """Spearman's rank correlation; NaN where one of the two is constant.

    Parameters
    ----------
    u, v : array of shape [m]
        Values of the same points.

    Returns
    -------
    float
        Between -1 and 1.

    Examples
    --------
    >>> from ntk_uq.distances import rank_correlation
    >>> rank_correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0])
    1.0
    """
    return float(_rank_correlations(np.asarray(u)[None], np.asarray(v)[None])[0])


def rejection_overlap(u: ArrayLike, v: ArrayLike, coverage: float) -> float:
    """Fraction of the points rejected by one uncertainty that the other rejects too.

    Each rejects its most uncertain points, of which there are a fraction 1 - coverage (rounded up);
    ties go to the point that comes first. Where the two are unrelated, the overlap is 1 - coverage
    on average.

    Parameters
    ----------
    u, v : array of shape [m]
        Uncertainties of the same points.
    coverage : float
        Fraction of points kept, between 0 and 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the coverage is not between 0 and 1.

    Examples
    --------
    >>> from ntk_uq.distances import rejection_overlap
    >>> rejection_overlap([0.1, 0.2, 0.9, 0.8], [0.1, 0.7, 0.9, 0.2], coverage=0.5)
    0.5
    """
    return float(_overlaps(np.asarray(u)[None], np.asarray(v)[None], coverage)[0])


@dataclass(frozen=True)
class Estimate:
    """A quantity that compares two methods, and what Monte-Carlo error makes of it.

    Attributes
    ----------
    value : float
        The estimate.
    se : float
        Its Monte-Carlo standard error, from the finite number of draws of both methods. The test
        points count as given: how the value varies over other test points is not in it.
    noise : float
        The value to expect if both methods had the same distribution and differed by Monte-Carlo
        error only: less where their draws share random numbers.
    moves : {"up", "down", "either"}
        Where a difference moves the value from `noise`.

    Examples
    --------
    >>> from ntk_uq.distances import Estimate
    >>> Estimate(value=0.05, se=0.01, noise=0.02).is_significant
    True
    """

    value: float
    se: float
    noise: float
    moves: Literal["up", "down", "either"] = "up"

    @property
    def is_significant(self) -> bool:
        """Whether the value is further from `noise` than two standard errors, and than rounding."""
        excess = self.value - self.noise
        if self.moves == "either":
            excess = abs(excess)
        rounding = 100 * _ROUNDING * max(abs(self.value), abs(self.noise))
        return (-excess if self.moves == "down" else excess) > 2 * self.se + rounding


_UNKNOWN = Estimate(np.nan, np.nan, np.nan)


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


class Draws:
    """A prediction as the distances need it: computed once, for every pair that it is part of.

    Parameters
    ----------
    prediction : GaussianPrediction or SamplePrediction
        At the m test points.
    functions : GaussianPrediction or SamplePrediction, optional
        Jointly over some of the test points, the same for all methods.
    seed : int
        Of the draws from a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import SamplePrediction
    >>> Draws(SamplePrediction(np.zeros((2, 1, 4)))).proba
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    def __init__(self, prediction: Prediction, functions: Prediction | None = None, seed: int = 0):
        self.prediction = prediction
        self._functions = functions
        self._seed = seed
        self._known: dict[tuple[str, tuple[int, ...]], Any] = {}

    @cached_property
    def proba(self) -> Floats:
        """Mean class probabilities: [m, C]."""
        return self.prediction.proba()

    @cached_property
    def mcse(self) -> Floats:
        """Their standard errors."""
        return self.prediction.proba_mcse()

    @property
    def is_classifier(self) -> bool:
        """Whether there are class probabilities."""
        return isinstance(self.prediction.likelihood, Categorical)

    @cached_property
    def effective_draws(self) -> float:
        """Independent draws that would give the same standard errors of the response.

        Over all points and classes: sum of the variances over sum of the squared standard errors.
        """
        prediction, n_draws = self.prediction, self.prediction._n_latents
        if n_draws < 2:
            return np.nan
        if isinstance(prediction, SamplePrediction) and prediction.n_chains is None:
            return float(n_draws)
        batches = self.batches
        means, _, squares = self.response(batches)
        mean = np.tensordot(batches.weights, means, axes=1)
        variance = (squares - mean**2).sum() * n_draws / (n_draws - 1)
        error = (standard_error(batches, means) ** 2).sum()
        return float(variance / error) if error > 0 else np.nan

    @cached_property
    def basis(self) -> Floats:
        """Orthonormal basis [C, d] of what the likelihood sees of the latents."""
        outputs = self.prediction.mean.shape[1]
        return helmert(outputs).T if self.is_classifier else np.eye(outputs)

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean [k, d] and covariance [k, d, d] of the latents in `basis`, at `_moment_points`."""
        basis, points = self.basis, self._moment_points
        return self.prediction.mean[points] @ basis, basis.T @ self.prediction.cov[points] @ basis

    @property
    def _moment_points(self) -> slice:
        m, outputs = self.prediction.mean.shape
        return slice(None, None, -(-m * outputs**2 // _MOST_MOMENTS))

    @cached_property
    def functions(self) -> tuple[SamplePrediction, int] | None:
        """Draws of functions, [S, 1, D] in `basis`, and of how many draws of a chain each is one.

        Of very many, the first.
        """
        prediction, every = self._functions, 1
        if isinstance(prediction, GaussianPrediction) and (
            prediction.joint_cov is not None or not prediction.cov.any()
        ):
            samples = prediction.sample(jax.random.key(self._seed), _FUNCTION_DRAWS)
            prediction = SamplePrediction(samples, joint=True)
        if not (isinstance(prediction, SamplePrediction) and prediction.joint):
            return None
        samples, n_chains = prediction.samples, prediction.n_chains
        if n_chains is None:
            samples = samples[:_MOST_FUNCTION_DRAWS]
        else:  # neighbours in a chain say much the same
            every = -(-len(samples) // _MOST_FUNCTION_DRAWS)
            samples = samples.reshape(n_chains, -1, *samples.shape[1:])[:, ::every]
        samples = samples.reshape(-1, *prediction.mean.shape) @ self.basis
        samples = samples.reshape(len(samples), 1, -1)
        return SamplePrediction(samples, Gaussian(1.0), n_chains=n_chains), every

    @cached_property
    def batches(self) -> Batches:
        """Independent batches of the draws, so few that means over them can be held."""
        return _own_batches(self.prediction, self.most_batches)

    @property
    def most_batches(self) -> int:
        """Batches whose means can be held."""
        return max(_FEWEST, min(_BATCHES, _LARGEST // self.prediction.mean.size))

    def response(self, batches: Batches) -> tuple[Floats, Floats, Floats]:
        """Batch means of the response p [G, m, C] and of its entropy [G, m]; mean of p^2 [m, C].

        For a regressor p is the function, and its square [G, m, C] takes the entropy's place.
        """
        return self._once("response", batches, self._response)

    def deviations(self, batches: Batches) -> tuple[Floats, Floats]:
        """Batch means of deviations from the mean, [G, k, d], and of their products, [.., d, d]."""
        return self._once("deviations", batches, self._deviations)

    def _once(self, name: str, batches: Batches, function: Callable[[Batches], Any]) -> Any:
        """What a function gives for batches of these draws, whatever they are called."""
        key = name, batches.starts
        if key not in self._known:
            self._known[key] = function(batches)
        return self._known[key]

    def _response(self, batches: Batches) -> tuple[Floats, Floats, Floats]:
        parts = []
        for points in self.prediction._chunks:
            p = _response(self.prediction.likelihood, self.prediction._latents(points))
            other = entr(p).sum(axis=-1) if self.is_classifier else p**2
            parts.append((batches.means(p), batches.means(other), (p**2).mean(axis=0)[None]))
        means, other, squares = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return means, other, squares[0]

    def _deviations(self, batches: Batches) -> tuple[Floats, Floats]:
        mean, _ = self.moments
        points = np.arange(len(self.prediction.mean))[self._moment_points]
        first, second = [], []
        step = max(1, _CHUNK // (self.prediction._n_latents * mean.shape[1] ** 2))
        for start in range(0, len(points), step):
            chunk = points[start : start + step]
            latents = self.prediction._latents(slice(chunk[0], chunk[-1] + 1))
            latents = latents[:, chunk - chunk[0]]
            z = latents @ self.basis - mean[start : start + step]
            first.append(batches.means(z))
            second.append(batches.means(z[..., :, None] * z[..., None, :]))
        return np.concatenate(first, axis=1), np.concatenate(second, axis=1)

    def uncertainty(
        self, batches: Batches | None = None, levels: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Total and epistemic uncertainty by bootstrap over batches: [1 + resamples, m] each.

        The first row is the estimate. For a regressor they are standard deviations, with and
        without observation noise. Levels [resamples, L] are uniform random numbers; batches take
        theirs by their labels.
        """
        batches = self.batches if batches is None else batches
        levels = _bootstrap_levels(batches) if levels is None else levels
        weights = _bootstrap_weights(batches, levels)
        m, outputs = self.prediction.mean.shape
        step = max(1, _CHUNK // (len(weights) * outputs))
        parts = [
            self._resampled(slice(start, start + step), batches, weights)
            for start in range(0, m, step)
        ]
        total, epistemic = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return total, epistemic

    def _resampled(self, points: slice, batches: Batches, weights: Floats) -> tuple[Floats, Floats]:
        means, other = (values[:, points] for values in self.response(batches)[:2])
        mean, of_other = (np.tensordot(weights, x, axes=1) for x in (means, other))
        if self.is_classifier:
            total = entr(mean).sum(axis=-1)
            return total, np.maximum(total - of_other, 0.0)
        variance = np.maximum(of_other - mean**2, 0.0)
        noise = np.square(getattr(self.prediction.likelihood, "noise", 0.0))
        return np.sqrt((variance + noise).sum(axis=-1)), np.sqrt(variance.sum(axis=-1))


def _bootstrap_levels(*batches: Batches) -> Floats:
    """Uniform random numbers for every label: [resamples, L]."""
    n_labels = 1 + max(max(one.labels) for one in batches)
    return np.random.default_rng(0).uniform(size=(_RESAMPLES, n_labels))


def _bootstrap_weights(batches: Batches, levels: Floats) -> Floats:
    """Weights of batches [1 + resamples, G]: row 0 as they are, others for the Bayesian bootstrap.

    Gamma variables in place of counts, so that batches of two methods with one label have weights
    that go together, whatever the number of batches. Their shape makes the variance of a mean
    unbiased.
    """
    shape = max(1 - 2 * np.sum(batches.weights**2), 0.05)
    random = np.maximum(gamma.ppf(levels[:, list(batches.labels)], shape), _TINY)
    weights = batches.weights * np.concatenate([np.ones((1, len(batches.starts))), random])
    return weights / weights.sum(axis=1, keepdims=True)


def _own_batches(prediction: Prediction, most: int) -> Batches:
    """Independent batches of a prediction's draws, no more than `most` where that can be helped."""
    if isinstance(prediction, GaussianPrediction):
        return prediction._batches
    if prediction.n_chains is None:
        return _of_independent(len(prediction.samples), len(prediction.samples), most)
    size = _chain_batch(prediction, most)
    return _of_chains(prediction, size, -(-prediction._chain_length // size))


def _paired_batches(
    first: Prediction, second: Prediction, most: int, aligned: bool = True
) -> tuple[Batches, Batches]:
    """Batches of the draws of two methods, with one label where draws may depend on each other.

    With one seed, those are draws of one index, as far as both go; of chains, those of one chain
    and time (`aligned`: of which as many were left out); of Gaussians, the same nodes. Draws of
    different kinds have nothing to do with one another.
    """
    own, other = _own_batches(first, most), _own_batches(second, most)
    if isinstance(first, SamplePrediction) and isinstance(second, SamplePrediction):
        if first.n_chains is None and second.n_chains is None:
            n, m = len(first.samples), len(second.samples)
            return _of_independent(n, m, most), _of_independent(m, n, most)
        if first.n_chains is not None and second.n_chains is not None and aligned:
            size = max(_chain_batch(chains, most) for chains in (first, second))
            per_chain = -(-max(first._chain_length, second._chain_length) // size)
            pair = _of_chains(first, size, per_chain), _of_chains(second, size, per_chain)
            # What is long enough for the slower one may leave the other, shorter, too few.
            if all(
                len(found.starts) >= min(_FEWEST_BATCHES, len(alone.starts))
                for found, alone in zip(pair, (own, other), strict=True)
            ):
                return pair
    elif type(first) is type(second):
        return own, other
    return own, replace(other, labels=tuple(len(own.labels) + label for label in other.labels))


def _of_independent(n: int, shared: int, most: int) -> Batches:
    """Batches of n draws, the first of which hold those shared with a method of so many."""
    shared = min(n, shared)
    starts = [*range(0, shared, -(-shared // most))]
    if n > shared:
        starts += range(shared, n, -(-(n - shared) // most))
    return Batches(tuple(starts), n, tuple(range(len(starts))))


def _chain_batch(chains: SamplePrediction, most: int) -> int:
    """Draws in a batch of a chain, no fewer than its autocorrelation asks for."""
    per_chain = max(most // (chains.n_chains or 1), 1)
    return max(chains._batch_size, -(-chains._chain_length // per_chain))


def _of_chains(chains: SamplePrediction, size: int, labels_per_chain: int) -> Batches:
    batches = Batches.of(chains.n_chains or 1, chains._chain_length, size)
    chain, time = np.divmod(batches.starts, chains._chain_length)
    return replace(batches, labels=tuple((chain * labels_per_chain + time // size).tolist()))


class _Pair:
    """Two methods, in batches that go together; either's contributions to an error are added."""

    def __init__(self, first: Draws, second: Draws):
        self.draws = first, second
        self.batches = _paired_batches(first.prediction, second.prediction, first.most_batches)

    @cached_property
    def uncertainties(self) -> list[tuple[Floats, Floats]]:
        """Total and epistemic uncertainty of either, by the bootstrap: [1 + resamples, m] each."""
        levels = _bootstrap_levels(*self.batches)
        return [
            draws.uncertainty(batches, levels)
            for draws, batches in zip(self.draws, self.batches, strict=True)
        ]

    @property
    def probabilities(self) -> tuple[Floats, Floats]:
        """Mean class probabilities of either: [m, C]."""
        first, second = self.draws
        return first.proba, second.proba

    @cached_property
    def scale(self) -> Floats:
        """Standard error of the difference of class probabilities: [m, C]."""
        p, q = self._responses
        return np.sqrt(squared_error((self.batches[0], p), (self.batches[1], -q)))

    def error_of_mean(self, *slopes: Floats) -> float:
        """Standard error of the mean over points of slope . p + slope . q, for slopes [m, C]."""
        terms = [
            (batches, np.einsum("gmc,mc->g", means, slope))
            for batches, means, slope in zip(self.batches, self._responses, slopes, strict=True)
        ]
        return float(np.sqrt(squared_error(*terms)) / len(slopes[0]))

    @property
    def _responses(self) -> list[Floats]:
        return [
            draws.response(batches)[0]
            for draws, batches in zip(self.draws, self.batches, strict=True)
        ]

    @property
    def _sampled(self) -> list[tuple[float, Batches, Floats, Floats]]:
        """Sign, batches, deviations and products of those whose moments are not known."""
        return [
            (sign, batches, *draws.deviations(batches))
            for sign, draws, batches in zip((1, -1), self.draws, self.batches, strict=True)
            if isinstance(draws.prediction, SamplePrediction)
        ]

    def moment_error(self, shift: Floats, curvatures: tuple[Floats, Floats]) -> float:
        """Standard error of the mean over points of shift . (z_a - z_b) + sum z^T curvature z."""
        terms = [
            (
                batches,
                sign * np.einsum("gkc,kc->g", first, shift)
                + np.einsum("gkcd,kcd->g", second, curvatures[0 if sign > 0 else 1]),
            )
            for sign, batches, first, second in self._sampled
        ]
        return float(np.sqrt(squared_error(*terms)) / len(shift)) if terms else 0.0

    @property
    def moment_noise(self) -> float:
        r"""Mean over the points of the squared distance between estimates of the same moments.

        With the errors d of the mean and D of the covariance, whose eigenvalues are l, it is
        :math:`\|d\|^2 + \sum_{ij} D_{ij}^2 / (2 (l_i + l_j))` to second order.
        """
        if not self._sampled:
            return 0.0
        first, second = self.draws
        cov = 0.5 * (first.moments[1] + second.moments[1])
        eigenvalues, vectors = np.linalg.eigh(cov)
        scale = eigenvalues[..., :, None] + eigenvalues[..., None, :]
        # A direction without spread has no error either.
        inverse = np.divide(0.5, scale, out=np.zeros_like(scale), where=scale > 0)
        transposed = vectors.swapaxes(-2, -1)
        means = squared_error(*((b, sign * z) for sign, b, z, _ in self._sampled))
        covs = squared_error(
            *(
                (b, sign * (transposed @ products @ vectors))
                for sign, b, _, products in self._sampled
            )
        )
        return float(np.sum(means) + np.sum(covs * inverse)) / len(cov)


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
    pair = _Pair(first, second)
    ratio, inverse = _epistemic_ratios(pair)
    kl, reverse = _kls(pair) if first.is_classifier else (_UNKNOWN, _UNKNOWN)
    forward = Distance(
        tv=_total_variation(pair) if first.is_classifier else _UNKNOWN,
        kl=kl,
        bures_wasserstein=_bures_wasserstein(pair),
        energy=_energy_estimate(first, second),
        epistemic_ratio=ratio,
        rank_correlation=_ranked(pair, 1, _rank_correlations),
        rejected_20=_ranked(pair, 0, lambda u, v: _overlaps(u, v, 0.8)),
        rejected_10=_ranked(pair, 0, lambda u, v: _overlaps(u, v, 0.9)),
    )
    backward = replace(forward, kl=reverse, epistemic_ratio=inverse)
    return forward, backward


def _total_variation(pair: _Pair) -> Estimate:
    """Half-normal noise, and a sign that counts as far as it is known: docs/theory."""
    p, q = pair.probabilities
    # A prediction without error has scale 0: the sign of the difference is then known.
    mean_sign = erf((p - q) / (np.sqrt(2) * np.maximum(pair.scale, _TINY)))
    return Estimate(
        value=_distance(total_variation(p, q).mean()),
        se=pair.error_of_mean(0.5 * mean_sign, -0.5 * mean_sign),
        noise=float(0.5 * np.sqrt(2 / np.pi) * pair.scale.sum(axis=1).mean()),
    )


def _kls(pair: _Pair) -> tuple[Estimate, Estimate]:
    """KL(q || p) has the slopes -q / p in p and log(q / p) in q, and the curvature 1 / p."""
    p, q = (np.maximum(proba, _TINY) for proba in pair.probabilities)
    # Of two estimates of the same probabilities, which both know.
    noise = float(0.5 * (pair.scale**2 / (0.5 * (p + q))).sum(axis=1).mean())
    return (
        Estimate(
            _distance(kl_divergence(q, p).mean()),
            pair.error_of_mean(-q / p, np.log(q / p)),
            noise,
        ),
        Estimate(
            _distance(kl_divergence(p, q).mean()),
            pair.error_of_mean(np.log(p / q), -p / q),
            noise,
        ),
    )


def _distance(value: float) -> float:
    """A distance of numbers of order one, without what rounding leaves of zero."""
    return float(value) if abs(value) > _ROUNDING else 0.0


def _bures_wasserstein(pair: _Pair) -> Estimate:
    """W^2 has the slope 2 (mu_a - mu_b) in mu_a and I - T in A, with T the map from a to b."""
    (mean_a, cov_a), (mean_b, cov_b) = (draws.moments for draws in pair.draws)
    if not (np.isfinite(cov_a).all() and np.isfinite(cov_b).all()):
        return _UNKNOWN  # a single draw has no covariance
    square = np.mean(bures_wasserstein(mean_a, cov_a, mean_b, cov_b) ** 2)
    # The difference of traces of which it is made.
    rounding = 10 * np.finfo(np.float64).eps * np.mean(np.trace(cov_a + cov_b, axis1=1, axis2=2))
    value = float(np.sqrt(square)) if square > rounding else 0.0
    identity, shift = np.eye(mean_a.shape[1]), 2 * (mean_a - mean_b)
    curvatures = identity - _optimal_map(cov_a, cov_b), identity - _optimal_map(cov_b, cov_a)
    return Estimate(
        value=value,
        se=pair.moment_error(shift, curvatures) / (2 * value) if value > 0 else 0.0,
        noise=float(np.sqrt(pair.moment_noise)),
    )


def _energy_estimate(first: Draws, second: Draws) -> Estimate:
    """Standard error by linearisation; conservative where there is no difference."""
    if first.functions is None or second.functions is None:
        return _UNKNOWN
    (f, every_f), (g, every_g) = first.functions, second.functions
    batches = _paired_batches(f, g, _BATCHES, aligned=every_f == every_g)
    if min(len(one.starts) for one in batches) < 2:
        return _UNKNOWN
    value, slopes = _energy(f.samples[:, 0], g.samples[:, 0], *batches)
    if min(len(one.starts) for one in batches) < 3:
        return replace(_UNKNOWN, value=value, noise=0.0)
    # Slopes in the weights of batches, which are what a batch adds to the error.
    terms = [(one, slope / one.weights) for one, slope in zip(batches, slopes, strict=True)]
    return Estimate(value, float(np.sqrt(squared_error(*terms))), 0.0)


def _epistemic_ratios(pair: _Pair) -> tuple[Estimate, Estimate]:
    """Ratio of the means and its inverse; few draws make an uncertainty small, which is noise."""
    means = [epistemic.mean(axis=1) for _, epistemic in pair.uncertainties]
    a, b = (mean[0] for mean in means)
    if not (a > 0 and b > 0):  # a method without uncertainty is known to have none
        nothing = Estimate(0.0, 0.0, 1.0, "either")
        unknown = replace(_UNKNOWN, moves="either")
        return nothing if b > 0 else unknown, nothing if a > 0 else unknown
    relative = [mean[1:] / mean[0] for mean in means]
    spread = np.std(relative[0] - relative[1], ddof=1)
    shrinkage_a, shrinkage_b = (resampled.mean() for resampled in relative)
    return (
        Estimate(a / b, a / b * spread, shrinkage_a / shrinkage_b, "either"),
        Estimate(b / a, b / a * spread, shrinkage_b / shrinkage_a, "either"),
    )


def _ranked(pair: _Pair, which: int, compare: Callable[[Floats, Floats], Floats]) -> Estimate:
    """A comparison of ranks, by the bootstrap.

    To find what noise alone would give, errors of either method, relative to its estimates, are
    put on the estimates of the other, whose own resamples are the second of the two.
    """
    u, v = (uncertainties[which] for uncertainties in pair.uncertainties)
    value = float(compare(u[:1], v[:1])[0])
    resampled = compare(u[1:], v[1:])
    relative_u, relative_v = (x[1:] / np.maximum(x[0], _TINY) for x in (u, v))
    noise = [compare(u[1:], u[0] * relative_v), compare(v[0] * relative_u, v[1:])]
    return Estimate(value, float(np.std(resampled, ddof=1)), float(np.mean(noise)), "down")


def _rank_correlations(u: Floats, v: Floats) -> Floats:
    """Spearman's rank correlation, row by row."""
    ranks = [rankdata(x, axis=1) for x in (u, v)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / scale


def _overlaps(u: Floats, v: Floats, coverage: float) -> Floats:
    """Common fraction of the rejected points, row by row."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}.")
    m = u.shape[1]
    n = int(np.ceil(round((1 - coverage) * m, 9)))
    rejected = [np.zeros(u.shape, bool), np.zeros(v.shape, bool)]
    for x, mask in zip((u, v), rejected, strict=True):
        np.put_along_axis(mask, np.argsort(-x, axis=1, kind="stable")[:, :n], True, axis=1)
    return (rejected[0] & rejected[1]).sum(axis=1) / n


def _energy(
    a: Floats, b: Floats, batches_a: Batches, batches_b: Batches
) -> tuple[float, tuple[Floats, Floats]]:
    """Normalised energy distance of draws [S, D] and [T, D], and its slopes.

    Draws of batches with one label are not paired. The slopes are the changes as the share of a
    batch grows, of either side.
    """
    draws = np.concatenate([a, b])
    draws = draws - draws.mean(axis=0)  # what all share would be lost to rounding
    squares = (draws**2).sum(axis=1)
    gram = draws @ draws.T
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0.0))
    edges = np.concatenate([batches_a.starts, np.add(len(a), batches_b.starts)]).astype(int)
    sums = np.add.reduceat(np.add.reduceat(distance, edges, axis=0), edges, axis=1)
    sizes = np.concatenate([batches_a.sizes, batches_b.sizes])
    labels = np.array(batches_a.labels + batches_b.labels)
    paired = labels[:, None] != labels
    counts, sums = paired * np.outer(sizes, sizes), paired * sums
    first, second = slice(None, len(batches_a.starts)), slice(len(batches_a.starts), None)

    def mean(rows: slice, columns: slice) -> tuple[float, Floats, Floats]:
        """Mean distance, and its slopes in the shares of batches of rows and of columns."""
        total, number = sums[rows, columns], counts[rows, columns]
        average = total.sum() / number.sum()
        excess = (total - average * number) / number.sum()
        return float(average), excess.sum(axis=1), excess.sum(axis=0)

    across, *slopes = mean(first, second)
    if across == 0:
        return 0.0, (np.zeros_like(slopes[0]), np.zeros_like(slopes[1]))
    within = [mean(side, side) for side in (first, second)]
    ratio = sum(average for average, *_ in within) / (2 * across)
    found = [
        (ratio * slope - 0.5 * (rows + columns)) / across
        for slope, (_, rows, columns) in zip(slopes, within, strict=True)
    ]
    return _distance(1 - ratio), (found[0], found[1])


def _root(cov: Floats) -> Floats:
    """Symmetric square root of covariances [..., d, d], singular ones included."""
    return _power(cov, 0.5)


def _power(cov: Floats, exponent: float) -> Floats:
    """Symmetric power of covariances [..., d, d], on their range."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    # What rounding leaves of a zero is of this size.
    floor = eigenvalues[..., -1:] * cov.shape[-1] * np.finfo(np.float64).eps
    on_range = eigenvalues > np.maximum(floor, 0.0)
    powers = np.where(on_range, np.where(on_range, eigenvalues, 1.0) ** exponent, 0.0)
    return (vectors * powers[..., None, :]) @ vectors.swapaxes(-2, -1)


def _optimal_map(cov_a: Floats, cov_b: Floats) -> Floats:
    """T with T A T = B: A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2."""
    root, inverse = _power(cov_a, 0.5), _power(cov_a, -0.5)
    return inverse @ _root(root @ cov_b @ root) @ inverse

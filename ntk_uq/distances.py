r"""Distances between two predictive distributions, and what Monte-Carlo error makes of them.

The first half takes arrays: `kl_divergence`, `bures_wasserstein`, `energy_distance`,
`rank_correlation`, `rejection_overlap` (total variation is in `ntk_uq.metrics`). The second half
takes two predictions and returns an `Estimate`: the distance, its standard error from the finite
number of draws of both, and the value that this error alone would give. Draws of Markov chains are
first averaged in contiguous batches, so that autocorrelation is counted. docs/theory: "Distance
between two predictions".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import helmert
from scipy.special import entr, erf, rel_entr
from scipy.stats import rankdata

from ntk_uq.likelihoods import Categorical
from ntk_uq.metrics import total_variation
from ntk_uq.predictions import GaussianPrediction, SamplePrediction, _response

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
_BATCHES, _FEWEST_BATCHES, _LARGEST = 100, 20, 2**24
# Resamples of the bootstrap, which know a standard error as well.
_RESAMPLES = 100
# Batches that the jackknife of the energy distance leaves out, one after the other.
_JACKKNIFE_BATCHES = 40
# Draws of a Gaussian for the energy distance, and the most of any method's.
_FUNCTION_DRAWS, _MOST_FUNCTION_DRAWS = 512, 2000
# Entries of covariances (points times outputs squared) from which latents are compared.
_MOST_MOMENTS = 100_000
# Numbers held at once: 2**22 doubles are 32 MiB.
_CHUNK = 2**22
_TINY = np.finfo(np.float64).tiny


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


def energy_distance(a: ArrayLike, b: ArrayLike, *, batches: tuple[int, int] | None = None) -> float:
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
    sums, counts, n = _batch_distances(
        a.reshape(len(a), -1), b.reshape(len(b), -1), batches or (len(a), len(b))
    )
    return _energy(sums, counts, n, np.ones(len(sums)))


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
        error only.
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
        """Whether the value is further from `noise` than two standard errors."""
        excess = self.value - self.noise
        if self.moves == "either":
            excess = abs(excess)
        return (-excess if self.moves == "down" else excess) > 2 * self.se


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
        Of the bootstrap and the draws from a Gaussian.

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
        means, squares = self._response[0], self._response[2]
        variance = (squares - means.mean(axis=0) ** 2).sum() * n_draws / (n_draws - 1)
        error = (_standard_error(means) ** 2).sum()
        return float(variance / error) if error > 0 else np.nan

    @cached_property
    def basis(self) -> Floats:
        """Orthonormal basis [C, d] of what the likelihood sees of the latents."""
        outputs = self.prediction.mean.shape[1]
        return helmert(outputs).T if self.is_classifier else np.eye(outputs)

    def error_of_mean(self, slope: Floats) -> float:
        """Standard error of the mean over points of slope . p, for slopes [m, C]."""
        means = self._response[0]
        return float(_standard_error(np.einsum("gmc,mc->g", means, slope))) / len(slope)

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
    def _moment_batches(self) -> tuple[Floats, Floats]:
        """Batch means of deviations from the mean, [G, k, d], and of their products, [.., d, d]."""
        mean, _ = self.moments
        points = np.arange(len(self.prediction.mean))[self._moment_points]
        first, second = [], []
        step = max(1, _CHUNK // (self.prediction._n_latents * mean.shape[1] ** 2))
        for start in range(0, len(points), step):
            chunk = points[start : start + step]
            latents = self.prediction._latents(slice(chunk[0], chunk[-1] + 1))
            latents = latents[:, chunk - chunk[0]]
            z = latents @ self.basis - mean[start : start + step]
            first.append(self._batch_means(z))
            second.append(self._batch_means(z[..., :, None] * z[..., None, :]))
        return np.concatenate(first, axis=1), np.concatenate(second, axis=1)

    @cached_property
    def moment_noise(self) -> float:
        r"""Mean over the points of the squared distance of estimated from true moments.

        With the errors d of the mean and D of the covariance, whose eigenvalues are l, it is
        :math:`\|d\|^2 + \sum_{ij} D_{ij}^2 / (2 (l_i + l_j))` to second order.
        """
        if isinstance(self.prediction, GaussianPrediction):
            return 0.0
        _, cov = self.moments
        eigenvalues, vectors = np.linalg.eigh(cov)
        scale = eigenvalues[..., :, None] + eigenvalues[..., None, :]
        # A direction without spread has no error either.
        inverse = np.divide(0.5, scale, out=np.zeros_like(scale), where=scale > 0)
        first, second = self._moment_batches
        rotated = vectors.swapaxes(-2, -1) @ second @ vectors
        total = np.sum(_standard_error(first) ** 2)
        return float(total + np.sum(_standard_error(rotated) ** 2 * inverse)) / len(cov)

    def moment_error(self, slope: Floats, curvature: Floats) -> float:
        """Standard error of the mean over points of slope . z + z^T curvature z."""
        if isinstance(self.prediction, GaussianPrediction):
            return 0.0
        first, second = self._moment_batches
        share = np.einsum("gkc,kc->g", first, slope) + np.einsum("gkcd,kcd->g", second, curvature)
        return float(_standard_error(share)) / len(slope)

    @cached_property
    def functions(self) -> tuple[Floats, int] | None:
        """Function draws [S, D] in `basis`, and the number of their independent batches."""
        prediction, chains = self._functions, 1
        if isinstance(prediction, GaussianPrediction) and (
            prediction.joint_cov is not None or not prediction.cov.any()
        ):
            samples = prediction.sample(jax.random.key(self._seed), _FUNCTION_DRAWS)
        elif isinstance(prediction, SamplePrediction) and prediction.joint:
            samples = prediction.samples
            chains = prediction.n_chains or 1
        else:
            return None
        # Of long chains every k-th draw: neighbours say much the same.
        samples = samples[:: -(-len(samples) // _MOST_FUNCTION_DRAWS)] @ self.basis
        batches = min(_JACKKNIFE_BATCHES, len(samples))
        return samples.reshape(len(samples), -1), max(chains, batches - batches % chains)

    @cached_property
    def uncertainty(self) -> tuple[Floats, Floats]:
        """Total and epistemic uncertainty by bootstrap over batches: [1 + resamples, m] each.

        The first row is the estimate. For a regressor they are standard deviations, with and
        without observation noise.
        """
        weights = self._bootstrap_weights()
        m, outputs = self.prediction.mean.shape
        step = max(1, _CHUNK // (len(weights) * outputs))
        parts = [
            self._resampled(slice(start, start + step), weights) for start in range(0, m, step)
        ]
        total, epistemic = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return total, epistemic

    def _resampled(self, points: slice, weights: Floats) -> tuple[Floats, Floats]:
        means, other = (batches[:, points] for batches in self._response[:2])
        mean, of_other = (np.tensordot(weights, x, axes=1) for x in (means, other))
        if self.is_classifier:
            total = entr(mean).sum(axis=-1)
            return total, np.maximum(total - of_other, 0.0)
        variance = np.maximum(of_other - mean**2, 0.0)
        noise = np.square(getattr(self.prediction.likelihood, "noise", 0.0))
        return np.sqrt((variance + noise).sum(axis=-1)), np.sqrt(variance.sum(axis=-1))

    @cached_property
    def _response(self) -> tuple[Floats, Floats, Floats]:
        """Batch means of the response p [G, m, C] and of its entropy [G, m]; mean of p^2 [m, C].

        For a regressor p is the function, and its square [G, m, C] takes the entropy's place.
        """
        m, outputs = self.prediction.mean.shape
        step = max(1, _CHUNK // (self.prediction._n_latents * outputs))
        parts = []
        for start in range(0, m, step):
            latents = self.prediction._latents(slice(start, start + step))
            p = _response(self.prediction.likelihood, latents)
            other = entr(p).sum(axis=-1) if self.is_classifier else p**2
            parts.append(
                (self._batch_means(p), self._batch_means(other), (p**2).mean(axis=0)[None])
            )
        means, other, squares = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return means, other, squares[0]

    def _bootstrap_weights(self) -> Floats:
        """Row 0 is the estimate itself; others resample batches."""
        sizes = np.diff(self._edges, append=self._n_replicates).astype(float)
        n, rng = len(sizes), np.random.default_rng(self._seed)
        counts = np.concatenate(
            [np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)]
        )
        return counts * sizes / (counts @ sizes)[:, None]

    def _batch_means(self, values: Floats) -> Floats:
        """Means over independent batches of draws, of nearly one size: [G, ...]."""
        replicates = self.prediction._replicates(values)
        sums = np.add.reduceat(replicates, self._edges, axis=0)
        sizes = np.diff(self._edges, append=self._n_replicates)
        return sums / sizes.reshape(-1, *(1,) * (values.ndim - 1))

    @cached_property
    def _edges(self) -> NDArray[np.intp]:
        """Where batches of replicates begin."""
        most = max(_FEWEST_BATCHES, min(_BATCHES, _LARGEST // self.prediction.mean.size))
        n = min(self._n_replicates, most)
        return np.linspace(0, self._n_replicates, n, endpoint=False).astype(int)

    @cached_property
    def _n_replicates(self) -> int:
        return len(self.prediction._replicates(np.zeros(self.prediction._n_latents)))


def _standard_error(means: Floats) -> Floats:
    """Standard error of the mean of independent batches [G, ...]; NaN for one."""
    if len(means) < 2:
        return np.full(means.shape[1:], np.nan)
    return means.std(axis=0, ddof=1) / np.sqrt(len(means))


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
    ratio, inverse = _epistemic_ratios(first, second)
    forward = Distance(
        tv=_total_variation(first, second) if first.is_classifier else _UNKNOWN,
        kl=_kl(first, second) if first.is_classifier else _UNKNOWN,
        bures_wasserstein=_bures_wasserstein(first, second),
        energy=_energy_estimate(first, second),
        epistemic_ratio=ratio,
        rank_correlation=_ranked(first, second, 1, _rank_correlations),
        rejected_20=_ranked(first, second, 0, lambda u, v: _overlaps(u, v, 0.8)),
        rejected_10=_ranked(first, second, 0, lambda u, v: _overlaps(u, v, 0.9)),
    )
    backward = replace(
        forward,
        kl=_kl(second, first) if first.is_classifier else _UNKNOWN,
        epistemic_ratio=inverse,
    )
    return forward, backward


def _total_variation(first: Draws, second: Draws) -> Estimate:
    """Half-normal noise, and a sign that counts as far as it is known: docs/theory."""
    p, q = first.proba, second.proba
    scale = np.hypot(first.mcse, second.mcse)
    # A prediction without error has scale 0: the sign of the difference is then known.
    mean_sign = erf((p - q) / (np.sqrt(2) * np.maximum(scale, _TINY)))

    errors = first.error_of_mean(0.5 * mean_sign), second.error_of_mean(0.5 * mean_sign)
    return Estimate(
        value=float(total_variation(p, q).mean()),
        se=float(np.hypot(*errors)),
        noise=float(0.5 * np.sqrt(2 / np.pi) * scale.sum(axis=1).mean()),
    )


def _kl(first: Draws, second: Draws) -> Estimate:
    """KL(q || p) has the slopes -q / p in p and log(q / p) in q, and the curvature 1 / p."""
    p, q = np.maximum(first.proba, _TINY), np.maximum(second.proba, _TINY)

    errors = first.error_of_mean(-q / p), second.error_of_mean(np.log(q / p))
    # Of two estimates of the same probabilities, which both know.
    mean = 0.5 * (p + q)
    return Estimate(
        value=float(kl_divergence(second.proba, first.proba).mean()),
        se=float(np.hypot(*errors)),
        noise=float(0.5 * ((first.mcse**2 + second.mcse**2) / mean).sum(axis=1).mean()),
    )


def _bures_wasserstein(first: Draws, second: Draws) -> Estimate:
    """W^2 has the slope 2 (mu_a - mu_b) in mu_a and I - T in A, with T the map from a to b."""
    (mean_a, cov_a), (mean_b, cov_b) = first.moments, second.moments
    if not (np.isfinite(cov_a).all() and np.isfinite(cov_b).all()):
        return _UNKNOWN  # a single draw has no covariance
    value = np.sqrt(np.mean(bures_wasserstein(mean_a, cov_a, mean_b, cov_b) ** 2))
    identity, shift = np.eye(mean_a.shape[1]), 2 * (mean_a - mean_b)
    errors = (
        first.moment_error(shift, identity - _optimal_map(cov_a, cov_b)),
        second.moment_error(-shift, identity - _optimal_map(cov_b, cov_a)),
    )
    return Estimate(
        value=float(value),
        se=float(np.hypot(*errors) / (2 * value)) if value > 0 else 0.0,
        noise=float(np.sqrt(first.moment_noise + second.moment_noise)),
    )


def _energy_estimate(first: Draws, second: Draws) -> Estimate:
    """Standard error by the jackknife over batches; conservative where there is no difference."""
    if first.functions is None or second.functions is None:
        return _UNKNOWN
    (a, batches_a), (b, batches_b) = first.functions, second.functions
    if min(batches_a, batches_b) < 2:
        return _UNKNOWN
    sums, counts, n = _batch_distances(a, b, (batches_a, batches_b))
    everything = np.ones(len(sums))
    variance = 0.0
    for batches in (np.arange(n), np.arange(n, len(sums))):
        if len(batches) < 3:
            return replace(_UNKNOWN, value=_energy(sums, counts, n, everything), noise=0.0)
        without = [
            _energy(sums, counts, n, np.where(np.arange(len(sums)) == batch, 0.0, 1.0))
            for batch in batches
        ]
        variance += (len(batches) - 1) * np.var(without)
    return Estimate(_energy(sums, counts, n, everything), float(np.sqrt(variance)), 0.0)


def _epistemic_ratios(first: Draws, second: Draws) -> tuple[Estimate, Estimate]:
    """Ratio of the means and its inverse; few draws make an uncertainty small, which is noise."""
    means = [draws.uncertainty[1].mean(axis=1) for draws in (first, second)]
    a, b = (mean[0] for mean in means)
    if not (a > 0 and b > 0):  # a method without uncertainty is known to have none
        nothing = Estimate(0.0, 0.0, 1.0, "either")
        unknown = replace(_UNKNOWN, moves="either")
        return nothing if b > 0 else unknown, nothing if a > 0 else unknown
    shrinkage_a, shrinkage_b = (mean[1:].mean() / mean[0] for mean in means)
    spread_a, spread_b = (mean[1:].std(ddof=1) / mean[0] for mean in means)
    spread = np.hypot(spread_a, spread_b)
    return (
        Estimate(a / b, a / b * spread, shrinkage_a / shrinkage_b, "either"),
        Estimate(b / a, b / a * spread, shrinkage_b / shrinkage_a, "either"),
    )


def _ranked(
    first: Draws, second: Draws, which: int, compare: Callable[[Floats, Floats], Floats]
) -> Estimate:
    """A comparison of ranks, by the bootstrap.

    To find what noise alone would give, errors of either method, relative to its estimates, are
    put on the estimates of the other, whose own resamples are the second of the two.
    """
    u, v = first.uncertainty[which], second.uncertainty[which]
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


def _batch_distances(a: Floats, b: Floats, batches: tuple[int, int]) -> tuple[Floats, Floats, int]:
    """Sums of the distances of draws, and their number, between any two batches.

    The first `n` batches are those of `a`.
    """
    if not all(2 <= k <= len(x) for k, x in zip(batches, (a, b), strict=True)):
        raise ValueError(
            f"The energy distance needs two independent batches of draws of either side; there are "
            f"{len(a)} and {len(b)} draws in {batches[0]} and {batches[1]} batches."
        )
    draws = np.concatenate([a, b])
    draws = draws - draws.mean(axis=0)  # what all share would be lost to rounding
    squares = (draws**2).sum(axis=1)
    gram = draws @ draws.T
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0.0))
    starts = [
        np.linspace(0, len(x), k, endpoint=False).astype(int)
        for k, x in zip(batches, (a, b), strict=True)
    ]
    edges = np.concatenate([starts[0], len(a) + starts[1]])
    sizes = np.diff(edges, append=len(draws)).astype(float)
    sums = np.add.reduceat(np.add.reduceat(distance, edges, axis=0), edges, axis=1)
    return sums, np.outer(sizes, sizes), batches[0]


def _energy(sums: Floats, counts: Floats, n: int, weights: Floats) -> float:
    """Normalised energy distance of weighted batches; draws of one batch are not paired."""
    pairs = np.outer(weights, weights) * (1 - np.eye(len(weights)))

    def mean(rows: slice, columns: slice) -> float:
        block = pairs[rows, columns]
        total = (block * sums[rows, columns]).sum()
        return float(total / (block * counts[rows, columns]).sum())

    first, second = slice(None, n), slice(n, None)
    across = mean(first, second)
    if across == 0:
        return 0.0
    return 1 - (mean(first, first) + mean(second, second)) / (2 * across)


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

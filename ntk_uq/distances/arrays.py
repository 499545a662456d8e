"""Distances between arrays: class probabilities, moments, draws, uncertainties."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from scipy.stats import rankdata

from ntk_uq.distances.estimate import ROUNDING
from ntk_uq.predictions.distributions import Batches

Floats = NDArray[np.float64]


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
    return energy_and_slopes(
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
    return float(rank_correlations(np.asarray(u)[None], np.asarray(v)[None])[0])


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
    return float(rejection_overlaps(np.asarray(u)[None], np.asarray(v)[None], coverage)[0])


def without_rounding(value: float) -> float:
    """A distance of numbers of order one, without what rounding leaves of zero."""
    return float(value) if abs(value) > ROUNDING else 0.0


def rank_correlations(u: Floats, v: Floats) -> Floats:
    """Spearman's rank correlation, row by row."""
    ranks = [rankdata(x, axis=1) for x in (u, v)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / scale


def rejection_overlaps(u: Floats, v: Floats, coverage: float) -> Floats:
    """Common fraction of the rejected points, row by row."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}.")
    m = u.shape[1]
    n = int(np.ceil(round((1 - coverage) * m, 9)))
    rejected = [np.zeros(u.shape, bool), np.zeros(v.shape, bool)]
    for x, mask in zip((u, v), rejected, strict=True):
        np.put_along_axis(mask, np.argsort(-x, axis=1, kind="stable")[:, :n], True, axis=1)
    return (rejected[0] & rejected[1]).sum(axis=1) / n


def energy_and_slopes(
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
    return without_rounding(1 - ratio), (found[0], found[1])


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


def optimal_map(cov_a: Floats, cov_b: Floats) -> Floats:
    """T with T A T = B: A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2."""
    root, inverse = _power(cov_a, 0.5), _power(cov_a, -0.5)
    return inverse @ _root(root @ cov_b @ root) @ inverse

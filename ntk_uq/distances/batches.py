"""Independent batches of draws, those of two methods that go together, and their bootstrap."""

from dataclasses import replace

import numpy as np
from scipy.stats import gamma

from ntk_uq.distances.arrays import Floats
from ntk_uq.predictions.distributions import (
    _FEWEST_BATCHES,
    Batches,
    GaussianPrediction,
    SamplePrediction,
)

Prediction = GaussianPrediction | SamplePrediction
# Resamples of the bootstrap, which know a standard error as well.
_RESAMPLES = 100
TINY = np.finfo(np.float64).tiny


def bootstrap_levels(*batches: Batches) -> Floats:
    """Uniform random numbers for every label: [resamples, L]."""
    n_labels = 1 + max(max(one.labels) for one in batches)
    return np.random.default_rng(0).uniform(size=(_RESAMPLES, n_labels))


def bootstrap_weights(batches: Batches, levels: Floats) -> Floats:
    """Weights of batches [1 + resamples, G]: row 0 as they are, others for the Bayesian bootstrap.

    Gamma variables in place of counts, so that batches of two methods with one label have weights
    that go together, whatever the number of batches. Their shape makes the variance of a mean
    unbiased.
    """
    shape = max(1 - 2 * np.sum(batches.weights**2), 0.05)
    random = np.maximum(gamma.ppf(levels[:, list(batches.labels)], shape), TINY)
    weights = batches.weights * np.concatenate([np.ones((1, len(batches.starts))), random])
    return weights / weights.sum(axis=1, keepdims=True)


def own_batches(prediction: Prediction, most: int) -> Batches:
    """Independent batches of a prediction's draws, no more than `most` where that can be helped."""
    if isinstance(prediction, GaussianPrediction):
        return prediction._batches
    if prediction.n_chains is None:
        return _of_independent(len(prediction.samples), len(prediction.samples), most)
    size = _chain_batch(prediction, most)
    return _of_chains(prediction, size, -(-prediction._chain_length // size))


def paired_batches(
    first: Prediction, second: Prediction, most: int, aligned: bool = True
) -> tuple[Batches, Batches]:
    """Batches of the draws of two methods, with one label where draws may depend on each other.

    With one seed, those are draws of one index, as far as both go; of chains, those of one chain
    and time (`aligned`: of which as many were left out); of Gaussians, the same nodes. Draws of
    different kinds have nothing to do with one another.
    """
    own, other = own_batches(first, most), own_batches(second, most)
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

"""Cross-validated log density, all folds side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.blocks import placed
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import LARGEST_GAP, solve_dual
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.analytic.gaussian import GaussianPredictor, gaussian_predictor
from ntk_uq.likelihoods import Likelihood, Weighted
from ntk_uq.likelihoods.interface import log_densities
from ntk_uq.networks.architecture import Kernels
from ntk_uq.predictions.distributions import GaussianPrediction

__all__ = ["cross_validate"]

Floats = NDArray[np.float64]
# Held-out scores need no more: a thousandth of a posterior standard deviation.
HELD_OUT_TOLERANCE = 1e-6


@own_rules()
def cross_validate(
    kernels: Kernels,
    y: ArrayLike,
    regs: Sequence[float],
    likelihood: Likelihood,
    uncertainties: Sequence[Uncertainty],
    folds: Sequence[NDArray[np.integer]],
    *,
    targets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    give_up: float = np.inf,
    coarsely: bool = False,
    progress: Progress | None = None,
) -> Floats:
    """Log predictive density of held-out points, for every regularisation and uncertainty.

    Kernels of the folds are blocks of the whole. Regularisations are visited from the strongest,
    each mode starting from the last; its curvature then serves every uncertainty, by the Gaussian
    predictor. "none" alone needs no curvature, and is many times faster.

    Parameters
    ----------
    kernels : Kernels
        NNGP kernel and NTK of the points, [n, n].
    y : array of shape [n, C]
        Targets to predict.
    regs : sequence of R floats
        Regularisations, > 0.
    likelihood : Likelihood
        Observation model.
    uncertainties : sequence of U strings
        As in `analytic.gaussian_predictor`.
    folds : sequence of integer arrays
        Points that are held out, fold by fold.
    targets : array of shape [n, C], optional
        Targets to train on, where these differ, as smoothed labels do.
    weights : array of shape [n], optional
        How much each point counts in training, > 0. Scores are of points, unweighted.
    give_up : float, default inf
        Weaker regularisations, which take longest, are not tried where of "none" alone the mean
        score has twice in a row been so far below the best, in nats.
    coarsely : bool, default False
        Of "none" alone: every second regularisation, and those next to the best of them.
    progress : callable, optional
        ``progress(done, total)`` is told solutions.

    Returns
    -------
    array of shape [R, U, n]
        Log predictive density of each point when it was held out, in nats; NaN where a point is in
        no fold, where `give_up` or `coarsely` left a regularisation out, or where latents may be
        off by a hundredth of a posterior standard deviation, because the problem is too
        ill-conditioned for double precision.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import Categorical, Kernels
    >>> kernels, y = Kernels(np.eye(4), np.eye(4) + 1), np.eye(2)[[0, 1, 0, 1]]
    >>> folds = np.array([0, 1]), np.array([2, 3])
    >>> with jax.enable_x64(True):
    ...     scores = cross_validate(kernels, y, [0.1, 1.0], Categorical(), ["none"], folds)
    >>> scores.shape
    (2, 1, 4)
    """
    y = np.asarray(y)
    targets = y if targets is None else np.asarray(targets)
    if set(uncertainties) == {"none"}:
        return _cross_validate_mode(
            kernels.ntk, y, regs, likelihood, folds, targets, weights, give_up, coarsely, progress
        )
    scores = np.full((len(regs), len(uncertainties), len(y)), np.nan)
    order = np.argsort(regs)[::-1]
    done, total = 0, len(regs) * len(folds)
    for train, held_out in _of_one_size(len(y), folds):
        inner = Kernels(*(jnp.asarray(k[np.ix_(train, train)]) for k in kernels))
        cross = Kernels(*(jnp.asarray(k[np.ix_(held_out, train)]) for k in kernels))
        diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernels))
        loss = likelihood
        if weights is not None:
            loss = Weighted(likelihood, jnp.asarray(np.asarray(weights)[train]))
        start = None
        for r in order:
            predictor = gaussian_predictor(
                inner,
                targets[train],
                regs[r],
                loss,
                _widest(uncertainties),
                start=start,
                tol=HELD_OUT_TOLERANCE,
                n_checked=0,
            )
            start = predictor.alpha
            for u, uncertainty in enumerate(uncertainties):
                mean, cov = _moments(predictor, uncertainty, cross, diagonal)
                prediction = GaussianPrediction(np.asarray(mean), np.asarray(cov), likelihood)
                density = prediction.log_density(y[held_out])
                scores[r, u, held_out] = np.where(predictor.gap <= LARGEST_GAP, density, np.nan)
            done += 1
            if progress is not None:
                progress(done, total)
    return scores


def _cross_validate_mode(
    ntk: ArrayLike,
    y: Floats,
    regs: Sequence[float],
    likelihood: Likelihood,
    folds: Sequence[NDArray[np.integer]],
    targets: Floats,
    counts: ArrayLike | None,
    give_up: float,
    coarsely: bool,
    progress: Progress | None,
) -> Floats:
    """All folds at once: each is a draw of the solver that leaves its points out."""
    n = len(y)
    counts = np.ones(n) if counts is None else np.asarray(counts)
    weights = np.tile(counts, (len(folds), 1))
    for weight, fold in zip(weights, folds, strict=True):
        weight[fold] = 0
    on_device = tuple(map(placed, (ntk, targets, weights, np.zeros((len(folds), *targets.shape)))))
    theta, goals, of_folds, zero = on_device
    scores, held_out = np.full((len(regs), 1, n), np.nan), np.concatenate(folds)
    modes: dict[int, Array] = {}

    def score(r: int, start: Array) -> float:
        solution = solve_dual(
            theta,
            regs[r],
            goals,
            zero,
            likelihood,
            weights=of_folds,
            start=start,
            tol=HELD_OUT_TOLERANCE,
        )
        modes[r] = solution.alpha
        densities = log_densities(likelihood, solution.latents, y)
        densities = np.where(np.asarray(solution.gap)[:, None] <= LARGEST_GAP, densities, np.nan)
        for density, fold in zip(densities, folds, strict=True):
            scores[r, 0, fold] = density[fold]
        return float(np.average(scores[r, 0, held_out], weights=counts[held_out]))

    order, step = np.argsort(regs)[::-1].tolist(), 2 if coarsely else 1
    start, found, worse = zero, {}, 0
    for done, r in enumerate(order[::step]):
        found[r] = score(r, start)
        start = modes[r]
        if progress is not None:
            progress((done + 1) * step * len(folds), (len(regs) + 1) * len(folds))
        below = found[r] < np.nanmax([-np.inf, *found.values()]) - give_up
        worse = worse + 1 if below else 0
        if worse == 2:
            break
    if coarsely and np.isfinite(list(found.values())).any():
        best = order.index(max(found, key=lambda r: np.nan_to_num(found[r], nan=-np.inf)))
        for beside in (best - 1, best + 1):
            if 0 < beside < len(order):
                score(order[beside], modes[order[beside - 1]])
    if progress is not None:  # with what was left out
        progress((len(regs) + 1) * len(folds), (len(regs) + 1) * len(folds))
    return scores


def _widest(uncertainties: Sequence[Uncertainty]) -> Uncertainty:
    """The uncertainty whose predictor holds what all of them need."""
    order: tuple[Uncertainty, ...] = ("initialization", "posterior", "none")
    return next(u for u in order if u in uncertainties)


def _moments(
    predictor: GaussianPredictor, uncertainty: Uncertainty, cross: Kernels, diagonal: Kernels
) -> tuple[Array, Array | None]:
    """Moments for another uncertainty of the same fit."""
    if uncertainty == "posterior":
        predictor = replace(predictor, nngp=None)
    elif uncertainty == "none":
        predictor = replace(predictor, nngp=None, resolvent=None)
    return replace(predictor, uncertainty=uncertainty).moments(cross, diagonal)


def _of_one_size(
    n: int, folds: Sequence[NDArray[np.integer]]
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
    """Training and held-out points of each fold, as many in each, so that programs compile once.

    Folds may differ by a point: it is then left out of training, or asked for twice. Folds that
    differ by more stay as they are, with a program for each size.
    """
    sizes = [len(fold) for fold in folds]
    largest, same = max(sizes), max(sizes) - min(sizes) <= 1
    for fold in folds:
        train = np.setdiff1d(np.arange(n), fold)
        yield (train[: n - largest], np.resize(fold, largest)) if same else (train, fold)

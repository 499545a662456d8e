"""The regularisation whose posterior predicts best, by its draws."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from ntk_uq._common.progress import Progress
from ntk_uq.analytic.exact import exact_predictor
from ntk_uq.analytic.trajectories import correct_draws
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture, Kernels
from ntk_uq.predictions.distributions import SamplePrediction
from ntk_uq.selection.cross_validation import _of_one_size
from ntk_uq.selection.curve import RegCurve
from ntk_uq.selection.folds import _nothing_held_out, _rows_and_folds

__all__ = ["cross_validate_posterior"]

Floats = NDArray[np.float64]
# For the posterior, by draws, which cost more: once a decade, fewer points at most, and draws of
# each fold, whose noise takes about Var(p) / (2 draws p^2) from the log of a probability p, a
# hundredth of a nat.
_POSTERIOR_REGS = tuple(float(reg) for reg in np.logspace(2, -4, 7))
_MOST_POINTS_DRAWN, _CV_DRAWS = 150, 32


def cross_validate_posterior(
    rng: np.random.Generator,
    architecture: BaseArchitecture,
    X: Floats,
    y: Floats,
    likelihood: Likelihood,
    *,
    progress: Progress | None = None,
) -> RegCurve:
    """Find the regularisation whose posterior predicts held-out points best, by its draws.

    The Gaussian predictor of `choose` is far from the posterior where the prior is wide, so the
    predictions here are those of `analytic.exact_predictor` with `analytic.correct_draws`, 32 draws
    of each of 5 folds of at most 150 points. As reg falls, the predictions approach those of the
    separating functions alone, and the score hardly changes. So the scan goes down from 100 by
    powers of ten, and ends, below 1, at the first that is not better than the best so far by a
    standard error of the difference, paired over the points.

    Parameters
    ----------
    rng : numpy.random.Generator
        Takes the points, divides them into folds, and seeds the draws, which are the same random
        numbers for every regularisation.
    architecture : BaseArchitecture
        The network.
    X : array of shape [n, d]
        Points.
    y : array of shape [n, C]
        Targets.
    likelihood : Likelihood
        Observation model.
    progress : callable, optional
        ``progress(done, total)`` is told folds.

    Returns
    -------
    RegCurve
        Along the regularisations that were visited.

    References
    ----------
    Breiman, Friedman, Olshen and Stone (1984), Classification and regression trees, section 3.4.3:
    the rule of one standard error.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> problem = MLP(depth=1), X, np.eye(2)[(X[:, 0] > 0).astype(int)], Categorical()
    >>> with jax.enable_x64(True):
    ...     curve = cross_validate_posterior(np.random.default_rng(0), *problem)
    >>> bool(curve.reg < 1)  # a strong signal, and no noise
    True
    """
    rows, folds, _ = _rows_and_folds(rng, X, y, _MOST_POINTS_DRAWN)
    if not folds:
        return _nothing_held_out(_POSTERIOR_REGS[::-1])
    X, y, scored = X[rows], y[rows], np.sort(np.concatenate(folds))
    kernels, key = architecture.kernels(X), jax.random.key(rng.integers(2**31))
    total, done = len(_POSTERIOR_REGS) * len(folds), 0
    scores: list[Floats] = []
    best = 0
    for r, reg in enumerate(_POSTERIOR_REGS):
        score = np.full(len(y), np.nan)
        for train, held_out in _of_one_size(len(y), folds):
            score[held_out] = _posterior_log_density(
                key, kernels, y, reg, likelihood, train, held_out
            )
            done += 1
            if progress is not None:
                progress(done, total)
        scores.append(score[scored])
        gain = scores[r] - scores[best]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(scored)):
            best = r
        elif reg < 1:
            break
    order = slice(None, None, -1)
    return RegCurve(
        np.array(_POSTERIOR_REGS[: len(scores)])[order],
        np.mean(scores, axis=1)[None, order],
        np.std(scores, axis=1, ddof=1)[None, order] / np.sqrt(len(scored)),
        ("",),
        "cv",
        _POSTERIOR_REGS[best],
    )


def _posterior_log_density(
    key: Array,
    kernels: Kernels,
    y: Floats,
    reg: float,
    likelihood: Likelihood,
    train: NDArray[np.integer],
    held_out: NDArray[np.integer],
) -> Floats:
    """Log predictive density of held-out points by draws of the posterior of the others."""
    inner = Kernels(*(jnp.asarray(k[np.ix_(train, train)]) for k in kernels))
    cross = Kernels(*(jnp.asarray(k[np.ix_(held_out, train)]) for k in kernels))
    diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernels))
    key_draws, key_correction = jax.random.split(key)
    draws = exact_predictor(key_draws, inner, y[train], reg, likelihood, "posterior", _CV_DRAWS)
    draws = correct_draws(key_correction, draws, y[train], likelihood)
    latents = np.asarray(draws.latents(cross, diagonal))
    return SamplePrediction(latents, likelihood=likelihood).log_density(y[held_out])

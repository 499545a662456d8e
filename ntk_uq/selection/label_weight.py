"""How often the labels of a posterior count.

The softmax takes labels for noisy ones, each drawn once from what a function says. Labels of most
tables are not: several people agreed on them, or what is measured leaves no doubt. A prior wide
enough to be sure of them is wide between the points as well, and its posterior predicts worse than
its mode does. With the likelihood to the power of w each label counts w times, as if w readers had
agreed on it, and the prior need not be wide.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.progress import Progress
from ntk_uq.analytic.exact import exact_predictor
from ntk_uq.analytic.mixture import Component, allotted
from ntk_uq.likelihoods import Weighted
from ntk_uq.networks.architecture import Kernels
from ntk_uq.predictions.distributions import SamplePrediction
from ntk_uq.selection.cross_validation import _of_one_size
from ntk_uq.selection.metric import weighted_mean
from ntk_uq.selection.mixture import Mixture

__all__ = ["counted_more"]

Floats = NDArray[np.float64]

# At the most hardly anything is left of the spread.
_MOST_WEIGHT = 10_000.0
_BETWEEN = (1000.0, 100.0, 10.0)
# The widest prior, ten times as wide as networks start. Draws of wider ones take thousands of
# steps, and only labels that are sure ask for them.
_SMALLEST_REG = 0.01
# What is lost for a spread that is not needed, as a share of the log loss: predictions that are
# nearly the same differ by many standard errors, and by nothing that matters. Modes have been
# chosen on the same folds, and look better there than they are.
_AS_GOOD = 0.05
# Draws of each fold, shared out among the networks: noise takes about Var(p) / (2 draws p^2) from
# the log of a probability p, half of a hundredth of a nat.
_DRAWS = 64
_STEPS = 2 + len(_BETWEEN)


def counted_more(
    by_modes: Mixture,
    data: Any,
    rng: np.random.Generator,
    *,
    margin: float = 1.0,
    progress: Progress | None = None,
) -> Mixture:
    r"""The posterior of a mixture that modes have chosen, and how often its labels count.

    w times: the mode of :math:`p(y|f)^w p(f)` under the prior GP(0, Theta / (w reg)) is that at
    `reg`, so the networks keep their modes, and w says how far the posterior spreads about them.
    Once, if the posterior then predicts held-out labels as well as with w = 10,000, which hardly
    leaves the modes. Else w falls from there by powers of ten, as long as it predicts as well as
    the best so far, and the prior's precision is not below 0.01. As well means but for a standard
    error, paired over the points, or a twentieth of the log loss.

    Parameters
    ----------
    by_modes : Mixture
        What predicts best by modes.
    data : tuple
        Points, targets to predict, likelihood, folds, targets to train on, weights or None.
    rng : numpy.random.Generator
        Seeds the draws, which are the same random numbers for every w.
    margin : float, default 1.0
        Standard errors.
    progress : callable, optional
        ``progress(done, total)`` is told folds.

    Returns
    -------
    Mixture
        Its components have the regularisation w times that of the modes. Their scores remain those
        of modes.

    References
    ----------
    Aitchison 2021, A statistical theory of cold posteriors in deep neural networks: labels on which
    several readers agree. Breiman, Friedman, Olshen and Stone 1984, section 3.4.3: the rule of one
    standard error.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> y, folds = np.eye(2)[(X[:, 0] > 0).astype(int)], [np.arange(0, 20, 2), np.arange(1, 20, 2)]
    >>> alone = Component("alone", MLP(depth=1), 0.001, 1.0, 1.0, np.nan)
    >>> data = X, y, Categorical(), folds, y, None
    >>> with jax.enable_x64(True):
    ...     mixture = Mixture((alone,), np.nan, np.nan)
    ...     mixture = counted_more(mixture, data, np.random.default_rng(0))
    >>> mixture.components[0].label_weight > 1  # the labels leave no doubt
    True
    """
    X, _, _, folds, _, weights = data
    counts = (np.ones(len(X)) if weights is None else weights)[np.concatenate(folds)]
    key = jax.random.key(rng.integers(2**31))
    kernels = [one.architecture.kernels(X * one.feature_scales) for one in by_modes.components]

    def judged(label_weight: float) -> tuple[Mixture, Floats]:
        components = [
            replace(one, reg=label_weight * one.reg, label_weight=label_weight)
            for one in by_modes.components
        ]
        densities = _held_out(key, components, kernels, data)
        if progress is not None:
            progress(next(steps), _STEPS)
        return Mixture(tuple(components), *map(float, weighted_mean(densities, counts))), densities

    def chosen() -> Mixture:
        best = found = judged(_MOST_WEIGHT)
        if widest >= _SMALLEST_REG:
            once = judged(1.0)
            if _as_good(once, best, counts, margin):
                return once[0]
        for label_weight in _BETWEEN:
            if label_weight * widest < _SMALLEST_REG:
                break
            counted = judged(label_weight)
            best = max(best, counted, key=lambda one: one[0].score)
            if not _as_good(counted, best, counts, margin):
                break
            found = counted
        return found[0]

    steps, widest = itertools.count(1), min(one.reg for one in by_modes.components)
    mixture = chosen()
    if progress is not None:
        progress(_STEPS, _STEPS)
    return mixture


def _as_good(
    one: tuple[Mixture, Floats], best: tuple[Mixture, Floats], counts: Floats, margin: float
) -> bool:
    loss, error = map(float, weighted_mean(best[1] - one[1], counts))
    return loss <= max(margin * error, _AS_GOOD * abs(best[0].score))


def _held_out(
    key: jax.Array, components: Sequence[Component], kernels: Sequence[Kernels], data: Any
) -> Floats:
    """Log densities of held-out points by draws of the mixture, fold by fold: [m]."""
    X, y, likelihood, folds, targets, weights = data
    counts = np.ones(len(X)) if weights is None else weights
    shares = allotted([one.weight for one in components], _DRAWS)
    found = np.empty(len(X))
    for train, held_out in _of_one_size(len(X), folds):
        latents = []
        keys = jax.random.split(key, len(components))
        for own, one, kernel, n_draws in zip(keys, components, kernels, shares, strict=True):
            inner, cross = (
                Kernels(*(jnp.asarray(k[np.ix_(rows, train)]) for k in kernel))
                for rows in (train, held_out)
            )
            diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernel))
            loss = Weighted(likelihood, jnp.asarray(one.label_weight * counts[train]))
            draws = exact_predictor(
                own, inner, jnp.asarray(targets[train]), one.reg, loss, "posterior", n_draws
            )
            latents.append(np.asarray(draws.latents(cross, diagonal)))
        predicted = SamplePrediction(np.concatenate(latents), likelihood=likelihood)
        found[held_out] = predicted.log_density(y[held_out])
    return found[np.concatenate(folds)]

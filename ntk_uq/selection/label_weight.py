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
from ntk_uq.selection.evidence import log_evidence
from ntk_uq.selection.metric import weighted_mean
from ntk_uq.selection.mixture import Mixture

__all__ = ["counted_more"]

Floats = NDArray[np.float64]

# At the most hardly anything is left of the spread.
_LABEL_WEIGHTS = (10000.0, 1000.0, 100.0, 10.0, 1.0)
# Priors of labels that count once, and the widest of all, ten times as wide as networks start.
# Draws of wider ones take thousands of steps, and only labels that are sure ask for them.
_REGS = tuple(float(reg) for reg in np.logspace(-2, 2, 9))
# What is lost for a spread that is not needed, as a share of the log loss: predictions that are
# nearly the same differ by many standard errors, and by nothing that matters.
_AS_GOOD = 0.03
# Draws of each fold, shared out among the networks: noise takes about Var(p) / (2 draws p^2) from
# the log of a probability p, half of a hundredth of a nat.
_DRAWS = 64


def counted_more(
    by_modes: Mixture,
    data: Any,
    rng: np.random.Generator,
    *,
    margin: float = 1.0,
    progress: Progress | None = None,
) -> Mixture:
    r"""The posterior of a mixture that modes have chosen, and how often its labels count.

    Once, if the posterior then predicts held-out labels as well as the modes do, each network under
    the prior of the highest evidence. Else w times: the mode of :math:`p(y|f)^w p(f)` under the
    prior GP(0, Theta / (w reg)) is that at `reg`, so the networks keep their modes, and w says how
    far the posterior spreads about them. It falls from 10,000 by powers of ten, as long as it
    predicts as well as the best so far, and the prior's precision is not below 0.01. As well means
    but for a standard error, paired over the points, or three hundredths of the log loss.

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
        Its components have the regularisation w times that of the modes, or the one of the highest
        evidence. Scores of the components remain those of modes.

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

    def judged(components: Sequence[Component]) -> tuple[Mixture, Floats]:
        densities = _held_out(key, components, kernels, data)
        mixture = Mixture(tuple(components), *map(float, weighted_mean(densities, counts)))
        if progress is not None:
            progress(next(steps), 1 + len(_LABEL_WEIGHTS))
        return mixture, densities

    steps = itertools.count(1)
    networks = list(zip(by_modes.components, kernels, strict=True))
    chosen = once = judged([_likeliest(one, kernel.ntk, data) for one, kernel in networks])
    best: tuple[Mixture, Floats] | None = None
    for label_weight in _LABEL_WEIGHTS:
        components = [
            replace(one, reg=label_weight * one.reg, label_weight=label_weight)
            for one in by_modes.components
        ]
        if best is not None and min(one.reg for one in components) < _REGS[0]:
            break
        counted = judged(components)
        if best is None and _as_good(once, counted, counts, margin):
            break
        best = counted if best is None or counted[0].score > best[0].score else best
        if not _as_good(counted, best, counts, margin):
            break
        chosen = counted
    if progress is not None:
        progress(1 + len(_LABEL_WEIGHTS), 1 + len(_LABEL_WEIGHTS))
    return chosen[0]


def _as_good(
    one: tuple[Mixture, Floats], best: tuple[Mixture, Floats], counts: Floats, margin: float
) -> bool:
    loss, error = map(float, weighted_mean(best[1] - one[1], counts))
    return loss <= max(margin * error, _AS_GOOD * abs(best[0].score))


def _likeliest(component: Component, ntk: Floats, data: Any) -> Component:
    """The component under the prior of the highest evidence, labels counting once."""
    _, y, likelihood, _, _, weights = data
    loss = likelihood if weights is None else Weighted(likelihood, jnp.asarray(weights))
    values = [float(log_evidence(ntk, jnp.asarray(y), reg, loss)) for reg in _REGS]
    known = np.where(np.isnan(values), -np.inf, values)
    return replace(component, reg=_REGS[int(np.argmax(known))])


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
        for one, kernel, n_draws in zip(components, kernels, shares, strict=True):
            inner, cross = (
                Kernels(*(jnp.asarray(k[np.ix_(rows, train)]) for k in kernel))
                for rows in (train, held_out)
            )
            diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernel))
            loss = Weighted(likelihood, jnp.asarray(one.label_weight * counts[train]))
            draws = exact_predictor(
                key, inner, jnp.asarray(targets[train]), one.reg, loss, "posterior", n_draws
            )
            latents.append(np.asarray(draws.latents(cross, diagonal)))
        predicted = SamplePrediction(np.concatenate(latents), likelihood=likelihood)
        found[held_out] = predicted.log_density(y[held_out])
    return found[np.concatenate(folds)]

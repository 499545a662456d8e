"""The choice of regularisation and kernel, from the training data alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.blocks import placed
from ntk_uq._common.checkpoint import digest
from ntk_uq._common.machine import cores
from ntk_uq._common.processes import divided
from ntk_uq._common.progress import Progress, piece
from ntk_uq._common.rules import own_rules
from ntk_uq._common.side_by_side import side_by_side
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.analytic.mixture import Component
from ntk_uq.likelihoods import Gaussian, Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.embedding import FeatureEmbedding
from ntk_uq.networks.mlp import MLP
from ntk_uq.networks.normal_scores import NormalScores
from ntk_uq.selection.by_evidence import NATS, Refined, evidences, refine, smooth, warn_unmoved
from ntk_uq.selection.cross_validation import cross_validate
from ntk_uq.selection.curve import RegCurve
from ntk_uq.selection.folds import _nothing_held_out, _rows_and_folds
from ntk_uq.selection.label_weight import counted_more
from ntk_uq.selection.metric import Metric, learn_metric, weighted_mean, with_scales
from ntk_uq.selection.mixture import Mixture, greedy_weights
from ntk_uq.selection.noise import Spectrum, warn_of_copies

__all__ = ["Choice", "choose"]

Floats = NDArray[np.float64]

# What `choose` scans: twice a decade, and depths beyond which kernels hardly change; the features
# themselves, and waves that tell values apart which differ by a standard deviation, or by half; by
# the evidence, as of real targets, which say more than labels, also by a quarter.
_REGS = tuple(float(reg) for reg in np.logspace(-4, 2, 13))
_DEPTHS = (0, 1, 2, 3)
_FREQUENCIES = {"cv": (None, 0.7, 1.5), "evidence": (None, 0.7, 1.5, 3.0)}
# Waves of all features together, with phases spread over a turn: the kernel is one of distances
# nearly, and points of standardised features are near if within half of the usual distance.
_WAVES: dict[str, Any] = {"depth": 1, "activation": "cos", "w_std": 2.0, "b_std": 3.0}
# A scan from strong to weak regularisation ends so far below its best, in nats a point.
_GIVE_UP = 0.03
# Networks whose posteriors are cross-validated.
_SHORTLIST = 3
# Scales of features are learnt at regularisations so far on either side of the best, in steps, and
# kept where they predict better by so many standard errors, paired over the points.
_AROUND, _MARGIN = 1, 1.0
# Where there are fewer points than so many for each feature, no scales climb the evidence.
_SCALES_OF = 10
# More points than these only cost time: a random part of them decides as well between networks, and
# nearly as well on a regularisation. `reg_of_all_points` corrects it for the number of points.
_MOST_POINTS = 600


class Choice(NamedTuple):
    """What `choose` decided.

    Attributes
    ----------
    architecture : BaseArchitecture
        With the chosen depth, `w_std` and `b_std`.
    reg : float
        Regularisation.
    scales : array of shape [d]
        Factor of each feature; ones where they were not asked for, or stand in the embedding.
    likelihood : Likelihood
        With the noise chosen.
    curve : RegCurve
        The criterion along the regularisations.
    mixture : Mixture or None
        The networks that predict together, where they were asked for; the first is the one above.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> problem = MLP(depth=1), X, np.sin(3 * X), Gaussian(0.1), "evidence"
    >>> choice = choose(np.random.default_rng(0), *problem, uncertainty="posterior")
    >>> choice.scales, bool(choice.curve.reg == choice.reg)
    (array([1.]), True)
    """

    architecture: BaseArchitecture
    reg: float
    scales: Floats
    likelihood: Likelihood
    curve: RegCurve
    mixture: Mixture | None = None


@own_rules()
def choose(
    rng: np.random.Generator,
    architecture: BaseArchitecture,
    X: Floats,
    y: Floats,
    likelihood: Likelihood,
    criterion: Literal["evidence", "cv"],
    *,
    uncertainty: Uncertainty = "initialization",
    tune: Sequence[str] = (),
    mix: bool = False,
    further: bool = False,
    targets: Floats | None = None,
    weights: Floats | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Choose the regularisation, and more of the kernel where asked.

    On at most 600 points, taken at random. Equal points share a fold, so that none is predicted
    from its own copy, unless they are observations of their own, as where labels of equal points
    differ, or few points are possible. Where there are fewer than 5 different ones, each is a fold.
    A class that lies in one fold alone, as one with a single point does, is always trained on and
    never scored: no network predicts what it has not seen. Where this leaves nothing to score,
    `reg` is 1, the prior of a Bayesian, the architecture stays, and a warning says so.

    Parameters
    ----------
    rng : numpy.random.Generator
        Takes the points and divides them into 5 folds, by class where targets are one-hot.
    architecture : BaseArchitecture
        The network.
    X : array of shape [n, d]
        Points.
    y : array of shape [n, C]
        Targets to predict.
    likelihood : Likelihood
        Observation model.
    criterion : {"evidence", "cv"}
        Log evidence, refined by its gradient, or cross-validated log predictive density.
    uncertainty : str
        Whose predictions are cross-validated: those of "initialization" by "none", which predicts
        as well at the same regularisation (docs, "Choosing `reg`") and costs much less.
    tune : sequence of {"depth", "embedding", "w_std", "b_std", "scales", "noise"}
        What to choose besides: the depth, 0 to 3; whether the network sees each feature by itself,
        in a `FeatureEmbedding`, or, instead of an `MLP`, little but distances, by a layer of
        cosines; a scale for each feature, learnt from the gradients of the modes of the best
        network without hidden layers and of the best other, and kept where held-out points are
        predicted better by a standard error (`metric.learn_metric`). The evidence's gradient finds
        "w_std" and "b_std" of an `MLP`, the noise of a Gaussian likelihood, and, of a network whose
        embedding is not chosen too, the scales (automatic relevance determination).
    mix : bool, default False
        Whether to choose a mixture besides, by "cv": at most two of the networks, by greedy
        selection (`greedy_weights`), and the twin of each with the same regularisation behind the
        `NormalScores` of the features, which takes half of its weight. Of "posterior" the networks
        are those of "none", and how often each label counts is chosen besides (`counted_more`).
    further : bool, default False
        Whether "evidence" looks further: at each network behind powers of the features in their
        place, at the chosen one shown the `NormalScores` of what it sees beside that, and, of an
        `MLP`, at one or two layers of smooth units ("gelu") that see the features or their
        scores, a scale for each and for the biases climbing the evidence, if there are ten points
        for each feature. They are taken where the evidence is higher, of the latter by a nat for
        each scale (Akaike 1974).
    targets : array of shape [n, C], optional
        Targets to train on, where these differ.
    weights : array of shape [n], optional
        How much each point counts, > 0, in training and in what is scored. A point and its
        repetitions are best given as one with their weight.
    progress : callable, optional
        ``progress(done, total)`` is told steps.

    Returns
    -------
    Choice

    Warns
    -----
    UserWarning
        If there is nothing to hold out.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> problem = MLP(depth=1), X, np.sin(3 * X), Gaussian(0.1), "cv"
    >>> choice = choose(np.random.default_rng(0), *problem, uncertainty="none")
    >>> bool(choice.reg < 1)  # a strong signal, and hardly any noise
    True
    """
    known = X, weights
    of_labels = None
    if spread := mix and criterion == "cv" and uncertainty == "posterior":
        uncertainty = "none"
        progress, of_labels = piece(progress, 0, 2), piece(progress, 1, 2)
    targets = y if targets is None else targets
    of_rows = X, y, _MOST_POINTS, weights
    rows, folds, weights = _rows_and_folds(rng, *of_rows, one_by_one=criterion == "cv")
    X, y, targets = X[rows], y[rows], targets[rows]
    if criterion == "cv" and not folds:
        curve = _nothing_held_out(_REGS)
        return Choice(architecture, curve.reg, np.ones(X.shape[1]), likelihood, curve)

    data = X, y, likelihood, folds, targets, weights
    tried_first = _candidates(architecture, tune, criterion)
    if further and criterion == "evidence":
        tried_first |= _behind_powers(tried_first, known)
    names, networks = map(list, zip(*tried_first.items(), strict=True))
    # By the gradients of modes; those of the evidence learn the scales of a given network.
    learns = "scales" in tune and (criterion == "cv" or "embedding" in tune)
    if learns:
        tune = [name for name in tune if name != "scales"]
        progress, of_metric = piece(progress, 0, 2), piece(progress, 1, 2)
    densities = errors = None
    if criterion == "cv":
        names, networks, densities = _cross_validated(names, networks, data, uncertainty, progress)
        values, errors = weighted_mean(densities, _counts(data))
    else:
        values = evidences(networks, X, y, likelihood, "noise" in tune, weights, progress, _REGS)
    _refuse_unsolved(values)
    k, r = divmod(int(np.nanargmax(values)), len(_REGS))
    curve = RegCurve(np.array(_REGS), values, errors, tuple(names), criterion, _REGS[r], len(X))
    network, scales, tried = networks[k], np.ones(X.shape[1]), []
    held_out = len(names) * [None] if densities is None else densities
    candidates = [_Candidate(*of) for of in zip(names, networks, held_out, strict=True)]
    if learns and folds:
        by_evidence = partial(_learnt_by_evidence, fit_noise="noise" in tune)
        by_held_out = partial(_learnt_by_held_out, uncertainty=uncertainty)
        learn = by_held_out if criterion == "cv" else by_evidence
        tried = _with_metrics(learn, candidates, values, data, of_metric)
        network, scales, curve, likelihood = _best_of(tried, curve, _counts(data))
    if mix and densities is not None:
        candidates += [learnt.candidate for learnt in tried if learnt.candidate is not None]
        mixture = _mixed(candidates, data, uncertainty, known)
        curve = replace(curve, reg=mixture.components[0].reg)
        if spread:
            mixture = counted_more(mixture, data, rng, margin=_MARGIN, progress=of_labels)
        best = mixture.components[0]
        scales = np.broadcast_to(best.feature_scales, len(X.T)).copy()
        return Choice(best.architecture, best.reg, scales, likelihood, curve, mixture)
    if criterion == "cv":
        return Choice(network, curve.reg, scales, likelihood, curve)
    reg, of_data = curve.reg, (y, likelihood, tune, weights)
    if further:
        alone = max((one.score for one in tried), default=float(np.nanmax(values)))
        network, reg = _shown_scores(network, reg, alone, scales, known, X, *of_data)
    climbed = refine(network, X, scales, *of_data, reg)
    if further and isinstance(architecture, MLP):
        climbed = _or_smooth(climbed, architecture, X, of_data, known)
    warn_unmoved(climbed)
    if "noise" in tune:
        warn_of_copies(cast(Gaussian, climbed.likelihood).noise, y, weights)
    curve = replace(curve, reg=climbed.reg)
    return Choice(climbed.network, climbed.reg, climbed.scales, climbed.likelihood, curve)


def _refuse_unsolved(values: Floats) -> None:
    if np.all(np.isnan(values)):
        raise ValueError(
            f"There is no reg from {_REGS[0]:g} to {_REGS[-1]:g} at which the problem could be "
            "solved: the kernel is too wide for double precision. Scale the features (about 1 "
            "each), lower w_std and b_std, or set a larger reg."
        )


class _Candidate(NamedTuple):
    """A network, and log densities [R, m] of held-out points along the regularisations, by "cv"."""

    name: str
    network: Any
    densities: Any
    scales: Floats | float = 1.0


def _mixed(
    candidates: Sequence[_Candidate], data: Any, uncertainty: Uncertainty, known: Any
) -> Mixture:
    """A mixture of the candidates, and of their twins that see normal scores of known points."""
    counts = _counts(data)
    every = np.concatenate([candidate.densities for candidate in candidates])
    parts: list[tuple[Component, Floats]] = []
    for number, weight in greedy_weights(every, counts).items():
        k, r = divmod(number, len(_REGS))
        name, network, densities, scales = candidates[k]
        twin = NormalScores.of(known[0], network, known[1])
        pair = [(name, network, scales, densities[r])]
        if not twin.changes_nothing:
            twin = twin.scaled(np.broadcast_to(scales, len(twin.at)))
            density = _cv_densities([twin], data, uncertainty, regs=[_REGS[r]])[0, 0]
            if not np.isnan(density).any():
                pair.append((f"{name}, normal scores".removeprefix(", "), twin, 1.0, density))
        for name, network, scales, density in pair:
            score = float(weighted_mean(density, counts)[0])
            part = Component(name, network, _REGS[r], scales, weight / len(pair), score)
            parts.append((part, density))
    components, alone = zip(*parts, strict=True)
    logs = np.log([component.weight for component in components])[:, None] + np.array(alone)
    return Mixture(
        components, *map(float, weighted_mean(np.logaddexp.reduce(logs, axis=0), counts))
    )


def _cross_validated(
    names: list[str], networks: list[Any], data: Any, uncertainty: Uncertainty, progress: Any
) -> tuple[list[str], list[Any], Floats]:
    """Networks worth having, their names, and log densities [K, R, m] of held-out points."""
    if uncertainty == "posterior" and len(networks) > _SHORTLIST:
        # The evidence is what posteriors predict, point by point, at less of a cost. Modes predict
        # best with other networks: deep ones, whose posteriors are wide.
        X, y, likelihood, _, _, weights = data
        first, progress = piece(progress, 0, 2), piece(progress, 1, 2)
        scores = evidences(networks, X, y, likelihood, False, weights, first, _REGS[::2])
        best = np.max(np.where(np.isnan(scores), -np.inf, scores), axis=1)
        kept = np.sort(np.argsort(-best)[:_SHORTLIST])
        names, networks = [names[k] for k in kept], [networks[k] for k in kept]
    return names, networks, _cv_densities(networks, data, uncertainty, progress)


class _Learnt(NamedTuple):
    """A network with the scales that its mode learns, and how it predicts with them.

    By "cv", names, scores and errors [T, R] are those of the rounds, and `held_out` holds log
    densities at the best regularisation; the candidate is there if the scales are worth having.
    """

    network: Any
    factors: Floats
    reg: float
    likelihood: Likelihood
    score: float
    names: tuple[str, ...] = ()
    scores: Any = None
    errors: Any = None
    held_out: Any = None
    candidate: _Candidate | None = None


def _with_metrics(
    learn: Callable[..., _Learnt],
    candidates: Sequence[_Candidate],
    scores: Floats,
    data: Any,
    progress: Progress | None,
) -> list[_Learnt]:
    """Scales of the best network without hidden layers, and of the best that has some.

    Features that matter together show only once those that do not matter are out of the way.
    """
    best = np.max(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    kinds: dict[bool, int] = {}
    for k in np.argsort(-best, kind="stable"):
        if np.isfinite(best[k]):
            kinds.setdefault(_is_additive(candidates[k].network), k)
    return [
        learn(
            candidates[k],
            _REGS[int(np.nanargmax(scores[k]))],
            data,
            piece(progress, part, len(kinds)),
        )
        for part, k in enumerate(kinds.values())
    ]


def _is_additive(network: Any) -> bool:
    """Whether a network is a sum of functions of one feature each."""
    while hasattr(network, "network"):
        network = network.network
    return getattr(network, "depth", None) == 0


def _best_of(
    learnt: Sequence[_Learnt], curve: RegCurve, counts: Floats
) -> tuple[Any, Floats, RegCurve, Likelihood]:
    """The one that predicts best, a later one by a standard error, paired over the points."""
    best = learnt[0]
    for other in learnt[1:]:
        gain, error = other.score - best.score, 0.0
        if other.held_out is not None:
            gain, error = map(float, weighted_mean(other.held_out - best.held_out, counts))
        best = other if gain > _MARGIN * error else best
    if curve.errors is not None:
        curve = replace(
            curve,
            scores=np.concatenate([curve.scores, *(one.scores for one in learnt)]),
            errors=np.concatenate([curve.errors, *(one.errors for one in learnt)]),
            names=(*curve.names, *(name for one in learnt for name in one.names)),
        )
    return best.network, best.factors, replace(curve, reg=best.reg), best.likelihood


def _learnt_by_evidence(
    of: _Candidate, reg: float, data: Any, progress: Progress | None, *, fit_noise: bool
) -> _Learnt:
    X, y, likelihood, folds, targets, weights = data
    if fit_noise:
        noise = Spectrum.of(of.network.kernels(X).ntk, y, weights).best_noise(reg)
        likelihood = Gaussian(jnp.asarray(noise))
        data = X, y, likelihood, folds, targets, weights
    learnt, factors, _ = _learn(of.network, data, _around(reg), progress)
    (values,) = evidences([learnt], X * factors, y, likelihood, fit_noise, weights, None, _REGS)
    best = int(np.nanargmax(values))
    return _Learnt(learnt, factors, _REGS[best], likelihood, float(values[best]))


def _learnt_by_held_out(
    of: _Candidate, reg: float, data: Any, progress: Progress | None, *, uncertainty: Uncertainty
) -> _Learnt:
    of_posterior = uncertainty == "posterior"
    # The regularisation that is best for the posterior says little of the mode's.
    regs = _REGS if of_posterior else _around(reg)
    known = None if of_posterior else of.densities[[_REGS.index(reg) for reg in regs]]
    learnt, factors, metric = _learn(of.network, data, regs, progress, known)
    names = [f"{of.name}, scales learnt in {t + 1}" for t in range(len(metric.scores) - 1)]
    rows, densities = (metric.scores[1:], metric.errors[1:]), metric.densities[metric.kept]
    if of_posterior:
        names, densities = [], of.densities
        if metric.kept:
            names = [f"{of.name}, scales learnt"]
            densities = _cv_densities([learnt], (data[0] * factors, *data[1:]), uncertainty)[0]
        score, error = weighted_mean(densities, _counts(data))
        rows = score[None][: len(names)], error[None][: len(names)]
    means = weighted_mean(densities, _counts(data))[0]
    best = int(np.nanargmax(means))
    of_learnt = f"{of.name}, scales learnt".removeprefix(", ")
    candidate = _Candidate(of_learnt, learnt, _on_grid(regs, densities.T).T, factors)
    scores, errors = (_on_grid(regs, row) for row in rows)
    return _Learnt(
        learnt,
        factors,
        regs[best],
        data[2],
        float(means[best]),
        tuple(name.removeprefix(", ") for name in names),
        scores,
        errors,
        densities[best],
        candidate if metric.kept else None,
    )


def _learn(
    network: Any, data: Any, regs: Sequence[float], progress: Progress | None, known: Any = None
) -> tuple[Any, Floats, Metric]:
    """The network with the scales worth having, factors of features, and how they were learnt."""
    X, y, likelihood, folds, targets, weights = data
    metric = learn_metric(
        network, X, y, regs, likelihood, folds,
        targets=targets, weights=weights, margin=_MARGIN, known=known, progress=progress,
    )  # fmt: skip
    return *with_scales(network, metric.scales[metric.kept]), metric


def _around(reg: float) -> Sequence[float]:
    """Regularisations of the grid that are not far from one of them."""
    r = _REGS.index(reg)
    return _REGS[max(0, r - _AROUND) : r + _AROUND + 1]


def _on_grid(regs: Sequence[float], values: Floats) -> Floats:
    """Values [T, r] at some of the regularisations, not a number at the others: [T, R]."""
    grid = np.full((len(values), len(_REGS)), np.nan)
    grid[:, np.searchsorted(_REGS, regs)] = values
    return grid


def _candidates(architecture: Any, tune: Sequence[str], criterion: str) -> dict[str, Any]:
    """Networks to try, and what tells each from the others."""
    candidates = {"": architecture}
    if "depth" in tune:
        depths = _DEPTHS if architecture.ndim == 2 else _DEPTHS[1:]  # no convolution without any
        candidates = {f"depth {k}": replace(architecture, depth=k) for k in depths}
    if "embedding" not in tune:
        return candidates
    embedded = {
        (f"{name}, features embedded at {frequency}" if frequency else name).removeprefix(", "): (
            FeatureEmbedding(network, frequency) if frequency else network
        )
        for frequency in _FREQUENCIES[criterion]
        for name, network in candidates.items()
    }
    if isinstance(architecture, MLP):
        embedded["waves of all features"] = replace(architecture, **_WAVES)
    return embedded


def _behind_powers(candidates: Mapping[str, Any], known: Any) -> dict[str, Any]:
    """The same networks behind powers of the features of known points, unless these are none."""
    powers = NormalScores.of(known[0], next(iter(candidates.values())), known[1], by="power")
    if powers.changes_nothing:
        return {}
    return {
        f"{name}, powers".removeprefix(", "): replace(powers, network=network)
        for name, network in candidates.items()
    }


def _counts(data: Any) -> Floats:
    """How much each held-out point counts, fold by fold."""
    X, _, _, folds, _, weights = data
    return (np.ones(len(X)) if weights is None else weights)[np.concatenate(folds)]


def _cv_densities(
    networks: Sequence[Any],
    data: Any,
    uncertainty: Uncertainty,
    progress: Progress | None = None,
    regs: Sequence[float] = _REGS,
) -> Floats:
    """Held-out log density at each regularisation of each point, fold by fold: [K, R, m]."""
    X, y, likelihood, folds, targets, weights = data
    held_out, done, lock = np.concatenate(folds), np.zeros(len(networks), int), Lock()

    def told(k: int, of_network: int, total: int) -> None:
        with lock:
            done[k] = of_network
            cast(Any, progress)(int(done.sum()), len(networks) * total)

    def score(k: int) -> Floats:
        with own_rules(), jax.enable_x64(True):  # settings of each thread
            return cross_validate(
                networks[k].kernels(X),
                y,
                regs,
                likelihood,
                ["posterior" if uncertainty == "posterior" else "none"],
                folds,
                targets=targets,
                weights=weights,
                give_up=_GIVE_UP,
                coarsely=len(networks) > _SHORTLIST,
                progress=None if progress is None else partial(told, k),
            )[:, 0, held_out]

    threads = min(cores(), len(networks)) if jax.default_backend() == "cpu" else 1
    return np.array(
        divided(
            lambda share: side_by_side(score, share, threads),
            range(len(networks)),
            f"cross-validation of {len(networks)} networks on {digest((X, targets))}",
        )
    )


def _or_smooth(climbed: Refined, architecture: MLP, X: Floats, of_data: Any, known: Any) -> Refined:
    """One with smooth units, and scales of features and biases, if that is worth its scales."""
    if _SCALES_OF * X.shape[1] > len(X):
        return climbed
    y, likelihood, tune, weights = of_data
    other = smooth(architecture, X, y, likelihood, tune, weights, _REGS, known)
    gain = other.evidence - climbed.evidence
    return other if gain > NATS * (X.shape[1] + 1) else climbed


def _shown_scores(
    network: Any,
    reg: float,
    alone: float,
    scales: Floats,
    known: Any,
    X: Floats,
    y: Floats,
    likelihood: Likelihood,
    tune: Sequence[str],
    weights: Floats | None,
) -> tuple[Any, float]:
    """The network, shown normal scores of what it sees of known points beside it, if better."""
    factors, seen, counts = scales, known[0] * scales, known[1]
    inner, powers = network, network if isinstance(network, NormalScores) else None
    if powers is not None:
        inner, seen = powers.network, np.asarray(powers.scores(placed(seen)))
        scales = np.std(seen, axis=0)
    shown = NormalScores.of(seen, inner, counts, beside=True)
    if shown.changes_nothing:
        return network, reg
    beside: Any = shown.scaled(scales)
    beside = beside if powers is None else replace(powers, network=beside)
    fit_noise = "noise" in tune
    (values,) = evidences([beside], X * factors, y, likelihood, fit_noise, weights, None, _REGS)
    values = np.where(np.isnan(values), -np.inf, values)
    best = int(np.argmax(values))
    return (beside, _REGS[best]) if values[best] > alone else (network, reg)

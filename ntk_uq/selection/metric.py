"""How much each feature counts, from the gradients of the fitted mode.

The average gradient outer product of a fitted function, here its diagonal, says along which
features it moves. Scaling features by its root and fitting again is the learning of features that
a kernel can do: docs/theory, "A metric for the features".
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common import checks
from ntk_uq._common.blocks import enlarged, placed, repeated
from ntk_uq._common.checkpoint import digest
from ntk_uq._common.machine import cores
from ntk_uq._common.processes import divided
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.side_by_side import side_by_side
from ntk_uq._common.solver import LARGEST_GAP, solve_dual
from ntk_uq.likelihoods import Gaussian, Likelihood
from ntk_uq.likelihoods.interface import log_densities
from ntk_uq.networks.architecture import BaseArchitecture, Kernels, as_points
from ntk_uq.networks.embedding import FeatureEmbedding
from ntk_uq.networks.normal_scores import NormalScores
from ntk_uq.selection.cross_validation import HELD_OUT_TOLERANCE

__all__ = [
    "Metric",
    "learn_metric",
    "mean_squared_gradients",
    "weighted_mean",
    "with_scales",
]

Floats = NDArray[np.float64]

# Rounds of learning: scales have settled by then, or run away.
_ROUNDS = 3
# A feature counts this much less than the mean one at most: none is lost for good.
_LEAST_SCALE = 1e-3
# Numbers that the derivatives of a block of the kernel may hold.
_ENTRIES_AT_ONCE = 2**22


class Metric(NamedTuple):
    """Scales of the features, round by round, and how the mode predicts with them.

    Attributes
    ----------
    scales : array of shape [T + 1, d]
        Of each round; their mean square is one. The first round's are ones.
    scores : array of shape [T + 1, R]
        Mean log predictive density of a held-out point by scales that were learnt without its fold,
        at each regularisation, in nats; NaN where the mode was not found.
    errors : array of shape [T + 1, R]
        Standard errors of the means.
    kept : int
        The round whose scales are worth having.
    reg : float
        Its best regularisation.
    densities : array of shape [T + 1, R, m]
        Log predictive density of each held-out point, fold by fold, behind `scores`.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> from ntk_uq.selection import learn_metric
    >>> X, folds = np.random.default_rng(0).normal(size=(20, 2)), [np.arange(10)]
    >>> problem = MLP(depth=1), X, X[:, :1], [1.0], Gaussian(0.1)
    >>> learn_metric(*problem, folds).scales[0]
    array([1., 1.])
    """

    scales: Floats
    scores: Floats
    errors: Floats
    kept: int
    reg: float
    densities: Floats


def with_scales(architecture: BaseArchitecture, scales: Floats) -> tuple[BaseArchitecture, Floats]:
    """A network whose features count as the scales say, and the factors of the features it sees.

    An embedding weighs what it makes of each feature, scores are multiplied; other networks see
    features of that size.

    Parameters
    ----------
    architecture : BaseArchitecture
        The network.
    scales : array of shape [d]
        Scales, >= 0.

    Returns
    -------
    tuple of BaseArchitecture and array [d]

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, FeatureEmbedding
    >>> with_scales(MLP(depth=1), np.array([1.0, 0.5]))[1]
    array([1. , 0.5])
    >>> network, factors = with_scales(FeatureEmbedding(), np.array([1.0, 0.5]))
    >>> network.scales, factors
    ((1.0, 0.5), array([1., 1.]))
    """
    if isinstance(architecture, NormalScores):
        if architecture.beside:
            network, factors = with_scales(architecture.network, np.concatenate([scales, scales]))
            factors = factors[: len(scales)]
            return replace(architecture.of_scaled(factors), network=network), factors
        network, factors = with_scales(architecture.network, scales)
        return replace(architecture, network=network).scaled(factors), np.ones_like(scales)
    if not isinstance(architecture, FeatureEmbedding):
        return architecture, scales
    if np.all(scales == 1):
        return architecture, scales
    return replace(architecture, scales=tuple(scales.tolist())), np.ones_like(scales)


@own_rules()
def mean_squared_gradients(
    architecture: BaseArchitecture,
    X: ArrayLike,
    alpha: ArrayLike,
    scales: ArrayLike,
    weights: ArrayLike | None = None,
) -> Floats:
    r"""Diagonal of the average gradient outer product of a mode, at its training points.

    .. math:: g_j = \frac1n \sum_i \sum_c \Bigl(\frac{\partial f_c}{\partial x_j}(x_i)\Bigr)^2 ,
              \qquad f = \Theta(\cdot, X)\,\alpha .

    Where a kernel has a kink at coinciding points, the derivative there is the mean of those from
    all sides.

    Parameters
    ----------
    architecture : BaseArchitecture
        The network, without scales.
    X : array of shape [n, d]
        Training points.
    alpha : array of shape [n, C]
        Dual coefficients of the mode.
    scales : array of shape [d]
        Scales with which it was fitted; derivatives are with respect to the features before them.
    weights : array of shape [n], optional
        How much each point counts.

    Returns
    -------
    array of shape [d]

    References
    ----------
    Radhakrishnan, Beaglehole, Pandit & Belkin 2024, arXiv 2212.13881.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP
    >>> linear = MLP(depth=0, w_std=1.0, b_std=0.0)  # f = x1 x2' X' alpha / 2
    >>> X, alpha = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0], [4.0]])
    >>> mean_squared_gradients(linear, X, alpha, np.ones(2))
    array([1., 4.])
    """
    points = np.asarray(X, float)
    n, d = points.shape
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    # Repeated with coefficients of zero, so that one program serves many numbers of points.
    known, coefficients = points[repeated(n)], enlarged(np.asarray(alpha, float), 0)
    rows = min(len(known), max(1, _ENTRIES_AT_ONCE // (len(known) * d)))
    filled = np.concatenate([known, known[: -len(known) % rows]])
    with jax.enable_x64(True):
        fixed = jax.device_put((known, coefficients, np.asarray(scales, float)))
        blocks = [
            _squared_gradients(architecture, filled[i : i + rows], *fixed)
            for i in range(0, n, rows)
        ]
    squares = np.concatenate([np.asarray(block) for block in blocks])[:n]
    return weights @ squares / weights.sum()


@partial(jax.jit, static_argnums=0)
def _squared_gradients(
    network: BaseArchitecture, at: Array, points: Array, alpha: Array, scales: Array
) -> Array:
    """Squared derivatives of the mode, summed over outputs: [m, d]."""
    return jnp.sum(network.gradients(at, points, alpha, scales) ** 2, axis=-1)


@own_rules()
def learn_metric(
    architecture: BaseArchitecture,
    X: ArrayLike,
    y: ArrayLike,
    regs: Sequence[float] | Floats,
    likelihood: Likelihood,
    folds: Sequence[NDArray[np.integer]],
    *,
    targets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    margin: float = 1.0,
    known: ArrayLike | None = None,
    progress: Progress | None = None,
) -> Metric:
    r"""Learn a scale for each feature from the mode, and judge each round by held-out points.

    In each round :math:`s_j^2 \leftarrow s_j \sqrt{g_j}`, mean square one, with g the
    `mean_squared_gradients` of the mode at the regularisation that predicts best. The scales that
    predict a fold are learnt from the others. Three rounds, or fewer: the first that does not
    predict better than the one before is the last.

    Parameters
    ----------
    architecture : BaseArchitecture
        The network, for tables.
    X : array of shape [n, d]
        Points.
    y : array of shape [n, C]
        Targets to predict.
    regs : sequence or array of R floats
        Regularisations, > 0.
    likelihood : Likelihood
        Observation model.
    folds : sequence of integer arrays
        Points that are held out, fold by fold.
    targets : array of shape [n, C], optional
        Targets to train on, where these differ.
    weights : array of shape [n], optional
        How much each point counts, > 0, in training and in what is scored.
    margin : float, default 1.0
        A round is kept if it predicts better than the first by so many standard errors of the
        difference, paired over the points.
    known : array of shape [R, m], optional
        Log predictive density of each held-out point, fold by fold, without scales.
    progress : callable, optional
        ``progress(done, total)`` is told rounds.

    Returns
    -------
    Metric

    Raises
    ------
    ValueError
        If shapes do not fit, a regularisation or a weight is not positive, or folds are none, hold
        out everything, or name points that there are not.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> X = np.random.default_rng(0).normal(size=(40, 3))
    >>> folds = np.split(np.arange(40), 5)
    >>> problem = MLP(depth=1), X, np.sin(2 * X[:, :1]), [0.1, 1.0], Gaussian(0.1)
    >>> metric = learn_metric(*problem, folds)
    >>> bool(np.all(metric.scales[-1, 1:] < 0.5 * metric.scales[-1, 0])), bool(metric.kept)
    (True, True)
    """
    X = as_points(X, "X", 2)
    y = _targets("y", y, len(X), likelihood)
    targets = y if targets is None else _targets("targets", targets, len(X), likelihood)
    regs = [float(reg) for reg in _positive("regs", checks.numbers("regs", regs))]
    counts = np.ones(len(X))
    if weights is not None:
        counts = _positive("weights", checks.numbers("weights", weights, shape=(len(X),)))
    folds = _folds(folds, len(X))
    checks.real("margin", margin, minimum=0.0)
    if known is not None:
        known = _known(known, (len(regs), sum(map(len, folds))))
    training = np.tile(counts, (len(folds) + 1, 1))  # the last is of all points
    for weight, fold in zip(training, folds, strict=False):
        weight[fold] = 0
    scored = counts[np.concatenate(folds)]
    threads = min(cores(), len(training)) if jax.default_backend() == "cpu" else 1
    data = digest((X, targets))

    def of_each(function: Callable[[int], Any], what: str) -> list[Any]:
        def work(share: Sequence[int]) -> list[Any]:
            return side_by_side(function, share, threads)

        return divided(work, range(len(training)), f"{what} on {data}")

    scales, learnt, densities, best = np.ones((len(training), X.shape[1])), [], [], -np.inf
    for t in range(_ROUNDS + 1):
        held_out = known if t == 0 else None
        at = regs if held_out is None else [regs[_best(held_out, scored)]]

        def fit(k: int, scales: Floats = scales, at: Any = at) -> tuple[Floats, Floats]:
            network, factors = with_scales(architecture, scales[k])
            return _path(network.kernels, X * factors, y, targets, at, likelihood, training[k])

        modes, every = zip(*of_each(fit, f"round {t} of scales"), strict=True)
        if held_out is None:
            of_folds = zip(every, folds, strict=False)
            held_out = np.concatenate([density[:, fold] for density, fold in of_folds], axis=1)
        densities.append(held_out)
        learnt.append(scales[-1])
        if progress is not None:
            progress(t + 1, _ROUNDS + 1)
        r = _best(held_out, scored)
        score = np.nan_to_num(weighted_mean(held_out, scored)[0], nan=-np.inf)[r]
        if t == _ROUNDS or score <= best:
            break
        best = score

        def rescaled(
            k: int, scales: Floats = scales, modes: Any = modes, r: int = at.index(regs[r])
        ) -> Floats:
            of_mode = modes[k][r], scales[k], training[k]
            return _rescaled(scales[k], mean_squared_gradients(architecture, X, *of_mode))

        scales = np.array(of_each(rescaled, f"scales after round {t}"))
    if progress is not None:
        progress(_ROUNDS + 1, _ROUNDS + 1)
    return _judged(np.array(learnt), np.array(densities), scored, regs, margin)


def _targets(name: str, values: ArrayLike, n: int, likelihood: Likelihood) -> Floats:
    """Targets [n, C] that the likelihood can have."""
    axes = np.shape(values)
    if len(axes) != 2 or axes[0] != n or not axes[1]:
        raise ValueError(
            f"{name} must have shape [{n}, C], a row for each point of X; got {list(axes)}. Of one "
            "output it is y[:, None], of labels np.eye(C)[y]."
        )
    array = checks.numbers(name, values, shape=axes)
    likelihood.check_targets(array)
    return array


def _positive(name: str, values: Floats) -> Floats:
    if np.any(values <= 0):
        raise ValueError(f"{name} must be positive; the least is {values.min():g}.")
    return values


def _folds(folds: Sequence[NDArray[np.integer]], n: int) -> list[NDArray[np.integer]]:
    """Arrays of row numbers, each of which leaves something to learn from."""
    arrays = [np.asarray(fold) for fold in folds]
    if not arrays:
        raise ValueError("folds are none: rounds are judged by points that are held out.")
    for k, fold in enumerate(arrays):
        if fold.ndim != 1 or not fold.size or fold.dtype.kind not in "iu":
            raise ValueError(
                f"folds must be arrays of row numbers; number {k} is {fold.dtype}"
                f"{list(fold.shape)}."
            )
        if fold.min() < 0 or fold.max() >= n:
            raise ValueError(f"folds must name rows from 0 to {n - 1}; number {k} has others.")
        if len(np.unique(fold)) == n:
            raise ValueError(
                f"folds number {k} holds out all {n} points: nothing is left to learn."
            )
    return arrays


def _known(known: ArrayLike, shape: tuple[int, int]) -> Floats:
    """Log densities, which may be NaN where a mode was not found."""
    array = np.asarray(known, float)
    if array.shape != shape:
        raise ValueError(
            f"known must have shape {list(shape)}, of regs and held-out points; got "
            f"{list(array.shape)}."
        )
    return array


def _best(held_out: Floats, weights: Floats) -> int:
    """Which regularisation predicts best, from log densities [R, m] of points that count so."""
    return int(np.argmax(np.nan_to_num(weighted_mean(held_out, weights)[0], nan=-np.inf)))


def _judged(
    scales: Floats, densities: Floats, weights: Floats, regs: Sequence[float], margin: float
) -> Metric:
    """Which round to keep, from held-out log densities [T + 1, R, m] of points that count so."""
    scores, errors = weighted_mean(densities, weights)
    best = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1)
    of_round = densities[np.arange(len(best)), best]
    gain, error = weighted_mean(of_round - of_round[0], weights)
    gain = np.nan_to_num(gain, nan=-np.inf)
    kept = int(np.argmax(np.where(gain > margin * error, gain, 0.0)))
    return Metric(scales, scores, errors, kept, regs[best[kept]], densities)


def weighted_mean(scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean over the last axis, of points that count so, and its standard error.

    Parameters
    ----------
    scores : array of shape [..., m]
        Of points.
    weights : array of shape [m]
        How much each counts.

    Returns
    -------
    tuple of two arrays
    """
    n, shares = len(weights), weights / weights.sum()
    mean = scores @ shares
    variance = np.square(scores - mean[..., None]) @ np.square(shares)
    return mean, np.sqrt(variance * n / (n - 1))


def _rescaled(scales: Floats, gradients: Floats) -> Floats:
    """One round's scales from the last's."""
    squared = scales * np.sqrt(gradients)
    if not squared.any():  # a mode that is constant says nothing
        return scales
    new = np.maximum(np.sqrt(squared / squared.mean()), _LEAST_SCALE)
    return new / np.sqrt(np.mean(new**2))


def _path(
    kernels: Callable[[Floats], Kernels],
    X: Floats,
    y: Floats,
    targets: Floats,
    regs: Sequence[float],
    likelihood: Likelihood,
    weights: Floats,
) -> tuple[Floats, Floats]:
    """Modes along the regularisations: dual coefficients [R, n, C], log densities [R, n]."""
    alphas = np.empty((len(regs), *targets.shape))
    densities = np.full((len(regs), len(y)), np.nan)
    with own_rules(), jax.enable_x64(True):  # settings of each thread
        ntk, start = kernels(X).ntk, np.zeros(targets.shape)
        for r in np.argsort(regs)[::-1]:
            if isinstance(likelihood, Gaussian):
                alphas[r] = _ridge(ntk, regs[r], targets, likelihood, weights)
                latents, solved = ntk @ alphas[r], True
            else:
                asked = ntk, regs[r], targets, likelihood, weights, start
                alphas[r], latents, solved = _mode(*asked)
            start = alphas[r]
            if solved:
                densities[r] = log_densities(likelihood, latents, y)
    return alphas, densities


def _mode(
    ntk: Floats, reg: float, targets: Floats, likelihood: Likelihood, weights: Floats, start: Floats
) -> tuple[Floats, Floats, bool]:
    """Dual coefficients and latents of the mode, and whether they can be relied on."""
    solution = solve_dual(
        placed(ntk),
        reg,
        placed(targets),
        placed(np.zeros((1, *targets.shape))),
        likelihood,
        weights=placed(weights[None]),
        start=placed(start[None]),
        tol=HELD_OUT_TOLERANCE,
    )
    alpha, latents, gap = (
        np.asarray(of_one)[0] for of_one in (solution.alpha, solution.latents, solution.gap)
    )
    return alpha, latents, bool(gap <= LARGEST_GAP)


def _ridge(
    ntk: Floats, reg: float, targets: Floats, likelihood: Gaussian, weights: Floats
) -> Floats:
    """Dual coefficients of a Gaussian mode: a factorisation does it, however small the noise."""
    alpha, trained = np.zeros(targets.shape), np.flatnonzero(weights)
    inner, variances = ntk[np.ix_(trained, trained)], np.diag(1 / weights[trained])
    noises = np.broadcast_to(np.asarray(likelihood.noise), targets.shape[1:])
    for c, noise in enumerate(noises):
        regularised = inner + reg * noise**2 * variances
        alpha[trained, c] = scipy.linalg.solve(regularised, targets[trained, c], assume_a="sym")
    return alpha

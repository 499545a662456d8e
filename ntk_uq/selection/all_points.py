"""The regularisation for many points, which a small part of them knows only nearly."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from ntk_uq._common.progress import Progress, by_gaps
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import (
    LARGEST_GAP,
    MODE_TOLERANCE,
    Products,
    deflate_at_mode,
    large_directions,
    solve_dual,
)
from ntk_uq.likelihoods import Likelihood
from ntk_uq.likelihoods.interface import in_single_precision
from ntk_uq.selection.curve import RegCurve
from ntk_uq.selection.folds import _rows_and_folds
from ntk_uq.selection.metric import weighted_mean

__all__ = ["reg_of_all_points"]

Floats = NDArray[np.float64]
Told = Callable[[Array], None] | None

# Twice a decade, as in `choose`, and as far; between them a parabola in log reg.
_FACTOR, _LOWEST, _HIGHEST = 10**0.5, 1e-4, 1e2
# Of five folds as many are held out: their points are many.
_FOLDS_HELD_OUT = 2


@own_rules()
def reg_of_all_points(
    rng: np.random.Generator,
    ntk: Products,
    X: Floats,
    y: Floats,
    likelihood: Likelihood,
    reg: float,
    *,
    targets: Floats | None = None,
    weights: Floats | None = None,
    progress: Progress | None = None,
) -> RegCurve:
    """Find the regularisation whose mode predicts held-out points best, with all points.

    From a regularisation that is nearly right, by steps of half a decade, until the score falls on
    both sides; the best of the parabola through the highest three is taken. Two folds of five are
    held out, and solved side by side.

    Parameters
    ----------
    rng : numpy.random.Generator
        Divides the points into folds, by class where targets are one-hot.
    ntk : SymmetricTiles or LowRank
        NTK of the points.
    X : array of shape [n, d]
        Points; equal ones share a fold.
    y : array of shape [n, C]
        Targets to predict.
    likelihood : Likelihood
        Observation model.
    reg : float
        Where to begin: what `choose` found with a part of the points.
    targets : array of shape [n, C], optional
        Targets to train on, where these differ.
    weights : array of shape [n], optional
        How much each point counts, > 0, in training and in what is scored.
    progress : callable, optional
        ``progress(done, total, gap=gap)`` is told solutions, a mode and its folds for each
        regularisation; how many these are shows in the end.

    Returns
    -------
    RegCurve
        Along the regularisations that were visited.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> from ntk_uq._common.tiles import SymmetricTiles
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> ntk, y = MLP(depth=1).kernels(X).ntk, np.sin(3 * X)
    >>> tiles = SymmetricTiles(40).fill(lambda rows, columns: ntk[rows, columns])
    >>> with jax.enable_x64(True):
    ...     rng = np.random.default_rng(0)
    ...     curve = reg_of_all_points(rng, tiles, X, y, Gaussian(0.1), 1.0)
    >>> bool(curve.reg < 1), curve.n_points
    (True, 40)
    """
    _, folds, _ = _rows_and_folds(rng, X, y, len(X), one_by_one=False)
    folds = folds[:_FOLDS_HELD_OUT]
    if not folds:
        return RegCurve(np.array([reg]), np.full((1, 1), np.nan), None, ("",), "cv", reg, len(X))
    scan = _Scan.of(ntk, y, y if targets is None else targets, likelihood, folds, weights)
    scored = (np.ones(len(X)) if weights is None else weights)[np.concatenate(folds)]
    scores: dict[int, Floats] = {}
    each = 1 + len(folds)

    def score(step: int) -> float:
        if step not in scores:
            done, total = each * len(scores), each * max(3, len(scores) + 1)
            scores[step] = scan.scores(
                float(np.clip(reg * _FACTOR**step, _LOWEST, _HIGHEST)),
                by_gaps(progress, MODE_TOLERANCE * len(X), range(done, done + 1), total),
                by_gaps(progress, LARGEST_GAP, range(done + 1, done + each), total),
            )
        return float(weighted_mean(scores[step], scored)[0])

    best = 0
    for direction in (-1, 1):
        while _LOWEST < reg * _FACTOR**best < _HIGHEST and score(best + direction) > score(best):
            best += direction
    if progress is not None:
        progress(each * len(scores), each * len(scores))
    steps = np.array(sorted(scores))
    means, errors = weighted_mean(np.array([scores[step] for step in steps]), scored)
    chosen = float(np.clip(reg * _FACTOR ** _peak(steps, means), _LOWEST, _HIGHEST))
    regs = np.clip(reg * _FACTOR ** steps.astype(float), _LOWEST, _HIGHEST)
    return RegCurve(regs, means[None], errors[None], ("",), "cv", chosen, len(X))


def _peak(steps: NDArray, scores: Floats) -> float:
    """Where the parabola through the best step and its neighbours is highest."""
    k = int(np.nanargmax(scores))
    if not 0 < k < len(steps) - 1:
        return float(steps[k])
    left, middle, right = scores[k - 1 : k + 2]
    return float(steps[k] + 0.5 * (left - right) / (left - 2 * middle + right))


@dataclass
class _Scan:
    """Held-out scores at one regularisation after the other, each solution starting from the last.

    A fold is a draw of the solver that leaves its points out.
    """

    ntk: Products
    y: Array
    targets: Array
    likelihood: Any
    folds: list[NDArray]
    weights: Array
    basis: tuple[Array, Array]
    alpha: Array | None = field(default=None)

    @staticmethod
    def of(
        ntk: Any,
        y: NDArray,
        targets: NDArray,
        likelihood: Likelihood,
        folds: list[NDArray],
        counts: NDArray | None,
    ) -> "_Scan":
        weights = np.ones((len(folds), len(y)), np.float32)
        weights *= 1 if counts is None else counts
        for weight, fold in zip(weights, folds, strict=True):
            weight[fold] = 0
        single, soft = (jnp.asarray(array, jnp.float32) for array in (y, targets))
        likelihood = in_single_precision(likelihood)
        basis = large_directions(ntk, soft)
        return _Scan(ntk, single, soft, likelihood, folds, jnp.asarray(weights), basis)

    def scores(self, reg: float, of_mode: Told = None, of_folds: Told = None) -> Floats:
        """Log density of each held-out point, gaps being told while they are sought."""
        problem = self.ntk, reg, self.targets
        deflation, mode = deflate_at_mode(*problem, self.likelihood, basis=self.basis, told=of_mode)
        shape = (len(self.folds), *self.targets.shape)
        start = jnp.where(self.weights[..., None] > 0, mode.alpha, 0)
        if self.alpha is not None:
            start = self.alpha
        solution = solve_dual(
            *problem, jnp.zeros(shape, jnp.float32), self.likelihood,
            weights=self.weights, start=start, deflation=deflation, tol=LARGEST_GAP,
            told=of_folds,
        )  # fmt: skip
        self.alpha = solution.alpha
        density = np.asarray(self.likelihood.log_density(solution.latents, self.y), np.float64)
        return np.concatenate([d[fold] for d, fold in zip(density, self.folds, strict=True)])

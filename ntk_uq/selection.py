r"""Choosing the regularisation, and the kernel, from the training data alone.

- `log_evidence`: Laplace's approximation of :math:`\log p(Y)`, differentiable in everything that
  it depends on, and `maximise_evidence`, which climbs it. docs/theory: "Choosing `reg`".
- `cross_validate`: log predictive density of held-out points, along a path of regularisations.
- `choose`: an architecture's regularisation by either, with its depth, scales and noise.
- `cross_validate_posterior`: the regularisation whose posterior predicts best, by its draws.

Everything follows the dtype of the kernels.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import LARGEST_GAP, solve_dual
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.analytic.exact import exact_predictor
from ntk_uq.analytic.gaussian import gaussian_predictor
from ntk_uq.analytic.resolvent import curvature_resolvent
from ntk_uq.analytic.trajectories import correct_draws
from ntk_uq.ensemble import ConvergenceWarning
from ntk_uq.likelihoods import Curvature, Gaussian, Likelihood
from ntk_uq.networks.architecture import BaseArchitecture, Kernels
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

__all__ = [
    "Choice",
    "Optimum",
    "RegCurve",
    "choose",
    "cross_validate",
    "cross_validate_posterior",
    "estimate_noise",
    "log_evidence",
    "maximise_evidence",
]

Floats = NDArray[np.float64]

# What `choose` scans: twice a decade, and depths beyond which kernels hardly change.
_REGS = tuple(float(reg) for reg in np.logspace(-4, 2, 13))
_DEPTHS = (1, 2, 3)
_FOLDS = 5
# More points than these only cost time: a random part of them decides as well.
_MOST_POINTS = 600
# Where nothing can be held out: the prior N(theta_0, I) of a Bayesian.
_WITHOUT_FOLDS = 1.0
# For the posterior, by draws, which cost more: once a decade, fewer points at most, and draws of
# each fold, whose noise takes about Var(p) / (2 draws p^2) from the log of a probability p, a
# hundredth of a nat.
_POSTERIOR_REGS = tuple(float(reg) for reg in np.logspace(2, -4, 7))
_MOST_POINTS_DRAWN, _CV_DRAWS = 150, 32
# Held-out scores need no more: a thousandth of a posterior standard deviation.
_CV_TOLERANCE = 1e-6
# An evidence is off by no more than its mode's gap: nats.
_EVIDENCE_GAP = 1e-2
# Parameters are fitted on a logarithmic scale, at most this far from where they start: a factor of
# exp(7), about 1000. A scale that the data would send to zero or infinity stops here.
_FURTHEST = 7.0
# Nats that an iteration has to gain, and derivatives by the logarithm of a parameter that are as
# good as zero, or certainly not: a hundredth of a nat decides nothing.
_LEAST_RISE, _FLAT, _STEEP = 1e-4, 1e-3, 0.1
# The least noise that is estimated, relative to the targets: less explains no more, and costs the
# solvers their precision. And what is taken, relative to the prior, where targets are all zero and
# so say nothing: small, and yet networks can be trained and chains drawn.
_LEAST_NOISE, _UNKNOWN_NOISE = 1e-4, 1e-2


def estimate_noise(
    ntk: ArrayLike, y: ArrayLike, reg: float, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    r"""Noise of a Gaussian likelihood that maximises the evidence, for each output.

    With the eigenvalues :math:`s_i` of :math:`S = \Theta / reg` and targets :math:`z` in its
    eigenbasis, :math:`\log p(y) = -\tfrac12 \sum_i z_i^2 / (s_i + \sigma^2)
    + \log(s_i + \sigma^2) + const`. A point that occurs w times is one observation with the noise
    :math:`\sigma / \sqrt w`, and w - 1 repetitions, which say of the noise that it is small:
    :math:`s_i` and :math:`z` are then those of :math:`\sqrt w S \sqrt w` and :math:`\sqrt w y`, and
    :math:`\sum_i (w_i - 1) \log \sigma^2` is added.

    Parameters
    ----------
    ntk : array of shape [n, n]
        NTK of the training points.
    y : array of shape [n, C]
        Targets.
    reg : float
        Regularisation, > 0.
    weights : array of shape [n], optional
        How often each point counts, > 0.

    Returns
    -------
    array of shape [C]
        Standard deviations in units of the target, between 1e-4 and 2 times the root mean square
        of the output's targets. Targets that are all zero have the highest evidence without noise,
        which no solver can take: 1e-2 of the prior's root mean square.

    References
    ----------
    Rasmussen & Williams (2006), eq. 5.8.

    Examples
    --------
    >>> import numpy as np
    >>> estimate_noise(np.zeros((3, 3)), np.array([[2.0], [-2.0], [2.0]]), 1.0).round(3)
    array([2.])
    """
    y = np.asarray(y, np.float64)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    roots = np.sqrt(weights)
    prior = np.asarray(ntk) / reg
    eigenvalues, vectors = scipy.linalg.eigh(roots[:, None] * prior * roots)
    squares = (vectors.T @ (roots[:, None] * y)) ** 2
    scales = np.sqrt(np.average(np.square(y), axis=0, weights=weights))
    repetitions = np.sum(weights - 1)

    def deficit(log_noise: float, squares: NDArray) -> float:
        variances = np.maximum(eigenvalues, 0.0) + np.exp(2 * log_noise)
        fit = np.sum(squares / variances + np.log(variances))
        return float(fit + 2 * repetitions * log_noise)

    def best(squares: NDArray, scale: float) -> float:
        # The evidence may have two maxima, one explaining by noise and one by signal: scan first.
        grid = np.log(scale) + np.linspace(np.log(_LEAST_NOISE), np.log(2), 60)
        centre = int(np.argmin([deficit(g, squares) for g in grid]))
        bounds = grid[max(centre - 1, 0)], grid[min(centre + 1, len(grid) - 1)]
        fit = scipy.optimize.minimize_scalar(deficit, bounds=bounds, args=(squares,))
        return float(np.exp(fit.x))

    unknown = _UNKNOWN_NOISE * (np.sqrt(np.mean(np.diag(prior))) or 1.0)
    return np.array(
        [best(q, s) if s > 0 else unknown for q, s in zip(squares.T, scales, strict=True)]
    )


@own_rules()
@jax.jit
def log_evidence(ntk: Array, y: Array, reg: Array | float, likelihood: Likelihood) -> Array:
    r"""Laplace's approximation of the log evidence.

    .. math::
        \log p(Y \mid \hat f) - \tfrac{reg}{2} \mathrm{tr}\,\alpha^\top \Theta \alpha
        - \tfrac12 \log\det(I + W^{1/2} \Theta W^{1/2} / reg)

    at the mode :math:`\hat f = \Theta\alpha`. Exact for a Gaussian likelihood. Derivatives with
    respect to the kernel, `reg` and the likelihood's parameters are right: they count that the
    mode moves, by the implicit function theorem.

    Parameters
    ----------
    ntk : Array of shape [n, n]
        NTK of the training points.
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    reg : float
        Regularisation, > 0.
    likelihood : Likelihood
        Observation model.

    Returns
    -------
    Array of shape []
        Nats. Not a number where the mode is not found to a hundredth of a nat.

    References
    ----------
    Rasmussen & Williams (2006), eq. 3.44 and section 5.5.1; docs/theory, "Choosing `reg`".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Categorical
    >>> ntk, y = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2)
    >>> value, slope = jax.value_and_grad(log_evidence, 2)(ntk, y, 1.0, Categorical())
    >>> value.shape, slope.shape
    ((), ())
    """
    mode, moving = _mode(ntk, y, reg, likelihood)
    # At the mode the fit is stationary: of it only what depends on the parameters directly counts.
    f = ntk @ mode
    fit = jnp.sum(likelihood.log_density(f, y)) - 0.5 * reg * jnp.sum(mode * f)
    return fit - 0.5 * _log_det(ntk / reg, likelihood.curvature(ntk @ moving, y))


def _mode(ntk: Array, y: Array, reg: Array | float, likelihood: Likelihood) -> tuple[Array, Array]:
    """Dual coefficients of the mode, [n, C], as constants and with their derivatives.

    Not a number where they are not found.
    """
    fixed_ntk, fixed_reg, fixed_likelihood = lax.stop_gradient(
        (ntk, jnp.asarray(reg, ntk.dtype), likelihood)
    )
    solution = solve_dual(fixed_ntk, fixed_reg, y, jnp.zeros_like(y)[None], fixed_likelihood)
    start = lax.stop_gradient(solution.alpha[0])
    curvature = fixed_likelihood.curvature(lax.stop_gradient(solution.latents[0]), y)
    resolvent = curvature_resolvent(fixed_ntk, fixed_reg, curvature)

    def newton(r: Array) -> Array:
        """(reg I + W Theta)^-1 r = (r - G Theta r) / reg."""
        return (r - resolvent.apply(fixed_ntk @ r)) / fixed_reg

    def residual(alpha: Array) -> Array:
        return fixed_likelihood.gradient(fixed_ntk @ alpha, y) - fixed_reg * alpha

    # One step more, unless rounding spoils it.
    r = residual(start)
    alpha = start + newton(r)
    after = residual(alpha)
    better = jnp.sum(after * (fixed_ntk @ after)) < jnp.sum(r * (fixed_ntk @ r))
    alpha = jnp.where(better, alpha, start)
    alpha = jnp.where(solution.gap[0] <= _EVIDENCE_GAP, alpha, jnp.nan)
    # A step from there has the derivative of the exact mode. Itself it is nothing but rounding.
    r = likelihood.gradient(ntk @ alpha, y) - reg * alpha
    return alpha, alpha + newton(r - lax.stop_gradient(r))


def _log_det(s: Array, curvature: Curvature) -> Array:
    r"""Log det(I + W^1/2 S W^1/2), by factors of size n.

    With W = D - D q q^T D it is :math:`\sum_c \log\det(I + D_c^{1/2} S D_c^{1/2})
    + \log\det \sum_c q_c (S + D_c^{-1})^{-1} q_c`.
    """

    def one_output(d: Array) -> tuple[Array, Array]:
        root = jnp.sqrt(jnp.maximum(d, jnp.finfo(d.dtype).tiny))  # no derivative at zero
        factor = jnp.linalg.cholesky(root[:, None] * s * root + jnp.eye(len(s), dtype=s.dtype))
        half = solve_triangular(factor, jnp.diag(root), lower=True)
        return 2 * jnp.sum(jnp.log(jnp.diag(factor))), half.T @ half

    log_dets, inverses = lax.map(one_output, curvature.diagonal.T)
    if curvature.direction is None:
        return jnp.sum(log_dets)
    q = curvature.direction
    factor = jnp.linalg.cholesky(jnp.einsum("ic,cij,jc->ij", q, inverses, q))
    return jnp.sum(log_dets) + 2 * jnp.sum(jnp.log(jnp.diag(factor)))


class Optimum(NamedTuple):
    """Where `maximise_evidence` arrived.

    Attributes
    ----------
    parameters : pytree
        As `start`, at the maximum.
    value : float
        Log evidence there, in nats.
    converged : bool
        Whether L-BFGS-B met its own criteria.
    moved : bool
        False where nothing was gained, though the evidence rises from the start: no maximum, then.
    n_evaluations : int
        Evaluations of evidence and gradient.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> best = maximise_evidence(lambda p: -((jnp.log(p["reg"]) - 1) ** 2), {"reg": 1.0})
    >>> round(float(best.parameters["reg"]), 2), best.converged
    (2.72, True)
    """

    parameters: Any
    value: float
    converged: bool
    moved: bool
    n_evaluations: int


@own_rules()
def maximise_evidence(
    evidence: Callable[[Any], Array],
    start: Any,
    *,
    lower: Any = None,
    max_iter: int = 50,
    progress: Progress | None = None,
) -> Optimum:
    """Maximise an evidence over positive parameters, by L-BFGS-B in their logarithms.

    Each stays within a factor of exp(7), about 1000, of where it starts.

    Parameters
    ----------
    evidence : callable
        ``evidence(parameters)``, traceable: `log_evidence` of a kernel that depends on them.
    start : pytree
        Positive parameters to start from: ``{"reg": 1.0, "scales": jnp.ones(d)}`` for example.
    lower : pytree, optional
        As `start`: what the parameters may not fall below.
    max_iter : int
        At most this many iterations.
    progress : callable, optional
        ``progress(done, total)`` is told iterations.

    Returns
    -------
    Optimum

    Raises
    ------
    ValueError
        If the evidence at the start is not finite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import Gaussian
    >>> ntk, y = jnp.eye(3), jnp.array([[3.0], [-3.0], [3.0]])
    >>> best = maximise_evidence(
    ...     lambda p: log_evidence(ntk, y, p["reg"], Gaussian(1.0)), {"reg": 1.0}
    ... )
    >>> round(float(best.parameters["reg"]), 3)  # 1 / reg + 1 = 3^2
    0.125
    """
    logs, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.log(jnp.asarray(x, float)), start))

    @jax.jit
    def deficit(logs: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda v: -evidence(jax.tree.map(jnp.exp, unravel(v))))(logs)

    def evaluate(logs: Floats) -> tuple[float, Floats]:
        value, gradient = deficit(jnp.asarray(logs))
        return float(value), np.asarray(gradient, np.float64)

    first = np.asarray(logs, np.float64)
    value, gradient = evaluate(first)
    if not np.isfinite(value):
        raise ValueError(
            f"The evidence is {-value} where the search starts: its mode was not found, or the "
            "kernel is too wide for this reg and noise to be factorised. Start from larger ones."
        )
    if not np.all(np.isfinite(gradient)):
        return Optimum(start, -value, False, False, 1)
    low, high = first - _FURTHEST, first + _FURTHEST
    if lower is not None:
        least, _ = ravel_pytree(jax.tree.map(lambda x: jnp.log(jnp.asarray(x, float)), lower))
        low = np.clip(np.asarray(least, np.float64), low, first)

    def slope(logs: Floats, gradient: Floats) -> float:
        """Length of the gradient within the bounds."""
        outward = np.where(gradient > 0, logs <= low, logs >= high)
        return float(np.linalg.norm(gradient[~outward]))

    # L-BFGS-B's first step is as long as the gradient: in this unit a factor of e.
    unit = max(slope(first, gradient), _FLAT)
    best = first, value, gradient

    def objective(logs: Floats) -> tuple[float, Floats]:
        nonlocal best
        value, gradient = evaluate(logs)
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            # Out of what can be computed: a slope that leads back.
            away = logs - best[0]
            return best[1] / unit + float(away @ away), 2 * away
        if value < best[1]:
            best = logs.copy(), value, gradient
        return value / unit, gradient / unit

    done = 0

    def callback(_: Any) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, max_iter), max_iter)

    fit = scipy.optimize.minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        callback=callback,
        options={
            "maxiter": max_iter,
            "ftol": _LEAST_RISE / max(unit, abs(value)),
            "gtol": _FLAT / unit,
        },
    )
    moved = value - best[1] >= _LEAST_RISE or slope(best[0], best[2]) <= _STEEP
    parameters = jax.tree.map(jnp.exp, unravel(jnp.asarray(best[0], logs.dtype)))
    return Optimum(parameters, -best[1], bool(fit.success), moved, int(fit.nfev) + 1)


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
    progress : callable, optional
        ``progress(done, total)`` is told solutions.

    Returns
    -------
    array of shape [R, U, n]
        Log predictive density of each point when it was held out, in nats; NaN where a point is in
        no fold, or where latents may be off by a hundredth of a posterior standard deviation,
        because the problem is too ill-conditioned for double precision.

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
        return _cross_validate_mode(kernels.ntk, y, regs, likelihood, folds, targets, progress)
    scores = np.full((len(regs), len(uncertainties), len(y)), np.nan)
    order = np.argsort(regs)[::-1]
    done, total = 0, len(regs) * len(folds)
    for train, held_out in _of_one_size(len(y), folds):
        inner = Kernels(*(jnp.asarray(k[np.ix_(train, train)]) for k in kernels))
        cross = Kernels(*(jnp.asarray(k[np.ix_(held_out, train)]) for k in kernels))
        diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernels))
        start = None
        for r in order:
            predictor = gaussian_predictor(
                inner,
                targets[train],
                regs[r],
                likelihood,
                _widest(uncertainties),
                start=start,
                tol=_CV_TOLERANCE,
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


def _cross_validate_mode(ntk, y, regs, likelihood, folds, targets, progress) -> Floats:
    """All folds at once: each is a draw of the solver that leaves its points out."""
    n = len(y)
    weights = np.ones((len(folds), n))
    for weight, fold in zip(weights, folds, strict=True):
        weight[fold] = 0
    ntk, zero = jnp.asarray(ntk), jnp.zeros((len(folds), *targets.shape))
    scores, start = np.full((len(regs), 1, n), np.nan), zero
    for done, r in enumerate(np.argsort(regs)[::-1]):
        solution = solve_dual(
            ntk,
            regs[r],
            jnp.asarray(targets),
            zero,
            likelihood,
            weights=jnp.asarray(weights),
            start=start,
            tol=_CV_TOLERANCE,
        )
        start = solution.alpha
        densities = np.asarray(likelihood.log_density(solution.latents, jnp.asarray(y)))
        densities = np.where(np.asarray(solution.gap)[:, None] <= LARGEST_GAP, densities, np.nan)
        for density, fold in zip(densities, folds, strict=True):
            scores[r, 0, fold] = density[fold]
        if progress is not None:
            progress((done + 1) * len(folds), len(regs) * len(folds))
    return scores


@dataclass(frozen=True)
class RegCurve:
    """What a criterion says of each regularisation.

    Attributes
    ----------
    regs : array of shape [R]
        Regularisations.
    scores : array of shape [K, R]
        Log evidence of the data, or mean log predictive density of a held-out point, in nats; one
        row a depth.
    errors : array of shape [K, R] or None
        Standard error of the mean over points, as if those of one fold, which share a fit, were
        independent; None for the evidence.
    names : tuple of K strings
        What each row belongs to.
    criterion : {"evidence", "cv"}
        Which of the two.
    reg : float
        The regularisation chosen.

    Examples
    --------
    >>> import numpy as np
    >>> regs, scores = np.array([0.1, 1.0, 10.0]), np.array([[-0.9, -0.5, -0.7]])
    >>> curve = RegCurve(regs, scores, None, ("depth 1",), "cv", reg=1.0)
    >>> bool(curve.regs[curve.scores[0].argmax()] == curve.reg)
    True
    """

    regs: Floats
    scores: Floats
    errors: Floats | None
    names: tuple[str, ...]
    criterion: str
    reg: float


class Choice(NamedTuple):
    """What `choose` decided.

    Attributes
    ----------
    architecture : BaseArchitecture
        With the chosen depth, `w_std` and `b_std`.
    reg : float
        Regularisation.
    scales : array of shape [d]
        Factor of each feature; ones where they were not asked for.
    likelihood : Likelihood
        With the noise chosen.
    curve : RegCurve
        The criterion along the regularisations.

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
    targets: Floats | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Choose the regularisation, and more of the kernel where asked.

    On at most 600 points, taken at random. Equal points share a fold, so that none is predicted
    from its own copy; where there are fewer than 5 different points, each is a fold. A class that
    lies in one fold alone, as one with a single point does, is always trained on and never scored:
    no network predicts what it has not seen. Where this leaves nothing to score, `reg` is 1, the
    prior of a Bayesian, the architecture stays, and a warning says so.

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
    tune : sequence of {"depth", "w_std", "b_std", "scales", "noise"}
        What to choose besides. All but "depth" need the evidence, whose gradient finds them:
        "w_std" and "b_std" of an `MLP`, a scale for each feature (automatic relevance
        determination), the noise of a Gaussian likelihood.
    targets : array of shape [n, C], optional
        Targets to train on, where these differ.
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
    targets = y if targets is None else targets
    rows, folds = _rows_and_folds(rng, X, y, _MOST_POINTS)
    X, y, targets = X[rows], y[rows], targets[rows]
    if criterion == "cv" and not folds:
        curve = _nothing_held_out(_REGS)
        return Choice(architecture, curve.reg, np.ones(X.shape[1]), likelihood, curve)

    networks: list[Any] = [architecture]
    if "depth" in tune:
        networks = [replace(cast(Any, architecture), depth=depth) for depth in _DEPTHS]
    steps = len(networks) * len(_REGS) * (1 if criterion == "evidence" else len(folds))
    scores, errors = [], []
    for k, network in enumerate(networks):
        report = _part(progress, k, len(networks), steps)
        if criterion == "cv":
            score, error = _cv_scores(
                network, X, y, likelihood, uncertainty, folds, targets, report
            )
            errors.append(error)
        else:
            score = _evidences(network, X, y, likelihood, "noise" in tune, report)
        scores.append(score)
    if np.all(np.isnan(scores)):
        raise ValueError(
            f"There is no reg from {_REGS[0]:g} to {_REGS[-1]:g} at which the problem could be "
            "solved: the kernel is too wide for double precision. Scale the features (about 1 "
            "each), lower w_std and b_std, or set a larger reg."
        )
    k, r = divmod(int(np.nanargmax(scores)), len(_REGS))
    network, reg = networks[k], _REGS[r]
    scales: Floats = np.ones(X.shape[1])
    if criterion == "evidence":
        network, reg, scales, likelihood = _refine(network, X, y, likelihood, reg, tune)
    curve = RegCurve(
        np.array(_REGS),
        np.array(scores),
        np.array(errors) if errors else None,
        tuple(f"depth {network.depth}" for network in networks) if "depth" in tune else ("",),
        criterion,
        reg,
    )
    return Choice(network, reg, scales, likelihood, curve)


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
    rows, folds = _rows_and_folds(rng, X, y, _MOST_POINTS_DRAWN)
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


def _posterior_log_density(key, kernels, y, reg, likelihood, train, held_out) -> Floats:
    """Log predictive density of held-out points by draws of the posterior of the others."""
    inner = Kernels(*(jnp.asarray(k[np.ix_(train, train)]) for k in kernels))
    cross = Kernels(*(jnp.asarray(k[np.ix_(held_out, train)]) for k in kernels))
    diagonal = Kernels(*(jnp.asarray(np.diagonal(k)[held_out]) for k in kernels))
    key_draws, key_correction = jax.random.split(key)
    draws = exact_predictor(key_draws, inner, y[train], reg, likelihood, "posterior", _CV_DRAWS)
    draws = correct_draws(key_correction, draws, y[train], likelihood)
    latents = np.asarray(draws.latents(cross, diagonal))
    return SamplePrediction(latents, likelihood=likelihood).log_density(y[held_out])


def _part(progress: Progress | None, k: int, parts: int, total: int) -> Progress | None:
    """Progress of part k of as many equal parts."""
    if progress is None:
        return None
    return lambda done, _: progress(k * total // parts + done, total)


def _rows_and_folds(
    rng: np.random.Generator, X: Floats, y: Floats, most: int
) -> tuple[NDArray[np.integer], list[NDArray[np.integer]]]:
    """At most so many points, taken at random by class, and what can be predicted of five folds."""
    labels = np.argmax(y, axis=1) if _one_hot(y) else np.zeros(len(y), int)
    folds = _folds(rng, labels, _groups(X), max(_FOLDS, -(-_FOLDS * len(X) // most)))
    rows = np.sort(np.concatenate(folds))
    if len(rows) > most:  # of many equal points
        rows = np.sort(rng.choice(rows, most, replace=False))
    return rows, _predictable([np.flatnonzero(np.isin(rows, fold)) for fold in folds], labels[rows])


def _nothing_held_out(regs: Sequence[float]) -> RegCurve:
    """The curve that nothing is known of, and a warning."""
    warnings.warn(
        'reg="cv" predicts points from others, of their class where targets are classes, and '
        "no point has another that differs: reg=1.0, the prior of a Bayesian, is taken. Give "
        "reg, or more points.",
        UserWarning,
        stacklevel=3,
    )
    nothing = np.full((1, len(regs)), np.nan)
    return RegCurve(np.array(regs), nothing, nothing, ("",), "cv", _WITHOUT_FOLDS)


def _one_hot(y: Floats) -> bool:
    """Whether targets are classes."""
    return bool(y.shape[1] > 1 and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))


def _groups(X: Floats) -> NDArray[np.integer]:
    """A number for each point, the same for equal ones, counting in the order of the points."""
    _, first, group = np.unique(
        X.reshape(len(X), -1), axis=0, return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[group.ravel()]


def _folds(
    rng: np.random.Generator, labels: NDArray, groups: NDArray, k: int
) -> list[NDArray[np.integer]]:
    """First folds of k that hold as many of each label, of groups of points at random."""
    _, first = np.unique(groups, return_index=True)
    order = rng.permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    k = min(k, len(first))
    return [np.flatnonzero(np.isin(groups, order[i::k])) for i in range(min(k, _FOLDS))]


def _predictable(folds: list[NDArray], labels: NDArray) -> list[NDArray[np.integer]]:
    """What can be predicted of each fold: points whose class occurs outside it."""
    counts = np.bincount(labels)
    kept = [fold[(np.bincount(labels[fold], minlength=len(counts)) < counts)[labels[fold]]]
            for fold in folds]  # fmt: skip
    return [fold for fold in kept if len(fold)]


def _cv_scores(network, X, y, likelihood, uncertainty, folds, targets, progress):
    """Mean held-out log density for each regularisation, and its standard error: [R], [R]."""
    scores = cross_validate(
        network.kernels(X),
        y,
        _REGS,
        likelihood,
        ["posterior" if uncertainty == "posterior" else "none"],
        folds,
        targets=targets,
        progress=progress,
    )[:, 0]
    scores = scores[:, np.concatenate(folds)]
    return scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])


def _evidences(network, X, y, likelihood, fit_noise, progress) -> Floats:
    """Log evidence for each regularisation, at its own best noise where that is asked for: [R]."""
    ntk, values = network.kernels(X).ntk, []
    for i, reg in enumerate(_REGS):
        if fit_noise:
            likelihood = Gaussian(jnp.asarray(estimate_noise(ntk, y, reg)))
        values.append(float(log_evidence(jnp.asarray(ntk), jnp.asarray(y), reg, likelihood)))
        if progress is not None:
            progress(i + 1, len(_REGS))
    return np.array(values)


def _refine(network, X, y, likelihood, reg, tune) -> tuple[Any, float, Floats, Likelihood]:
    """Climb the evidence from the best regularisation of the scan."""
    start: dict[str, Any] = {"reg": reg}
    climbed = [name for name in network.tunable if name in tune and name != "depth"]
    start |= {name: getattr(network, name) for name in climbed}
    if "scales" in tune:
        start["scales"] = jnp.ones(X.shape[1])
    lower = {name: jnp.zeros_like(value) for name, value in start.items()}
    if "noise" in tune:
        start["noise"] = jnp.asarray(estimate_noise(network.kernels(X).ntk, y, reg))
        lower["noise"] = jnp.asarray(_LEAST_NOISE * np.sqrt(np.mean(np.square(y), axis=0)))
    points, targets = jnp.asarray(X), jnp.asarray(y)

    def with_noise(p: dict[str, Any]) -> Likelihood:
        return Gaussian(p["noise"]) if "noise" in p else likelihood

    def evidence(p: dict[str, Any]) -> Array:
        scaled = points * p.get("scales", 1.0)
        ntk = network.tuned_kernel_block(scaled, {name: p[name] for name in climbed}).ntk
        return log_evidence(ntk, targets, p["reg"], with_noise(p))

    found = maximise_evidence(evidence, start, lower=lower)
    if not found.moved:
        warnings.warn(
            f"The search for {', '.join(start)} by the evidence has not left its start, though the "
            "evidence rises from there: the values are those of a scan over reg. The kernel may be "
            "too wide to be factorised: scale the features (about 1 each), or lower w_std.",
            ConvergenceWarning,
            stacklevel=6,
        )
    best = found.parameters
    changed = {name: float(best[name]) for name in climbed}
    if changed:
        network = replace(network, **changed)
    scales = np.asarray(best.get("scales", np.ones(X.shape[1])))
    return network, float(best["reg"]), scales, with_noise(best)


def _widest(uncertainties: Sequence[Uncertainty]) -> Uncertainty:
    """The uncertainty whose predictor holds what all of them need."""
    order: tuple[Uncertainty, ...] = ("initialization", "posterior", "none")
    return next(u for u in order if u in uncertainties)


def _moments(predictor, uncertainty: Uncertainty, cross: Kernels, diagonal: Kernels):
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

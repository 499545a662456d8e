r"""Choosing the regularisation, and the kernel, from the training data alone.

- `log_evidence`: Laplace's approximation of :math:`\log p(Y)`, differentiable in everything that
  it depends on, and `maximise_evidence`, which climbs it. docs/theory: "Choosing `reg`".
- `cross_validate`: log predictive density of held-out points, along a path of regularisations.
- `choose`: an architecture's regularisation by either, with its depth, scales and noise.

Everything follows the dtype of the kernels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from numpy.typing import ArrayLike, NDArray

from ntk_uq._progress import Progress
from ntk_uq._solver import solve_dual
from ntk_uq.analytic import (
    Uncertainty,
    curvature_resolvent,
    estimate_noise,
    gaussian_predictor,
)
from ntk_uq.architectures import MLP, BaseArchitecture, Kernels, mlp_kernels
from ntk_uq.likelihoods import Curvature, Gaussian, Likelihood
from ntk_uq.predictions import GaussianPrediction

__all__ = [
    "Choice",
    "Optimum",
    "RegCurve",
    "choose",
    "cross_validate",
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
# Held-out scores need no more: a thousandth of a posterior standard deviation.
_CV_TOLERANCE = 1e-6
# Parameters are fitted on a logarithmic scale, at most this far from where they start: a factor of
# exp(7), about 1000. A scale that the data would send to zero or infinity stops here.
_FURTHEST = 7.0


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
        Nats.

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
    alpha = _mode(ntk, y, reg, likelihood)
    f = ntk @ alpha
    fit = jnp.sum(likelihood.log_density(f, y)) - 0.5 * reg * jnp.sum(alpha * f)
    return fit - 0.5 * _log_det(ntk / reg, likelihood.curvature(f, y))


def _mode(ntk: Array, y: Array, reg: Array | float, likelihood: Likelihood) -> Array:
    """Dual coefficients of the mode, [n, C], with their derivatives."""
    fixed_ntk, fixed_reg, fixed_likelihood = lax.stop_gradient(
        (ntk, jnp.asarray(reg, ntk.dtype), likelihood)
    )
    solution = solve_dual(fixed_ntk, fixed_reg, y, jnp.zeros_like(y)[None], fixed_likelihood)
    alpha, latents = lax.stop_gradient((solution.alpha[0], solution.latents[0]))
    # One more Newton step hardly moves the solution, and has the derivative of the exact mode:
    # (reg I + W Theta)^-1 r = (r - G Theta r) / reg.
    curvature = fixed_likelihood.curvature(latents, y)
    resolvent = curvature_resolvent(fixed_ntk, fixed_reg, curvature)
    r = likelihood.gradient(ntk @ alpha, y) - reg * alpha
    return alpha + (r - resolvent.apply(fixed_ntk @ r)) / fixed_reg


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
    n_evaluations: int


def maximise_evidence(
    evidence: Callable[[Any], Array],
    start: Any,
    *,
    max_iter: int = 50,
    progress: Progress | None = None,
) -> Optimum:
    """Maximise an evidence over positive parameters, by L-BFGS-B in their logarithms.

    Parameters
    ----------
    evidence : callable
        ``evidence(parameters)``, traceable: `log_evidence` of a kernel that depends on them.
    start : pytree
        Positive parameters to start from: ``{"reg": 1.0, "scales": jnp.ones(d)}`` for example.
    max_iter : int
        At most this many iterations.
    progress : callable, optional
        ``progress(done, total)`` is told iterations.

    Returns
    -------
    Optimum

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

    def objective(logs: Floats) -> tuple[float, Floats]:
        value, gradient = deficit(jnp.asarray(logs))
        # A kernel too wide to be factorised: turn back.
        if not np.isfinite(value):
            return np.inf, np.zeros_like(logs)
        return float(value), np.asarray(gradient, np.float64)

    done = 0

    def callback(_: Any) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, max_iter), max_iter)

    first = np.asarray(logs, np.float64)
    fit = scipy.optimize.minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(first - _FURTHEST, first + _FURTHEST, strict=True)),
        callback=callback,
        # A hundredth of a nat decides nothing.
        options={"maxiter": max_iter, "ftol": 1e-7, "gtol": 1e-3},
    )
    parameters = jax.tree.map(jnp.exp, unravel(jnp.asarray(fit.x, logs.dtype)))
    return Optimum(parameters, -float(fit.fun), bool(fit.success), int(fit.nfev))


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
        no fold.

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
            )
            start = predictor.alpha
            for u, uncertainty in enumerate(uncertainties):
                mean, cov = _moments(predictor, uncertainty, cross, diagonal)
                prediction = GaussianPrediction(np.asarray(mean), np.asarray(cov), likelihood)
                scores[r, u, held_out] = prediction.log_density(y[held_out])
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

    On at most 600 points, taken at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        Takes the points and divides them into 5 folds, by class.
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
    folds = _folds(rng, np.argmax(y, axis=1), max(_FOLDS, -(-_FOLDS * len(X) // _MOST_POINTS)))
    folds = folds[:_FOLDS]
    rows = np.sort(np.concatenate(folds))
    folds = [np.searchsorted(rows, fold) for fold in folds]
    X, y, targets = X[rows], y[rows], targets[rows]

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


def _part(progress: Progress | None, k: int, parts: int, total: int) -> Progress | None:
    """Progress of part k of as many equal parts."""
    if progress is None:
        return None
    return lambda done, _: progress(k * total // parts + done, total)


def _folds(rng: np.random.Generator, labels: NDArray, k: int) -> list[NDArray[np.integer]]:
    """Divide points at random into k folds that hold as many of each label."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    k = min(k, len(labels))
    return [np.sort(order[i::k]) for i in range(k)]


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
    return scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(len(y))


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
    start |= {name: getattr(network, name) for name in ("w_std", "b_std") if name in tune}
    if "scales" in tune:
        start["scales"] = jnp.ones(X.shape[1])
    if "noise" in tune:
        start["noise"] = jnp.asarray(estimate_noise(network.kernels(X).ntk, y, reg))
    points, targets = jnp.asarray(X), jnp.asarray(y)

    def with_noise(p: dict[str, Any]) -> Likelihood:
        return Gaussian(p["noise"]) if "noise" in p else likelihood

    def evidence(p: dict[str, Any]) -> Array:
        ntk = _scaled_kernel(network, points * p.get("scales", 1.0), p)
        return log_evidence(ntk, targets, p["reg"], with_noise(p))

    best = maximise_evidence(evidence, start).parameters
    changed = {name: float(best[name]) for name in ("w_std", "b_std") if name in best}
    if changed:
        network = replace(network, **changed)
    scales = np.asarray(best.get("scales", np.ones(X.shape[1])))
    return network, float(best["reg"]), scales, with_noise(best)


def _scaled_kernel(network: Any, points: Array, p: dict[str, Any]) -> Array:
    """NTK with traced `w_std` and `b_std`, which a network's own fields cannot be."""
    if not isinstance(network, MLP):
        return network.kernel_block(points).ntk
    limit = {name: value for name, value in asdict(network).items() if name != "width"}
    limit |= {name: p[name] for name in ("w_std", "b_std") if name in p}
    return mlp_kernels(points, **limit).ntk


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

    Folds may differ by a point: it is then left out of training, or asked for twice.
    """
    largest = max(len(fold) for fold in folds)
    for fold in folds:
        train = np.setdiff1d(np.arange(n), fold)[: n - largest]
        yield train, np.resize(fold, largest)

"""What a fitted estimator predicts of each training point from the others."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import xarray
from arviz_stats.utils import ELPDData, ELPDDataLOO, ELPDDataLOOKFold
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ntk_uq import analytic, bayes
from ntk_uq._common import checks
from ntk_uq._common.machine import memory_limit
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.warnings import SamplingWarning, warn_user
from ntk_uq._common.words import shown
from ntk_uq.bayes.samplers import ChainSampler, sampler_named
from ntk_uq.estimators.tasks import Estimator, Regressor
from ntk_uq.estimators.weights import distinct
from ntk_uq.likelihoods import Gaussian
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.linearized import Linearized
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

__all__ = ["loo", "loo_kfold"]

Floats = NDArray[np.float64]


def loo(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    refit: bool = True,
    progress: bool | None = None,
) -> ELPDData:
    r"""Expected log predictive density by leave-one-out cross-validation, as ArviZ compares it.

    What `arviz.loo` estimates from the draws alone, by Pareto smoothed importance sampling (PSIS),
    computed from the kernel instead: under the prior of a wide network points have much to say of
    their own latent, and PSIS fails. Everything else that the estimator holds, regularisation,
    noise, architecture, standardisation, stays as it is. Three ways, in this order:

    - **Gaussian noise** and an infinitely wide network: in closed form, `analytic.leave_one_out`.
    - **Chains** under a Gaussian process prior: importance sampling with the point's own latent
      integrated out, `bayes.integrated_loo`, and a refit where Pareto's k is high.
    - **Others**: a refit without each point.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted to these data.
    X, y, sample_weight : array-like
        The data of its `fit`. Rows of weight zero had no part in it, and have none here.
    refit : bool, default True
        Whether to refit the chains for points whose Pareto k is high; else it is reported.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Returns
    -------
    arviz_stats.utils.ELPDDataLOO
        For `arviz.compare`. `elpd_i` has the dimension `point`, the row in X; `p` is the log
        density of the training data less `elpd`; `n_samples` the number of draws, 0 in closed form.
        `pareto_k` is None where nothing was weighted, and 0 at points that were refitted, as of
        `arviz.reloo`.

    Raises
    ------
    ValueError
        If the data are not those of `fit`.

    Warns
    -----
    SamplingWarning
        If Pareto's k is high at points that were not refitted.

    See Also
    --------
    loo_kfold : With a fold left out at a time, which takes k refits.

    References
    ----------
    docs/theory: "Sampling the posterior".

    Examples
    --------
    >>> import arviz, numpy as np
    >>> import ntk_uq as nuq
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> y = np.sin(3 * X[:, 0])
    >>> deep, flat = (
    ...     nuq.NTKRegressor(nuq.MLP(depth=depth), reg=1.0, noise=0.1).fit(X, y) for depth in (2, 0)
    ... )
    >>> table = arviz.compare({"deep": nuq.loo(deep, X, y), "flat": nuq.loo(flat, X, y)})
    >>> list(table.index)
    ['deep', 'flat']
    """
    data = _data_of_fit(estimator, X, y, sample_weight)
    if _is_closed(estimator):
        latents = _closed_form(estimator, data)
        return data.elpd_of(_log_density(estimator, latents, data.observed))
    fitted = estimator._fitted
    chains = isinstance(fitted, bayes.SampledPosterior) and fitted.process is not None
    if not (chains and isinstance(sampler_named(fitted.draws.sampler, "draws of"), ChainSampler)):
        folds = np.arange(len(data.rows))
        elpd, n_samples = _refitted(estimator, data, folds, progress)
        return data.elpd_of(elpd, n_samples=n_samples)
    with progress_bar("leave-one-out", len(data.rows), progress) as told:
        elpd, pareto_k = bayes.integrated_loo(
            fitted.draws, data.problem.targets, fitted.likelihood, weights=data.counts,
            rows=data.member, removed=data.weights, progress=told,
        )  # fmt: skip
    n_samples = fitted.draws.latents.shape[0] * fitted.draws.latents.shape[1]
    good_k = min(1 - 1 / np.log10(n_samples), 0.7)
    high = np.flatnonzero(~(pareto_k <= good_k))
    if refit and len(high):
        folds = np.full(len(data.rows), -1)
        folds[high] = np.arange(len(high))
        again, _ = _refitted(estimator, data, folds, progress)
        elpd[high], pareto_k[high] = again[high], 0.0
    elif len(high):
        warn_user(
            f"Pareto's k is above {good_k:.2f} at {len(high)} of {len(pareto_k)} points: their "
            "log densities are not to be trusted. Set refit=True.",
            SamplingWarning,
        )
    return data.elpd_of(elpd, n_samples=n_samples, pareto_k=pareto_k, good_k=good_k)


def loo_kfold(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    k: int = 10,
    folds: ArrayLike | None = None,
    progress: bool | None = None,
) -> ELPDDataLOOKFold:
    """Expected log predictive density by k-fold cross-validation, as ArviZ compares it.

    Refits the estimator k times, without a fold of the points each, and nothing else changed. For
    every estimator, and right whatever the posterior; of points whose neighbours are left out with
    them it asks more than `loo`, so that only results of the same folds compare.

    Parameters
    ----------
    estimator, X, y, sample_weight, progress
        As in `loo`.
    k : int, default 10
        Number of folds, taken at random, the same for equal numbers of points.
    folds : array-like of shape [n], optional
        Fold of each point, 0 to k - 1, in the place of k: so that groups stay together.

    Returns
    -------
    arviz_stats.utils.ELPDDataLOOKFold
        For `arviz.compare`, as in `loo`.

    Raises
    ------
    ValueError
        If the data are not those of `fit`, or folds do not fit them.

    Examples
    --------
    >>> import numpy as np
    >>> import ntk_uq as nuq
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> y = np.where(X[:, 0] > 0, "right", "left")
    >>> clf = nuq.NTKClassifier(nuq.MLP(), reg=1.0, n_draws=64).fit(X, y)
    >>> nuq.loo_kfold(clf, X, y, k=4).n_folds
    4
    """
    data = _data_of_fit(estimator, X, y, sample_weight)
    n = len(data.rows)
    if folds is None:
        if not (checks.count("k", k) and 2 <= k <= n):
            raise ValueError(f"k must be from 2 to the number of points, {n}; got {shown(k)}.")
        members = np.random.default_rng(0).permutation(np.arange(n) % k)
    else:
        members = np.asarray(folds)
        if members.shape != (len(np.asarray(y)),) or members.dtype.kind not in "iu":
            raise ValueError(
                f"folds takes an integer for each of the {len(np.asarray(y))} points; got an array "
                f"of shape {members.shape} and type {members.dtype}."
            )
        members = members[data.rows]
        k = len(np.unique(members))
        if k < 2 or not np.array_equal(np.unique(members), np.arange(k)):
            raise ValueError(
                "folds must be numbered from 0 to k - 1, with at least two folds and none empty; "
                f"got {np.unique(members).tolist()}."
            )
    elpd, n_samples = _refitted(estimator, data, members, progress)
    return data.elpd_of(elpd, n_samples=n_samples, n_folds=k)


@dataclass(frozen=True, eq=False)
class _Data:
    """The data of a fit, row by row, and the problem of the distinct points that was fitted.

    Attributes
    ----------
    rows : array of shape [m]
        Rows of X that count.
    inputs : array of shape [m, ...]
        Their points as the network sees them.
    observed : array of shape [m, C]
        Their targets in the user's units, classes as one-hot rows.
    weights, member : arrays of shape [m]
        How much each counts, and its place in the problem.
    counts : array of shape [n]
        How much each point of the problem counts.
    problem : Problem
        What was fitted.
    log_density : array of shape [m]
        Log predictive density of the targets with all points.
    """

    rows: NDArray[np.intp]
    inputs: Floats
    observed: Floats
    weights: Floats
    member: NDArray[np.intp]
    counts: Floats
    problem: Problem
    log_density: Floats

    def without(self, rows: NDArray[np.intp]) -> Problem:
        """The problem that is left, and a key of its own."""
        problem, n = self.problem, len(self.counts)
        left = self.counts - np.bincount(self.member[rows], self.weights[rows], minlength=n)
        kept = left > 1e-9 * self.counts
        if not kept.any():
            raise ValueError("Nothing is left to fit without a fold: all points are equal.")
        key = None if problem.key is None else jax.random.fold_in(problem.key, int(rows[0]) + 1)
        weights = None if np.all(left[kept] == 1) else left[kept]
        return replace(
            problem, points=problem.points[kept], targets=problem.targets[kept], key=key,
            weights=weights,
        )  # fmt: skip

    def elpd_of(
        self,
        elpd: Floats,
        *,
        n_samples: int = 0,
        n_folds: int | None = None,
        pareto_k: Floats | None = None,
        good_k: Any = None,
    ) -> Any:
        """ArviZ's result of pointwise log predictive densities."""

        def of_points(values: Floats) -> xarray.DataArray:
            return xarray.DataArray(values, dims=["point"], coords={"point": self.rows})

        n, p = len(elpd), of_points(self.log_density - elpd)
        shared: dict[str, Any] = {
            "elpd": float(np.sum(elpd)),
            "se": float(np.sqrt(n * np.var(elpd))),
            "p": float(np.sum(self.log_density - elpd)),
            "n_samples": n_samples,
            "n_data_points": n,
            "scale": "log",
            "warning": pareto_k is not None and bool(np.any(~(pareto_k <= good_k))),
            "good_k": good_k,
            "elpd_i": of_points(elpd),
            "pareto_k": None if pareto_k is None else of_points(pareto_k),
        }
        if n_folds is not None:
            return ELPDDataLOOKFold(**shared, n_folds=n_folds, p_kfold_i=p)
        return ELPDDataLOO(**shared, p_loo_i=p)


def _data_of_fit(estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None) -> _Data:
    """Check that these are the data of the fit, as far as it has kept them."""
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"A fitted estimator of ntk_uq is expected; got {type(estimator).__name__}. Of a "
            "pipeline give the last step, pipe[-1], and the points that it saw, "
            "pipe[:-1].transform(X)."
        )
    check_is_fitted(estimator)
    raw, targets, observed, weights, rows = _rows_of_fit(estimator, X, y, sample_weight)
    # In the order of what was given, as fit has them: gaps and categories are encoded to others.
    points, distinct_targets, counts, member = distinct(raw, targets, weights)
    points, inputs = estimator._inputs(points), estimator._inputs(raw)
    fitted = estimator._fitted
    known = getattr(fitted, "points", None)
    scales = getattr(fitted, "feature_scales", 1.0)
    if known is not None and getattr(estimator, "method", None) != "nystrom" and len(known):
        same = known.shape == points.shape and np.allclose(known, points * scales)
        if not same or not _same_targets(fitted, distinct_targets):
            raise ValueError(
                "X, y and sample_weight are not the data that the estimator was fitted to. Each "
                "of these points is left out in turn: give what fit was given."
            )
    problem = Problem(
        points, distinct_targets, fitted.likelihood, getattr(estimator, "reg_", estimator.reg),
        estimator._key(), estimator.architecture_, None if counts is None else counts,
    )  # fmt: skip
    latents = fitted.latents(inputs)
    ones = np.ones(len(rows))
    return _Data(
        rows, inputs, observed, ones if weights is None else weights, member,
        np.ones(len(points)) if counts is None else counts, problem,
        _log_density(estimator, latents, observed),
    )  # fmt: skip


def _rows_of_fit(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None
) -> tuple[Floats, Floats, Floats, Floats | None, NDArray[np.intp]]:
    """Points, targets as the network sees them, what was observed, weights, and which rows."""
    encoder = estimator.encoder_
    y = estimator._check_cells(X if encoder is None else encoder.coded(X), y)
    X, y = indexable(X, y)
    rows, weights = np.arange(len(y)), None
    if sample_weight is not None:
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        rows = np.flatnonzero(weights)
        weights, X, y = weights[rows], _safe_indexing(X, rows), _safe_indexing(y, rows)
    raw = estimator._checked(X)
    if isinstance(estimator, Regressor):
        observed = np.asarray(y, np.float64).reshape(len(rows), -1)
        shift, scale = estimator._target_shift, estimator._target_scale
        if observed.shape[1] != len(shift):
            raise ValueError(f"fit had {len(shift)} outputs; y has {observed.shape[1]}.")
        return raw, (observed - shift) / scale, observed, weights, rows
    labels, classes = np.asarray(y), estimator.classes_
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = classes[codes] != labels
    if np.any(unknown):
        raise ValueError(f"{shown(labels[unknown][0])} is none of the classes of fit.")
    observed = np.eye(len(classes))[codes]
    weights = estimator._task_weights(observed, weights)
    return raw, estimator._smoothed(observed), observed, weights, rows


def _same_targets(fitted: Any, targets: Floats) -> bool:
    known = getattr(fitted, "targets", targets)
    return known.shape == targets.shape and np.allclose(known, targets)


def _log_density(estimator: Any, latents: Any, observed: Floats) -> Floats:
    """Log predictive density of what was observed, in the user's units."""
    return estimator._prediction_in_units(latents).log_density(observed)


def _is_closed(estimator: Any) -> bool:
    """Whether its distribution without a point is known in closed form."""
    fitted = estimator._fitted
    if not isinstance(estimator, Regressor) or not isinstance(fitted.likelihood, Gaussian):
        return False
    if isinstance(fitted, bayes.SampledPosterior):
        return fitted.process is not None
    if isinstance(fitted, analytic.FittedProcess):
        return True
    of_networks = isinstance(fitted, analytic.FittedInfiniteEnsemble)
    exact = of_networks and estimator.method != "nystrom" and estimator._stop is None
    return exact and not isinstance(fitted.architecture, Linearized)


def _closed_form(estimator: Any, data: _Data) -> GaussianPrediction:
    """Latents of each point without it, in the network's units."""
    fitted, n = estimator._fitted, len(data.counts)
    # Two kernels, the factor, the inverse and a product.
    needed, present = 8 * 5 * n**2, memory_limit()
    if needed > present:
        raise MemoryError(
            f"Leave-one-out in closed form of {n} points takes {needed / 2**30:.1f} GiB, and this "
            f"machine has {present / 2**30:.1f} GiB. Use loo_kfold."
        )
    uncertainty: Any = getattr(estimator, "uncertainty", "posterior")
    reg = data.problem.reg
    if isinstance(fitted, analytic.FittedInfiniteEnsemble):
        points = data.problem.points * fitted.feature_scales
        kernels = fitted.architecture.kernels(points)
    else:
        of_draws = isinstance(fitted, bayes.SampledPosterior)
        process: Any = fitted.process if of_draws else fitted.prior
        prior = process.covariance(data.problem.points)
        kernels, reg = Kernels(prior, prior), 1.0
    mean, variance = analytic.leave_one_out(
        kernels, data.problem.targets, reg, fitted.likelihood.noise, uncertainty,
        weights=data.counts, rows=data.member, removed=data.weights,
    )  # fmt: skip
    cov = variance[:, :, None] * np.eye(mean.shape[1])
    return GaussianPrediction(mean, cov, fitted.likelihood)


def _refitted(
    estimator: Any, data: _Data, folds: NDArray[np.intp], progress: bool | None
) -> tuple[Floats, int]:
    """Log densities of the rows of each fold by a fit without it; -1 is in no fold."""
    refit = copy(estimator)
    # What a fit would find in files, or go on from, is of other data.
    for name in ("checkpoint", "storage"):
        if hasattr(refit, name):
            setattr(refit, name, None)
    refit.progress = False
    refit.__dict__.pop("reg_curve_", None)
    scales = getattr(estimator._fitted, "feature_scales", 1.0)
    elpd, n_samples = np.full(len(folds), np.nan), 0
    n_folds = int(folds.max()) + 1
    with progress_bar("refits", n_folds, progress) as told, own_rules():
        for fold in range(n_folds):
            rows = np.flatnonzero(folds == fold)
            latents = refit._solved(data.without(rows), scales).latents(data.inputs[rows])
            elpd[rows] = _log_density(estimator, latents, data.observed[rows])
            if isinstance(latents, SamplePrediction):
                n_samples = len(latents.samples)
            if told is not None:
                told(fold + 1, n_folds)
    return elpd, n_samples

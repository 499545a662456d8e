"""A fitted estimator as a file that onnxruntime runs, without this package or JAX."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array
from sklearn.utils.validation import check_is_fitted

from ntk_uq._common.files import check_folder, write_result
from ntk_uq._common.onnx_graph import onnx_model
from ntk_uq._common.rules import own_rules
from ntk_uq.estimators.functions import Answers, as_function
from ntk_uq.estimators.tasks import Classifier, Estimator, Regressor

__all__ = ["to_onnx"]


def to_onnx(
    estimator: Any,
    path: str | os.PathLike,
    *,
    precision: Literal["double", "single"] = "double",
) -> None:
    """Write a fitted estimator as an ONNX model, which takes any number of points.

    Parameters
    ----------
    estimator : NTKClassifier, EnsembleClassifier, or a regressor of theirs
        Fitted. The standardising of features is part of the model; categories are not, and
        `TableEncoder` encodes them before.
    path : path
        The file, ``model.onnx`` for example; replaced once the new one is whole.
    precision : {"double", "single"}, default "double"
        Of points, outputs and all between. Double agrees with the estimator to 1e-5 and better.

    Raises
    ------
    ImportError
        If onnx is not installed.
    ValueError
        If the estimator predicts by random numbers, or by an operation that ONNX does not have.
    OSError
        If the folder does not exist, or the file cannot be written.

    Notes
    -----
    The input is ``X`` [m, d]. Outputs of a classifier: ``proba`` [m, C], columns in the order of
    ``classes_``, and ``total_uncertainty``, ``aleatoric`` and ``epistemic`` [m] in nats; of a
    regressor ``mean`` and ``std`` [m, C], observation noise not included. A kernel model's file
    holds its training points.

    Examples
    --------
    >>> import ntk_uq as nuq
    >>> clf = nuq.NTKClassifier(reg=1.0, n_draws=4).fit([[0.0], [1.0]], ["no", "yes"])
    >>> nuq.to_onnx(clf, "model.onnx")  # doctest: +SKIP
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "to_onnx needs the package onnx: pip install 'ntk_uq[onnx]', or pip install onnx."
        ) from error
    if precision not in ("double", "single"):
        raise ValueError(f'precision must be "double" or "single"; got {precision!r}.')
    if not isinstance(estimator, Estimator):
        raise ValueError(
            f"to_onnx takes an estimator of ntk_uq; got {type(estimator).__name__}. Of a pipeline "
            "give its last step, and do what stands before it elsewhere."
        )
    check_is_fitted(estimator)
    path = Path(path)
    check_folder(path)
    function, names = _function(estimator)
    if len(estimator._point_shape) != 1:
        raise ValueError("to_onnx is for tables; this estimator takes images.")
    try:
        with own_rules():
            model = onnx_model(function, estimator.n_features_in_, names, precision == "double")
    except NotImplementedError as error:
        raise ValueError(
            f"{type(estimator).__name__} with these settings has {error}, which ONNX does not. "
            'NTKClassifier(method="exact"), NTKRegressor and finite ensembles of '
            'uncertainty="initialization" can be exported.'
        ) from error
    write_result(path, lambda file: file.write(model.SerializeToString()))


def _function(estimator: Any) -> tuple[Callable[[Array], Any], tuple[str, ...]]:
    if isinstance(estimator, Classifier):
        whole = as_function(estimator)
        return lambda X: tuple(whole(X)), Answers._fields
    return _moments(estimator), ("mean", "std")


def _moments(estimator: Regressor) -> Callable[[Array], tuple[Array, Array]]:
    """Mean and standard deviation of the latents in units of the target."""
    fitted = estimator._fitted
    if not hasattr(fitted, "traced_latents"):
        as_function(estimator)  # which says why
    of_points = getattr(fitted, "traced_moments", None)

    def function(X: Array) -> tuple[Array, Array]:
        shift, scale = (
            jnp.asarray(value, X.dtype)
            for value in (estimator._target_shift, estimator._target_scale)
        )
        points = estimator._traced_inputs(X)
        found = None if of_points is None else of_points(points)
        if found is None:
            draws = fitted.traced_latents(points)
            found = jnp.mean(draws, axis=0), jnp.var(draws, axis=0, ddof=min(1, len(draws) - 1))
        mean, variance = found
        return shift + scale * mean, scale * jnp.sqrt(jnp.maximum(variance, 0.0))

    return function

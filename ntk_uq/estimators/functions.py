"""A fitted classifier as one function of JAX: for programs that go on from its predictions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import entr

__all__ = ["Answers", "as_function"]


class Answers(NamedTuple):
    """What a function of a classifier gives at m points.

    Attributes
    ----------
    proba : Array of shape [m, C]
        Mean class probabilities.
    total_uncertainty, aleatoric, epistemic : Arrays of shape [m]
        As of a prediction, in nats.
    """

    proba: Array
    total_uncertainty: Array
    aleatoric: Array
    epistemic: Array


def as_function(estimator: Any) -> Callable[[Any], Answers]:
    """One jitted function of points, with all that was fitted as constants inside.

    Parameters
    ----------
    estimator : NTKClassifier or EnsembleClassifier
        Fitted.

    Returns
    -------
    callable
        ``function(X)`` of points [m, d] gives `Answers`.

    Raises
    ------
    ValueError
        If it is another: draws of a chain are continued to new points by random numbers. If it was
        fitted to a table with categories.
    """
    latents = getattr(estimator._fitted, "traced_latents", None)
    if latents is None:
        raise ValueError(
            f"{type(estimator).__name__} with these settings, or of a trained network "
            "(Linearized), is no function. NTKClassifier of any other network and "
            "EnsembleClassifier are."
        )
    if estimator.encoder_ is not None:
        estimator.encoder_.check_traceable()
    prepare, shape = estimator._traced_inputs, estimator._point_shape

    @jax.jit
    def function(X: Any) -> Answers:
        X = jnp.asarray(X)
        if X.ndim != 1 + len(shape) or X.shape[1:] != shape:
            raise ValueError(
                f"Points have the shape [m, {', '.join(map(str, shape))}], as those of fit; got "
                f"{X.shape}."
            )
        if not jnp.issubdtype(X.dtype, jnp.floating):
            X = X.astype(float)
        p = jax.nn.softmax(latents(prepare(X)), axis=-1)
        proba = p.mean(axis=0)
        total, aleatoric = entr(proba).sum(axis=-1), entr(p).sum(axis=-1).mean(axis=0)
        return Answers(proba, total, aleatoric, jnp.maximum(total - aleatoric, 0.0))

    return function

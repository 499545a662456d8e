"""What a member of a finite ensemble is before it is trained: initial parameters, prior function.

Member i depends on ``fold_in(key, i)`` alone. docs/theory: "Relation to Bayes".
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import shown
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture, standard_normal_like


def _keys(key: Array, i: Array | int) -> Array:
    """Keys of member i: initial parameters, prior function, label noise, mini-batches."""
    return jax.random.split(jax.random.fold_in(key, i), 4)


@partial(jax.jit, static_argnums=(0, 3, 4))
def draw(
    architecture: BaseArchitecture,
    key: Array,
    i: Array | int,
    in_features: int | tuple[int, ...],
    out_features: int,
) -> tuple[Any, Any]:
    """Initial parameters of member i, and the direction of its prior function."""
    init_key, prior_key = _keys(key, i)[:2]
    initial = architecture.init(init_key, in_features, out_features)
    return initial, standard_normal_like(prior_key, initial)


def label_noise(
    uncertainty: Uncertainty,
    key: Array,
    i: Array | int,
    likelihood: Likelihood,
    mode: Any,  # [n, C], where it is needed
    y: Array,
) -> Array:
    """The linear term of member i's loss, N(0, W) at the mode or zero: [n, C]."""
    if uncertainty != "posterior":
        return jnp.zeros_like(y)
    z = jax.random.normal(_keys(key, i)[2], y.shape, y.dtype)
    return likelihood.curvature(mode, y).sqrt_matvec(z)


def batch_key(key: Array, i: Array | int) -> Array:
    """Key of the order of member i's mini-batches."""
    return _keys(key, i)[3]


def prior_function(
    architecture: BaseArchitecture,
    uncertainty: Uncertainty,
    initial: Any,
    tangent: Any,
    reg: Array | float,
    X: Array,
) -> Array:
    """What is added to the network's outputs at X: [n, C], or zero."""
    if uncertainty == "initialization":
        return jnp.zeros((), X.dtype)
    if uncertainty == "none":
        return -architecture.apply(initial, X)
    f0, change = jax.jvp(lambda params: architecture.apply(params, X), (initial,), (tangent,))
    return change / jnp.sqrt(reg) - f0


def in_features(X: Array) -> int | tuple[int, ...]:
    """Features of a table, or the shape of an image."""
    return X.shape[1] if X.ndim == 2 else X.shape[1:]


def floating(x: ArrayLike) -> Array:
    """A JAX array of the precision that x has and JAX allows, or its default for integers."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def check_problem(
    architecture: Any,
    X: ArrayLike,
    y: ArrayLike,
    likelihood: Likelihood,
    reg: float,
    uncertainty: Any,
) -> tuple[Array, Array]:
    """Points and targets as JAX arrays of one precision; a ValueError says what does not fit."""
    X, y = floating(X), jnp.asarray(y)
    if not reg >= 0:
        raise ValueError(f"reg must be at least 0; got {shown(reg)}.")
    checks.uncertainty(uncertainty)
    if uncertainty == "posterior" and reg == 0:
        raise ValueError(
            'uncertainty="posterior" needs reg > 0: with reg=0 the prior GP(0, Theta / reg) has '
            "infinite variance."
        )
    if X.ndim < 2 or y.ndim != 2 or len(X) != len(y):
        raise ValueError(
            f"X is [n, d] or [n, h, w, c] and y [n, C], with the same n; got {X.shape} and "
            f"{y.shape}."
        )
    leaves = jax.tree.leaves(likelihood)
    if any(not isinstance(leaf, (Array, np.ndarray, float, int)) for leaf in leaves):
        raise ValueError(
            f"likelihood {type(likelihood).__name__} is not known to JAX: decorate its class with "
            "jax.tree_util.register_dataclass (its fields arrays) or register_static."
        )
    likelihood.check_targets(np.asarray(y))
    f = jax.eval_shape(
        lambda key: architecture.apply(
            architecture.init(key, in_features(X), y.shape[1]), jnp.zeros(X.shape, X.dtype)
        ),
        jax.random.key(0),
    )
    if f.shape != y.shape:
        raise ValueError(
            f"The network gives outputs of shape {f.shape} where the targets have {y.shape}: a "
            "module maps a batch of n points to [n, out_features]."
        )
    return X, y.astype(X.dtype)

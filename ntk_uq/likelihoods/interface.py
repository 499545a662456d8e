"""What a likelihood offers, and what its file needs.

Every array of latents has the shape [..., n, C] and broadcasts over its leading axes against
targets [n, C]. A likelihood is a frozen pytree: its parameters are traced, not recompiled.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.blocks import repeated
from ntk_uq._common.rules import own_rules

__all__ = [
    "Curvature",
    "Likelihood",
    "check_between",
    "in_single_precision",
    "likelihood_class",
    "log_densities",
    "of_many",
    "require_condition",
]


class Curvature(NamedTuple):
    r"""Negative Hessian of the log density, a diagonal less one rank.

    For each point :math:`W = \mathrm{diag}(d) - (d \circ q)(d \circ q)^\top`. Softmax is of this
    form with d = p, q = 1, and likelihoods that factorise over outputs have no q; so systems in
    W need n x n factorisations only, never nC x nC ones.

    Attributes
    ----------
    diagonal : Array of shape [..., n, C]
        d, non-negative.
    direction : Array of shape [..., n, C] or None
        q, with :math:`\sum_c d_c q_c^2 = 1`, so that W is singular along 1 / q; None for zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Categorical
    >>> curvature = Categorical().curvature(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
    >>> curvature.matvec(jnp.array([[1.0, 0.0]]))
    Array([[ 0.25, -0.25]], dtype=float32)
    """

    diagonal: Array
    direction: Array | None

    @own_rules()
    def matvec(self, v: Array) -> Array:
        """Product W v for v of shape [..., n, C]."""
        dv = self.diagonal * v
        if self.direction is None:
            return dv
        return dv - self.diagonal * self.direction * jnp.sum(
            self.direction * dv, axis=-1, keepdims=True
        )

    @own_rules()
    def sqrt_matvec(self, z: Array) -> Array:
        """Product R z with R R^T = W, which turns z ~ N(0, I) into label noise N(0, W)."""
        scaled = jnp.sqrt(self.diagonal) * z
        if self.direction is None:
            return scaled
        along = jnp.sum(self.direction * scaled, axis=-1, keepdims=True)
        return scaled - self.diagonal * self.direction * along


class Likelihood(Protocol):
    """What a likelihood must offer to be used by every producer.

    Methods are pure and traceable; log densities are in nats and fully normalised.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import Likelihood, Poisson
    >>> counts: Likelihood = Poisson()
    >>> counts.degenerate(jnp.array([[0.0], [3.0]]))
    Array([ True, False], dtype=bool)
    """

    def log_density(self, f: Array, y: Array) -> Array:
        """Log p(y | f), summed over outputs: [..., n] nats."""
        ...

    def gradient(self, f: Array, y: Array) -> Array:
        """Gradient of the log density in f: [..., n, C]."""
        ...

    def curvature(self, f: Array, y: Array) -> Curvature:
        """Negative Hessian W of the log density in f; positive semi-definite."""
        ...

    def response(self, f: Array) -> Array:
        """Expected target E[y | f]: [..., n, C]."""
        ...

    def sample(self, key: Array, f: Array) -> Array:
        """One target drawn from p(y | f) for each latent: [..., n, C]."""
        ...

    def degenerate(self, y: Array) -> Array:
        """Whether no finite f is optimal for the target alone: [n] booleans.

        Without regularisation such targets send the outputs to infinity, and training leaves
        the lazy regime.
        """
        ...

    def optimum(self, y: Array) -> Array:
        """The f in the identified directions that is optimal for the target alone: [..., n, C]."""
        ...

    def identified(self, f: Array) -> Array:
        """Part of f that the likelihood can see, the rest projected out: [..., n, C]."""
        ...

    def check_targets(self, y: np.ndarray) -> None:
        """Raise a ValueError that says what is wrong with targets [n, C], finite numbers."""
        ...


def require_condition(likelihood: Likelihood, y: Array, reg: float) -> None:
    """The paper's: training is lazy with reg > 0, or with non-degenerate targets.

    Raises
    ------
    ValueError
        If reg = 0 and a target is degenerate.
    """
    if reg == 0 and bool(jnp.any(likelihood.degenerate(y))):
        raise ValueError(
            "reg=0 with degenerate targets (a class of probability zero, a count of zero) has no "
            "solution: the loss falls for ever as the outputs grow, and training leaves the lazy "
            "regime. Set reg > 0, or smooth the targets."
        )


def log_densities(likelihood: Likelihood, f: ArrayLike, y: ArrayLike) -> NDArray[np.floating[Any]]:
    """Log density of each point, by a program that serves many numbers of points.

    Parameters
    ----------
    likelihood : Likelihood
        Observation model.
    f : array of shape [..., n, C]
        Latents.
    y : array of shape [n, C]
        Targets.

    Returns
    -------
    array of shape [..., n], nats

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import Categorical
    >>> log_densities(Categorical(), np.zeros((1, 2)), np.eye(2)[:1]).round(3)
    array([-0.693], dtype=float32)
    """
    f, y = np.asarray(f), np.asarray(y)
    rows, likelihood = of_many(likelihood, len(y))
    known = jax.device_put((f[..., rows, :], y[rows]))
    return np.asarray(likelihood.log_density(*known))[..., : len(y)]


def of_many(likelihood: Likelihood, n: int) -> tuple[NDArray[np.integer], Any]:
    """Rows of n points, repeated so that a program serves many numbers of points; and theirs.

    As they are where a likelihood holds something for each point, and nobody knows what.
    """
    rows = repeated(n)
    if hasattr(likelihood, "take"):
        return rows, likelihood.take(rows)
    of_points = any(np.shape(leaf)[:1] == (n,) for leaf in jax.tree.leaves(likelihood))
    return np.arange(n) if of_points else rows, likelihood


@dataclass_transform(frozen_default=True)
def likelihood_class[T](cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose fields are pytree leaves, and whose methods broadcast."""
    for name, method in list(vars(cls).items()):
        if not name.startswith("_") and callable(method):
            setattr(cls, name, own_rules()(method))
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


def in_single_precision(likelihood: Likelihood) -> Likelihood:
    """The likelihood with its parameters in single precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), likelihood)


def check_between(y: np.ndarray, low: float, high: float, what: str) -> None:
    """Refuse targets outside a range."""
    outside = (y < low) | (y > high)
    if np.any(outside):
        raise ValueError(
            f"Targets are {what}, from {low:g} to {high:g}; got {y[outside].flat[0]:.6g} "
            f"in row {int(np.argwhere(outside)[0, 0])}."
        )

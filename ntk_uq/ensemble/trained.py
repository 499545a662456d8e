"""Trained members: what they compute, and how well each was trained."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.rules import own_rules
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import in_a_line
from ntk_uq.ensemble.members import draw, floating, prior_function
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["PathWarning", "TrainedEnsemble"]
# Points that a member is evaluated at together.
_ROWS = 512


class PathWarning(UserWarning):
    """Without regularisation, an optimizer ends elsewhere than gradient flow."""


@in_a_line
@dataclass(frozen=True)
class TrainedEnsemble:
    """Trained members, and how well each was trained.

    Attributes
    ----------
    architecture : BaseArchitecture
        Evaluates the members.
    params : pytree
        Parameters with a leading axis of M members.
    n_iter : array of shape [M]
        Iterations taken.
    converged : array of shape [M]
        Whether the criterion of `train_ensemble` was met.
    objective : array of shape [M]
        Objective reached, in nats.
    grad_norm : array of shape [M]
        Euclidean norm of the gradient there. Networks with kinks (relu) keep a floor.
    key : Array
        PRNG key that members' initialisations and prior functions are drawn again from.
    in_features, out_features : int
        Features of a point (for images a shape), and outputs.
    reg : float
        Regularisation.
    uncertainty : str
        Whose spread the members show.
    mode : array of shape [n, C] or None
        The posterior mode at the training points, where label noise was drawn.
    linearised : bool
        Whether members are networks linearised at their initial parameters.
    problem : str or None
        What identifies the points, targets, likelihood and time that a warm start goes on with;
        None where a version saved the members that did not keep it.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.ensemble import train_ensemble
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> net = MLP(width=64, depth=1)
    >>> trained = train_ensemble(jax.random.key(0), net, X, y, Categorical(), reg=1.0, n_members=3)
    >>> start, end = trained.member(0)  # the network itself, before and after
    >>> bool(jnp.allclose(end(X), trained.latents(X)[0], atol=1e-5))
    True
    """

    architecture: BaseArchitecture
    params: Any
    n_iter: NDArray[np.integer]
    converged: NDArray[np.bool_]
    objective: NDArray[np.floating]
    grad_norm: NDArray[np.floating]
    key: Array
    in_features: int | tuple[int, ...]
    out_features: int
    reg: float
    uncertainty: Uncertainty
    mode: NDArray[np.floating] | None = None
    linearised: bool = False
    problem: str | None = None

    def __len__(self) -> int:
        return len(self.n_iter)

    @own_rules()
    def latents(self, X: ArrayLike) -> Array:
        """Outputs (logits) of every member at m points, in the precision of X: [M, m, C]."""
        X = floating(X)
        return jnp.stack([self._member_latents(i, X) for i in range(len(self))])

    @own_rules()
    def member(self, i: int) -> tuple[Any, Any]:
        """Initial and trained parameters of one member."""
        params = jax.tree.map(lambda leaf: leaf[i], self.params)
        return self._drawn_again(i, params)[0], params

    def _member_latents(self, i: int, X: Array) -> Array:
        params = jax.tree.map(lambda leaf: leaf[i], self.params)
        plain = self.uncertainty == "initialization" and not self.linearised
        initial, tangent = (None, None) if plain else self._drawn_again(i, params)
        return _latents(
            self.architecture, self.uncertainty, self.linearised, params, initial, tangent,
            self.reg, X,
        )  # fmt: skip

    def _drawn_again(self, i: int, params: Any) -> tuple[Any, Any]:
        """Initial parameters and prior tangent, in the precision that they were trained in."""
        double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params))
        with jax.enable_x64(double):
            return draw(self.architecture, self.key, i, self.in_features, self.out_features)


@own_rules()
def linearisation(architecture: BaseArchitecture, params: Any, initial: Any, X: Array) -> Array:
    """Outputs [n, C] of the network linearised at its initial parameters."""
    displacement = jax.tree.map(jnp.subtract, params, initial)
    f0, change = jax.jvp(lambda p: architecture.apply(p, X), (initial,), (displacement,))
    return f0 + change


@partial(jax.jit, static_argnums=(0, 1, 2))
def _latents(
    architecture: BaseArchitecture,
    uncertainty: Uncertainty,
    linearised: bool,
    params: Any,
    initial: Any,
    tangent: Any,
    reg: Array | float,
    X: Array,
) -> Array:
    """Outputs [m, C] of one member, in the precision of X."""
    params, initial, tangent, reg = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, X.dtype), (params, initial, tangent, reg)
    )

    def network(x: Array) -> Array:
        if linearised:
            return linearisation(architecture, params, initial, x)
        return architecture.apply(params, x)

    def one_point(x: Array) -> Array:
        prior = prior_function(architecture, uncertainty, initial, tangent, reg, x[None])
        return (network(x[None]) + prior)[0]

    if not isinstance(X.shape[0], int):  # nobody knows yet, as in an export
        return jax.vmap(one_point)(X)
    return lax.map(one_point, X, batch_size=_ROWS)

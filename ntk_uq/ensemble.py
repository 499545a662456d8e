r"""The finite ensemble: many wide networks, trained side by side over their initialisations.

Member i minimises, over its parameters,

.. math::
    L(\theta) = -\sum_j \log p(y_j \mid f(x_j; \theta))
                + \tfrac{reg}{2} \|\theta - \theta_0\|^2,

a sum over data, from its own :math:`\theta_0`. All members of a chunk take their steps in one
vmapped program. docs/theory: "Objective" and "Training finite networks".
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from ntk_uq._progress import Progress
from ntk_uq.architectures import BaseArchitecture
from ntk_uq.likelihoods import Likelihood

__all__ = ["ConvergenceWarning", "TrainedEnsemble", "train_ensemble"]

# Iterations between two looks from outside: at progress, interrupts, and whether all are done.
_BLOCK = 5
# Decrease is judged over this many iterations: one iteration of conjugate gradients may do little.
_WINDOW = 5
# Memory that one chunk of members may take by default, in bytes.
_CHUNK_BYTES = 2**31
# Points that a member is evaluated at together.
_ROWS = 512
# Newton steps of the line search, in one scalar per member: plenty, and of no cost.
_LINE_SEARCH_STEPS = 8
# A new step is at most this many times the last one; the linear model of f that it trusts was
# measured at the last one's length.
_GROWTH = 4.0


class ConvergenceWarning(UserWarning):
    """Some members of an ensemble stopped before the criterion was met."""


class _Member(NamedTuple):
    """State of one member's optimisation; a vmapped axis of all leaves is the ensemble."""

    params: Any
    gradient: Any
    direction: Any
    latents: Array  # f at the training points, [n, C]
    objective: Array
    recent: Array  # objectives of the last iterations, [_WINDOW], newest last
    step: Array  # length of the last accepted step
    n_iter: Array
    converged: Array


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
    """

    architecture: BaseArchitecture
    params: Any
    n_iter: NDArray[np.integer]
    converged: NDArray[np.bool_]
    objective: NDArray[np.floating]
    grad_norm: NDArray[np.floating]

    def latents(self, X: Array) -> Array:
        """Outputs (logits) of every member at m points, in the precision of X: [M, m, C]."""
        return _apply_members(self.architecture, self.params, X)


def train_ensemble(
    key: Array,
    architecture: BaseArchitecture,
    X: Array,
    y: Array,
    likelihood: Likelihood,
    *,
    reg: float,
    n_members: int,
    uncertainty: Literal["initialization"] = "initialization",
    tol: float = 1e-4,
    max_iter: int = 1000,
    members_at_once: int | None = None,
    progress: Progress | None = None,
) -> TrainedEnsemble:
    r"""Train an ensemble of networks to convergence.

    Nonlinear conjugate gradients (Polak-Ribiere) on the whole data. A line search needs one more
    forward pass: it gives the change of the outputs along the direction, and the convex problem
    of the step length is then solved exactly in the outputs. Every update is in the span of the
    gradients, so that reg = 0 ends where gradient flow does in the lazy regime.

    A member is done when the first of these holds; tol is relative to the objective (and is
    never asked of less than 1 nat):

    - :math:`\|\nabla L\|^2 / (2\,reg)` is below tol. On a reg-strongly convex objective, as the
      linearised network's, this bounds the distance to the minimum.
    - Five iterations have gained less than tol. A relu network's gradient jumps at its kinks and
      never becomes small, so this is the criterion that ends its training.

    With reg = 0 the scale is not the objective, which the entropy of soft targets dominates,
    but 1 nat: the excess over the least possible loss, or the gain, is below tol nats.

    Parameters
    ----------
    key : Array
        PRNG key. Member i is initialised from ``fold_in(key, i)``: a larger ensemble keeps its
        earlier members.
    architecture : BaseArchitecture
        Gives ``init`` and ``apply``.
    X : Array of shape [n, d]
        Training points.
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    likelihood : Likelihood
        Observation model.
    reg : float
        Regularisation, >= 0. Zero needs targets that are not degenerate.
    n_members : int
        Number of members M.
    uncertainty : {"initialization"}
        Plain random-initialisation ensemble.
    tol : float
        Tolerance of the criterion.
    max_iter : int
        At most this many iterations.
    members_at_once : int, optional
        Members trained together; None takes what fits into 2 GiB.
    progress : callable, optional
        ``progress(done, total)`` is told iterations' worth of members that are done.

    Returns
    -------
    TrainedEnsemble

    Warns
    -----
    ConvergenceWarning
        Names members that reached `max_iter`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.ensemble import train_ensemble
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> net = MLP(width=64, depth=1)
    >>> trained = train_ensemble(jax.random.key(0), net, X, y, Categorical(), reg=1.0, n_members=3)
    >>> trained.latents(X).shape
    (3, 2, 2)
    """
    if uncertainty != "initialization":
        raise NotImplementedError(f"uncertainty={uncertainty!r} of finite ensembles.")
    size = members_at_once or _members_that_fit(architecture, X, y)
    size = -(-n_members // -(-n_members // size))  # chunks of one size compile once
    problem = _Problem(X, y, likelihood, jnp.float32(reg), jnp.float32(tol))
    chunks = []
    for start in range(0, n_members, size):
        # The last chunk is filled up with members that are not asked for.
        members = jnp.arange(start, start + size)
        initial, state = _start(architecture, key, members, problem)
        for done in range(0, max_iter, _BLOCK):
            limit = min(done + _BLOCK, max_iter)
            state = _advance(architecture, initial, state, problem, limit)
            n_done = int(jnp.sum(state.converged))  # waits for the block
            if progress is not None:
                progress(min(start + n_done, n_members), n_members)
            if n_done == size:
                break
        result = (state.params, state.n_iter, state.converged, state.objective)
        chunks.append((*result, jax.vmap(_norm)(state.gradient)))
    params, n_iter, converged, objective, grad_norm = jax.tree.map(
        lambda *parts: jnp.concatenate(parts)[:n_members], *chunks
    )
    trained = TrainedEnsemble(
        architecture,
        params,
        np.asarray(n_iter),
        np.asarray(converged),
        np.asarray(objective, dtype=np.float64),
        np.asarray(grad_norm, dtype=np.float64),
    )
    if not trained.converged.all():
        late = np.flatnonzero(~trained.converged)
        warnings.warn(
            f"{len(late)} of {n_members} members did not converge in max_iter={max_iter} "
            f"iterations: {', '.join(map(str, late[:10]))}{', ...' if len(late) > 10 else ''}. "
            "Raise max_iter or tol, or reg.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return trained


class _Problem(NamedTuple):
    X: Array
    y: Array
    likelihood: Likelihood
    reg: Array
    tol: Array


def _objective(architecture, params, initial, problem: _Problem):
    """L(theta), and f at the training points."""
    latents = architecture.apply(params, problem.X)
    loss = -jnp.sum(problem.likelihood.log_density(latents, problem.y))
    displacement = jax.tree.map(jnp.subtract, params, initial)
    return loss + 0.5 * problem.reg * _vdot(displacement, displacement), latents


@partial(jax.jit, static_argnums=0)
def _start(architecture, key, members, problem: _Problem):
    """Initial parameters and state of the members."""

    def one(i):
        initial = architecture.init(
            jax.random.fold_in(key, i), problem.X.shape[-1], problem.y.shape[-1]
        )
        (objective, latents), gradient = jax.value_and_grad(_objective, 1, has_aux=True)(
            architecture, initial, initial, problem
        )
        return initial, _Member(
            params=initial,
            gradient=gradient,
            direction=jax.tree.map(jnp.negative, gradient),
            latents=latents,
            objective=objective,
            recent=jnp.full(_WINDOW, jnp.inf),
            # A move of the parameters by 1e-2, much less than one weight's standard deviation:
            # the first line search extrapolates from it.
            step=1e-2 / (_norm(gradient) + 1e-30),
            n_iter=jnp.int32(0),
            converged=jnp.bool_(False),
        )

    return jax.vmap(one)(members)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(architecture, initial, state: _Member, problem: _Problem, limit):
    """Iterate until `limit` iterations were taken or every member has converged."""
    step = jax.vmap(partial(_iterate, architecture, problem))

    def unfinished(state: _Member):
        return jnp.any(~state.converged & (state.n_iter < limit))

    return lax.while_loop(unfinished, lambda state: step(state, initial), state)


def _iterate(architecture, problem: _Problem, member: _Member, initial) -> _Member:
    """One step of conjugate gradients of one member."""
    reg, tol = problem.reg, problem.tol
    trial = _move(member.params, member.step, member.direction)
    change = (architecture.apply(trial, problem.X) - member.latents) / member.step
    step = _line_search(problem, member, initial, change)

    params = _move(member.params, step, member.direction)
    (objective, latents), gradient = jax.value_and_grad(_objective, 1, has_aux=True)(
        architecture, params, initial, problem
    )
    squared_norm, last_squared_norm = (
        _vdot(gradient, gradient),
        _vdot(member.gradient, member.gradient),
    )
    conjugacy = (squared_norm - _vdot(gradient, member.gradient)) / (last_squared_norm + 1e-30)
    conjugacy = jnp.maximum(conjugacy, 0.0)
    slope = conjugacy * _vdot(gradient, member.direction) - squared_norm
    conjugacy = jnp.where(slope < 0, conjugacy, 0.0)
    direction = _move(jax.tree.map(jnp.negative, gradient), conjugacy, member.direction)

    # Single precision sums the objective to about this relative error.
    accepted = objective <= member.objective + 1e-6 * jnp.abs(member.objective)
    recent = jnp.roll(member.recent, -1).at[-1].set(objective)
    least, scale = _least_loss(problem), jnp.maximum(jnp.abs(objective), 1.0)
    scale = jnp.where(reg > 0, scale, 1.0)
    gap = jnp.where(reg > 0, squared_norm / (2 * reg), objective - least)
    stalled = member.recent[0] - objective < tol * scale
    moved = _Member(
        params,
        gradient,
        direction,
        latents,
        objective,
        recent,
        step,
        member.n_iter + 1,
        (gap < tol * scale) | stalled,
    )
    # A step that failed is taken back; a shorter one from there goes straight downhill.
    retry = member._replace(
        direction=jax.tree.map(jnp.negative, member.gradient),
        step=member.step / _GROWTH**2,
        recent=jnp.roll(member.recent, -1).at[-1].set(member.objective),
        n_iter=member.n_iter + 1,
        converged=member.recent[0] - member.objective < tol * scale,
    )
    return _select(member.converged, member, _select(accepted, moved, retry))


def _line_search(problem: _Problem, member: _Member, initial, change: Array) -> Array:
    """Step that minimises the objective with f linear in the step; convex in one variable."""
    likelihood, reg = problem.likelihood, problem.reg
    displacement = jax.tree.map(jnp.subtract, member.params, initial)
    offset = reg * _vdot(displacement, member.direction)
    stretch = reg * _vdot(member.direction, member.direction)

    def newton(_, t):
        latents = member.latents + t * change
        slope = offset + t * stretch - jnp.sum(likelihood.gradient(latents, problem.y) * change)
        curvature = likelihood.curvature(latents, problem.y)
        bend = stretch + jnp.sum(change * curvature.matvec(change))
        return jnp.clip(t - slope / (bend + 1e-30), t / _GROWTH, t * _GROWTH)

    first = member.n_iter == 0
    t = lax.fori_loop(0, _LINE_SEARCH_STEPS, newton, member.step)
    return jnp.where(first, t, jnp.clip(t, member.step / _GROWTH, member.step * _GROWTH))


def _least_loss(problem: _Problem) -> Array:
    """The least loss that any outputs have: the entropy of soft targets, zero for one-hot ones."""
    degenerate = problem.likelihood.degenerate(problem.y)
    y = problem.y
    best = problem.likelihood.log_density(problem.likelihood.optimum(y), y)
    return -jnp.sum(jnp.where(degenerate, 0.0, best))


def _select(condition, a, b):
    return jax.tree.map(partial(jnp.where, condition), a, b)


def _move(a, t, b):
    """A + t b."""
    return jax.tree.map(lambda x, y: x + t * y, a, b)


def _vdot(a, b) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, a, b))


def _norm(a) -> Array:
    return jnp.sqrt(_vdot(a, a))


@partial(jax.jit, static_argnums=0)
def _apply_members(architecture, params, X):
    def one_member(member):
        member = jax.tree.map(lambda leaf: leaf.astype(X.dtype), member)
        rows = lax.map(lambda x: architecture.apply(member, x[None])[0], X, batch_size=_ROWS)
        return rows

    return lax.map(one_member, params)


def _members_that_fit(architecture, X, y) -> int:
    """Members whose state and activations fit into the default memory of a chunk."""
    shapes = jax.eval_shape(
        lambda key: architecture.init(key, X.shape[-1], y.shape[-1]), jax.random.key(0)
    )
    n_params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # Parameters, their start, gradient, direction, and as many again while a step is taken;
    # activations and their gradients take about 16 floats for each input of a layer's unit.
    widths = sum(leaf.shape[-1] for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1)
    member_bytes = 4 * (8 * n_params + 16 * len(X) * widths)
    return max(1, _CHUNK_BYTES // member_bytes)

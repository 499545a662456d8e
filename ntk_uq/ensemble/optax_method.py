"""Training by an optax optimizer, on the whole data or on mini-batches."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from ntk_uq.ensemble.objective import Member, Problem, _select, objective, penalty, scale_of
from ntk_uq.likelihoods import Likelihood, Weighted

_OPTAX_WINDOW = 50


class _Walk(NamedTuple):
    """State of an optax optimizer."""

    params: Any
    optimizer_state: Any
    objective: Array
    recent: Array  # least objective so far, at the last iterations, newest last
    gap: Array
    n_iter: Array
    converged: Array


@dataclass(frozen=True)
class Optax:
    """An optax optimizer; one iteration is one pass over the data.

    Attributes
    ----------
    optimizer : optax.GradientTransformation
        Learning rate and schedule included.
    batch_size : int, optional
        Points in a mini-batch, drawn without replacement; those left over are not used in that
        pass. None takes all.
    n_passes : int
        Passes before which training does not end. The noise of mini-batches hides whether the
        objective still falls, and a schedule ends it only at its own end.
    """

    optimizer: optax.GradientTransformation
    batch_size: int | None = None
    n_passes: int = 0
    seeks_minimum: ClassVar[bool] = True

    def start(self, problem: Problem, member: Member) -> _Walk:
        """State before the first iteration."""
        value, _ = objective(problem, member, member.initial)
        return _Walk(
            params=member.initial,
            optimizer_state=self.optimizer.init(member.initial),
            objective=value,
            recent=jnp.full(_OPTAX_WINDOW, jnp.inf, value.dtype),
            gap=jnp.full_like(value, jnp.inf),
            n_iter=jnp.int32(0),
            converged=jnp.bool_(False),
        )

    def step(self, problem: Problem, member: Member, state: _Walk) -> _Walk:
        """One pass over the data."""

        def update(state: _Walk, batch: Array) -> tuple[_Walk, None]:
            return self.update(problem, member, state, batch), None

        batches = self.batches(member, state, len(problem.X))
        return self.settle(problem, member, lax.scan(update, state, batches)[0])

    def batches(self, member: Member, state: _Walk, n: int) -> Array:
        """Places of the points of each mini-batch of the next pass: [batches, points]."""
        size = n if self.batch_size is None else self.batch_size
        if size == n:
            return jnp.arange(n)[None]
        order = jax.random.permutation(jax.random.fold_in(member.key, state.n_iter), n)
        return order[: n // size * size].reshape(-1, size)

    def update(self, problem: Problem, member: Member, state: _Walk, batch: Array) -> _Walk:
        """A step by the points of a mini-batch, within a pass."""
        n, size = len(problem.X), len(batch)
        optimizer = optax.with_extra_args_support(self.optimizer)
        part = problem._replace(
            X=problem.X[batch], y=problem.y[batch], likelihood=_rows(problem.likelihood, batch)
        )
        batch_member = member._replace(shift=member.shift[batch], noise=member.noise[batch])

        def batch_objective(params: Any) -> Array:
            """An unbiased estimate of the objective."""
            value, _ = objective(part, batch_member, params)
            return n / size * value - (n / size - 1) * penalty(problem, member, params)

        value, gradient = jax.value_and_grad(batch_objective)(state.params)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.params,
            value=value, grad=gradient, value_fn=batch_objective,
        )  # fmt: skip
        moved = optax.apply_updates(state.params, updates), optimizer_state
        params, optimizer_state = _select(
            state.converged, (state.params, state.optimizer_state), moved
        )
        return state._replace(params=params, optimizer_state=optimizer_state)

    def settle(self, problem: Problem, member: Member, state: _Walk) -> _Walk:
        """What a pass has come to: the objective, and whether it has converged."""
        value, _ = objective(problem, member, state.params)
        least = jnp.minimum(state.recent[-1], value)
        gap = (state.recent[0] - least) / scale_of(problem, least)
        settled = state._replace(
            objective=value,
            recent=jnp.roll(state.recent, -1).at[-1].set(least),
            gap=gap,
            n_iter=state.n_iter + 1,
            converged=(gap < problem.tol) & (state.n_iter + 1 >= self.n_passes),
        )
        return _select(state.converged, state, settled)


def update_rule(optimizer: optax.GradientTransformation) -> str:
    """What an optimizer does, as text: its settings lie in closures, and show in its program."""
    params = jnp.zeros(2)

    def loss(params: Array) -> Array:
        return jnp.sum(params**2)

    def update(gradient: Array, state: Any, params: Array) -> Any:
        value, extended = loss(params), optax.with_extra_args_support(optimizer)
        return extended.update(
            gradient, state, params, value=value, grad=gradient, value_fn=loss
        )  # fmt: skip

    program = jax.make_jaxpr(update)(params, optimizer.init(params), params)
    return f"{program} {[np.asarray(constant).tolist() for constant in program.consts]}"


def leaves_jacobian_span(optimizer: optax.GradientTransformation) -> bool:
    """Whether an optimizer's updates leave the span of the gradients that it was given.

    Tried out on least squares with two equations in eight unknowns, where the span is a plane.
    """
    jacobian = jax.random.normal(jax.random.key(0), (2, 8))
    start = jax.random.normal(jax.random.key(1), (8,))

    def loss(params: Array) -> Array:
        return 0.5 * jnp.sum((jacobian @ params - 1.0) ** 2)

    extended = optax.with_extra_args_support(optimizer)
    params, state = start, optimizer.init(start)
    for _ in range(5):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = extended.update(
            gradient, state, params, value=value, grad=gradient, value_fn=loss
        )
        params = optax.apply_updates(params, updates)
    moved = np.asarray(params - start, np.float64)
    basis = np.linalg.qr(np.asarray(jacobian, np.float64).T)[0]
    outside = moved - basis @ (basis.T @ moved)
    return bool(np.linalg.norm(outside) > 1e-3 * np.linalg.norm(moved))


def _rows(likelihood: Likelihood, batch: Array) -> Likelihood:
    """The likelihood of some of the training points."""
    return likelihood.take(batch) if isinstance(likelihood, Weighted) else likelihood

"""Training by gradient flow until a time, integrated with control of its error."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ntk_uq.ensemble.objective import Member, Problem, _move, _select, norm, objective

# Error of a step that is allowed, relative to how far the parameters have come, and at the start.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5
# A first step by which the parameters move by this much, less than a hundredth of one's spread.
_FIRST_MOVE = 1e-3
_LEAST, _MOST, _SAFETY = 0.2, 4.0, 0.9


class _Flowing(NamedTuple):
    """State of the integration."""

    params: Any
    slope: Any  # minus the gradient there
    time: Array
    step: Array
    objective: Array
    gap: Array  # share of the time that is left
    n_iter: Array
    converged: Array


@dataclass(frozen=True)
class GradientFlow:
    """The flow of minus the gradient, by Bogacki and Shampine's pair of orders 3 and 2.

    Attributes
    ----------
    time : float
        Where it stops.
    """

    time: float
    seeks_minimum: ClassVar[bool] = False

    def start(self, problem: Problem, member: Member) -> _Flowing:
        """State at time 0."""
        value, slope = _descent(problem, member, member.initial)
        done = jnp.asarray(self.time <= 0)
        return _Flowing(
            params=member.initial,
            slope=slope,
            time=jnp.zeros_like(value),
            step=_FIRST_MOVE / (norm(slope) + 1e-30),
            objective=value,
            gap=jnp.where(done, 0.0, jnp.ones_like(value)),
            n_iter=jnp.int32(0),
            converged=done,
        )

    def step(self, problem: Problem, member: Member, state: _Flowing) -> _Flowing:
        """One step, taken if its error is small enough."""
        left = self.time - state.time
        h = jnp.minimum(state.step, left)
        k1 = state.slope
        _, k2 = _descent(problem, member, _move(state.params, 0.5 * h, k1))
        _, k3 = _descent(problem, member, _move(state.params, 0.75 * h, k2))
        moved = jax.tree.map(
            lambda p, a, b, c: p + h * (2 * a + 3 * b + 4 * c) / 9, state.params, k1, k2, k3
        )
        value, k4 = _descent(problem, member, moved)
        error = h * norm(
            jax.tree.map(lambda a, b, c, d: -5 * a / 72 + b / 12 + c / 9 - d / 8, k1, k2, k3, k4)
        )
        displacement = norm(jax.tree.map(jnp.subtract, moved, member.initial))
        allowed = _RELATIVE * displacement + _ABSOLUTE
        accepted = error <= allowed  # not where it is not a number
        factor = _SAFETY * (allowed / jnp.maximum(error, 1e-30)) ** (1 / 3)
        factor = jnp.where(jnp.isfinite(factor), jnp.clip(factor, _LEAST, _MOST), _LEAST)
        done = accepted & (h >= left)
        time = jnp.where(done, self.time, state.time + h)
        after = _Flowing(
            moved,
            k4,
            time,
            # A step that was cut to end in time says nothing of longer ones.
            jnp.maximum(h * factor, jnp.where(h < state.step, state.step, 0.0)),
            value,
            1 - time / self.time if self.time > 0 else jnp.zeros_like(value),
            state.n_iter + 1,
            done,
        )
        retry = state._replace(step=h * jnp.minimum(factor, _SAFETY), n_iter=state.n_iter + 1)
        return _select(state.converged, state, _select(accepted, after, retry))


def _descent(problem: Problem, member: Member, params: Any) -> tuple[Array, Any]:
    """The objective, and minus its gradient."""
    (value, _), gradient = jax.value_and_grad(objective, 2, has_aux=True)(problem, member, params)
    return value, jax.tree.map(jnp.negative, gradient)

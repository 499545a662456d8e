"""Nonlinear conjugate gradients on the whole data, with the line search solved in the outputs."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk_uq.ensemble.objective import (
    Member,
    Problem,
    _move,
    _select,
    certificate,
    norm,
    objective,
    outputs,
    scale_of,
    vdot,
)

# Iterations over which a decrease is judged. One iteration of conjugate gradients may do little;
# an optimizer that does not search along its direction oscillates, the more so on mini-batches.
_CG_WINDOW = 5
# Newton steps of the line search, in one scalar per member. It starts from the last step, and
# more than two change nothing that can be measured; each costs two passes over the outputs.
_LINE_SEARCH_STEPS = 4
# A new step is at most this many times the last one; the linear model of f that it trusts was
# measured at the last one's length.
_GROWTH = 4.0


class _Descent(NamedTuple):
    """State of conjugate gradients."""

    params: Any
    gradient: Any
    direction: Any
    latents: Array  # outputs at the training points, [n, C]
    objective: Array
    recent: Array  # objectives of the last iterations, newest last
    step: Array  # length of the last accepted step
    gap: Array  # what has to fall below tol
    n_iter: Array
    converged: Array


@dataclass(frozen=True)
class ConjugateGradients:
    """Nonlinear conjugate gradients (Hestenes-Stiefel), with one forward pass as line search.

    The pass gives the change of the outputs along the direction; the problem of the step length,
    convex in the outputs, is then solved exactly with the outputs linear in the step.
    """

    seeks_minimum: ClassVar[bool] = True

    def start(self, problem: Problem, member: Member) -> _Descent:
        """State before the first iteration."""
        (value, latents), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
            problem, member, member.initial
        )
        return _Descent(
            params=member.initial,
            gradient=gradient,
            direction=jax.tree.map(jnp.negative, gradient),
            latents=latents,
            objective=value,
            recent=jnp.full(_CG_WINDOW, jnp.inf, value.dtype),
            # A move of the parameters by 1e-2, much less than one weight's standard deviation:
            # the first line search extrapolates from it.
            step=1e-2 / (norm(gradient) + 1e-30),
            gap=jnp.full_like(value, jnp.inf),
            n_iter=jnp.int32(0),
            converged=jnp.bool_(False),
        )

    def step(self, problem: Problem, member: Member, state: _Descent) -> _Descent:
        """One iteration."""
        trial = _move(state.params, state.step, state.direction)
        change = (outputs(problem, member, trial) - state.latents) / state.step
        step = _line_search(problem, member, state, change)

        params = _move(state.params, step, state.direction)
        (value, latents), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
            problem, member, params
        )
        squared_norm = vdot(gradient, gradient)
        slope = vdot(gradient, state.direction)
        bend = slope - vdot(state.gradient, state.direction)  # positive: the slope has risen
        conjugacy = (squared_norm - vdot(gradient, state.gradient)) / (bend + 1e-30)
        downhill = (conjugacy > 0) & (conjugacy * slope < squared_norm)
        conjugacy = jnp.where(downhill, conjugacy, 0.0)
        direction = _move(jax.tree.map(jnp.negative, gradient), conjugacy, state.direction)

        # Single precision sums the objective to about this relative error.
        accepted = value <= state.objective + 1e-6 * jnp.abs(state.objective)
        scale = scale_of(problem, value)
        certified = certificate(problem, value, squared_norm)
        gap = jnp.minimum(certified, state.recent[0] - value) / scale
        moved = _Descent(
            params,
            gradient,
            direction,
            latents,
            value,
            jnp.roll(state.recent, -1).at[-1].set(value),
            step,
            gap,
            state.n_iter + 1,
            gap < problem.tol,
        )
        # A step that failed is taken back; a shorter one from there goes straight downhill.
        gap = (state.recent[0] - state.objective) / scale
        retry = state._replace(
            direction=jax.tree.map(jnp.negative, state.gradient),
            step=state.step / _GROWTH**2,
            recent=jnp.roll(state.recent, -1).at[-1].set(state.objective),
            gap=gap,
            n_iter=state.n_iter + 1,
            converged=gap < problem.tol,
        )
        return _select(state.converged, state, _select(accepted, moved, retry))


def _line_search(problem: Problem, member: Member, state: _Descent, change: Array) -> Array:
    """Step that minimises the objective with f linear in the step; convex in one variable."""
    likelihood, reg = problem.likelihood, problem.reg
    displacement = jax.tree.map(jnp.subtract, state.params, member.initial)
    offset = reg * vdot(displacement, state.direction) + jnp.sum(member.noise * change)
    stretch = reg * vdot(state.direction, state.direction)

    def newton(_: Array, t: Array) -> Array:
        latents = state.latents + t * change
        slope = offset + t * stretch - jnp.sum(likelihood.gradient(latents, problem.y) * change)
        curvature = likelihood.curvature(latents, problem.y)
        bend = stretch + jnp.sum(change * curvature.matvec(change))
        return jnp.clip(t - slope / (bend + 1e-30), t / _GROWTH, t * _GROWTH)

    first = state.n_iter == 0
    t = lax.fori_loop(0, _LINE_SEARCH_STEPS, newton, state.step)
    return jnp.where(first, t, jnp.clip(t, state.step / _GROWTH, state.step * _GROWTH))

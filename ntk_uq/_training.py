r"""Minimising one network's objective; the ensemble vmaps it over members.

A method has ``start(problem, member)``, the state before the first iteration, and
``step(problem, member, state)``, one iteration. Its state has at least the fields of `Progressed`.
docs/theory: "Objective", "Training finite networks".
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from ntk_uq.likelihoods import Likelihood, Weighted

# Iterations over which a decrease is judged. One iteration of conjugate gradients may do little;
# an optimizer that does not search along its direction oscillates, the more so on mini-batches.
_CG_WINDOW = 5
_OPTAX_WINDOW = 50
# A member that no longer gains may be at its minimum, or stuck: where Newton's method predicts more
# than this share of the objective, it is stuck. Minima on the kinks of relu networks have 0.0005 to
# 0.01, those of smooth networks 1e-5; relu networks stuck on unscaled features 0.09 to 1000.
STUCK = 0.05
# Products with the Hessian that this may take. Each adds to what is predicted, and features that
# are badly scaled show in the first few.
_NEWTON_PRODUCTS = 50
# Newton steps of the line search, in one scalar per member. It starts from the last step, and
# more than two change nothing that can be measured; each costs two passes over the outputs.
_LINE_SEARCH_STEPS = 4
# A new step is at most this many times the last one; the linear model of f that it trusts was
# measured at the last one's length.
_GROWTH = 4.0


class Problem(NamedTuple):
    """What all members have in common."""

    apply: Callable[[Any, Array], Array]  # (params, X) -> outputs [n, C]
    X: Array
    y: Array
    likelihood: Likelihood
    reg: Array
    tol: Array


class Member(NamedTuple):
    """What makes a member; a leading axis of all leaves is the ensemble."""

    initial: Any  # parameters theta_0
    shift: Array  # added to the outputs at the training points, [n, C]
    noise: Array  # the linear term e of the loss, label noise, [n, C]
    key: Array  # of the order of mini-batches


class Method(Protocol):
    """How an objective is minimised. Hashable, so that a program is compiled once for it."""

    def start(self, problem: Problem, member: Member) -> Any:
        """State before the first iteration."""

    def step(self, problem: Problem, member: Member, state: Any) -> Any:
        """State after one more iteration."""


def outputs(problem: Problem, member: Member, params: Any) -> Array:
    """The member's outputs at the training points, its shift included: [n, C]."""
    return problem.apply(params, problem.X) + member.shift


def objective(problem: Problem, member: Member, params: Any) -> tuple[Array, Array]:
    """L(theta) in nats, and the outputs at the training points."""
    latents = outputs(problem, member, params)
    loss = jnp.sum(member.noise * latents) - jnp.sum(
        problem.likelihood.log_density(latents, problem.y)
    )
    return loss + penalty(problem, member, params), latents


def penalty(problem: Problem, member: Member, params: Any) -> Array:
    """The regulariser, reg / 2 times the squared distance from the initial parameters."""
    displacement = jax.tree.map(jnp.subtract, params, member.initial)
    return 0.5 * problem.reg * vdot(displacement, displacement)


def scale_of(problem: Problem, value: Array) -> Array:
    """What the tolerance is relative to: the objective, 1 nat for a small one or reg = 0.

    Above the least loss: densities have a constant, large where the noise is small.
    """
    excess = jnp.abs(value - least_loss(problem))
    return jnp.where(problem.reg > 0, jnp.maximum(excess, 1.0), 1.0)


def certificate(problem: Problem, value: Array, squared_norm: Array) -> Array:
    """Bound on the distance to the minimum of a linearised network's objective, in nats."""
    reg = problem.reg
    return jnp.where(reg > 0, squared_norm / (2 * reg), value - least_loss(problem))


def is_stuck(problem: Problem, member: Member, params: Any) -> Array:
    r"""Whether Newton's method predicts a decrease that training has not found.

    With outputs linear in the parameters the objective has the Hessian
    :math:`H = J^\top W J + reg\,I`, and a Newton step decreases its quadratic model by
    :math:`\tfrac12 \nabla L^\top H^{-1} \nabla L`. Conjugate gradients approach that from below,
    and their residual r leaves at most :math:`\|r\|^2 / (2\,reg)`, so that few products decide,
    and none where the gradient is small.
    """
    (value, latents), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
        problem, member, params
    )
    allowed = jnp.maximum(problem.tol, STUCK) * scale_of(problem, value)
    curvature = problem.likelihood.curvature(latents, problem.y)
    _, push = jax.linearize(partial(outputs, problem, member), params)
    pull = jax.linear_transpose(push, params)

    def undecided(state):
        k, _, _, squared_norm, predicted, left = state
        open_ = (predicted <= allowed) & (predicted + left > allowed) & (squared_norm > 0)
        return open_ & (k < _NEWTON_PRODUCTS)

    def product(state):
        k, residual, direction, squared_norm, predicted, _ = state
        (pulled,) = pull(curvature.matvec(push(direction)))
        image = _move(pulled, problem.reg, direction)
        step = squared_norm / (vdot(direction, image) + 1e-30)
        residual = _move(residual, -step, image)
        new = vdot(residual, residual)
        direction = _move(residual, new / squared_norm, direction)
        left = jnp.where(problem.reg > 0, new / (2 * problem.reg), jnp.inf)
        return k + 1, residual, direction, new, predicted + 0.5 * step * squared_norm, left

    squared_norm = vdot(gradient, gradient)
    left = certificate(problem, value, squared_norm)
    start = (jnp.int32(0), gradient, gradient, squared_norm, jnp.zeros_like(value), left)
    predicted = lax.while_loop(undecided, product, start)[4]
    return (predicted > allowed) | ~jnp.isfinite(value)


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

    def newton(_, t):
        latents = state.latents + t * change
        slope = offset + t * stretch - jnp.sum(likelihood.gradient(latents, problem.y) * change)
        curvature = likelihood.curvature(latents, problem.y)
        bend = stretch + jnp.sum(change * curvature.matvec(change))
        return jnp.clip(t - slope / (bend + 1e-30), t / _GROWTH, t * _GROWTH)

    first = state.n_iter == 0
    t = lax.fori_loop(0, _LINE_SEARCH_STEPS, newton, state.step)
    return jnp.where(first, t, jnp.clip(t, state.step / _GROWTH, state.step * _GROWTH))


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
        n = len(problem.X)
        size = n if self.batch_size is None else self.batch_size
        n_batches = n // size
        if n_batches == 1 and size == n:
            batches = jnp.arange(n)[None]
        else:
            order = jax.random.permutation(jax.random.fold_in(member.key, state.n_iter), n)
            batches = order[: n_batches * size].reshape(n_batches, size)
        optimizer = optax.with_extra_args_support(self.optimizer)

        def update(carry, batch):
            params, optimizer_state = carry
            part = problem._replace(
                X=problem.X[batch],
                y=problem.y[batch],
                likelihood=_rows(problem.likelihood, batch),
            )
            batch_member = member._replace(shift=member.shift[batch], noise=member.noise[batch])

            def batch_objective(params):
                """An unbiased estimate of the objective."""
                value, _ = objective(part, batch_member, params)
                return n / size * value - (n / size - 1) * penalty(problem, member, params)

            value, gradient = jax.value_and_grad(batch_objective)(params)
            updates, optimizer_state = optimizer.update(
                gradient, optimizer_state, params,
                value=value, grad=gradient, value_fn=batch_objective,
            )  # fmt: skip
            return (optax.apply_updates(params, updates), optimizer_state), None

        start = (state.params, state.optimizer_state)
        (params, optimizer_state), _ = lax.scan(update, start, batches)
        value, _ = objective(problem, member, params)
        least = jnp.minimum(state.recent[-1], value)
        gap = (state.recent[0] - least) / scale_of(problem, least)
        moved = _Walk(
            params,
            optimizer_state,
            value,
            jnp.roll(state.recent, -1).at[-1].set(least),
            gap,
            state.n_iter + 1,
            (gap < problem.tol) & (state.n_iter + 1 >= self.n_passes),
        )
        return _select(state.converged, state, moved)


def update_rule(optimizer: optax.GradientTransformation) -> str:
    """What an optimizer does, as text: its settings lie in closures, and show in its program."""
    params = jnp.zeros(2)

    def loss(params):
        return jnp.sum(params**2)

    def update(gradient, state, params):
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

    def loss(params):
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


def least_loss(problem: Problem) -> Array:
    """The least loss that any outputs have: the entropy of soft targets, zero for one-hot ones."""
    likelihood, y = problem.likelihood, problem.y
    best = likelihood.log_density(likelihood.optimum(y), y)
    return -jnp.sum(jnp.where(likelihood.degenerate(y), 0.0, best))


def _rows(likelihood: Likelihood, batch: Array) -> Likelihood:
    """The likelihood of some of the training points."""
    return likelihood.take(batch) if isinstance(likelihood, Weighted) else likelihood


def _select(condition, a, b):
    return jax.tree.map(partial(jnp.where, condition), a, b)


def _move(a, t, b):
    """A + t b."""
    return jax.tree.map(lambda x, y: x + t * y, a, b)


def vdot(a, b) -> Array:
    """Inner product of two pytrees."""
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, a, b))


def norm(a) -> Array:
    """Euclidean norm of a pytree."""
    return jnp.sqrt(vdot(a, a))

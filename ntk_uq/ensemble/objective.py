"""The objective that a member minimises, and the arithmetic of parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk_uq.likelihoods import Likelihood

# A member that no longer gains may be at its minimum, or stuck: where Newton's method predicts more
# than this share of the objective, it is stuck. Minima of smooth networks have 1e-5, those on kinks
# of relu networks 0.0005 to 0.01; at a width of 8 or 16 up to 0.2 is seen, of which a search of
# thousands of iterations gains a part; relu networks stuck on unscaled features 0.09 to 1000. With
# label noise the share is of the sizes of the terms.
STUCK = 0.2
# Products with the Hessian that this may take. Each adds to what is predicted, and features that
# are badly scaled show in the first few.
_NEWTON_PRODUCTS = 50


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

    seeks_minimum: ClassVar[bool]  # whether where it ends is to be judged as one

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


class NewtonStep(NamedTuple):
    """What conjugate gradients know of Newton's step after some products."""

    n_products: Array
    reg: Array
    residual: Any
    direction: Any
    squared_norm: Array  # of the residual
    predicted: Array  # decrease that is predicted so far, in nats
    left: Array  # at most what more products would add to it
    allowed: Array  # decrease that counts as none

    @property
    def undecided(self) -> Array:
        """Whether more products may tell whether the decrease is more than is allowed."""
        open_ = (self.predicted <= self.allowed) & (self.predicted + self.left > self.allowed)
        return open_ & (self.squared_norm > 0) & (self.n_products < _NEWTON_PRODUCTS)

    @property
    def decreases(self) -> Array:
        """Whether the decrease that is predicted is more than is allowed."""
        return self.predicted > self.allowed


def is_stuck(problem: Problem, member: Member, params: Any, asked: Array) -> Array:
    r"""Whether Newton's method predicts a decrease that training has not found.

    With outputs linear in the parameters the objective has the Hessian
    :math:`H = J^\top W J + reg\,I`, and a Newton step decreases its quadratic model by
    :math:`\tfrac12 \nabla L^\top H^{-1} \nabla L`. Conjugate gradients approach that from below,
    and their residual r leaves at most :math:`\|r\|^2 / (2\,reg)`, so that few products decide,
    and none where the gradient is small. Where nobody asks none is taken.
    """
    product = partial(newton_product, hessian(problem, member, params))
    start = newton_start(problem, member, params)
    return lax.while_loop(lambda step: step.undecided & asked, product, start).decreases


def hessian(problem: Problem, member: Member, params: Any) -> Callable[[Any], Any]:
    """What the Hessian of the linearised network's objective does to a pytree like params."""
    latents, push = jax.linearize(partial(outputs, problem, member), params)
    pull = jax.linear_transpose(push, params)
    curvature = problem.likelihood.curvature(latents, problem.y)

    def image(direction: Any) -> Any:
        (pulled,) = pull(curvature.matvec(push(direction)))
        return _move(pulled, problem.reg, direction)

    return image


def newton_start(problem: Problem, member: Member, params: Any) -> NewtonStep:
    """What is known before the first product; of no objective, that it decreases."""
    (value, latents), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
        problem, member, params
    )
    squared_norm, finite = vdot(gradient, gradient), jnp.isfinite(value)
    # The term of label noise has either sign, and may cancel the others: it counts by its size.
    linear = jnp.sum(member.noise * latents)
    scale = scale_of(problem, value - linear) + jnp.abs(linear)
    return NewtonStep(
        n_products=jnp.int32(0),
        reg=problem.reg,
        residual=gradient,
        direction=gradient,
        squared_norm=squared_norm,
        predicted=jnp.where(finite, 0.0, jnp.inf).astype(value.dtype),
        left=certificate(problem, value, squared_norm),
        allowed=jnp.where(finite, jnp.maximum(problem.tol, STUCK) * scale, 0.0),
    )


def newton_product(hessian: Callable[[Any], Any], step: NewtonStep) -> NewtonStep:
    """What is known after one more product with the Hessian."""
    image = hessian(step.direction)
    length = step.squared_norm / (vdot(step.direction, image) + 1e-30)
    residual = _move(step.residual, -length, image)
    new = vdot(residual, residual)
    return step._replace(
        n_products=step.n_products + 1,
        residual=residual,
        direction=_move(residual, new / step.squared_norm, step.direction),
        squared_norm=new,
        predicted=step.predicted + 0.5 * length * step.squared_norm,
        left=jnp.where(step.reg > 0, new / (2 * step.reg), jnp.inf),
    )


def least_loss(problem: Problem) -> Array:
    """The least loss that any outputs have: the entropy of soft targets, zero for one-hot ones."""
    likelihood, y = problem.likelihood, problem.y
    best = likelihood.log_density(likelihood.optimum(y), y)
    return -jnp.sum(jnp.where(likelihood.degenerate(y), 0.0, best))


def _select(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), a, b)


def _move(a: Any, t: Array, b: Any) -> Any:
    """A + t b."""
    return jax.tree.map(lambda x, y: x + t * y, a, b)


def vdot(a: Any, b: Any) -> Array:
    """Inner product of two pytrees."""
    return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, a, b))


def norm(a: Any) -> Array:
    """Euclidean norm of a pytree."""
    return jnp.sqrt(vdot(a, a))

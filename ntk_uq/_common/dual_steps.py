"""What iterations of the solver do between products with Theta: for every draw, all in one program.

The mathematics stands in `solver`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk_uq._common.deflation import CoupledDeflation, Deflation
from ntk_uq._common.support import Support

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Likelihood

__all__ = ["REPETITIONS", "Bracket", "DualProblem", "Iterate", "Line", "Steps", "per_draw"]

# Line searches stop once the slope has fallen to this fraction. Conjugacy needs them fairly
# exact: 0.5 costs more products with Theta than it saves evaluations, 0.01 the reverse.
_CURVATURE_CONDITION = 0.1
_MAX_LINE_SEARCH = 60
# A draw gains where its squared norm falls below this share of what it was.
_CLEAR_GAIN = 0.5
# Steps of preconditioners of their own that are not conjugate: most draws need 30 to 60.
_NEWTON_STEPS = 50
# Iterations end at this share of the tolerance: what rounding may hide comes on top.
_AIM = 0.25
# Rounding of the residual is taken for this many times what one repetition shows of it: repetitions
# differ by a little more than either is off, and points that are equal are off together.
REPETITIONS = 4


class DualProblem(NamedTuple):
    """What `solve_dual` is given beside Theta, draws first."""

    reg: Array | float
    y: Any  # [n, C]
    f0: Any  # [S, n, C]
    likelihood: "Likelihood"
    linear: Any = 0.0
    weights: Any = 1.0
    start: Any = None
    ntk_start: Any = None
    deflation: Deflation | CoupledDeflation | Support | None = None
    tol: Array | float = 1e-12
    max_iter: Array | int = 5000


class Iterate(NamedTuple):
    """Where the iterations are, draws last."""

    alpha: Array
    latents: Array
    descent: Array  # r
    direction: Array
    ntk_direction: Array
    ntk_steepest: Array  # Theta B r, with B the deflation
    norm: Array  # <r, r>_Theta, [S], or twice reg times a better bound
    slope: Array  # <r, B r>_Theta, [S]
    least: Array  # the norm that was last a clear gain, [S]
    gained: Array  # iteration of the last clear gain of a draw that is not solved
    iteration: Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["reg", "y", "prior", "likelihood", "linear", "weights", "deflation", "tol"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Steps:
    """What iterations do between products with Theta.

    Draws last, [n, C, S]: Theta v is one matrix product without transposes, and sums over outputs
    run over whole rows of draws.
    """

    reg: Array
    y: Array
    prior: Array
    likelihood: "Likelihood"
    linear: Array
    weights: Array
    deflation: Deflation | CoupledDeflation | None
    tol: Array | float

    @staticmethod
    def of(problem: DualProblem) -> "Steps":
        f0 = problem.f0
        linear = jnp.broadcast_to(problem.linear, f0.shape)
        weights = jnp.broadcast_to(problem.weights, f0.shape[:2])
        deflation = problem.deflation
        return Steps(
            jnp.asarray(problem.reg, f0.dtype),
            problem.y,
            jnp.moveaxis(f0, 0, -1),
            problem.likelihood,
            jnp.moveaxis(linear, 0, -1).astype(f0.dtype),
            weights.T[:, None, :].astype(f0.dtype),
            deflation.shared if isinstance(deflation, Support) else deflation,
            problem.tol,
        )

    def gradient(self, latents: Array) -> Array:
        return self.weights * per_draw(self.likelihood.gradient)(latents, self.y)

    def bend(self, latents: Array, v: Array) -> Array:
        """v^T W v of each draw: [S]."""
        curvature = per_draw(self.likelihood.curvature)(latents, self.y)
        bent = jax.vmap(lambda w, v: w.matvec(v), in_axes=-1, out_axes=-1)(curvature, v)
        return _dot(v, self.weights * bent)

    def is_open(self, norm: Array) -> Array:
        """Whether a draw of such a norm is not solved."""
        return norm > 2 * self.reg * _AIM * self.tol

    def active(self, it: Iterate) -> Array:
        return self.is_open(it.norm)

    @jax.jit
    def descent(self, alpha: Array, latents: Array) -> Array:
        """The negative gradient r, in the precision of the latents."""
        return self.gradient(latents) - self.linear - self.reg * alpha

    @jax.jit
    def open_draws(self, latents: Array, descent: Array, ntk_descent: Array) -> tuple[Any, Array]:
        """The curvature of each draw, [n, C, S], and which are not solved, [S]."""
        curvature = per_draw(self.likelihood.curvature)(latents, self.y)
        return curvature, self.is_open(_dot(descent, ntk_descent))

    def measure(
        self,
        latents: Array,
        descent: Array,
        ntk_descent: Array,
        preconditioned: tuple[Array, Array] | None,
    ) -> tuple[Array, Array, Array, Array]:
        """Direction B r, Theta B r, and what they say of r."""
        slope = jnp.maximum(_dot(descent, ntk_descent), 0.0)
        norm = jnp.fmin(slope, 2 * self.reg * self.curved(latents, descent))
        if preconditioned is not None:
            steepest, ntk_steepest = preconditioned
        elif self.deflation is not None:
            steepest, ntk_steepest = self.deflation.apply(descent, ntk_descent)
        else:
            return descent, ntk_descent, norm, slope
        of_b = _dot(descent, ntk_steepest)
        # Of a singular Theta r can be nearly all where Theta does not see it, and what B leaves of
        # the rest be lost in rounding: r itself is a direction then.
        lost = ~(of_b > 0)
        return (
            jnp.where(lost, descent, steepest),
            jnp.where(lost, ntk_descent, ntk_steepest),
            norm,
            jnp.where(lost, slope, of_b),
        )

    @jax.jit
    def first(
        self,
        alpha: Array,
        latents: Array,
        descent: Array,
        ntk_descent: Array,
        iteration: Array,
        preconditioned: tuple[Array, Array] | None = None,
    ) -> Iterate:
        """Where iterations begin; `preconditioned` is B r and Theta B r where they are known."""
        measured = self.measure(latents, descent, ntk_descent, preconditioned)
        steepest, ntk_steepest, norm, slope = measured
        return Iterate(
            alpha,
            latents,
            descent,
            steepest,
            ntk_steepest,
            ntk_steepest,
            norm,
            slope,
            norm,
            iteration,
            iteration,
        )

    @jax.jit
    def move(self, it: Iterate) -> tuple[Array, Array, Array]:
        """Coefficients, latents and r where the slope along the direction vanishes."""
        t, gradient = self.line_search(it)
        alpha = it.alpha + t * it.direction
        latents = it.latents + t * it.ntk_direction
        descent = gradient - self.linear - self.reg * alpha
        return alpha, latents, descent.astype(latents.dtype)

    @jax.jit
    def turn(
        self,
        it: Iterate,
        alpha: Array,
        latents: Array,
        descent: Array,
        ntk_descent: Array,
        preconditioned: tuple[Array, Array] | None = None,
    ) -> Iterate:
        """The next direction, conjugate to the last."""
        on = self.active(it)
        measured = self.measure(latents, descent, ntk_descent, preconditioned)
        steepest, ntk_steepest, norm, slope = measured
        # A draw that is solved to the last bit waits for the others with a norm of zero.
        last = jnp.where(on, it.slope, 1.0)
        beta = jnp.maximum((slope - _dot(descent, it.ntk_steepest)) / last, 0.0)
        if preconditioned is not None:
            # Newton's steps, each of another preconditioner. Where they have not arrived more is
            # curved than a preconditioner takes, and near the solution it hardly changes.
            beta = jnp.where(it.iteration < _NEWTON_STEPS, 0.0, beta)
        direction = steepest + beta * it.direction
        ntk_direction = ntk_steepest + beta * it.ntk_direction
        uphill = _dot(descent, ntk_direction) <= 0
        gains = on & (norm < _CLEAR_GAIN * it.least)
        return Iterate(
            alpha,
            latents,
            descent,
            jnp.where(uphill, steepest, direction),
            jnp.where(uphill, ntk_steepest, ntk_direction),
            ntk_steepest,
            jnp.where(on, norm, it.norm),
            jnp.where(on, slope, it.slope),
            jnp.where(gains, norm, it.least),
            jnp.where(jnp.any(gains), it.iteration + 1, it.gained),
            it.iteration + 1,
        )

    def line_search(self, it: Iterate) -> tuple[Array, Array]:
        """Root t of the slope along the direction, and grad log p there."""
        line = Line.along(self, it)
        end = lax.while_loop(line.unfinished, line.narrowed, line.beginning())
        return end.t, end.gradient

    @partial(jax.jit, static_argnames="rounding")
    def gap(
        self,
        it: Iterate,
        root: Array,
        alpha: Array,
        ntk_alpha: Array,
        ntk_r: Array,
        known: Array,
        rounding: float,
    ) -> Array:
        """Gap of a fresh iterate, with what rounding hides of it: [S].

        Rounding is measured: `alpha` and the products are of other numbers than the iterate's.
        """
        latents = self.prior + ntk_alpha
        change = self.gradient(latents) - self.linear - self.reg * alpha - it.descent
        hidden = REPETITIONS * jnp.sqrt(jnp.sum((root * change) ** 2, axis=(0, 1)))
        # <r, r>_Theta cancels where points are nearly equal.
        lost = it.descent * (ntk_r - known)
        lost = REPETITIONS * jnp.sqrt(jnp.sum(lost**2, axis=(0, 1)))
        gap = (jnp.sqrt(it.norm + lost) + hidden) ** 2 / (2 * self.reg)
        largest = jnp.abs(it.descent) + REPETITIONS * jnp.abs(change)
        gap = jnp.fmin(gap, self.curved(latents, largest))
        if not rounding:
            return gap
        # Entries of Theta are off independently: of what that does to latents, W^-1/2 times as much
        # in posterior standard deviations is the most that any one can be off.
        size = rounding * root * jnp.sqrt(jnp.sum((root * alpha) ** 2, axis=0))
        curvature = self.weights * per_draw(self.likelihood.curvature)(latents, self.y).diagonal
        stored = 0.5 * jnp.max(curvature * size**2, axis=(0, 1))
        return (jnp.sqrt(gap) + REPETITIONS * jnp.sqrt(stored)) ** 2

    def curved(self, latents: Array, descent: Array) -> Array:
        """Bound of the distance to the minimum by the likelihood's curvature, in nats: [S].

        The Hessian is no less than W Theta either. Where W is the same everywhere that is a bound
        too, and by far the better one where noise is small.
        """
        # Of a likelihood that does not say the curvature is taken for changing.
        if not getattr(self.likelihood, "constant_curvature", False):
            return jnp.full(descent.shape[-1], jnp.inf, descent.dtype)
        bend = self.weights * per_draw(self.likelihood.curvature)(latents, self.y).diagonal
        left = jnp.where(descent == 0, 0.0, descent**2 / bend)
        return 0.5 * jnp.sum(left, axis=(0, 1))


class Bracket(NamedTuple):
    """Where the root of a draw's slope lies, [S] each."""

    t: Array  # where the slope is evaluated next, and last
    low: Array
    high: Array
    step: Array  # the length of the last
    pending: Array  # the draws whose root is not found
    gradient: Array  # grad log p where the slope was evaluated last, [n, C, S]
    searched: Array


class Line(NamedTuple):
    """The objective's slope along each draw's direction d, which rises with the step length t.

    It is reg <alpha + t d, d>_Theta - <grad log p(f + t Theta d) - e, Theta d>.
    """

    steps: Steps
    it: Iterate
    offset: Array  # what does not depend on t
    stretch: Array
    initial: Array  # the slope at t = 0
    on: Array  # the draws that are not solved

    @staticmethod
    def along(steps: Steps, it: Iterate) -> "Line":
        offset = steps.reg * _dot(it.alpha, it.ntk_direction)
        offset = offset + _dot(steps.linear, it.ntk_direction)
        return Line(
            steps,
            it,
            offset.astype(it.latents.dtype),
            steps.reg * _dot(it.direction, it.ntk_direction),
            -_dot(it.descent, it.ntk_direction),
            steps.active(it),
        )

    def evaluated(self, t: Array) -> tuple[Array, Array, Array]:
        """The gradient grad log p, the slope and its derivative."""
        latents = self.it.latents + t * self.it.ntk_direction
        gradient = self.steps.gradient(latents)
        slope = self.offset + t * self.stretch - _dot(gradient, self.it.ntk_direction)
        return gradient, slope, self.steps.bend(latents, self.it.ntk_direction) + self.stretch

    def beginning(self) -> Bracket:
        zero = jnp.zeros_like(self.initial)
        beyond = jnp.full_like(zero, jnp.inf)
        gradient = jnp.zeros_like(self.it.latents)
        return Bracket(zero, zero, beyond, beyond, self.on, gradient, jnp.int32(0))

    def unfinished(self, at: Bracket) -> Array:
        # Once more than there are searches: where the last of them leads.
        return jnp.any(at.pending) & (at.searched <= _MAX_LINE_SEARCH + 1)

    def narrowed(self, at: Bracket) -> Bracket:
        """Newton's step where it is of use, and half of the bracket elsewhere.

        The likelihood is evaluated here alone: most of what there is to compile of a solver.
        """
        gradient, slope, bend = self.evaluated(at.t)
        first = at.searched == 0
        slope = jnp.where(first, self.initial, slope)
        pending = at.pending & ~(jnp.abs(slope) <= _CURVATURE_CONDITION * jnp.abs(self.initial))
        beyond = ~(slope <= 0)  # not a number where rates overflow
        low, high = jnp.where(beyond, at.low, at.t), jnp.where(beyond, at.t, at.high)
        newton = at.t - slope / bend
        middle = jnp.where(jnp.isinf(high), 4 * at.t, 0.5 * (low + high))
        # The slope is monotone: a Newton step outside the bracket is replaced by its middle.
        # So is one that is not half the last: up a wall of rates each would take one nat.
        inside = (newton > low) & (newton < high)
        useful = inside & (jnp.isinf(high) | (jnp.abs(newton - at.t) <= 0.5 * at.step))
        t = jnp.where(useful, newton, middle)
        # What is not found is at rounding's mercy: the objective still falls up to `low`.
        t = jnp.where(at.searched == _MAX_LINE_SEARCH, low, t)
        t = jnp.where(pending & (at.searched <= _MAX_LINE_SEARCH), t, at.t)
        return Bracket(t, low, high, jnp.abs(t - at.t), pending, gradient, at.searched + 1)


def per_draw(function: Callable) -> Callable:
    """The function of latents [n, C] and targets, of latents [n, C, S]."""
    return jax.vmap(function, in_axes=(-1, None), out_axes=-1)


def _dot(u: Array, v: Array) -> Array:
    """Inner product of each draw: [n, C, S], [n, C, S] -> [S]."""
    return jnp.sum(u * v, axis=(0, 1))

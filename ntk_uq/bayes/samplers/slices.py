"""Elliptical slice sampling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk_uq.bayes.posterior import Whitened
from ntk_uq.bayes.samplers.interface import ChainSampler, StepSeconds

if TYPE_CHECKING:
    from ntk_uq.bayes.convergence import Diagnostics

__all__ = ["EllipticalSlices"]

# Elliptical slices a draw: with tens of informed directions a slice moves a small part of the way.
_SLICES_PER_DRAW = 20
# For estimates: likelihoods that a slice evaluates (7 to 8 on digits).
_EVALUATIONS = 8
# A bracket halves about once an evaluation: beyond this many its angle is zero to rounding. Where
# every likelihood is zero or not a number, the state stays, and the diagnostics say so.
_MOST_EVALUATIONS = 100


class _SliceState(NamedTuple):
    key: Array
    z: Array
    latents: Array
    log_likelihood: Array


@dataclass(frozen=True)
class EllipticalSlices(ChainSampler):
    """Elliptical slice sampling, `thin` transitions a draw.

    Needs a `Whitened` posterior. A transition rotates the state towards a draw from the prior by an
    angle that is uniform on the slice, and has nothing to tune.
    """

    thin: int = _SLICES_PER_DRAW

    name: ClassVar[str] = "ess"
    title: ClassVar[str] = "elliptical slices"
    steps_statistic: ClassVar[str] = "n_evaluations"
    moves_further: ClassVar[str | None] = "nuts"

    def init(self, key: Array, posterior: Whitened) -> _SliceState:
        """State of a chain before its first transition."""
        key, key_position = jax.random.split(key)
        z = posterior.start(key_position)
        latents = posterior.prior.latents(z)
        return _SliceState(key, z, latents, posterior.log_likelihood(latents))

    def stepper(self, state: _SliceState, posterior: Whitened) -> Callable:
        """A function from a state to the next one, its position and statistics."""

        def step(state: _SliceState) -> tuple[_SliceState, Array, dict[str, Array]]:
            state, evaluations = lax.scan(
                lambda state, _: _slice(state, posterior), state, length=self.thin
            )
            n_evaluations = jnp.sum(evaluations)
            stats = {
                "n_evaluations": n_evaluations,
                "acceptance_rate": self.thin / n_evaluations,
                "lp": state.log_likelihood - 0.5 * jnp.sum(state.z**2),
            }
            return state, state.z, stats

        return step

    def draw_cost(self, step: StepSeconds) -> tuple[int, float]:
        """Slices of one draw; each takes one product and several likelihoods."""
        return self.thin, step.gradient / 2 + _EVALUATIONS * step.likelihood

    def work(self, diagnostics: "Diagnostics") -> dict[str, str]:
        """What the draws took, figures in words by their headings."""
        return {"Work": f"{diagnostics.steps_per_draw:.0f} likelihoods evaluated a draw"}


def _slice(state: _SliceState, posterior: Whitened) -> tuple[_SliceState, Array]:
    """One transition, and the likelihoods that it evaluated. Murray et al. 2010, figure 2."""
    key, key_ellipse, key_level, key_angle = jax.random.split(state.key, 4)
    other = posterior.start(key_ellipse)
    other_latents = posterior.prior.latents(other) if posterior.prior.linear else None
    level = state.log_likelihood - jax.random.exponential(key_level, dtype=state.z.dtype)

    def evaluate(angle: Array) -> tuple[Array, Array, Array]:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        z = cos * state.z + sin * other
        if other_latents is None:
            latents = posterior.prior.latents(z)
        else:
            latents = cos * state.latents + sin * other_latents
        return z, latents, posterior.log_likelihood(latents)

    def shrink(carry: tuple) -> tuple:
        key, low, high, angle, count, _ = carry
        low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
        key, key_angle = jax.random.split(key)
        angle = jax.random.uniform(key_angle, (), angle.dtype, low, high)
        return key, low, high, angle, count + 1, evaluate(angle)

    angle = jax.random.uniform(key_angle, (), state.z.dtype, 0.0, 2 * jnp.pi)
    first = key, angle - 2 * jnp.pi, angle, angle, jnp.int32(1), evaluate(angle)
    # Not "<", so that a likelihood that is not a number is outside the slice.
    key, *_, count, (z, latents, log_likelihood) = lax.while_loop(
        lambda carry: ~(carry[-1][2] > level) & (carry[-2] < _MOST_EVALUATIONS), shrink, first
    )
    return _SliceState(key, z, latents, log_likelihood), count

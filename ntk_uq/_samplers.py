r"""Markov chains and variational inference for a posterior in whitened coordinates.

A `Whitened` posterior is any prior, likelihood and targets, with the potential
:math:`U(z) = \tfrac12 \|z\|^2 - \log p(y \mid f(z))`. `Preconditioned` is the same posterior under
a Gaussian process, in coordinates in which it is nearly a standard normal. A sampler is a frozen
object with `init` and `stepper`; `run_chains` runs it, one thread a chain. See docs/theory:
"Sampling the posterior".
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray
from numpyro.infer import NUTS

from ntk_uq._machine import cores
from ntk_uq._priors import GaussianProcessPrior, NetworkPrior, Prior
from ntk_uq._progress import Progress
from ntk_uq._rules import own_rules
from ntk_uq.likelihoods import Likelihood

__all__ = [
    "SLICES_PER_DRAW",
    "VARIATIONAL_GRADIENTS",
    "Chains",
    "EllipticalSlices",
    "NoUTurn",
    "PosteriorDraws",
    "Whitened",
    "fit_mean_field",
    "posterior_of",
    "run_chains",
]

Floats = NDArray[np.floating]

# Draws between two looks at the interrupt flag and two reports of progress. The last block of a
# chain is cut to length, so at most this many draws less one are wasted.
_BLOCK = 20
_REPORT_SECONDS = 0.1
# Elliptical slices a draw: with tens of informed directions a slice moves a small part of the way.
SLICES_PER_DRAW = 20
# A bracket halves about once an evaluation: beyond this many its angle is zero to rounding. Where
# every likelihood is zero or not a number, the state stays, and the diagnostics say so.
_MOST_EVALUATIONS = 100
# Variational inference: steps of Adam, its largest rate, samples of the gradient, and steps between
# two reports. Final errors are below a tenth of a standard deviation on the problems of the tests.
_STEPS, _RATE, _PARTICLES, _STEPS_PER_REPORT = 3000, 0.05, 8, 100
VARIATIONAL_GRADIENTS = _STEPS * _PARTICLES


class Whitened(NamedTuple):
    """A posterior in its prior's whitened variables z: traced, so that equal shapes compile once.

    The potential is U(z), up to a constant.
    """

    prior: Any
    targets: Array
    likelihood: Likelihood

    def start(self, key: Array) -> Array:
        """A draw from the prior, which is wider than the posterior."""
        return self.prior.sample_whitened(key, self.targets.shape[1])

    def potential(self, z: Array) -> Array:
        """Half the squared norm less the log likelihood."""
        return 0.5 * jnp.sum(z**2) - self.log_likelihood(self.prior.latents(z))

    def outcome(self, z: Array) -> tuple[Array, Array]:
        """Whitened variables and latents at a position."""
        return z, self.prior.latents(z)

    def log_joint(self, potential: Array) -> Array:
        """Log density of z and y, less the constant of the prior."""
        return -potential

    def log_likelihood(self, latents: Array) -> Array:
        """Log p(y | f) over all points."""
        return jnp.sum(self.likelihood.log_density(latents, self.targets))


def posterior_of(
    function: str, prior: ArrayLike | Prior, targets: ArrayLike, likelihood: Likelihood
) -> Whitened:
    targets = jnp.asarray(targets)
    if isinstance(prior, NetworkPrior):
        shape: tuple[int, ...] = (len(prior.points), prior.n_outputs)
        wanted, fits = f"a network of {shape[1]} outputs at {shape[0]} points", True
    else:
        if not isinstance(prior, GaussianProcessPrior):
            prior = jnp.asarray(prior)
        matrix = prior.factor if isinstance(prior, GaussianProcessPrior) else prior
        shape = (len(matrix), *targets.shape[1:])
        wanted = f"a covariance of shape [n, n], got {matrix.shape},"
        fits = matrix.shape == (len(matrix), len(matrix))
    if not fits or targets.ndim != 2 or targets.shape != shape:
        raise ValueError(
            f"{function} takes {wanted} and targets of shape [n, C], got {targets.shape}; classes "
            "must be one-hot rows."
        )
    if not isinstance(prior, (GaussianProcessPrior, NetworkPrior)):
        prior = GaussianProcessPrior.from_covariance(prior)
    return Whitened(prior, targets, likelihood)


@dataclass(frozen=True)
class NoUTurn:
    """The No-U-Turn sampler of NumPyro."""

    num_warmup: int
    target_accept_prob: float
    max_tree_depth: int

    def _kernel(self, posterior: Any) -> NUTS:
        return NUTS(
            potential_fn=posterior.potential,
            target_accept_prob=self.target_accept_prob,
            max_tree_depth=self.max_tree_depth,
        )

    def init(self, key: Array, posterior: Any) -> Any:
        """State of a chain before its first transition."""
        key_position, key_kernel = jax.random.split(key)
        start = posterior.start(key_position)
        return self._kernel(posterior).init(key_kernel, self.num_warmup, start)

    def stepper(self, state: Any, posterior: Any) -> Callable:
        """A function from a state to the next one, its position and statistics."""
        kernel = self._kernel(posterior)
        # Before it samples, a kernel must have made a state; the compiler drops this one.
        kernel.init(jax.random.key(0), self.num_warmup, state.z)

        def step(state: Any) -> tuple[Any, Array, dict[str, Array]]:
            state = kernel.sample(state, (), {})
            stats = {
                "diverging": state.diverging,
                "acceptance_rate": state.accept_prob,
                "n_steps": state.num_steps,
                "step_size": state.adapt_state.step_size,
                "energy": state.energy,
                "lp": posterior.log_joint(state.potential_energy),
            }
            return state, state.z, stats

        return step

    def complete(self, stats: dict[str, NDArray]) -> dict[str, NDArray]:
        """Statistics that follow from those recorded."""
        depth = np.ceil(np.log2(stats["n_steps"] + 1)).astype(int)
        return stats | {
            "tree_depth": depth,
            "reached_max_treedepth": depth >= self.max_tree_depth,
        }


class _SliceState(NamedTuple):
    key: Array
    z: Array
    latents: Array
    log_likelihood: Array


@dataclass(frozen=True)
class EllipticalSlices:
    """Elliptical slice sampling, `thin` transitions a draw.

    Needs a `Whitened` posterior. A transition rotates the state towards a draw from the prior by an
    angle that is uniform on the slice, and has nothing to tune.
    """

    thin: int = SLICES_PER_DRAW

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

    def complete(self, stats: dict[str, NDArray]) -> dict[str, NDArray]:
        """Statistics that follow from those recorded."""
        return stats


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


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws from the posterior at the training points, and how the sampler got them.

    Attributes
    ----------
    prior : GaussianProcessPrior or NetworkPrior
        Maps whitened variables to latents.
    whitened : array of shape [chain, draw, n, C], or [chain, draw, P] for a network
        Whitened variables z.
    latents : array of shape [chain, draw, n, C]
        Latents f(z) at the training points.
    sample_stats : dict of arrays of shape [chain, draw]
        By ArviZ's names. Of every sampler lp, the log joint density of z and y, less the constant
        of the prior. Of NUTS: diverging, acceptance_rate, n_steps (leapfrog steps), tree_depth,
        reached_max_treedepth, step_size, energy. Of elliptical slices: n_evaluations of the
        likelihood, and acceptance_rate, the share of them that was accepted.
    seconds : float
        Wall seconds in all, compilation and warm-up included.
    sampler : {"nuts", "ess", "vi"}
        "vi" draws are independent, from an approximation.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(3), jnp.ones((3, 1)), Gaussian(noise=1.0),
    ...     sampler="ess", num_warmup=10, num_samples=20, num_chains=2,
    ... )
    >>> draws.latents.shape, draws.sample_stats["lp"].shape
    ((2, 20, 3, 1), (2, 20))
    """

    prior: Any
    whitened: Floats
    latents: Floats
    sample_stats: Mapping[str, NDArray]
    seconds: float
    sampler: str = "nuts"


class Chains(NamedTuple):
    """Draws [chain, draw, ...] and what they took."""

    whitened: Floats
    latents: Floats
    sample_stats: Mapping[str, NDArray]
    seconds: float


@partial(jax.jit, static_argnames="sampler")
def _start(key: Array, posterior: Any, sampler: Any) -> Any:
    return sampler.init(key, posterior)


@partial(jax.jit, static_argnames="sampler")
def _advance(state: Any, posterior: Any, sampler: Any) -> Any:
    """Make a block of draws: the new state, and (z, f, statistics) of each."""
    step = sampler.stepper(state, posterior)

    def draw(state: Any, _: None) -> tuple[Any, tuple]:
        state, position, stats = step(state)
        return state, (*posterior.outcome(position), stats)

    return lax.scan(draw, state, length=_BLOCK)


def run_chains(
    key: Array,
    posterior: Any,
    sampler: Any,
    *,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    progress: Progress | None,
    double: bool,
) -> Chains:
    """Run the chains, one thread each; JAX lets go of the interpreter while it computes.

    Parameters
    ----------
    key : Array
        PRNG key. Chain i uses ``fold_in(key, i)``.
    posterior : Whitened or Preconditioned
        What is sampled.
    sampler : NoUTurn or EllipticalSlices
        How.
    num_warmup, num_samples, num_chains : int
        Draws that are dropped and kept, of each chain, and chains.
    progress : callable or None
        ``progress(done, total)`` is told draws over all chains, warm-up included.
    double : bool
        Whether chains run in double precision.
    """
    length = num_warmup + num_samples
    drawn = [0] * num_chains
    stop = threading.Event()

    def run_chain(index: int):
        # JAX's settings are a thread's own, so every thread makes them.
        with own_rules(), jax.enable_x64(double):
            state = _start(jax.random.fold_in(key, index), posterior, sampler)
            kept = []
            while drawn[index] < length:
                if stop.is_set():
                    return None
                state, block = jax.block_until_ready(_advance(state, posterior, sampler))
                # Draws of this block past the warm-up, and not past the end.
                first = max(num_warmup - drawn[index], 0)
                last = min(length - drawn[index], _BLOCK)
                if first < last:
                    kept.append(
                        jax.tree.map(lambda x, s=slice(first, last): np.asarray(x)[s], block)
                    )
                drawn[index] += last
            return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)

    start = time.perf_counter()
    with ThreadPoolExecutor(min(num_chains, cores())) as pool:
        chains = [pool.submit(run_chain, index) for index in range(num_chains)]
        try:
            running = set(chains)
            while running:
                ended, running = wait(running, _REPORT_SECONDS, return_when=FIRST_EXCEPTION)
                for chain in ended:
                    chain.result()
                if progress is not None:
                    progress(sum(drawn), num_chains * length)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    whitened, latents, stats = jax.tree.map(
        lambda *parts: np.stack(parts), *(chain.result() for chain in chains)
    )
    return Chains(whitened, latents, sampler.complete(stats), time.perf_counter() - start)


class MeanField(NamedTuple):
    """A Gaussian with independent coordinates.

    Attributes
    ----------
    loc, scale : Arrays of the shape of z
        Means and standard deviations.
    elbo : array of shape [reports]
        Evidence lower bound in nats, averaged over the steps between two reports.
    """

    loc: Array
    scale: Array
    elbo: Floats


def fit_mean_field(key: Array, posterior: Whitened, progress: Progress | None) -> MeanField:
    r"""Fit a Gaussian with independent whitened variables by the evidence lower bound.

    .. math:: \mathrm{E}_q \log p(y \mid f(z)) - \mathrm{KL}(q \,\|\, N(0, I)),

    whose second term is known. Adam with a falling rate, and reparameterised gradients.
    """
    key_start, key_steps = jax.random.split(key)
    loc = posterior.start(key_start)
    state = _MeanFieldState((loc, jnp.zeros_like(loc)), _adam().init((loc, jnp.zeros_like(loc))))
    elbo = []
    for first in range(0, _STEPS, _STEPS_PER_REPORT):
        state, values = _improve(state, jax.random.fold_in(key_steps, first), posterior)
        elbo.append(float(jnp.mean(values)))
        if progress is not None:
            progress(first + _STEPS_PER_REPORT, _STEPS, elbo=elbo[-1])
    loc, log_scale = state.params
    return MeanField(loc, jnp.exp(log_scale), np.asarray(elbo))


class _MeanFieldState(NamedTuple):
    params: tuple[Array, Array]  # mean, log standard deviation
    optimizer: Any


def _adam() -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))


@jax.jit
def _improve(state: _MeanFieldState, key: Array, posterior: Whitened) -> tuple[Any, Array]:
    def negative_elbo(params: tuple[Array, Array], key: Array) -> Array:
        loc, log_scale = params
        noise = jax.random.normal(key, (_PARTICLES, *loc.shape), loc.dtype)
        fit = jax.vmap(lambda z: posterior.log_likelihood(posterior.prior.latents(z)))(
            loc + jnp.exp(log_scale) * noise
        )
        divergence = 0.5 * jnp.sum(jnp.exp(2 * log_scale) + loc**2 - 1 - 2 * log_scale)
        return divergence - jnp.mean(fit)

    def step(state: _MeanFieldState, key: Array) -> tuple[_MeanFieldState, Array]:
        value, gradient = jax.value_and_grad(negative_elbo)(state.params, key)
        updates, optimizer = _adam().update(gradient, state.optimizer)
        return _MeanFieldState(optax.apply_updates(state.params, updates), optimizer), -value

    return lax.scan(step, state, jax.random.split(key, _STEPS_PER_REPORT))

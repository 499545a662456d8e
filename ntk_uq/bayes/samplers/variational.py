"""Variational inference: draws from the mean-field Gaussian nearest to the posterior."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common import checks
from ntk_uq._common.leaves import as_numpy
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import Floats, PosteriorDraws, Whitened, check_counts, posterior_of
from ntk_uq.bayes.priors import NETWORKS_AT_ONCE, Prior
from ntk_uq.bayes.samplers.interface import DrawSampler, StepSeconds
from ntk_uq.likelihoods import Likelihood

__all__ = ["Variational", "fit_mean_field", "variational_latents"]

# Variational inference: steps of Adam, its largest rate, samples of the gradient, and steps between
# two reports. Final errors are below a tenth of a standard deviation on the problems of the tests.
_STEPS, _RATE, _PARTICLES, _STEPS_PER_REPORT = 3000, 0.05, 8, 100


@own_rules()
def variational_latents(
    key: Array,
    prior: ArrayLike | Prior,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    num_samples: int,
    num_chains: int = 1,
    progress: Progress | None = None,
) -> PosteriorDraws:
    """Draw from the mean-field Gaussian nearest to the posterior, by variational inference.

    The whitened variables are independent normal under the approximation, whose means and scales
    maximise the evidence lower bound. It misses what the data correlate, and its spread is apt to
    be too narrow.

    Parameters
    ----------
    key : Array
        PRNG key.
    prior, targets, likelihood
        As for `sample_latents`.
    num_samples, num_chains : int
        The draws are independent; they come in the shape [chain, draw] of `sample_latents`.
    progress : callable, optional
        ``progress(done, total, elbo=...)`` is told steps of the optimiser.

    Returns
    -------
    PosteriorDraws
        Its `sample_stats` are lp, and elbo: the evidence lower bound in nats, the same for every
        draw.

    Raises
    ------
    ValueError
        As for `sample_latents`, and if the optimiser leaves the range of numbers.

    References
    ----------
    Kucukelbir, Tran, Ranganath, Gelman and Blei 2017, "Automatic differentiation variational
    inference".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.variational_latents(
    ...     jax.random.key(0), jnp.eye(1), jnp.array([[2.0]]), Gaussian(noise=1.0),
    ...     num_samples=1000,
    ... )
    >>> abs(float(draws.latents.mean()) - 1.0) < 0.1
    True
    """
    checks.key(key)
    check_counts("variational_latents", 0, num_samples, num_chains)
    posterior = posterior_of("variational_latents", prior, targets, likelihood)
    return Variational().draw(
        key, posterior, num_samples=num_samples, num_chains=num_chains, progress=progress
    )


@dataclass(frozen=True)
class Variational(DrawSampler):
    """Independent draws from the nearest Gaussian with independent whitened variables."""

    name: ClassVar[str] = "vi"
    title: ClassVar[str] = "variational inference"

    def draw(
        self,
        key: Array,
        posterior: Whitened,
        *,
        num_samples: int,
        num_chains: int,
        num_warmup: int = 0,
        progress: Progress | None = None,
    ) -> PosteriorDraws:
        """Draws in the shape [num_chains, num_samples]; there is no warm-up."""
        start = time.perf_counter()
        key_fit, key_draws = jax.random.split(key)
        fit = fit_mean_field(key_fit, posterior, progress)
        if not (np.isfinite(fit.elbo[-1]) and np.all(np.isfinite(fit.loc))):
            raise ValueError(
                "Variational inference left the range of numbers: the likelihood overflows at "
                "draws from the prior, whose latents are too large. Raise reg or scale the kernel "
                'down, or use sampler="nuts".'
            )
        shape = (num_chains * num_samples, *fit.loc.shape)
        whitened = fit.loc + fit.scale * jax.random.normal(key_draws, shape, fit.loc.dtype)
        latents, lp = _evaluate_draws(posterior, whitened)
        split = partial(_split_chains, num_chains)
        return PosteriorDraws(
            as_numpy(posterior.prior),
            split(whitened),
            split(latents),
            {"lp": split(lp), "elbo": np.full((num_chains, num_samples), fit.elbo[-1])},
            time.perf_counter() - start,
            self.name,
        )

    def cost(
        self, step: StepSeconds, *, num_warmup: int, num_samples: int, num_chains: int
    ) -> tuple[int, float]:
        """Gradients, and wall seconds: as many for any number of draws."""
        n_gradients = _STEPS * _PARTICLES
        return n_gradients, n_gradients * step.gradient


@jax.jit
def _evaluate_draws(posterior: Whitened, whitened: Array) -> tuple[Array, Array]:
    """Latents and log joint density of draws of z, a few at once."""

    def evaluate(z: Array) -> tuple[Array, Array]:
        latents = posterior.prior.latents(z)
        return latents, posterior.log_likelihood(latents) - 0.5 * jnp.sum(z**2)

    return lax.map(evaluate, whitened, batch_size=NETWORKS_AT_ONCE)


def _split_chains(num_chains: int, draws: Array) -> NDArray:
    return np.asarray(draws).reshape(num_chains, -1, *draws.shape[1:])


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

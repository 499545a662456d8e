"""Draws from the mean-field approximation."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.mean_field import fit_mean_field
from ntk_uq.bayes.posterior import PosteriorDraws, Whitened, posterior_of
from ntk_uq.bayes.prediction import _NETWORKS_AT_ONCE
from ntk_uq.bayes.priors import Prior, as_numpy
from ntk_uq.bayes.sampling import _check_counts
from ntk_uq.likelihoods import Likelihood

__all__ = ["variational_latents"]


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
    _check_counts("variational_latents", 0, num_samples, num_chains)
    posterior = posterior_of("variational_latents", prior, targets, likelihood)
    start = time.perf_counter()
    key_fit, key_draws = jax.random.split(key)
    fit = fit_mean_field(key_fit, posterior, progress)
    if not (np.isfinite(fit.elbo[-1]) and np.all(np.isfinite(fit.loc))):
        raise ValueError(
            "Variational inference left the range of numbers: the likelihood overflows at draws "
            "from the prior, whose latents are too large. Raise reg or scale the kernel down, or "
            'use sampler="nuts".'
        )
    shape = (num_chains * num_samples, *fit.loc.shape)
    whitened = fit.loc + fit.scale * jax.random.normal(key_draws, shape, fit.loc.dtype)
    latents, lp = _evaluate_draws(posterior, whitened)
    split = partial(_split_chains, num_chains)
    stats = {"lp": split(lp), "elbo": np.full((num_chains, num_samples), fit.elbo[-1])}
    return PosteriorDraws(
        as_numpy(posterior.prior),
        split(whitened),
        split(latents),
        stats,
        time.perf_counter() - start,
        "vi",
    )


@jax.jit
def _evaluate_draws(posterior: Whitened, whitened: Array) -> tuple[Array, Array]:
    """Latents and log joint density of draws of z, a few at once."""

    def evaluate(z: Array) -> tuple[Array, Array]:
        latents = posterior.prior.latents(z)
        return latents, posterior.log_likelihood(latents) - 0.5 * jnp.sum(z**2)

    return lax.map(evaluate, whitened, batch_size=_NETWORKS_AT_ONCE)


def _split_chains(num_chains: int, draws: Array) -> NDArray:
    return np.asarray(draws).reshape(num_chains, -1, *draws.shape[1:])

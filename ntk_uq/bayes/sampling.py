"""Sampling the latents at the training points by Markov chains."""

from jax import Array
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import PosteriorDraws, check_counts, posterior_of
from ntk_uq.bayes.priors import Prior
from ntk_uq.bayes.samplers.interface import ChainSampler
from ntk_uq.bayes.samplers.table import sampler_named
from ntk_uq.likelihoods import Likelihood

__all__ = ["sample_latents"]


@own_rules()
def sample_latents(
    key: Array,
    prior: ArrayLike | Prior,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    sampler: str = "nuts",
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    target_accept_prob: float | None = None,
    max_tree_depth: int | None = None,
    progress: Progress | None = None,
) -> PosteriorDraws:
    """Sample the latents at the training points by Markov chains.

    Chains start at independent draws from the prior and run in parallel, one thread each, on one
    compiled program. An interrupt ends all of them within a few draws. For a Gaussian process and
    a likelihood that factorises over outputs NUTS runs in coordinates in which the posterior is
    nearly standard normal; docs/theory: "Sampling the posterior".

    Parameters
    ----------
    key : Array
        PRNG key. Chain i uses ``fold_in(key, i)``, so more chains keep the earlier ones.
    prior : Array of shape [n, n], GaussianProcessPrior or NetworkPrior
        Prior of the latents; an array is the covariance of a Gaussian process, common to the
        outputs: NTK / reg, or NNGP. Its precision is the sampler's.
    targets : Array of shape [n, C]
        As the likelihood takes them.
    likelihood : Likelihood
        Observation model.
    sampler : str, default "nuts"
        Name of one that runs chains (`ntk_uq.bayes.samplers`).
    num_warmup, num_samples : int
        Draws of each chain that are dropped, and that are kept. In the first NUTS adapts step size
        and mass matrix.
    num_chains : int
        Number of chains; R-hat needs two.
    target_accept_prob : float, optional
        Mean acceptance probability that the step size is adapted to, of samplers that adapt one:
        0.8 of NUTS. Closer to one: smaller steps, fewer divergences.
    max_tree_depth : int, optional
        A trajectory of NUTS has at most 2**max_tree_depth - 1 steps, by default of a depth of 10.
    progress : callable, optional
        ``progress(done, total)`` is told draws over all chains, warm-up included.

    Returns
    -------
    PosteriorDraws

    Raises
    ------
    ValueError
        If shapes or counts do not fit, the sampler is unknown, or the covariance is not positive
        semi-definite.

    References
    ----------
    Hoffman and Gelman 2014, "The No-U-Turn Sampler"; Phan, Pradhan and Jankowiak 2019,
    "Composable Effects for Flexible and Accelerated Probabilistic Programming in NumPyro"; Murray,
    Adams and MacKay 2010, "Elliptical slice sampling".

    Examples
    --------
    A latent seen once with unit noise: the posterior is N(1, 1/2).

    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(1), jnp.array([[2.0]]), Gaussian(noise=1.0),
    ...     num_warmup=200, num_samples=1000, num_chains=2,
    ... )
    >>> draws.latents.shape
    (2, 1000, 1, 1)
    >>> abs(float(draws.latents.mean()) - 1.0) < 0.1
    True
    """
    checks.key(key)
    check_counts("sample_latents", num_warmup, num_samples, num_chains)
    posterior = posterior_of("sample_latents", prior, targets, likelihood)
    how: ChainSampler = sampler_named(sampler, "sample_latents takes sampler", ChainSampler)
    how = how.tuned(target_accept_prob=target_accept_prob, max_tree_depth=max_tree_depth)
    return how.draw(
        key,
        posterior,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        progress=progress,
    )

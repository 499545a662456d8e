"""Sampling the latents at the training points by Markov chains."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.coordinates import Preconditioned
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.chains import run_chains
from ntk_uq.bayes.nuts import NoUTurn
from ntk_uq.bayes.posterior import PosteriorDraws, Whitened, posterior_of
from ntk_uq.bayes.priors import Prior, as_numpy, dtype_of
from ntk_uq.bayes.slices import EllipticalSlices
from ntk_uq.likelihoods import Likelihood

__all__ = ["sample_latents"]

Floats = NDArray[np.floating]


@own_rules()
def sample_latents(
    key: Array,
    prior: ArrayLike | Prior,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    sampler: Literal["nuts", "ess"] = "nuts",
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
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
    sampler : {"nuts", "ess"}
        The No-U-Turn sampler, or elliptical slice sampling, of which a draw is 20 transitions.
    num_warmup, num_samples : int
        Draws of each chain that are dropped, and that are kept. In the first NUTS adapts step size
        and mass matrix.
    num_chains : int
        Number of chains; R-hat needs two.
    target_accept_prob : float
        Mean acceptance probability that the step size of NUTS is adapted to. Closer to one: smaller
        steps, fewer divergences.
    max_tree_depth : int
        A trajectory of NUTS has at most 2**max_tree_depth - 1 steps.
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
    _check_counts("sample_latents", num_warmup, num_samples, num_chains)
    posterior = posterior_of("sample_latents", prior, targets, likelihood)
    dtype = dtype_of(posterior.prior)
    if sampler == "nuts":
        how: Any = NoUTurn(num_warmup, target_accept_prob, max_tree_depth)
        what = _preconditioned(posterior)
    elif sampler == "ess":
        how, what = EllipticalSlices(), posterior
    else:
        raise ValueError(f'sample_latents takes sampler "nuts" or "ess"; got {sampler!r}.')
    chains = run_chains(
        key,
        what,
        how,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        progress=progress,
        double=dtype == jnp.float64,
    )
    return PosteriorDraws(as_numpy(posterior.prior), *chains, sampler)


def _preconditioned(posterior: Whitened) -> Whitened | Preconditioned:
    """The posterior in the coordinates that NUTS is faster in.

    Softmax couples the outputs, and coordinates common to them, which a factor of size n allows,
    do not fit well: in effective samples a second they gain at n = 100, and lose at n = 300.
    """
    prior, targets, likelihood = posterior
    if not prior.linear:
        return posterior
    curvature = jax.eval_shape(
        likelihood.curvature, jnp.zeros(targets.shape, prior.factor.dtype), targets
    )
    if curvature.direction is not None:
        return posterior
    return Preconditioned.create(prior.factor, targets, likelihood)


def _check_counts(function: str, num_warmup: int, num_samples: int, num_chains: int) -> None:
    if num_warmup < 0 or num_samples < 4 or num_chains < 1:
        raise ValueError(
            f"{function} takes num_warmup >= 0, num_samples >= 4 and num_chains >= 1, got "
            f"{num_warmup}, {num_samples} and {num_chains}."
        )

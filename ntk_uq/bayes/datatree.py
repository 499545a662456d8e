"""Posterior draws with names for ArviZ."""

from collections.abc import Hashable, Sequence

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray
from jax import Array
from numpy.typing import ArrayLike

from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import PosteriorDraws
from ntk_uq.likelihoods import Likelihood

__all__ = ["to_datatree"]


@own_rules()
def to_datatree(
    key: Array,
    draws: PosteriorDraws,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    output_names: Sequence[Hashable],
    output_dim: str = "class",
    points: Sequence[Hashable] | None = None,
) -> xarray.DataTree:
    """Label the draws for ArviZ, and predict the targets from each.

    Parameters
    ----------
    key : Array
        PRNG key for the predicted targets.
    draws : PosteriorDraws
        From `sample_latents` or `variational_latents`.
    targets : Array of shape [n, C]
        As given to `sample_latents`.
    likelihood : Likelihood
        As given to `sample_latents`.
    output_names : sequence of C labels
        Names of the outputs, the coordinate of their dimension.
    output_dim : str
        Name of that dimension.
    points : sequence of n labels, optional
        The coordinate of the dimension `point`; 0 to n - 1 by default.

    Returns
    -------
    xarray.DataTree
        Groups posterior (`f`: the latents, dimensions chain, draw, point, class),
        posterior_predictive (`y`: a target drawn from each latent, same dimensions), sample_stats,
        log_likelihood (`y`: nats, dimensions chain, draw, point) and observed_data (`y`: the
        targets, dimensions point, class). It is saved by its method `to_netcdf`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> targets, likelihood = jnp.array([[2.0]]), Gaussian(noise=1.0)
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(1), targets, likelihood,
    ...     sampler="ess", num_warmup=10, num_samples=20, num_chains=2,
    ... )
    >>> tree = bayes.to_datatree(
    ...     jax.random.key(1), draws, targets, likelihood, output_names=["yield"],
    ... )
    >>> dict(tree["posterior"]["f"].sizes)
    {'chain': 2, 'draw': 20, 'point': 1, 'class': 1}
    """
    n = draws.latents.shape[2]
    with jax.enable_x64(draws.latents.dtype == np.float64):
        latents = jnp.asarray(draws.latents)
        log_density = np.asarray(likelihood.log_density(latents, jnp.asarray(targets)))
        predicted = np.asarray(likelihood.sample(key, latents))
    return arviz_base.from_dict(
        {
            "posterior": {"f": draws.latents},
            "posterior_predictive": {"y": predicted},
            "sample_stats": dict(draws.sample_stats),
            "log_likelihood": {"y": log_density},
            "observed_data": {"y": np.asarray(targets)},
        },
        dims={"f": ["point", output_dim], "y": ["point", output_dim]},
        coords={
            "point": np.arange(n) if points is None else np.asarray(points),
            output_dim: np.asarray(output_names),
        },
        attrs={
            "posterior": {
                "inference_library": "numpyro",
                "inference_library_version": numpyro.__version__,
                "sampling_time": draws.seconds,
                "sampler": draws.sampler,
            }
        },
    )

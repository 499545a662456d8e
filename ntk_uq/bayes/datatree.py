"""Posterior draws with names for ArviZ."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import PosteriorDraws
from ntk_uq.likelihoods import Categorical, Likelihood

__all__ = ["to_datatree"]

Floats = NDArray[np.floating]


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
    units: Callable[[Floats], Floats] | None = None,
) -> xarray.DataTree:
    """Label the draws for ArviZ, predict the targets from each, and draw as many from the prior.

    Targets have the dimensions that ArviZ's functions on predictions expect: classes are integer
    codes, one for each point, and a single output has no dimension of its own.

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
    units : callable, optional
        Latents [..., n, C] of the network at the targets' points, in the units of targets and
        likelihood. None: they are.

    Returns
    -------
    xarray.DataTree
        Groups posterior and prior (`f`: the latents, dimensions chain, draw, point, output),
        posterior_predictive and prior_predictive (`y`: a target drawn from each latent, dimensions
        chain, draw, point, and output where there are several real ones), observed_data (`y`),
        log_likelihood (`y`: nats, dimensions chain, draw, point), log_prior (`z`: nats less a
        constant, dimensions chain, draw) and sample_stats. Classes are numbered in the order of
        `output_names`, which the groups with `y` hold as an attribute. It is saved by its method
        `to_netcdf`.

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
    units = units or (lambda latents: latents)
    keys = jax.random.split(key, 3)
    with jax.enable_x64(draws.latents.dtype == np.float64):
        of_prior = jax.random.normal(keys[1], draws.whitened.shape, draws.whitened.dtype)
        prior = units(np.asarray(_prior_latents(draws.prior, of_prior)))
        latents = units(draws.latents)
        log_density = np.asarray(likelihood.log_density(jnp.asarray(latents), jnp.asarray(targets)))
        predicted, prior_predicted = (
            np.asarray(likelihood.sample(k, jnp.asarray(f)))
            for k, f in ((key, latents), (keys[2], prior))
        )
    is_classes = isinstance(likelihood, Categorical)
    is_one = is_classes or latents.shape[-1] == 1
    axes = tuple(range(2, draws.whitened.ndim))

    def as_seen(y: ArrayLike) -> NDArray:
        """Targets [..., n, C] as ArviZ takes them."""
        y = np.asarray(y)
        return np.argmax(y, axis=-1) if is_classes else y[..., 0] if is_one else y

    names = {"classes": [str(name) for name in output_names]} if is_classes else {}
    return arviz_base.from_dict(
        {
            "posterior": {"f": latents},
            "posterior_predictive": {"y": as_seen(predicted)},
            "prior": {"f": prior},
            "prior_predictive": {"y": as_seen(prior_predicted)},
            "sample_stats": dict(draws.sample_stats),
            "log_likelihood": {"y": log_density},
            "log_prior": {"z": -0.5 * np.sum(np.square(draws.whitened), axis=axes)},
            "observed_data": {"y": as_seen(targets)},
        },
        dims={"f": ["point", output_dim], "y": ["point"] if is_one else ["point", output_dim]},
        coords={
            "point": np.arange(latents.shape[2]) if points is None else np.asarray(points),
            output_dim: np.asarray(output_names),
        },
        attrs={
            "posterior": {
                "inference_library": "numpyro",
                "inference_library_version": numpyro.__version__,
                "sampling_time": draws.seconds,
                "sampler": draws.sampler,
            },
            **dict.fromkeys(("posterior_predictive", "prior_predictive", "observed_data"), names),
        },
    )


def _prior_latents(prior: Any, whitened: Array) -> Array:
    """Latents of whitened variables: [chain, draw, n, C]."""
    flat = whitened.reshape(-1, *whitened.shape[2:])
    latents = jax.lax.map(prior.latents, flat)
    return latents.reshape(*whitened.shape[:2], *latents.shape[1:])

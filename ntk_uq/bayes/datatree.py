"""Posterior draws with names for ArviZ."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
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
from ntk_uq.predictions.distributions import SamplePrediction

__all__ = ["predictions_group", "to_datatree"]

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
    axes = tuple(range(2, draws.whitened.ndim))
    as_seen, names = partial(_as_seen, likelihood), _class_names(likelihood, output_names)
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
        **_labels(likelihood, latents, output_names, output_dim, points),
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


@own_rules()
def predictions_group(
    key: Array,
    prediction: SamplePrediction,
    *,
    output_names: Sequence[Hashable],
    output_dim: str = "class",
    points: Sequence[Hashable] | None = None,
) -> xarray.DataTree:
    """Label draws at test points for ArviZ, and draw a target from each.

    Test points are not those of the posterior: they are a group of their own, which a tree takes as
    ``tree["predictions"]``, and ArviZ's summaries and plots of draws by ``group="predictions"``.

    Parameters
    ----------
    key : Array
        PRNG key for the predicted targets.
    prediction : SamplePrediction
        Of `predict_distribution`. Its chains and their draws are those of the posterior; without
        chains it is one.
    output_names, output_dim, points
        As in `to_datatree`, for the m test points.

    Returns
    -------
    xarray.DataTree
        `f`: the latents, dimensions chain, draw, point, output; `y`: targets, as in `to_datatree`.

    Raises
    ------
    TypeError
        If the prediction has no draws.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import SamplePrediction, bayes
    >>> prediction = SamplePrediction(np.zeros((6, 4, 2)), n_chains=2)
    >>> group = bayes.predictions_group(jax.random.key(0), prediction, output_names=["no", "yes"])
    >>> dict(group["y"].sizes), group.attrs["classes"]
    ({'chain': 2, 'draw': 3, 'point': 4}, ['no', 'yes'])
    """
    if not isinstance(prediction, SamplePrediction):
        raise TypeError(
            f"A SamplePrediction is expected, which has draws; got {type(prediction).__name__}."
        )
    likelihood, samples = prediction.likelihood, np.asarray(prediction.samples)
    latents = samples.reshape(prediction.n_chains or 1, -1, *samples.shape[1:])
    with jax.enable_x64(latents.dtype == np.float64):
        predicted = np.asarray(likelihood.sample(key, jnp.asarray(latents)))
    labels = _labels(likelihood, latents, output_names, output_dim, points)
    tree = arviz_base.from_dict(
        {"predictions": {"f": latents, "y": _as_seen(likelihood, predicted)}},
        pred_dims=labels["dims"],
        pred_coords=labels["coords"],
        attrs={"predictions": _class_names(likelihood, output_names)},
    )
    return tree.children["predictions"]


def _as_seen(likelihood: Likelihood, y: ArrayLike) -> NDArray:
    """Targets [..., n, C] as ArviZ takes them."""
    y = np.asarray(y)
    if isinstance(likelihood, Categorical):
        return np.argmax(y, axis=-1)
    return y[..., 0] if y.shape[-1] == 1 else y


def _class_names(likelihood: Likelihood, names: Sequence[Hashable]) -> dict[str, Any]:
    is_classes = isinstance(likelihood, Categorical)
    return {"classes": [str(name) for name in names]} if is_classes else {}


def _labels(
    likelihood: Likelihood,
    latents: Floats,
    output_names: Sequence[Hashable],
    output_dim: str,
    points: Sequence[Hashable] | None,
) -> dict[str, Any]:
    """Dimensions and coordinates of latents [chain, draw, n, C] and targets."""
    is_one = isinstance(likelihood, Categorical) or latents.shape[-1] == 1
    return {
        "dims": {"f": ["point", output_dim], "y": ["point"] if is_one else ["point", output_dim]},
        "coords": {
            "point": np.arange(latents.shape[2]) if points is None else np.asarray(points),
            output_dim: np.asarray(output_names),
        },
    }


def _prior_latents(prior: Any, whitened: Array) -> Array:
    """Latents of whitened variables: [chain, draw, n, C]."""
    flat = whitened.reshape(-1, *whitened.shape[2:])
    latents = jax.lax.map(prior.latents, flat)
    return latents.reshape(*whitened.shape[:2], *latents.shape[1:])

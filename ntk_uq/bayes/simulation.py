"""Simulation-based calibration: whether a sampler finds what its data were made of."""

from collections.abc import Callable, Sequence
from typing import Any

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common import checks
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import posterior_of
from ntk_uq.bayes.priors import GaussianProcessPrior, NetworkPrior, Prior, in_double
from ntk_uq.bayes.samplers.interface import ChainSampler, DrawSampler
from ntk_uq.bayes.samplers.table import sampler_named
from ntk_uq.likelihoods import Likelihood, Weighted

__all__ = ["simulation_based_calibration"]

OwnSampler = Callable[[Array, Any, Array, Likelihood], ArrayLike]


@own_rules()
def simulation_based_calibration(
    key: Array,
    prior: ArrayLike | Prior,
    likelihood: Likelihood,
    n_outputs: int = 1,
    *,
    sampler: str | OwnSampler = "nuts",
    simulations: int | Sequence[int] = 200,
    num_warmup: int = 300,
    num_draws: int = 99,
    thinning: int = 3,
    progress: bool | None = None,
) -> xarray.DataTree:
    r"""Ranks of what was drawn from the prior among draws from the posterior of its own data.

    Latents f are drawn from the prior, targets from the likelihood of f, and draws from their
    posterior. If the sampler is right, the rank of any quantity of f among those of the draws is
    uniform, for this prior and this likelihood. Looked at are all latents, and the log likelihood
    of the targets, which sees what no latent does: draws from the prior, say, that ignore the data.

    Parameters
    ----------
    key : Array
        PRNG key. Simulation i uses ``fold_in(key, i)``.
    prior : array of shape [n, n], GaussianProcessPrior or NetworkPrior
        As in `sample_latents`. ``FunctionPrior(net, "ntk", reg).covariance(X)`` is that of a
        `BayesianClassifier` at the points X.
    likelihood : Likelihood
        Observation model.
    n_outputs : int, default 1
        Outputs C; of a `NetworkPrior` they are its own.
    sampler : str or callable, default "nuts"
        Name of one that makes draws (`ntk_uq.bayes.samplers`); or your own,
        ``sampler(key, prior, targets, likelihood)`` with targets [n, C], which gives draws of the
        latents [S, n, C] that are nearly independent.
    simulations : int or sequence of int, default 200
        How many, or their indices: ``range(200, 400)`` goes on after 200, and ``xarray.concat``
        along "draw" puts the groups together.
    num_warmup, num_draws, thinning : int, default 300, 99, 3
        Draws of a chain that are dropped, that are kept, and of how many one is: draws that hang
        together have ranks that are not uniform. Of approximations they are independent, and not
        thinned.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Returns
    -------
    xarray.DataTree
        Group `prior_sbc`, for ArviZ's ``plot_ecdf_pit``: `f` with dimensions chain, draw, point and
        output, and `log_likelihood` with chain and draw, where a draw is a simulation. Values are
        probability integral transforms, uniform on (0, 1): (rank + u) / (S + 1), u uniform.
        Group `ranks` has the ranks, 0 to S, of S = `num_draws`.

    Raises
    ------
    ValueError
        If arguments do not fit, or a sampler's draws have another shape.

    References
    ----------
    Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based calibration";
    Modrák et al. 2023, "Simulation-based calibration checking for Bayesian computation: the choice
    of test quantities shapes sensitivity".

    Examples
    --------
    The posterior of a standard normal number that was seen with unit noise is N(y / 2, 1 / 2).

    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> def exact(key, prior, targets, likelihood):
    ...     return targets / 2 + jax.random.normal(key, (99, 1, 1)) / jnp.sqrt(2)
    >>> tree = bayes.simulation_based_calibration(
    ...     jax.random.key(0), jnp.eye(1), Gaussian(noise=1.0), sampler=exact, simulations=100
    ... )
    >>> dict(tree["prior_sbc"]["f"].sizes), bool(tree["prior_sbc"]["f"].mean() > 0.4)
    ({'chain': 1, 'draw': 100, 'point': 1, 'output': 1}, True)
    """
    checks.key(key)
    indices = range(simulations) if isinstance(simulations, int) else list(simulations)
    for name, value in (("num_draws", num_draws), ("thinning", thinning)):
        checks.count(name, value)
    if not len(indices):
        raise ValueError("simulations must be a positive number, or indices; got none.")
    if isinstance(likelihood, Weighted):
        raise ValueError(
            "Targets are drawn from the likelihood, and a weighted one is no distribution of "
            "targets: give the likelihood without weights."
        )
    outputs = n_outputs
    if isinstance(prior, NetworkPrior):
        outputs, size = prior.n_outputs, len(prior.points)
    elif isinstance(prior, GaussianProcessPrior):
        size = len(prior.factor)
    else:
        size = len(np.atleast_1d(np.asarray(prior)))
    posterior = posterior_of(
        "simulation_based_calibration", prior, np.zeros((size, outputs)), likelihood
    )
    draw = _own(sampler) if callable(sampler) else _named(sampler, num_warmup, num_draws, thinning)
    label = "simulation-based calibration"
    found = []
    with (
        progress_bar(label, len(indices), progress) as told,
        jax.enable_x64(in_double(posterior.prior)),
    ):
        for done, index in enumerate(indices, 1):
            found.append(_simulated(jax.random.fold_in(key, index), posterior, draw))
            if told is not None:
                told(done, len(indices))
    ranks, transforms = (
        {name: np.stack([one[kind][name] for one in found])[None] for name in found[0][kind]}
        for kind in range(2)
    )
    return arviz_base.from_dict(
        {"prior_sbc": transforms, "ranks": ranks},
        dims={"f": ["point", "output"]},
        coords={"draw": np.asarray(indices)},
    )


Draw = Callable[[Array, Any, Array, Likelihood], NDArray]


def _own(sampler: OwnSampler) -> Draw:
    """A user's sampler, whose draws are looked at."""

    def draw(key: Array, prior: Any, targets: Array, likelihood: Likelihood) -> NDArray:
        latents = np.asarray(sampler(key, prior, targets, likelihood))
        if latents.shape[1:] != targets.shape or not np.all(np.isfinite(latents)):
            raise ValueError(
                f"The sampler must return finite draws of shape [S, {targets.shape[0]}, "
                f"{targets.shape[1]}]; got {latents.shape}."
            )
        return latents

    return draw


def _named(name: str, num_warmup: int, num_draws: int, thinning: int) -> Draw:
    """A sampler of this package: one chain for each simulation."""
    how: DrawSampler = sampler_named(name, "sampler must be a function,", DrawSampler)
    every = thinning if isinstance(how, ChainSampler) else 1

    def draw(key: Array, prior: Any, targets: Array, likelihood: Likelihood) -> NDArray:
        drawn = how.draw(
            key, posterior_of("sampler", prior, targets, likelihood),
            num_warmup=num_warmup, num_samples=num_draws * every, num_chains=1,
        )  # fmt: skip
        return drawn.latents[0, every - 1 :: every]

    return draw


def _simulated(key: Array, posterior: Any, draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ranks of one simulation, and their transforms."""
    truth, targets, noise, draw_key = _data(key, posterior)
    draws = draw(draw_key, posterior.prior, targets, posterior.likelihood)
    densities, density = (
        np.asarray(_log_likelihood(posterior.likelihood, jnp.asarray(f), targets))
        for f in (draws, truth)
    )
    ranks = {
        "f": np.sum(draws < np.asarray(truth), axis=0),
        "log_likelihood": np.sum(densities < density),
    }
    return ranks, {name: (ranks[name] + noise[name]) / (len(draws) + 1) for name in ranks}


@jax.jit
def _data(key: Array, posterior: Any) -> tuple[Array, Array, dict[str, Array], Array]:
    """Latents from the prior, targets from them, numbers that spread ranks, and a key for draws."""
    keys = jax.random.split(key, 5)
    truth = posterior.prior.latents(posterior.start(keys[0]))
    targets = posterior.likelihood.sample(keys[1], truth)
    noise = {
        "f": jax.random.uniform(keys[3], truth.shape),
        "log_likelihood": jax.random.uniform(keys[4]),
    }
    return truth, targets, noise, keys[2]


@jax.jit
def _log_likelihood(likelihood: Likelihood, latents: Array, targets: Array) -> Array:
    return jnp.sum(likelihood.log_density(latents, targets), axis=-1)

"""The posterior in the whitened variables of its prior, and draws from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.words import in_a_line, shown
from ntk_uq.bayes.priors import GaussianProcessPrior, NetworkPrior, Prior
from ntk_uq.likelihoods import Likelihood

__all__ = ["PosteriorDraws", "Whitened", "check_counts", "posterior_of"]

Floats = NDArray[np.floating]


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
    """The posterior that a public function was asked for, or an error in the function's name."""
    if isinstance(likelihood, type) or not hasattr(likelihood, "log_density"):
        raise ValueError(
            f"{function} takes as likelihood an observation model, such as ntk_uq.Bernoulli() or "
            f"ntk_uq.Gaussian(noise=1.0); got {shown(likelihood)}."
        )
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


def check_counts(function: str, num_warmup: int, num_samples: int, num_chains: int) -> None:
    """Refuse numbers of draws that give none, or too few to judge."""
    if num_warmup < 0 or num_samples < 4 or num_chains < 1:
        raise ValueError(
            f"{function} takes num_warmup >= 0, num_samples >= 4 and num_chains >= 1, got "
            f"{num_warmup}, {num_samples} and {num_chains}."
        )


@in_a_line
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
        of the prior; of chains acceptance_rate too, and what counts the work of a draw. NUTS counts
        n_steps (leapfrog steps) and has diverging, tree_depth, reached_max_treedepth, step_size and
        energy; its acceptance_rate is a mean probability. Elliptical slices count n_evaluations of
        the likelihood, of which acceptance_rate is the share that was accepted. Variational draws
        have elbo, the evidence lower bound in nats.
    seconds : float
        Wall seconds in all, compilation and warm-up included.
    sampler : str
        Name of the one that made the draws (`ntk_uq.bayes.samplers`).

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

"""Every point predicted by the others, of draws under a Gaussian process prior."""

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax import Array
from jax.scipy.special import logsumexp
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import PosteriorDraws
from ntk_uq.likelihoods import Likelihood
from ntk_uq.predictions.distributions import gaussian_nodes

__all__ = ["integrated_loo"]

Floats = NDArray[np.float64]

# Latents at the nodes of so many draws at once: 2**20 doubles are 8 MiB.
_CHUNK = 2**20
# Nats. Draws whose log densities differ by less weigh alike, to some times the error of quadrature.
_ALIKE = 0.02
# Sets in which the nodes of integration come, each a good one.
_NODE_SETS = 4


@own_rules()
def integrated_loo(
    draws: PosteriorDraws,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    weights: ArrayLike | None = None,
    rows: ArrayLike | None = None,
    removed: ArrayLike | None = None,
    progress: Progress | None = None,
) -> tuple[Floats, Floats]:
    r"""Leave-one-out log predictive densities by integrated importance sampling.

    The latents of a point, given those at the others, are Gaussian under the prior. Integrated
    out, they take the part of the importance ratio with them that makes it heavy-tailed:

    .. math::
        p(y_i \mid y_{-i}) = 1 \Big/ \mathrm E\Big[\frac{1}{p(y_i \mid f_{-i})}\Big], \qquad
        p(y_i \mid f_{-i}) = \int p(y_i \mid f_i)\, \mathcal N(f_i; m_i, s_i^2)\, df_i,

    with the mean over the posterior draws, m = f - (Q f)_i / Q_ii, s^2 = 1 / Q_ii and Q the inverse
    of the prior covariance. The ratios are Pareto smoothed. docs/theory: "Sampling the posterior".

    Parameters
    ----------
    draws : PosteriorDraws
        From `sample_latents`, with a Gaussian process as prior.
    targets : array of shape [n, C]
        As given to `sample_latents`.
    likelihood : Likelihood
        Of one observation: the weights are given apart.
    weights : array of shape [n], optional
        How much each point counts; 1 by default.
    rows : array of shape [m], optional
        Points to leave out, one at a time; all by default.
    removed : array of shape [m], optional
        Weight by which each of these then counts less; all of its weight by default.
    progress : callable, optional
        ``progress(done, total)`` is told points.

    Returns
    -------
    elpd : array of shape [m]
        Log predictive density of the target of each given the others, in nats.
    pareto_k : array of shape [m]
        Shape of the ratios' tail. Above min(1 - 1 / log10(S), 0.7), with S draws, the density
        is not to be trusted.

    Raises
    ------
    ValueError
        If the prior is not a Gaussian process.

    References
    ----------
    Vehtari, Mononen, Tolvanen, Sivula and Winther 2016, "Bayesian leave-one-out cross-validation
    approximations for Gaussian latent variable models", JMLR 17(103), section 3.5; Vehtari et al.
    2024, "Pareto smoothed importance sampling", JMLR 25(72).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> targets, likelihood = jnp.array([[2.0], [1.0]]), Gaussian(noise=1.0)
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(2), targets, likelihood,
    ...     num_warmup=200, num_samples=200, num_chains=2,
    ... )
    >>> elpd, pareto_k = bayes.integrated_loo(draws, targets, likelihood)
    >>> elpd.shape, pareto_k  # of independent points no draw says more of one than another
    ((2,), array([-inf, -inf]))
    """
    if not getattr(draws.prior, "linear", False):
        raise ValueError(
            "integrated_loo is for priors that are Gaussian processes; latents of a finite network "
            "are none. Refit it without each point, loo_kfold for example."
        )
    factor = np.asarray(draws.prior.factor, np.float64)
    inverse = solve_triangular(factor, np.eye(len(factor)), lower=True)
    n_chains, n_draws, n, outputs = draws.whitened.shape
    whitened = draws.whitened.reshape(-1, n, outputs)
    precision = np.sum(inverse**2, axis=0)  # Q_ii
    counts = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    rows = np.arange(n) if rows is None else np.asarray(rows)
    left = np.zeros(len(rows)) if removed is None else counts[rows] - np.asarray(removed)
    elpd, pareto_k = np.empty((2, len(rows)))
    with jax.enable_x64(True):
        targets = jnp.asarray(targets)
        for at, i in enumerate(rows):
            latents, pull = (
                np.tensordot(row, whitened, axes=(0, 1)) for row in (factor[i], inverse[:, i])
            )
            powers = jnp.array([left[at], counts[i], left[at] + 1])
            mean, deviation = latents - pull / precision[i], 1 / np.sqrt(precision[i])
            rest, full, ahead = _integrals(mean, deviation, targets[i], likelihood, powers)
            densities = full - rest  # ArviZ negates what it takes: its ratios are 1 / p
            log_weights, pareto_k[at] = _smoothed(densities.reshape(n_chains, n_draws))
            elpd[at] = np.logaddexp.reduce(log_weights + ahead - rest)
            if progress is not None:
                progress(at + 1, len(rows))
    return elpd, pareto_k


def _smoothed(densities: Floats) -> tuple[Floats, float]:
    """Logarithms of the smoothed weights 1 / p of draws [chains, draws], and Pareto k."""
    if np.ptp(densities) < _ALIKE:  # no tail to fit, which ArviZ refuses
        weights = -densities.ravel()
        return weights - np.logaddexp.reduce(weights), -np.inf
    size = float(array_stats.ess(densities, method="mean"))
    log_weights, k = array_stats.psislw(densities.ravel(), r_eff=min(1.0, size / densities.size))
    return log_weights, float(k)


def _integrals(
    mean: Floats, deviation: float, target: Array, likelihood: Likelihood, powers: Array
) -> Floats:
    """Logarithm of E[p(y | f)^power] over f ~ N(mean, deviation^2): [3, S].

    A quarter of the draws has other nodes than the next: their errors average out.
    """
    found = np.empty((len(powers), len(mean)))
    nodes = gaussian_nodes(mean.shape[1]).reshape(_NODE_SETS, -1, mean.shape[1])
    for first, of_set in enumerate(nodes):
        draws = mean[first::_NODE_SETS]
        parts = np.array_split(draws, -(-draws.size * len(of_set) // _CHUNK))
        scaled = jnp.asarray(deviation * of_set)
        of_parts = [_log_moments(jnp.asarray(d), scaled, target, likelihood, powers) for d in parts]
        found[:, first::_NODE_SETS] = np.concatenate(of_parts).T
    return found


@jax.jit
def _log_moments(
    mean: Array, nodes: Array, target: Array, likelihood: Likelihood, powers: Array
) -> Array:
    """Logarithm of E[p(y | f)^power] over f ~ N(mean, s^2), for each draw and power: [S, 3]."""
    latents = (mean[:, None] + nodes)[..., None, :]
    density = likelihood.log_density(latents, target[None])[..., 0]
    return logsumexp(powers[:, None] * density[:, None, :], axis=-1) - jnp.log(len(nodes))

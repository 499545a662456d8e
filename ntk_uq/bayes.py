r"""Posterior samples by Markov chains and by approximations, and how far to trust them.

A prior is a map from whitened variables, standard normal a priori, to the latents at the training
points. For a Gaussian process with covariance S at these points the map is
:math:`f = L z, \; S = L L^\top`; for a finite network it is the network, as a function of its
parameters. So one potential

.. math:: U(z) = \tfrac12 \|z\|^2 - \log p(y \mid f(z))

serves every prior and every likelihood. Latents elsewhere follow from the Gaussian conditional, or
from the network. See docs/theory: "Sampling the posterior".
"""

import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray

from ntk_uq import _samplers
from ntk_uq._coordinates import Preconditioned
from ntk_uq._diagnostics import Diagnostics, SamplingWarning, diagnostics
from ntk_uq._machine import cores
from ntk_uq._network_laplace import NetworkLaplace, laplace_network
from ntk_uq._priors import GaussianProcessPrior, NetworkPrior, Prior, as_numpy, dtype_of
from ntk_uq._progress import Progress
from ntk_uq._rules import own_rules
from ntk_uq._samplers import (
    SLICES_PER_DRAW,
    VARIATIONAL_GRADIENTS,
    EllipticalSlices,
    NoUTurn,
    PosteriorDraws,
    Whitened,
    posterior_of,
)
from ntk_uq.likelihoods import Likelihood

__all__ = [
    "CostEstimate",
    "Diagnostics",
    "GaussianProcessPrior",
    "NetworkLaplace",
    "NetworkPrior",
    "PosteriorDraws",
    "SamplingWarning",
    "diagnostics",
    "estimate_cost",
    "laplace_network",
    "predict_latents",
    "predict_network",
    "sample_latents",
    "to_datatree",
    "variational_latents",
]

Floats = NDArray[np.floating]

# What `CostEstimate.is_excessive` takes for too much to start without being asked.
_LONG, _LARGE = 1800, 16 * 2**30
# For estimates, measured on a 2-core machine: step size x d^(1/4) (0.8 to 1.5 for d = nC from 40
# to 12,000), and seconds of a leapfrog step: at least, for each d, for each n^2 (a factor past the
# caches; a quarter of it within) and each n^2 C.
_STEP_SIZE = 1.0
_STEP_SECONDS = (1e-5, 3e-8, 1.2e-9, 7e-11)
# Of a network with P parameters: seconds of a gradient for each of nP (3e-10 to 1.6e-9).
_NETWORK_SECONDS = 6e-10
# Likelihoods that an elliptical slice evaluates (7 to 8 on digits).
_EVALUATIONS = 8
_TIME_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
# Latents of one block of points in a prediction: 2**22 doubles are 32 MiB.
_CHUNK = 2**22
# Networks evaluated at once in a prediction: their products then run at the machine's rate.
_NETWORKS_AT_ONCE = 16


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
    chains = _samplers.run_chains(
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
    fit = _samplers.fit_mean_field(key_fit, posterior, progress)
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


def _check_counts(function: str, num_warmup: int, num_samples: int, num_chains: int) -> None:
    if num_warmup < 0 or num_samples < 4 or num_chains < 1:
        raise ValueError(
            f"{function} takes num_warmup >= 0, num_samples >= 4 and num_chains >= 1, got "
            f"{num_warmup}, {num_samples} and {num_chains}."
        )


@dataclass(frozen=True)
class CostEstimate:
    """What sampling would take, within a factor of about three on an idle machine.

    Attributes
    ----------
    seconds : float
        Wall seconds, compilation aside.
    memory : int
        Peak bytes.
    n_steps : int
        Over all chains: leapfrog steps of NUTS, elliptical slices, or gradients of variational
        inference.

    Examples
    --------
    >>> from ntk_uq import bayes
    >>> cost = bayes.estimate_cost(20_000, 10, num_warmup=500, num_samples=500, num_chains=2)
    >>> cost.is_excessive
    True
    """

    seconds: float
    memory: int
    n_steps: int

    @property
    def is_excessive(self) -> bool:
        """Whether it is more than half an hour or 16 GiB."""
        return self.seconds > _LONG or self.memory > _LARGE

    def __str__(self) -> str:
        """Time and memory in convenient units."""
        unit, size = next((u, s) for u, s in _TIME_UNITS if self.seconds >= 2 * s or s == 1)
        return f"about {self.seconds / size:.0f} {unit} and {self.memory / 2**30:.1f} GiB"


def estimate_cost(
    n: int,
    n_outputs: int,
    *,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    sampler: Literal["nuts", "ess", "vi"] = "nuts",
    n_parameters: int | None = None,
) -> CostEstimate:
    r"""Estimate what sampling would take in float64, by a count.

    In d whitened dimensions the stable step of NUTS falls as :math:`d^{-1/4}`, and a trajectory of
    half a period takes the next full tree of :math:`2^k - 1` steps. For a Gaussian process, d = nC,
    a step costs two products of an n x n by an n x C matrix, and the handling of vectors of length
    d; for a network, of d parameters, its gradient. An elliptical slice costs one product and
    several likelihoods. The speed of an ordinary CPU core is taken for granted, so that the
    estimate is the same everywhere.

    Parameters
    ----------
    n, n_outputs : int
        Training points n and outputs C.
    num_warmup, num_samples, num_chains : int
        As for `sample_latents`.
    sampler : {"nuts", "ess", "vi"}
        "vi" is `variational_latents`, which has no warm-up.
    n_parameters : int, optional
        Parameters of a `NetworkPrior`; left out for a Gaussian process.

    Returns
    -------
    CostEstimate

    References
    ----------
    Beskos et al. 2013, "Optimal tuning of the hybrid Monte Carlo algorithm", for the step size.

    Examples
    --------
    >>> from ntk_uq import bayes
    >>> cost = bayes.estimate_cost(5000, 10, num_warmup=500, num_samples=500, num_chains=2)
    >>> cost.seconds > 60
    True
    """
    if n_parameters is None:
        dimension, matrices = n * n_outputs, 5 * n**2
        gradient = n**2 * _STEP_SECONDS[2] + n**2 * n_outputs * _STEP_SECONDS[3]
    else:
        dimension, matrices = n_parameters, 20 * n * n_outputs
        gradient = n * n_parameters * _NETWORK_SECONDS
    gradient += _STEP_SECONDS[0] + dimension * _STEP_SECONDS[1]
    likelihood = (
        _STEP_SECONDS[0] + n * n_outputs * _STEP_SECONDS[1]
        if n_parameters is None
        else gradient / 3
    )
    step_size = _STEP_SIZE * dimension**-0.25
    steps_per_draw = 2 ** math.ceil(math.log2(math.pi / step_size + 1)) - 1
    if sampler == "nuts":
        per_draw, seconds_per_step = steps_per_draw, gradient
    elif sampler == "ess":
        per_draw, seconds_per_step = SLICES_PER_DRAW, gradient / 2 + _EVALUATIONS * likelihood
    else:
        per_draw, seconds_per_step, num_warmup = 0, gradient, 0
    parallel = min(num_chains, cores())
    n_steps = num_chains * (num_warmup + num_samples) * per_draw
    if sampler == "vi":
        n_steps, parallel = VARIATIONAL_GRADIENTS, 1
    seconds = n_steps / parallel * seconds_per_step
    # Covariance, its factors and one more while they are made; the states of a trajectory's binary
    # tree; whitened variables and latents of each draw, and three copies while they are judged.
    drawn = num_chains * num_samples * (2 * dimension + 3 * n * n_outputs)
    doubles = matrices + num_chains * 60 * dimension + drawn
    return CostEstimate(seconds, 8 * doubles, n_steps)


@own_rules()
def predict_latents(
    key: Array, draws: PosteriorDraws, S_xX: ArrayLike, S_xx: ArrayLike, *, joint: bool = False
) -> NDArray[np.float64]:
    r"""Draw the latents at m further points, given each draw at the training points.

    For every draw z and output, with :math:`A = L^{-1} S_{Xx}`,

    .. math:: f(x) \mid z \sim \mathcal N(A^\top z, \; S_{xx} - A^\top A).

    Parameters
    ----------
    key : Array
        PRNG key.
    draws : PosteriorDraws
        From `sample_latents`.
    S_xX : Array of shape [m, n]
        Prior covariance between the further and the training points.
    S_xx : Array of shape [m], or [m, m] if joint
        Prior variance at each further point, or their covariance.
    joint : bool
        False: the distribution at each point. A draw and output has one standard normal number for
        all points, so that the latents at a point do not depend on which others are asked for, nor
        on their order. True: each draw is one function, jointly over the m points.

    Returns
    -------
    array of shape [S, m, C]
        S = chains x draws, one chain after another.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the further points have less prior variance than their
        covariance with the training points implies.

    References
    ----------
    Rasmussen and Williams 2006, equation 2.19, with f(X) = L z.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(1), jnp.array([[2.0]]), Gaussian(noise=1.0),
    ...     sampler="ess", num_warmup=10, num_samples=20, num_chains=2,
    ... )
    >>> S_xX, S_xx = jnp.array([[0.5], [0.0]]), jnp.ones(2)
    >>> bayes.predict_latents(jax.random.key(1), draws, S_xX, S_xx).shape
    (40, 2, 1)
    """
    factor = draws.prior.factor
    n_chains, n_draws, n, n_outputs = draws.whitened.shape
    n_samples = n_chains * n_draws
    S_xX, S_xx = jnp.asarray(S_xX), jnp.asarray(S_xx)
    m = len(S_xX)
    if S_xX.shape != (m, n) or S_xx.shape != ((m, m) if joint else (m,)):
        raise ValueError(
            f"With joint={joint}, predict_latents takes S_xX of shape [m, {n}] and S_xx of shape "
            f"{'[m, m]' if joint else '[m]'}; got {S_xX.shape} and {S_xx.shape}."
        )
    projection = jax.scipy.linalg.solve_triangular(factor, S_xX.T, lower=True)
    if joint:
        root = _square_root(S_xx - projection.T @ projection, scale=jnp.max(jnp.diagonal(S_xx)))
    else:
        variance = S_xx - jnp.sum(projection**2, axis=0)
        root = jnp.sqrt(_nonnegative(variance, scale=jnp.max(S_xx)))[:, None]
    noise = jax.random.normal(key, (n_samples, root.shape[1], n_outputs), factor.dtype)

    # [A^T, root] [z; noise], with draws and outputs side by side: one matrix product for all.
    weights = np.concatenate([projection.T, root], axis=1)
    basis = np.concatenate([draws.whitened.reshape(n_samples, n, n_outputs), noise], axis=1)
    basis = np.moveaxis(basis, 1, 0).reshape(-1, n_samples * n_outputs)
    latents = np.empty((n_samples, m, n_outputs), weights.dtype)
    step = max(1, _CHUNK // basis.shape[1])
    for begin in range(0, m, step):
        rows = slice(begin, begin + step)
        block = (weights[rows] @ basis).reshape(-1, n_samples, n_outputs)
        latents[:, rows] = np.swapaxes(block, 0, 1)
    return latents


def _nonnegative(variances: Array, scale: Array) -> Array:
    """Variances with rounding below zero removed; an error where it cannot be rounding."""
    tolerance = jnp.sqrt(jnp.finfo(variances.dtype).eps) * scale
    smallest = float(jnp.min(variances, initial=0.0))
    if not smallest >= -tolerance:
        raise ValueError(
            f"The conditional variance at a point is {smallest:.3g}, below zero: S_xX and S_xx do "
            "not come from the same kernel (and scale) as the training covariance."
        )
    return jnp.maximum(variances, 0.0)


def _square_root(covariance: Array, scale: Array) -> Array:
    """A with A A^T the covariance, which may be singular."""
    eigenvalues, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(_nonnegative(eigenvalues, scale))


@own_rules()
def predict_network(draws: PosteriorDraws, points: ArrayLike) -> Floats:
    """Evaluate the network of each draw at m further points.

    Parameters
    ----------
    draws : PosteriorDraws
        With a `NetworkPrior`.
    points : Array of shape [m, d], or images [m, h, w, c]
        Further points.

    Returns
    -------
    array of shape [S, m, C]
        S = chains x draws, one chain after another; each draw is one function.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Gaussian, bayes
    >>> prior = bayes.NetworkPrior(jnp.ones((1, 2)), MLP(width=4, depth=1), 1)
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), prior, jnp.ones((1, 1)), Gaussian(0.1),
    ...     num_warmup=200, num_samples=50, num_chains=1,
    ... )
    >>> bayes.predict_network(draws, jnp.zeros((3, 2))).shape
    (50, 3, 1)
    """
    points = jnp.asarray(points, dtype_of(draws.prior))
    parameters = draws.whitened.reshape(-1, draws.whitened.shape[-1])
    step = max(1, _CHUNK // (len(parameters) * draws.prior.n_outputs))
    blocks = [
        np.asarray(_outputs(draws.prior, jnp.asarray(parameters), points[begin : begin + step]))
        for begin in range(0, len(points), step)
    ]
    return np.concatenate(blocks, axis=1)


@jax.jit
def _outputs(prior: NetworkPrior, parameters: Array, points: Array) -> Array:
    return lax.map(lambda z: prior.evaluate(z, points), parameters, batch_size=_NETWORKS_AT_ONCE)


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

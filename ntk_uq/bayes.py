r"""Posterior samples by the No-U-Turn sampler, and how far to trust them.

A prior is a map from whitened variables, standard normal a priori, to the latents at the training
points. For a Gaussian process with covariance S at these points the map is
:math:`f = L z, \; S = L L^\top`, so that one sampler over

.. math:: U(z) = \tfrac12 \|z\|^2 - \log p(y \mid f(z))

serves every prior and every likelihood. Latents elsewhere follow from the Gaussian conditional.
See docs/theory: "Sampling the posterior".
"""

import math
import os
import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray
from arviz_stats.base import array_stats
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray
from numpyro.infer import NUTS
from scipy.special import ndtri
from scipy.stats import chi2, rankdata

from ntk_uq._linalg import cholesky
from ntk_uq._progress import Progress
from ntk_uq.likelihoods import Likelihood

__all__ = [
    "CostEstimate",
    "Diagnostics",
    "GaussianProcessPrior",
    "PosteriorDraws",
    "SamplingWarning",
    "diagnostics",
    "estimate_cost",
    "predict_latents",
    "sample_latents",
    "to_datatree",
]

Floats = NDArray[np.floating]

# Draws between two looks at the interrupt flag and two reports of progress. The last block of a
# chain is cut to length, so at most this many draws less one are wasted.
_BLOCK = 20
# Vehtari et al. 2021, section 4: thresholds for the rank-normalised R-hat and for the ESS.
_RHAT_HIGH = 1.01
_ESS_LOW = 400
# What `CostEstimate.is_excessive` takes for too much to start without being asked.
_LONG, _LARGE = 1800, 16 * 2**30
# A NUTS transition that keeps the old point is rare; a chain that mostly does is stuck.
_STUCK = 0.5
_REPORT_SECONDS = 0.1
# For estimates, measured on a 2-core machine: step size x d^(1/4) (0.8 to 1.4 for d = nC from 40
# to 12,000), and seconds of a leapfrog step: at least, for each d, for each n^2 (a factor past the
# caches; a quarter of it within) and each n^2 C.
_STEP_SIZE = 1.0
_STEP_SECONDS = (1e-5, 3e-8, 1.2e-9, 7e-11)
_TIME_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
# Latents of one block of points in a prediction: 2**22 doubles are 32 MiB.
_CHUNK = 2**22


class SamplingWarning(UserWarning):
    """The diagnostics say that posterior draws cannot be trusted as they are."""


class Prior(Protocol):
    """A pytree that maps whitened variables z ~ N(0, I) to latents at the training points."""

    def sample_whitened(self, key: Array, n_outputs: int) -> Any:
        """One standard normal draw of z, a pytree."""
        ...

    def latents(self, whitened: Any) -> Array:
        """Latents f(z): [n, C]."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianProcessPrior:
    r"""Independent Gaussian processes, one for each output, with a common covariance.

    Attributes
    ----------
    factor : Array of shape [n, n]
        Lower Cholesky factor L of the covariance plus jitter on its diagonal.
    jitter : float
        What had to be added to the diagonal to factorise it; zero where nothing had to be.
    """

    factor: Array
    jitter: float

    @classmethod
    def from_covariance(cls, covariance: Array) -> "GaussianProcessPrior":
        """Factorise a covariance, with as little jitter as its precision allows.

        Parameters
        ----------
        covariance : Array of shape [n, n]
            Symmetric positive semi-definite.

        Returns
        -------
        GaussianProcessPrior

        Raises
        ------
        ValueError
            If the matrix has a clearly negative eigenvalue: it is not a covariance.
        """
        return cls(*cholesky(covariance))

    def sample_whitened(self, key: Array, n_outputs: int) -> Array:
        """One standard normal draw of z: [n, C]."""
        return jax.random.normal(key, (len(self.factor), n_outputs), self.factor.dtype)

    def latents(self, whitened: Array) -> Array:
        """Latents f = L z: [n, C]."""
        # As z^T L^T, with barriers so that the compiler leaves it in this order: its products with
        # the few rows on the left are 1.4 to 2.3 times as fast on a CPU, and so are the gradient's.
        product = lax.optimization_barrier(whitened.T) @ self.factor.T
        return lax.optimization_barrier(product).T


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws from the posterior at the training points, and how the sampler got them.

    Attributes
    ----------
    prior : Prior
        Maps whitened variables to latents.
    whitened : array of shape [chain, draw, n, C]
        Whitened variables z; for other priors a pytree of arrays [chain, draw, ...].
    latents : array of shape [chain, draw, n, C]
        Latents f(z) at the training points.
    sample_stats : dict of arrays of shape [chain, draw]
        By ArviZ's names: diverging, acceptance_rate, n_steps (leapfrog steps), tree_depth,
        reached_max_treedepth, step_size, energy, and lp (log joint density of z and y, less the
        constant of the prior).
    seconds : float
        Wall seconds for all chains, compilation and warm-up included.
    """

    prior: Any
    whitened: Any
    latents: Floats
    sample_stats: Mapping[str, NDArray]
    seconds: float


def sample_latents(
    key: Array,
    covariance: ArrayLike,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
    progress: Progress | None = None,
) -> PosteriorDraws:
    """Sample the latents of a Gaussian-process model at its training points.

    Chains start at independent draws from the prior and run in parallel, one thread each, on one
    compiled program. An interrupt ends all of them within a few draws.

    Parameters
    ----------
    key : Array
        PRNG key. Chain i uses ``fold_in(key, i)``, so more chains keep the earlier ones.
    covariance : Array of shape [n, n]
        Prior covariance of the latents, common to the outputs: NTK / reg, or NNGP. Its precision
        is the sampler's.
    targets : Array of shape [n, C]
        As the likelihood takes them.
    likelihood : Likelihood
        Observation model.
    num_warmup, num_samples : int
        Draws of each chain that adapt step size and mass matrix and are dropped, and that are kept.
    num_chains : int
        Number of chains; R-hat needs two.
    target_accept_prob : float
        Mean acceptance probability that the step size is adapted to. Closer to one: smaller steps,
        fewer divergences.
    max_tree_depth : int
        A trajectory has at most 2**max_tree_depth - 1 steps.
    progress : callable, optional
        ``progress(done, total)`` is told draws over all chains, warm-up included.

    Returns
    -------
    PosteriorDraws

    Raises
    ------
    ValueError
        If shapes or counts do not fit, or the covariance is not positive semi-definite.

    References
    ----------
    Hoffman and Gelman 2014, "The No-U-Turn Sampler"; Phan, Pradhan and Jankowiak 2019,
    "Composable Effects for Flexible and Accelerated Probabilistic Programming in NumPyro".

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
    covariance, targets = jnp.asarray(covariance), jnp.asarray(targets)
    n = len(covariance)
    if covariance.shape != (n, n) or targets.ndim != 2 or len(targets) != n:
        raise ValueError(
            "sample_latents takes a covariance of shape [n, n] and targets of shape [n, C], got "
            f"{covariance.shape} and {targets.shape}; classes must be one-hot rows."
        )
    if num_warmup < 0 or num_samples < 4 or num_chains < 1:
        raise ValueError(
            "sample_latents takes num_warmup >= 0, num_samples >= 4 and num_chains >= 1, got "
            f"{num_warmup}, {num_samples} and {num_chains}."
        )
    prior = GaussianProcessPrior.from_covariance(covariance)
    return _sample(
        key,
        _Problem(prior, targets, likelihood),
        _Settings(num_warmup, target_accept_prob, max_tree_depth),
        num_samples,
        num_chains,
        progress,
        double=covariance.dtype == jnp.float64,
    )


class _Problem(NamedTuple):
    """What the potential depends on: traced, so that equal shapes share one compilation."""

    prior: Any
    targets: Array
    likelihood: Likelihood


class _Settings(NamedTuple):
    """What the compiled sampler depends on."""

    num_warmup: int
    target_accept_prob: float
    max_tree_depth: int


def _potential(problem: _Problem, whitened: Any) -> Array:
    """U(z) = |z|^2 / 2 - log p(y | f(z))."""
    norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(whitened))
    latents = problem.prior.latents(whitened)
    return 0.5 * norm - jnp.sum(problem.likelihood.log_density(latents, problem.targets))


def _kernel(problem: _Problem, settings: _Settings) -> NUTS:
    return NUTS(
        potential_fn=partial(_potential, problem),
        target_accept_prob=settings.target_accept_prob,
        max_tree_depth=settings.max_tree_depth,
    )


@partial(jax.jit, static_argnames="settings")
def _start(key: Array, problem: _Problem, settings: _Settings):
    """Sampler state at a draw from the prior, which is wider than the posterior."""
    key_position, key_kernel = jax.random.split(key)
    whitened = problem.prior.sample_whitened(key_position, problem.targets.shape[1])
    return _kernel(problem, settings).init(key_kernel, settings.num_warmup, whitened)


@partial(jax.jit, static_argnames="settings")
def _advance(state, problem: _Problem, settings: _Settings):
    """Make a block of transitions: the new state, and (z, f, statistics) of each draw."""
    kernel = _kernel(problem, settings)
    # Before it samples, a kernel must have made a state; the compiler drops this one.
    kernel.init(jax.random.key(0), settings.num_warmup, state.z)

    def transition(state, _):
        state = kernel.sample(state, (), {})
        stats = {
            "diverging": state.diverging,
            "acceptance_rate": state.accept_prob,
            "n_steps": state.num_steps,
            "step_size": state.adapt_state.step_size,
            "energy": state.energy,
            "lp": -state.potential_energy,
        }
        return state, (state.z, problem.prior.latents(state.z), stats)

    return lax.scan(transition, state, length=_BLOCK)


def _sample(
    key: Array,
    problem: _Problem,
    settings: _Settings,
    num_samples: int,
    num_chains: int,
    progress: Progress | None,
    *,
    double: bool,
) -> PosteriorDraws:
    """Run the chains, one thread each; JAX lets go of the interpreter while it computes."""
    length = settings.num_warmup + num_samples
    drawn = [0] * num_chains
    stop = threading.Event()

    def run_chain(index: int):
        # JAX's precision is a thread's own, so every thread sets it.
        with jax.enable_x64(double):
            state = _start(jax.random.fold_in(key, index), problem, settings)
            kept = []
            while drawn[index] < length:
                if stop.is_set():
                    return None
                state, block = jax.block_until_ready(_advance(state, problem, settings))
                # Draws of this block past the warm-up, and not past the end.
                first = max(settings.num_warmup - drawn[index], 0)
                last = min(length - drawn[index], _BLOCK)
                if first < last:
                    kept.append(
                        jax.tree.map(lambda x, s=slice(first, last): np.asarray(x)[s], block)
                    )
                drawn[index] += last
            return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)

    start = time.perf_counter()
    with ThreadPoolExecutor(min(num_chains, os.cpu_count() or 1)) as pool:
        chains = [pool.submit(run_chain, index) for index in range(num_chains)]
        try:
            running = set(chains)
            while running:
                ended, running = wait(running, _REPORT_SECONDS, return_when=FIRST_EXCEPTION)
                for chain in ended:
                    chain.result()
                if progress is not None:
                    progress(sum(drawn), num_chains * length)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    whitened, latents, stats = jax.tree.map(
        lambda *parts: np.stack(parts), *(chain.result() for chain in chains)
    )
    stats["tree_depth"] = np.ceil(np.log2(stats["n_steps"] + 1)).astype(int)
    stats["reached_max_treedepth"] = stats["tree_depth"] >= settings.max_tree_depth
    return PosteriorDraws(problem.prior, whitened, latents, stats, time.perf_counter() - start)


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
        Leapfrog steps over all chains, each with one gradient of the potential.
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
    n: int, n_outputs: int, *, num_warmup: int, num_samples: int, num_chains: int
) -> CostEstimate:
    r"""Estimate what `sample_latents` would take in float64, by a count.

    In d = nC whitened dimensions the stable step falls as :math:`d^{-1/4}`, and a trajectory of
    half a period takes the next full tree of :math:`2^k - 1` steps. A step costs two products of an
    n x n by an n x C matrix, and the handling of vectors of length d. The speed of an ordinary CPU
    core is taken for granted, so that the estimate is the same everywhere.

    Parameters
    ----------
    n, n_outputs : int
        Training points n and outputs C.
    num_warmup, num_samples, num_chains : int
        As for `sample_latents`.

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
    dimension = n * n_outputs
    step_size = _STEP_SIZE * dimension**-0.25
    steps_per_draw = 2 ** math.ceil(math.log2(math.pi / step_size + 1)) - 1
    n_steps = num_chains * (num_warmup + num_samples) * steps_per_draw
    parallel = min(num_chains, os.cpu_count() or 1)
    counts = (1, dimension, n**2, n**2 * n_outputs)
    seconds_per_step = sum(c * s for c, s in zip(counts, _STEP_SECONDS, strict=True))
    seconds = n_steps / parallel * seconds_per_step
    # Covariance, its factor and one more while it is made; the states of a trajectory's binary
    # tree; whitened variables and latents of each draw, and three copies while they are judged.
    doubles = 3 * n**2 + num_chains * 60 * dimension + 5 * num_chains * num_samples * dimension
    return CostEstimate(seconds, 8 * doubles, n_steps)


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


def to_datatree(
    draws: PosteriorDraws,
    targets: ArrayLike,
    likelihood: Likelihood,
    *,
    class_names: Sequence[Hashable],
    points: Sequence[Hashable] | None = None,
) -> xarray.DataTree:
    """Label the draws for ArviZ.

    Parameters
    ----------
    draws : PosteriorDraws
        From `sample_latents`.
    targets : Array of shape [n, C]
        As given to `sample_latents`.
    likelihood : Likelihood
        As given to `sample_latents`.
    class_names : sequence of C labels
        Names of the outputs, the coordinate of the dimension `class`.
    points : sequence of n labels, optional
        The coordinate of the dimension `point`; 0 to n - 1 by default.

    Returns
    -------
    xarray.DataTree
        Groups posterior (`f`: the latents, dimensions chain, draw, point, class), sample_stats,
        log_likelihood (`y`: nats, dimensions chain, draw, point) and observed_data (`y`: the
        targets, dimensions point, class).
    """
    n = draws.latents.shape[2]
    with jax.enable_x64(draws.latents.dtype == np.float64):
        log_density = np.asarray(
            likelihood.log_density(jnp.asarray(draws.latents), jnp.asarray(targets))
        )
    return arviz_base.from_dict(
        {
            "posterior": {"f": draws.latents},
            "sample_stats": dict(draws.sample_stats),
            "log_likelihood": {"y": log_density},
            "observed_data": {"y": np.asarray(targets)},
        },
        dims={"f": ["point", "class"], "y": ["point", "class"]},
        coords={
            "point": np.arange(n) if points is None else np.asarray(points),
            "class": np.asarray(class_names),
        },
        attrs={
            "posterior": {
                "inference_library": "numpyro",
                "inference_library_version": numpyro.__version__,
                "sampling_time": draws.seconds,
            }
        },
    )


@dataclass(frozen=True)
class Diagnostics:
    """How far the draws may be trusted, over all latents at the training points.

    Attributes
    ----------
    rhat : array of shape [n, C]
        Rank-normalised split R-hat, the larger of bulk and folded; NaN for a single chain.
    rhat_high_by_chance : float
        How many latents would have an R-hat above 1.01 if the chains had mixed. The maximum over
        thousands of latents exceeds the threshold by the noise of few draws alone.
    rhat_p_value : float
        Probability, at most, that chains that have mixed show a latent with as extreme an R-hat
        (for its ESS), by Bonferroni's bound over all latents.
    ess_bulk, ess_tail : arrays of shape [n, C]
        Effective sample size of the rank-normalised latent, and the smaller one of its 5% and 95%
        quantiles (ArviZ's summary takes the quantiles of its setting `stats.ci_prob`).
    n_draws : int
        Draws over all chains.
    n_divergent : int
        Draws whose trajectory diverged.
    n_max_treedepth : int
        Draws whose trajectory was cut at the greatest tree depth.
    n_stuck : int
        Chains of which most draws repeat the one before.
    steps_per_draw, acceptance_rate : float
        Means over all draws of leapfrog steps and of the acceptance probability.
    jitter : float
        Added to the diagonal of the prior covariance; see `GaussianProcessPrior`.
    seconds : float
        Wall seconds of sampling.
    warnings : tuple of str
        What is wrong, in plain language, and what to do about it; empty where nothing is.
    notes : tuple of str
        What looks odd and is not: R-hat above 1.01 where chance explains it, jitter.
    """

    rhat: Floats
    rhat_high_by_chance: float
    rhat_p_value: float
    ess_bulk: Floats
    ess_tail: Floats
    n_draws: int
    n_divergent: int
    n_max_treedepth: int
    n_stuck: int
    steps_per_draw: float
    acceptance_rate: float
    jitter: float
    seconds: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def rhat_max(self) -> float:
        """Largest R-hat; NaN for a single chain."""
        return float(np.max(self.rhat))

    @property
    def n_rhat_high(self) -> int:
        """Latents whose R-hat is above 1.01."""
        return int(np.sum(self.rhat > _RHAT_HIGH))

    @property
    def ess_min(self) -> float:
        """Smallest bulk or tail effective sample size."""
        return float(min(np.min(self.ess_bulk), np.min(self.ess_tail)))

    @property
    def n_ess_low(self) -> int:
        """Latents whose bulk or tail effective sample size is below 400."""
        return int(np.sum(np.minimum(self.ess_bulk, self.ess_tail) < _ESS_LOW))

    @property
    def ess_per_second(self) -> float:
        """Smallest bulk effective sample size a wall second."""
        return float(np.min(self.ess_bulk)) / self.seconds


def diagnostics(draws: PosteriorDraws) -> Diagnostics:
    r"""Judge the draws by R-hat, effective sample sizes and the sampler's own statistics.

    All latents are judged. Whether their largest R-hat means anything depends on how many there
    are: for chains that have mixed, the means of M half chains scatter by M / ESS of the variance,
    so that with half chains of N draws

    .. math:: \hat R^2 \approx \frac{N - 1}{N} + \frac{M}{\mathrm{ESS}} \frac{\chi^2_{M-1}}{M - 1},

    which gives the expected number of latents above 1.01 (`rhat_high_by_chance`) and the
    probability of the most extreme one (`rhat_p_value`). Latents of an ESS below 400 count as if
    they had 400: theirs may be low because the chains disagree.

    Parameters
    ----------
    draws : PosteriorDraws
        From `sample_latents`, of at least 4 draws a chain.

    Returns
    -------
    Diagnostics

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021, "Rank-normalization, folding, and
    localization: An improved R-hat", doi:10.1214/20-BA1221.
    """
    n_chains, n_draws, n, n_outputs = draws.latents.shape
    latents = draws.latents.reshape(n_chains, n_draws, n * n_outputs)
    half = n_draws // 2
    halves = np.concatenate([latents[:, :half], latents[:, -half:]])
    bulk = _rank_normalise(halves)
    folded = _rank_normalise(np.abs(halves - np.median(halves, axis=(0, 1))))
    axes = {"chain_axis": 0, "draw_axis": 1}
    ess_bulk, ess_folded = (array_stats.ess(z, method="identity", **axes) for z in (bulk, folded))
    ess_tail = array_stats.ess(latents, method="tail", prob=0.05, **axes)
    rhat, by_chance, p_value = np.full(n * n_outputs, np.nan), 0.0, 1.0
    if n_chains > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            rhats = np.stack(
                [array_stats.rhat(z, method="identity", **axes) for z in (bulk, folded)]
            )
        rhats[np.isnan(rhats)] = np.inf  # constant within every chain
        rhat = np.max(rhats, axis=0)
        exceeds = partial(_rhat_tail, ess=np.stack([ess_bulk, ess_folded]), shape=halves.shape)
        by_chance = float(np.sum(1 - np.prod(1 - exceeds(_RHAT_HIGH), axis=0)))
        p_value = min(1.0, rhats.size * float(np.min(exceeds(rhats))))
    # Of a latent that never moved, every draw counts as effective in ArviZ.
    constant = np.all(latents == latents[:1, :1], axis=(0, 1))
    ess_bulk[constant] = ess_tail[constant] = 1.0
    stats = draws.sample_stats
    kept_point = np.mean(np.diff(stats["lp"], axis=1) == 0, axis=1)
    result = Diagnostics(
        rhat=rhat.reshape(n, n_outputs),
        rhat_high_by_chance=by_chance,
        rhat_p_value=p_value,
        ess_bulk=ess_bulk.reshape(n, n_outputs),
        ess_tail=ess_tail.reshape(n, n_outputs),
        n_draws=n_chains * n_draws,
        n_divergent=int(np.sum(stats["diverging"])),
        n_max_treedepth=int(np.sum(stats["reached_max_treedepth"])),
        n_stuck=int(np.sum(kept_point > _STUCK)),
        steps_per_draw=float(np.mean(stats["n_steps"])),
        acceptance_rate=float(np.mean(stats["acceptance_rate"])),
        jitter=draws.prior.jitter,
        seconds=draws.seconds,
        warnings=(),
        notes=(),
    )
    return replace(result, warnings=tuple(_warnings(result, n_chains)), notes=tuple(_notes(result)))


def _rank_normalise(halves: Floats) -> Floats:
    """Normal scores of the ranks of each latent, by Blom's offsets: [chain, draw, latent]."""
    flat = halves.reshape(-1, halves.shape[-1])
    ranks = rankdata(flat, axis=0)
    return ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4)).reshape(halves.shape)


def _rhat_tail(rhat: float | Floats, ess: Floats, shape: tuple[int, ...]) -> Floats:
    """Probability that R-hat is exceeded in half chains that have mixed; see `diagnostics`."""
    n_halves, half = shape[:2]
    excess = (np.square(rhat) - (half - 1) / half) * np.maximum(ess, _ESS_LOW) / n_halves
    return chi2.sf(excess * (n_halves - 1), n_halves - 1)


def _warnings(result: Diagnostics, n_chains: int) -> Iterator[str]:
    n_latents = result.rhat.size
    if result.n_stuck:
        yield (
            f"{result.n_stuck} of {n_chains} chains are stuck: most of their draws repeat the one "
            "before. Do not use these draws. Raise num_warmup, so that the step size can adapt, or "
            "raise reg if latents are very large."
        )
    if result.n_divergent:
        yield (
            f"{result.n_divergent} of {result.n_draws} draws diverged: the sampler could not "
            "follow the posterior there, and what depends on that region may be biased. Raise "
            "num_warmup, or target_accept_prob towards one, for smaller steps."
        )
    if n_chains == 1:
        yield (
            "One chain cannot show that it has converged: R-hat needs num_chains of 2 or more, "
            "best 4."
        )
    if result.n_rhat_high and not _explained_by_chance(result):
        yield f"{_high_rhat(result)} The chains have not mixed: raise num_warmup and num_samples."
    if result.n_ess_low:
        factor = _ESS_LOW / result.ess_min
        yield (
            f"{result.n_ess_low} of {n_latents} latents have a bulk or tail effective sample size "
            f"below {_ESS_LOW}, at least {result.ess_min:.0f}: their means and quantiles are "
            f"noisy. Raise num_samples about {factor:.1f}-fold."
        )
    if result.n_max_treedepth:
        yield (
            f"{result.n_max_treedepth} of {result.n_draws} draws were cut at the greatest "
            "trajectory length: they are valid, but move slowly. Raise num_warmup."
        )


def _notes(result: Diagnostics) -> Iterator[str]:
    if result.n_rhat_high and _explained_by_chance(result):
        yield f"{_high_rhat(result)} That explains it: a larger num_samples brings them down."
    if result.jitter:
        yield (
            f"The prior covariance is singular to rounding (repeated points?): {result.jitter:.1e} "
            "was added to its diagonal, an independent noise of standard deviation "
            f"{math.sqrt(result.jitter):.1e} in each latent."
        )


def _explained_by_chance(result: Diagnostics) -> bool:
    # Neighbouring latents exceed together, so the count scatters more than a Poisson one.
    few = result.n_rhat_high <= 2 * result.rhat_high_by_chance + 3
    return few and result.rhat_p_value > 0.01


def _high_rhat(result: Diagnostics) -> str:
    return (
        f"R-hat is above {_RHAT_HIGH} for {result.n_rhat_high} of {result.rhat.size} latents, at "
        f"most {result.rhat_max:.3f}; in chains that have mixed, about "
        f"{result.rhat_high_by_chance:.1f} would be so by the noise of the draws."
    )

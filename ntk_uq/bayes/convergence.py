"""How far posterior draws may be trusted, in figures and in words."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import chi2, rankdata

from ntk_uq.bayes.samplers.interface import ChainSampler
from ntk_uq.bayes.samplers.table import sampler_named, samplers_of

if TYPE_CHECKING:
    from ntk_uq.bayes.posterior import PosteriorDraws

__all__ = ["Diagnostics", "diagnostics"]

Floats = NDArray[np.floating]

# Vehtari et al. 2021, section 4: thresholds for the rank-normalised R-hat and for the ESS.
_RHAT_HIGH = 1.01
_ESS_LOW = 400
# A transition that keeps the old point is rare; a chain that mostly does is stuck.
_STUCK = 0.5


@dataclass(frozen=True, repr=False)
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
        Draws whose trajectory diverged; 0 of a sampler without trajectories.
    n_max_treedepth : int
        Draws whose trajectory was cut at the greatest tree depth; 0 likewise.
    n_stuck : int
        Chains of which most draws repeat the one before.
    steps_per_draw : float
        Mean over all draws of what counts the sampler's work (its `steps_statistic`): of NUTS
        leapfrog steps, each with one gradient, of elliptical slices likelihoods evaluated.
    acceptance_rate : float
        Mean over all draws of the sampler's: of NUTS the acceptance probability, of elliptical
        slices the share of proposed angles that were accepted.
    jitter : float
        Added to the diagonal of the prior covariance; see `GaussianProcessPrior`.
    seconds : float
        Wall seconds of sampling.
    warnings : tuple of str
        What is wrong, in plain language, and what to do about it; empty where nothing is.
    notes : tuple of str
        What looks odd and is not: R-hat above 1.01 where chance explains it, jitter.
    sampler : str
        Name of the one that made the draws (`ntk_uq.bayes.samplers`).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(1), jnp.array([[2.0]]), Gaussian(noise=1.0),
    ...     num_warmup=200, num_samples=1000, num_chains=2,
    ... )
    >>> found = bayes.diagnostics(draws)
    >>> found.n_draws, found.n_divergent, found.warnings
    (2000, 0, ())
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
    sampler: str = "nuts"

    def __str__(self) -> str:
        """A few lines; the arrays are in the attributes."""
        rhat = (
            "of one chain there is none"
            if np.isnan(self.rhat_max)
            else (
                f"at most {self.rhat_max:.3f}, above {_RHAT_HIGH} for {self.n_rhat_high} of "
                f"{self.rhat.size} latents"
            )
        )
        said = " ".join((*self.warnings, *self.notes)) or "nothing is wrong"
        return (
            f"{self.sampler}: {self.n_draws} draws in {self.seconds:.1f} s, "
            f"{self.steps_per_draw:.3g} steps a draw, acceptance rate {self.acceptance_rate:.2f}\n"
            f"R-hat: {rhat}\n"
            f"effective sample size: at least {self.ess_min:.0f}, below {_ESS_LOW} for "
            f"{self.n_ess_low} latents\n"
            f"failures: {self.n_divergent} divergences, {self.n_max_treedepth} cut trajectories, "
            f"{self.n_stuck} stuck chains\n"
            f"verdict: {said}"
        )

    __repr__ = __str__

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

    @property
    def work(self) -> dict[str, str]:
        """What the draws took and where they fell short, figures in words by their headings."""
        return _chain_sampler(self.sampler).work(self)


def _chain_sampler(name: str) -> ChainSampler:
    return sampler_named(name, "Chains are of sampler", ChainSampler)


def diagnostics(draws: "PosteriorDraws") -> Diagnostics:
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

    Raises
    ------
    ValueError
        If the draws are not from Markov chains.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021, "Rank-normalization, folding, and
    localization: An improved R-hat", doi:10.1214/20-BA1221.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> few = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(1), jnp.array([[2.0]]), Gaussian(noise=1.0),
    ...     num_warmup=200, num_samples=20, num_chains=2,
    ... )
    >>> len(bayes.diagnostics(few).warnings) > 0
    True
    """
    if draws.sampler not in samplers_of(ChainSampler):
        raise ValueError(
            f"Draws of sampler={draws.sampler!r} are independent draws from an approximation: "
            "there are no chains to judge. Compare their predictions with those of NUTS."
        )
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
    kept_point = np.mean(stats["lp"][:, 1:] == stats["lp"][:, :-1], axis=1)
    result = Diagnostics(
        rhat=rhat.reshape(n, n_outputs),
        rhat_high_by_chance=by_chance,
        rhat_p_value=p_value,
        ess_bulk=ess_bulk.reshape(n, n_outputs),
        ess_tail=ess_tail.reshape(n, n_outputs),
        n_draws=n_chains * n_draws,
        n_divergent=int(np.sum(stats.get("diverging", 0))),
        n_max_treedepth=int(np.sum(stats.get("reached_max_treedepth", 0))),
        n_stuck=int(np.sum(kept_point > _STUCK)),
        steps_per_draw=float(np.mean(stats[_chain_sampler(draws.sampler).steps_statistic])),
        acceptance_rate=float(np.mean(stats["acceptance_rate"])),
        jitter=getattr(draws.prior, "jitter", 0.0),
        seconds=draws.seconds,
        warnings=(),
        notes=(),
        sampler=draws.sampler,
    )
    found = tuple(_warnings(result, n_chains, many_modes=not draws.prior.linear))
    return replace(result, warnings=found, notes=tuple(_notes(result)))


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


def _warnings(result: Diagnostics, n_chains: int, many_modes: bool) -> Iterator[str]:
    n_latents = result.rhat.size
    better = _chain_sampler(result.sampler).moves_further
    instead = "" if better is None else f', or use sampler="{better}"'
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
        yield (
            f"{_high_rhat(result)} The chains have not mixed: raise num_warmup and num_samples"
            + (f"{instead}, which moves further." if instead else ".")
            + (
                " The posterior of a finite network has many modes, and a chain may stay near one: "
                'prior="nngp" is its limit at infinite width, and has one.'
                if many_modes
                else ""
            )
        )
    if result.n_ess_low:
        factor = _ESS_LOW / result.ess_min
        yield (
            f"{result.n_ess_low} of {n_latents} latents have a bulk or tail effective sample size "
            f"below {_ESS_LOW}, at least {result.ess_min:.0f}: their means and quantiles are "
            f"noisy. Raise num_samples about {factor:.1f}-fold{instead}."
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

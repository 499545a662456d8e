"""What sampling would take, by a count, before it starts."""

from dataclasses import dataclass

from ntk_uq.bayes.samplers.interface import DrawSampler, StepSeconds
from ntk_uq.bayes.samplers.table import sampler_named

__all__ = ["CostEstimate", "estimate_cost"]

# What `CostEstimate.is_excessive` takes for too much to start without being asked.
_LONG, _LARGE = 1800, 16 * 2**30
# Measured on a 2-core machine, seconds of a gradient: at least, for each d, for each n^2 (a factor
# past the caches; a quarter of it within) and each n^2 C.
_STEP_SECONDS = (1e-5, 3e-8, 1.2e-9, 7e-11)
# Of a network with P parameters: seconds of a gradient for each of nP (3e-10 to 1.6e-9).
_NETWORK_SECONDS = 6e-10
_TIME_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))


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
    sampler: str = "nuts",
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
    sampler : str, default "nuts"
        Name of one that makes draws (`ntk_uq.bayes.samplers`).
    n_parameters : int, optional
        Parameters of a `NetworkPrior`; left out for a Gaussian process.

    Returns
    -------
    CostEstimate

    Raises
    ------
    ValueError
        If the sampler is unknown, or makes no draws.

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
    how: DrawSampler = sampler_named(sampler, "estimate_cost takes sampler", DrawSampler)
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
    n_steps, seconds = how.cost(
        StepSeconds(dimension, gradient, likelihood),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
    )
    # Covariance, its factors and one more while they are made; the states of a trajectory's binary
    # tree; whitened variables and latents of each draw, and three copies while they are judged.
    drawn = num_chains * num_samples * (2 * dimension + 3 * n * n_outputs)
    doubles = matrices + num_chains * 60 * dimension + drawn
    return CostEstimate(seconds, 8 * doubles, n_steps)

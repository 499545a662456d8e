"""What the experiments on distributions share: the law at infinite width, and tests against it.

A sample has shape [S, d]: S draws, or networks, of d latents. Tests and noise levels take the draws
of a sample and of its reference for independent: no chains, and no random numbers in common.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ntk_uq import bayes
from ntk_uq.analytic import Uncertainty, correct_draws, exact_predictor, gaussian_predictor
from ntk_uq.distances import energy_distance
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture, Kernels

Floats = NDArray[np.float64]


class Infinite:
    """The infinite ensemble for one problem: kernels are computed once."""

    def __init__(
        self,
        net: BaseArchitecture,
        X: Floats,
        y: Floats,
        X_test: Floats,
        likelihood: Likelihood,
        reg: float,
    ):
        n = len(X)
        kernels = net.kernels(np.concatenate([X, X_test]))
        self.train, self.cross, self.test = (
            Kernels(*(k[rows, columns] for k in kernels))
            for rows, columns in (
                (slice(n), slice(n)), (slice(n, None), slice(n)), (slice(n, None), slice(n, None))
            )
        )  # fmt: skip
        self.y, self.likelihood, self.reg = y, likelihood, reg

    def moments(self, uncertainty: Uncertainty) -> tuple[Floats, Floats]:
        """Mean [m, C] and covariance [m, C, m, C] of the closed form."""
        with jax.enable_x64(True):
            train, cross, test = self.kernels()
            problem = (train, jnp.asarray(self.y), self.reg, self.likelihood, uncertainty)
            mean, cov = gaussian_predictor(*problem).joint_moments(cross, test)
            return np.asarray(mean), np.asarray(cov)

    def draws(
        self, seed: int, uncertainty: Uncertainty, n_draws: int, *, n_trajectories: int = 0
    ) -> Floats:
        """Draws of functions at the test points, [S, m, C]; corrected by trajectories."""
        with jax.enable_x64(True):
            key, key_test, key_correction = jax.random.split(jax.random.key(seed), 3)
            train, cross, test = self.kernels()
            problem = (train, jnp.asarray(self.y), self.reg, self.likelihood, uncertainty)
            predictor = exact_predictor(key, *problem, n_draws)
            assert np.all(predictor.converged)
            if n_trajectories:
                problem = predictor, self.y, self.likelihood
                predictor = correct_draws(key_correction, *problem, n_trajectories)
            return np.asarray(predictor.joint_latents(key_test, cross, test))

    def nuts(self, seed: int, n_draws: int) -> tuple[Floats, bayes.Diagnostics]:
        """Posterior draws of the latents at the test points, [S, m, C], by two chains."""
        with jax.enable_x64(True):
            key, key_test = jax.random.split(jax.random.key(seed))
            prior, cross, test = (kernels.ntk / self.reg for kernels in self.kernels())
            chains = bayes.sample_latents(
                key, prior, jnp.asarray(self.y), self.likelihood, num_warmup=500,
                num_samples=n_draws // 2, num_chains=2,
            )  # fmt: skip
            latents = bayes.predict_latents(key_test, chains, cross, jnp.diagonal(test))
        return latents, bayes.diagnostics(chains)

    def kernels(self) -> list[Kernels]:
        """Of the training points, of test with training points, of the test points."""
        return [Kernels(*map(jnp.asarray, k)) for k in (self.train, self.cross, self.test)]


class Reference(NamedTuple):
    """What a sample is tested against: draws of the law and, where they are known, its moments."""

    draws: Floats  # [S, d]
    mean: Floats  # [d]
    cov: Floats  # [d, d]
    is_gaussian: bool

    @classmethod
    def of_draws(cls, draws: Floats) -> "Reference":
        """Of a law that only draws are known of."""
        return cls(draws, draws.mean(axis=0), np.atleast_2d(np.cov(draws.T)), False)

    @property
    def noise(self) -> float:
        """Variance of the reference's own mean, in variances of the law."""
        return 0.0 if self.is_gaussian else 1 / len(self.draws)

    def uniforms(self, sample: Floats) -> Floats:
        """Each latent through its distribution function: uniform if the sample has the law."""
        if self.is_gaussian:
            return stats.norm.cdf(sample, self.mean, np.sqrt(np.diag(self.cov)))
        columns = zip(np.sort(self.draws, axis=0).T, sample.T, strict=True)
        ranks = [np.searchsorted(draws, values) for draws, values in columns]
        return np.transpose(ranks) / len(self.draws)

    def quantiles(self, probabilities: Floats) -> Floats:
        """Of each latent: [number of probabilities, d]."""
        if self.is_gaussian:
            sd = np.sqrt(np.diag(self.cov))
            return stats.norm.ppf(probabilities[:, None], self.mean, sd)
        return np.quantile(self.draws, probabilities, axis=0)


def ks_p_values(sample: Floats, reference: Reference) -> Floats:
    """Kolmogorov and Smirnov's test of each latent: [d]."""
    n = len(sample)
    u = np.sort(reference.uniforms(sample), axis=0)
    steps = np.arange(n + 1)[:, None] / n
    distance = np.maximum(steps[1:] - u, u - steps[:-1]).max(axis=0)
    effective = (
        n if reference.is_gaussian else n * len(reference.draws) / (n + len(reference.draws))
    )
    return stats.kstwo.sf(distance, round(effective))


def statistics(sample: Floats, reference: Reference) -> dict[str, float]:
    """How a sample differs from the law, in several respects: docs/claims, "Tests"."""
    n, d = sample.shape
    sd = np.sqrt(np.diag(reference.cov))
    shift = sample.mean(axis=0) - reference.mean
    variance_of_mean = 1 / n + reference.noise
    cov = np.atleast_2d(np.cov(sample.T))
    root = np.linalg.cholesky(reference.cov)
    white_shift = np.linalg.solve(root, shift)
    white_cov = np.linalg.solve(root, np.linalg.solve(root, cov).T)
    outer = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    pairs = np.tril_indices(d, -1)
    found = {
        "mean_shift": float(np.sqrt(np.mean((shift / sd) ** 2))),
        "mean_test": float(white_shift @ white_shift / (d * variance_of_mean)),
        "sd_ratio": float(np.exp(np.mean(np.log(np.diag(cov) / sd**2)) / 2)),
        "cov_test": float(np.sum((white_cov - np.eye(d)) ** 2) * (n - 1) / (d * (d + 1))),
        "ks_rejected": float(np.mean(ks_p_values(sample, reference) < 0.05)),
        "energy": energy_distance(sample, reference.draws[:1024]),
    }
    if d > 1:
        difference = (cov / outer - reference.cov / np.outer(sd, sd))[pairs]
        found["correlation_error"] = float(np.sqrt(np.mean(difference**2)))
    return found


def quantile_errors(sample: Floats, reference: Reference, probabilities: Floats) -> Floats:
    """Quantiles of the sample less those of the law, in standard deviations, mean over latents."""
    sd = np.sqrt(np.diag(reference.cov))
    difference = np.quantile(sample, probabilities, axis=0) - reference.quantiles(probabilities)
    return np.mean(difference / sd, axis=1)


def subsets(seed: int, draws: Floats, size: int, number: int) -> list[Floats]:
    """Random subsets of draws, to say what a sample of the law itself would show."""
    rng = np.random.default_rng(seed)
    return [draws[rng.choice(len(draws), size, replace=False)] for _ in range(number)]

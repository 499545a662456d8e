"""The posterior as a producer: a problem in, a distribution of latents anywhere out."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.blocks import in_blocks
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import in_a_line
from ntk_uq.bayes.convergence import Diagnostics, diagnostics
from ntk_uq.bayes.posterior import PosteriorDraws, posterior_of
from ntk_uq.bayes.prediction import predict_latents, predict_network
from ntk_uq.bayes.priors import NetworkPrior
from ntk_uq.bayes.samplers.interface import ChainSampler, DrawSampler
from ntk_uq.bayes.samplers.laplace import NetworkLaplace, laplace_network
from ntk_uq.bayes.samplers.table import sampler_named
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.function_prior import FunctionPrior
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

__all__ = ["FittedNetworkLaplace", "LaplaceNetwork", "Posterior", "SampledPosterior"]

Floats = NDArray[np.float64]

# Points whose covariances with the training points are held at once.
_POINTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Posterior:
    """Draws from a network's posterior: Markov chains, or an approximation in their place.

    Attributes
    ----------
    prior : {"ntk", "nngp", "weights"}
        A Gaussian process, `FunctionPrior`, or the finite network, `NetworkPrior`.
    sampler : str
        Name of one that makes draws (`ntk_uq.bayes.samplers`).
    num_warmup, num_samples, num_chains : int
        Draws of each chain that are dropped, and that are kept; chains.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> from ntk_uq.networks import Problem
    >>> X, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]])
    >>> problem = Problem(X, y, Gaussian(0.1), 1.0, jax.random.key(0), MLP())
    >>> fitted = Posterior(sampler="vi", num_samples=10).fit(problem)
    >>> fitted.latents(X).samples.shape
    (20, 2, 1)
    """

    prior: Literal["ntk", "nngp", "weights"] = "ntk"
    sampler: str = "nuts"
    num_warmup: int = 500
    num_samples: int = 500
    num_chains: int = 2

    def fit(self, problem: Problem, *, progress: bool | None = False) -> "SampledPosterior":
        """Draw from the posterior.

        Parameters
        ----------
        problem : Problem
            Data, likelihood, regularisation (of "ntk" only) and network.
        progress : bool or None
            Progress bar; None shows it at a terminal only.

        Returns
        -------
        SampledPosterior

        Raises
        ------
        ValueError
            If the sampler is unknown, or makes no draws.
        """
        sampler: DrawSampler = sampler_named(self.sampler, "sampler must be", DrawSampler)
        counts = {
            "num_warmup": self.num_warmup,
            "num_samples": self.num_samples,
            "num_chains": self.num_chains,
        }
        total = self.num_chains * (self.num_warmup + self.num_samples)
        with own_rules(), jax.enable_x64(True):
            key, predict_key = _keys(problem)
            process, prior = self._priors(problem)
            posterior = posterior_of("fit", prior, problem.targets, problem.loss)
            with progress_bar(sampler.title, total, progress) as told:
                draws = sampler.draw(key, posterior, **counts, progress=told)
        with own_rules():
            chains = isinstance(sampler, ChainSampler)
            judged = diagnostics(draws) if chains else None
        return SampledPosterior(
            draws, problem.points, problem.targets, process, problem.likelihood, predict_key, judged
        )

    def _priors(self, problem: Problem) -> tuple[FunctionPrior | None, Any]:
        """The Gaussian process, if it is one, and the prior at the training points."""
        if self.prior == "weights":
            return None, _network_prior(problem)
        process = FunctionPrior(problem.architecture, self.prior, problem.reg)
        return process, process.covariance(problem.points)


@in_a_line
@dataclass(frozen=True, eq=False)
class SampledPosterior:
    """Draws from a posterior, ready for any points.

    Attributes
    ----------
    draws : PosteriorDraws
        At the training points.
    points, targets : arrays of shape [n, d] and [n, C]
        The training data.
    process : FunctionPrior or None
        The prior, where it is a Gaussian process; else `draws` has it.
    likelihood : Likelihood
        Of a new point.
    key : Array
        PRNG key of what is drawn elsewhere, given the draws.
    diagnostics : Diagnostics or None
        Of chains; None for an approximation, which has none to judge.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    >>> fitted = Posterior(num_warmup=50, num_samples=50).fit(problem)
    >>> fitted.latents(X).n_chains
    2
    """

    draws: PosteriorDraws
    points: Floats
    targets: Floats
    process: FunctionPrior | None
    likelihood: Likelihood
    key: Array
    diagnostics: Diagnostics | None

    @property
    def architecture(self) -> BaseArchitecture:
        """The network, or the one whose kernel the prior has."""
        prior = self.draws.prior if self.process is None else self.process
        return prior.architecture

    def latents(self, X: ArrayLike, joint: bool = False) -> SamplePrediction:
        """Draws of the latents at m points.

        Parameters
        ----------
        X : array of shape [m, d]
            Points.
        joint : bool
            Whether a draw is one function, jointly over the points; else it is right at each. The
            draws of a finite network are functions either way.

        Returns
        -------
        SamplePrediction
        """
        with own_rules(), jax.enable_x64(True):
            if self.process is None:
                samples = predict_network(self.draws, X)
            else:
                samples = self._given_draws(X, joint)
        chains = isinstance(sampler_named(self.draws.sampler, "draws of"), ChainSampler)
        return SamplePrediction(
            np.asarray(samples),
            self.likelihood,
            n_chains=len(self.draws.latents) if chains else None,
            joint=joint or self.process is None,
        )

    def _given_draws(self, X: ArrayLike, joint: bool) -> Floats:
        """Draws of a Gaussian process elsewhere, given those at the training points."""
        process = cast(FunctionPrior, self.process)

        def latents(block: Any) -> Floats:
            own = process.covariance(block) if joint else process.variance(block)
            cross = process.covariance(block, self.points)
            return predict_latents(self.key, self.draws, cross, own, joint=joint)

        return latents(X) if joint else in_blocks(latents, np.asarray(X), _POINTS_AT_ONCE, axis=1)


@dataclass(frozen=True)
class LaplaceNetwork:
    """The Gaussian about a mode of a finite network's posterior: `laplace_network`.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X, net = np.array([[-1.0], [1.0]]), MLP(width=4, depth=1, activation="erf")
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), net)
    >>> LaplaceNetwork().fit(problem).latents(X).cov.shape
    (2, 2, 2)
    """

    def fit(self, problem: Problem, *, progress: bool | None = False) -> "FittedNetworkLaplace":
        """Find the mode, and the curvature there; the problem's `reg` does not occur."""
        with own_rules(), jax.enable_x64(True):
            key, _ = _keys(problem)
            laplace = laplace_network(key, _network_prior(problem), problem.targets, problem.loss)
        return FittedNetworkLaplace(laplace, problem.likelihood)


@in_a_line
@dataclass(frozen=True, eq=False)
class FittedNetworkLaplace:
    """A Gaussian about a mode of a finite network's posterior, ready for any points.

    Attributes
    ----------
    laplace : NetworkLaplace
        Mode and curvature.
    likelihood : Likelihood
        Of a new point.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> from ntk_uq.networks import Problem
    >>> X, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]])
    >>> problem = Problem(X, y, Gaussian(0.1), 1.0, jax.random.key(0), MLP(depth=0))
    >>> LaplaceNetwork().fit(problem).latents(X, joint=True).joint_cov.shape
    (2, 1, 2, 1)
    """

    laplace: NetworkLaplace
    likelihood: Likelihood

    @property
    def architecture(self) -> BaseArchitecture:
        """The network."""
        return self.laplace.prior.architecture

    @property
    def points(self) -> Array:
        """The training points."""
        return self.laplace.prior.points

    def latents(self, X: ArrayLike, joint: bool = False) -> GaussianPrediction:
        """Distribution of the latents at m points, [m, d]; `joint_cov` too if joint."""
        with own_rules(), jax.enable_x64(True):
            moments = self.laplace.moments(X, joint=joint)
        mean, cov = (np.asarray(moment, np.float64) for moment in moments)
        if not joint:
            return GaussianPrediction(mean, cov, self.likelihood)
        return GaussianPrediction(mean, np.einsum("mcmd->mcd", cov), self.likelihood, cov)


def _keys(problem: Problem) -> tuple[Array, Array]:
    """Keys of what is drawn now, and of what is drawn in predictions."""
    if problem.key is None:
        raise ValueError("The posterior is drawn from, or searched from a draw: give a key.")
    key, predict_key = jax.random.split(problem.key)
    return key, predict_key


def _network_prior(problem: Problem) -> NetworkPrior:
    points = jnp.asarray(problem.points)
    return NetworkPrior(points, problem.architecture, problem.targets.shape[1])

r"""What every producer returns: a distribution over the latents (logits) of each test point.

Uncertainties are split in nats: with :math:`\bar p = \mathrm{E}[p]` over the latents,
total = :math:`H(\bar p)`, aleatoric = :math:`\mathrm{E}[H(p)]`, and epistemic is their
difference, the mutual information between the label and the predictor (Depeweg et al. 2018).
See docs/theory: "Predictive uncertainty".
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, logsumexp, softmax
from scipy.stats import qmc

from ntk_uq._common.rules import own_rules
from ntk_uq._common.warnings import SamplingWarning, warn_user
from ntk_uq._common.words import in_a_line
from ntk_uq.likelihoods import Categorical, Gaussian, Likelihood
from ntk_uq.predictions.decomposition import as_probabilities

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GaussianPrediction", "SamplePrediction"]

Floats = NDArray[np.float64]

# Scrambles x Sobol points used for E[softmax(f)] under a Gaussian. 4 x 256 points leave an error
# near 1e-3 in a class probability; the scatter of the scrambles estimates it.
_SCRAMBLES, _SOBOL_POINTS = 4, 256
# In the place of a probability of zero, whose logarithm is no latent.
_LEAST_PROBABILITY = 1e-300
# Latents held at once while class probabilities are averaged: 2**22 doubles are 32 MiB.
_CHUNK = 2**22
# Chains are cut in contiguous batches of ten autocorrelation times tau. Batches of b draws miss at
# most tau / (2 b) of the variance of a mean, and a standard error is at most 2.5% low.
_TIMES_PER_BATCH = 10
# No more batches of a chain, as their scatter is known well enough, and no fewer of all chains, as
# it would not be known at all; where that takes batches under 5 tau, the chains are too short.
_BATCHES_PER_CHAIN, _FEWEST_BATCHES, _FEWEST_TIMES = 20, 10, 5
# Series of draws of either kind whose autocorrelation is measured.
_SUMMARIES = 8


@dataclass(frozen=True)
class Batches:
    """Contiguous batches of draws that are taken for independent of one another.

    Attributes
    ----------
    starts : tuple of int
        First draw of each of the G batches.
    n_draws : int
        Draws in all.
    labels : tuple of int
        Names of the batches. Of two methods, batches with one label hold draws that may depend on
        one another; all others do not.
    """

    starts: tuple[int, ...]
    n_draws: int
    labels: tuple[int, ...]

    @classmethod
    def of(cls, n_sequences: int, length: int, size: int) -> "Batches":
        """Cut sequences, one after another, in batches of one size; last ones may be smaller."""
        starts = np.add.outer(length * np.arange(n_sequences), np.arange(0, length, size)).ravel()
        return cls(tuple(starts.tolist()), n_sequences * length, tuple(range(len(starts))))

    @cached_property
    def sizes(self) -> Floats:
        """Draws in each batch: [G]."""
        return np.diff(self.starts, append=self.n_draws).astype(np.float64)

    @cached_property
    def weights(self) -> Floats:
        """Their shares of all draws: [G]."""
        return self.sizes / self.n_draws

    def means(self, values: Floats) -> Floats:
        """Means over the draws of each batch: [G, ...] of [S, ...]."""
        sums = np.add.reduceat(values, self.starts, axis=0)
        return sums / self.sizes.reshape(-1, *(1,) * (values.ndim - 1))

    @cached_property
    def unbiased_weights(self) -> Floats:
        r"""Weights v that make :math:`\sum_g v_g^2 (x_g - \bar x)^2` a mean's squared error: [G].

        The deviation from a mean that a batch is part of is too small, by its share.
        """
        if len(self.starts) < 2:
            return np.full(len(self.starts), np.nan)
        return self.weights / np.sqrt(1 - np.sum(self.weights**2))


class _Prediction(ABC):
    """Moments of the response, shared by both kinds of prediction.

    A subclass gives `_latents(points)`, draws [S, k, C] at a slice of the points, and `_batches`,
    independent groups of these draws: their scatter measures the Monte-Carlo error.
    """

    mean: Floats
    cov: Floats
    likelihood: Likelihood

    @property
    @abstractmethod
    def _n_latents(self) -> int: ...

    @abstractmethod
    def _latents(self, points: slice) -> Floats: ...

    @property
    @abstractmethod
    def _batches(self) -> Batches: ...

    @property
    def _chunks(self) -> list[slice]:
        """Slices of the points, so few that their latents can be held at once."""
        m, c = self.mean.shape
        step = max(1, _CHUNK // (self._n_latents * c))
        return [slice(start, start + step) for start in range(0, m, step)]

    @property
    def std(self) -> Floats:
        """Standard deviation of each latent: [m, C]."""
        variance = np.diagonal(self.cov, axis1=-2, axis2=-1)
        return np.sqrt(np.maximum(variance, 0.0))  # a closed form's zero may round to below

    @cached_property
    def _response_moments(self) -> tuple[Floats, Floats]:
        """Mean response [m, C] and mean entropy [m]."""
        parts = []
        for points in self._chunks:
            p = _response(self.likelihood, self._latents(points))
            parts.append((p.mean(axis=0), _entropy(p).mean(axis=0)))
        mean, entropy = (np.concatenate(part) for part in zip(*parts, strict=True))
        return mean, entropy

    @cached_property
    def _response_error(self) -> Floats:
        """Monte-Carlo standard error of the mean response: [m, C]."""
        parts = []
        for points in self._chunks:
            p = _response(self.likelihood, self._latents(points))
            parts.append(standard_error(self._batches, self._batches.means(p)))
        return np.concatenate(parts)

    def proba(self) -> Floats:
        """Mean class probabilities, averaged over the distribution of the latents.

        Returns
        -------
        array of shape [m, C]
            Rows sum to one.
        """
        self._require_classes("proba()")
        return self._response_moments[0]

    def proba_mcse(self) -> Floats:
        """Monte-Carlo standard error of `proba()`.

        The error from the finite number of draws (or integration nodes), not the spread of the
        predictions. Chains are cut into contiguous batches of at least ten autocorrelation times,
        as they are measured, so that autocorrelation is counted but for 2.5% at most.

        Returns
        -------
        array of shape [m, C]
            Standard errors, as probabilities.

        Warns
        -----
        ntk_uq.bayes.SamplingWarning
            If chains are too short for such batches, so that the error is more than 5% low.
        """
        self._require_classes("proba_mcse()")
        self._warn_of_short_chains()
        return self._response_error

    def log_density(self, y: Floats) -> Floats:
        r"""Log predictive density of targets, :math:`\log \mathrm{E}\,p(y | f)`.

        Parameters
        ----------
        y : array of shape [m, C]
            Targets as the likelihood takes them: one-hot rows for classes.

        Returns
        -------
        array of shape [m]
            Nats. Its negative mean is the log loss.
        """
        self._require_targets(y)
        parts = []
        for points in self._chunks:
            with own_rules(), jax.enable_x64(True):
                densities = self.likelihood.log_density(
                    jnp.asarray(self._latents(points)), jnp.asarray(y[points])
                )
            parts.append(logsumexp(np.asarray(densities), axis=0) - np.log(self._n_latents))
        return np.concatenate(parts)

    def _require_targets(self, y: Floats) -> None:
        if np.shape(y) != self.mean.shape:
            raise ValueError(
                f"Targets must have the shape {self.mean.shape} of the latents, for classes as "
                f"one-hot rows; got {np.shape(y)}."
            )

    def to_frame(self, *, classes: ArrayLike | None = None, index: Any = None) -> "pd.DataFrame":
        """What is said of each test point, as a table.

        Parameters
        ----------
        classes : array-like of shape [C], optional
            Names of the outputs: ``classes_`` of a classifier. Default: 0 to C - 1.
        index : array-like of shape [m], optional
            Names of the points: the index of a data frame.

        Returns
        -------
        DataFrame
            Of classes: ``prediction``, ``probability_<class>``, ``total_uncertainty``,
            ``aleatoric`` and ``epistemic`` in nats. Of others ``mean_<output>`` and
            ``std_<output>`` of the latents, without the number where there is one.

        Raises
        ------
        ValueError
            If there are not as many names as outputs or points.

        Examples
        --------
        >>> import numpy as np
        >>> from ntk_uq import SamplePrediction
        >>> table = SamplePrediction(np.zeros((4, 1, 2))).to_frame(classes=["no", "yes"])
        >>> table[["prediction", "probability_no", "epistemic"]]
          prediction  probability_no  epistemic
        0         no             0.5        0.0
        """
        import pandas as pd  # half a second, which predictions need not take

        m, outputs = self.mean.shape
        names = np.arange(outputs) if classes is None else np.asarray(classes)
        if len(names) != outputs or (index is not None and len(index) != m):
            raise ValueError(
                f"There are {outputs} outputs at {m} points; got {len(names)} classes"
                + ("." if index is None else f" and an index of {len(index)}.")
            )
        columns: dict[str, Any] = {}
        if isinstance(self.likelihood, Categorical):
            proba = self.proba()
            columns["prediction"] = names[proba.argmax(axis=1)]
            columns |= {f"probability_{c}": p for c, p in zip(names, proba.T, strict=True)}
            for name in ("total_uncertainty", "aleatoric", "epistemic"):
                columns[name] = getattr(self, name)
        else:
            for k, name in enumerate(names):
                suffix = "" if outputs == 1 and classes is None else f"_{name}"
                columns |= {f"mean{suffix}": self.mean[:, k], f"std{suffix}": self.std[:, k]}
        return pd.DataFrame(columns, index=index)

    def mean_mcse(self, statistic: Callable[[Floats, slice], Floats]) -> float:
        """Monte-Carlo standard error of a statistic averaged over draws and points.

        One draw moves all points at once, so the standard errors of single points do not add up
        to that of their mean; this counts how the points move together.

        Parameters
        ----------
        statistic : callable
            ``statistic(p, points)`` takes class probabilities p [S, k, C], one row a draw, at a
            slice of the points, and returns the statistic of each draw and point: [S, k].

        Returns
        -------
        float
            Standard error, in the statistic's unit; NaN for a single draw.

        Warns
        -----
        ntk_uq.bayes.SamplingWarning
            If chains are too short to know it; see `proba_mcse`.
        """
        self._warn_of_short_chains()
        total = np.zeros(self._n_latents)
        for points in self._chunks:
            p = _response(self.likelihood, self._latents(points))
            total += statistic(p, points).sum(axis=1)
        return float(standard_error(self._batches, self._batches.means(total)) / len(self.mean))

    @property
    def total_uncertainty(self) -> Floats:
        """Entropy of the mean class probabilities: [m] nats."""
        return _entropy(self.proba())

    @property
    def aleatoric(self) -> Floats:
        """Mean entropy of the class probabilities, what no further data removes: [m] nats."""
        self._require_classes("aleatoric")
        return self._response_moments[1]

    @property
    def epistemic(self) -> Floats:
        """Mutual information between label and predictor: [m] nats, total minus aleatoric."""
        # Jensen's inequality makes it non-negative; rounding may not.
        return np.maximum(self.total_uncertainty - self.aleatoric, 0.0)

    @property
    def _too_short(self) -> str | None:
        """What is wrong with chains too short to know their errors, as a sentence."""
        return None

    def _warn_of_short_chains(self) -> None:
        if self._too_short is not None:
            warn_user(self._too_short, SamplingWarning)

    def _require_classes(self, name: str) -> None:
        if not isinstance(self.likelihood, Categorical):
            raise AttributeError(
                f"{name} needs class probabilities, but the likelihood is "
                f"{type(self.likelihood).__name__}; use mean and cov of the latents."
            )


@in_a_line
@dataclass(frozen=True, eq=False)
class GaussianPrediction(_Prediction):
    """Gaussian distribution of the latents at each of m test points.

    Parameters
    ----------
    mean : array of shape [m, C]
        Mean latents (logits for a classifier).
    cov : array of shape [m, C, C]
        Covariance over the C outputs at each point, positive semi-definite.
    likelihood : Likelihood
        Turns latents into class probabilities.
    joint_cov : array of shape [m, C, m, C], optional
        Covariance jointly over the test points, of which `cov` holds the blocks on the diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import GaussianPrediction
    >>> pred = GaussianPrediction(np.zeros((1, 2)), np.eye(2)[None])
    >>> pred.proba().round(3)
    array([[0.5, 0.5]])
    >>> bool(pred.epistemic[0] > 0)
    True
    """

    mean: Floats
    cov: Floats
    likelihood: Likelihood = field(default_factory=Categorical)
    joint_cov: Floats | None = None

    def __post_init__(self) -> None:
        m, c = np.shape(self.mean) if np.ndim(self.mean) == 2 else (None, None)
        if m is None or np.shape(self.cov) != (m, c, c):
            raise ValueError(
                "GaussianPrediction takes mean of shape [m, C] and cov of shape [m, C, C], got "
                f"{np.shape(self.mean)} and {np.shape(self.cov)}."
            )
        if self.joint_cov is not None and np.shape(self.joint_cov) != (m, c, m, c):
            raise ValueError(
                f"joint_cov must have the shape [m, C, m, C], {(m, c, m, c)}; got "
                f"{np.shape(self.joint_cov)}."
            )

    @cached_property
    def _root(self) -> Floats:
        """Symmetric square root A of each covariance, cov = A A, singular ones included: [m, C, C].

        Continuous in the covariance. Eigenvectors are not, where eigenvalues coincide: scaled and
        used as a root, they let rounding turn the integration nodes.
        """
        return _symmetric_root(self.cov)

    @cached_property
    def _nodes(self) -> Floats:
        """Nodes of integration, as many in each scramble; one where nothing is random."""
        outputs = self.mean.shape[1]
        return gaussian_nodes(outputs) if np.any(self.cov) else np.zeros((_SCRAMBLES, outputs))

    @property
    def _n_latents(self) -> int:
        return len(self._nodes)

    def _latents(self, points: slice) -> Floats:
        return self.mean[points] + np.einsum("kcd,sd->skc", self._root[points], self._nodes)

    @property
    def _batches(self) -> Batches:
        return Batches.of(1, len(self._nodes), len(self._nodes) // _SCRAMBLES)

    def log_density(self, y: Floats) -> Floats:
        """Log predictive density of targets [m, C]: [m] nats; in closed form for Gaussian noise."""
        if not isinstance(self.likelihood, Gaussian):
            return super().log_density(y)
        self._require_targets(y)
        c = self.mean.shape[1]
        noise = np.broadcast_to(np.square(self.likelihood.noise), c)
        factor = np.linalg.cholesky(self.cov + np.diag(noise))
        z = np.linalg.solve(factor, (y - self.mean)[..., None])[..., 0]
        log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        return -0.5 * np.sum(z**2, axis=1) - log_det - 0.5 * c * np.log(2 * np.pi)

    def sample(self, key: jax.Array, n: int) -> Floats:
        """Draw latents: of functions where `joint_cov` is known, else independently at each point.

        Parameters
        ----------
        key : jax.Array
            PRNG key.
        n : int
            Number of draws.

        Returns
        -------
        array of shape [n, m, C]
        """
        with jax.enable_x64(True):
            noise = np.asarray(jax.random.normal(key, (n, *self.mean.shape), dtype="float64"))
        if self.joint_cov is None:
            return self.mean + np.einsum("mcd,nmd->nmc", self._root, noise)
        root = _symmetric_root(self.joint_cov.reshape(self.mean.size, -1))
        return self.mean + (noise.reshape(n, -1) @ root).reshape(noise.shape)


@in_a_line
@dataclass(frozen=True, eq=False)
class SamplePrediction(_Prediction):
    """Draws of the latents at each of m test points.

    Parameters
    ----------
    samples : array of shape [S, m, C]
        One latent function a draw (an ensemble's member, a posterior sample).
    likelihood : Likelihood
        Turns latents into class probabilities.
    n_chains : int, optional
        The draws come from this many Markov chains, one chain after another, and are
        autocorrelated within each; None says that they are independent.
    joint : bool
        True where one draw is one function, jointly over the test points; False where only the
        distribution at each point is meant, and the points share their random numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import SamplePrediction
    >>> pred = SamplePrediction(np.array([[[4.0, 0.0]], [[0.0, 4.0]]]))
    >>> pred.proba()
    array([[0.5, 0.5]])
    >>> pred.total_uncertainty.round(3), pred.aleatoric.round(3), pred.epistemic.round(3)
    (array([0.693]), array([0.09]), array([0.603]))
    """

    samples: Floats
    likelihood: Likelihood = field(default_factory=Categorical)
    n_chains: int | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        if np.ndim(self.samples) != 3 or len(self.samples) < 1:
            raise ValueError(
                "SamplePrediction takes samples of shape [S, m, C] with S >= 1, got "
                f"{np.shape(self.samples)}."
            )
        if self.n_chains is not None and (
            self.n_chains < 1 or len(self.samples) % self.n_chains != 0
        ):
            raise ValueError(
                f"{len(self.samples)} draws do not divide into {self.n_chains} equal chains; "
                "n_chains is None for independent draws."
            )

    @classmethod
    def from_probabilities(
        cls, probabilities: ArrayLike, *, n_chains: int | None = None, joint: bool = True
    ) -> Self:
        """Class probabilities of the members of any ensemble, or of posterior draws, as latents.

        So what another package predicts has this one's uncertainties, and enters `compare`.

        Parameters
        ----------
        probabilities : array-like of shape [S, m, C]
            One row a member: probabilities of the C >= 2 classes at the m test points.
        n_chains : int, optional
            As of the class.
        joint : bool, default True
            Whether one member is one function of the points, as one network or tree is.

        Returns
        -------
        SamplePrediction
            Its latents are the logarithms; of a probability of zero that of 1e-300, as no latent
            of finite size is one.

        Raises
        ------
        ValueError
            If they are not probabilities: not finite, negative, or their sum over classes is
            further from one than single precision explains.

        Examples
        --------
        >>> from ntk_uq import SamplePrediction
        >>> trees = [[[0.9, 0.1]], [[0.2, 0.8]]]  # two members, one point
        >>> SamplePrediction.from_probabilities(trees).proba().round(2)
        array([[0.55, 0.45]])
        """
        return cls(
            np.log(np.maximum(as_probabilities(probabilities), _LEAST_PROBABILITY)),
            n_chains=n_chains,
            joint=joint,
        )

    @cached_property
    def mean(self) -> Floats:  # type: ignore[override]
        """Mean latents: [m, C]."""
        return self.samples.mean(axis=0)

    @cached_property
    def cov(self) -> Floats:  # type: ignore[override]
        """Covariance of the latents over the C outputs at each point: [m, C, C].

        Unbiased (divided by S - 1); NaN for a single draw.
        """
        deviation = self.samples - self.mean
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("smc,smd->mcd", deviation, deviation) / np.float64(len(deviation) - 1)

    @property
    def _n_latents(self) -> int:
        return len(self.samples)

    def _latents(self, points: slice) -> Floats:
        return self.samples[:, points]

    @cached_property
    def _batches(self) -> Batches:
        if self.n_chains is None:
            return Batches.of(1, len(self.samples), 1)
        return Batches.of(self.n_chains, self._chain_length, self._batch_size)

    @property
    def _chain_length(self) -> int:
        return len(self.samples) // (self.n_chains or 1)

    @cached_property
    def _batch_size(self) -> int:
        """Draws in a batch of a chain; see `_TIMES_PER_BATCH`."""
        length, n_chains = self._chain_length, self.n_chains or 1
        if length < _BATCHES_PER_CHAIN:  # too short to see its autocorrelation
            return length
        fewest = -(-_FEWEST_BATCHES // n_chains)
        wanted = int(length / (_TIMES_PER_BATCH * self._autocorrelation_time))
        return -(-length // min(max(wanted, fewest), _BATCHES_PER_CHAIN))

    @property
    def _too_short(self) -> str | None:
        if self.n_chains is None or self._chain_length < _BATCHES_PER_CHAIN:
            return None
        time = self._autocorrelation_time
        if self._batch_size >= _FEWEST_TIMES * time:
            return None
        return (
            f"Monte-Carlo standard errors are too small: about {time:.0f} draws of a chain tell as "
            f"much as one that is independent, and chains of {self._chain_length} are too short to "
            f"know the error that this leaves. Draw {_FEWEST_TIMES * time / self._batch_size:.1f} "
            "times as many (num_samples)."
        )

    @cached_property
    def _autocorrelation_time(self) -> float:
        """Draws of a chain that tell as much as an independent one, where they tell little.

        ArviZ's, of the slower ones of several summaries: the slowest of them is so by chance too.
        """
        from arviz_stats.base import array_stats  # slow to load, and for chains only

        series = np.concatenate(list(self._summaries()), axis=-1)
        series = series[:, np.ptp(series, axis=0) > 1e-9 * np.abs(series).max(axis=0)]
        if series.shape[1] == 0:  # nothing moves
            return 1.0
        series = series.reshape(self.n_chains or 1, self._chain_length, -1)
        ess = array_stats.ess(series, method="mean", chain_axis=0, draw_axis=1)
        return float(len(self.samples) / np.quantile(ess, 0.25))

    def _summaries(self) -> Iterator[Floats]:
        """Of response and latents: means over the points, and random sums of their entries."""
        n_draws, (m, outputs) = len(self.samples), self.mean.shape
        shown = slice(None, None, -(-outputs // _SUMMARIES))
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (m * outputs, _SUMMARIES))
        for function in (partial(_response, self.likelihood), self._seen):
            means, sums = np.zeros((2, 1))
            for points in self._chunks:
                values = function(self._latents(points))
                means = means + values[..., shown].sum(axis=1)
                here = signs[points.start * outputs :][: values[0].size]
                sums = sums + values.reshape(n_draws, -1) @ here
            yield means / m
            yield sums

    def _seen(self, latents: Floats) -> Floats:
        """Latents without what the likelihood does not see, the mean over classes."""
        if isinstance(self.likelihood, Categorical):
            return latents - latents.mean(axis=-1, keepdims=True)
        return latents

    def sample(self, key: jax.Array, n: int) -> Floats:
        """Draw latents from the empirical distribution, with replacement.

        Parameters
        ----------
        key : jax.Array
            PRNG key.
        n : int
            Number of draws.

        Returns
        -------
        array of shape [n, m, C]
        """
        return self.samples[np.asarray(jax.random.randint(key, (n,), 0, len(self.samples)))]


def _symmetric_root(cov: Floats) -> Floats:
    """Symmetric square roots of covariances [..., k, k], singular ones included."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    roots = np.sqrt(np.maximum(eigenvalues, 0.0))
    return (vectors * roots[..., None, :]) @ vectors.swapaxes(-2, -1)


def _entropy(p: Floats) -> Floats:
    """Shannon entropy over the last axis, in nats."""
    return entr(p).sum(axis=-1)


def _response(likelihood: Likelihood, latents: Floats) -> Floats:
    """Class probabilities of latents [..., C]."""
    if isinstance(likelihood, Categorical):
        return softmax(latents, axis=-1)
    with own_rules(), jax.enable_x64(True):
        return np.asarray(likelihood.response(jnp.asarray(latents)))


def standard_error(batches: Batches, means: Floats) -> Floats:
    """Standard error of a mean from its batches [G, ...]; NaN where there is only one."""
    return np.sqrt(squared_error((batches, means)))


def squared_error(*terms: tuple[Batches, Floats]) -> Floats:
    """Variance of the sum of means [...], each known by its batches [G, ...].

    Batches with one label add up before they are squared, since their draws may depend on one
    another. Whether they do need not be known.
    """
    if all(batches.labels == terms[0][0].labels for batches, _ in terms):
        return np.sum(sum(_errors(*term) for term in terms) ** 2, axis=0)
    errors = [dict(zip(term[0].labels, _errors(*term), strict=True)) for term in terms]
    labels = sorted(set().union(*errors))
    return sum(sum(error[label] for error in errors if label in error) ** 2 for label in labels)


def _errors(batches: Batches, means: Floats) -> Floats:
    """What each batch adds to the error of the mean: [G, ...]."""
    deviations = means - np.tensordot(batches.weights, means, axes=1)
    return batches.unbiased_weights.reshape(-1, *(1,) * (means.ndim - 1)) * deviations


@lru_cache(maxsize=8)
def gaussian_nodes(dimension: int) -> Floats:
    """Quasi-random nodes of N(0, I), the same for every test point: [R * S, C].

    Parameters
    ----------
    dimension : int
        C.
    """
    return np.concatenate(
        [
            qmc.MultivariateNormalQMC(np.zeros(dimension), rng=np.random.default_rng(seed)).random(
                _SOBOL_POINTS
            )
            for seed in range(_SCRAMBLES)
        ]
    )

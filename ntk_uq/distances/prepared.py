"""A prediction as the distances need it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import numpy as np
from scipy.linalg import helmert
from scipy.special import entr

from ntk_uq.distances.arrays import Floats
from ntk_uq.distances.batches import Prediction, bootstrap_levels, bootstrap_weights, own_batches
from ntk_uq.likelihoods import Categorical, Gaussian
from ntk_uq.predictions.distributions import (
    Batches,
    GaussianPrediction,
    SamplePrediction,
    _response,
    standard_error,
)

# Batches of draws, whose scatter gives standard errors within 1 / sqrt(200) = 7%; fewer where their
# means at all points take more than 2**24 numbers (128 MiB), at least these.
MOST_BATCHES, _FEWEST, _LARGEST = 100, 20, 2**24
# Draws of a Gaussian for the energy distance, and the most of any method's.
_FUNCTION_DRAWS, _MOST_FUNCTION_DRAWS = 512, 2000
# Entries of covariances (points times outputs squared) from which latents are compared.
_MOST_MOMENTS = 100_000
# Numbers held at once: 2**22 doubles are 32 MiB.
_CHUNK = 2**22


class PreparedPrediction:
    """A prediction as the distances need it: computed once, for every pair that it is part of.

    Parameters
    ----------
    prediction : GaussianPrediction or SamplePrediction
        At the m test points.
    functions : GaussianPrediction or SamplePrediction, optional
        Jointly over some of the test points, the same for all methods.
    seed : int
        Of the draws from a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import SamplePrediction
    >>> PreparedPrediction(SamplePrediction(np.zeros((2, 1, 4)))).proba
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    def __init__(self, prediction: Prediction, functions: Prediction | None = None, seed: int = 0):
        self.prediction = prediction
        self._functions = functions
        self._seed = seed
        self._known: dict[tuple[str, tuple[int, ...]], Any] = {}

    @cached_property
    def proba(self) -> Floats:
        """Mean class probabilities: [m, C]."""
        return self.prediction.proba()

    @cached_property
    def mcse(self) -> Floats:
        """Their standard errors."""
        return self.prediction.proba_mcse()

    @property
    def is_classifier(self) -> bool:
        """Whether there are class probabilities."""
        return isinstance(self.prediction.likelihood, Categorical)

    @cached_property
    def effective_draws(self) -> float:
        """Independent draws that would give the same standard errors of the response.

        Over all points and classes: sum of the variances over sum of the squared standard errors.
        """
        prediction, n_draws = self.prediction, self.prediction._n_latents
        if n_draws < 2:
            return np.nan
        if isinstance(prediction, SamplePrediction) and prediction.n_chains is None:
            return float(n_draws)
        batches = self.batches
        means, _, squares = self.response(batches)
        mean = np.tensordot(batches.weights, means, axes=1)
        variance = (squares - mean**2).sum() * n_draws / (n_draws - 1)
        error = (standard_error(batches, means) ** 2).sum()
        return float(variance / error) if error > 0 else np.nan

    @cached_property
    def basis(self) -> Floats:
        """Orthonormal basis [C, d] of what the likelihood sees of the latents."""
        outputs = self.prediction.mean.shape[1]
        return helmert(outputs).T if self.is_classifier else np.eye(outputs)

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean [k, d] and covariance [k, d, d] of the latents in `basis`, at `_moment_points`."""
        basis, points = self.basis, self._moment_points
        return self.prediction.mean[points] @ basis, basis.T @ self.prediction.cov[points] @ basis

    @property
    def _moment_points(self) -> slice:
        m, outputs = self.prediction.mean.shape
        return slice(None, None, -(-m * outputs**2 // _MOST_MOMENTS))

    @cached_property
    def functions(self) -> tuple[SamplePrediction, int] | None:
        """Draws of functions, [S, 1, D] in `basis`, and of how many draws of a chain each is one.

        Of very many, the first.
        """
        prediction, every = self._functions, 1
        if isinstance(prediction, GaussianPrediction) and (
            prediction.joint_cov is not None or not prediction.cov.any()
        ):
            samples = prediction.sample(jax.random.key(self._seed), _FUNCTION_DRAWS)
            prediction = SamplePrediction(samples, joint=True)
        if not (isinstance(prediction, SamplePrediction) and prediction.joint):
            return None
        samples, n_chains = prediction.samples, prediction.n_chains
        if n_chains is None:
            samples = samples[:_MOST_FUNCTION_DRAWS]
        else:  # neighbours in a chain say much the same
            every = -(-len(samples) // _MOST_FUNCTION_DRAWS)
            samples = samples.reshape(n_chains, -1, *samples.shape[1:])[:, ::every]
        samples = samples.reshape(-1, *prediction.mean.shape) @ self.basis
        samples = samples.reshape(len(samples), 1, -1)
        return SamplePrediction(samples, Gaussian(1.0), n_chains=n_chains), every

    @cached_property
    def batches(self) -> Batches:
        """Independent batches of the draws, so few that means over them can be held."""
        return own_batches(self.prediction, self.most_batches)

    @property
    def most_batches(self) -> int:
        """Batches whose means can be held."""
        return max(_FEWEST, min(MOST_BATCHES, _LARGEST // self.prediction.mean.size))

    def response(self, batches: Batches) -> tuple[Floats, Floats, Floats]:
        """Batch means of the response p [G, m, C] and of its entropy [G, m]; mean of p^2 [m, C].

        For a regressor p is the function, and its square [G, m, C] takes the entropy's place.
        """
        return self._once("response", batches, self._response)

    def deviations(self, batches: Batches) -> tuple[Floats, Floats]:
        """Batch means of deviations from the mean, [G, k, d], and of their products, [.., d, d]."""
        return self._once("deviations", batches, self._deviations)

    def _once(self, name: str, batches: Batches, function: Callable[[Batches], Any]) -> Any:
        """What a function gives for batches of these draws, whatever they are called."""
        key = name, batches.starts
        if key not in self._known:
            self._known[key] = function(batches)
        return self._known[key]

    def _response(self, batches: Batches) -> tuple[Floats, Floats, Floats]:
        parts = []
        for points in self.prediction._chunks:
            p = _response(self.prediction.likelihood, self.prediction._latents(points))
            other = entr(p).sum(axis=-1) if self.is_classifier else p**2
            parts.append((batches.means(p), batches.means(other), (p**2).mean(axis=0)[None]))
        means, other, squares = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return means, other, squares[0]

    def _deviations(self, batches: Batches) -> tuple[Floats, Floats]:
        mean, _ = self.moments
        points = np.arange(len(self.prediction.mean))[self._moment_points]
        first, second = [], []
        step = max(1, _CHUNK // (self.prediction._n_latents * mean.shape[1] ** 2))
        for start in range(0, len(points), step):
            chunk = points[start : start + step]
            latents = self.prediction._latents(slice(chunk[0], chunk[-1] + 1))
            latents = latents[:, chunk - chunk[0]]
            z = latents @ self.basis - mean[start : start + step]
            first.append(batches.means(z))
            second.append(batches.means(z[..., :, None] * z[..., None, :]))
        return np.concatenate(first, axis=1), np.concatenate(second, axis=1)

    def uncertainty(
        self, batches: Batches | None = None, levels: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Total and epistemic uncertainty by bootstrap over batches: [1 + resamples, m] each.

        The first row is the estimate. For a regressor they are standard deviations, with and
        without observation noise. Levels [resamples, L] are uniform random numbers; batches take
        theirs by their labels.
        """
        batches = self.batches if batches is None else batches
        levels = bootstrap_levels(batches) if levels is None else levels
        weights = bootstrap_weights(batches, levels)
        m, outputs = self.prediction.mean.shape
        step = max(1, _CHUNK // (len(weights) * outputs))
        parts = [
            self._resampled(slice(start, start + step), batches, weights)
            for start in range(0, m, step)
        ]
        total, epistemic = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return total, epistemic

    def _resampled(self, points: slice, batches: Batches, weights: Floats) -> tuple[Floats, Floats]:
        means, other = (values[:, points] for values in self.response(batches)[:2])
        mean, of_other = (np.tensordot(weights, x, axes=1) for x in (means, other))
        if self.is_classifier:
            total = entr(mean).sum(axis=-1)
            return total, np.maximum(total - of_other, 0.0)
        variance = np.maximum(of_other - mean**2, 0.0)
        noise = np.square(getattr(self.prediction.likelihood, "noise", 0.0))
        return np.sqrt((variance + noise).sum(axis=-1)), np.sqrt(variance.sum(axis=-1))

"""Two methods, and the errors of what compares them."""

from functools import cached_property

import numpy as np

from ntk_uq.distances.arrays import Floats
from ntk_uq.distances.batches import bootstrap_levels, paired_batches
from ntk_uq.distances.prepared import PreparedPrediction
from ntk_uq.predictions.distributions import Batches, SamplePrediction, squared_error


class Pair:
    """Two methods, in batches that go together; either's contributions to an error are added."""

    def __init__(self, first: PreparedPrediction, second: PreparedPrediction):
        self.draws = first, second
        self.batches = paired_batches(first.prediction, second.prediction, first.most_batches)

    @cached_property
    def uncertainties(self) -> list[tuple[Floats, Floats]]:
        """Total and epistemic uncertainty of either, by the bootstrap: [1 + resamples, m] each."""
        levels = bootstrap_levels(*self.batches)
        return [
            draws.uncertainty(batches, levels)
            for draws, batches in zip(self.draws, self.batches, strict=True)
        ]

    @property
    def probabilities(self) -> tuple[Floats, Floats]:
        """Mean class probabilities of either: [m, C]."""
        first, second = self.draws
        return first.proba, second.proba

    @cached_property
    def scale(self) -> Floats:
        """Standard error of the difference of class probabilities: [m, C]."""
        p, q = self._responses
        return np.sqrt(squared_error((self.batches[0], p), (self.batches[1], -q)))

    def error_of_mean(self, *slopes: Floats) -> float:
        """Standard error of the mean over points of slope . p + slope . q, for slopes [m, C]."""
        terms = [
            (batches, np.einsum("gmc,mc->g", means, slope))
            for batches, means, slope in zip(self.batches, self._responses, slopes, strict=True)
        ]
        return float(np.sqrt(squared_error(*terms)) / len(slopes[0]))

    @property
    def _responses(self) -> list[Floats]:
        return [
            draws.response(batches)[0]
            for draws, batches in zip(self.draws, self.batches, strict=True)
        ]

    @property
    def _sampled(self) -> list[tuple[float, Batches, Floats, Floats]]:
        """Sign, batches, deviations and products of those whose moments are not known."""
        return [
            (sign, batches, *draws.deviations(batches))
            for sign, draws, batches in zip((1, -1), self.draws, self.batches, strict=True)
            if isinstance(draws.prediction, SamplePrediction)
        ]

    def moment_error(self, shift: Floats, curvatures: tuple[Floats, Floats]) -> float:
        """Standard error of the mean over points of shift . (z_a - z_b) + sum z^T curvature z."""
        terms = [
            (
                batches,
                sign * np.einsum("gkc,kc->g", first, shift)
                + np.einsum("gkcd,kcd->g", second, curvatures[0 if sign > 0 else 1]),
            )
            for sign, batches, first, second in self._sampled
        ]
        return float(np.sqrt(squared_error(*terms)) / len(shift)) if terms else 0.0

    @property
    def moment_noise(self) -> float:
        r"""Mean over the points of the squared distance between estimates of the same moments.

        With the errors d of the mean and D of the covariance, whose eigenvalues are l, it is
        :math:`\|d\|^2 + \sum_{ij} D_{ij}^2 / (2 (l_i + l_j))` to second order.
        """
        if not self._sampled:
            return 0.0
        first, second = self.draws
        cov = 0.5 * (first.moments[1] + second.moments[1])
        eigenvalues, vectors = np.linalg.eigh(cov)
        scale = eigenvalues[..., :, None] + eigenvalues[..., None, :]
        # A direction without spread has no error either.
        inverse = np.divide(0.5, scale, out=np.zeros_like(scale), where=scale > 0)
        transposed = vectors.swapaxes(-2, -1)
        means = squared_error(*((b, sign * z) for sign, b, z, _ in self._sampled))
        covs = squared_error(
            *(
                (b, sign * (transposed @ products @ vectors))
                for sign, b, _, products in self._sampled
            )
        )
        return float(np.sum(means) + np.sum(covs * inverse)) / len(cov)

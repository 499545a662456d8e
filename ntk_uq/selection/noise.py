"""The evidence of a Gaussian likelihood in the kernel's eigenbasis, and its noise."""

import math
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.warnings import warn_user

__all__ = ["Spectrum", "estimate_noise", "warn_of_copies"]

Floats = NDArray[np.float64]

# The least noise that is estimated, relative to the targets: less explains no more, and where rows
# were entered twice the evidence would have it that a third entry is known to the last digit. And
# what is taken, relative to the prior, where targets are all zero and so say nothing: small, and
# yet networks can be trained and chains drawn.
_LEAST_NOISE, _UNKNOWN_NOISE = 1e-2, 1e-2


@jax.jit
def _log_evidence(
    eigenvalues: Array, squares: Array, repetitions: float, reg: Any, noise: Any
) -> Array:
    noise = jnp.broadcast_to(noise, squares.shape[1:])
    variances = eigenvalues[:, None] / reg + noise**2
    fit = jnp.sum(squares / variances + jnp.log(2 * math.pi * variances))
    return -0.5 * (fit + repetitions * jnp.sum(jnp.log(2 * math.pi * noise**2)))


class Spectrum(NamedTuple):
    """What the evidence of a Gaussian likelihood needs of a kernel and targets, for any `reg`.

    Attributes
    ----------
    eigenvalues : array of shape [n]
        Of the kernel.
    squares : array of shape [n, C]
        Squared coordinates of the targets in its eigenbasis.
    repetitions : float
        Observations that repeat others: sum of the weights less one.
    """

    eigenvalues: Floats
    squares: Floats
    repetitions: float = 0.0

    @classmethod
    def of(cls, ntk: ArrayLike, y: Floats, weights: Floats | None = None) -> Self:
        """Decompose a kernel [n, n], which takes n^3, for targets [n, C] that count so often.

        See `estimate_noise` for weights.
        """
        roots = np.ones(len(y)) if weights is None else np.sqrt(weights)
        eigenvalues, vectors = scipy.linalg.eigh(
            roots[:, None] * np.asarray(ntk, np.float64) * roots
        )
        squares = (vectors.T @ (roots[:, None] * y)) ** 2
        return cls(np.maximum(eigenvalues, 0.0), squares, float(np.sum(roots**2 - 1)))

    def log_evidence(self, reg: Any, noise: Any) -> Array:
        """Log evidence in nats, traceable, of a noise [C]: Rasmussen & Williams, eq. 5.8."""
        return _log_evidence(self.eigenvalues, self.squares, self.repetitions, reg, noise)

    def best_noise(self, reg: float) -> Floats:
        """Noise [C] that maximises the evidence: `estimate_noise`."""
        signal, repetitions = self.eigenvalues / reg, self.repetitions
        observations = len(signal) + repetitions
        scales = np.sqrt(self.squares.sum(axis=0) / observations)
        unknown = _UNKNOWN_NOISE * (math.sqrt(signal.sum() / observations) or 1.0)

        def deficit(log_noise: float, squares: Floats) -> float:
            variances = signal + np.exp(2 * log_noise)
            fit = np.sum(squares / variances + np.log(variances))
            return float(fit + 2 * repetitions * log_noise)

        def best(squares: Floats, scale: float) -> float:
            # The evidence may have two maxima, one explaining by noise and one by signal: scan
            # first.
            grid = np.log(scale) + np.linspace(np.log(_LEAST_NOISE), np.log(2), 60)
            centre = int(np.argmin([deficit(g, squares) for g in grid]))
            bounds = grid[max(centre - 1, 0)], grid[min(centre + 1, len(grid) - 1)]
            fit = scipy.optimize.minimize_scalar(deficit, bounds=bounds, args=(squares,))
            return float(np.exp(fit.x))

        columns = zip(self.squares.T, scales, strict=True)
        return np.array([best(q, s) if s > 0 else unknown for q, s in columns])


def estimate_noise(
    ntk: ArrayLike, y: ArrayLike, reg: float, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    r"""Noise of a Gaussian likelihood that maximises the evidence, for each output.

    With the eigenvalues :math:`s_i` of :math:`S = \Theta / reg` and targets :math:`z` in its
    eigenbasis, :math:`\log p(y) = -\tfrac12 \sum_i z_i^2 / (s_i + \sigma^2)
    + \log(s_i + \sigma^2) + const`. A point that occurs w times is one observation with the noise
    :math:`\sigma / \sqrt w`, and w - 1 repetitions, which say of the noise that it is small:
    :math:`s_i` and :math:`z` are then those of :math:`\sqrt w S \sqrt w` and :math:`\sqrt w y`, and
    :math:`\sum_i (w_i - 1) \log \sigma^2` is added.

    Parameters
    ----------
    ntk : array of shape [n, n]
        NTK of the training points.
    y : array of shape [n, C]
        Targets.
    reg : float
        Regularisation, > 0.
    weights : array of shape [n], optional
        How often each point counts, > 0.

    Returns
    -------
    array of shape [C]
        Standard deviations in units of the target, between 1e-4 and 2 times the root mean square
        of the output's targets. Targets that are all zero have the highest evidence without noise,
        which no solver can take: 1e-2 of the prior's root mean square.

    References
    ----------
    Rasmussen & Williams (2006), eq. 5.8.

    Examples
    --------
    >>> import numpy as np
    >>> estimate_noise(np.zeros((3, 3)), np.array([[2.0], [-2.0], [2.0]]), 1.0).round(3)
    array([2.])
    """
    y = np.asarray(y, np.float64)
    weights = None if weights is None else np.asarray(weights, np.float64)
    return Spectrum.of(ntk, y, weights).best_noise(reg)


def warn_of_copies(noise: ArrayLike, y: Floats, weights: Floats | None) -> None:
    """Warn where repeated points may be why the noise came out as the least there is.

    Parameters
    ----------
    noise : array of shape [C]
        What was found.
    y : array of shape [n, C]
        Targets.
    weights : array of shape [n], optional
        How much each point counts.

    Examples
    --------
    >>> import numpy as np
    >>> warn_of_copies(np.array([0.01]), np.ones((3, 1)), None)  # none counts twice
    """
    if weights is None or not np.any(weights > 1):
        return
    least = _LEAST_NOISE * np.sqrt(np.average(np.square(y), axis=0, weights=weights))
    if np.any(np.asarray(noise) <= 1.01 * least):
        warn_user(
            f"The noise came out as the least that is estimated, a hundredth of the targets' size, "
            f"and {np.sum(weights > 1)} points count more than once. Rows that were entered twice, "
            "with the same target, look like measurements without noise, and predictions near them "
            "are too sure: drop the copies (DataFrame.drop_duplicates), or set noise."
        )

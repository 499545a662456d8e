"""Every point predicted by the others, in closed form, under a Gaussian likelihood."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ntk_uq._common import checks
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.networks.architecture import Kernels

__all__ = ["leave_one_out"]

Floats = NDArray[np.float64]


def leave_one_out(
    kernels: Kernels,
    y: ArrayLike,
    reg: float,
    noise: ArrayLike,
    uncertainty: Uncertainty,
    *,
    weights: ArrayLike | None = None,
    rows: ArrayLike | None = None,
    removed: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    r"""Mean and variance of the predictor at each training point when that point is left out.

    With :math:`G = (\Theta + reg\,\sigma^2)^{-1}`, prior functions of covariance K and all
    quantities of the problem with every point, the problem without point i predicts there

    .. math::
        f_{-i}(x_i) = y_i - \frac{[G (y - f_0)]_i}{G_{ii}}, \qquad
        \mathrm{var} f_{-i}(x_i) = \frac{(G K G)_{ii}}{G_{ii}^2},

    and with label noise and :math:`f_0 \sim GP(0, \Theta / reg)`, the posterior, the variance is
    :math:`1 / (reg\,G_{ii}) - \sigma^2`. docs/theory: "Sampling the posterior".

    Parameters
    ----------
    kernels : Kernels
        NNGP kernel and NTK of the n training points, [n, n].
    y : array of shape [n, C]
        Targets.
    reg : float
        Regularisation.
    noise : float or array of shape [C]
        Standard deviation of the observation noise.
    uncertainty : {"initialization", "posterior", "none"}
        Which prior functions: see the module.
    weights : array of shape [n], optional
        How much each point counts; 1 by default.
    rows : array of shape [m], optional
        Points to leave out, one at a time; all by default.
    removed : array of shape [m], optional
        Weight by which each of these then counts less; all of its weight by default.

    Returns
    -------
    mean, variance : arrays of shape [m, C]

    Raises
    ------
    ValueError
        If the regularised kernel is singular.

    References
    ----------
    Rasmussen and Williams 2006, equations 5.10 to 5.12; Sundararajan and Keerthi 2001, "Predictive
    approaches for choosing hyperparameters in Gaussian processes".

    Examples
    --------
    Of two points with independent values the other one says nothing: the prior remains.

    >>> import jax.numpy as jnp
    >>> from ntk_uq import Kernels
    >>> from ntk_uq.analytic import leave_one_out
    >>> apart = Kernels(jnp.eye(2), jnp.eye(2))
    >>> mean, variance = leave_one_out(apart, jnp.array([[3.0], [1.0]]), 1.0, 0.5, "posterior")
    >>> mean.ravel(), variance.ravel()
    (array([0., 0.]), array([1., 1.]))
    """
    checks.uncertainty(uncertainty)
    y, ntk = np.asarray(y, np.float64), np.asarray(kernels.ntk, np.float64)
    noises = np.broadcast_to(np.asarray(noise, np.float64), y.shape[1:])
    counts = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    rows = np.arange(len(y)) if rows is None else np.asarray(rows)
    left = np.zeros(len(rows)) if removed is None else counts[rows] - np.asarray(removed)
    # What is left of a point that several rows share is exact in exact arithmetic only.
    left = np.where(left > 1e-9 * counts[rows], left, 0.0)
    mean, variance = np.empty((2, len(rows), y.shape[1]))
    for value in np.unique(noises):
        same = np.flatnonzero(noises == value)
        G = _inverse(ntk, reg * value**2 / counts)
        of_point = np.diagonal(G)[rows]
        # Of the function at the point given the others, in units of Theta; rounding may go below.
        conditional = np.maximum(1 / of_point - reg * value**2 / counts[rows], 0.0)
        without = y[np.ix_(rows, same)] - (G @ y[:, same])[rows] / of_point[:, None]
        spread = np.zeros(len(rows))
        if uncertainty == "posterior":
            spread = conditional / reg
        elif uncertainty == "initialization":
            root = G[rows] / of_point[:, None]
            spread = np.einsum("mi,ij,mj->m", root, np.asarray(kernels.nngp), root, optimize=True)
        # The point again, with the weight that is left: a regression on one more point.
        told = conditional * left
        gain = np.divide(told, told + reg * value**2, where=told > 0, out=np.zeros(len(rows)))
        label_noise = 0.0
        if uncertainty == "posterior":
            label_noise = np.divide(value**2, left, where=left > 0, out=np.zeros(len(rows)))
        mean[:, same] = without + gain[:, None] * (y[np.ix_(rows, same)] - without)
        variance[:, same] = ((1 - gain) ** 2 * spread + gain**2 * label_noise)[:, None]
    return mean, variance


def _inverse(ntk: Floats, ridge: Floats) -> Floats:
    """Inverse of the NTK plus a diagonal."""
    try:
        factor = cho_factor(ntk + np.diag(ridge), lower=True)
    except LinAlgError as error:
        raise ValueError(
            "The regularised kernel of the training points is singular in double precision: of "
            "points that are equal and free of noise each is known exactly. Raise reg or the "
            "noise, or leave duplicates out."
        ) from error
    return cho_solve(factor, np.eye(len(ntk)))

"""Latents elsewhere, given draws at the training points."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.blocks import in_blocks
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import Floats, PosteriorDraws
from ntk_uq.bayes.priors import NETWORKS_AT_ONCE, NetworkPrior, dtype_of

__all__ = ["predict_latents", "predict_network"]

# Latents of one block of points in a prediction: 2**22 doubles are 32 MiB.
_CHUNK = 2**22


@own_rules()
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

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(1), jnp.array([[2.0]]), Gaussian(noise=1.0),
    ...     sampler="ess", num_warmup=10, num_samples=20, num_chains=2,
    ... )
    >>> S_xX, S_xx = jnp.array([[0.5], [0.0]]), jnp.ones(2)
    >>> bayes.predict_latents(jax.random.key(1), draws, S_xX, S_xx).shape
    (40, 2, 1)
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


@own_rules()
def predict_network(draws: PosteriorDraws, points: ArrayLike) -> Floats:
    """Evaluate the network of each draw at m further points.

    Parameters
    ----------
    draws : PosteriorDraws
        With a `NetworkPrior`.
    points : Array of shape [m, d], or images [m, h, w, c]
        Further points.

    Returns
    -------
    array of shape [S, m, C]
        S = chains x draws, one chain after another; each draw is one function.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Gaussian, bayes
    >>> prior = bayes.NetworkPrior(jnp.ones((1, 2)), MLP(width=4, depth=1), 1)
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), prior, jnp.ones((1, 1)), Gaussian(0.1),
    ...     num_warmup=200, num_samples=50, num_chains=1,
    ... )
    >>> bayes.predict_network(draws, jnp.zeros((3, 2))).shape
    (50, 3, 1)
    """
    dtype = dtype_of(draws.prior)
    parameters = jnp.asarray(draws.whitened.reshape(-1, draws.whitened.shape[-1]))
    most = max(1, _CHUNK // (len(parameters) * draws.prior.n_outputs))

    def outputs(block: NDArray) -> Array:
        return _outputs(draws.prior, parameters, jnp.asarray(block, dtype))

    return in_blocks(outputs, np.asarray(points), most, axis=1)


@jax.jit
def _outputs(prior: NetworkPrior, parameters: Array, points: Array) -> Array:
    return lax.map(lambda z: prior.evaluate(z, points), parameters, batch_size=NETWORKS_AT_ONCE)

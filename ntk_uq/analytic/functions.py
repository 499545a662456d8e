"""Draws of the trained predictor as functions."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from ntk_uq._common.linalg import cholesky
from ntk_uq._common.rules import own_rules
from ntk_uq.analytic.exact import ExactPredictor, _conditional_covariance, _standard_normal
from ntk_uq.networks.architecture import Kernels

__all__ = ["FunctionDraws"]


class FunctionDraws:
    """Draws of the trained predictor as functions: evaluated anywhere, later, and consistently.

    A call returns the S functions at new points, drawn given all values that earlier calls have
    seen; the law is exact, jointly over all calls. What it costs is memory of these points: a
    call takes time and space proportional to the square of their number. A point that is asked for
    again has the same values up to the jitter of its factorisation, about 1e-6.

    Parameters
    ----------
    key : Array
        PRNG key for the prior functions at new points.
    kernels : callable
        ``kernels(x1, x2)`` gives the `Kernels` of two sets of points, [n1, n2].
    X : Array of shape [n, d]
        Training points.
    predictor : ExactPredictor
        The draws.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.analytic import exact_predictor
    >>> net, X, key = MLP(), jnp.array([[-1.0], [1.0]]), jax.random.key(0)
    >>> predictor = exact_predictor(
    ...     key, net.kernel_block(X), jnp.eye(2), 1.0, Categorical(), "initialization", 4
    ... )
    >>> functions = FunctionDraws(key, net.kernel_block, X, predictor)
    >>> functions(jnp.array([[0.0], [0.5], [2.0]])).shape
    (4, 3, 2)
    """

    def __init__(
        self,
        key: Array,
        kernels: Callable[[Array, Array], Kernels],
        X: Array,
        predictor: ExactPredictor,
    ):
        self._key = key
        self._kernels = kernels
        self._predictor = predictor
        self._n_train = len(X)
        self._points = jnp.asarray(X)
        self._factor = jnp.asarray(predictor.factor)
        self._whitened = jnp.asarray(predictor.whitened)

    @own_rules()
    def __call__(self, x: Array) -> Array:
        """Evaluate every function at m points: [S, m, C]."""
        x = jnp.asarray(x)
        cross = Kernels(*map(jnp.asarray, self._kernels(x, self._points)))
        trained = self._predictor._trained(Kernels(*(k[:, : self._n_train] for k in cross)))
        if self._predictor.uncertainty == "none":
            return trained
        weights = solve_triangular(self._factor, self._predictor._prior(cross).T, lower=True)
        own = self._predictor._prior(Kernels(*map(jnp.asarray, self._kernels(x, x))))
        new_factor, _ = cholesky(_conditional_covariance(own, weights))
        fresh = self._fresh(len(x))
        prior = jnp.einsum("im,sic->smc", weights, self._whitened)
        prior = prior + jnp.einsum("mk,skc->smc", new_factor, fresh)
        corner = jnp.zeros((len(self._factor), len(x)), weights.dtype)
        self._factor = jnp.block([[self._factor, corner], [weights.T, new_factor]])
        self._whitened = jnp.concatenate([self._whitened, fresh], axis=1)
        self._points = jnp.concatenate([self._points, x])
        return prior + trained

    def _fresh(self, m: int) -> Array:
        """Standard normal variables of the next m points: [S, m, C], the same however they come."""
        draws, seen, outputs = self._whitened.shape
        points = range(seen, seen + m)
        (noise,) = _standard_normal(self._key, points, (draws, outputs), dtype=self._whitened.dtype)
        return noise.swapaxes(0, 1)

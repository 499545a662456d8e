"""Kernels of infinitely wide fully connected networks, by recursion over their layers."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ntk_uq.networks.activations import activation_of, ratio, safe_sqrt
from ntk_uq.networks.architecture import Kernels

__all__ = ["dot_product_kernels", "mlp_kernel_diag", "mlp_kernels"]


# Directions that differ by so little, in units of rounding, are one: sums of a thousand squares,
# added in another order, do.
_SAME = 32


def _lengths_and_directions(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Euclidean norm of each row [n], and the rows scaled to norm 1 [n, d] (zeros stay)."""
    norms = safe_sqrt(jnp.sum(x * x, axis=1))
    return norms, ratio(x, norms[:, None])


def _complement(u1: jax.Array, u2: jax.Array, same: bool) -> jax.Array:
    """One minus the cosine of the angle between unit vectors, [n1, n2]."""
    off_diagonal = ~jnp.eye(len(u1), dtype=bool) if same else True
    h = jnp.where(off_diagonal, 1 - jnp.matmul(u1, u2.T, precision=lax.Precision.HIGHEST), 0)
    # Cancellation leaves an error eps in h, which is eps / angle in the angle. So where the angle
    # is small take h from differences; its derivative is right to rounding either way.
    close = off_diagonal & (h < math.sqrt(jnp.finfo(h.dtype).eps))
    corrected = lax.cond(
        jnp.any(close),
        lambda: jnp.where(close, jnp.sum((u1[:, None] - u2[None]) ** 2, axis=-1) / 2, h),
        lambda: h,
    )
    return h + lax.stop_gradient(corrected - h)


def mlp_kernels(
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    w_std: jax.Array | float,
    b_std: jax.Array | float,
    depth: int,
    activation: str | Callable[[jax.Array], jax.Array],
    residual: bool = False,
) -> Kernels:
    """Kernels of an infinitely wide fully connected network, as a pure JAX function.

    Differentiable in the points, `w_std` and `b_std`, also where points coincide, and as precise
    as the dtype of the points allows: the error of the angle between nearly coincident points is
    of the order of machine epsilon, not of its square root. (Of that order it is for points x and
    nearly -x without biases.)

    Parameters
    ----------
    x1 : array of shape [n1, d]
        Points.
    x2 : array of shape [n2, d], optional
        Points. Left out: those of `x1`.
    w_std, b_std : float
        Scales of weights and biases, in every layer.
    depth : int
        Number of hidden layers.
    activation : str or callable
        Activation function, as in `MLP`.
    residual : bool
        Whether hidden layers after the first are added to their input.

    Returns
    -------
    Kernels
        Blocks of shape [n1, n2].

    References
    ----------
    Jacot, Gabriel & Hongler 2018, arXiv 1806.07572 (NTK); Lee et al. 2018, arXiv 1711.00165
    (NNGP); Cho & Saul 2009 (relu); Williams 1997 (erf); Tsuchida et al. 2020, arXiv 2002.08517
    (gelu).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> kernels = mlp_kernels(x, w_std=2**0.5, b_std=0.0, depth=1, activation="relu")
    >>> print(jnp.round(100 * kernels.ntk))
    [[200.  32.]
     [ 32. 200.]]
    """
    # Programs of their own: what follows the moments is compiled once for points with themselves,
    # with others, and behind an embedding.
    s1, s2, h = _moments(x1, x2)
    return dot_product_kernels(
        s1, s2, h, w_std=w_std, b_std=b_std, depth=depth, activation=activation, residual=residual
    )


@jax.jit
def _moments(x1: jax.Array, x2: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Root mean squares [n1, 1] and [1, n2], and one minus the cosine between points."""
    norms1, u1 = _lengths_and_directions(x1)
    norms2, u2 = (norms1, u1) if x2 is None else _lengths_and_directions(x2)
    root_mean_square = 1 / math.sqrt(x1.shape[1])
    s1, s2 = norms1[:, None] * root_mean_square, norms2[None, :] * root_mean_square
    return s1, s2, _complement(u1, u2, x2 is None)


@functools.partial(jax.jit, static_argnames=("depth", "activation", "residual"))
def dot_product_kernels(
    s1: jax.Array,
    s2: jax.Array,
    h: jax.Array,
    *,
    w_std: jax.Array | float,
    b_std: jax.Array | float,
    depth: int,
    activation: str | Callable[[jax.Array], jax.Array],
    residual: bool = False,
) -> Kernels:
    """The same from what a fully connected network knows of its inputs: lengths and angles.

    Parameters
    ----------
    s1 : array of shape [n1, 1]
        Root mean squares over the features of each point.
    s2 : array of shape [1, n2]
        Those of the other points.
    h : array of shape [n1, n2]
        One minus the cosine of the angle between two points.
    w_std, b_std, depth, activation, residual
        As in `mlp_kernels`.

    Returns
    -------
    Kernels
        Blocks of shape [n1, n2].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1))
    >>> net = {"w_std": 1.0, "b_std": 0.0, "depth": 0, "activation": "relu"}
    >>> print(dot_product_kernels(one, one, one, **net).ntk)  # at a right angle
    [[0.]]
    """
    dual = activation_of(activation).dual
    s1, s2, h = _affine(s1, s2, h, w_std, b_std)
    ntk = s1 * s2 * (1 - h)
    for layer in range(1, depth + 1):
        skipped = s1, s2, h, ntk
        h, derivative = dual.pair(s1, s2, h)
        s1, s2, h = _affine(dual.spread(s1), dual.spread(s2), h, w_std, b_std)
        ntk = w_std**2 * derivative * ntk + s1 * s2 * (1 - h)
        if residual and layer < depth:  # all but the read-out
            *skipped_moments, skipped_ntk = skipped
            s1, s2, h = _sum(skipped_moments, (s1, s2, h))
            ntk = skipped_ntk + ntk
    return Kernels(s1 * s2 * (1 - h), ntk)


def _affine(
    s1: jax.Array, s2: jax.Array, h: jax.Array, w_std: jax.Array | float, b_std: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments after a linear layer with random weights and biases, from those before it.

    The bias is one more coordinate: it turns unit vectors u into (p u, q) with p^2 + q^2 = 1.
    """

    def coordinates(s: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        out = safe_sqrt((w_std * s) ** 2 + b_std**2)
        return lax.optimization_barrier((out, ratio(w_std * s, out), ratio(b_std, out)))

    (out1, p1, q1), (out2, p2, q2) = coordinates(s1), coordinates(s2)
    h = p1 * p2 * h + ((p1 - p2) ** 2 + (q1 - q2) ** 2) / 2
    return out1, out2, lax.optimization_barrier(_without_rounding(h))


def _without_rounding(h: jax.Array) -> jax.Array:
    """The same, zero where two points are one but for the rounding of their lengths.

    A point's length in one block is not to the last bit that in another, and a kernel whose kink is
    missed by a bit has the derivative of one side.
    """
    return jnp.where(h < (_SAME * jnp.finfo(h.dtype).eps) ** 2 / 2, 0.0, h)


def _sum(a: Any, b: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments of the sum of two independent variables, as of unit vectors laid end to end."""

    def shares(sa: jax.Array, sb: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        out = safe_sqrt(sa**2 + sb**2)
        return lax.optimization_barrier((out, ratio(sa, out), ratio(sb, out)))

    (a1, a2, ha), (b1, b2, hb) = a, b
    (out1, p1, q1), (out2, p2, q2) = shares(a1, b1), shares(a2, b2)
    h = p1 * p2 * ha + q1 * q2 * hb + ((p1 - p2) ** 2 + (q1 - q2) ** 2) / 2
    return out1, out2, lax.optimization_barrier(_without_rounding(h))


@functools.partial(jax.jit, static_argnames=("depth", "activation", "residual"))
def mlp_kernel_diag(
    x: jax.Array,
    *,
    w_std: jax.Array | float,
    b_std: jax.Array | float,
    depth: int,
    activation: str | Callable[[jax.Array], jax.Array],
    residual: bool = False,
) -> Kernels:
    """Diagonals of `mlp_kernels`, [n] each, in time proportional to n. Parameters as there."""
    kernels = functools.partial(
        mlp_kernels,
        w_std=w_std,
        b_std=b_std,
        depth=depth,
        activation=activation,
        residual=residual,
    )
    return Kernels(*(jnp.squeeze(values, (1, 2)) for values in jax.vmap(kernels)(x[:, None])))

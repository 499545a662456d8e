"""Factorisation of kernels: as little jitter as possible, and never silently."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from ntk_uq._common.blocks import MOST_ENLARGED, enlarged, placed

__all__ = ["cholesky", "interpolation_factor"]


def cholesky(matrix: Array | NDArray) -> tuple[Array, float]:
    """Lower Cholesky factor of a kernel, and the jitter on the diagonal that it took.

    Parameters
    ----------
    matrix : Array of shape [n, n]
        Symmetric positive semi-definite up to rounding.

    Returns
    -------
    factor : Array of shape [n, n]
        Lower triangular L with L L^T = matrix + jitter I.
    jitter : float
        Zero where the matrix could be factorised as it is.

    Raises
    ------
    ValueError
        If the matrix has an eigenvalue that is negative beyond rounding.
    """
    n = len(matrix)
    enlarges = n <= MOST_ENLARGED  # more are not copied
    larger = placed(enlarged(matrix, 0, 1) if enlarges else matrix)
    for multiple in (0.0, 1.0, 10.0, 100.0, 1000.0):
        factor, jitter, sound = _attempt(larger, n, multiple)
        if sound:
            own = placed(np.asarray(factor)[:n, :n]) if enlarges else factor
            return own, float(jitter)
    matrix = np.asarray(matrix)
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    raise ValueError(
        f"The kernel of shape {matrix.shape} is not positive semi-definite: its smallest "
        f"eigenvalue is {smallest:.3g}, beyond rounding in {matrix.dtype}. It may be asymmetric, "
        "hold NaN, or have been computed in float32: compute it in float64."
    )


@jax.jit
def _attempt(matrix: Array, n: int, multiple: float) -> tuple[Array, Array, Array]:
    """Factor with a multiple of rounding as jitter, the jitter, and whether it can be relied on.

    Rows and columns from the n-th on are zero, and become those of an identity.
    """
    # Rounding moves eigenvalues by about this much; a rank-deficient matrix needs little more.
    rounding = jnp.finfo(matrix.dtype).eps * jnp.trace(matrix)
    jitter = multiple * rounding
    added = jnp.where(jnp.arange(len(matrix)) < n, jitter, 1.0)
    factor = jnp.linalg.cholesky(matrix + jnp.diag(added))
    # A singular matrix may slip through with pivots that are nothing but rounding.
    pivots = jnp.where(jnp.arange(len(matrix)) < n, jnp.square(jnp.diag(factor)), jnp.inf)
    return factor, jitter, jnp.all(pivots > 0.5 * rounding)


def interpolation_factor(ntk: Array) -> Array:
    """Cholesky factor of the NTK for reg = 0, which has to invert it."""
    factor, jitter = cholesky(ntk)
    if jitter > 0:
        raise ValueError(
            "reg = 0 interpolates the targets, which needs an invertible NTK of the training "
            "points, and this one is singular to working precision: duplicate (or nearly "
            "duplicate) rows, or more points than the kernel can tell apart. Remove duplicates, "
            f"or set reg > 0.{'' if ntk.dtype == jnp.float64 else ' Or use double precision.'}"
        )
    return factor

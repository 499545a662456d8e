"""Factorisation of kernels: as little jitter as possible, and never silently."""

import jax.numpy as jnp
from jax import Array

__all__ = ["cholesky", "interpolation_factor"]


def cholesky(matrix: Array) -> tuple[Array, float]:
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
    # Rounding moves eigenvalues by about this much; a rank-deficient matrix needs little more.
    rounding = float(jnp.finfo(matrix.dtype).eps) * float(jnp.trace(matrix))
    diagonal = jnp.diag_indices(len(matrix))
    for jitter in (0.0, *(rounding * 10**k for k in range(4))):
        factor = jnp.linalg.cholesky(matrix.at[diagonal].add(jitter))
        # A singular matrix may slip through with pivots that are nothing but rounding.
        if bool(jnp.all(jnp.square(jnp.diag(factor)) > 0.5 * rounding)):
            return factor, jitter
    smallest = float(jnp.linalg.eigvalsh(matrix)[0])
    raise ValueError(
        f"The kernel of shape {matrix.shape} is not positive semi-definite: its smallest "
        f"eigenvalue is {smallest:.3g}, beyond rounding in {matrix.dtype}. It may be asymmetric, "
        "hold NaN, or have been computed in float32: compute it in float64."
    )


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

"""Preconditioner that takes the few large eigenvalues of the dual Hessian out of the way."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Curvature

__all__ = [
    "COUPLED_SHARE",
    "DEFLATED",
    "DIRECTIONS",
    "SHARE",
    "CoupledDeflation",
    "Deflation",
    "deflate",
    "deflate_coupled",
    "deflation_basis",
]

# Directions that a deflation takes, and the most of them times outputs: its matrix is of that size.
DIRECTIONS, DEFLATED = 32, 2048
# Share of the curvature at the mode that it takes. A draw whose curvature is less than that of its
# deflation gets many small eigenvalues, one whose curvature is larger a few of up to 1 / share.
SHARE = 0.2
# Points whose curvature is taken together: arrays [points, k C] are held of so many.
_ROWS_AT_ONCE = 4096
# The same where the outputs are coupled: of a trained network most points are far from the boundary
# in most draws, and have next to no curvature there.
COUPLED_SHARE = 0.02


class Deflation(NamedTuple):
    r"""Preconditioner that inverts the Hessian on a few functions that Theta makes large.

    With V orthonormal in Theta's inner product and a curvature W it is

    .. math:: B = I - V K (\Theta V)^\top, \qquad
        K = I - reg\,(reg\,I + (\Theta V)^\top W \Theta V)^{-1},

    self-adjoint in this inner product and positive whatever V and W are, so that a poor choice of
    them costs iterations, and no accuracy. B is reg (reg I + W Theta)^-1 where V is complete.

    Attributes
    ----------
    basis : Array of shape [n, k]
        V.
    ntk_basis : Array of shape [n, k]
        Theta V.
    gain : Array of shape [k C, k C]
        K.
    """

    basis: Array
    ntk_basis: Array
    gain: Array

    def apply(self, r: Array, ntk_r: Array) -> tuple[Array, Array]:
        """B r and Theta B r, given r and Theta r of shape [n, C, S]."""
        c = jnp.einsum("nk,ncs->kcs", self.ntk_basis, r)
        c = (self.gain @ c.reshape(len(self.gain), -1)).reshape(c.shape)
        return (
            r - jnp.einsum("nk,kcs->ncs", self.basis, c),
            ntk_r - jnp.einsum("nk,kcs->ncs", self.ntk_basis, c),
        )


def deflation_basis(
    apply: Callable[[Array], Array], start: Array, dtype: Any
) -> tuple[Array, Array]:
    """V and Theta V that two rounds of subspace iteration find from a `start` [n, k].

    `apply` takes the product with Theta, in double precision where there is any: small eigenvalues
    are lost in the rounding of large ones. The result is in the dtype of the problem.
    """
    span, _ = jnp.linalg.qr(apply(start))
    span, _ = jnp.linalg.qr(apply(span))
    return _ritz(span, apply(span), dtype)


@partial(jax.jit, static_argnames="dtype")
def _ritz(span: Array, ntk_span: Array, dtype: Any) -> tuple[Array, Array]:
    """Rayleigh and Ritz's quotient in what they span."""
    values, rotation = jnp.linalg.eigh(span.T @ ntk_span)
    # What a singular kernel makes of nothing is rounding.
    floor = jnp.finfo(span.dtype).eps * len(span) * values[-1]
    rotation = rotation * jnp.where(values > floor, lax.rsqrt(jnp.maximum(values, floor)), 0.0)
    return (span @ rotation).astype(dtype), (ntk_span @ rotation).astype(dtype)


def deflate(
    basis: tuple[Array, Array], reg: Array | float, curvature: "Curvature", share: float = SHARE
) -> Deflation:
    """Take the directions of a basis, V and Theta V, out of the way of a curvature [n, C]."""
    v, ntk_v = basis
    wide = jnp.promote_types(v.dtype, jnp.result_type(float))
    matrix: Any = 0.0
    for start in range(0, len(v), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], curvature)
        matrix = matrix + _curvature_along(ntk_v[rows].astype(wide), part)
    return Deflation(v, ntk_v, _gain(matrix, jnp.asarray(reg, wide), share).astype(v.dtype))


@jax.jit
def _curvature_along(ntk_v: Array, curvature: "Curvature") -> Array:
    """(Theta V)^T W Theta V of some points, for all outputs: [k C, k C]."""
    k, outputs = ntk_v.shape[1], curvature.diagonal.shape[1]
    blocks = jax.vmap(lambda d: ntk_v.T @ (d[:, None] * ntk_v))(curvature.diagonal.T)
    matrix = jnp.einsum("ckl,ce->kcle", blocks, jnp.eye(outputs, dtype=ntk_v.dtype))
    matrix = matrix.reshape(k * outputs, k * outputs)
    if curvature.direction is not None:
        dq = curvature.diagonal * curvature.direction
        columns = (ntk_v[:, :, None] * dq[:, None, :]).reshape(len(ntk_v), -1)
        matrix = matrix - columns.T @ columns
    return matrix


@jax.jit
def _gain(matrix: Array, reg: Array, share: float) -> Array:
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    factor = jnp.linalg.cholesky(share * matrix + reg * identity)
    gain = identity - reg * jax.scipy.linalg.cho_solve((factor, True), identity)
    # In single precision a small reg can be lost in rounding: no deflation then.
    return jnp.where(jnp.all(jnp.isfinite(gain)), gain, 0.0)


class CoupledDeflation(NamedTuple):
    """The same for a Theta that couples the outputs, whose functions are of all of them.

    Attributes
    ----------
    basis : Array of shape [n, C, k]
        V.
    ntk_basis : Array of shape [n, C, k]
        Theta V.
    gain : Array of shape [k, k]
        K.
    """

    basis: Array
    ntk_basis: Array
    gain: Array

    def apply(self, r: Array, ntk_r: Array) -> tuple[Array, Array]:
        """B r and Theta B r, given r and Theta r of shape [n, C, S]."""
        c = self.gain @ jnp.einsum("nck,ncs->ks", self.ntk_basis, r)
        return (
            r - jnp.einsum("nck,ks->ncs", self.basis, c),
            ntk_r - jnp.einsum("nck,ks->ncs", self.ntk_basis, c),
        )


@jax.jit
def deflate_coupled(
    basis: tuple[Array, Array], reg: Array | float, curvature: "Curvature"
) -> CoupledDeflation:
    """The same for directions V and Theta V of all outputs, [n C, k] each."""
    shape = (*curvature.diagonal.shape, -1)
    v, ntk_v = (part.reshape(shape) for part in basis)
    wide = jnp.promote_types(v.dtype, jnp.result_type(float))
    of_points = jax.tree.map(lambda leaf: leaf.astype(wide), (ntk_v, curvature))
    bent = jax.vmap(of_points[1].matvec, -1, -1)(of_points[0])
    matrix = jnp.einsum("nck,ncl->kl", of_points[0], bent)
    gain = _gain(matrix, jnp.asarray(reg, wide), COUPLED_SHARE)
    return CoupledDeflation(v, ntk_v, gain.astype(v.dtype))

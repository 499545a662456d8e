"""Preconditioner that takes the few large eigenvalues of the dual Hessian out of the way."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

if TYPE_CHECKING:
    from ntk_uq._common.operators import Operator
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
]

# Directions that a deflation takes, and the most of them times outputs: its matrix is of that size.
DIRECTIONS, DEFLATED = 32, 2048
# Share of the curvature at the mode that it takes. A draw whose curvature is less than that of its
# deflation gets many small eigenvalues, one whose curvature is larger a few of up to 1 / share.
SHARE = 0.2
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


@jax.jit
def deflate(ntk: Array, reg: Array | float, start: Array, curvature: "Curvature") -> Deflation:
    """Take the directions that two rounds of subspace iteration find from a `start` [n, k]."""
    span, _ = jnp.linalg.qr(ntk @ start)
    span, _ = jnp.linalg.qr(ntk @ span)
    # Rayleigh and Ritz's quotient in what they span.
    ntk_span = ntk @ span
    values, rotation = jnp.linalg.eigh(span.T @ ntk_span)
    # What a singular kernel makes of nothing is rounding.
    floor = jnp.finfo(ntk.dtype).eps * len(ntk) * values[-1]
    rotation = rotation * jnp.where(values > floor, lax.rsqrt(jnp.maximum(values, floor)), 0.0)
    basis, ntk_basis = span @ rotation, ntk_span @ rotation

    def output(d: Array) -> Array:
        return ntk_basis.T @ (d[:, None] * ntk_basis)

    k, outputs = basis.shape[1], curvature.diagonal.shape[1]
    blocks = jax.vmap(output)(curvature.diagonal.T)
    matrix = jnp.einsum("ckl,ce->kcle", blocks, jnp.eye(outputs, dtype=ntk.dtype))
    matrix = matrix.reshape(k * outputs, k * outputs)
    if curvature.direction is not None:
        dq = curvature.diagonal * curvature.direction
        columns = (ntk_basis[:, :, None] * dq[:, None, :]).reshape(len(ntk), -1)
        matrix = matrix - columns.T @ columns
    identity = jnp.eye(len(matrix), dtype=ntk.dtype)
    factor = jnp.linalg.cholesky(SHARE * matrix + reg * identity)
    gain = identity - reg * jax.scipy.linalg.cho_solve((factor, True), identity)
    # In single precision a small reg can be lost in rounding: no deflation then.
    gain = jnp.where(jnp.all(jnp.isfinite(gain)), gain, 0.0)
    return Deflation(basis, ntk_basis, gain)


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
    ntk: "Operator", reg: Array | float, start: Array, curvature: "Curvature"
) -> CoupledDeflation:
    """Take the directions that two rounds of subspace iteration find from a `start` [n, C, k]."""
    shape = start.shape

    def orthonormal(v: Array) -> Array:
        return jnp.linalg.qr(v.reshape(-1, shape[-1]))[0].reshape(shape)

    span = orthonormal(ntk.product(orthonormal(ntk.product(start))))
    ntk_span = ntk.product(span)
    values, rotation = jnp.linalg.eigh(jnp.einsum("nck,ncl->kl", span, ntk_span))
    # What a singular kernel makes of nothing is rounding.
    floor = jnp.finfo(start.dtype).eps * start.size / shape[-1] * values[-1]
    rotation = rotation * jnp.where(values > floor, lax.rsqrt(jnp.maximum(values, floor)), 0.0)
    basis, ntk_basis = (jnp.einsum("nck,kl->ncl", v, rotation) for v in (span, ntk_span))
    bent = jax.vmap(curvature.matvec, -1, -1)(ntk_basis)
    matrix = jnp.einsum("nck,ncl->kl", ntk_basis, bent)
    identity = jnp.eye(shape[-1], dtype=start.dtype)
    factor = jnp.linalg.cholesky(COUPLED_SHARE * matrix + reg * identity)
    gain = identity - reg * jax.scipy.linalg.cho_solve((factor, True), identity)
    # In single precision a small reg can be lost in rounding: no deflation then.
    gain = jnp.where(jnp.all(jnp.isfinite(gain)), gain, 0.0)
    return CoupledDeflation(basis, ntk_basis, gain)

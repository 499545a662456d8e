r"""The resolvent G = (Theta + reg W^-1)^-1 in structured forms.

Of each form: `reduction`, what training takes from the prior covariance at
each point; `columns`, V = G Theta_Xx itself, [n, C, m, C]; `apply`, G u.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from ntk_uq.likelihoods import Curvature
from ntk_uq.networks.architecture import Kernels

# G in two structured forms. Of each: `reduction`, what training takes from the prior covariance at
# each point, Theta_xX G Theta_Xx for the prior kernel Theta and V^T K_Xx + K_xX V - V^T K V with
# V = G Theta_Xx for a prior kernel K, [m, C, C]; `columns`, V itself, [n, C, m, C]; `apply`, G u.


class _Shared(NamedTuple):
    """G = E x Q, where every output has the same curvature."""

    inverse: Array  # E, [n, n]
    outputs: Array  # Q, a projection, [C, C]

    def reduction(self, cross: Kernels, nngp: Array | None) -> Array:
        a = cross.ntk @ self.inverse
        if nngp is None:
            per_point = jnp.sum(a * cross.ntk, axis=1)
        else:
            per_point = jnp.sum(a * (2 * cross.nngp - a @ nngp), axis=1)
        return per_point[:, None, None] * self.outputs

    def columns(self, ntk: Array) -> Array:
        return jnp.einsum("ij,mj,cd->icmd", self.inverse, ntk, self.outputs)

    def apply(self, u: Array) -> Array:
        return self.inverse @ u @ self.outputs


class _PerOutput(NamedTuple):
    """G = blockdiag(E_c) - [E_c q_c M^-1 q_d E_d]_{cd}, with M = sum_c q_c E_c q_c.

    Rasmussen & Williams (2006), eq. 3.45 f., where q = 1. There is no second term where the
    likelihood factorises over outputs.
    """

    inverses: Array  # E_c, [C, n, n]
    direction: Array | None = None  # q, [n, C]
    whitening: Array | None = None  # R with R^T R = M^-1, [n, n]
    mixing: Array | None = None  # R (sum_c q_c E_c K E_c q_c) R^T, [n, n]

    # Below, points come before training points: rows are contiguous where they are summed over.

    def reduction(self, cross: Kernels, nngp: Array | None) -> Array:
        a = cross.ntk @ self.inverses  # [C, m, n]
        change = cross.ntk if nngp is None else 2 * cross.nngp - a @ nngp
        reduction = _diagonal(jnp.sum(a * change, axis=-1).T)
        if self.direction is None or self.whitening is None:
            return reduction
        q = self.direction.T[:, None, :]
        h = (q * a) @ self.whitening.T
        if nngp is None:
            return reduction - _pairs(h, h)
        # With V = G Theta_Xx, output by output: V_dc = [d = c] a_c - E_d q_d M^-1 q_c a_c.
        mixed = (q * ((a @ nngp - cross.nngp) @ self.inverses)) @ self.whitening.T
        half = _pairs(mixed - 0.5 * h @ self.mixing, h)
        return reduction + half + half.swapaxes(1, 2)

    def columns(self, ntk: Array) -> Array:
        a = ntk @ self.inverses
        columns = jnp.einsum("cmi,cd->icmd", a, jnp.eye(len(a), dtype=a.dtype))
        if self.direction is None or self.whitening is None:
            return columns
        q = self.direction.T[:, None, :]
        h = (q * a) @ self.whitening.T @ self.whitening
        return columns - jnp.einsum("cij,jc,dmj->icmd", self.inverses, self.direction, h)

    def apply(self, u: Array) -> Array:
        a = jnp.einsum("cij,jc->ic", self.inverses, u)
        if self.direction is None or self.whitening is None:
            return a
        h = self.whitening.T @ (self.whitening @ jnp.sum(self.direction * a, axis=1))
        return a - jnp.einsum("cij,jc->ic", self.inverses, self.direction * h[:, None])


def _resolvent(ntk: Array, reg: float, curvature: Curvature, nngp: Array | None) -> Any:
    """`curvature_resolvent`, for one output only where all outputs have the same curvature."""
    d = curvature.diagonal
    if curvature.direction is None and not np.ptp(d, axis=1).any():
        one = curvature_resolvent(ntk, reg, Curvature(d[:, :1], None))
        return _Shared(one.inverses[0], jax.device_put(np.eye(d.shape[1], dtype=d.dtype)))
    return curvature_resolvent(ntk, reg, curvature, nngp)


@jax.jit
def curvature_resolvent(
    ntk: Array, reg: Array | float, curvature: Curvature, nngp: Array | None = None
) -> _PerOutput:
    """G = (reg I + W Theta)^-1 W, and for a prior covariance K what its use takes."""

    def inverse(d: Array) -> Array:
        """(Theta + reg diag(d)^-1)^-1, safe where d underflows."""
        root = jnp.sqrt(d)
        inner = root[:, None] * ntk * root + reg * jnp.eye(len(ntk), dtype=ntk.dtype)
        half = solve_triangular(jnp.linalg.cholesky(inner), jnp.diag(root), lower=True)
        return half.T @ half

    # One output after another: work space is that of one.
    inverses = lax.map(inverse, curvature.diagonal.T)
    if curvature.direction is None:
        return _PerOutput(inverses)

    def add(total: tuple[Array, Array], output: tuple[Array, Array]) -> tuple[Any, None]:
        e, q = output
        e_q = e * q
        mixing = total[1] if nngp is None else total[1] + e_q.T @ (nngp @ e_q)
        return (total[0] + q[:, None] * e_q, mixing), None

    zero = jnp.zeros_like(ntk)
    (m, total), _ = lax.scan(add, (zero, zero), (inverses, curvature.direction.T))
    identity = jnp.eye(len(ntk), dtype=ntk.dtype)
    whitening = solve_triangular(jnp.linalg.cholesky(m), identity, lower=True)
    mixing = None if nngp is None else whitening @ total @ whitening.T
    return _PerOutput(inverses, curvature.direction, whitening, mixing)


def _pairs(u: Array, v: Array) -> Array:
    """Inner products of every two outputs: [C, m, n], [C, m, n] -> [m, C, C]."""
    return jnp.einsum("cmi,dmi->mcd", u, v)


def _diagonal(values: Array) -> Array:
    """[m, C] -> [m, C, C]."""
    return values[..., None] * jnp.eye(values.shape[-1], dtype=values.dtype)

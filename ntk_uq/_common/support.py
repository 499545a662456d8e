r"""Preconditioner of each draw's own: its Hessian where its likelihood is curved.

Draws of a wide prior are far from every boundary at most points, where a classifier's likelihood
has no curvature: on the few entries E (points and outputs) where W Theta is not small beside reg,

.. math:: B = I - R (reg\,I + R^\top \Theta_{EE} R)^{-1} R^\top \Theta_{E\cdot}, \qquad
    R R^\top = W_{EE},

is reg (reg I + W Theta)^-1 but for what was left out, self-adjoint in Theta's inner product and
positive whatever that is. B r is then Newton's direction, for two products with Theta.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ntk_uq._common.machine import cores, one_blas_thread
from ntk_uq._common.side_by_side import side_by_side
from ntk_uq._common.tiles import SymmetricTiles

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Curvature

__all__ = ["Support"]

# An entry counts where W Theta exceeds this share of reg: what is left out moves an eigenvalue of
# the preconditioned Hessian by no more.
_SHARE = 0.1
# The most that count, those with the largest W Theta. On the way more of them are curved than at a
# solution: of 500 images of 10 classes 1,500, and 200 at the end. All would save a fifth of the
# products, and take twice as long.
_MOST = 700
# Share of all entries that may count.
_FEW = 0.25


@dataclass(frozen=True)
class Support:
    """Applies the preconditioner of each draw.

    Attributes
    ----------
    tiles : SymmetricTiles
        Theta of all entries, [n C, n C].
    reg : float
        Regularisation.
    """

    tiles: SymmetricTiles
    reg: float

    def apply(
        self, curvature: "Curvature", active: Array, r: Array, ntk_r: Array
    ) -> tuple[Array, Array]:
        """B r and Theta B r of active draws [S], given W, r and Theta r, [n, C, S] each."""
        diagonal = np.asarray(curvature.diagonal, np.float64)
        flat = diagonal.shape[0] * diagonal.shape[1], -1
        direction = None
        if curvature.direction is not None:
            direction = np.asarray(curvature.direction, np.float64).reshape(flat)
        diagonal, pushed = diagonal.reshape(flat), np.asarray(ntk_r).reshape(flat)
        variances = self.tiles.diagonal()
        change = np.zeros_like(pushed)

        def solve(draw: int) -> None:
            q = None if direction is None else direction[:, draw]
            entries = self._entries(diagonal[:, draw], q, variances)
            if len(entries):
                root = _root(entries, diagonal[:, draw], q, r.shape[1])
                change[entries, draw] = self._solved(root, entries, pushed[entries, draw])

        with one_blas_thread():
            side_by_side(solve, np.flatnonzero(active).tolist(), cores())
        back = self.tiles.product(change)
        return r - change.reshape(r.shape), ntk_r - back.reshape(r.shape)

    def pays(self, curvature: "Curvature") -> bool:
        """Whether few entries count, given W of draws that are not solved, [n, C, S].

        Where many do, a `CoupledDeflation` that all draws share is cheaper.
        """
        d = np.asarray(curvature.diagonal, np.float64)
        q = None if curvature.direction is None else np.asarray(curvature.direction, np.float64)
        variances = self.tiles.diagonal().reshape(*d.shape[:2], 1)
        return bool(np.mean(_curved(d, q, variances) > _SHARE * self.reg) < _FEW)

    def _entries(self, d: NDArray, q: NDArray | None, variances: NDArray) -> NDArray:
        curved = _curved(d, q, variances)
        entries = np.flatnonzero(curved > _SHARE * self.reg)
        if len(entries) > _MOST:
            largest = np.argpartition(curved[entries], -_MOST)[-_MOST:]
            entries = np.sort(entries[largest])
        return entries

    def _solved(self, root: sparse.csr_array, entries: NDArray, pushed: NDArray) -> NDArray:
        """R (reg I + R^T Theta R)^-1 R^T of Theta r."""
        transposed = root.T.tocsr()
        matrix = transposed @ (transposed @ self.tiles.among(entries)).T
        # Rounded entries may leave small eigenvalues negative.
        hidden = self.tiles.rounding * np.trace(matrix)
        matrix[np.diag_indices_from(matrix)] += self.reg + hidden
        try:
            factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:  # the step is r itself then
            return np.zeros_like(pushed)
        return root @ cho_solve(factor, transposed @ pushed, check_finite=False)


def _curved(d: NDArray, q: NDArray | None, variances: NDArray) -> NDArray:
    """W's diagonal times Theta's."""
    return (d if q is None else d * np.maximum(1 - d * q**2, 0.0)) * variances


def _root(entries: NDArray, d: NDArray, q: NDArray | None, outputs: int) -> sparse.csr_array:
    r"""R of some entries, :math:`D^{1/2} (I - \gamma s s^\top)` with :math:`s = D^{1/2} q`.

    Of a point's entries some may be left out, and |s| is below one then.
    """
    scale, k = np.sqrt(d[entries]), len(entries)
    if q is None:
        return sparse.dia_array((scale[None], [0]), shape=(k, k)).tocsr()
    points = entries // outputs
    starts = np.flatnonzero(np.diff(points, prepend=-1))
    lengths = np.diff(np.append(starts, k))
    s = scale * q[entries]
    norm = np.minimum(np.add.reduceat(s**2, starts), 1.0)
    gamma = (1 - np.sqrt(1 - norm)) / np.maximum(norm, np.finfo(float).tiny)
    # Each entry with all of its point's: the blocks row by row.
    of_row = np.repeat(lengths, lengths)
    rows = np.repeat(np.arange(k), of_row)
    firsts = np.repeat(starts, lengths)
    indptr = np.append(0, np.cumsum(of_row))
    columns = np.arange(len(rows)) - np.repeat(indptr[:-1] - firsts, of_row)
    less = np.repeat(gamma, lengths**2) * s[rows] * s[columns]
    data = scale[rows] * ((rows == columns) - less)
    return sparse.csr_array((data, columns, indptr), shape=(k, k))

r"""Preconditioner of each draw's own: its Hessian where its likelihood is curved.

Draws of a wide prior are far from every boundary at most points, where a classifier's likelihood
has no curvature: on the few entries E (points and outputs) where W Theta is not small beside reg,

.. math:: B = I - R (reg\,I + R^\top \Theta_{EE} R)^{-1} R^\top \Theta_{E\cdot}, \qquad
    R R^\top = W_{EE},

is reg (reg I + W Theta)^-1 but for what was left out, self-adjoint in Theta's inner product and
positive whatever that is. B r is then Newton's direction, for two products with Theta. Where it
begins such a draw is curved at far more points, and the first steps are left to a deflation that
all draws share.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ntk_uq._common.deflation import CoupledDeflation
from ntk_uq._common.machine import cores, one_blas_thread
from ntk_uq._common.side_by_side import side_by_side
from ntk_uq._common.tiles import SymmetricTiles

if TYPE_CHECKING:
    from ntk_uq.likelihoods import Curvature

__all__ = ["SHARED_STEPS", "Support"]

# Steps with the preconditioner that draws share: of 2,000 images of 10 classes six take the gap
# from 1e8 nats to 1e5, as Newton's first twenty do, and those after them hardly less.
SHARED_STEPS = 6
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
    shared : CoupledDeflation
        The same for all draws, for the first steps of each: one product with Theta, where these
        take two. It takes the few directions in which a wide prior's draws are far from all data.
    """

    tiles: SymmetricTiles
    reg: float
    shared: CoupledDeflation

    @cached_property
    def _variances(self) -> NDArray:
        """Theta's diagonal, which every draw asks for in every step."""
        return self.tiles.diagonal()

    def apply(
        self, curvature: "Curvature", active: Array, r: Array, ntk_r: Array
    ) -> tuple[Array, Array]:
        """B r and Theta B r of active draws [S], given W, r and Theta r, [n, C, S] each."""
        d, q = _in_double(curvature)
        pushed = np.asarray(ntk_r).reshape(-1, r.shape[-1])
        change = np.zeros_like(pushed)

        def solve(draw: int) -> None:
            of_draw = d[..., draw], None if q is None else q[..., draw]
            entries, root = self._root(*of_draw)
            if len(entries):
                change[entries, draw] = self._solved(root, entries, pushed[entries, draw])

        draws = np.flatnonzero(active)
        with one_blas_thread():
            side_by_side(solve, draws.tolist(), cores())
        back = np.zeros_like(change)
        back[:, draws] = self.tiles.product(change[:, draws])
        return r - change.reshape(r.shape), ntk_r - back.reshape(r.shape)

    def pays(self, curvature: "Curvature") -> bool:
        """Whether few entries count, given W of draws that are not solved, [n, C, S].

        Where many do, a `CoupledDeflation` that all draws share is cheaper.
        """
        d, q = _in_double(curvature)
        diagonal = d if q is None else d * np.maximum(1 - d * q**2, 0.0)
        curved = diagonal * self._variances.reshape(*d.shape[:2], 1)
        return bool(np.mean(curved > _SHARE * self.reg) < _FEW)

    def _root(self, d: NDArray, q: NDArray | None) -> tuple[NDArray, sparse.csr_array]:
        r"""Entries E in ascending order, and R, which has a column for each that was chosen.

        Where W is singular along 1 / q, a point's is that of all entries but one, a, where
        :math:`d q^2` is largest: :math:`W = P W_{-a} P^\top` with
        :math:`P e_c = e_c - (q_c / q_a) e_a`, and :math:`W_{-a}` has the root
        :math:`D^{1/2} (I - \gamma s s^\top)`, :math:`s = D^{1/2} q`, with |s| < 1.
        """
        n, outputs = d.shape
        variances = self._variances.reshape(n, outputs)
        if q is None:
            chosen = self._chosen(d * variances)
            scale = np.sqrt(d.ravel()[chosen])
            return chosen, sparse.csr_array(sparse.diags_array(scale))
        references = np.argmax(d * q**2, axis=1)
        q_a, variance_a = (np.take_along_axis(v, references[:, None], 1) for v in (q, variances))
        curved = d * (variances + (q / q_a) ** 2 * variance_a)
        np.put_along_axis(curved, references[:, None], 0.0, 1)
        chosen = self._chosen(curved)
        k, points = len(chosen), chosen // outputs
        starts = np.flatnonzero(np.diff(points, prepend=-1))
        lengths = np.diff(np.append(starts, k))
        ratio = (q / q_a).ravel()[chosen]
        scale = np.sqrt(d.ravel()[chosen])
        s = scale * q.ravel()[chosen]
        if not k:
            return chosen, sparse.csr_array((0, 0))
        norm = np.add.reduceat(s**2, starts)
        gamma = (1 - np.sqrt(np.maximum(1 - norm, 0.0))) / norm
        # Of each point a block, row by row, and below all blocks the rows of the references.
        rows = np.repeat(np.arange(k), np.repeat(lengths, lengths))
        firsts = np.repeat(np.cumsum(lengths**2) - lengths**2, lengths**2)
        columns = np.repeat(starts, lengths**2)
        columns = columns + (np.arange(len(rows)) - firsts) % np.repeat(lengths, lengths**2)
        block = (rows == columns) - np.repeat(gamma, lengths**2) * s[rows] * s[columns]
        along = np.repeat(gamma * np.add.reduceat(ratio * scale * s, starts), lengths)
        of_references = along * s - ratio * scale
        entries = np.append(chosen, points[starts] * outputs + references[points[starts]])
        order = np.argsort(entries)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rows = np.append(rows, k + np.repeat(np.arange(len(starts)), lengths))
        data = np.append(scale[rows[: len(block)]] * block, of_references)
        columns = np.append(columns, np.arange(k))
        root = sparse.csr_array((data, (place[rows], columns)), shape=(len(entries), k))
        return entries[order], root

    def _chosen(self, curved: NDArray) -> NDArray:
        """Entries where W Theta is not small, in ascending order."""
        entries = np.flatnonzero(curved > _SHARE * self.reg)
        if len(entries) > _MOST:
            largest = np.argpartition(curved.ravel()[entries], -_MOST)[-_MOST:]
            entries = np.sort(entries[largest])
        return entries

    def _solved(self, root: sparse.csr_array, entries: NDArray, pushed: NDArray) -> NDArray:
        """R (reg I + R^T Theta R)^-1 R^T of Theta r."""
        transposed = root.T.tocsr()
        matrix = transposed @ (transposed @ self.tiles.among(entries)).T
        # Rounded entries may leave small eigenvalues negative.
        hidden = self.tiles.rounding * np.trace(matrix)
        matrix[np.diag_indices_from(matrix)] += self.reg + hidden
        try:  # of a symmetric matrix the transpose is as good, and in LAPACK's order
            factor = cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:  # the step is r itself then
            return np.zeros_like(pushed)
        return root @ cho_solve(factor, transposed @ pushed, check_finite=False)


def _in_double(curvature: "Curvature") -> tuple[NDArray, NDArray | None]:
    d = np.asarray(curvature.diagonal, np.float64)
    return d, None if curvature.direction is None else np.asarray(curvature.direction, np.float64)

"""A symmetric matrix of low rank: the product of a tall one with its transpose."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.machine import cores, numbers_in, one_blas_thread
from ntk_uq._common.progress import Progress
from ntk_uq._common.side_by_side import side_by_side

__all__ = ["LowRank"]

# Rows that a product takes at once, and that are computed at once.
_ROWS = 1024


class LowRank:
    """The matrix F F^T [n, n] of features F [n, m], in single precision.

    It is what it is: no entry of it is rounded.

    Parameters
    ----------
    n, m : int
        Rows, and features of each.
    directory : path, optional
        Where a file for the features is made, which lasts as long as the matrix. None keeps them in
        memory.

    Examples
    --------
    >>> import numpy as np
    >>> features = np.array([[1.0], [2.0]])
    >>> LowRank(2, 1).fill(lambda rows: features[rows]).product(np.ones((2, 1)))
    array([[3.],
           [6.]])
    """

    rounding = 0.0

    def __init__(self, n: int, m: int, directory: str | os.PathLike | None = None):
        self.shape = (n, n)
        self.features = numbers_in(4 * n * m, np.float32, directory).reshape(n, m)
        self._rows = [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]

    def __len__(self) -> int:
        return self.shape[0]

    def fill(self, block: Callable[[slice], Any], progress: Progress | None = None) -> "LowRank":
        """Compute the features: ``block(rows)`` gives those of some rows."""
        for done, rows in enumerate(self._rows):
            self.features[rows] = block(rows)
            if progress is not None:
                progress(done + 1, len(self._rows))
        return self

    def project(self, v: NDArray) -> NDArray:
        """F^T v [m, k] of v [n, k], in the precision of v."""
        threads = min(cores(), len(self._rows))
        parts = [self._rows[k::threads] for k in range(threads)]
        with one_blas_thread():
            return sum(side_by_side(partial(self._sum, v), parts, threads))

    def product(self, v: NDArray) -> NDArray:
        """The matrix times v [n, k], in the precision of v."""
        along, out = self.project(v), np.empty_like(v)

        def write(rows: slice) -> None:
            out[rows] = self.features[rows].astype(v.dtype, copy=False) @ along

        with one_blas_thread():
            side_by_side(write, self._rows, min(cores(), len(self._rows)))
        return out

    def diagonal(self) -> NDArray:
        """The diagonal [n], in double precision."""
        parts = (self.features[rows].astype(np.float64) for rows in self._rows)
        return np.concatenate([np.sum(part**2, axis=1) for part in parts])

    def _sum(self, v: NDArray, part: list[slice]) -> NDArray:
        total = np.zeros((self.features.shape[1], v.shape[1]), v.dtype)
        for rows in part:
            total += self.features[rows].astype(v.dtype, copy=False).T @ v[rows]
        return total

"""A symmetric matrix in tiles: one triangle of it, in memory or in a file."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ntk_uq._common.machine import cores, numbers_in, one_blas_thread
from ntk_uq._common.progress import Progress
from ntk_uq._common.side_by_side import side_by_side

__all__ = ["TILE_ROWS", "SymmetricTiles", "tiled_bytes"]

# Rows of a tile: products with fewer are slower, and more store more of the diagonal's other half.
TILE_ROWS = 1024


class SymmetricTiles:
    """A symmetric matrix [n, n] of which one triangle is stored, in tiles.

    A product uses each tile twice, as it is and transposed. In single precision an entry is rounded
    once: `rounding` is its relative standard deviation.

    Parameters
    ----------
    n : int
        Rows.
    dtype : dtype
        Of the entries.
    directory : path, optional
        Where a file for the tiles is made, which lasts as long as the matrix. None keeps them in
        memory.
    part, parts : int
        Which of so many parts of the tiles this is: a product is this part's share of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> tiles = SymmetricTiles(2).fill(lambda rows, columns: matrix[rows, columns])
    >>> tiles.product(np.ones((2, 1), np.float32))
    array([[3.],
           [4.]], dtype=float32)
    """

    def __init__(
        self,
        n: int,
        dtype: DTypeLike = np.float32,
        directory: str | os.PathLike | None = None,
        *,
        part: int = 0,
        parts: int = 1,
    ):
        self.dtype = np.dtype(dtype)
        starts = range(0, n, TILE_ROWS)
        self._rows = [slice(start, min(start + TILE_ROWS, n)) for start in starts]
        self.shape = (n, n)
        own = self._places()[part::parts]  # none, where there are more parts than tiles
        shapes = [(self._length(i), self._length(j)) for i, j in own]
        ends = np.cumsum([0, *(rows * columns for rows, columns in shapes)])
        numbers = numbers_in(max(1, int(ends[-1])) * self.dtype.itemsize, self.dtype, directory)
        self._tiles: dict[tuple[int, int], NDArray] = {
            place: numbers[begin:end].reshape(shape)
            for place, shape, begin, end in zip(own, shapes, ends, ends[1:], strict=False)
        }

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def rounding(self) -> float:
        """Standard deviation of an entry's rounding, relative to the entry."""
        return 0.0 if self.dtype == np.float64 else float(np.finfo(self.dtype).eps) / 4

    def fill(
        self, block: Callable[[slice, slice], Any], progress: Progress | None = None
    ) -> "SymmetricTiles":
        """Compute the tiles.

        Parameters
        ----------
        block : callable
            ``block(rows, columns)`` gives a tile; where both are the same, a symmetric one.
        progress : callable, optional
            ``progress(done, total)`` is told tiles.
        """
        for done, ((i, j), tile) in enumerate(self._tiles.items()):
            tile[...] = block(self._rows[i], self._rows[j])
            if progress is not None:
                progress(done + 1, len(self._tiles))
        return self

    def put(self, row: int, column: int, block: NDArray) -> None:
        """Write a block that begins there, and with it what is its mirror image."""
        for first, second, part in ((row, column, block), (column, row, block.T)):
            for (i, j), tile in self._tiles.items():
                of_rows, own_rows = _common_part(self._rows[i], first, len(part))
                of_columns, own_columns = _common_part(self._rows[j], second, part.shape[1])
                tile[of_rows, of_columns] = part[own_rows, own_columns]

    def product(self, v: NDArray) -> NDArray:
        """The matrix times v [n, k], in the precision of v.

        Each thread has a part of the tiles, and a sum of its own. The library's own threads would
        wait for one another at every tile, which takes most of the time where others need cores.
        """
        places = list(self._tiles)
        threads = max(1, min(cores(), len(places)))
        parts = [places[k::threads] for k in range(threads)]
        with one_blas_thread():
            sums = side_by_side(partial(self._part, v), parts, threads)
        for part in sums[1:]:
            sums[0] += part
        return sums[0]

    def _part(self, v: NDArray, places: list[tuple[int, int]]) -> NDArray:
        """What some tiles add to the product."""
        out = np.zeros_like(v)
        for i, j in places:
            rows, columns = self._rows[i], self._rows[j]
            tile = self._tiles[i, j].astype(v.dtype, copy=False)
            out[rows] += tile @ v[columns]
            if i != j:
                out[columns] += tile.T @ v[rows]
        return out

    def among(self, indices: NDArray) -> NDArray:
        """The entries between some rows, in ascending order, and the same columns: [k, k]."""
        starts = [rows.start for rows in self._rows]
        ends = np.searchsorted(indices, [*starts, len(self)])
        local = [indices[ends[i] : ends[i + 1]] - start for i, start in enumerate(starts)]
        out = np.empty((len(indices), len(indices)))
        for (i, j), tile in self._tiles.items():
            rows, columns = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
            # Whole rows first: that reads in order, and other threads run.
            part = tile.take(local[i], axis=0).take(local[j], axis=1)
            out[rows, columns] = part
            out[columns, rows] = part.T
        return out

    def diagonal(self) -> NDArray:
        """The diagonal [n], in double precision."""
        out = np.zeros(len(self))
        for (i, j), tile in self._tiles.items():
            if i == j:
                out[self._rows[i]] = np.diagonal(tile)
        return out

    def _places(self) -> list[tuple[int, int]]:
        """Rows and columns of tiles; last those of the diagonal, which products use once only."""
        places = [(i, j) for i in range(len(self._rows)) for j in range(i + 1)]
        return sorted(places, key=lambda place: place[0] == place[1])

    def _length(self, i: int) -> int:
        return self._rows[i].stop - self._rows[i].start


def _common_part(rows: slice, start: int, length: int) -> tuple[slice, slice]:
    """What rows have in common with a block that starts there, within both."""
    begin, end = max(rows.start, start), max(rows.start, start, min(rows.stop, start + length))
    return slice(begin - rows.start, end - rows.start), slice(begin - start, end - start)


def tiled_bytes(n: int, dtype: DTypeLike = np.float32) -> int:
    """Bytes that the tiles of a symmetric matrix of n rows take."""
    whole, rest = divmod(n, TILE_ROWS)
    entries = TILE_ROWS**2 * whole * (whole + 1) // 2 + rest * (whole * TILE_ROWS + rest)
    return entries * np.dtype(dtype).itemsize

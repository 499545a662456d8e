"""A symmetric matrix of which each process of `jax.distributed` holds a part of the tiles."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ntk_uq._common import processes
from ntk_uq._common.progress import Progress
from ntk_uq._common.tiles import SymmetricTiles

__all__ = ["DividedTiles", "found_by_first", "together"]


class DividedTiles(SymmetricTiles):
    """A symmetric matrix [n, n] that no process holds whole.

    Each process asks for products of its own, or for none, and all take part in all of them, in
    turns: within `together` only, which goes on until nobody asks any more.

    Parameters
    ----------
    n : int
        Rows.
    dtype : dtype
        Of the entries.

    Examples
    --------
    >>> import numpy as np
    >>> matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> tiles = DividedTiles(2).fill(lambda rows, columns: matrix[rows, columns])
    >>> with together(tiles):
    ...     tiles.product(np.ones((2, 1), np.float32))
    array([[3.],
           [4.]], dtype=float32)
    """

    def __init__(self, n: int, dtype: DTypeLike = np.float32):
        super().__init__(n, dtype, part=processes.number(), parts=processes.count())
        self._diagonal = np.zeros(n)

    def fill(
        self, block: Callable[[slice, slice], Any], progress: Progress | None = None
    ) -> "DividedTiles":
        """Compute the tiles of this process, as all do: `SymmetricTiles.fill`."""
        super().fill(block, progress)
        self._diagonal = processes.total(super().diagonal(), "the diagonal of the kernel")
        return self

    def diagonal(self) -> NDArray:
        """The diagonal [n], in double precision."""
        return self._diagonal

    def product(self, v: NDArray) -> NDArray:
        """The matrix times v [n, k], in the precision of v, while others ask for theirs."""
        return self._turn(v)[processes.number()]

    def serve(self) -> None:
        """Take part in the products of others, until nobody asks."""
        while self._turn(None):
            pass

    def _turn(self, asked: NDArray | None) -> dict[int, NDArray]:
        """Products of all processes that ask, by their numbers."""
        vs = dict(enumerate(processes.gather(asked, "products with the kernel")))
        vs = {process: v for process, v in vs.items() if v is not None}
        products: dict[int, NDArray] = {}
        for dtype in sorted({v.dtype for v in vs.values()}, key=str):
            of_type = {process: v for process, v in vs.items() if v.dtype == dtype}
            share = super().product(np.concatenate(list(of_type.values()), axis=1))
            found = processes.total(share, "shares of products with the kernel")
            ends = np.cumsum([v.shape[1] for v in of_type.values()])
            products.update(zip(of_type, np.split(found, ends[:-1], axis=1), strict=True))
        return products


@contextmanager
def together(ntk: Any) -> Iterator[None]:
    """A part of the work in which each process may take other products, if it shares the matrix.

    Parameters
    ----------
    ntk : DividedTiles, or another matrix
        Of another, each process has its own.
    """
    if not isinstance(ntk, DividedTiles):
        yield
        return
    try:
        yield
    except processes.DividedWorkError:
        raise  # all know
    except BaseException as error:
        processes.leave(error)
        raise
    ntk.serve()


def found_by_first(ntk: Any, work: Callable[[], Any], task: str) -> Any:
    """What the work finds: done by the first process alone, if they share the matrix.

    Parameters
    ----------
    ntk : DividedTiles, or another matrix
        With which the work takes products.
    work : callable
        Takes nothing; its result can be pickled.
    task : str
        What is done, and of which data.

    Examples
    --------
    >>> tiles = DividedTiles(1).fill(lambda rows, columns: 2.0)
    >>> found_by_first(tiles, tiles.diagonal, "the diagonal")
    array([2.])
    """
    if not isinstance(ntk, DividedTiles):
        return work()
    with together(ntk):
        found = work() if processes.is_first() else None
    return processes.gather(found, task)[0]

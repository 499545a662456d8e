"""Solves side by side: what is not a matrix product keeps one core of a CPU busy only."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from ntk_uq._common.machine import one_blas_thread

__all__ = ["side_by_side"]


def side_by_side(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    threads: int,
    told: Callable[[int], None] | None = None,
) -> list[Any]:
    """The function of each item, in the items' order.

    Settings of JAX belong to a thread: the function enters those that it needs. Where several
    threads run, a call of BLAS or LAPACK takes one: its own would wait for one another, and spin,
    for as long as other programs keep the cores.

    Parameters
    ----------
    function : callable
        Takes an item.
    items : sequence
        What it is called with.
    threads : int
        How many calls run at a time. With one they run in the caller's thread.
    told : callable, optional
        ``told(done)`` is called as results come. What it raises, and an interrupt, ends the work:
        items that have not begun are left.
    """
    results = []
    alone = nullcontext() if threads == 1 else one_blas_thread()
    with alone, ThreadPoolExecutor(threads) as pool:
        try:
            for result in pool.map(function, items) if threads > 1 else map(function, items):
                results.append(result)
                if told is not None:
                    told(len(results))
        finally:
            pool.shutdown(cancel_futures=True)
    return results

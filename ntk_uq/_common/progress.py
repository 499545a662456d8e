"""Progress for long work: the functional layer counts, and a bar shows the count."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import ArrayLike

from ntk_uq._common.processes import is_first

# In a file a line now and then, and none of what is quick: seconds.
_FIRST_LINE, _BETWEEN_LINES = 20.0, 30.0
# What begins lines where standard error is no terminal; None where nothing is to be said there.
_LINES: ContextVar[str | None] = ContextVar("lines", default=None)
# What is said behind a label, of work that is done several times.
_PART: ContextVar[str] = ContextVar("part", default="")

Progress = Callable[..., None]  # (done, total), and figures by name


@contextmanager
def progress_lines(name: str) -> Iterator[None]:
    """Say progress in lines, where standard error is no terminal, while the body runs.

    Parameters
    ----------
    name : str
        What begins each line.

    Examples
    --------
    >>> with progress_lines("ntk-uq fit"), progress_bar("training", total=3) as progress:
    ...     progress(1, 3)  # too soon to be said
    """
    token = _LINES.set(name)
    try:
        yield
    finally:
        _LINES.reset(token)


@contextmanager
def progress_part(words: str) -> Iterator[None]:
    """Say behind the label of each bar of the body which of several alike it is.

    Parameters
    ----------
    words : str
        Which one; nothing is said if there is none.

    Examples
    --------
    >>> with progress_part("network 2 of 3"), progress_bar("kernels", total=1, show=False):
    ...     pass  # kernels, network 2 of 3
    """
    token = _PART.set(f", {words}" if words else "")
    try:
        yield
    finally:
        _PART.reset(token)


@contextmanager
def progress_bar(label: str, total: int, show: bool | None = None) -> Iterator[Progress | None]:
    """Show a bar on standard error while the body of the ``with`` statement runs.

    Parameters
    ----------
    label : str
        What is being done, shown before the bar.
    total : int
        Number of steps that are expected.
    show : bool, optional
        None shows the bar only where standard error is a terminal, and lines elsewhere within
        `progress_lines`. Of several processes the first shows its share of the work.

    Yields
    ------
    progress : callable or None
        ``progress(done, total)`` moves the bar to `done` out of `total` steps, and shows figures
        given by name, ``gap=0.01``, behind it. None where no bar is shown, so that the functional
        layer runs as if nobody had asked.

    Examples
    --------
    >>> with progress_bar("training", total=3, show=False) as progress:
    ...     print(progress)
    None
    """
    name, label = _LINES.get(), label + _PART.get()
    if not is_first():
        yield None
        return
    if show is None:
        show = sys.stderr.isatty()
        if not show and name is not None:
            lines = _Lines(f"{name}: {label}")
            yield lines
            lines.end()
            return
    if not show:
        yield None
        return

    from tqdm.auto import tqdm

    with tqdm(desc=label, total=total, file=sys.stderr, dynamic_ncols=True) as bar:

        def progress(done: int, total: int, **figures: float) -> None:
            bar.total = total
            bar.set_postfix(
                {name: f"{value:.1e}" for name, value in figures.items()}, refresh=False
            )
            bar.update(done - bar.n)

        yield progress


def by_gaps(
    progress: Progress | None, tol: float, draws: range, total: int, *, steps: int = 1
) -> Callable[[ArrayLike], None] | None:
    """What a solver tells its gaps, of draws that it solves together: nearly all end together.

    A draw counts for the share of its way that lies behind it, from its first gap to the tolerance,
    in orders of magnitude. Nothing is taken back.

    Parameters
    ----------
    progress : callable or None
        ``progress(done, total, gap=gap)`` is told steps of draws, and the largest gap.
    tol : float
        Where the way ends, in nats.
    draws : range
        Those under way: the ones before are solved.
    total : int
        Draws in all.
    steps : int
        What each draw counts for: of a single one nothing else would be seen until its end.

    Returns
    -------
    callable or None
        ``told(gaps)``, with one for each draw at least; None where nobody asks.

    Examples
    --------
    >>> told = by_gaps(lambda done, total, gap: print(done, total, gap), 1e-6, range(4, 8), 8)
    >>> told([1.0, 1.0, 100.0, 1.0])
    4 8 100.0
    >>> told([1e-3, 1e-3, 1e-2, 1e-7])
    6 8 0.01
    """
    if progress is None:
        return None
    first: float | np.ndarray = 0.0
    way: float | np.ndarray = 0.0

    def told(gaps: ArrayLike) -> None:
        nonlocal first, way
        known = np.asarray(gaps, np.float64)[: len(draws)]
        known = np.where(np.isnan(known), np.inf, known)
        left = np.log(np.clip(known, tol, np.finfo(np.float64).max)) - np.log(tol)
        first = np.maximum(first, left)
        way = np.maximum(way, 1 - left / np.where(first > 0, first, 1.0))
        # Of four times a quarter rounding must leave one.
        done = steps * draws.start + int(steps * np.sum(way) + 1e-9)
        progress(done, steps * total, gap=float(np.max(known)))

    return told


class _Lines:
    """Progress in lines: the share that is done, seconds so far, and about how many are left.

    All is done when the work has ended, which is said once, and not where a count is full before.
    """

    def __init__(self, label: str):
        self.label = label
        self.start = time.monotonic()
        self.next = self.start + _FIRST_LINE
        self.said = False

    def __call__(self, done: float, total: int, **figures: float) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next, self.said = now + _BETWEEN_LINES, True
        seconds, percent = now - self.start, min(int(100 * done / total), 99)
        # Of the first per cent little is known.
        guess = percent > 0 and done < total
        left = f", about {_words(seconds * (total / done - 1))} left" if guess else ""
        self._say(f"{percent}%, {_words(seconds)}{left}")

    def end(self) -> None:
        """Say the end of what was long enough to be said."""
        if self.said:
            self._say(f"100%, {_words(time.monotonic() - self.start)}")

    def _say(self, words: str) -> None:
        print(f"{self.label}: {words}", file=sys.stderr, flush=True)


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def piece(progress: Progress | None, k: int, pieces: int) -> Progress | None:
    """Progress of piece k of as many equal ones.

    Parameters
    ----------
    progress : callable, optional
        Of the whole.
    k, pieces : int
        Which of how many.

    Examples
    --------
    >>> piece(print, 1, 2)(3, 4)
    7 8
    """
    if progress is None:
        return None
    return lambda done, total: progress(k * total + done, pieces * total)

"""Progress for long work: the functional layer counts, and a bar shows the count."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[..., None]  # (done, total), and figures by name


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
        None shows the bar only where standard error is a terminal.

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
    if show is None:
        show = sys.stderr.isatty()
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

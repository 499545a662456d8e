"""Axes, colours, markers and legends that all pictures share.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart, and every method has
its own marker besides, for print in black and white.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHED: dict[str, Any] = {"color": "0.45", "linewidth": 1, "linestyle": (0, (4, 3))}
UNCERTAINTIES = {
    "epistemic": "Epistemic uncertainty",
    "aleatoric": "Aleatoric uncertainty",
    "total_uncertainty": "Total uncertainty",
}


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes that were given, or those of a new figure."""
    if ax is not None:
        return ax
    # pyplot chooses a display and keeps every figure, which a notebook wants and a report does not.
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def style_of(position: int) -> tuple[str, str]:
    """Colour and marker of the result at this position."""
    return COLOURS[position % len(COLOURS)], _MARKERS[position % len(_MARKERS)]


def by_name[T](results: T | Mapping[str, T], kind: type[T] | str) -> dict[str, T]:
    """One result under no name, or several under theirs.

    A kind that a room above defines is given by its name, so that imports go one way.
    """
    name = kind if isinstance(kind, str) else kind.__name__

    def is_one(result: object) -> bool:
        return type(result).__name__ == kind if isinstance(kind, str) else isinstance(result, kind)

    named = {"": results} if is_one(results) else results
    if not (isinstance(named, Mapping) and named and all(map(is_one, named.values()))):
        raise ValueError(
            f"This plot takes a {name}, or a dict of them by name, got {type(results).__name__}."
        )
    return dict(named)


def equal_axes(ax: Axes, low: float, high: float) -> None:
    """One scale for both axes, and the diagonal."""
    ax.plot([low, high], [low, high], **DASHED, zorder=1)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def add_legend(ax: Axes, n_entries: int) -> None:
    """A legend, where there is more than one thing to tell apart."""
    if n_entries > 1:
        ax.legend(frameon=False, handlelength=1.2)

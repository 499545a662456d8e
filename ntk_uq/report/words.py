"""Lists, numbers, errors and durations as a sentence or a cell has them."""

from collections.abc import Sequence

import numpy as np


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def number(value: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plus_minus(value: float, se: float, significant: int = 2) -> str:
    """A value and its standard error, with so many digits of the latter."""
    if not se > 0:
        return f"{value:.4f}"
    digits = min(max(significant - 1 - int(np.floor(np.log10(se))), 0), 4)
    return f"{value:.{digits}f} ±\N{NO-BREAK SPACE}{se:.{digits}f}"


def duration(seconds: float) -> str:
    """Two significant digits, in a unit that suits."""
    if seconds < 0.995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"

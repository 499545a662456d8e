"""Values in messages, and results in a line."""

from dataclasses import fields
from typing import Any

import numpy as np

__all__ = ["in_a_line", "shown"]

# Of a value that has no shape: longer ones are named by their type.
_MOST_LETTERS = 60


def shown(value: Any) -> str:
    """A value as code, NumPy's numbers and texts in it as the plain ones that they are."""
    with np.printoptions(legacy="1.25"):
        return repr(value)


def in_a_line[T](cls: type[T]) -> type[T]:
    """Print a data class in a line: arrays by type and shape, and what is long by its type.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @in_a_line
    ... @dataclass
    ... class Draws:
    ...     samples: np.ndarray
    ...     seconds: float
    >>> Draws(np.zeros((256, 60)), 0.5)
    Draws(samples=float64[256, 60], seconds=0.5)
    """
    cls.__repr__ = _line  # type: ignore[method-assign]
    return cls


def _line(self: Any) -> str:
    held = ", ".join(
        f"{field.name}={_short(getattr(self, field.name))}" for field in fields(self) if field.repr
    )
    return f"{type(self).__name__}({held})"


def _short(value: Any) -> str:
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    text = shown(value)
    if len(text) <= _MOST_LETTERS and "\n" not in text:
        return text
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}(...)"

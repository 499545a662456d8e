"""Warnings that several rooms give, and where they are said to come from."""

import contextlib
import warnings
from pathlib import Path

__all__ = ["ConvergenceWarning", "LazinessWarning", "SamplingWarning", "warn_user"]

# Not the lines that a user wrote.
_OURS = (str(Path(__file__).parents[1]), contextlib.__file__)


class ConvergenceWarning(UserWarning):
    """A search, or the training of some members, stopped before its criterion was met."""


class LazinessWarning(UserWarning):
    """Training has left the lazy regime, in which theory and kernels describe the networks."""


class SamplingWarning(UserWarning):
    """The diagnostics say that posterior draws cannot be trusted as they are."""


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line from which the package was called, however deep in it this is."""
    warnings.warn(message, category, skip_file_prefixes=_OURS)

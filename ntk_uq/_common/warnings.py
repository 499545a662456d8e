"""Warnings that several rooms give, and where they are said to come from."""

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

__all__ = [
    "ConvergenceWarning",
    "LazinessWarning",
    "SamplingWarning",
    "UnseenWarning",
    "unsaid",
    "warn_once",
    "warn_user",
]

# Not the lines that a user wrote. Python finds no prefix that is the whole name of a file.
_OURS = (str(Path(__file__).parents[1]), contextlib.__file__.removesuffix(".py"))
# What has been said, where things are said once; and kinds of which nothing is said.
_SAID: ContextVar[set[tuple[str, type[Warning]]] | None] = ContextVar("said", default=None)
_UNSAID: ContextVar[tuple[type[Warning], ...]] = ContextVar("unsaid", default=())


class ConvergenceWarning(UserWarning):
    """A search, or the training of some members, stopped before its criterion was met."""


class LazinessWarning(UserWarning):
    """Training has left the lazy regime, in which theory and kernels describe the networks."""


class SamplingWarning(UserWarning):
    """The diagnostics say that posterior draws cannot be trusted as they are."""


class UnseenWarning(UserWarning):
    """A category, or a gap in a column of numbers, that the training table did not have."""


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line from which the package was called, however deep in it this is."""
    said = _SAID.get()
    if issubclass(category, _UNSAID.get()) or (said is not None and (message, category) in said):
        return
    if said is not None:
        said.add((message, category))
    warnings.warn(message, category, skip_file_prefixes=_OURS)


@contextlib.contextmanager
def warn_once() -> Iterator[None]:
    """Say what the body, or a function that this decorates, warns of once, though steps repeat it.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True, action="always") as caught, warn_once():
    ...     for method in "ensemble", "limit":
    ...         warn_user("The test points are odd.")
    >>> len(caught)
    1
    """
    token = _SAID.set(set() if _SAID.get() is None else _SAID.get())
    try:
        yield
    finally:
        _SAID.reset(token)


@contextlib.contextmanager
def unsaid(*categories: type[Warning]) -> Iterator[None]:
    """Warn of none of these while the body runs, as where its caller has said it in other words."""
    token = _UNSAID.set((*_UNSAID.get(), *categories))
    try:
        yield
    finally:
        _UNSAID.reset(token)

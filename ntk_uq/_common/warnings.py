"""Warnings that several rooms give."""

__all__ = ["SamplingWarning"]


class SamplingWarning(UserWarning):
    """The diagnostics say that posterior draws cannot be trusted as they are."""

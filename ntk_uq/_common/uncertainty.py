"""Whose spread a prediction shows. docs/theory: "Relation to Bayes"."""

from typing import Literal

__all__ = ["Uncertainty"]

Uncertainty = Literal["initialization", "posterior", "none"]

"""Where the producers meet: what they say about the same test points, and how far apart they are.

A difference between two methods counts only where it exceeds the Monte-Carlo error of their draws,
so every distance comes with its standard error and with the value that this error alone would give.
"""

from ntk_uq.compare.comparison import Comparison, MethodSummary
from ntk_uq.compare.problems import ComparisonWarning
from ntk_uq.compare.run import compare
from ntk_uq.distances import Distance, Estimate

__all__ = ["Comparison", "ComparisonWarning", "Distance", "Estimate", "MethodSummary", "compare"]

"""What every producer returns, and how far a Gaussian is from what it approximates."""

from ntk_uq.predictions.decomposition import Decomposition, decompose
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction
from ntk_uq.predictions.first_order import Discrepancy, FirstOrderWarning, discrepancy

__all__ = [
    "Decomposition",
    "Discrepancy",
    "FirstOrderWarning",
    "GaussianPrediction",
    "SamplePrediction",
    "decompose",
    "discrepancy",
]

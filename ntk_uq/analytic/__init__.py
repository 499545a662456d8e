r"""The infinite ensemble: distribution of the trained predictor at infinite width.

Kernels in, predictions out. A trained predictor is
:math:`f^*(x) = f_0(x) + \Theta(x, X)\,\alpha(f_0)` with a prior function :math:`f_0`, and the
ensemble's spread is that of :math:`f_0`. Two ways to push it forward:

- `gaussian_predictor`: to first order in f0 about the mode, exact where the solution is linear
  in f0 (Gaussian likelihood; reg = 0). docs/theory: "The Gaussian predictor".
- `exact_predictor`: draws of f0, each with its convex problem solved. docs/theory: "Exact
  push-forward".

`InfiniteEnsemble` takes a whole problem, architecture and points, and predicts at any others by
either. All hold for three kinds of prior function (`uncertainty`): "initialization", f0 ~ GP(0, K);
"posterior", f0 ~ GP(0, Theta / reg) with label noise; "none", f0 = 0. Everything follows the dtype
of the kernels.
"""

import importlib
from typing import Any

from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.analytic.budget import estimate_memory
from ntk_uq.analytic.exact import ExactPredictor, exact_predictor
from ntk_uq.analytic.flow import check_time, exact_predictor_until, follow_flow
from ntk_uq.analytic.functions import FunctionDraws
from ntk_uq.analytic.gaussian import GaussianPredictor, gaussian_predictor
from ntk_uq.analytic.leave_one_out import leave_one_out
from ntk_uq.analytic.linearized import LinearizedEnsemble, check_linearized
from ntk_uq.analytic.mixture import Component, FittedMixture, fit_mixture
from ntk_uq.analytic.network_draws import NetworkDraws
from ntk_uq.analytic.producer import (
    FittedInfiniteEnsemble,
    FittedProcess,
    InfiniteEnsemble,
    LaplaceProcess,
)
from ntk_uq.analytic.tangents import FittedLinearized, TangentDraws, TangentGaussian
from ntk_uq.analytic.trajectories import correct_draws
from ntk_uq.predictions.first_order import Discrepancy, FirstOrderWarning, discrepancy

__all__ = [
    "Component",
    "Discrepancy",
    "ExactPredictor",
    "FirstOrderWarning",
    "FittedInfiniteEnsemble",
    "FittedLinearized",
    "FittedMixture",
    "FittedProcess",
    "FunctionDraws",
    "GaussianPredictor",
    "InfiniteEnsemble",
    "LaplaceProcess",
    "LinearizedEnsemble",
    "NetworkDraws",
    "TangentDraws",
    "TangentGaussian",
    "Uncertainty",
    "check_linearized",
    "check_time",
    "correct_draws",
    "discrepancy",
    "estimate_memory",
    "exact_predictor",
    "exact_predictor_until",
    "fit_mixture",
    "follow_flow",
    "gaussian_predictor",
    "leave_one_out",
]


def __getattr__(name: str) -> Any:
    """`estimate_noise` under the name that it had here: what is chosen is chosen in `selection`."""
    if name == "estimate_noise":
        return importlib.import_module("ntk_uq.selection").estimate_noise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Does what was derived of a Gaussian at the mode hold? Said in a user's words."""

from typing import Any

import numpy as np

from ntk_uq._common.warnings import warn_user
from ntk_uq.predictions.first_order import FirstOrderWarning

__all__ = ["warn_of_first_order"]

# Above this total variation of class probabilities, in the mean over training points, the closed
# form is no approximation: docs, "Closed form or draws".
_LARGEST_ERROR = 0.1


def warn_of_first_order(found: Any, instead: str, reg: float | None) -> None:
    """Name the cure where the Gaussian at the mode is far from what it approximates."""
    error = float(np.mean(found.total_variation))
    if error <= _LARGEST_ERROR:
        return
    wider = "" if reg is None else f"raise reg ({reg:.3g} here), "
    warn_user(
        "The Gaussian about the mode is a poor approximation: at the training points its class "
        f"probabilities are {error:.2f} from those of exact solutions (mean total variation; "
        f"first order is good for {_LARGEST_ERROR:g}). {instead}, {wider}or scale the "
        "features (about 1 each). `discrepancy_` has the figures.",
        FirstOrderWarning,
    )

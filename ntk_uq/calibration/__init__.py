"""Probabilities, sets and thresholds that keep what they promise, from held-out data.

Everything here takes data that the model was not fitted to. The guarantees hold when these data
and the future ones are exchangeable; they make no assumption on the model.
"""

from ntk_uq.calibration.decisions import (
    RejectionRule,
    conformal_quantile,
    conformal_threshold,
    prediction_sets,
    rejection_rule,
)
from ntk_uq.calibration.temperature import (
    TemperatureFit,
    TemperatureScaled,
    fit_temperature,
    temper,
)

__all__ = [
    "RejectionRule",
    "TemperatureFit",
    "TemperatureScaled",
    "conformal_quantile",
    "conformal_threshold",
    "fit_temperature",
    "prediction_sets",
    "rejection_rule",
    "temper",
]

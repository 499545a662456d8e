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
from ntk_uq.calibration.groups import (
    calibration_by_group,
    calibration_of_classes,
    calibration_of_intervals,
)
from ntk_uq.calibration.sets import (
    ConformalIntervals,
    ConformalSets,
    conformal_intervals,
    conformal_sets,
    coverage_by_class,
)
from ntk_uq.calibration.temperature import (
    TemperatureFit,
    TemperatureScaled,
    fit_temperature,
    temper,
)
from ntk_uq.calibration.thresholds import (
    Threshold,
    cost_threshold,
    least_cost,
    precision_threshold,
    recall_threshold,
    rejection_threshold,
)

__all__ = [
    "ConformalIntervals",
    "ConformalSets",
    "RejectionRule",
    "TemperatureFit",
    "TemperatureScaled",
    "Threshold",
    "calibration_by_group",
    "calibration_of_classes",
    "calibration_of_intervals",
    "conformal_intervals",
    "conformal_quantile",
    "conformal_sets",
    "conformal_threshold",
    "cost_threshold",
    "coverage_by_class",
    "fit_temperature",
    "least_cost",
    "precision_threshold",
    "prediction_sets",
    "recall_threshold",
    "rejection_rule",
    "rejection_threshold",
    "temper",
]

"""Predictors at a time of training; they live in `ntk_uq.analytic`."""

from ntk_uq.analytic.gradient_flow import exact_predictor_at, gaussian_predictor_at, integrate

__all__ = ["exact_predictor_at", "gaussian_predictor_at", "integrate"]

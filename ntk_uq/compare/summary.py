"""What one method says about the test points."""

from typing import Any

import numpy as np
from scipy.special import rel_entr
from sklearn.pipeline import Pipeline

from ntk_uq._common.words import shown
from ntk_uq.compare.comparison import MethodSummary
from ntk_uq.compare.inputs import Prediction, final_step
from ntk_uq.distances import PreparedPrediction
from ntk_uq.predictions.distributions import SamplePrediction


def summary_of(estimator: Any, draws: PreparedPrediction, predict_seconds: float) -> MethodSummary:
    """Everything that a comparison keeps of a method; `predict_seconds` is what draws took."""
    prediction, final = draws.prediction, final_step(estimator)
    proba = mcse = target_std = np.empty((len(prediction.mean), 0))
    if draws.is_classifier:
        proba, mcse = draws.proba, draws.mcse
        total, epistemic = prediction.total_uncertainty, prediction.epistemic
        aleatoric, epistemic_se = prediction.aleatoric, error_of_epistemic(prediction)
    else:
        target_std = np.hypot(prediction.std, getattr(prediction.likelihood, "noise", 0.0))
        (total, *_), (epistemic, *resampled) = draws.uncertainty()
        aleatoric = np.sqrt(np.maximum(total**2 - epistemic**2, 0.0))
        epistemic_se = float(np.mean(resampled, axis=1).std(ddof=1))
    is_sampled = isinstance(prediction, SamplePrediction)
    return MethodSummary(
        estimator=_as_code(estimator),
        proba=proba,
        proba_mcse=mcse,
        latent_mean=prediction.mean,
        latent_std=prediction.std,
        target_std=target_std,
        total_uncertainty=total,
        aleatoric=aleatoric,
        epistemic=epistemic,
        epistemic_se=epistemic_se,
        n_draws=len(prediction.samples) if isinstance(prediction, SamplePrediction) else None,
        n_effective=draws.effective_draws if is_sampled else np.nan,
        fit_seconds=float(getattr(final, "fit_seconds_", np.nan)),
        predict_seconds=predict_seconds,
        diagnostics=getattr(final, "diagnostics_", None),
        warnings=_warnings(final, prediction),
    )


def _warnings(estimator: Any, prediction: Prediction) -> tuple[str, ...]:
    diagnostics = getattr(estimator, "diagnostics_", None)
    too_short = () if prediction._too_short is None else (prediction._too_short,)
    if diagnostics is not None or too_short:
        return (*getattr(diagnostics, "warnings", ()), *too_short)
    converged = np.atleast_1d(getattr(estimator, "converged_", True))
    if converged.all():
        return ()
    return (
        f"{np.sum(~converged)} of {converged.size} networks stopped before they reached their "
        "minimum, so the spread of the ensemble is not that of trained networks alone.",
    )


def error_of_epistemic(prediction: Prediction) -> float:
    """Monte-Carlo standard error of the mean epistemic uncertainty.

    The mutual information is the mean over draws of KL(p_draw || mean p), and is stationary in the
    mean p: its error is that of this average.
    """
    mean = prediction.proba()
    return prediction.mean_mcse(lambda draws, points: rel_entr(draws, mean[points]).sum(axis=-1))


def _as_code(estimator: Any) -> str:
    if isinstance(estimator, Pipeline):
        return f"make_pipeline({', '.join(_as_code(step) for _, step in estimator.steps)})"
    if not hasattr(estimator, "predict_distribution") or not hasattr(estimator, "get_params"):
        return " ".join(repr(estimator).split())
    settings = estimator.get_params(deep=False)
    settings.pop("progress", None)
    arguments = ", ".join(f"{name}={shown(value)}" for name, value in settings.items())
    return f"{type(estimator).__name__}({arguments})"

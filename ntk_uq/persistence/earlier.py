"""Files of earlier versions, as what is held today."""

from typing import Any

from ntk_uq.likelihoods import Categorical
from ntk_uq.persistence.classes import class_named

__all__ = ["held_by_fitted"]

# What the attributes of the first files are now in `_fitted`, or follow from it.
_IN_FITTED = {
    "predictor_", "architecture_", "feature_scales_", "reg_", "jitter_", "discrepancy_", "noise_",
    "ensemble_", "n_iter_", "converged_", "objective_", "grad_norm_", "draws_", "laplace_",
    "diagnostics_", "_X", "_y", "_draw_key", "_predict_key", "_likelihood", "_weights",
}  # fmt: skip


def held_by_fitted(name: str, params: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """Attributes of an object, those of an estimator in the first files as today's holds them.

    There the results of a producer were attributes of the estimator, side by side. Now one object
    has them, `_fitted`: of NTK estimators a `FittedInfiniteEnsemble`, of ensembles a
    `FittedEnsemble`, of Bayesian ones a `SampledPosterior`, or the Gaussian of `laplace_`.
    """
    if "architecture_" not in there or not name.startswith("ntk_uq.estimators."):
        return there

    def built(name: str, *values: Any) -> Any:
        return class_named(f"ntk_uq.{name}")(*values)

    points, network, process = there.get("_X"), there["architecture_"], None
    likelihood = there.get("_likelihood", Categorical())
    if params.get("prior", "weights") != "weights":
        process = built("networks.FunctionPrior", network, params["prior"], params["reg"])
    if "predictor_" in there:
        values = (there["predictor_"], points, network, there["feature_scales_"], likelihood)
        fitted = built("analytic.FittedInfiniteEnsemble", *values, there.get("_draw_key"))
    elif "ensemble_" in there:
        fitted = built("ensemble.FittedEnsemble", there["ensemble_"], likelihood)
    elif "draws_" in there:
        values = (there["draws_"], points, there["_y"], process, likelihood)
        fitted = built(
            "bayes.SampledPosterior", *values, there["_predict_key"], there["diagnostics_"]
        )
    elif process is None:
        fitted = built("bayes.FittedNetworkLaplace", there["laplace_"], likelihood)
    else:
        fitted = built("analytic.FittedProcess", there["laplace_"], points, process, likelihood)
    kept = {name: value for name, value in there.items() if name not in _IN_FITTED}
    return {**kept, "_fitted": fitted}

"""A model's card: what was trained, on what, chosen how, and what it is not for."""

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ntk_uq.calibration import calibration_of_classes, calibration_of_intervals
from ntk_uq.ensemble.producer import FittedEnsemble
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["card_of", "innermost"]


def innermost(model: Any) -> Any:
    """The estimator of this package that a table's model, a pipeline or a temperature ends in."""
    if hasattr(model, "pipeline"):
        return innermost(model.pipeline)
    if hasattr(model, "steps"):
        return innermost(model.steps[-1][1])
    inner = getattr(model, "estimator_", getattr(model, "estimator", None))
    return model if inner is None else innermost(inner)


def card_of(model: Any, data: bool = True, held_out: Any = None) -> dict[str, Any]:
    """What is said of a fitted model, in values of JSON.

    Parameters
    ----------
    model : estimator
        What `save` takes.
    data : bool
        Whether a file holds what belongs to its training points.
    held_out : pair of arrays, optional
        Points and targets that it was not fitted to.

    Returns
    -------
    dict
        ``model``, ``estimator``, ``settings`` (arguments that are not the defaults),
        ``network``, ``trained_on`` (`training_summary`, None of models of earlier versions, with
        the ``target`` of a table), ``chosen``, ``fit_seconds``, ``conformal``, ``decisions``
        (sentences), ``calibration`` (rows of `calibration_by_group` on what was held out, None
        where nothing was), ``holds_training_points`` and ``limits``, sentences.
    """
    estimator = innermost(model)
    summary = getattr(estimator, "_trained_on", None)
    if summary is not None:
        target = getattr(model, "target", None)
        summary = {**summary, **({} if target is None else {"target": target})}
    conformal, decisions = getattr(model, "conformal", None), getattr(model, "decisions", None)
    fitted = vars(estimator).get("_fitted")
    return _plain(
        {
            "model": type(model).__name__,
            "estimator": type(estimator).__name__,
            "settings": _settings(estimator),
            "network": _network(estimator),
            "trained_on": summary,
            "chosen": _chosen(estimator),
            "fit_seconds": getattr(estimator, "fit_seconds_", None),
            "conformal": None
            if conformal is None
            else {
                "kind": type(conformal).__name__,
                "level": conformal.level,
                "guarantee": conformal.guarantee,
            },
            "decisions": [] if decisions is None else decisions.words(estimator.classes_),
            "calibration": getattr(model, "held_out", estimator._held_out)
            if held_out is None
            else _calibration(model, estimator, *held_out),
            "holds_training_points": not isinstance(fitted, FittedEnsemble),
            "limits": _limits(estimator, fitted, summary, data),
        }
    )


def _settings(estimator: Any) -> dict[str, Any]:
    defaults = type(estimator)().get_params(deep=False)
    return {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in ("architecture", "progress")
        and not (value is defaults[name] or repr(value) == repr(defaults[name]))
    }


def _network(estimator: Any) -> dict[str, Any]:
    network: BaseArchitecture = estimator.architecture_
    known: dict[str, Any] = (
        {field.name: getattr(network, field.name) for field in fields(network) if field.init}
        if is_dataclass(network)
        else {}
    )
    return {"kind": type(network).__name__, **known}


def _chosen(estimator: Any) -> dict[str, Any]:
    reg = getattr(estimator, "reg_", None)
    found: dict[str, Any] = {"reg": estimator.reg if reg is None else reg}
    curve: Any = getattr(estimator, "reg_curve_", None)
    if curve is None:
        # A trained network's is 1 where none was given, and not chosen.
        return {**found, "by": None, **({"given": False} if estimator.reg is None else {})}
    scores = np.where(np.isfinite(curve.scores), curve.scores, -np.inf)
    row = int(np.argmax(scores.max(axis=1)))
    at = int(np.argmin(np.abs(np.log(curve.regs) - np.log(curve.reg))))
    found |= {"by": curve.criterion, "among": list(curve.names), "chosen": curve.names[row]}
    name = "held_out_log_probability" if curve.criterion == "cv" else "log_evidence"
    found |= {name: float(scores[row, at]), "points": curve.n_points}
    mixture: Any = getattr(estimator, "mixture_", None)
    if mixture is not None and len(mixture.components) > 1:
        found["mixture"] = {
            "networks": [
                {"name": one.name, "reg": float(one.reg), "weight": float(one.weight)}
                for one in mixture.components
            ],
            name: float(mixture.score),
        }
    if (label_weight := getattr(estimator, "label_weight_", 1.0)) != 1:
        found["label_weight"] = float(label_weight)
    return found


def _calibration(model: Any, estimator: Any, X: Any, y: Any) -> list[dict[str, Any]]:
    """What is promised of points that were held out, and what came: rows of groups."""
    if hasattr(model, "pipeline"):
        raise ValueError(
            "A TableModel knows the rows that were held out when it was fitted: omit held_out, "
            "and let fit_table hold some out, by conformal=0.9 for example."
        )
    points = model[:-1].transform(X) if hasattr(model, "steps") else X
    estimator._check_held_out(points, y)
    if hasattr(estimator, "classes_"):
        table = calibration_of_classes(y, model.predict_proba(X), classes=model.classes_)
        return table.to_dict("records")
    prediction = estimator.predict_distribution(points)
    truth = np.asarray(y, np.float64).reshape(len(prediction.mean), -1)
    spread = 0.0 if getattr(estimator, "uncertainty", "") == "none" else prediction.std
    std = np.broadcast_to(np.hypot(spread, estimator.noise_), truth.shape)
    table = calibration_of_intervals(truth.ravel(), prediction.mean.ravel(), std.ravel())
    return table.to_dict("records")


def _limits(estimator: Any, fitted: Any, summary: dict[str, Any] | None, data: bool) -> list[str]:
    limits = [
        "An earlier version fitted it, and kept no ranges of the data."
        if summary is None
        else "Beyond the ranges of its training data predictions extrapolate, and of data that "
        "come about in another way its uncertainty says nothing."
    ]
    if isinstance(fitted, FittedEnsemble):
        limits.append(
            "It holds trained networks and no training point"
            + (
                "."
                if not data or fitted.trained.mode is None
                else ", but for what the posterior mode is at each."
            )
        )
        stuck = int(np.sum(~np.asarray(fitted.trained.converged)))
        if stuck:
            limits.append(f"{stuck} of {len(fitted.trained)} members did not converge.")
    else:
        limits.append(
            "It holds its training points, with which it predicts: whoever has the file has the "
            "data."
        )
    discrepancy = getattr(estimator, "discrepancy_", None)
    if discrepancy is not None and np.any(discrepancy.total_variation):
        limits.append(
            "It is first order in the prior function: at its training points predictions differ "
            f"from exact ones by {float(np.mean(discrepancy.total_variation)):.2g} in total "
            "variation."
        )
    return limits


def _plain(value: Any) -> Any:
    """Values of JSON: of NumPy's its own, and of other objects how they are written."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return getattr(value, "__name__", None) or str(value)

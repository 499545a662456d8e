"""All that files may name, and where it lives."""

import importlib
import types
from dataclasses import is_dataclass
from typing import Any

from ntk_uq import likelihoods, networks
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["CLASSES", "class_named", "name_of"]


def _held_as_data(contents: types.ModuleType, kind: type = object) -> tuple[str, ...]:
    """Dataclasses of a kind on a contents page, but those whose fields are always functions."""
    shown: dict[str, Any] = {name: getattr(contents, name) for name in contents.__all__}
    return tuple(
        name
        for name, cls in shown.items()
        if isinstance(cls, type)
        and issubclass(cls, kind)
        and is_dataclass(cls)
        and getattr(cls, "holds_functions", False) is not True
    )


_ARCHITECTURES = _held_as_data(networks, BaseArchitecture)


# All classes that a file may name. Building one assigns or checks values and does nothing else.
CLASSES = {
    "ntk_uq.architectures": _ARCHITECTURES,
    "ntk_uq.networks": ("FunctionPrior", "RandomFunctions"),
    "ntk_uq.likelihoods": _held_as_data(likelihoods),
    "ntk_uq.analytic": (
        "Component", "Discrepancy", "ExactPredictor", "FittedInfiniteEnsemble",
        "FittedLinearized", "FittedMixture", "FittedProcess", "GaussianPredictor", "NetworkDraws",
        "TangentDraws", "TangentGaussian", "_PerOutput", "_Shared",
    ),
    "ntk_uq.ensemble": ("FittedEnsemble", "TrainedEnsemble"),
    "ntk_uq.bayes": (
        "Diagnostics", "FittedNetworkLaplace", "GaussianProcessPrior", "NetworkLaplace",
        "NetworkPrior", "PosteriorDraws", "SampledPosterior",
    ),
    "ntk_uq.selection": ("Mixture", "RegCurve"),
    "ntk_uq.calibration": (
        "ConformalIntervals", "ConformalSets", "TemperatureFit", "TemperatureScaled", "Threshold",
    ),
    "ntk_uq.tables": ("Decisions", "TableEncoder", "TableModel"),
    "ntk_uq.estimators": (
        "NTKClassifier", "EnsembleClassifier", "BayesianClassifier",
        "NTKRegressor", "EnsembleRegressor", "BayesianRegressor",
    ),
    "ntk_uq.estimators.tails": ("CompressedTails",),
    "sklearn.compose": ("ColumnTransformer",),
    "sklearn.frozen": ("FrozenEstimator",),
    "sklearn.impute": ("MissingIndicator", "SimpleImputer"),
    "sklearn.pipeline": ("Pipeline",),
    "sklearn.preprocessing": (
        "MaxAbsScaler", "MinMaxScaler", "OneHotEncoder", "OrdinalEncoder", "RobustScaler",
        "StandardScaler",
    ),
}  # fmt: skip

# Where a class lives that its package does not show, or no longer; names in files stay.
_HOMES = {
    "ntk_uq.analytic._PerOutput": "ntk_uq.analytic.resolvent",
    "ntk_uq.analytic._Shared": "ntk_uq.analytic.resolvent",
    "ntk_uq.estimators.tails.CompressedTails": "ntk_uq.tables.tails",
    **{f"ntk_uq.architectures.{name}": "ntk_uq.networks" for name in _ARCHITECTURES},
}


def name_of(cls: type) -> str | None:
    """The name of a known class in a file; scikit-learn's are defined in private modules."""
    package = cls.__module__.partition(".")[0]
    for module, names in CLASSES.items():
        if module.partition(".")[0] == package and cls.__name__ in names:
            name = f"{module}.{cls.__name__}"
            return name if class_named(name) is cls else None
    return None


def class_named(name: str) -> type:
    """The class of a name in a file."""
    module, _, attribute = name.rpartition(".")
    if attribute not in CLASSES.get(module, ()):
        raise ValueError(f"unknown class {name}")
    return getattr(importlib.import_module(_HOMES.get(name, module)), attribute)

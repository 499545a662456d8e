"""In what the problems differ that the methods of a comparison solve."""

import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from ntk_uq._common.words import shown
from ntk_uq.compare.inputs import Prediction, final_step, seen_by_final
from ntk_uq.networks.architecture import BaseArchitecture


class ComparisonWarning(UserWarning):
    """The methods compared solve different problems."""


def differences_of(
    estimators: Mapping[str, Any], predictions: Mapping[str, Prediction], X: ArrayLike
) -> tuple[str, ...]:
    """Settings that make two problems of one, in sentences."""
    shown: dict[str, Callable[[str], Hashable]] = {
        "The architecture": lambda name: _architecture(final_step(estimators[name])),
        "reg": lambda name: _regularisation(final_step(estimators[name])),
        "label_smoothing": lambda name: getattr(
            final_step(estimators[name]), "label_smoothing", 0.0
        ),
        "class_weight": lambda name: repr(
            getattr(final_step(estimators[name]), "class_weight", None)
        ),
        "How often each label counts": lambda name: (
            f"{getattr(final_step(estimators[name]), 'label_weight_', 1.0):g}"
        ),
        "The prior": lambda name: getattr(final_step(estimators[name]), "prior", "ntk"),
        "The likelihood": lambda name: _likelihood(predictions[name]),
    }
    sentences = []
    for setting, value in shown.items():
        groups: dict[Hashable, list[str]] = {}
        for name in estimators:
            if (of_this := value(name)) is not None:
                groups.setdefault(of_this, []).append(name)
        if len(groups) > 1:
            parts = [f"{value} for {' and '.join(names)}" for value, names in groups.items()]
            sentences.append(f"{setting} is {', but '.join(parts)}.")
    sentences += _feature_differences(estimators, X)
    return tuple(sentences)


def _architecture(estimator: Any) -> str | None:
    """The network in the limit of infinite width, to which the width does not belong."""
    architecture = getattr(estimator, "architecture_", None)
    if architecture is None:
        return None
    mixture = getattr(estimator, "mixture_", None)
    if mixture is not None and len(mixture.components) > 1:
        parts = [f"{_limit(one.architecture)} by {one.weight:.3g}" for one in mixture.components]
        return f"a mixture, {' + '.join(parts)}"
    return _limit(architecture)


def _limit(architecture: BaseArchitecture) -> str:
    """An architecture in words without its width, also where it stands behind a map of inputs."""
    settings, words = architecture.get_params(), shown(architecture)
    inner = settings.get("network")
    if isinstance(inner, BaseArchitecture):
        return words.replace(shown(inner), _limit(inner))
    if "width" not in settings:
        return words
    parts = (f"{name}={shown(value)}" for name, value in settings.items() if name != "width")
    return f"{type(architecture).__name__}({', '.join(parts)})"


def _regularisation(estimator: Any) -> str | None:
    reg = getattr(estimator, "reg_", getattr(estimator, "reg", None))
    ignored = getattr(estimator, "prior", "ntk") != "ntk"
    return None if reg is None or ignored else f"{reg:.4g}"


def _likelihood(prediction: Prediction) -> str:
    noise = getattr(prediction.likelihood, "noise", None)
    name = type(prediction.likelihood).__name__
    if noise is None:
        return name
    return f"{name} with noise {', '.join(f'{value:.4g}' for value in np.ravel(noise))}"


def _feature_differences(estimators: Mapping[str, Any], X: ArrayLike) -> list[str]:
    """Whether networks see the same features: they may be scaled on the way."""
    sample = _safe_indexing(X, np.arange(min(_num_samples(X), 10)))
    seen: list[tuple[list[str], Any]] = []
    for name, estimator in estimators.items():
        final = final_step(estimator)
        if not hasattr(final, "_validated"):
            continue
        with warnings.catch_warnings():  # said before
            warnings.simplefilter("ignore")
            inputs = final._validated(seen_by_final(estimator, sample))
        inputs = inputs * getattr(getattr(final, "_fitted", None), "feature_scales", 1.0)
        for names, others in seen:
            if inputs.shape == others.shape and np.allclose(inputs, others, rtol=1e-6):
                names.append(name)
                break
        else:
            seen.append(([name], inputs))
    if len(seen) < 2:
        return []
    groups = "; ".join(" and ".join(names) for names, _ in seen)
    return [
        "The features that the networks see are scaled differently (without an architecture, an "
        f"estimator standardises them): {groups}."
    ]

"""What `compare` is given: estimators and pipelines, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

Prediction = GaussianPrediction | SamplePrediction


def final_step(estimator: Any) -> Any:
    """The estimator that predicts: a pipeline's last step."""
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def seen_by_final(estimator: Any, X: ArrayLike) -> Any:
    """What the last step of a pipeline sees."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X


def validated_classes(estimators: Mapping[str, Any], reference: str | None) -> NDArray | None:
    """Check the estimators and their names; return the classes that they share."""
    if not isinstance(estimators, Mapping):
        raise TypeError(
            "compare takes a dict of names and fitted estimators, such as "
            f'{{"ensemble": ensemble, "nuts": bayes}}, got {type(estimators).__name__}.'
        )
    if not estimators:
        raise ValueError("compare needs at least one fitted estimator, got an empty dict.")
    known: dict[str, NDArray | None] = {}
    for name, estimator in estimators.items():
        final = final_step(estimator)
        if not isinstance(name, str):
            raise TypeError(f"Names of methods must be strings, got {name!r}.")
        if not hasattr(final, "predict_distribution"):
            raise TypeError(
                f"{name!r} is a {type(final).__name__}, which has no predict_distribution; "
                "compare takes this package's classifiers or regressors, and pipelines that end "
                "in one."
            )
        if not (hasattr(final, "fit_seconds_") or hasattr(final, "classes_")):
            raise NotFittedError(f"{name!r} is not fitted: call its fit(X, y) first.")
        known[name] = np.asarray(final.classes_) if hasattr(final, "classes_") else None
    (first, shared), *others = known.items()
    for name, classes in others:
        if (classes is None) != (shared is None):
            regressor, classifier = (name, first) if classes is None else (first, name)
            raise ValueError(
                f"{regressor!r} is a regressor and {classifier!r} a classifier: compare each kind "
                "for itself."
            )
        if classes is not None and shared is not None and not np.array_equal(classes, shared):
            raise ValueError(
                f"The methods know different classes: {first!r} has {shared.tolist()}, "
                f"{name!r} has {classes.tolist()}. Fit all of them on the same targets."
            )
    if reference is not None and reference not in estimators:
        raise ValueError(f"reference={reference!r} names no method; there are {list(estimators)}.")
    return shared


def validated_targets(
    y_test: ArrayLike, n_points: int, classes: NDArray | None, prediction: Prediction
) -> NDArray:
    """Check labels or targets of the test points; a prediction says how many outputs there are."""
    y = np.asarray(y_test)
    if classes is None:
        outputs = prediction.mean.shape[1]
        shapes = [(n_points, outputs)] + [(n_points,)] * (outputs == 1)
        if y.shape not in shapes:
            raise ValueError(
                f"y_test must have shape {shapes[-1]}, one target for each row of X_test, "
                f"got {y.shape}."
            )
        return y
    if y.shape != (n_points,):
        raise ValueError(
            f"y_test must have shape ({n_points},), one label for each row of X_test, "
            f"got {y.shape}."
        )
    unknown = [label for label in np.unique(y).tolist() if label not in set(classes.tolist())]
    if unknown:
        raise ValueError(
            f"y_test holds labels that no method was trained on: {unknown[:5]}; "
            f"the classes are {classes.tolist()}."
        )
    return y

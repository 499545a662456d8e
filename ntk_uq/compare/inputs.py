"""What `compare` is given: estimators and pipelines, and what is wrong with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_samples

from ntk_uq.likelihoods import Categorical
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

Prediction = GaussianPrediction | SamplePrediction


class Given:
    """A prediction at the test points that somebody else made, in the place of an estimator."""

    # What is not known of it differs from nothing.
    label_smoothing = prior = None

    def __init__(self, prediction: Prediction, classes: NDArray | None):
        self._prediction = prediction
        if isinstance(prediction.likelihood, Categorical):
            outputs = prediction.mean.shape[1]
            self.classes_ = np.arange(outputs) if classes is None else classes
        else:
            self.fit_seconds_ = np.nan

    def __repr__(self) -> str:
        return f"a {type(self._prediction).__name__} that was given"

    def predict_distribution(self, X: ArrayLike) -> Prediction:
        """The prediction, if it is one at as many points."""
        n_points, predicted = _num_samples(X), len(self._prediction.mean)
        if n_points != predicted:
            raise ValueError(
                f"A prediction that is given is one at {predicted} points; X_test has {n_points}."
            )
        return self._prediction


def with_predictions(estimators: Any) -> Any:
    """Estimators, and what stands for the predictions among them."""
    if not isinstance(estimators, Mapping):
        return estimators  # is refused below
    known = [
        final_step(e).classes_ for e in estimators.values() if hasattr(final_step(e), "classes_")
    ]
    classes = np.asarray(known[0]) if known else None
    given: dict[Any, Any] = {}
    for name, estimator in estimators.items():
        is_prediction = isinstance(estimator, GaussianPrediction | SamplePrediction)
        given[name] = Given(estimator, classes) if is_prediction else estimator
        if is_prediction and classes is not None and len(classes) != estimator.mean.shape[1]:
            raise ValueError(
                f"The prediction {name!r} is of {estimator.mean.shape[1]} classes; the estimators "
                f"know {len(classes)}: {classes.tolist()}. Its columns are in their order."
            )
    return given


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
                "compare takes this package's classifiers or regressors, pipelines that end in "
                "one, and predictions, such as SamplePrediction.from_probabilities(...)."
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

"""The comparison: every method predicts, and every two are compared."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from itertools import combinations
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_array

from ntk_uq._common.warnings import UnseenWarning, unsaid, warn_once, warn_user
from ntk_uq.compare.comparison import Comparison
from ntk_uq.compare.inputs import (
    Prediction,
    final_step,
    seen_by_final,
    validated_classes,
    validated_targets,
    with_predictions,
)
from ntk_uq.compare.problems import ComparisonWarning, differences_of
from ntk_uq.compare.summary import summary_of
from ntk_uq.distances import Distance, PreparedPrediction, distances
from ntk_uq.predictions.distributions import SamplePrediction

# Latents (points times outputs) at which functions are drawn jointly: their covariance is factored.
_MOST_JOINT_LATENTS = 1000


@warn_once()
def compare(
    estimators: Mapping[str, Any],
    X_test: ArrayLike,
    y_test: ArrayLike | None = None,
    *,
    reference: str | None = None,
) -> Comparison:
    r"""Compare fitted classifiers, or fitted regressors, at the same test points.

    Parameters
    ----------
    estimators : dict of str to fitted estimator or prediction
        Names, and the methods that they stand for: objects with ``predict_distribution``,
        scikit-learn pipelines whose last step has it, or predictions at the test points, as
        `SamplePrediction.from_probabilities` makes them of another package's. Their columns are
        the classes in sorted order.
    X_test : array of shape [m, d]
        Test points, as a pipeline's first step takes them.
    y_test : array of shape [m], or [m, C] for regressors of several outputs, optional
        True labels or targets; without them there are no scores.
    reference : str, optional
        Name of the method to measure the others against, such as MCMC.

    Returns
    -------
    Comparison
        With ``.table``, ``.distance_table``, ``.plot()`` and ``.to_html(path)``.

    Raises
    ------
    TypeError
        If `estimators` is no dict of estimators that predict distributions.
    ValueError
        If there is none, their classes differ, classifiers and regressors are mixed, `reference`
        names none of them, or `y_test` does not fit.
    sklearn.exceptions.NotFittedError
        If one of them is not fitted.

    Warns
    -----
    ComparisonWarning
        If the methods solve different problems: another architecture (widths aside), `reg`, label
        smoothing, prior, likelihood or scale of the features. ``NTKClassifier()``, for example,
        chooses its own `reg` and depth.

    Notes
    -----
    Each distance comes with its Monte-Carlo standard error, and with its noise level, the value to
    expect of two methods of the same distribution; docs/theory, "Distance between two predictions",
    derives them. A difference beyond the noise level by more than two standard errors is called
    significant.

    Draws of one index may share random numbers, as they do where estimators have one
    `random_state` (0 by default): what they have in common cancels in a difference, and errors and
    noise levels are smaller. Nothing need be said about it: the errors are right with shared and
    with different seeds, for different numbers of draws too, since what goes together is added
    before it is squared. Draws of Markov chains are averaged first, in contiguous batches of at
    least ten autocorrelation times; where chains are too short for that, `MethodSummary.warnings`
    say so.

    Total variation, KL, Bures-Wasserstein and energy distance have standard errors by
    linearisation, uncertainties and their ranks by a bootstrap over batches of draws. All of them
    compare distributions at single points, but for the energy distance, which sees how points move
    together: functions are drawn jointly at up to 1000 / C test points.

    Examples
    --------
    >>> import numpy as np
    >>> import ntk_uq as nuq
    >>> X, y = np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0, 0, 1, 1])
    >>> net = nuq.MLP()
    >>> methods = {
    ...     "gaussian": nuq.NTKClassifier(net, reg=1.0, method="gaussian").fit(X, y),
    ...     "exact": nuq.NTKClassifier(net, reg=1.0, n_draws=64, random_state=0).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X, y, reference="exact")
    >>> comparison.table["accuracy"].to_dict()
    {'gaussian': 1.0, 'exact': 1.0}
    """
    estimators = with_predictions(estimators)
    classes = validated_classes(estimators, reference)
    if any(
        isinstance(estimator, Pipeline) or getattr(estimator, "encoder_", None) is not None
        for estimator in estimators.values()
    ):
        n_points = _num_samples(X_test)  # what else is right, its steps know, and tables
    else:
        n_points = len(check_array(X_test, allow_nd=True, estimator="compare", input_name="X_test"))

    predictions: dict[str, Prediction] = {}
    draws: dict[str, PreparedPrediction] = {}
    seconds: dict[str, float] = {}
    for name, estimator in estimators.items():
        start = perf_counter()
        prediction = final_step(estimator).predict_distribution(seen_by_final(estimator, X_test))
        if classes is not None:
            prediction.proba()
        seconds[name] = perf_counter() - start
        predictions[name] = prediction
        draws[name] = PreparedPrediction(prediction, _functions(estimator, X_test, prediction))
    if y_test is not None:
        y_test = validated_targets(y_test, n_points, classes, next(iter(predictions.values())))

    found: dict[tuple[str, str], Distance] = {}
    for a, b in combinations(draws, 2):
        found[a, b], found[b, a] = distances(draws[a], draws[b])
    differences = differences_of(estimators, predictions, X_test)
    if differences:
        warn_user(
            "The methods solve different problems, so that their distances are not those of the "
            f"methods alone. {' '.join(differences)}",
            ComparisonWarning,
        )
    return Comparison(
        methods={
            name: summary_of(estimator, draws[name], seconds[name])
            for name, estimator in estimators.items()
        },
        classes=classes,
        y_test=y_test,
        reference=reference,
        distances=found,
        differences=differences,
    )


def _functions(estimator: Any, X: ArrayLike, prediction: Prediction) -> Prediction | None:
    """The prediction jointly over points spread evenly over the test points, if it can be had."""
    m, outputs = prediction.mean.shape
    step = -(-m * outputs // _MOST_JOINT_LATENTS)
    if isinstance(prediction, SamplePrediction) and prediction.joint:
        return replace(prediction, samples=prediction.samples[:, ::step])
    predict = final_step(estimator).predict_distribution
    options = signature(predict).parameters.values()
    if not any(option.name == "joint" or option.kind is option.VAR_KEYWORD for option in options):
        return None
    with unsaid(UnseenWarning):  # of some of the points of which it has been said
        X = seen_by_final(estimator, _safe_indexing(X, np.arange(0, m, step)))
        return predict(X, joint=True)

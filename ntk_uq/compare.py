"""Where the producers meet: what they say about the same test points, and how far apart they are.

A difference between two methods counts only where it exceeds the Monte-Carlo error of their draws,
so every distance comes with its standard error and with the value that this error alone would give.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, rel_entr
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array

from ntk_uq.metrics import scores, total_variation
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

if TYPE_CHECKING:  # loads NumPyro
    from ntk_uq.bayes import Diagnostics

__all__ = ["Comparison", "Distance", "MethodSummary", "compare"]

Floats = NDArray[np.float64]
Prediction = GaussianPrediction | SamplePrediction


@dataclass(frozen=True)
class Distance:
    """Mean total variation between the class probabilities of two methods.

    Attributes
    ----------
    tv : float
        Total variation of the mean class probabilities, averaged over the test points.
    se : float
        Monte-Carlo standard error of `tv`, from the finite number of draws of both methods. The
        test points count as given: how `tv` varies over other test points is not in it.
    noise : float
        The value that `tv` would have on average if both methods had the same distribution and
        differed by Monte-Carlo error only.
    """

    tv: float
    se: float
    noise: float

    @property
    def is_significant(self) -> bool:
        """Whether `tv` exceeds its noise level by more than two standard errors."""
        return self.tv > self.noise + 2 * self.se


@dataclass(frozen=True, eq=False)
class MethodSummary:
    """What one method says about the m test points.

    Attributes
    ----------
    estimator : str
        The estimator with its settings, as Python code.
    proba, proba_mcse : array of shape [m, C]
        Mean class probabilities and their Monte-Carlo standard errors.
    latent_mean, latent_std : array of shape [m, C]
        Moments of the latents (logits).
    total_uncertainty, aleatoric, epistemic : array of shape [m]
        Entropy of the mean class probabilities, mean entropy, and their difference, in nats.
    epistemic_se : float
        Monte-Carlo standard error of the mean of `epistemic` over the test points, in nats.
    n_draws : int or None
        Draws that the prediction rests on; None for a closed form.
    fit_seconds, predict_seconds : float
        Wall-clock times of the fit and of the predictions at the test points.
    diagnostics : Diagnostics or None
        A sampler's ``diagnostics_``.
    warnings : tuple of str
        What is wrong with the fit, in sentences: a sampler's diagnostics, or training that did not
        converge. Empty where nothing is.
    """

    estimator: str
    proba: Floats
    proba_mcse: Floats
    latent_mean: Floats
    latent_std: Floats
    total_uncertainty: Floats
    aleatoric: Floats
    epistemic: Floats
    epistemic_se: float
    n_draws: int | None
    fit_seconds: float
    predict_seconds: float
    diagnostics: "Diagnostics | None"
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several methods on the same test points; made by `compare`.

    Attributes
    ----------
    methods : dict of str to MethodSummary
        What each method says, in the order in which they were given.
    classes : array of shape [C]
        The classes, in the order of the columns of all arrays.
    y_test : array of shape [m] or None
        True labels, where they are known.
    reference : str or None
        The method that the others are measured against.
    distances : dict
        The `Distance` of each pair of methods, by their names in the order of `methods`.
    """

    methods: dict[str, MethodSummary]
    classes: NDArray
    y_test: NDArray | None
    reference: str | None
    distances: dict[tuple[str, str], Distance]

    def distance(self, first: str, second: str) -> Distance:
        """Distance between two methods, in either order; zero from a method to itself.

        Parameters
        ----------
        first, second : str
            Names of the methods.

        Returns
        -------
        Distance
        """
        if first == second:
            return Distance(tv=0.0, se=0.0, noise=0.0)
        pair = (first, second)
        return self.distances[pair] if pair in self.distances else self.distances[pair[::-1]]

    @property
    def n_points(self) -> int:
        """Number of test points."""
        return len(next(iter(self.methods.values())).proba)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a method.

        ``accuracy``, ``log_loss`` (nats), ``brier``, ``ece``: as in `ntk_uq.metrics.scores`; only
        where `y_test` is known. ``total_uncertainty``, ``aleatoric``, ``epistemic``: means over
        the test points, in nats, with ``epistemic_se``, the Monte-Carlo standard error of the last.
        ``tv``, ``tv_se``, ``tv_noise``: see `Distance`; only where there is a reference, whose own
        row holds zeros. ``fit_seconds``, ``predict_seconds``: wall-clock times.
        """
        rows = {}
        for name, method in self.methods.items():
            row: dict[str, float] = {}
            if self.y_test is not None:
                row |= scores(self.y_test, method.proba, classes=self.classes)
            row |= {
                "total_uncertainty": float(method.total_uncertainty.mean()),
                "aleatoric": float(method.aleatoric.mean()),
                "epistemic": float(method.epistemic.mean()),
                "epistemic_se": method.epistemic_se,
            }
            if self.reference is not None:
                distance = self.distance(name, self.reference)
                row |= {"tv": distance.tv, "tv_se": distance.se, "tv_noise": distance.noise}
            row |= {"fit_seconds": method.fit_seconds, "predict_seconds": method.predict_seconds}
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "How sure may these predictions be?",
        about: Mapping[str, str] | None = None,
        run: Mapping[str, object] | None = None,
        images: ArrayLike | None = None,
    ) -> None:
        """Write a report: one HTML file with the table, pictures and a summary in words.

        The file needs no network and no scripts. It appears complete or not at all.

        Parameters
        ----------
        path : str or path
            Where to write; an existing file is replaced.
        title : str
            Heading of the report.
        about : mapping, optional
            What the methods are: a sentence for each name.
        run : mapping, optional
            Facts about the run that the estimators do not know, such as ``{"Data set": "digits",
            "Training points": 300}``; shown as given, in this order.
        images : array of shape [m, height, width] or [m, height, width, 3], optional
            The test points as pictures, shown beside the most uncertain predictions.

        Raises
        ------
        ValueError
            If `images` do not match the test points, or `about` names no method.
        OSError
            If the file cannot be written.
        """
        # The report reads comparisons, and matplotlib and jinja2 load only for it.
        from ntk_uq.report import write_report

        write_report(self, path, title=title, about=about or {}, run=run or {}, images=images)


def compare(
    estimators: Mapping[str, Any],
    X_test: ArrayLike,
    y_test: ArrayLike | None = None,
    *,
    reference: str | None = None,
) -> Comparison:
    r"""Compare fitted classifiers at the same test points.

    Parameters
    ----------
    estimators : dict of str to fitted classifier
        Names, and the methods that they stand for: objects with ``predict_distribution``.
    X_test : array of shape [m, d]
        Test points.
    y_test : array of shape [m], optional
        True labels; without them there are no scores.
    reference : str, optional
        Name of the method to measure the others against, such as MCMC.

    Returns
    -------
    Comparison
        With ``.table`` and ``.to_html(path)``.

    Raises
    ------
    TypeError
        If `estimators` is no dict of classifiers that predict distributions.
    ValueError
        If there is none, their classes differ, `reference` names none of them, or `y_test` does
        not fit.
    sklearn.exceptions.NotFittedError
        If one of them is not fitted.

    Notes
    -----
    With class probabilities p, q and their standard errors :math:`s = (s_p^2 + s_q^2)^{1/2}`, the
    noise level of :math:`\mathrm{TV} = \tfrac12 \sum_c |p_c - q_c|` is the mean of a half-normal
    variable, :math:`\tfrac12 \sum_c \sqrt{2/\pi}\, s_c`. The standard error of TV is that of its
    linearisation in the draws, with :math:`\mathrm{E}\,\mathrm{sign}(p_c - q_c)` estimated by
    :math:`\mathrm{erf}((p_c - q_c) / \sqrt2 s_c)` in place of the sign. Where the difference is
    clear this is the sign; where there is none it gives the standard deviation of a half-normal
    variable within 5%; between the two it is at most an eighth too small. Draws of Markov chains
    are averaged in contiguous batches first.

    Examples
    --------
    >>> import numpy as np
    >>> import ntk_uq as nuq
    >>> X, y = np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0, 0, 1, 1])
    >>> methods = {
    ...     "gaussian": nuq.NTKClassifier(method="gaussian").fit(X, y),
    ...     "exact": nuq.NTKClassifier(method="exact", n_draws=64, random_state=0).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X, y, reference="exact")
    >>> comparison.table["accuracy"].to_dict()
    {'gaussian': 1.0, 'exact': 1.0}
    """
    classes = _validated_classes(estimators, reference)
    n_points = len(check_array(X_test, allow_nd=True, estimator="compare", input_name="X_test"))
    if y_test is not None:
        y_test = _validated_targets(y_test, n_points, classes)

    predictions: dict[str, Prediction] = {}
    seconds: dict[str, float] = {}
    for name, estimator in estimators.items():
        start = perf_counter()
        predictions[name] = estimator.predict_distribution(X_test)
        predictions[name].proba()
        seconds[name] = perf_counter() - start

    return Comparison(
        methods={
            name: _summary(estimator, predictions[name], seconds[name])
            for name, estimator in estimators.items()
        },
        classes=classes,
        y_test=y_test,
        reference=reference,
        distances={
            (a, b): _distance(predictions[a], predictions[b])
            for a, b in combinations(predictions, 2)
        },
    )


def _summary(estimator: Any, prediction: Prediction, predict_seconds: float) -> MethodSummary:
    return MethodSummary(
        estimator=_as_code(estimator),
        proba=prediction.proba(),
        proba_mcse=prediction.proba_mcse(),
        latent_mean=prediction.mean,
        latent_std=prediction.std,
        total_uncertainty=prediction.total_uncertainty,
        aleatoric=prediction.aleatoric,
        epistemic=prediction.epistemic,
        epistemic_se=_epistemic_se(prediction),
        n_draws=len(prediction.samples) if isinstance(prediction, SamplePrediction) else None,
        fit_seconds=float(estimator.fit_seconds_),
        predict_seconds=predict_seconds,
        diagnostics=getattr(estimator, "diagnostics_", None),
        warnings=_warnings(estimator),
    )


def _warnings(estimator: Any) -> tuple[str, ...]:
    if hasattr(estimator, "diagnostics_"):
        return tuple(estimator.diagnostics_.warnings)
    converged = np.atleast_1d(getattr(estimator, "converged_", True))
    if converged.all():
        return ()
    return (
        f"{np.sum(~converged)} of {converged.size} networks stopped before they reached their "
        "minimum, so the spread of the ensemble is not that of trained networks alone.",
    )


def _distance(first: Prediction, second: Prediction) -> Distance:
    p, q = first.proba(), second.proba()
    scale = np.hypot(first.proba_mcse(), second.proba_mcse())
    # A prediction without error has scale 0: the sign of the difference is then known.
    mean_sign = erf((p - q) / (np.sqrt(2) * np.maximum(scale, np.finfo(np.float64).tiny)))

    def linearised(draws: Floats, points: slice) -> Floats:
        return 0.5 * (draws * mean_sign[points]).sum(axis=-1)

    return Distance(
        tv=float(total_variation(p, q).mean()),
        se=float(np.hypot(first.mean_mcse(linearised), second.mean_mcse(linearised))),
        noise=float(0.5 * np.sqrt(2 / np.pi) * scale.sum(axis=1).mean()),
    )


def _epistemic_se(prediction: Prediction) -> float:
    """Monte-Carlo standard error of the mean epistemic uncertainty.

    The mutual information is the mean over draws of KL(p_draw || mean p), and is stationary in the
    mean p: its error is that of this average.
    """
    mean = prediction.proba()
    return prediction.mean_mcse(lambda draws, points: rel_entr(draws, mean[points]).sum(axis=-1))


def _as_code(estimator: Any) -> str:
    if not hasattr(estimator, "get_params"):
        return repr(estimator)
    settings = estimator.get_params(deep=False)
    settings.pop("progress", None)
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"{type(estimator).__name__}({arguments})"


def _validated_classes(estimators: Mapping[str, Any], reference: str | None) -> NDArray:
    """Check the estimators and their names; return the classes that they share."""
    if not isinstance(estimators, Mapping):
        raise TypeError(
            "compare takes a dict of names and fitted classifiers, such as "
            f'{{"ensemble": ensemble, "nuts": bayes}}, got {type(estimators).__name__}.'
        )
    if not estimators:
        raise ValueError("compare needs at least one fitted classifier, got an empty dict.")
    shared: tuple[str, NDArray] | None = None
    for name, estimator in estimators.items():
        if not isinstance(name, str):
            raise TypeError(f"Names of methods must be strings, got {name!r}.")
        if not hasattr(estimator, "predict_distribution"):
            raise TypeError(
                f"{name!r} is a {type(estimator).__name__}, which has no predict_distribution; "
                "compare takes EnsembleClassifier, NTKClassifier and BayesianClassifier."
            )
        if not hasattr(estimator, "classes_"):
            raise NotFittedError(f"{name!r} is not fitted: call its fit(X, y) first.")
        classes = np.asarray(estimator.classes_)
        shared = shared or (name, classes)
        if not np.array_equal(classes, shared[1]):
            raise ValueError(
                f"The methods know different classes: {shared[0]!r} has {shared[1].tolist()}, "
                f"{name!r} has {classes.tolist()}. Fit all of them on the same targets."
            )
    if reference is not None and reference not in estimators:
        raise ValueError(f"reference={reference!r} names no method; there are {list(estimators)}.")
    assert shared is not None
    return shared[1]


def _validated_targets(y_test: ArrayLike, n_points: int, classes: NDArray) -> NDArray:
    y = np.asarray(y_test)
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

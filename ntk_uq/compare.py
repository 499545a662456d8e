"""Where the producers meet: what they say about the same test points, and how far apart they are.

A difference between two methods counts only where it exceeds the Monte-Carlo error of their draws,
so every distance comes with its standard error and with the value that this error alone would give.
"""

import os
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from itertools import combinations
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_array

from ntk_uq.distances import ZERO_DISTANCE, Distance, Draws, Estimate, distances
from ntk_uq.metrics import regression_scores, scores
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

if TYPE_CHECKING:  # load matplotlib and NumPyro
    from matplotlib.figure import Figure

    from ntk_uq.bayes.convergence import Diagnostics
    from ntk_uq.report import RegChoice

__all__ = ["Comparison", "ComparisonWarning", "Distance", "Estimate", "MethodSummary", "compare"]

Floats = NDArray[np.float64]
Prediction = GaussianPrediction | SamplePrediction

# Latents (points times outputs) at which functions are drawn jointly: their covariance is factored.
_MOST_JOINT_LATENTS = 1000
# Columns of `Comparison.table`, and the distances that they show.
_DISTANCES = {
    "tv": "tv",
    "kl": "kl",
    "bures_wasserstein": "bures_wasserstein",
    "energy": "energy",
    "epistemic_ratio": "epistemic_ratio",
    "rank_correlation": "rank_correlation",
    "rejection_agreement": "rejected_20",
}


class ComparisonWarning(UserWarning):
    """The methods compared solve different problems."""


@dataclass(frozen=True, eq=False)
class MethodSummary:
    """What one method says about the m test points.

    Attributes
    ----------
    estimator : str
        The estimator with its settings, as Python code.
    proba, proba_mcse : array of shape [m, C]
        Mean class probabilities and their Monte-Carlo standard errors; [m, 0] for a regressor.
    latent_mean, latent_std : array of shape [m, C]
        Moments of the latents (logits; for a regressor the function, in units of the target).
    target_std : array of shape [m, C]
        For a regressor, standard deviation of a new observation; [m, 0] for a classifier.
    total_uncertainty, aleatoric, epistemic : array of shape [m]
        Entropy of the mean class probabilities, mean entropy, and their difference, in nats. For a
        regressor, standard deviations in units of the target: of a new observation, of its noise,
        and of the function; over several outputs the root of the summed squares.
    epistemic_se : float
        Monte-Carlo standard error of the mean of `epistemic` over the test points.
    n_draws : int or None
        Draws that the prediction rests on; None for a closed form.
    n_effective : float
        Independent draws that would give the same Monte-Carlo errors; NaN for a closed form.
    fit_seconds, predict_seconds : float
        Wall-clock times of the fit (NaN where it was not measured) and of the predictions at the
        test points.
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
    target_std: Floats
    total_uncertainty: Floats
    aleatoric: Floats
    epistemic: Floats
    epistemic_se: float
    n_draws: int | None
    n_effective: float
    fit_seconds: float
    predict_seconds: float
    diagnostics: "Diagnostics | None"
    warnings: tuple[str, ...]

    @property
    def effective_per_second(self) -> float:
        """Effective draws a second of fitting and predicting; NaN for a closed form."""
        return self.n_effective / (self.fit_seconds + self.predict_seconds)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several methods on the same test points; made by `compare`.

    Attributes
    ----------
    methods : dict of str to MethodSummary
        What each method says, in the order in which they were given.
    classes : array of shape [C] or None
        The classes, in the order of the columns of all arrays; None for regressors.
    y_test : array of shape [m] or None
        True labels or targets, where they are known.
    reference : str or None
        The method that the others are measured against.
    distances : dict
        The `Distance` of every method from every other, by their names.
    differences : tuple of str
        In what the problems differ that the methods solve, in sentences; empty where they do not.

    Examples
    --------
    >>> import numpy as np
    >>> import ntk_uq as nuq
    >>> X, y = np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0, 0, 1, 1])
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X, reference="posterior")
    >>> bool(comparison.distance("networks", "posterior").epistemic_ratio.value < 1)
    True
    """

    methods: dict[str, MethodSummary]
    classes: NDArray | None
    y_test: NDArray | None
    reference: str | None
    distances: dict[tuple[str, str], Distance]
    differences: tuple[str, ...] = ()

    def distance(self, first: str, second: str) -> Distance:
        """Distance of one method from another; that of a method from itself is zero.

        Parameters
        ----------
        first, second : str
            Names of the methods. `kl` and `epistemic_ratio` depend on their order.

        Returns
        -------
        Distance
        """
        for name in (first, second):
            if name not in self.methods:
                raise ValueError(f"No method is named {name!r}; there are {list(self.methods)}.")
        return ZERO_DISTANCE if first == second else self.distances[first, second]

    @property
    def n_points(self) -> int:
        """Number of test points."""
        return len(next(iter(self.methods.values())).latent_mean)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a method.

        Only where `y_test` is known: ``accuracy``, ``log_loss`` (nats), ``brier``, ``ece``, as in
        `ntk_uq.metrics.scores`; for regressors ``rmse``, ``crps``, ``nlpd`` (nats), as in
        `ntk_uq.metrics.regression_scores`.

        ``total_uncertainty``, ``aleatoric``, ``epistemic``: means over the test points, with
        ``epistemic_se``, the Monte-Carlo standard error of the last; see `MethodSummary`.

        Only where there is a reference, how far the method is from it, with standard errors
        (``_se``): ``tv``, with ``tv_noise``, what Monte-Carlo error alone would give; ``kl``,
        ``bures_wasserstein``, ``energy``, ``epistemic_ratio``, ``rank_correlation``, and
        ``rejection_agreement``, the common fraction of the 20% most uncertain points; see
        `Distance`, and `distance_table` for the noise level of each.

        ``n_effective``, ``effective_per_second``: independent draws that give the same Monte-Carlo
        error, and how many of them a second of fitting and predicting gives; NaN for a closed form.
        ``fit_seconds``, ``predict_seconds``: wall-clock times.
        """
        rows = {}
        for name, method in self.methods.items():
            row: dict[str, float] = {}
            if self.y_test is not None:
                row |= self._scores(method)
            row |= {
                "total_uncertainty": float(method.total_uncertainty.mean()),
                "aleatoric": float(method.aleatoric.mean()),
                "epistemic": float(method.epistemic.mean()),
                "epistemic_se": method.epistemic_se,
            }
            if self.reference is not None:
                distance = self.distance(name, self.reference)
                for column, measure in self._measures.items():
                    estimate = getattr(distance, measure)
                    row |= {column: estimate.value, f"{column}_se": estimate.se}
                    if column == "tv":
                        row["tv_noise"] = estimate.noise
            row |= {
                "n_effective": method.n_effective,
                "effective_per_second": method.effective_per_second,
                "fit_seconds": method.fit_seconds,
                "predict_seconds": method.predict_seconds,
            }
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

    @cached_property
    def distance_table(self) -> pd.DataFrame:
        """Which differences are beyond Monte-Carlo error: one row a pair of methods and a measure.

        Of every method from the reference or, without one, of all pairs. ``value``, ``se``,
        ``noise`` and ``significant`` are those of `Estimate`.
        """
        if self.reference is None:
            pairs = list(combinations(self.methods, 2))
        else:
            pairs = [(name, self.reference) for name in self.methods if name != self.reference]
        rows: dict[tuple[str, str, str], dict[str, float | bool]] = {}
        for first, second in pairs:
            for measure in self._all_measures:
                estimate = getattr(self.distance(first, second), measure)
                rows[first, second, measure] = {
                    "value": estimate.value,
                    "se": estimate.se,
                    "noise": estimate.noise,
                    "significant": estimate.is_significant,
                }
        index = pd.MultiIndex.from_tuples(rows, names=["method", "from", "measure"])
        return pd.DataFrame(list(rows.values()), index=index)

    @property
    def _measures(self) -> dict[str, str]:
        hidden = () if self.classes is not None else ("tv", "kl")
        return {column: name for column, name in _DISTANCES.items() if column not in hidden}

    @property
    def _all_measures(self) -> list[str]:
        return [*self._measures.values(), "rejected_10"]

    def _scores(self, method: MethodSummary) -> dict[str, float]:
        assert self.y_test is not None
        if self.classes is not None:
            return scores(self.y_test, method.proba, classes=self.classes)
        targets = self.y_test.reshape(method.latent_mean.shape)
        found = [
            regression_scores(y, mean, std)
            for y, mean, std in zip(
                targets.T, method.latent_mean.T, method.target_std.T, strict=True
            )
        ]
        # Means over the outputs.
        return {
            name: float(np.mean([one[name] for one in found])) for name in ("rmse", "crps", "nlpd")
        }

    def plot(self) -> "Figure":
        """Draw how far the methods are from the reference, in every respect.

        Returns
        -------
        matplotlib.figure.Figure
            One panel a measure: a method's value with two standard errors, filled where it is
            beyond the value that Monte-Carlo error alone would give, which a tick marks.

        Raises
        ------
        ValueError
            If there is no reference, or no other method.
        """
        # Matplotlib is large, and most comparisons are not drawn.
        from ntk_uq.plots import plot_comparison

        return plot_comparison(self)

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "How sure may these predictions be?",
        about: Mapping[str, str] | None = None,
        run: Mapping[str, object] | None = None,
        images: ArrayLike | None = None,
        reg: "RegChoice | None" = None,
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
        reg : RegChoice, optional
            How the regularisation that the methods share was chosen; see `ntk_uq.report`.

        Raises
        ------
        ValueError
            If `images` do not match the test points, `about` names no method, or the methods are
            regressors.
        OSError
            If the file cannot be written.
        """
        from ntk_uq.report import write_report

        write_report(
            self, path, title=title, about=about or {}, run=run or {}, images=images, reg=reg
        )


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
    estimators : dict of str to fitted estimator
        Names, and the methods that they stand for: objects with ``predict_distribution``, or
        scikit-learn pipelines whose last step has it.
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
    >>> methods = {
    ...     "gaussian": nuq.NTKClassifier(method="gaussian").fit(X, y),
    ...     "exact": nuq.NTKClassifier(method="exact", n_draws=64, random_state=0).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X, y, reference="exact")
    >>> comparison.table["accuracy"].to_dict()
    {'gaussian': 1.0, 'exact': 1.0}
    """
    classes = _validated_classes(estimators, reference)
    if any(isinstance(estimator, Pipeline) for estimator in estimators.values()):
        n_points = _num_samples(X_test)  # what else is right, its steps know
    else:
        n_points = len(check_array(X_test, allow_nd=True, estimator="compare", input_name="X_test"))

    predictions: dict[str, Prediction] = {}
    draws: dict[str, Draws] = {}
    seconds: dict[str, float] = {}
    for name, estimator in estimators.items():
        start = perf_counter()
        prediction = _final(estimator).predict_distribution(_transformed(estimator, X_test))
        if classes is not None:
            prediction.proba()
        seconds[name] = perf_counter() - start
        predictions[name] = prediction
        draws[name] = Draws(prediction, _functions(estimator, X_test, prediction))
    if y_test is not None:
        y_test = _validated_targets(y_test, n_points, classes, next(iter(predictions.values())))

    found: dict[tuple[str, str], Distance] = {}
    for a, b in combinations(draws, 2):
        found[a, b], found[b, a] = distances(draws[a], draws[b])
    differences = _differences(estimators, predictions, X_test)
    if differences:
        warnings.warn(
            "The methods solve different problems, so that their distances are not those of the "
            f"methods alone. {' '.join(differences)}",
            ComparisonWarning,
            stacklevel=2,
        )
    return Comparison(
        methods={
            name: _summary(estimator, draws[name], seconds[name])
            for name, estimator in estimators.items()
        },
        classes=classes,
        y_test=y_test,
        reference=reference,
        distances=found,
        differences=differences,
    )


def _final(estimator: Any) -> Any:
    """The estimator that predicts: a pipeline's last step."""
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def _transformed(estimator: Any, X: ArrayLike) -> Any:
    """What the last step of a pipeline sees."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X


def _functions(estimator: Any, X: ArrayLike, prediction: Prediction) -> Prediction | None:
    """The prediction jointly over points spread evenly over the test points, if it can be had."""
    m, outputs = prediction.mean.shape
    step = -(-m * outputs // _MOST_JOINT_LATENTS)
    if isinstance(prediction, SamplePrediction) and prediction.joint:
        return replace(prediction, samples=prediction.samples[:, ::step])
    predict = _final(estimator).predict_distribution
    options = signature(predict).parameters.values()
    if not any(option.name == "joint" or option.kind is option.VAR_KEYWORD for option in options):
        return None
    X = _transformed(estimator, _safe_indexing(X, np.arange(0, m, step)))
    return predict(X, joint=True)


def _summary(estimator: Any, draws: Draws, predict_seconds: float) -> MethodSummary:
    prediction, final = draws.prediction, _final(estimator)
    proba = mcse = target_std = np.empty((len(prediction.mean), 0))
    if draws.is_classifier:
        proba, mcse = draws.proba, draws.mcse
        total, epistemic = prediction.total_uncertainty, prediction.epistemic
        aleatoric, epistemic_se = prediction.aleatoric, _epistemic_se(prediction)
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


def _differences(
    estimators: Mapping[str, Any], predictions: Mapping[str, Prediction], X: ArrayLike
) -> tuple[str, ...]:
    """Settings that make two problems of one, in sentences."""
    shown: dict[str, Callable[[str], Hashable]] = {
        "The architecture": lambda name: _architecture(_final(estimators[name])),
        "reg": lambda name: _regularisation(_final(estimators[name])),
        "label_smoothing": lambda name: getattr(_final(estimators[name]), "label_smoothing", 0.0),
        "The prior": lambda name: getattr(_final(estimators[name]), "prior", "ntk"),
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
    if hasattr(architecture, "width"):
        architecture = replace(architecture, width=type(architecture).width)
    return repr(architecture)


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
        final = _final(estimator)
        if not hasattr(final, "_inputs"):
            continue
        inputs = final._inputs(np.asarray(_transformed(estimator, sample), dtype=np.float64))
        inputs = inputs * getattr(final, "feature_scales_", 1.0)
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


def _epistemic_se(prediction: Prediction) -> float:
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
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"{type(estimator).__name__}({arguments})"


def _validated_classes(estimators: Mapping[str, Any], reference: str | None) -> NDArray | None:
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
        final = _final(estimator)
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


def _validated_targets(
    y_test: ArrayLike, n_points: int, classes: NDArray | None, prediction: Prediction
) -> NDArray:
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

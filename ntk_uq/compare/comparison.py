"""Several methods on the same test points: what `compare` returns."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.words import in_a_line
from ntk_uq.compare.columns import COLUMNS, Column
from ntk_uq.distances import Distance
from ntk_uq.distances.measures import MEASURES, ZERO_DISTANCE, Measure
from ntk_uq.metrics import regression_scores, scores

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from matplotlib.figure import Figure

    from ntk_uq.bayes.convergence import Diagnostics
    from ntk_uq.report import RegChoice


Floats = NDArray[np.float64]


@in_a_line
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


@in_a_line
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
        (``_se``): the measures of `Distance`, among which ``tv_noise`` is the distance that
        Monte-Carlo error alone would give, and ``rejection_agreement`` is `rejected_20`. For
        `rejected_10` and the noise level of each, see `distance_table`.

        ``n_effective``, ``effective_per_second``: independent draws that give the same Monte-Carlo
        error, and how many of them a second of fitting and predicting gives; NaN for a closed form.
        ``fit_seconds``, ``predict_seconds``: wall-clock times.
        """
        rows = {}
        for name in self.methods:
            row: dict[str, float] = {}
            for column in self.columns:
                row[column.name] = column.value(self, name)
                if column.se is not None:
                    row[f"{column.name}_se"] = column.se(self, name)
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
            for measure in self.measures:
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
    def columns(self) -> list[Column]:
        """What `table` shows: those that are known here."""
        return [column for column in COLUMNS if column.is_known(self)]

    @property
    def measures(self) -> dict[str, Measure]:
        """The measures of `Distance` that these methods have, by name."""
        return {
            name: measure
            for name, measure in MEASURES.items()
            if self.classes is not None or not measure.classes_only
        }

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """Scores of each method against `y_test`; for regressors, means over the outputs."""
        if self.y_test is None:
            return {}
        found = {}
        for name, method in self.methods.items():
            if self.classes is not None:
                found[name] = scores(self.y_test, method.proba, classes=self.classes)
                continue
            targets = self.y_test.reshape(method.latent_mean.shape)
            columns = zip(targets.T, method.latent_mean.T, method.target_std.T, strict=True)
            outputs = [regression_scores(*arrays) for arrays in columns]
            found[name] = {
                score: float(np.mean([one[score] for one in outputs])) for score in outputs[0]
            }
        return found

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

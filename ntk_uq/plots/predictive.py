"""Pictures of one method's predictions: over two features, and against a law."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntk_uq._common.cells import check_numbers
from ntk_uq.plots.style import UNCERTAINTIES, axes_or_new, equal_axes, style_of

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction


def plot_uncertainty_map(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    measure: Literal["epistemic", "aleatoric", "total_uncertainty", "std"] = "epistemic",
    n_grid: int = 60,
    ax: Axes | None = None,
) -> Axes:
    """Uncertainty over two features, with the data and where the predicted class changes.

    Parameters
    ----------
    estimator : fitted estimator
        With `predict_distribution`, fitted to two features.
    X : array or DataFrame of shape [n, 2]
        Points to draw, such as the training data; a DataFrame's columns name the axes. The map
        covers their range and a fifth more on each side.
    y : array of shape [n], optional
        Labels of the points, for classifiers.
    measure : {"epistemic", "aleatoric", "total_uncertainty", "std"}
        In nats; "std", for regression, is the standard deviation of the latent function, in the
        target's unit, the largest of the outputs.
    n_grid : int
        The map has this many points along each feature.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there are not two features, or the measure is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import numpy as np
    >>> from ntk_uq import NTKClassifier
    >>> X, y = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), ["a", "b", "b"]
    >>> clf = NTKClassifier(reg=1.0, method="gaussian").fit(X, y)
    >>> plot_uncertainty_map(clf, X, y, n_grid=5, ax=Figure().subplots()).get_xlabel()
    'Feature 0'
    """
    measures = {**UNCERTAINTIES, "std": "Standard deviation of the latent"}
    if measure not in measures:
        raise ValueError(f"measure must be one of {list(measures)}, got {measure!r}.")
    columns = X.columns if isinstance(X, pd.DataFrame) else ["Feature 0", "Feature 1"]
    if np.ndim(X) != 2 or np.shape(X)[1] != 2:
        raise ValueError(f"A map needs X of shape [n, 2], got {np.shape(X)}.")
    check_numbers("X", X)
    points = np.asarray(X, dtype=np.float64)
    labels = None if y is None else np.asarray(y)
    if labels is not None and labels.shape != points.shape[:1]:
        raise ValueError(f"y must have shape {points.shape[:1]} as X has rows, got {labels.shape}.")

    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.2 * np.where(high > low, high - low, 1.0)
    sides = [np.linspace(*ends, n_grid) for ends in zip(low - margin, high + margin, strict=True)]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    # A table where it was fitted to a table: scikit-learn warns of features without their names.
    table = pd.DataFrame(grid, columns=X.columns) if isinstance(X, pd.DataFrame) else grid
    prediction = estimator.predict_distribution(table)
    value = prediction.std.max(axis=1) if measure == "std" else getattr(prediction, measure)
    is_classifier = hasattr(estimator, "classes_")

    ax = axes_or_new(ax)
    image = ax.pcolormesh(
        *sides,
        value.reshape(n_grid, n_grid),
        cmap="Purples",
        vmin=0,
        shading="gouraud",
        rasterized=True,
    )
    unit = "" if measure == "std" else " (nats)"
    ax.figure.colorbar(image, ax=ax, label=measures[measure] + unit)
    if is_classifier:
        for lead in _leads(prediction.proba()):
            ax.contour(
                *sides, lead.reshape(n_grid, n_grid), levels=[0], colors="black", linewidths=1
            )
    groups = (
        [(None, np.ones(len(points), bool))]
        if labels is None or not is_classifier
        else [(label, labels == label) for label in estimator.classes_]
    )
    for position, (label, chosen) in enumerate(groups):
        colour, marker = style_of(position)
        ax.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=22,
            color=colour if label is not None else "black",
            marker=marker,
            edgecolor="white",
            linewidth=0.7,
            label=label,
        )
    if labels is not None and is_classifier:
        ax.legend(loc="upper left", framealpha=0.9, handletextpad=0.2, borderpad=0.3)
    ax.set(
        xlim=sides[0][[0, -1]],
        ylim=sides[1][[0, -1]],
        xlabel=str(columns[0]),
        ylabel=str(columns[1]),
    )
    return ax


def plot_latent_law(
    prediction: "SamplePrediction",
    theory: "GaussianPrediction",
    point: int = 0,
    output: int = 0,
    *,
    kind: Literal["histogram", "qq"] = "histogram",
    ax: Axes | None = None,
) -> Axes:
    """Draws of one latent, such as an ensemble's members, against the Gaussian of theory.

    Parameters
    ----------
    prediction : SamplePrediction
        The draws: independent ones.
    theory : GaussianPrediction
        At the same points.
    point, output : int
        Which latent: row number of the test point, column of the output.
    kind : {"histogram", "qq"}
        A histogram under the density, or quantiles against quantiles with a band that holds each of
        them in 95% of such samples if the theory is right.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        The title has the p-value of Kolmogorov and Smirnov's test.

    Raises
    ------
    ValueError
        If shapes differ, there is no such latent, or `kind` is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import jax, numpy as np
    >>> from ntk_uq import GaussianPrediction, SamplePrediction
    >>> theory = GaussianPrediction(np.zeros((1, 2)), np.eye(2)[None])
    >>> draws = SamplePrediction(theory.sample(jax.random.key(0), 100))
    >>> plot_latent_law(draws, theory, kind="qq", ax=Figure().subplots()).get_xlabel()
    'Quantiles of theory'
    """
    if kind not in ("histogram", "qq"):
        raise ValueError(f'kind must be "histogram" or "qq", got {kind!r}.')
    shape = theory.mean.shape
    if prediction.mean.shape != shape:
        raise ValueError(
            "Both must predict the same points and outputs, got latents of shape "
            f"{prediction.mean.shape} and {shape}."
        )
    if not (0 <= point < shape[0] and 0 <= output < shape[1]):
        raise ValueError(
            f"There are {shape[0]} points and {shape[1]} outputs, counted from 0; got point "
            f"{point}, output {output}."
        )
    draws = np.sort(prediction.samples[:, point, output])
    law = stats.norm(theory.mean[point, output], theory.std[point, output])
    p_value = stats.kstest(draws, law.cdf).pvalue
    n = len(draws)

    ax = axes_or_new(ax)
    colour, _ = style_of(0)
    if kind == "histogram":
        ax.hist(
            draws,
            bins="auto",
            density=True,
            color=colour,
            alpha=0.55,
            edgecolor="white",
            label=f"{n} draws",
        )
        x = np.linspace(min(draws[0], law.ppf(0.001)), max(draws[-1], law.ppf(0.999)), 200)
        ax.plot(x, law.pdf(x), color="black", linewidth=1.4, label="theory")
        ax.set(xlabel="Latent", ylabel="Density")
        ax.legend(frameon=False, handlelength=1.2)
    else:
        rank = np.arange(1, n + 1)
        expected = law.ppf((rank - 0.5) / n)
        # The k-th smallest of n uniforms is Beta(k, n + 1 - k).
        lower, upper = (law.ppf(stats.beta.ppf(q, rank, n + 1 - rank)) for q in (0.025, 0.975))
        ax.fill_between(expected, lower, upper, color="0.88", label="95% band")
        ax.plot(expected, draws, "o", markersize=3, color=colour, label=f"{n} draws")
        ends = np.array([expected, draws])
        margin = 0.04 * np.ptp(ends)
        equal_axes(ax, ends.min() - margin, ends.max() + margin)
        ax.set(xlabel="Quantiles of theory", ylabel="Ordered draws of the latent")
        ax.legend(frameon=False, loc="upper left", handlelength=1.2)
    ax.set_title(f"Point {point}, output {output}: p = {p_value:.2g}")
    return ax


def _leads(proba: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Lead of each class over the best of the others; with two classes one says it."""
    leads = []
    for c in range(proba.shape[1] if proba.shape[1] > 2 else 1):
        leads.append(proba[:, c] - np.delete(proba, c, axis=1).max(axis=1))
    return leads

"""Pictures of results: ``plot_x(result, ..., *, ax=None) -> Axes``.

Each draws what a comparison, a curve of `metrics` or a fitted estimator holds, computes nothing
that is not in its title, and never shows a window. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart, and every method has its own marker besides, for print in black
and white. Where a plot takes one result, it takes a dict of them too, and draws one line for each.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntk_uq._common.checks import count, numbers
from ntk_uq.metrics import (
    CoverageCurve,
    Detection,
    RejectionCurve,
    ReliabilityCurve,
    reliability_curve,
)

if TYPE_CHECKING:  # loads NumPyro, or draws itself by what is here
    from xarray import DataTree

    from ntk_uq.bayes.convergence import Diagnostics
    from ntk_uq.calibration import TemperatureFit
    from ntk_uq.compare import Comparison, MethodSummary
    from ntk_uq.distances import Estimate
    from ntk_uq.lazy import Laziness
    from ntk_uq.predictions import GaussianPrediction, SamplePrediction
    from ntk_uq.selection import RegCurve

__all__ = [
    "method_style",
    "most_uncertain",
    "plot_comparison",
    "plot_coverage",
    "plot_detection",
    "plot_diagnostics",
    "plot_latent_law",
    "plot_latents",
    "plot_laziness",
    "plot_pit",
    "plot_probabilities",
    "plot_reg_curve",
    "plot_rejection",
    "plot_reliability",
    "plot_temperature",
    "plot_trace",
    "plot_uncertainty",
    "plot_uncertainty_map",
]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHED: dict[str, Any] = {"color": "0.45", "linewidth": 1, "linestyle": (0, (4, 3))}
# More classes than these do not fit beside each other.
_MAX_CLASSES = 10
_MEASURES = {
    "epistemic": "Epistemic uncertainty",
    "aleatoric": "Aleatoric uncertainty",
    "total_uncertainty": "Total uncertainty",
}
# Panels of `plot_comparison`.
_TITLES = {
    "tv": "Total variation",
    "kl": "KL divergence (nats)",
    "bures_wasserstein": "Latents: Bures-Wasserstein",
    "energy": "Functions: energy distance",
    "epistemic_ratio": "Epistemic: ratio",
    "rank_correlation": "Epistemic: rank correlation",
    "rejected_20": "Common among rejected 20%",
    "rejected_10": "Common among rejected 10%",
}
_LAZINESS = {
    "kernel_change": "Relative change of the tangent kernel",
    "parameter_distance": "Distance of the parameters from their start",
    "linearisation_error": "Largest distance from the linearised network",
    "largest_output": "Largest output",
}


def method_style(comparison: "Comparison", method: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every picture of a comparison.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    method : str
        Name of one of its methods.

    Returns
    -------
    colour, marker : str

    Examples
    --------
    >>> import ntk_uq as nuq
    >>> X, y = [[-1.0], [-0.5], [0.5], [1.0]], [0, 0, 1, 1]
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X)
    >>> len({method_style(comparison, method) for method in methods})
    2
    """
    _method(comparison, method)
    return _style(list(comparison.methods).index(method))


def most_uncertain(comparison: "Comparison", n: int) -> NDArray[np.intp]:
    """Test points with the largest total uncertainty, the largest first.

    Parameters
    ----------
    comparison : Comparison
        The reference's uncertainty decides or, without a reference, the first method's.
    n : int
        Number of points; all of them where there are fewer.

    Returns
    -------
    array of shape [min(n, m)]
        Row numbers of the test points.

    Examples
    --------
    >>> import ntk_uq as nuq
    >>> X, y = [[-1.0], [-0.5], [0.5], [1.0]], [0, 0, 1, 1]
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, [[-2.0], [0.0], [2.0]])
    >>> most_uncertain(comparison, 1)
    array([1])
    """
    method = comparison.methods[comparison.reference or next(iter(comparison.methods))]
    return np.argsort(-method.total_uncertainty, kind="stable")[:n]


def plot_comparison(comparison: "Comparison") -> Figure:
    """How far the methods are from the reference, in every respect.

    Parameters
    ----------
    comparison : Comparison
        A comparison with a reference.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a measure: a method's value with two standard errors, filled where it is beyond
        the value that Monte-Carlo error alone would give, which a tick marks.

    Raises
    ------
    ValueError
        If there is no reference, or no other method.

    Examples
    --------
    >>> import ntk_uq as nuq
    >>> X, y = [[-1.0], [-0.5], [0.5], [1.0]], [0, 0, 1, 1]
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> figure = plot_comparison(nuq.compare(methods, X, reference="posterior"))
    >>> figure.axes[0].get_title()
    'Total variation'
    """
    reference = comparison.reference
    if reference is None or len(comparison.methods) < 2:
        raise ValueError(
            "Distances are drawn from a reference: call compare with reference= and two "
            "methods or more."
        )
    names = [name for name in comparison.methods if name != reference]
    panels = {}
    for measure, title in _TITLES.items():
        estimates = [getattr(comparison.distance(name, reference), measure) for name in names]
        if np.isfinite([estimate.value for estimate in estimates]).any():
            panels[title] = estimates
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    size = (2.2 * n_columns + 1.2, (0.6 + 0.28 * len(names)) * n_rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for ax, (title, estimates) in zip(axes.flat, panels.items(), strict=False):
        for position, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
            _draw_estimate(ax, position, estimate, method_style(comparison, name))
        ax.set_title(title, fontsize="small")
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(axis="x", labelsize="small")
    for row in axes:
        row[0].set_yticks(range(len(names)), labels=names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    figure.supxlabel(
        f"From {reference}, ± 2 standard errors. Grey: Monte-Carlo error alone; filled: beyond it",
        fontsize="small",
    )
    return figure


def _draw_estimate(ax: Axes, position: int, estimate: "Estimate", style: tuple[str, str]) -> None:
    colour, marker = style
    ax.errorbar(
        estimate.value,
        position,
        xerr=None if np.isnan(estimate.se) else 2 * estimate.se,
        color=colour,
        marker=marker,
        markersize=5,
        markerfacecolor=colour if estimate.is_significant else "white",
        capsize=2,
    )
    ax.plot(estimate.noise, position, "|", color="0.45", markersize=13)


def plot_reliability(
    results: "Comparison | ReliabilityCurve | Mapping[str, ReliabilityCurve]",
    *,
    methods: Sequence[str] | None = None,
    n_bins: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against confidence, with intervals: calibrated methods follow the diagonal.

    Parameters
    ----------
    results : Comparison, ReliabilityCurve or dict of str to ReliabilityCurve
        A comparison with `y_test`, or what `metrics.reliability_curve` gives.
    methods : sequence of str, optional
        The methods of the comparison to draw; all by default.
    n_bins : int
        For a comparison, bins of equal width between 0 and 1, with 95% intervals. A marker's area
        grows with the points in its bin.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the comparison has no labels, or a name is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq.metrics import reliability_curve
    >>> curve = reliability_curve([0, 1, 1], [[0.9, 0.1], [0.3, 0.7], [0.7, 0.3]], n_bins=2)
    >>> plot_reliability(curve, ax=Figure().subplots()).get_xlabel()
    'Confidence (probability of the predicted class)'
    """
    if not isinstance(results, ReliabilityCurve | Mapping) and hasattr(results, "methods"):
        if results.y_test is None:
            raise ValueError("A reliability diagram needs labels: call compare with y_test.")
        curves = {
            name: reliability_curve(
                results.y_test,
                _method(results, name).proba,
                classes=results.classes,
                n_bins=n_bins,
            )
            for name in (results.methods if methods is None else methods)
        }
        styles = [method_style(results, name) for name in curves]
    else:
        curves = _named(results, ReliabilityCurve)
        styles = [_style(i) for i in range(len(curves))]

    ax = _axes(ax)
    for (name, curve), (colour, marker) in zip(curves.items(), styles, strict=True):
        filled = curve.count > 0
        accuracy, confidence = curve.accuracy[filled], curve.confidence[filled]
        ax.errorbar(
            confidence,
            accuracy,
            yerr=[accuracy - curve.lower[filled], curve.upper[filled] - accuracy],
            color=colour,
            linewidth=1.2,
            elinewidth=1,
            capsize=2,
            label=name,
        )
        area = 12 + 90 * curve.count[filled] / curve.count.sum()
        ax.scatter(confidence, accuracy, s=area, color=colour, marker=marker, zorder=3)
    _equal_axes(ax, 0, 1.02)
    ax.set(xlabel="Confidence (probability of the predicted class)", ylabel="Accuracy")
    _legend(ax, len(curves))
    return ax


def plot_rejection(
    curves: RejectionCurve | Mapping[str, RejectionCurve], *, ax: Axes | None = None
) -> Axes:
    """Accuracy of what is kept when the least certain are rejected.

    Parameters
    ----------
    curves : RejectionCurve or dict of str to RejectionCurve
        From `metrics.rejection_curve`: one for each method, or for each measure of uncertainty.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        The best order, which rejects the wrong ones first, is dashed. The area over a curve is its
        AURC.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq.metrics import rejection_curve
    >>> curve = rejection_curve([0, 1, 1], [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    >>> plot_rejection({"network": curve}, ax=Figure().subplots()).get_xlabel()
    'Rejected, the least certain first'
    """
    named = _named(curves, RejectionCurve)

    ax = _axes(ax)
    bests = {curve.best_error.tobytes(): curve for curve in named.values()}
    for position, curve in enumerate(bests.values()):
        label = None if position else "best order"
        ax.plot(1 - curve.coverage, 1 - curve.best_error, **_DASHED, label=label)
    for position, (name, curve) in enumerate(named.items()):
        colour, marker = _style(position)
        label = f"{name}: AURC {curve.aurc:.3f}" if name else f"AURC {curve.aurc:.3f}"
        ax.plot(
            1 - curve.coverage,
            curve.accuracy,
            color=colour,
            marker=marker,
            markersize=4,
            markevery=(0.1 * position / len(named), 0.1),
            linewidth=1.4,
            label=label,
        )
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set(
        xlim=(0, 1), xlabel="Rejected, the least certain first", ylabel="Accuracy of what is kept"
    )
    ax.legend(frameon=False, loc="best")
    return ax


def plot_detection(
    results: Detection | Mapping[str, Detection],
    *,
    curve: Literal["roc", "precision_recall"] = "roc",
    ax: Axes | None = None,
) -> Axes:
    """How well uncertainties tell wrong, or out-of-distribution, points from the others.

    Parameters
    ----------
    results : Detection or dict of str to Detection
        From `metrics.detect_errors` or `metrics.detect_outliers`: one for each measure or method.
    curve : {"roc", "precision_recall"}
        The receiver operating characteristic, or precision against recall.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        What knowing nothing would give is dashed.

    Raises
    ------
    ValueError
        If `curve` is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq.metrics import detect_outliers
    >>> found = detect_outliers(inside=[0.1, 0.2, 0.4], outside=[0.3, 0.9])
    >>> plot_detection({"epistemic": found}, ax=Figure().subplots()).get_xlabel()
    'False positive rate'
    """
    if curve not in ("roc", "precision_recall"):
        raise ValueError(f'curve must be "roc" or "precision_recall", got {curve!r}.')
    named = _named(results, Detection)
    area = {"roc": "auroc", "precision_recall": "aupr"}[curve]

    ax = _axes(ax)
    for position, (name, found) in enumerate(named.items()):
        colour, marker = _style(position)
        if curve == "roc":
            x, y = found.fpr, found.tpr
        else:  # without its last point, (0, 1), which no threshold gives
            x, y = found.recall[:-1], found.precision[:-1]
        label = f"{area.upper()} {getattr(found, area):.3f}"
        ax.plot(
            x,
            y,
            color=colour,
            marker=marker,
            markersize=4,
            markevery=(0.1 * position / len(named), 0.15),
            linewidth=1.4,
            drawstyle="default" if curve == "roc" else "steps-post",
            label=f"{name}: {label}" if name else label,
        )
    if curve == "roc":
        ax.set(xlabel="False positive rate", ylabel="True positive rate")
        _equal_axes(ax, 0, 1.02)
    else:
        for prevalence in {found.prevalence for found in named.values()}:
            ax.axhline(prevalence, **_DASHED)
        ax.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    ax.legend(frameon=False, loc="lower right" if curve == "roc" else "best")
    return ax


def plot_pit(pit: ArrayLike, *, n_bins: int = 10, ax: Axes | None = None) -> Axes:
    """Histogram of the targets' probability integral transform: flat where predictions are right.

    Parameters
    ----------
    pit : array of shape [m]
        From `metrics.pit_gaussian` or `metrics.pit_samples`.
    n_bins : int
        Bins of equal width between 0 and 1.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A bar leaves the band once in twenty where predictions are right.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import numpy as np
    >>> plot_pit(np.linspace(0.01, 0.99, 50), ax=Figure().subplots()).get_xlabel()
    'Probability integral transform'
    """
    values = numbers("pit", pit)
    if values.min() < 0 or values.max() > 1:
        raise ValueError("pit must hold values between 0 and 1, from pit_gaussian or pit_samples.")
    n_bins = count("n_bins", n_bins)
    density, edges = np.histogram(values, bins=n_bins, range=(0, 1), density=True)
    band = stats.binom(len(values), 1 / n_bins).ppf([0.025, 0.975]) * n_bins / len(values)

    ax = _axes(ax)
    ax.axhspan(*band, color="0.88", zorder=0, label="95% band of a right prediction")
    ax.axhline(1, **_DASHED)
    ax.bar(
        edges[:-1],
        density,
        width=1 / n_bins,
        align="edge",
        color=_COLOURS[0],
        alpha=0.8,
        edgecolor="white",
    )
    top = 1.25 * max(density.max(), band[1])
    ax.set(xlim=(0, 1), ylim=(0, top), xlabel="Probability integral transform", ylabel="Density")
    ax.legend(frameon=False, loc="upper center")
    return ax


def plot_coverage(
    curves: CoverageCurve | Mapping[str, CoverageCurve], *, ax: Axes | None = None
) -> Axes:
    """Actual against nominal coverage of predictive intervals: equal where they are right.

    Parameters
    ----------
    curves : CoverageCurve or dict of str to CoverageCurve
        From `metrics.coverage_curve`.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Above the diagonal intervals are too wide, below it too narrow. Bands are binomial noise.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq.metrics import coverage_curve
    >>> plot_coverage(coverage_curve([0.1, 0.4, 0.6, 0.9]), ax=Figure().subplots()).get_xlabel()
    'Nominal coverage of the interval'
    """
    named = _named(curves, CoverageCurve)

    ax = _axes(ax)
    for position, (name, curve) in enumerate(named.items()):
        colour, marker = _style(position)
        ax.fill_between(
            curve.level, curve.lower, curve.upper, color=colour, alpha=0.15, linewidth=0
        )
        ax.plot(curve.level, curve.coverage, color=colour, marker=marker, markersize=4, label=name)
    _equal_axes(ax, 0, 1)
    ax.set(xlabel="Nominal coverage of the interval", ylabel="Fraction of targets inside")
    _legend(ax, len(named))
    return ax


def plot_temperature(
    fits: "TemperatureFit | Mapping[str, TemperatureFit]", *, ax: Axes | None = None
) -> Axes:
    """Held-out log loss along the temperature, with the best.

    Parameters
    ----------
    fits : TemperatureFit or dict of str to TemperatureFit
        From `calibration.fit_temperature`, or a `TemperatureScaled`'s `temperature_fit_`.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq.calibration import fit_temperature
    >>> fit = fit_temperature([0] * 7 + [1] * 3, [[0.9, 0.1]] * 10)
    >>> plot_temperature(fit, ax=Figure().subplots()).get_xlabel()
    'Temperature'
    """
    named = _named(fits, "TemperatureFit")

    ax = _axes(ax)
    for position, (name, fit) in enumerate(named.items()):
        colour, marker = _style(position)
        best = f"T = {fit.temperature:.2f}"
        ax.plot(fit.temperatures, fit.losses, color=colour)
        ax.plot(
            fit.temperature,
            fit.log_loss,
            linestyle="none",
            marker=marker,
            color=colour,
            label=f"{name}: {best}" if name else best,
        )
    ax.axvline(1, **_DASHED)
    # Cold predictions of wrong labels cost without bound, and would hide the rest.
    top = 1.2 * max(fit.log_loss_before for fit in named.values())
    top = max(top, 1.2 * max(float(fit.losses[-1]) for fit in named.values()))
    highest = max(float(fit.losses.max()) for fit in named.values())
    ax.set(
        xscale="log",
        ylim=(0, min(top, 1.05 * highest)),
        xlabel="Temperature",
        ylabel="Held-out log loss (nats a point)",
    )
    ticks = [1 / 16, 1 / 4, 1, 4, 16]
    ax.set_xticks(ticks, labels=["1/16", "1/4", "1", "4", "16"])
    ax.set_xticks([], minor=True)
    ax.legend(frameon=False, handlelength=1.2)
    return ax


def plot_uncertainty(
    comparison: "Comparison",
    x: str,
    y: str,
    *,
    measure: Literal["epistemic", "aleatoric", "total_uncertainty"] = "epistemic",
    ax: Axes | None = None,
) -> Axes:
    """Uncertainty of one method against another's, point by point.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    x, y : str
        Names of the methods on the axes.
    measure : {"epistemic", "aleatoric", "total_uncertainty"}
        The uncertainty, in nats.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import ntk_uq as nuq
    >>> X, y = [[-1.0], [-0.5], [0.5], [1.0]], [0, 0, 1, 1]
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X)
    >>> plot_uncertainty(comparison, "posterior", "networks", ax=Figure().subplots()).get_xlabel()
    'posterior (nats)'
    """
    if measure not in _MEASURES:
        raise ValueError(f"measure must be one of {list(_MEASURES)}, got {measure!r}.")
    of_x, of_y = (getattr(_method(comparison, name), measure) for name in (x, y))
    wrong = _wrong(comparison, y)
    rank_correlation = _rank_correlation(of_x, of_y)
    labelled = comparison.y_test is not None and comparison.classes is not None
    unit = "" if comparison.classes is None else " (nats)"

    ax = _axes(ax)
    colour, _ = method_style(comparison, y)
    ax.axline((0, 0), slope=1, **_DASHED)
    limit = 1.05 * max(of_x.max(), of_y.max(), np.finfo(np.float64).tiny)
    ax.scatter(
        of_x[~wrong],
        of_y[~wrong],
        s=9,
        alpha=0.5,
        color=colour,
        linewidth=0,
        rasterized=True,
        label="predicted right" if labelled else None,
    )
    if wrong.any():
        ax.scatter(
            of_x[wrong],
            of_y[wrong],
            s=16,
            color="black",
            marker="x",
            linewidth=0.8,
            rasterized=True,
            label="predicted wrong",
        )
    if labelled:
        ax.legend(frameon=False, loc="upper left", handletextpad=0.2)
    ax.set(
        xlim=(0, limit),
        ylim=(0, limit),
        aspect="equal",
        xlabel=f"{x}{unit}",
        ylabel=f"{y}{unit}",
        title=f"{_MEASURES[measure]}: rank correlation {rank_correlation:.2f}",
    )
    return ax


def plot_latents(
    comparison: "Comparison",
    x: str,
    y: str,
    *,
    moment: Literal["mean", "std"] = "mean",
    ax: Axes | None = None,
) -> Axes:
    """Mean or standard deviation of every latent (logit): one method against another.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    x, y : str
        Names of the methods on the axes.
    moment : {"mean", "std"}
        Which moment.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a name or the moment is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import ntk_uq as nuq
    >>> X, y = [[-1.0], [-0.5], [0.5], [1.0]], [0, 0, 1, 1]
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X)
    >>> plot_latents(comparison, "posterior", "networks", ax=Figure().subplots()).get_xlabel()
    'posterior'
    """
    if moment not in ("mean", "std"):
        raise ValueError(f'moment must be "mean" or "std", got {moment!r}.')
    of_x, of_y = (getattr(_method(comparison, name), f"latent_{moment}") for name in (x, y))

    ax = _axes(ax)
    colour, _ = method_style(comparison, y)
    low, high = min(of_x.min(), of_y.min()), max(of_x.max(), of_y.max())
    margin = 0.04 * (high - low) or 1.0
    size, alpha = (5, 0.3) if of_x.size > 500 else (14, 0.6)  # a cloud, or points
    ax.scatter(
        of_x.ravel(),
        of_y.ravel(),
        s=size,
        alpha=alpha,
        color=colour,
        linewidth=0,
        rasterized=True,
    )
    _equal_axes(ax, low - margin, high + margin)
    name = {"mean": "Mean", "std": "Standard deviation"}[moment]
    ax.set(xlabel=x, ylabel=y, title=f"{name} of the latents (logits)")
    return ax


def plot_probabilities(comparison: "Comparison", point: int, *, ax: Axes | None = None) -> Axes:
    """Class probabilities of one test point, by every method.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    point : int
        Row number of the test point. Where there are many classes, the ten most probable are drawn.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no such point.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import ntk_uq as nuq
    >>> X, y = [[-1.0], [-0.5], [0.5], [1.0]], [0, 0, 1, 1]
    >>> closed = {"method": "gaussian", "reg": 1.0}
    >>> methods = {
    ...     "networks": nuq.NTKClassifier(**closed).fit(X, y),
    ...     "posterior": nuq.NTKClassifier(uncertainty="posterior", **closed).fit(X, y),
    ... }
    >>> comparison = nuq.compare(methods, X)
    >>> plot_probabilities(comparison, 0, ax=Figure().subplots()).get_ylabel()
    'Probability'
    """
    if comparison.classes is None:
        raise ValueError("Regressors have no class probabilities; see plot_latents.")
    if not 0 <= point < comparison.n_points:
        raise ValueError(f"point must lie in 0 .. {comparison.n_points - 1}, got {point}.")
    proba = np.stack([method.proba[point] for method in comparison.methods.values()])
    shown = np.sort(np.argsort(-proba.max(axis=0), kind="stable")[:_MAX_CLASSES])

    ax = _axes(ax)
    width = 0.84 / len(proba)
    for position, name in enumerate(comparison.methods):
        colour, _ = method_style(comparison, name)
        offset = (position - (len(proba) - 1) / 2) * width
        ax.bar(
            np.arange(len(shown)) + offset, proba[position, shown], width, color=colour, label=name
        )
    labels = [str(comparison.classes[c]) for c in shown]
    ax.set(xlabel="Class", ylabel="Probability")
    ax.set_xticks(np.arange(len(shown)), labels)
    if max(map(len, labels)) * len(labels) > 30:
        ax.tick_params(axis="x", labelrotation=30)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    if comparison.y_test is not None:
        truth = comparison.y_test[point]
        for tick, label in zip(ax.get_xticklabels(), comparison.classes[shown], strict=True):
            if label == truth:
                tick.set_fontweight("bold")
    ax.margins(y=0.2)  # room for the legend
    _legend(ax, len(proba))
    return ax


def plot_diagnostics(
    diagnostics: "Diagnostics",
    *,
    quantity: Literal["rhat", "ess"] = "rhat",
    ax: Axes | None = None,
) -> Axes:
    """R-hat or effective sample sizes of all latents, with the threshold that they should keep.

    Parameters
    ----------
    diagnostics : Diagnostics
        The ``diagnostics_`` of a fitted `BayesianClassifier`.
    quantity : {"rhat", "ess"}
        Rank-normalised split R-hat, or effective sample sizes in the bulk and in the tails.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If `quantity` is unknown, or R-hat is asked for and there is only one chain.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and
    localization: an improved R-hat; the thresholds are theirs.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import Gaussian, bayes
    >>> draws = bayes.sample_latents(
    ...     jax.random.key(0), jnp.eye(3), jnp.ones((3, 1)), Gaussian(noise=1.0),
    ...     sampler="ess", num_warmup=10, num_samples=20, num_chains=2,
    ... )
    >>> plot_diagnostics(bayes.diagnostics(draws), ax=Figure().subplots()).get_xlabel()
    'R-hat'
    """
    if quantity == "rhat":
        if not np.isfinite(diagnostics.rhat).any():
            raise ValueError("R-hat compares chains, and there is only one.")
        values, threshold = {"R-hat": diagnostics.rhat}, 1.01
        name, advice = "R-hat", "at most 1.01"
    elif quantity == "ess":
        values, threshold = {"bulk": diagnostics.ess_bulk, "tails": diagnostics.ess_tail}, 400.0
        name, advice = "Effective sample size", "at least 400"
    else:
        raise ValueError(f'quantity must be "rhat" or "ess", got {quantity!r}.')

    ax = _axes(ax)
    finite = [value[np.isfinite(value)] for value in values.values()]
    edges = np.histogram_bin_edges(np.concatenate(finite), bins=30).tolist()
    for label, value, colour in zip(values, finite, _COLOURS, strict=False):
        ax.hist(value, bins=edges, histtype="step", linewidth=1.4, color=colour, label=label)
    ax.axvline(threshold, **_DASHED, label=advice)
    ax.set(xlabel=name, ylabel="Latents at training points")
    ax.legend(frameon=False, handlelength=1.2)
    return ax


def plot_reg_curve(curve: "RegCurve", *, ax: Axes | None = None) -> Axes:
    """The criterion by which the regularisation was chosen, along it.

    Parameters
    ----------
    curve : selection.RegCurve
        An estimator's `reg_curve_`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import numpy as np
    >>> from ntk_uq.selection import RegCurve
    >>> regs, scores = np.array([0.1, 1.0, 10.0]), np.array([[-0.9, -0.5, -0.7]])
    >>> curve = RegCurve(regs, scores, None, ("depth 1",), "cv", reg=1.0)
    >>> plot_reg_curve(curve, ax=Figure().subplots()).get_xlabel()
    'reg'
    """
    ax = _axes(ax)
    errors = curve.errors if curve.errors is not None else [None] * len(curve.scores)
    for i, (name, score, error) in enumerate(zip(curve.names, curve.scores, errors, strict=True)):
        colour, marker = _style(i)
        ax.plot(curve.regs, score, color=colour, marker=marker, markersize=4, label=name)
        if error is not None:
            ax.fill_between(
                curve.regs, score - error, score + error, color=colour, alpha=0.15, linewidth=0
            )
    ax.axvline(curve.reg, **_DASHED)
    what = {"evidence": "Log evidence (nats)", "cv": "Held-out log density (nats a point)"}
    ax.set(xscale="log", xlabel="reg", ylabel=what[curve.criterion])
    ax.xaxis.set_major_formatter(lambda reg, _: f"{reg:g}")
    ax.xaxis.set_minor_formatter("")
    if len(curve.names) > 1:
        ax.legend(frameon=False, handlelength=1.2)
    return ax


def plot_laziness(
    results: "dict[str, Laziness]",
    quantity: str = "kernel_change",
    *,
    ax: Axes | None = None,
) -> Axes:
    """How far networks move against their width, with the rate of the power law.

    Parameters
    ----------
    results : dict of str to Laziness
        What `measure_laziness` found in each regime.
    quantity : {"kernel_change", "parameter_distance", "linearisation_error", "largest_output"}
        What to draw: the mean over networks as a line, and each network as a point.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the quantity is unknown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import numpy as np
    >>> from ntk_uq.lazy import Laziness
    >>> change = np.array([[0.4, 0.5], [0.2, 0.2], [0.1, 0.1]])  # two networks of each width
    >>> lazy = Laziness(np.array([64, 256, 1024]), *[change] * 6)
    >>> plot_laziness({"reg = 1": lazy}, ax=Figure().subplots()).get_xlabel()
    'Width'
    """
    if quantity not in _LAZINESS:
        raise ValueError(f"quantity must be one of {list(_LAZINESS)}, got {quantity!r}.")
    ax = _axes(ax)
    for position, (name, laziness) in enumerate(results.items()):
        colour, marker = _style(position)
        values = getattr(laziness, quantity)
        label = f"{name}: width^{laziness.rate(quantity)}"
        widths = np.broadcast_to(laziness.widths[:, None], values.shape)
        ax.plot(laziness.widths, values.mean(axis=1), color=colour, label=label)
        ax.plot(widths, values, marker, color=colour, markersize=4, alpha=0.6)
    ax.set(xscale="log", yscale="log", xlabel="Width", ylabel=_LAZINESS[quantity])
    every_width = sorted({int(w) for laziness in results.values() for w in laziness.widths})
    ax.set_xticks(every_width, labels=[f"{width:,}" for width in every_width])
    ax.set_xticks([], minor=True)
    ax.legend(frameon=False, fontsize="small")
    return ax


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
    measures = {**_MEASURES, "std": "Standard deviation of the latent"}
    if measure not in measures:
        raise ValueError(f"measure must be one of {list(measures)}, got {measure!r}.")
    columns = X.columns if isinstance(X, pd.DataFrame) else ["Feature 0", "Feature 1"]
    points = np.asarray(X, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"A map needs X of shape [n, 2], got {points.shape}.")
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

    ax = _axes(ax)
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
        colour, marker = _style(position)
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

    ax = _axes(ax)
    colour, _ = _style(0)
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
        _equal_axes(ax, ends.min() - margin, ends.max() + margin)
        ax.set(xlabel="Quantiles of theory", ylabel="Ordered draws of the latent")
        ax.legend(frameon=False, loc="upper left", handlelength=1.2)
    ax.set_title(f"Point {point}, output {output}: p = {p_value:.2g}")
    return ax


def plot_trace(
    posterior: "DataTree",
    point: int = 0,
    output: Any = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """The chains of one latent, draw by draw, by ArviZ; divergences are marked below.

    ArviZ draws everything else from the same object: ``arviz.plot_rank(clf.posterior_, ...)``.

    Parameters
    ----------
    posterior : DataTree
        A `BayesianClassifier`'s or `BayesianRegressor`'s `posterior_`.
    point : int
        Row number of the training point.
    output : label, optional
        The class, or the output's name; the first by default.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no such point or output.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq import BayesianRegressor
    >>> reg = BayesianRegressor(sampler="vi", noise=1.0, num_samples=20)
    >>> reg = reg.fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 0.0])
    >>> plot_trace(reg.posterior_, point=1, ax=Figure().subplots()).get_xlabel()
    'Draw'
    """
    from arviz_plots import PlotCollection, plot_trace
    from xarray import Dataset, DataTree

    latents = posterior["posterior"]["f"]
    if not 0 <= point < latents.sizes["point"]:
        raise ValueError(f"point must lie in 0 .. {latents.sizes['point'] - 1}, got {point}.")
    dimension = str(latents.dims[-1])  # "class" of a classifier, "output" of a regressor
    outputs = np.asarray(latents[dimension]).tolist()
    output = outputs[0] if output is None else output
    if output not in outputs:
        raise ValueError(f"output must be one of {outputs}, got {output!r}.")
    position = outputs.index(output)
    chosen = posterior.isel({"point": point, dimension: position}, missing_dims="ignore")

    ax = _axes(ax)
    axes = DataTree.from_dict(
        {"/": Dataset({"figure": ((), ax.figure)}), "/plot": Dataset({"f": ((), ax)})}
    )
    collection = PlotCollection(
        chosen["posterior"].to_dataset(),
        axes,
        aes={"color": ["chain"], "overlay": ["chain"]},
        backend="matplotlib",
        color=_COLOURS,
    )
    plot_trace(
        chosen, plot_collection=collection, visuals={"title": False, "trace": {"width": 0.8}}
    )
    ax.set(xlabel="Draw", ylabel="Latent", title=f"Training point {point}, output {output}")
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    # pyplot chooses a display and keeps every figure, which a notebook wants and a report does not.
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def _style(position: int) -> tuple[str, str]:
    return _COLOURS[position % len(_COLOURS)], _MARKERS[position % len(_MARKERS)]


def _named[T](results: T | Mapping[str, T], kind: type[T] | str) -> dict[str, T]:
    """One result under no name, or several under theirs.

    A kind that a room above defines is given by its name, so that imports go one way.
    """
    name = kind if isinstance(kind, str) else kind.__name__

    def is_one(result: object) -> bool:
        return type(result).__name__ == kind if isinstance(kind, str) else isinstance(result, kind)

    named = {"": results} if is_one(results) else results
    if not (isinstance(named, Mapping) and named and all(map(is_one, named.values()))):
        raise ValueError(
            f"This plot takes a {name}, or a dict of them by name, got {type(results).__name__}."
        )
    return dict(named)


def _equal_axes(ax: Axes, low: float, high: float) -> None:
    """One scale for both axes, and the diagonal."""
    ax.plot([low, high], [low, high], **_DASHED, zorder=1)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def _leads(proba: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Lead of each class over the best of the others; with two classes one says it."""
    leads = []
    for c in range(proba.shape[1] if proba.shape[1] > 2 else 1):
        leads.append(proba[:, c] - np.delete(proba, c, axis=1).max(axis=1))
    return leads


def _legend(ax: Axes, n_entries: int) -> None:
    if n_entries > 1:
        ax.legend(frameon=False, handlelength=1.2)


def _wrong(comparison: "Comparison", method: str) -> NDArray[np.bool_]:
    proba = comparison.methods[method].proba
    if comparison.y_test is None or comparison.classes is None:
        return np.zeros(len(proba), dtype=bool)
    return comparison.classes[proba.argmax(axis=1)] != comparison.y_test


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, or NaN where one of the two is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(stats.spearmanr(a, b).statistic)


def _method(comparison: "Comparison", name: str) -> "MethodSummary":
    if name not in comparison.methods:
        raise ValueError(f"No method is named {name!r}; there are {list(comparison.methods)}.")
    return comparison.methods[name]

"""Pictures of how right predictions are: the curves of `metrics` and `calibration`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike
from scipy import stats

from ntk_uq._common.checks import count, numbers
from ntk_uq.metrics import (
    CoverageCurve,
    Detection,
    RejectionCurve,
    ReliabilityCurve,
    reliability_curve,
)
from ntk_uq.plots.comparisons import method_of, method_style
from ntk_uq.plots.style import (
    COLOURS,
    DASHED,
    add_legend,
    axes_or_new,
    by_name,
    equal_axes,
    style_of,
)

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.calibration import TemperatureFit, Threshold
    from ntk_uq.compare import Comparison


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
                method_of(results, name).proba,
                classes=results.classes,
                n_bins=n_bins,
            )
            for name in (results.methods if methods is None else methods)
        }
        styles = [method_style(results, name) for name in curves]
    else:
        curves = by_name(cast("ReliabilityCurve", results), ReliabilityCurve)
        styles = [style_of(i) for i in range(len(curves))]

    ax = axes_or_new(ax)
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
    equal_axes(ax, 0, 1.02)
    ax.set(xlabel="Confidence (probability of the predicted class)", ylabel="Accuracy")
    add_legend(ax, len(curves))
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
    named = by_name(curves, RejectionCurve)

    ax = axes_or_new(ax)
    bests = {curve.best_error.tobytes(): curve for curve in named.values()}
    for position, curve in enumerate(bests.values()):
        label = None if position else "best order"
        ax.plot(1 - curve.coverage, 1 - curve.best_error, **DASHED, label=label)
    for position, (name, curve) in enumerate(named.items()):
        colour, marker = style_of(position)
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
    named = by_name(results, Detection)
    area = {"roc": "auroc", "precision_recall": "aupr"}[curve]

    ax = axes_or_new(ax)
    for position, (name, found) in enumerate(named.items()):
        colour, marker = style_of(position)
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
        equal_axes(ax, 0, 1.02)
    else:
        for prevalence in {found.prevalence for found in named.values()}:
            ax.axhline(prevalence, **DASHED)
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

    ax = axes_or_new(ax)
    ax.axhspan(*band, color="0.88", zorder=0, label="95% band of a right prediction")
    ax.axhline(1, **DASHED)
    ax.bar(
        edges[:-1],
        density,
        width=1 / n_bins,
        align="edge",
        color=COLOURS[0],
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
    named = by_name(curves, CoverageCurve)

    ax = axes_or_new(ax)
    for position, (name, curve) in enumerate(named.items()):
        colour, marker = style_of(position)
        ax.fill_between(
            curve.level, curve.lower, curve.upper, color=colour, alpha=0.15, linewidth=0
        )
        ax.plot(curve.level, curve.coverage, color=colour, marker=marker, markersize=4, label=name)
    equal_axes(ax, 0, 1)
    ax.set(xlabel="Nominal coverage of the interval", ylabel="Fraction of targets inside")
    add_legend(ax, len(named))
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
    named = by_name(fits, "TemperatureFit")

    ax = axes_or_new(ax)
    for position, (name, fit) in enumerate(named.items()):
        colour, marker = style_of(position)
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
    ax.axvline(1, **DASHED)
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


def plot_threshold(
    positive: ArrayLike,
    score: ArrayLike,
    threshold: "Threshold | float | None" = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Precision, recall and the share taken for positive, against the threshold.

    Parameters
    ----------
    positive : array of bool, of shape [n]
        Which points are positive.
    score : array of shape [n]
        Their scores: the probability of the positive class.
    threshold : Threshold or float, optional
        From `calibration.precision_threshold` or `calibration.recall_threshold`, drawn with what it
        promises; or any value.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there are not as many scores as labels, or no label is positive.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> plot_threshold([True, False, True], [0.9, 0.2, 0.6], 0.5, ax=ax).get_xlabel()
    'Threshold of the score'
    """
    scores = numbers("score", score)
    hits = np.asarray(positive)
    if hits.shape != scores.shape or hits.dtype != bool or not hits.any():
        raise ValueError("positive must be a truth value for each score, and some of them True.")
    values = np.unique(scores)
    # Of all points from each value on: counts of those before it, from the end.
    below = np.searchsorted(np.sort(scores), values)
    below_hits = np.searchsorted(np.sort(scores[hits]), values)
    taken, found = len(scores) - below, hits.sum() - below_hits
    ax = axes_or_new(ax)
    for k, (name, share) in enumerate(
        (
            ("precision", found / taken),
            ("recall", found / hits.sum()),
            ("taken for positive", taken / len(scores)),
        )
    ):
        ax.plot(values, share, color=COLOURS[k], drawstyle="steps-pre", label=name)
    if threshold is not None:
        value, promise = threshold, ""
        if not isinstance(value, int | float):
            promise = f": {value.kind} of at least {value.promised:g}"
            value = value.value
        label = f"threshold {value:.3g}{promise}"
        if np.isfinite(value):
            ax.axvline(float(value), **DASHED, label=label)
        else:  # all points are taken, or none: said, with nowhere to draw it
            ax.plot([], [], **DASHED, label=label)
    ax.set(xlabel="Threshold of the score", ylabel="Share", ylim=(0, 1.02))
    ax.set_xlim(values[0], values[-1] if len(values) > 1 else values[0] + 1)
    add_legend(ax, 4)
    return ax

"""Pictures of a comparison: ``plot_x(comparison, ..., *, ax=None) -> Axes``.

Each draws what a `Comparison` holds, computes nothing that is not in its title, and never shows a
window. Colours are those of Okabe and Ito, which colour-blind readers can tell apart, and every
method has its own marker besides, for print in black and white.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ntk_uq.compare import Comparison
from ntk_uq.metrics import reliability_curve

if TYPE_CHECKING:  # loads NumPyro
    from ntk_uq.bayes import Diagnostics
    from ntk_uq.lazy import Laziness
    from ntk_uq.selection import RegCurve

__all__ = [
    "method_style",
    "most_uncertain",
    "plot_diagnostics",
    "plot_latents",
    "plot_laziness",
    "plot_probabilities",
    "plot_reg_curve",
    "plot_reliability",
    "plot_uncertainty",
]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# More classes than these do not fit beside each other.
_MAX_CLASSES = 10
_MEASURES = {
    "epistemic": "Epistemic uncertainty",
    "aleatoric": "Aleatoric uncertainty",
    "total_uncertainty": "Total uncertainty",
}


def method_style(comparison: Comparison, method: str) -> tuple[str, str]:
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
    """
    position = list(comparison.methods).index(_known(comparison, method))
    return _COLOURS[position % len(_COLOURS)], _MARKERS[position % len(_MARKERS)]


def most_uncertain(comparison: Comparison, n: int) -> NDArray[np.intp]:
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
    """
    method = comparison.methods[comparison.reference or next(iter(comparison.methods))]
    return np.argsort(-method.total_uncertainty, kind="stable")[:n]


def plot_reliability(
    comparison: Comparison,
    *,
    methods: Sequence[str] | None = None,
    n_bins: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against confidence, with 95% intervals: calibrated methods follow the diagonal.

    Parameters
    ----------
    comparison : Comparison
        With `y_test`.
    methods : sequence of str, optional
        The methods to draw; all by default.
    n_bins : int
        Bins of equal width between 0 and 1; a marker's area grows with the points in its bin.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the comparison has no labels, or a name is unknown.
    """
    if comparison.y_test is None:
        raise ValueError("A reliability diagram needs labels: call compare with y_test.")
    names = list(comparison.methods) if methods is None else list(methods)
    curves = {
        name: reliability_curve(
            comparison.y_test,
            comparison.methods[_known(comparison, name)].proba,
            classes=comparison.classes,
            n_bins=n_bins,
        )
        for name in names
    }

    ax = _axes(ax)
    _diagonal(ax, 0, 1)
    for name, curve in curves.items():
        colour, marker = method_style(comparison, name)
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
    ax.set(
        xlim=(0, 1.02),
        ylim=(0, 1.02),
        aspect="equal",
        xlabel="Confidence (probability of the predicted class)",
        ylabel="Accuracy",
    )
    _legend(ax, len(names))
    return ax


def plot_uncertainty(
    comparison: Comparison,
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
    """
    if measure not in _MEASURES:
        raise ValueError(f"measure must be one of {list(_MEASURES)}, got {measure!r}.")
    of_x = getattr(comparison.methods[_known(comparison, x)], measure)
    of_y = getattr(comparison.methods[_known(comparison, y)], measure)
    wrong = _wrong(comparison, y)
    rank_correlation = _rank_correlation(of_x, of_y)

    ax = _axes(ax)
    colour, _ = method_style(comparison, y)
    limit = 1.05 * max(of_x.max(), of_y.max(), np.finfo(np.float64).tiny)
    _diagonal(ax, 0, limit)
    ax.scatter(
        of_x[~wrong],
        of_y[~wrong],
        s=9,
        alpha=0.5,
        color=colour,
        linewidth=0,
        rasterized=True,
        label=None if comparison.y_test is None else "predicted right",
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
    if comparison.y_test is not None:
        ax.legend(frameon=False, loc="upper left", handletextpad=0.2)
    ax.set(
        xlim=(0, limit),
        ylim=(0, limit),
        aspect="equal",
        xlabel=f"{x} (nats)",
        ylabel=f"{y} (nats)",
        title=f"{_MEASURES[measure]}: rank correlation {rank_correlation:.2f}",
    )
    _same_ticks(ax)
    return ax


def plot_latents(
    comparison: Comparison,
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
    """
    if moment not in ("mean", "std"):
        raise ValueError(f'moment must be "mean" or "std", got {moment!r}.')
    of_x = getattr(comparison.methods[_known(comparison, x)], f"latent_{moment}")
    of_y = getattr(comparison.methods[_known(comparison, y)], f"latent_{moment}")

    ax = _axes(ax)
    colour, _ = method_style(comparison, y)
    low, high = min(of_x.min(), of_y.min()), max(of_x.max(), of_y.max())
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    _diagonal(ax, *limits)
    ax.scatter(
        of_x.ravel(), of_y.ravel(), s=5, alpha=0.3, color=colour, linewidth=0, rasterized=True
    )
    name = {"mean": "Mean", "std": "Standard deviation"}[moment]
    ax.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel=x,
        ylabel=y,
        title=f"{name} of the latents (logits)",
    )
    _same_ticks(ax)
    return ax


def plot_probabilities(comparison: Comparison, point: int, *, ax: Axes | None = None) -> Axes:
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
    """
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
    ax.axvline(threshold, color="0.45", linewidth=1, linestyle=(0, (4, 3)), label=advice)
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
    """
    ax = _axes(ax)
    errors = curve.errors if curve.errors is not None else [None] * len(curve.scores)
    for i, (name, score, error) in enumerate(zip(curve.names, curve.scores, errors, strict=True)):
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        ax.plot(curve.regs, score, color=colour, marker=marker, markersize=4, label=name)
        if error is not None:
            ax.fill_between(
                curve.regs, score - error, score + error, color=colour, alpha=0.15, linewidth=0
            )
    ax.axvline(curve.reg, color="0.45", linewidth=1, linestyle=(0, (4, 3)))
    what = {"evidence": "Log evidence (nats)", "cv": "Held-out log density (nats a point)"}
    ax.set(xscale="log", xlabel="reg", ylabel=what[curve.criterion])
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
    """
    titles = {
        "kernel_change": "Relative change of the tangent kernel",
        "parameter_distance": "Distance of the parameters from their start",
        "linearisation_error": "Largest distance from the linearised network",
        "largest_output": "Largest output",
    }
    ax = _axes(ax)
    for (name, laziness), colour, marker in zip(results.items(), _COLOURS, _MARKERS, strict=False):
        values = getattr(laziness, quantity)
        label = f"{name}: width^{laziness.rate(quantity)}"
        widths = np.broadcast_to(laziness.widths[:, None], values.shape)
        ax.plot(laziness.widths, values.mean(axis=1), color=colour, label=label)
        ax.plot(widths, values, marker, color=colour, markersize=4, alpha=0.6)
    ax.set(xscale="log", yscale="log", xlabel="Width", ylabel=titles[quantity])
    every_width = sorted({int(w) for laziness in results.values() for w in laziness.widths})
    ax.set_xticks(every_width, labels=[f"{width:,}" for width in every_width])
    ax.set_xticks([], minor=True)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    # pyplot chooses a display and keeps every figure, which a notebook wants and a report does not.
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def _diagonal(ax: Axes, low: float, high: float) -> None:
    ax.plot([low, high], [low, high], color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _legend(ax: Axes, n_entries: int) -> None:
    if n_entries > 1:
        ax.legend(frameon=False, handlelength=1.2)


def _same_ticks(ax: Axes) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def _wrong(comparison: Comparison, method: str) -> NDArray[np.bool_]:
    proba = comparison.methods[method].proba
    if comparison.y_test is None:
        return np.zeros(len(proba), dtype=bool)
    return comparison.classes[proba.argmax(axis=1)] != comparison.y_test


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, or NaN where one of the two is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(spearmanr(a, b).statistic)


def _known(comparison: Comparison, method: str) -> str:
    if method not in comparison.methods:
        raise ValueError(f"No method is named {method!r}; there are {list(comparison.methods)}.")
    return method

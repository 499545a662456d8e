"""Pictures of a comparison: methods against each other."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from ntk_uq.plots.style import DASHED, UNCERTAINTIES, add_legend, axes_or_new, equal_axes, style_of

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison, MethodSummary
    from ntk_uq.distances import Estimate


# More classes than these do not fit beside each other.
_MAX_CLASSES = 10


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
    method_of(comparison, method)
    return style_of(list(comparison.methods).index(method))


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
    for field, measure in comparison.measures.items():
        estimates = [getattr(comparison.distance(name, reference), field) for name in names]
        if np.isfinite([estimate.value for estimate in estimates]).any():
            panels[measure.panel] = estimates
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
    if measure not in UNCERTAINTIES:
        raise ValueError(f"measure must be one of {list(UNCERTAINTIES)}, got {measure!r}.")
    of_x, of_y = (getattr(method_of(comparison, name), measure) for name in (x, y))
    wrong = _wrong(comparison, y)
    rank_correlation = _rank_correlation(of_x, of_y)
    labelled = comparison.y_test is not None and comparison.classes is not None
    unit = "" if comparison.classes is None else " (nats)"
    # A method whose points are all alike has no ranks.
    found = f": rank correlation {rank_correlation:.2f}" if np.isfinite(rank_correlation) else ""

    ax = axes_or_new(ax)
    colour, _ = method_style(comparison, y)
    ax.axline((0, 0), slope=1, **DASHED)
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
        title=UNCERTAINTIES[measure] + found,
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
        If a name or the moment is unknown, or a method has one draw and so no standard deviation.

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
    of_x, of_y = (getattr(method_of(comparison, name), f"latent_{moment}") for name in (x, y))
    for name, values in ((x, of_x), (y, of_y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} is a single draw, of which no standard deviation is known.")

    ax = axes_or_new(ax)
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
    equal_axes(ax, low - margin, high + margin)
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

    ax = axes_or_new(ax)
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
    add_legend(ax, len(proba))
    return ax


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


def method_of(comparison: "Comparison", name: str) -> "MethodSummary":
    """The method of this name, or an error that says which there are."""
    if name not in comparison.methods:
        raise ValueError(f"No method is named {name!r}; there are {list(comparison.methods)}.")
    return comparison.methods[name]

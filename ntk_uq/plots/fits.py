"""Pictures of how a fit came about: chains, the choice of a regularisation, training's laziness."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ntk_uq._common.words import shown
from ntk_uq.plots.style import COLOURS, DASHED, axes_or_new, style_of

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from xarray import DataTree

    from ntk_uq.bayes.convergence import Diagnostics
    from ntk_uq.lazy import Laziness
    from ntk_uq.selection.curve import RegCurve
    from ntk_uq.selection.mixture import Mixture


# Networks whose curves have names.
_MOST_CURVES = 4
# Decades that are named: a narrow picture has room for a few.
_MOST_TICKS = 5

_LAZINESS = {
    "kernel_change": "Relative change of the tangent kernel",
    "parameter_distance": "Distance of the parameters from their start",
    "linearisation_error": "Largest distance from the linearised network",
    "largest_output": "Largest output",
}


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

    ax = axes_or_new(ax)
    finite = [value[np.isfinite(value)] for value in values.values()]
    edges = np.histogram_bin_edges(np.concatenate(finite), bins=30).tolist()
    for label, value, colour in zip(values, finite, COLOURS, strict=False):
        ax.hist(value, bins=edges, histtype="step", linewidth=1.4, color=colour, label=label)
    ax.axvline(threshold, **DASHED, label=advice)
    ax.set(xlabel=name, ylabel="Latents at training points")
    ax.legend(frameon=False, handlelength=1.2)
    return ax


def plot_reg_curve(curve: "RegCurve", *, ax: Axes | None = None) -> Axes:
    """The criterion by which the regularisation was chosen, along it.

    The four networks for which it is best have names and errors, the others are grey.

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
    ax = axes_or_new(ax)
    best = np.max(np.where(np.isnan(curve.scores), -np.inf, curve.scores), axis=1)
    named, *others = np.split(np.argsort(-best, kind="stable"), [_MOST_CURVES])
    tried = ~np.isnan(curve.scores)  # a line ends at what is not known
    for k in np.concatenate(others).astype(int):
        regs, score = curve.regs[tried[k]], curve.scores[k, tried[k]]
        ax.plot(regs, score, color="0.8", linewidth=0.8, zorder=1)
    for i, k in enumerate(np.sort(named)):
        (colour, marker), regs, score = style_of(i), curve.regs[tried[k]], curve.scores[k, tried[k]]
        ax.plot(regs, score, color=colour, marker=marker, markersize=4, label=curve.names[k])
        if curve.errors is not None:
            error = curve.errors[k, tried[k]]
            ax.fill_between(
                regs, score - error, score + error, color=colour, alpha=0.15, linewidth=0
            )
    shown = curve.scores[named]
    if np.isfinite(shown).any():  # what the others do far below is of no interest
        span = np.ptp(shown[np.isfinite(shown)])
        ax.set_ylim(bottom=np.nanmin(shown) - 0.1 * span if span else None)
    ax.axvline(curve.reg, **DASHED)
    what = {"evidence": "Log evidence (nats)", "cv": "Held-out log density (nats a point)"}
    ax.set(xscale="log", xlabel="reg", ylabel=what[curve.criterion])
    ax.xaxis.set_major_locator(LogLocator(numticks=_MOST_TICKS))
    ax.xaxis.set_major_formatter(lambda reg, _: f"{reg:g}")
    ax.xaxis.set_minor_formatter("")
    if len(curve.names) > 1:
        ax.legend(frameon=False, handlelength=1.2)
    return ax


def plot_feature_scales(estimator: Any, *, most: int = 20, ax: Axes | None = None) -> Axes:
    """How much each feature counts, by the scales that were learnt.

    Parameters
    ----------
    estimator : NTKClassifier or NTKRegressor
        Fitted, with scales of its features: `feature_scales_`.
    most : int, default 20
        At most so many features, those that count most.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If no scales were learnt, or they were not worth having: all features count alike.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import numpy as np
    >>> from ntk_uq import MLP, NTKRegressor
    >>> X = np.random.default_rng(0).normal(size=(40, 3))
    >>> model = NTKRegressor(MLP(depth=1), reg="evidence", tune=("scales",)).fit(X, X[:, 0])
    >>> ax = plot_feature_scales(model, ax=Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()][-1]  # on top
    'feature 0'
    """
    scales = np.asarray(estimator.feature_scales_)
    if scales.ndim == 0 or np.all(scales == scales[0]):
        raise ValueError(
            "All features count alike: no scales were learnt, or they did not predict held-out "
            'points better. NTKClassifier() tries them; elsewhere tune=("scales",) does.'
        )
    names = _names_of_features(estimator, len(scales))
    order = np.argsort(scales)[-most:]
    ax = axes_or_new(ax)
    # By position: two bars whose names are equal would be one.
    at = np.arange(len(order))
    ax.barh(at, scales[order], tick_label=[names[j] for j in order], color=COLOURS[0])
    ax.set(xlabel="Scale of the feature")
    return ax


def _names_of_features(estimator: Any, count: int) -> list[str]:
    """Of the features that the network sees: an encoder has made them of a table's columns."""
    encoder = getattr(estimator, "encoder_", None)
    if encoder is None:
        names = getattr(estimator, "feature_names_in_", [f"feature {j}" for j in range(count)])
    else:
        numbered = [f"feature {j}" for j in range(encoder.n_features_in_)]
        columns = getattr(encoder, "feature_names_in_", numbered)
        names = encoder.get_feature_names_out(columns)
    return [str(name) for name in names]


def plot_mixture(mixture: "Mixture", *, ax: Axes | None = None) -> Axes:
    """The networks that predict together: their weights, and how each predicts held-out points.

    The number at a bar is of the network's mode. That of the mixture is of its posterior where the
    estimator's `uncertainty` is "posterior": the two are then no comparison.

    Parameters
    ----------
    mixture : selection.Mixture
        A classifier's `mixture_`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from ntk_uq import MLP
    >>> from ntk_uq.analytic import Component
    >>> from ntk_uq.selection import Mixture
    >>> pair = [Component(f"depth {k}", MLP(depth=k), 1.0, 1.0, 0.5, -0.3) for k in (1, 2)]
    >>> ax = plot_mixture(Mixture(tuple(pair), -0.28, 0.01), ax=Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()][-1]  # on top
    'depth 1, reg 1'
    """
    ax = axes_or_new(ax)
    shown = mixture.components[::-1]
    labels = [f"{one.name}, reg {one.reg:.2g}" for one in shown]
    bars = ax.barh(labels, [one.weight for one in shown], color=COLOURS[0])
    ax.bar_label(bars, [f"{one.score:.3f}" for one in shown], padding=3)
    ax.set(
        xlabel=f"Weight; held-out log density (nats a point), of the mixture {mixture.score:.3f}",
        xlim=(0, 1.15 * max(one.weight for one in shown)),
    )
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
    ax = axes_or_new(ax)
    for position, (name, laziness) in enumerate(results.items()):
        colour, marker = style_of(position)
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
        raise ValueError(f"output must be one of {outputs}, got {shown(output)}.")
    position = outputs.index(output)
    chosen = posterior.isel({"point": point, dimension: position}, missing_dims="ignore")

    ax = axes_or_new(ax)
    axes = DataTree.from_dict(
        {"/": Dataset({"figure": ((), ax.figure)}), "/plot": Dataset({"f": ((), ax)})}
    )
    collection = PlotCollection(
        chosen["posterior"].to_dataset(),
        axes,
        aes={"color": ["chain"], "overlay": ["chain"]},
        backend="matplotlib",
        color=COLOURS,
    )
    plot_trace(
        chosen, plot_collection=collection, visuals={"title": False, "trace": {"width": 0.8}}
    )
    ax.set(xlabel="Draw", ylabel="Latent", title=f"Training point {point}, output {output}")
    return ax

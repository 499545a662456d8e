"""The figures of the report."""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ntk_uq.plots import (
    most_uncertain,
    plot_comparison,
    plot_latents,
    plot_probabilities,
    plot_reg_curve,
    plot_reliability,
    plot_uncertainty,
)
from ntk_uq.report.choice import RegChoice
from ntk_uq.report.pictures import Picture, data_uri, png, svg
from ntk_uq.report.words import number

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison


# Test points shown one by one: two rows on a wide screen.
_N_POINTS_SHOWN = 6


def choice_figures(choice: RegChoice) -> list[Picture]:
    """The criteria along the regularisations."""
    curves = {
        "the trained network": choice.curve,
        "the posterior, by its draws": choice.posterior_curve,
    }
    return [
        Picture(
            svg(plot_reg_curve, curve, height=2.6),
            f"What predicts best: {what}",
            f"The criterion along reg for {what}; it is best at {number(curve.reg)}.",
        )
        for what, curve in curves.items()
        if curve is not None
    ]


def distance_figure(comparison: "Comparison") -> Picture | None:
    """All distances from the reference; their numbers are in the table above."""
    if comparison.reference is None or len(comparison.methods) < 2:
        return None
    buffer = BytesIO()
    plot_comparison(comparison).savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(
        data_uri("image/svg+xml", buffer.getvalue()),
        f"Each method's distance from {comparison.reference}, with two standard errors.",
        f"Distances of all methods from {comparison.reference} in every measure, as in the table.",
    )


def reliability_figures(comparison: "Comparison") -> list[Picture]:
    """A reliability diagram for each method; none without labels."""
    if comparison.y_test is None:
        return []
    return [
        Picture(
            svg(plot_reliability, comparison, methods=[name]),
            name,
            f"Reliability diagram of {name}: accuracy against confidence in ten bins; calibration "
            f"error {comparison.table.loc[name, 'ece']:.3f}.",
        )
        for name in comparison.methods
    ]


def uncertainty_figures(comparison: "Comparison") -> list[Picture]:
    """Epistemic uncertainties against the reference's or, without one, the first method's.

    Of methods that have any: without draws, as of a forecast that was given, nothing is to see.
    """
    means = {
        name: m.epistemic.mean() for name, m in comparison.methods.items() if m.epistemic.any()
    }
    base = comparison.reference or next(iter(means), None)
    if base not in means:
        return []
    return [
        Picture(
            svg(plot_uncertainty, comparison, base, name),
            f"{name} against {base}",
            f"Scatter plot of the epistemic uncertainty of every test point: {name}, mean "
            f"{mean:.3f} nats, against {base}, mean {means[base]:.3f} nats.",
        )
        for name, mean in means.items()
        if name != base
    ]


def latent_figures(comparison: "Comparison") -> list[Picture]:
    """First method against the second, which the caller put beside it."""
    if len(comparison.methods) < 2:
        return []
    y, x = list(comparison.methods)[:2]
    first, second = comparison.methods[y], comparison.methods[x]
    correlation = np.corrcoef(first.latent_mean.ravel(), second.latent_mean.ravel())[0, 1]
    means = Picture(
        svg(plot_latents, comparison, x, y, moment="mean"),
        f"Mean: correlation {correlation:.3f}",
        f"Scatter plot of the mean of every latent, {y} against {x}.",
    )
    if not (np.isfinite(first.latent_std).all() and np.isfinite(second.latent_std).all()):
        return [means]  # one of them is a single draw, whose spread nobody knows
    spread = second.latent_std.mean()
    ratio = first.latent_std.mean() / spread if spread > 0 else np.nan
    return [
        means,
        Picture(
            svg(plot_latents, comparison, x, y, moment="std"),
            "Standard deviation"
            + (f": {ratio:.2f} times as large on average" if np.isfinite(ratio) else ""),
            f"Scatter plot of the standard deviation of every latent, {y} against {x}.",
        ),
    ]


def small_ensembles(comparison: "Comparison") -> list[str]:
    """How well the draws of the two methods in the pictures of latents know a spread."""
    found = []
    for name, method in list(comparison.methods.items())[:2]:
        if method.n_draws is None:
            continue
        effective = np.fmin(method.n_draws, method.n_effective)
        if 1 < effective < 100:
            found.append(
                f"The {method.n_draws} draws of {name} know each standard deviation within about "
                f"{1 / np.sqrt(2 * (effective - 1)):.0%}."
            )
    return found


def point_figures(
    comparison: "Comparison", images: NDArray | None
) -> list[tuple[Picture, str | None]]:
    """The most uncertain points: class probabilities by method, and the point's image."""
    assert comparison.classes is not None
    figures, classes = [], comparison.classes
    points = most_uncertain(comparison, _N_POINTS_SHOWN)
    highest = max(method.proba[points].max() for method in comparison.methods.values())
    for point in points:
        truth = "" if comparison.y_test is None else f", true class {comparison.y_test[point]}"
        figures.append(
            (
                Picture(
                    svg(_plot_bars, comparison, point, 1.05 * highest, height=2.0),
                    f"Test point {point}{truth}",
                    f"Class probabilities of test point {point}{truth}. "
                    + " ".join(
                        f"{name}: {classes[method.proba[point].argmax()]} with "
                        f"{method.proba[point].max():.2f}."
                        for name, method in comparison.methods.items()
                    ),
                ),
                None if images is None else png(images[point]),
            )
        )
    return figures


def _plot_bars(comparison: "Comparison", point: int, top: float, *, ax: Axes) -> Axes:
    plot_probabilities(comparison, point, ax=ax)
    ax.set_ylim(0, top)
    # One legend above all of these pictures is enough.
    if legend := ax.get_legend():
        legend.remove()
    return ax

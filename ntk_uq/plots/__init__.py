"""Pictures of results: ``plot_x(result, ..., *, ax=None) -> Axes``.

Each draws what a comparison, a curve of `metrics` or a fitted estimator holds, computes nothing
that is not in its title, and never shows a window. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart, and every method has its own marker besides, for print in black
and white. Where a plot takes one result, it takes a dict of them too, and draws one line for each.
"""

from ntk_uq.plots.comparisons import (
    method_style,
    most_uncertain,
    plot_comparison,
    plot_latents,
    plot_probabilities,
    plot_uncertainty,
)
from ntk_uq.plots.fits import (
    plot_diagnostics,
    plot_feature_scales,
    plot_laziness,
    plot_mixture,
    plot_reg_curve,
    plot_trace,
)
from ntk_uq.plots.predictive import plot_latent_law, plot_uncertainty_map
from ntk_uq.plots.quality import (
    plot_coverage,
    plot_detection,
    plot_pit,
    plot_rejection,
    plot_reliability,
    plot_temperature,
    plot_threshold,
)

__all__ = [
    "method_style",
    "most_uncertain",
    "plot_comparison",
    "plot_coverage",
    "plot_detection",
    "plot_diagnostics",
    "plot_feature_scales",
    "plot_latent_law",
    "plot_latents",
    "plot_laziness",
    "plot_mixture",
    "plot_pit",
    "plot_probabilities",
    "plot_reg_curve",
    "plot_rejection",
    "plot_reliability",
    "plot_temperature",
    "plot_threshold",
    "plot_trace",
    "plot_uncertainty",
    "plot_uncertainty_map",
]

"""Whether the chains of a sampler can be trusted: figures, pictures and warnings."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ntk_uq.plots import plot_diagnostics
from ntk_uq.report.pictures import Picture, svg
from ntk_uq.report.words import duration

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.bayes.convergence import Diagnostics
    from ntk_uq.compare import Comparison


@dataclass(frozen=True)
class SamplerCheck:
    """A sampler's diagnostics in figures and pictures, and what is wrong, in sentences."""

    method: str
    figures: dict[str, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: list[Picture]


def sampler_checks(comparison: "Comparison") -> list[SamplerCheck]:
    """A check for each method that has diagnostics."""
    return [
        SamplerCheck(
            name,
            _diagnostic_figures(method.diagnostics),
            method.warnings,
            method.diagnostics.notes,
            _diagnostic_pictures(name, method.diagnostics),
        )
        for name, method in comparison.methods.items()
        if method.diagnostics is not None
    ]


def _diagnostic_figures(diagnostics: "Diagnostics") -> dict[str, str]:
    n_latents = diagnostics.rhat.size
    rhat = "unknown: there is only one chain"
    if not np.isnan(diagnostics.rhat_max):
        rhat = (
            f"{diagnostics.rhat_max:.3f}; {diagnostics.n_rhat_high:,} of {n_latents:,} latents are "
            f"above 1.01, where chance alone would put {diagnostics.rhat_high_by_chance:,.0f}"
        )
    return {
        "Draws kept": f"{diagnostics.n_draws:,}",
        "Largest R-hat": rhat,
        "Smallest effective sample size": f"{diagnostics.ess_bulk.min():,.0f} in the bulk, "
        f"{diagnostics.ess_tail.min():,.0f} in the tails; {diagnostics.n_ess_low:,} of "
        f"{n_latents:,} latents are below 400",
        **diagnostics.work,
        "Speed": f"{duration(diagnostics.seconds)} of sampling, {diagnostics.ess_per_second:.1f} "
        "effective draws a second",
    }


def _diagnostic_pictures(name: str, diagnostics: "Diagnostics") -> list[Picture]:
    pictures = [
        Picture(
            svg(plot_diagnostics, diagnostics, quantity="ess", height=2.3),
            "Effective sample size of every latent",
            f"Histogram of the effective sample sizes of {name}, from {diagnostics.ess_min:.0f}.",
        )
    ]
    if np.isfinite(diagnostics.rhat).any():
        pictures.append(
            Picture(
                svg(plot_diagnostics, diagnostics, quantity="rhat", height=2.3),
                "R-hat of every latent",
                f"Histogram of R-hat of {name}, up to {diagnostics.rhat_max:.3f}.",
            )
        )
    return pictures

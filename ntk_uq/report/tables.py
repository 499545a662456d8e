"""The tables of the report: methods by measures, and methods by methods."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ntk_uq.report.sentences import best_methods
from ntk_uq.report.words import duration, plus_minus

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison


@dataclass(frozen=True)
class Measure:
    """One row of the report's table."""

    column: str
    title: str
    explanation: str
    digits: int = 3
    has_best: bool = False


_MEASURES = (
    Measure(
        "accuracy",
        "Accuracy",
        "Fraction of test points whose most probable class is the true one. Higher is better.",
        has_best=True,
    ),
    Measure(
        "log_loss",
        "Log loss, nats",
        "Mean of −log of the probability given to the true class. Punishes confident mistakes; "
        "lower is better.",
        has_best=True,
    ),
    Measure(
        "brier",
        "Brier score",
        "Mean squared distance between the class probabilities and the true class. Lower is "
        "better.",
        has_best=True,
    ),
    Measure(
        "ece",
        "Calibration error (ECE)",
        "Mean gap between confidence and accuracy over 15 bins of confidence. Zero would be "
        "perfect; chance alone keeps it above zero, so small differences mean little.",
    ),
    Measure(
        "total_uncertainty",
        "Total uncertainty, nats",
        "Entropy of the predicted class probabilities, mean over test points: all there is to be "
        "unsure about. The sum of the next two.",
    ),
    Measure(
        "aleatoric",
        "Aleatoric, nats",
        "The part that would remain if the right network were known: mean entropy of the single "
        "draws.",
    ),
    Measure(
        "epistemic",
        "Epistemic, nats",
        "The part that comes from not knowing which network is right: how much the draws disagree "
        "(mutual information). After ±: Monte-Carlo standard error.",
    ),
    Measure(
        "tv",
        "Distance from {reference}",
        "Total variation between the mean class probabilities and {reference}'s, mean over test "
        "points: 0 is equal, 1 is disjoint. After ±: Monte-Carlo standard error.",
    ),
    Measure(
        "tv_noise",
        "… of which sampling noise",
        "The distance that two perfectly agreeing methods would show at these numbers of draws. A "
        "distance no more than two standard errors above it is no evidence of a difference.",
        digits=4,
    ),
    Measure(
        "kl",
        "KL divergence from {reference}, nats",
        "What the method's class probabilities would lose in log loss if {reference}'s were true, "
        "mean over test points.",
    ),
    Measure(
        "bures_wasserstein",
        "Distance of the latents",
        "Bures-Wasserstein distance from {reference}: how far mean and covariance of the logits at "
        "a point would have to be moved; root mean square over test points, in logits. What is "
        "added to all classes alike does not count, as softmax does not see it.",
    ),
    Measure(
        "energy",
        "Distance of the functions",
        "Energy distance from {reference}, of whole functions: it sees how test points move "
        "together, which the distances above do not. Between 0, the same distribution, and 1; "
        "Monte-Carlo error may take it below zero.",
    ),
    Measure(
        "epistemic_ratio",
        "Epistemic uncertainty, ratio",
        "Mean over test points, divided by {reference}'s: below 1 the method is surer of itself.",
    ),
    Measure(
        "rank_correlation",
        "Epistemic uncertainty, rank correlation",
        "Whether both find the same points uncertain: 1 is the same order, 0 is unrelated.",
    ),
    Measure(
        "rejection_agreement",
        "Common among the rejected",
        "Of the 20% most uncertain points, which one might hand to a human, the fraction that "
        "{reference} would hand over too. Chance would give 0.2.",
    ),
    Measure(
        "n_effective",
        "Effective draws",
        "Independent draws that would give the same Monte-Carlo errors; draws of a Markov chain "
        "repeat each other. A closed form has none.",
        digits=0,
    ),
    Measure(
        "effective_per_second",
        "Effective draws a second",
        "Of fitting and predicting, compilation included.",
        digits=1,
    ),
    Measure("fit_seconds", "Time to fit", "Wall-clock time, compilation included."),
    Measure(
        "predict_seconds",
        "Time to predict",
        "Wall-clock time for the distribution at all test points, compilation included.",
    ),
)
# Column of each Monte-Carlo standard error.
_STANDARD_ERRORS = {
    measure: f"{measure}_se"
    for measure in (
        "epistemic",
        "tv",
        "kl",
        "bures_wasserstein",
        "energy",
        "epistemic_ratio",
        "rank_correlation",
        "rejection_agreement",
    )
}
# Distances, which the reference has none of.
_FROM_REFERENCE = {*_STANDARD_ERRORS, "tv_noise"} - {"epistemic"}


@dataclass(frozen=True)
class Row:
    """A measure with its cells: text, and whether it is marked as best."""

    title: str
    explanation: str
    cells: list[tuple[str, bool]]


def table_rows(comparison: "Comparison") -> list[Row]:
    """Methods by measures, those that are known."""
    table, rows = comparison.table, []
    for measure in _MEASURES:
        if measure.column not in table:
            continue
        best = best_methods(comparison, measure.column) if measure.has_best else []
        # Marking everybody tells nothing.
        marked = set(best) if len(best) < len(table) else set()
        rows.append(
            Row(
                measure.title.format(reference=comparison.reference),
                measure.explanation.format(reference=comparison.reference),
                [(_cell(comparison, name, measure), name in marked) for name in table.index],
            )
        )
    return rows


def _cell(comparison: "Comparison", name: str, measure: Measure) -> str:
    row = comparison.table.loc[name]
    value = row[measure.column]
    if measure.column in _FROM_REFERENCE and name == comparison.reference:
        return "reference"
    if np.isnan(value):
        return "n/a"
    if measure.column.endswith("seconds"):
        return duration(value)
    if measure.column in _STANDARD_ERRORS:
        return plus_minus(value, row[_STANDARD_ERRORS[measure.column]])
    return f"{value:.{measure.digits}f}"


def pair_rows(comparison: "Comparison") -> list[tuple[str, list[tuple[str, bool]]]]:
    """Distances between all methods: name, and text and agreement in each column."""

    def cell(row: str, column: str) -> tuple[str, bool]:
        if row == column:
            return "", False
        tv = comparison.distance(row, column).tv
        return plus_minus(tv.value, tv.se), not tv.is_significant

    names = list(comparison.methods)
    return [(row, [cell(row, column) for column in names]) for row in names]

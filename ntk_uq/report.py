"""The report of a comparison: one self-contained HTML file, in words, numbers and pictures.

Everything in it is computed from the `Comparison`; the page needs no scripts and no network.
"""

import base64
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import ArrayLike, NDArray

from ntk_uq.metrics import CalibrationCheck, calibration_check, pointwise_losses
from ntk_uq.plots import (
    method_style,
    most_uncertain,
    plot_comparison,
    plot_diagnostics,
    plot_latents,
    plot_probabilities,
    plot_reg_curve,
    plot_reliability,
    plot_uncertainty,
)

if TYPE_CHECKING:  # loads NumPyro
    from ntk_uq.bayes.convergence import Diagnostics
    from ntk_uq.compare import Comparison, MethodSummary
    from ntk_uq.distances import Distance
    from ntk_uq.selection import RegCurve

__all__ = [
    "RegChoice",
    "calibration_finding",
    "calibration_findings",
    "choice_findings",
    "findings",
    "write_report",
]

# Confidence that differs less from the accuracy than this is "slightly" wrong.
_SLIGHT = 0.05
# Test points shown one by one: two rows on a wide screen.
_N_POINTS_SHOWN = 6
_PACKAGES = ("ntk_uq", "jax", "flax", "numpyro", "arviz", "scikit-learn", "numpy", "scipy")
# Lengths are for a picture that a phone shows in full width.
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "ntk_uq",
    # Names come from the user, and a dollar sign in them is no formula.
    "text.parse_math": False,
}


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
class Picture:
    """A picture as a data URI, with the words under it and those in its place."""

    source: str
    caption: str
    description: str


@dataclass(frozen=True, eq=False)
class RegChoice:
    """How the one regularisation of all methods was chosen, from the training points alone.

    Attributes
    ----------
    curve : RegCurve
        The criterion along the regularisations, and the value that all methods have.
    posterior : str, optional
        The method that is the posterior under the prior GP(0, Theta / reg).
    posterior_curve : RegCurve, optional
        Where the posterior itself predicts best, by `selection.cross_validate_posterior`.
    own : Comparison, optional
        One method at the same test points: the posterior, or draws that are near it, where it
        predicts best.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.report import RegChoice, choice_findings
    >>> from ntk_uq.selection import RegCurve
    >>> regs, scores = np.array([0.1, 1.0, 10.0]), np.array([[-0.4, -0.5, -0.7]])
    >>> choice = RegChoice(RegCurve(regs, scores, None, ("",), "cv", reg=0.1))
    >>> "10 times weaker" in choice_findings(choice)[1]
    True
    """

    curve: "RegCurve"
    posterior: str | None = None
    posterior_curve: "RegCurve | None" = None
    own: "Comparison | None" = None


def write_report(
    comparison: "Comparison",
    path: str | os.PathLike[str],
    *,
    title: str,
    about: Mapping[str, str],
    run: Mapping[str, object],
    images: ArrayLike | None = None,
    reg: RegChoice | None = None,
) -> None:
    """Write the report; see `Comparison.to_html`.

    Parameters
    ----------
    comparison : Comparison
        What to report.
    path : str or path
        Where to write; an existing file is replaced, and only by a complete one.
    title : str
        Heading.
    about : mapping
        A sentence about each method.
    run : mapping
        Facts about the run, shown as given.
    images : array of shape [m, height, width] or [m, height, width, 3], optional
        The test points as pictures.
    reg : RegChoice, optional
        How the regularisation was chosen.
    """
    if comparison.classes is None:
        raise ValueError(
            "The report is about class probabilities; of regressors, see table, distance_table "
            "and plot()."
        )
    unknown = [name for name in about if name not in comparison.methods]
    if unknown:
        raise ValueError(
            f"about describes {unknown}, but the methods are {list(comparison.methods)}."
        )
    pictures = None if images is None else _validated_images(images, comparison.n_points)
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((files("ntk_uq") / "report.html.jinja").read_text(encoding="utf-8"))
    overall, by_method = findings(comparison)
    everything = _with_own(comparison, reg)
    with rc_context(_STYLE):
        html = template.render(
            title=title,
            created=datetime.now().astimezone(),
            comparison=comparison,
            overall=overall,
            by_method=by_method,
            table=_table(comparison),
            pairs=_pairs(comparison),
            styles={name: method_style(everything, name) for name in everything.methods},
            choice=reg,
            choice_sentences=[] if reg is None else choice_findings(reg),
            choice_figures=[] if reg is None else _choice_figures(reg),
            calibration=calibration_findings(comparison, reg),
            distances=_distance_figure(comparison),
            reliability=_reliability_figures(everything),
            uncertainty=_uncertainty_figures(comparison),
            latents=_latent_figures(comparison),
            small_ensembles=_small_ensembles(comparison),
            points=_point_figures(comparison, pictures),
            samplers=_sampler_checks(everything),
            about=about,
            run=run,
            versions=_versions(),
        )
    _write_atomically(Path(path), html)


def findings(comparison: "Comparison") -> tuple[str, dict[str, str]]:
    """Say in sentences what the numbers of a comparison show.

    Parameters
    ----------
    comparison : Comparison
        The comparison.

    Returns
    -------
    overall : str
        About all methods together; empty where there is neither a label nor a reference.
    by_method : dict of str to str
        About each method against the reference; empty without one.
    """
    reference = comparison.reference
    others = [name for name in comparison.methods if name != reference]
    sentences = [] if comparison.y_test is None else _score_findings(comparison)
    if reference is None or not others:
        return " ".join(sentences), {}

    agreeing = [
        name for name in others if not comparison.distance(name, reference).tv.is_significant
    ]
    if agreeing:
        sentences.append(
            f"At these numbers of draws the class probabilities of {_listed(agreeing)} cannot be "
            f"told from those of {reference}."
        )
    if len(agreeing) < len(others):
        differing = [name for name in others if name not in agreeing]
        sentences.append(
            f"{_listed(differing)} {'differs' if len(differing) == 1 else 'differ'} "
            f"from {reference} by more than sampling noise explains."
        )
    return " ".join(sentences), {name: _method_finding(comparison, name) for name in others}


def _score_findings(comparison: "Comparison") -> list[str]:
    accuracy = comparison.table["accuracy"]
    span = " to ".join(dict.fromkeys(f"{value:.1%}" for value in (accuracy.min(), accuracy.max())))
    sentences = [f"{span} of the {comparison.n_points:,} test points are classified right."]
    if len(comparison.methods) > 1:
        best = _best(comparison, "log_loss")
        if len(best) == len(comparison.methods):
            sentences.append("Log losses differ by no more than chance over the test points.")
        else:
            sentences.append(
                f"{_listed(best)} {'has' if len(best) == 1 else 'have'} the lowest log loss."
            )
    return [*sentences, *_verdicts(comparison)]


def _verdicts(comparison: "Comparison") -> list[str]:
    """Whose probabilities are right, in a sentence for each verdict; one where it is all the same.

    Whether they are right is said with figures by `calibration_findings`.
    """
    by_verdict: dict[str, list[str]] = {}
    for name, check in _checks(comparison).items():
        by_verdict.setdefault(check.verdict, []).append(name)
    words = {
        "calibrated": "The probabilities of {} are right, as far as these points can tell.",
        "too cautious": "The probabilities of {} are too cautious.",
        "too confident": "The probabilities of {} are too sure.",
        "uneven": "The probabilities of {} are right on average only.",
        "too few points": "There are too few points to say whether the probabilities of {} are "
        "right.",
    }
    return [
        sentence.format(_listed(by_verdict[verdict]))
        for verdict, sentence in words.items()
        if verdict in by_verdict
    ]


def _checks(comparison: "Comparison") -> dict[str, CalibrationCheck]:
    assert comparison.y_test is not None
    return {
        name: calibration_check(comparison.y_test, method.proba, classes=comparison.classes)
        for name, method in comparison.methods.items()
    }


def _method_finding(comparison: "Comparison", name: str) -> str:
    assert comparison.reference is not None
    reference = comparison.reference
    distance = comparison.distance(name, reference)
    tv, ratio = distance.tv, distance.epistemic_ratio
    verdict = "a real difference" if tv.is_significant else "no sign of a difference"
    sentences = [
        f"Its class probabilities lie {_plus_minus(tv.value, tv.se)} from those of {reference} in "
        f"total variation, where sampling noise alone would give {tv.noise:.4f}: {verdict}."
    ]
    if np.isfinite(ratio.se):
        if not ratio.is_significant:
            tendency = "As a whole it is as unsure as"
        elif ratio.value < ratio.noise:
            tendency = "It is surer of itself than"
        else:
            tendency = "It is less sure of itself than"
        sentences.append(
            f"{tendency} {reference}: its epistemic uncertainty is "
            f"{_plus_minus(ratio.value, ratio.se, significant=1)} times as large."
        )
    sentences += _further_findings(reference, distance)
    return " ".join(sentences)


def _further_findings(reference: str, distance: "Distance") -> list[str]:
    """Whether the latents, the functions and the order of the points differ, in words."""
    measures = {
        "the logits at single points": distance.bures_wasserstein,
        "whole functions": distance.energy,
        "which points are uncertain": distance.rank_correlation,
        "which points would be rejected": distance.rejected_20,
    }
    known = {words: estimate for words, estimate in measures.items() if np.isfinite(estimate.se)}
    differing = [words for words, estimate in known.items() if estimate.is_significant]
    same = [words for words, estimate in known.items() if not estimate.is_significant]
    sentences = []
    if differing:
        sentences.append(
            f"Beyond sampling noise it differs from {reference} in {_listed(differing)}."
        )
    if same:
        sentences.append(f"No difference can be seen in {_listed(same)}.")
    return sentences


def choice_findings(choice: RegChoice) -> list[str]:
    """Say how the regularisation was chosen, and how far it is from the Bayesian scale.

    Parameters
    ----------
    choice : RegChoice
        The choice.

    Returns
    -------
    list of str
        Sentences: the criterion; the scale; the posterior's own value, where it is known.
    """
    curve = choice.curve
    scale = (
        "reg = 1 is the Bayesian scale, at which the pull towards the initial parameters is that "
        "of the distribution N(θ₀, I) from which they were drawn."
    )
    if np.isclose(curve.reg, 1, rtol=0.05):
        scale += " The choice agrees with it."
    else:
        factor = max(curve.reg, 1 / curve.reg)
        scale += (
            f" The choice is {_number(factor)} times {'weaker' if curve.reg < 1 else 'stronger'}: "
            f"as a prior of functions, GP(0, Θ / reg), its logits are {_number(factor**0.5)} "
            f"times {'larger' if curve.reg < 1 else 'smaller'}."
        )
    sentences = [_criterion_finding(curve), scale]
    own = choice.posterior_curve
    if own is not None:
        best = f"{own.scores[0, np.argmin(np.abs(own.regs - own.reg))]:.3f}".lstrip("-")
        if np.isclose(own.reg, curve.reg):
            opening = "So it is for the posterior: cross-validated"
        else:
            opening = "What is best for the trained network need not be best for the posterior. "
            opening += "Cross-validated"
        sentences.append(
            f"{opening} by its own draws, it predicts held-out training points best at reg = "
            f"{_number(own.reg)} (log loss {best} nats), of the powers of ten that were tried."
        )
    return sentences


def _criterion_finding(curve: "RegCurve") -> str:
    regs = f"{len(curve.regs)} values from {_number(curve.regs[0])} to {_number(curve.regs[-1])}"
    sentence = (
        f"All methods have the same regularisation, reg = {_number(curve.reg)}, chosen from the "
        "training points alone"
    )
    at = int(np.argmin(np.abs(np.log(curve.regs / curve.reg))))
    one = np.flatnonzero(np.isclose(curve.regs, 1))
    scores = np.max(curve.scores, axis=0)
    if curve.criterion == "evidence":
        sentence += (
            ": it maximises the evidence, the probability of the training labels under the prior, "
            "in Laplace's approximation"
        )
        unit = "log evidence {:.1f}"
        values = scores
    else:
        sentence += (
            f" by five-fold cross-validation: of {regs} it gives labels that were held out the "
            "highest probability"
        )
        unit = "log loss {:.3f}"
        values = -scores
    if np.isfinite(values[at]):
        sentence += f" ({unit.format(values[at])} nats"
        if len(one) and one[0] != at:
            sentence += (
                f", {values[one[0]]:.{1 if curve.criterion == 'evidence' else 3}f} at reg = 1"
            )
        sentence += ")"
    if curve.criterion == "cv" and at in (0, len(curve.regs) - 1):
        sentence += ". It is the end of the range, and a value beyond it may be better still"
    return sentence + "."


def calibration_findings(
    comparison: "Comparison", choice: RegChoice | None = None
) -> dict[str, str]:
    """Say of each method whether its probabilities are right.

    Parameters
    ----------
    comparison : Comparison
        The comparison.
    choice : RegChoice, optional
        How the regularisation was chosen: it explains a cautious posterior, and may hold one more
        method.

    Returns
    -------
    dict of str to str
        Sentences about each method; empty where the labels are unknown.
    """
    if comparison.y_test is None:
        return {}
    everything, found = _with_own(comparison, choice), {}
    for name, check in _checks(everything).items():
        sentences = [calibration_finding(check)]
        if choice is not None and name == choice.posterior:
            sentences += _caution(check, everything.methods[name], choice.curve.reg)
        if name not in comparison.methods:
            assert choice is not None
            assert choice.posterior is not None
            sentences += [
                "This is the posterior under the prior with which it predicts best.",
                _log_loss_finding(everything, name, choice.posterior),
            ]
        found[name] = " ".join(sentences)
    return found


def calibration_finding(check: CalibrationCheck) -> str:
    """Say whether probabilities are right, and by which figures.

    Parameters
    ----------
    check : CalibrationCheck
        What `metrics.calibration_check` gives.

    Returns
    -------
    str

    Examples
    --------
    >>> from ntk_uq.metrics import calibration_check
    >>> from ntk_uq.report import calibration_finding
    >>> check = calibration_check([0] * 90 + [1] * 110, [[0.9, 0.1]] * 200)
    >>> print(calibration_finding(check).split(":")[0])
    Too sure of itself
    """
    slightly = "Slightly too" if abs(check.accuracy - check.confidence) < _SLIGHT else "Too"
    figures = (
        f"its mean confidence is {check.confidence:.1%}, and {check.accuracy:.1%} of its "
        "predictions are right"
    )
    error = (
        f"Its calibration error is {_plus_minus(check.ece, check.ece_se)}; a calibrated forecast "
        f"would show {check.ece_by_chance:.3f} by chance, and at most {check.ece_limit:.3f} in 99 "
        "of 100 cases."
    )
    match check.verdict:
        case "too cautious":
            return f"{slightly} cautious: {figures}. {error}"
        case "too confident":
            return f"{slightly} sure of itself: {figures}. {error}"
        case "uneven":
            return (
                f"Right on average, but not at every level of confidence, too high at some and too "
                f"low at others: {figures}. {error}"
            )
        case "too few points":
            return (
                f"Too few points to say: {figures}, but so few points ({check.n_points:,}) leave "
                f"the accuracy open between {check.accuracy_lower:.0%} and "
                f"{check.accuracy_upper:.0%}. {error}"
            )
        case _:
            return f"No sign that its probabilities are wrong: {figures}. {error}"


def _caution(check: CalibrationCheck, method: "MethodSummary", reg: float) -> list[str]:
    """Why a posterior is too cautious, if it is: the figures tell which of two reasons holds."""
    if check.verdict != "too cautious":
        return []
    total = method.total_uncertainty.mean()
    share = method.epistemic.mean() / total if total > 0 else 0.0
    if reg < 1:
        prior = f"so wide a prior ({_number(reg**-0.5)} times as wide as at reg = 1)"
    else:
        prior = f"a prior with reg = {_number(reg)}"
    if share >= 0.5:
        how = "its draws are sure of themselves and contradict one another"
    else:
        how = "each of its draws is unsure itself"
    return [
        f"It answers for {prior}: many functions fit the training points and differ elsewhere, and "
        f"it averages over them. Of its uncertainty {share:.0%} is disagreement between "
        f"draws: {how}. That would be right on average if the truth were a draw from this prior; "
        "the test points are easier than such a truth would make them."
    ]


def _log_loss_finding(comparison: "Comparison", name: str, other: str) -> str:
    """Which of two methods has the lower log loss, by a paired comparison."""
    assert comparison.y_test is not None
    loss, base = (
        pointwise_losses(
            comparison.y_test, comparison.methods[method].proba, classes=comparison.classes
        )["log_loss"]
        for method in (name, other)
    )
    gain, se = (base - loss).mean(), (base - loss).std() / np.sqrt(len(loss))
    verdict = "no more than chance" if abs(gain) <= 2 * se else "a gain" if gain > 0 else "a loss"
    return (
        f"Its log loss is {loss.mean():.3f} nats, that of {other} {base.mean():.3f}: the "
        f"difference, {_plus_minus(abs(gain), se)}, is {verdict}."
    )


def _with_own(comparison: "Comparison", choice: RegChoice | None) -> "Comparison":
    """All methods, that of another regularisation too: for what is said of each by itself."""
    if choice is None or choice.own is None:
        return comparison
    return replace(
        comparison,
        methods=comparison.methods | choice.own.methods,
        reference=None,
        distances={},
    )


def _choice_figures(choice: RegChoice) -> list[Picture]:
    curves = {
        "the trained network": choice.curve,
        "the posterior, by its draws": choice.posterior_curve,
    }
    return [
        Picture(
            _svg(plot_reg_curve, curve, height=2.6),
            f"What predicts best: {what}",
            f"The criterion along reg for {what}; it is best at {_number(curve.reg)}.",
        )
        for what, curve in curves.items()
        if curve is not None
    ]


def _best(comparison: "Comparison", column: str) -> list[str]:
    """The methods whose score is the best or, by a paired comparison, not clearly worse.

    Two methods are told apart where the mean difference of their losses exceeds two standard errors
    over the test points.
    """
    assert comparison.y_test is not None
    losses = {
        name: pointwise_losses(comparison.y_test, method.proba, classes=comparison.classes)[column]
        for name, method in comparison.methods.items()
    }
    pick = max if column == "accuracy" else min
    leader = losses[pick(losses, key=lambda name: losses[name].mean())]
    return [
        name
        for name, loss in losses.items()
        if abs((loss - leader).mean()) <= 2 * (loss - leader).std() / np.sqrt(len(loss))
    ]


@dataclass(frozen=True)
class Row:
    """A measure with its cells: text, and whether it is marked as best."""

    title: str
    explanation: str
    cells: list[tuple[str, bool]]


def _table(comparison: "Comparison") -> list[Row]:
    table, rows = comparison.table, []
    for measure in _MEASURES:
        if measure.column not in table:
            continue
        best = _best(comparison, measure.column) if measure.has_best else []
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
        return _duration(value)
    if measure.column in _STANDARD_ERRORS:
        return _plus_minus(value, row[_STANDARD_ERRORS[measure.column]])
    return f"{value:.{measure.digits}f}"


def _pairs(comparison: "Comparison") -> list[tuple[str, list[tuple[str, bool]]]]:
    """Distances between all methods: name, and text and agreement in each column."""

    def cell(row: str, column: str) -> tuple[str, bool]:
        if row == column:
            return "", False
        tv = comparison.distance(row, column).tv
        return _plus_minus(tv.value, tv.se), not tv.is_significant

    names = list(comparison.methods)
    return [(row, [cell(row, column) for column in names]) for row in names]


def _distance_figure(comparison: "Comparison") -> Picture | None:
    """All distances from the reference; their numbers are in the table above."""
    if comparison.reference is None or len(comparison.methods) < 2:
        return None
    buffer = BytesIO()
    plot_comparison(comparison).savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(
        _data_uri("image/svg+xml", buffer.getvalue()),
        f"Each method's distance from {comparison.reference}, with two standard errors.",
        f"Distances of all methods from {comparison.reference} in eight measures, as in the table.",
    )


def _reliability_figures(comparison: "Comparison") -> list[Picture]:
    if comparison.y_test is None:
        return []
    return [
        Picture(
            _svg(plot_reliability, comparison, methods=[name]),
            name,
            f"Reliability diagram of {name}: accuracy against confidence in ten bins; calibration "
            f"error {comparison.table.loc[name, 'ece']:.3f}.",
        )
        for name in comparison.methods
    ]


def _uncertainty_figures(comparison: "Comparison") -> list[Picture]:
    base = comparison.reference or next(iter(comparison.methods))
    return [
        Picture(
            _svg(plot_uncertainty, comparison, base, name),
            f"{name} against {base}",
            f"Scatter plot of the epistemic uncertainty of every test point: {name}, mean "
            f"{comparison.methods[name].epistemic.mean():.3f} nats, against {base}, mean "
            f"{comparison.methods[base].epistemic.mean():.3f} nats.",
        )
        for name in comparison.methods
        if name != base
    ]


def _latent_figures(comparison: "Comparison") -> list[Picture]:
    """First method against the second, which the caller put beside it."""
    if len(comparison.methods) < 2:
        return []
    y, x = list(comparison.methods)[:2]
    first, second = comparison.methods[y], comparison.methods[x]
    spread = second.latent_std.mean()
    ratio = first.latent_std.mean() / spread if spread > 0 else np.nan
    correlation = np.corrcoef(first.latent_mean.ravel(), second.latent_mean.ravel())[0, 1]
    return [
        Picture(
            _svg(plot_latents, comparison, x, y, moment="mean"),
            f"Mean: correlation {correlation:.3f}",
            f"Scatter plot of the mean of every latent, {y} against {x}.",
        ),
        Picture(
            _svg(plot_latents, comparison, x, y, moment="std"),
            "Standard deviation"
            + (f": {ratio:.2f} times as large on average" if np.isfinite(ratio) else ""),
            f"Scatter plot of the standard deviation of every latent, {y} against {x}.",
        ),
    ]


def _small_ensembles(comparison: "Comparison") -> list[str]:
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


def _point_figures(
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
                    _svg(_plot_bars, comparison, point, 1.05 * highest, height=2.0),
                    f"Test point {point}{truth}",
                    f"Class probabilities of test point {point}{truth}. "
                    + " ".join(
                        f"{name}: {classes[method.proba[point].argmax()]} with "
                        f"{method.proba[point].max():.2f}."
                        for name, method in comparison.methods.items()
                    ),
                ),
                None if images is None else _png(images[point]),
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


def _svg(plot: Callable[..., Axes], *arguments: Any, height: float = 3.3, **options: Any) -> str:
    figure = Figure(figsize=(3.4, height), layout="constrained")
    plot(*arguments, **options, ax=figure.subplots())
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _png(image: NDArray) -> str:
    """An image as the reader sees it in print: grey values run from white to black."""
    buffer = BytesIO()
    imsave(buffer, image, cmap="gray_r", format="png")
    return _data_uri("image/png", buffer.getvalue())


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class SamplerCheck:
    """A sampler's diagnostics in figures and pictures, and what is wrong, in sentences."""

    method: str
    figures: dict[str, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: list[Picture]


def _sampler_checks(comparison: "Comparison") -> list[SamplerCheck]:
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
    trajectories = {
        "Divergent draws": f"{diagnostics.n_divergent:,}",
        "Draws cut short": f"{diagnostics.n_max_treedepth:,} reached the greatest tree depth",
        "Work": f"{diagnostics.steps_per_draw:.0f} leapfrog steps a draw, mean acceptance "
        f"probability {diagnostics.acceptance_rate:.2f}",
    }
    slices = {"Work": f"{diagnostics.steps_per_draw:.0f} likelihoods evaluated a draw"}
    return {
        "Draws kept": f"{diagnostics.n_draws:,}",
        "Largest R-hat": rhat,
        "Smallest effective sample size": f"{diagnostics.ess_bulk.min():,.0f} in the bulk, "
        f"{diagnostics.ess_tail.min():,.0f} in the tails; {diagnostics.n_ess_low:,} of "
        f"{n_latents:,} latents are below 400",
        **(trajectories if diagnostics.sampler == "nuts" else slices),
        "Speed": f"{_duration(diagnostics.seconds)} of sampling, {diagnostics.ess_per_second:.1f} "
        "effective draws a second",
    }


def _diagnostic_pictures(name: str, diagnostics: "Diagnostics") -> list[Picture]:
    pictures = [
        Picture(
            _svg(plot_diagnostics, diagnostics, quantity="ess", height=2.3),
            "Effective sample size of every latent",
            f"Histogram of the effective sample sizes of {name}, from {diagnostics.ess_min:.0f}.",
        )
    ]
    if np.isfinite(diagnostics.rhat).any():
        pictures.append(
            Picture(
                _svg(plot_diagnostics, diagnostics, quantity="rhat", height=2.3),
                "R-hat of every latent",
                f"Histogram of R-hat of {name}, up to {diagnostics.rhat_max:.3f}.",
            )
        )
    return pictures


def _listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _number(value: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plus_minus(value: float, se: float, significant: int = 2) -> str:
    """A value and its standard error, with so many digits of the latter."""
    if not se > 0:
        return f"{value:.4f}"
    digits = min(max(significant - 1 - int(np.floor(np.log10(se))), 0), 4)
    return f"{value:.{digits}f} ±\N{NO-BREAK SPACE}{se:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 0.995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an optional one, or a source tree that is not installed
            continue
    return found


def _validated_images(images: ArrayLike, n_points: int) -> NDArray:
    array = np.asarray(images)
    is_grey, is_colour = array.ndim == 3, array.ndim == 4 and array.shape[-1] in (3, 4)
    if len(array) != n_points or not (is_grey or is_colour):
        raise ValueError(
            f"images must have shape [{n_points}, height, width] or [{n_points}, height, width, 3],"
            f" one for each test point, got {array.shape}."
        )
    return array


def _write_atomically(path: Path, text: str) -> None:
    """Write beside the target first, so that an interrupted run leaves nothing half-written."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file, so it cannot be replaced by a report.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

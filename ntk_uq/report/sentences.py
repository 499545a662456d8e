"""What a comparison shows, in words."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from ntk_uq.metrics import CalibrationCheck, calibration_check, pointwise_losses
from ntk_uq.report.choice import RegChoice, with_own
from ntk_uq.report.words import listed, number, plus_minus

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison, MethodSummary
    from ntk_uq.distances import Distance


# Confidence that differs less from the accuracy than this is "slightly" wrong.
_SLIGHT = 0.05


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
            f"At these numbers of draws the class probabilities of {listed(agreeing)} cannot be "
            f"told from those of {reference}."
        )
    if len(agreeing) < len(others):
        differing = [name for name in others if name not in agreeing]
        sentences.append(
            f"{listed(differing)} {'differs' if len(differing) == 1 else 'differ'} "
            f"from {reference} by more than sampling noise explains."
        )
    return " ".join(sentences), {name: _method_finding(comparison, name) for name in others}


def _score_findings(comparison: "Comparison") -> list[str]:
    accuracy = comparison.table["accuracy"]
    span = " to ".join(dict.fromkeys(f"{value:.1%}" for value in (accuracy.min(), accuracy.max())))
    sentences = [f"{span} of the {comparison.n_points:,} test points are classified right."]
    if len(comparison.methods) > 1:
        best = best_methods(comparison, "log_loss", "lower")
        if len(best) == len(comparison.methods):
            sentences.append("Log losses differ by no more than chance over the test points.")
        else:
            sentences.append(
                f"{listed(best)} {'has' if len(best) == 1 else 'have'} the lowest log loss."
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
        sentence.format(listed(by_verdict[verdict]))
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
        f"Its class probabilities lie {plus_minus(tv.value, tv.se)} from those of {reference} in "
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
            f"{plus_minus(ratio.value, ratio.se, significant=1)} times as large."
        )
    sentences += _further_findings(comparison, reference, distance)
    return " ".join(sentences)


def _further_findings(comparison: "Comparison", reference: str, distance: "Distance") -> list[str]:
    """Whether the latents, the functions and the order of the points differ, in words."""
    measures = {
        measure.aspect: getattr(distance, name)
        for name, measure in comparison.measures.items()
        if measure.aspect is not None
    }
    known = {words: estimate for words, estimate in measures.items() if np.isfinite(estimate.se)}
    differing = [words for words, estimate in known.items() if estimate.is_significant]
    same = [words for words, estimate in known.items() if not estimate.is_significant]
    sentences = []
    if differing:
        sentences.append(
            f"Beyond sampling noise it differs from {reference} in {listed(differing)}."
        )
    if same:
        sentences.append(f"No difference can be seen in {listed(same)}.")
    return sentences


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
    everything, found = with_own(comparison, choice), {}
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
        f"Its calibration error is {plus_minus(check.ece, check.ece_se)}; a calibrated forecast "
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
        prior = f"so wide a prior ({number(reg**-0.5)} times as wide as at reg = 1)"
    else:
        prior = f"a prior with reg = {number(reg)}"
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
        f"difference, {plus_minus(abs(gain), se)}, is {verdict}."
    )


def best_methods(
    comparison: "Comparison", score: str, better: Literal["higher", "lower"] | None
) -> list[str]:
    """The methods whose score is the best or, by a paired comparison, not clearly worse.

    Two methods are told apart where the mean difference of their losses exceeds two standard errors
    over the test points. Of what is not a mean of losses, none is the best.
    """
    if comparison.y_test is None or better is None:
        return []
    of_points = {
        name: pointwise_losses(comparison.y_test, method.proba, classes=comparison.classes)
        for name, method in comparison.methods.items()
    }
    losses = {name: found[score] for name, found in of_points.items() if score in found}
    if not losses:
        return []
    pick = max if better == "higher" else min
    leader = losses[pick(losses, key=lambda name: losses[name].mean())]
    return [
        name
        for name, loss in losses.items()
        if abs((loss - leader).mean()) <= 2 * (loss - leader).std() / np.sqrt(len(loss))
    ]

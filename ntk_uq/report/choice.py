"""How the regularisation was chosen, in words."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ntk_uq.report.words import number

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison
    from ntk_uq.selection.curve import RegCurve


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
            f" The choice is {number(factor)} times {'weaker' if curve.reg < 1 else 'stronger'}: "
            f"as a prior of functions, GP(0, Θ / reg), its logits are {number(factor**0.5)} "
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
            f"{number(own.reg)} (log loss {best} nats), of the powers of ten that were tried."
        )
    return sentences


def _criterion_finding(curve: "RegCurve") -> str:
    regs = f"{len(curve.regs)} values from {number(curve.regs[0])} to {number(curve.regs[-1])}"
    sentence = (
        f"All methods have the same regularisation, reg = {number(curve.reg)}, chosen from the "
        "training points alone"
    )
    at = int(np.argmin(np.abs(np.log(curve.regs / curve.reg))))
    one = np.flatnonzero(np.isclose(curve.regs, 1))
    scores = np.max(np.where(np.isnan(curve.scores), -np.inf, curve.scores), axis=0)
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
        if len(one) and one[0] != at and np.isfinite(values[one[0]]):
            sentence += (
                f", {values[one[0]]:.{1 if curve.criterion == 'evidence' else 3}f} at reg = 1"
            )
        sentence += ")"
    if curve.criterion == "cv" and at in (0, len(curve.regs) - 1):
        sentence += ". It is the end of the range, and a value beyond it may be better still"
    return sentence + "."


def with_own(comparison: "Comparison", choice: RegChoice | None) -> "Comparison":
    """All methods, that of another regularisation too: for what is said of each by itself."""
    if choice is None or choice.own is None:
        return comparison
    return replace(
        comparison,
        methods=comparison.methods | choice.own.methods,
        reference=None,
        distances={},
    )

"""What a model decides of a row: by a threshold, by what decisions cost, or not at all."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ntk_uq.calibration import (
    Threshold,
    cost_threshold,
    least_cost,
    precision_threshold,
    recall_threshold,
    rejection_threshold,
)
from ntk_uq.tables.plan import REJECT, DecisionPlan, check_plan, class_of, cost_matrix

__all__ = ["Decisions", "check_promises", "decisions_from"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decisions:
    """How a model decides.

    Attributes
    ----------
    positive : int or None
        Number of the class that the threshold is of.
    threshold : Threshold or None
        Of its probability.
    cost : array of shape [C, K] or None
        What decisions cost: `calibration.least_cost`.
    rejection : Threshold or None
        Of the total uncertainty, in nats.
    """

    positive: int | None
    threshold: Threshold | float | None
    cost: Floats | None
    rejection: Threshold | None

    def decide(self, proba: Floats, uncertainty: Floats, classes: NDArray) -> NDArray:
        """The decision for each row, a class or "reject": [m], as text where there is either."""
        decision = proba.argmax(axis=1)
        if self.cost is not None:
            decision = least_cost(proba, self.cost)[0]
        if self.threshold is not None and self.positive is not None:
            value = self.threshold
            value = value.value if isinstance(value, Threshold) else value
            decision = np.where(proba[:, self.positive] >= value, self.positive, 1 - self.positive)
        if self.rejection is not None:
            decision = np.where(uncertainty > self.rejection.value, len(classes), decision)
        return np.array([*classes.astype(str), REJECT])[decision]

    def words(self, classes: NDArray) -> list[str]:
        """How it decides, and what is promised."""
        lines = []
        if self.cost is not None:
            words = "those of the least expected cost, if the probabilities are right"
            if self.cost.shape == (2, 2):
                words += f": {classes[1]} from a probability of {cost_threshold(self.cost):.3g} on"
            lines.append(f"Decisions: {words}")
        if self.threshold is not None and self.positive is not None:
            value, name = self.threshold, classes[self.positive]
            if isinstance(value, Threshold):
                lines.append(
                    f"Decisions: {name} from a probability of {value.value:.3g} on; "
                    f"{value.guarantee}{self._of_whom} ({value.held_out:.3g} of those held out)"
                )
            else:
                lines.append(f"Decisions: {name} from a probability of {value:g} on")
        if self.rejection is not None:
            lines.append(
                f"Rejected: rows with a total uncertainty above {self.rejection.value:.3g} nats; "
                f"{self.rejection.guarantee} ({self.rejection.share:.3g} of those held out)"
            )
        return lines

    @property
    def _of_whom(self) -> str:
        """Whose a threshold's promise is."""
        return "" if self.rejection is None else ", of those that are not rejected"

    def scores(self, y: NDArray, decided: NDArray, classes: NDArray) -> dict[str, float]:
        """How good decisions are, where the truth is known."""
        kept, truth = decided != REJECT, y.astype(str)
        scores = {}
        if self.rejection is not None or (~kept).any():
            scores["rejected"] = float(np.mean(~kept))
        if kept.any():
            scores["error of decisions"] = float(np.mean(decided[kept] != truth[kept]))
        if self.threshold is not None and self.positive is not None:
            name = str(classes[self.positive])
            taken, positive = decided == name, kept & (truth == name)
            if taken.any():
                scores["precision"] = float(np.mean(positive[taken]))
            if positive.any():
                scores["recall"] = float(np.mean(taken[positive]))
        if self.cost is not None:
            names = [*classes.astype(str), REJECT]
            rows = [names.index(t) for t in truth]
            columns = [min(names.index(d), self.cost.shape[1] - 1) for d in decided]
            scores["cost of a decision"] = float(np.mean(self.cost[rows, columns]))
        return scores


def check_promises(plan: DecisionPlan, classes: NDArray, y: NDArray) -> None:
    """Refuse what held-out rows could not promise of any model: there is none to wait for.

    A recall and a share that is rejected are promised by numbers of rows; of positive ones as many
    as there are, where others are rejected before them. A precision is the model's.

    Parameters
    ----------
    plan, classes
        As in `decisions_from`.
    y : array of shape [n]
        Labels of held-out rows.
    """
    if isinstance(plan.threshold, tuple) and plan.threshold[0] == "precision":
        plan = replace(plan, threshold=None)
    positive = 1 if plan.positive is None else class_of(plan.positive, classes)
    doubtful = np.argsort(y != classes[positive], kind="stable")
    uncertainty = np.argsort(doubtful).astype(np.float64)
    decisions_from(plan, classes, y, (y[:, None] == classes).astype(np.float64), uncertainty)


def decisions_from(
    plan: DecisionPlan,
    classes: NDArray,
    y: NDArray | None = None,
    proba: Floats | None = None,
    uncertainty: Floats | None = None,
) -> Decisions:
    """The decisions that a plan asks for, from held-out rows where it needs some.

    Parameters
    ----------
    plan : DecisionPlan
        What is asked.
    classes : array of shape [C]
        The model's.
    y, proba, uncertainty : arrays of shape [n], [n, C] and [n], optional
        Labels, probabilities and total uncertainties of held-out rows.

    Raises
    ------
    ValueError
        If it names what is no class, asks for a threshold among more than two, or the held-out rows
        cannot promise it.
    """
    positive, rejection = None, None
    threshold: Threshold | float | None = None
    check_plan(plan, classes)
    if plan.reject is not None and uncertainty is not None:
        rejection = rejection_threshold(uncertainty, plan.reject)
        if math.isinf(rejection.value):
            raise ValueError(
                f"{len(uncertainty)} held-out rows cannot promise that at most {plan.reject:g} are "
                "rejected: ask for more, or give more rows"
            )
        if y is not None and proba is not None:
            # A threshold is promised of what is left. Given the row at which rejection begins,
            # those below are as rows are that will not be rejected.
            left = uncertainty < rejection.value
            y, proba = y[left], proba[left]
    if plan.threshold is not None:
        positive = 1 if plan.positive is None else class_of(plan.positive, classes)
        if not isinstance(plan.threshold, tuple):
            threshold = plan.threshold
        elif y is not None and proba is not None:
            kind, share = plan.threshold
            find = precision_threshold if kind == "precision" else recall_threshold
            found = find(y == classes[positive], proba[:, positive], share)
            if math.isinf(found.value):
                n = int(np.sum(y == classes[positive]))
                raise ValueError(
                    f"no threshold promises a {kind} of {share:g} with confidence "
                    f"{found.confidence:g} from the {len(y)} rows that are held out"
                    f"{'' if rejection is None else ' and not rejected'}, "
                    f"{n} of them {classes[positive]}: ask for less, or give more rows"
                )
            threshold = found
    cost = None if plan.costs is None else cost_matrix(plan.costs, classes)
    return Decisions(positive, threshold, cost, rejection)

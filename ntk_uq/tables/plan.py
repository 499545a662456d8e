"""What shall be decided of rows, before there is a model.

No more than NumPy is imported here, so that mistakes are said at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk_uq.tables.cells import meaning

__all__ = ["REJECT", "DecisionPlan", "check_plan", "class_of", "cost_matrix"]

# The decision to leave a row to someone else.
REJECT = "reject"


@dataclass(frozen=True)
class DecisionPlan:
    """What shall be decided, before there is a model.

    Attributes
    ----------
    threshold : float, ("precision", float), ("recall", float) or None
        From which probability on a row is positive; or what shall be promised of those.
    positive : str or None
        The class that a threshold is of. None: the second of two.
    costs : mapping of (class, decision) to float, or None
        What decisions cost, 0 where nothing is said; a decision is a class or "reject".
    reject : float or None
        Largest share of rows that is left to someone else, the most uncertain ones.
    """

    threshold: float | tuple[str, float] | None = None
    positive: str | None = None
    costs: Mapping[tuple[str, str], float] | None = None
    reject: float | None = None

    @property
    def needs_held_out(self) -> bool:
        """Whether rows must be held out for it."""
        return isinstance(self.threshold, tuple) or self.reject is not None


def check_plan(plan: DecisionPlan, classes: NDArray) -> None:
    """Refuse what names no class, a threshold among more than two, costs that decide nothing."""
    if REJECT in classes.astype(str):
        raise ValueError(
            f"the class {REJECT!r} has the name of the decision to leave a row to someone else: "
            "rename it, or fit without decisions"
        )
    if plan.threshold is not None and len(classes) != 2:
        raise ValueError(
            f"a threshold decides between two classes, and there are {len(classes)}: give what "
            "decisions cost (--cost), or how many rows may be rejected (--reject)"
        )
    if plan.positive is not None:
        class_of(plan.positive, classes)
    if plan.costs is not None:
        _check_cost(cost_matrix(plan.costs, classes), classes)


def class_of(text: str, classes: NDArray) -> int:
    """The number of the class that a text names."""
    known = [meaning(str(c)) for c in classes]
    if meaning(text) not in known:
        raise ValueError(
            f"there is no class {text!r}: the classes are {', '.join(map(str, classes))}"
        )
    return known.index(meaning(text))


def cost_matrix(costs: Mapping[tuple[str, str], float], classes: NDArray) -> NDArray[np.float64]:
    """What decisions cost, [C, K], for classes in their order; "*" is any class."""
    rejects = any(decision == REJECT for _, decision in costs)
    matrix = np.zeros((len(classes), len(classes) + rejects))
    for (truth, decision), value in costs.items():
        columns: Any = len(classes) if decision == REJECT else class_of(decision, classes)
        rows: Any = slice(None) if truth == "*" else class_of(truth, classes)
        matrix[rows, columns] = value
    return matrix


def _check_cost(cost: NDArray[np.float64], classes: NDArray) -> None:
    """Refuse costs by which all rows are decided alike, or wrong decisions are the cheaper ones."""
    for name, column in zip([*classes, REJECT], cost.T, strict=False):
        if np.all(column <= cost.min(axis=1)):
            raise ValueError(
                f"by these costs {name} is the cheapest decision for every row, of whatever class: "
                "say what it costs where it is wrong, by --cost TRUE:DECISION=C once more"
            )
    if cost.shape == (2, 2) and np.any(np.diag(cost) >= np.diag(cost[:, ::-1])):
        raise ValueError(
            f"by these costs it is cheaper to take {classes[0]} for {classes[1]}, and the other "
            "way round, than to be right; --cost TRUE:DECISION=C names the true class first"
        )
